//! Going back to a release that is warm starts nothing: the instances that served before serve again.

use std::collections::BTreeSet;
use std::time::Duration;

use berth_acceptance::load::{Activation, Load, Options as LoadOptions};
use berth_acceptance::{Options, Platform, Source, Victim, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

/// The ids and processes of the instances in `state`.
fn instances(platform: &Platform, state: &str) -> BTreeSet<(String, u64)> {
    let answer = platform.cli(["ps", "--app", Source::APP, "--json"]).ok().json();
    let all = answer["instances"].as_array().expect("it is a list");
    let such = all.iter().filter(|instance| instance["state"] == state);
    such.map(|it| (it["id"].as_str().expect("an id").to_owned(), it["pid"].as_u64().expect("it runs")))
        .collect()
}

fn processes(platform: &Platform) -> Vec<u32> {
    platform.prey(Victim::Instance).iter().map(|process| process.pid).collect()
}

#[test]
fn a_rollback_to_a_warm_release_only_moves_the_traffic() {
    let platform = Platform::start(Options::default());
    let source = Source::built(&platform);
    let _released = platform.cli(["deploy".as_ref(), source.path().as_os_str()]).ok();
    let _scaled = platform.cli(["scale", "web=2", "--app", Source::APP]).ok();
    assert!(wait_until(PATIENCE, || instances(&platform, "ready").len() == 2));
    let first = instances(&platform, "ready");
    let names = |release: &str| vec![release.to_owned()];
    let mut activations =
        vec![Activation { names: names("v1"), submitted: Duration::ZERO, active: Duration::ZERO }];

    let load = Load::start(LoadOptions::new(platform.edge(), Source::APP));
    let submitted = load.now();
    let _changed = platform.cli(["config", "set", "A=1", "--app", Source::APP]).ok();
    activations.push(Activation { names: names("v2"), submitted, active: load.now() });
    assert!(wait_until(PATIENCE, || instances(&platform, "warm") == first && processes(&platform).len() == 4));
    let (second, before) = (instances(&platform, "ready"), processes(&platform));

    // There and back: both are warm in turn, and each time the ones that served before serve again.
    for (back, brought, warm) in [("v1", &first, &second), ("v2", &second, &first)] {
        let submitted = load.now();
        let rollback = platform.cli(["rollback", back, "--app", Source::APP, "--json"]).ok().json();
        activations.push(Activation { names: names(back), submitted, active: load.now() });
        println!("back to {back} within {} ms", rollback["release"]["took_ms"]);
        assert!(wait_until(PATIENCE, || instances(&platform, "warm") == *warm));
        assert_eq!(instances(&platform, "ready"), *brought);
        assert_eq!(processes(&platform), before, "a process was started or ended");
    }
    let outcome = load.stop();
    println!("{outcome}");
    outcome.assert_clean(&activations, &[]);
}
