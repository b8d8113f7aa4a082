//! Roles are killed under load: control's death is not noticed by clients, edge's by those alone whom it was answering.

use std::time::Duration;

use berth_acceptance::load::{Activation, Kill, Load, Options as LoadOptions};
use berth_acceptance::{Options, Platform, Source, Victim, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

fn with_app() -> Platform {
    let platform = Platform::start(Options::default());
    let source = Source::built(&platform);
    let _released = platform.cli(["deploy".as_ref(), source.path().as_os_str()]).ok();
    platform
}

/// Kills the one process of a role and waits until another has taken its place and the platform answers.
fn kill(platform: &Platform, load: &Load, role: Victim) -> Kill {
    let old = platform.role(&role.to_string());
    let prey = platform.prey(role).pop().unwrap_or_else(|| panic!("there is no {role}"));
    assert_eq!(old, [prey.pid], "{role}");
    let at = load.now();
    let connections = prey.stop();
    assert!(prey.kill(), "{role} had ended");
    let effect = load.now() - at;
    let back = || {
        let new = platform.role(&role.to_string());
        new.len() == 1 && new != old && platform.cli(["status"]).status == 0
    };
    assert!(wait_until(PATIENCE, back), "{role} does not return: {}", platform.log("supervisor"));
    Kill { what: role.to_string(), at, effect, refuses: false, connections: Some(connections) }
}

/// Lets the load go on until it has sent some more.
fn let_it_send(load: &Load) {
    let enough = load.begun() + 200;
    assert!(wait_until(PATIENCE, || load.begun() >= enough));
}

fn active() -> [Activation; 1] {
    [Activation { names: vec!["v1".to_owned()], submitted: Duration::ZERO, active: Duration::ZERO }]
}

#[test]
fn nobody_notices_that_control_was_killed() {
    let platform = with_app();
    let load = Load::start(LoadOptions::new(platform.edge(), Source::APP));
    for _ in 0..3 {
        let_it_send(&load);
        let _killed = kill(&platform, &load, Victim::Control);
    }
    let_it_send(&load);
    let outcome = load.stop();
    println!("{outcome}");
    outcome.assert_clean(&active(), &[]);
}

#[test]
fn a_killed_edge_fails_what_it_was_answering_alone() {
    let platform = with_app();
    let load = Load::start(LoadOptions::new(platform.edge(), Source::APP));
    let mut kills = Vec::new();
    for _ in 0..3 {
        let_it_send(&load);
        kills.push(kill(&platform, &load, Victim::Edge));
    }
    let_it_send(&load);
    let outcome = load.stop();
    println!("{outcome}");
    outcome.assert_clean(&active(), &kills);
}

#[test]
fn nobody_notices_that_the_supervisor_was_killed_and_followed() {
    let mut platform = with_app();
    let load = Load::start(LoadOptions::new(platform.edge(), Source::APP));
    for _ in 0..2 {
        let_it_send(&load);
        platform.kill(platform.supervisor());
        platform.start_again();
        assert!(wait_until(PATIENCE, || platform.role("edge").len() == 1));
    }
    let_it_send(&load);
    let outcome = load.stop();
    println!("{outcome}");
    outcome.assert_clean(&active(), &[]);
}
