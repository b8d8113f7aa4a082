//! What a command of a build costs more in its sandbox: `/bin/true`, from its start to its end, with less and with more around it.

use std::collections::BTreeMap;
use std::error::Error;
use std::os::unix::fs::chown;
use std::path::Path;

use berth_clock::{Clock as _, SystemClock, random_bytes};
use berth_process::{
    Controller, Enclosed, Enclosure as _, Ground, Group, Launch, Limits, Mark, Program, User,
};
use berth_runtime::{Network, Runtime as _};

use crate::{Outcome, USER, median, open};

/// A kind of start, by the name of what it takes.
type Kind<'a> = (&'static str, Box<dyn Fn() -> Outcome<Launch> + 'a>);

/// Measures `count` commands of each kind, in turn.
pub(crate) fn measure(home: &Path, count: usize) -> Outcome<()> {
    let runtime = open(home)?;
    let controllers = || Controller::ALL.into();
    let machine = runtime.commands(home.to_owned(), controllers(), Network::Host)?;
    let has_way_out = runtime.capabilities().no_egress.is_none();
    let own = runtime.commands(home.to_owned(), controllers(), Network::Own)?;
    let mut kinds: Vec<Kind<'_>> = vec![
        ("bare_ms", Box::new(|| Ok(Launch::new(Program::Tenant(command(home, false)?.program))))),
        ("sandbox_ms", Box::new(|| machine.enclose(&command(home, false)?).map_err(plain))),
        ("offline_ms", Box::new(|| machine.enclose(&command(home, true)?).map_err(plain))),
    ];
    if has_way_out {
        kinds.push(("way_out_ms", Box::new(|| own.enclose(&command(home, false)?).map_err(plain))));
    }
    let clock = SystemClock::new();
    let mut took: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for _ in 0..count {
        for (name, launch) in &kinds {
            let began = clock.monotonic();
            let ended = launch()?.group(Group::Session).die_with_parent().start()?.wait()?;
            if !ended.success() {
                return Err(format!("{name}: {ended}").into());
            }
            took.entry(name).or_default().push((clock.monotonic() - began).as_secs_f64() * 1_000.0);
        }
    }
    let medians: BTreeMap<&str, f64> =
        took.iter_mut().map(|(name, values)| (*name, median(values))).collect();
    println!("{}", serde_json::to_string(&medians)?);
    Ok(())
}

/// The error as this program has errors.
fn plain(error: Box<dyn Error + Send + Sync>) -> Box<dyn Error> {
    error
}

fn command(home: &Path, offline: bool) -> Outcome<Enclosed> {
    let place = |name: &str| -> Outcome<_> {
        let path = home.join(name);
        std::fs::create_dir_all(&path)?;
        Ok(path)
    };
    let (src, tmp, root) = (place("src")?, place("scratch")?, place("place")?);
    let user =
        rustix::process::geteuid().is_root().then(|| User { uid: USER, gid: USER, groups: Vec::new() });
    for own in [&src, &tmp].into_iter().filter(|_| user.is_some()) {
        chown(own, Some(USER), Some(USER))?;
    }
    let program = Ground::new(&src, user)?.program("true", "/bin".as_ref());
    let Some(Program::Tenant(program)) = program else { return Err("there is no /bin/true".into()) };
    Ok(Enclosed {
        program,
        args: Vec::new(),
        env: BTreeMap::new(),
        mark: Mark(random_bytes(&SystemClock::new())),
        limits: Limits::default(),
        cgroup: None,
        readable: Vec::new(),
        writable: vec![src],
        tmp,
        root,
        offline,
    })
}
