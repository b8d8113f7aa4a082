//! People: they ask for everything at once, and ask again with the same key when no answer comes.

use std::collections::{BTreeMap, BTreeSet};

use berth_control::command::{Command, Deploy, RunWish, Wish};
use berth_control::decide::next_secret_version;
use berth_control::event::{Grant, RunMode, SealedSecret, VolumeDeed, VolumeWork};
use berth_control::invariant::{Breach, Invariant};
use berth_control::state::{App, State};
use berth_spec::manifest::{Concurrency, CronEntry, Manifest, Sleep, Strategy, Volume};
use berth_spec::{AppId, CronName, EnvName, Gate, HostName, Millis, ProcessName, ReleaseNumber};

use crate::builder;
use crate::chance::Chance;
use crate::control::{Answer, Control};
use crate::disk::{Disk, Kept};
use crate::fault::Fault;
use crate::world::Outside;

/// The apps that people work on; some share a project, some a tenant, some nothing.
const APPS: [&str; 6] = [
    "default/default/shop",
    "default/default/blog",
    "default/jobs/shop",
    "acme/prod/api",
    "acme/prod/site",
    "zeta/x/one",
];

/// All people together.
#[derive(Debug, Default)]
pub(crate) struct Users {
    count: u64,
    /// What nobody has answered yet, by key.
    open: BTreeMap<String, Command>,
    answered: Vec<(String, Command)>,
    acknowledged: BTreeMap<String, Kept>,
}

pub(crate) fn apps() -> impl Iterator<Item = AppId> {
    APPS.iter().map(|app| app.parse().expect("the ids of the simulation are ids"))
}

fn env(name: &str) -> EnvName {
    name.parse().expect("the variables of the simulation are named well")
}

impl Users {
    /// Somebody asks for something, or again for what got no answer, or once more for what did.
    pub(crate) fn ask(&mut self, control: &mut Control, out: &mut Outside) -> Result<(), Breach> {
        let open: Vec<&String> = self.open.keys().collect();
        let (key, command) = match out.chance.below(8) {
            0 | 1 if !open.is_empty() => {
                let key = open[out.chance.below(open.len())].clone();
                out.tally.add(Fault::AskedAgain);
                let command = self.open[&key].clone();
                (key, command)
            }
            2 if !self.answered.is_empty() => {
                out.tally.add(Fault::AskedAgain);
                self.answered[out.chance.below(self.answered.len())].clone()
            }
            _ => {
                self.count += 1;
                let command = self.wish(control.ledger.speculative(), &out.chance);
                (format!("k{}", self.count), command)
            }
        };
        self.send(key, command, control, out)
    }

    /// Everybody who got no answer asks again.
    pub(crate) fn ask_all_again(&mut self, control: &mut Control, out: &mut Outside) -> Result<(), Breach> {
        for (key, command) in self.open.clone() {
            self.send(key, command, control, out)?;
        }
        Ok(())
    }

    /// Nobody wants requests shared in a way of his own any more, which would stay so for ever.
    pub(crate) fn end_shares(&mut self, control: &mut Control, out: &mut Outside) -> Result<(), Breach> {
        let shared: Vec<AppId> = apps()
            .filter(|id| control.ledger.speculative().live_app(id).is_some_and(|app| app.split.is_some()))
            .collect();
        for app in shared {
            self.count += 1;
            self.send(format!("k{}", self.count), Command::App { app, wish: Wish::Abort }, control, out)?;
        }
        Ok(())
    }

    fn send(
        &mut self,
        key: String,
        command: Command,
        control: &mut Control,
        out: &mut Outside,
    ) -> Result<(), Breach> {
        out.trace.add(out.chance.now(), format_args!("{key} asks: {}", in_short(&command)));
        self.open.insert(key.clone(), command.clone());
        control.submit(&command, "somebody", Some(key), out)?;
        Ok(())
    }

    /// Takes note of the answers that were given.
    pub(crate) fn hear(&mut self, out: &mut Outside) -> Result<(), Breach> {
        for (key, answer) in std::mem::take(&mut out.answers) {
            out.trace.add(out.chance.now(), format_args!("{key} is answered: {answer:?}"));
            let command = self.open.remove(&key);
            let Answer::Done(kept) = answer else { continue };
            self.answered.extend(command.map(|command| (key.clone(), command)));
            let before = self.acknowledged.insert(key.clone(), kept.clone());
            if before.as_ref().is_some_and(|before| *before != kept) {
                return Err(lost(format!("{key} was answered {before:?} and then {kept:?}")));
            }
        }
        Ok(())
    }

    /// Everything that was ever acknowledged is in the journal.
    pub(crate) fn check(&self, disk: &Disk) -> Result<(), Breach> {
        for (key, kept) in &self.acknowledged {
            if disk.kept(key) != Some(kept) || kept.position > disk.head {
                return Err(lost(format!(
                    "{key} was answered {kept:?}, and the journal has {:?}",
                    disk.kept(key)
                )));
            }
        }
        Ok(())
    }

    fn wish(&self, state: &State, chance: &Chance) -> Command {
        let all: Vec<AppId> = apps().collect();
        let app = all[chance.below(all.len())].clone();
        if !state.platform.projects.contains(&app.project_id()) {
            return Command::EnsureProject { project: app.project_id() };
        }
        let of = state.live_app(&app);
        let wish = match chance.below(51) {
            0 => Wish::Create,
            1 => Wish::Destroy { volumes: chance.one_in(3) },
            2..=4 => {
                let set = [(env("LEVEL"), format!("{}", chance.below(4)))].into();
                let unset: BTreeSet<EnvName> =
                    if chance.one_in(3) { [env("EXTRA")].into() } else { BTreeSet::new() };
                Wish::ChangeConfig { set, unset }
            }
            5..=7 => secrets(state, &app, chance),
            8..=14 => {
                let counts = ["web", "worker"].map(|process| {
                    let process: ProcessName = process.parse().expect("it is a name");
                    (process, u32::try_from(chance.below(4)).expect("it is below four"))
                });
                let chosen = counts.into_iter().filter(|(process, _)| process.is_web() || chance.one_in(2));
                Wish::Scale { processes: chosen.collect() }
            }
            15..=21 => match of.and_then(|app| app.rollback_target()) {
                Some(to) => Wish::Rollback { to, keep_config: chance.one_in(3) },
                None => Wish::Rollback { to: ReleaseNumber(1 + chance.below(5) as u64), keep_config: false },
            },
            22 => {
                let tenant = app.tenant_id();
                let grants = vec![Grant::Tenant { tenant }];
                let token = format!("t{}", self.count);
                return Command::IssueToken { token, sha256: "00".repeat(32), grants };
            }
            23..=26 => domains(of, chance),
            27..=28 => Wish::Run(Box::new(self.run(chance))),
            32..=33 => {
                Wish::ChangeGate { gate: [Gate::Open, Gate::Paused, Gate::Maintenance][chance.below(3)] }
            }
            47..=48 => Wish::SetTraffic {
                // Of the two that may stand, and now and then of one that does not.
                release: ReleaseNumber(1 + chance.below(of.map_or(1, |app| app.releases.len() + 1)) as u64),
                percent: [0, 10, 50, 100][chance.below(4)],
            },
            49 => Wish::Promote,
            50 => Wish::Abort,
            30..=31 => Wish::WorkOnVolume { work: self.volume_work(chance) },
            29 => Wish::RunCron { entry: cron_name(chance), token: format!("cron-{}", self.count) },
            _ => Wish::Deploy(Box::new(self.deploy(&app, chance))),
        };
        Command::App { app, wish }
    }

    fn run(&self, chance: &Chance) -> RunWish {
        RunWish {
            within: None,
            release: chance.one_in(3).then(|| ReleaseNumber(1 + chance.below(5) as u64)),
            command: berth_spec::command::Command::Argv(vec!["bin/console".to_owned()]),
            variables: BTreeSet::new(),
            mode: match chance.below(2) {
                0 => RunMode::Detached,
                _ => RunMode::Attached { terminal: chance.one_in(2) },
            },
            limit: Millis::from_secs(30),
            token: format!("run-{}", self.count),
        }
    }

    fn volume_work(&self, chance: &Chance) -> VolumeWork {
        VolumeWork {
            volume: "data".parse().expect("it is a name"),
            snapshot: format!("20261127T{:06}Z", self.count % 1_000_000).parse().expect("it is a moment"),
            what: [VolumeDeed::Snapshot, VolumeDeed::Restore][chance.below(2)],
        }
    }

    fn deploy(&self, app: &AppId, chance: &Chance) -> Deploy {
        let mut manifest = Manifest { app: Some(app.app.clone()), ..Manifest::default() };
        manifest.deploy.strategy = [
            None,
            None,
            Some(Strategy::Rolling),
            Some(Strategy::BlueGreen),
            Some(Strategy::Recreate),
            Some(Strategy::Canary),
        ][chance.below(6)];
        manifest.deploy.canary.steps = vec![20, 60, 100];
        manifest.deploy.canary.interval = Millis::from_secs(20);
        manifest.deploy.timeout = Millis::from_secs(40);
        manifest.deploy.warm = Millis::from_secs([0, 60, 60, 180][chance.below(4)]);
        manifest.deploy.release_command =
            chance.one_in(4).then(|| berth_spec::command::Command::Argv(vec!["bin/migrate".to_owned()]));
        if chance.one_in(3) {
            let sleep = Sleep {
                idle_after: Millis::from_secs([2, 20][chance.below(2)]),
                stop_after: Millis::from_secs([0, 60, 600][chance.below(3)]),
            };
            manifest.scale = [("web".parse().expect("it is a name"), sleep)].into();
        }
        manifest.shutdown.drain = Millis::from_secs(5);
        manifest.shutdown.kill_after = Millis::from_secs(5);
        if chance.one_in(2) {
            manifest.cron = (0..=chance.below(2)).map(|_| (cron_name(chance), cron_entry(chance))).collect();
        }
        if chance.one_in(3) {
            manifest.volumes = [("data".parse().expect("it is a name"), volume(chance))].into();
        }
        if chance.one_in(6) {
            manifest.http.hosts = vec!["shop.example.com".parse().expect("it is a host")];
        }
        Deploy {
            tree: builder::tree(chance, self.count),
            manifest,
            description: Some("a change".to_owned()),
            commit: None,
        }
    }
}

fn cron_name(chance: &Chance) -> CronName {
    ["tidy", "report"][chance.below(2)].parse().expect("it is a name")
}

/// One that web has, or the worker, or both.
fn volume(chance: &Chance) -> Volume {
    let of: [&[&str]; 4] = [&[], &[], &["web"], &["worker"]];
    let processes = of[chance.below(4)].iter().map(|name| name.parse().expect("it is a name")).collect();
    Volume { path: "/data".parse().expect("it is a path"), size: None, processes }
}

fn cron_entry(chance: &Chance) -> CronEntry {
    let schedule = ["* * * * *", "* * * * *", "@hourly", "0 3 * * *"][chance.below(4)];
    let schedule = schedule.parse().expect("it is a schedule");
    let command = berth_spec::command::Command::Argv(vec!["bin/tidy".to_owned()]);
    CronEntry {
        timezone: ["UTC", "Europe/Berlin"][chance.below(2)].parse().expect("it is a time zone"),
        concurrency: Concurrency::NAMED[chance.below(3)].1,
        timeout: Millis::from_secs([30, 600][chance.below(2)]),
        catch_up: Millis::from_secs([0, 3_600, 7 * 86_400][chance.below(3)]),
        ..CronEntry::new(schedule, command)
    }
}

fn secrets(state: &State, app: &AppId, chance: &Chance) -> Wish {
    let of = state.apps.get(app).map(|app| &**app);
    let name = env(["KEY", "TOKEN"][chance.below(2)]);
    if chance.one_in(4) {
        return Wish::ChangeSecrets { set: BTreeMap::new(), unset: [name].into() };
    }
    let version = next_secret_version(of, &name);
    let value = SealedSecret { version, sealed: format!("sealed-{version}") };
    Wish::ChangeSecrets { set: [(name, value)].into(), unset: BTreeSet::new() }
}

/// Hosts that apps of one and of several tenants want, and that overlap.
const HOSTS: [&str; 5] =
    ["shop.example.com", "*.example.com", "www.shop.example.com", "*.shop.example.com", "shop.localhost"];

fn domains(app: Option<&std::sync::Arc<App>>, chance: &Chance) -> Wish {
    let host: HostName = HOSTS[chance.below(HOSTS.len())].parse().expect("it is a host");
    let owned = app.and_then(|app| app.domains.first().cloned()).filter(|_| chance.one_in(2));
    match owned {
        Some(owned) => Wish::ChangeDomains { add: BTreeSet::new(), remove: [owned].into() },
        None => Wish::ChangeDomains { add: [host].into(), remove: BTreeSet::new() },
    }
}

fn in_short(command: &Command) -> String {
    match command {
        Command::App { app, wish: Wish::Deploy(deploy) } => {
            let how = &deploy.manifest.deploy;
            format!("{app} deploy {} {:?} {:?} {}", deploy.tree, how.strategy, how.release_command, how.warm)
        }
        other => format!("{other:?}"),
    }
}

fn lost(detail: String) -> Breach {
    Breach { invariant: Invariant::AcknowledgedIsDurable, detail }
}
