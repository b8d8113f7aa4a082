//! Each check lets pass what is right and names what is not.

use std::collections::BTreeSet;

use berth_routing::Generation;

use super::*;
use crate::event::{GoneCause, StopReason};
use crate::route::{must_publish, snapshot};
use crate::scene::{Scene, shop, v};
use crate::state::Split;

fn id(checked: Checked) -> Option<&'static str> {
    checked.err().map(|breach| breach.invariant.id())
}

#[test]
fn ids_are_unique_and_listed() {
    let ids: BTreeSet<&str> = Invariant::ALL.iter().map(|it| it.id()).collect();
    assert_eq!(ids.len(), Invariant::ALL.len());
    let page = include_str!("../../../../docs/invariants.md");
    for id in ids {
        assert!(page.contains(&format!("| {id} |")), "docs/invariants.md explains {id}");
    }
}

#[test]
fn answers_and_snapshots_rest_on_what_is_durable() {
    assert_eq!((id(check_answer(3, 3)), id(check_answer(4, 3))), (None, Some("DUR-1")));
    let scene = Scene::serving(&["web"], 1, None);
    let next = snapshot(&scene.state);
    let at = next.generation;
    let (before, after) = (Generation(at.0 - 1), Generation(at.0 + 1));
    assert_eq!(id(check_snapshot(before, at, &next)), None);
    assert_eq!(id(check_snapshot(after, at, &next)), Some("RTE-3"));
    assert_eq!(id(check_snapshot(before, before, &next)), Some("RTE-3"));
}

#[test]
fn a_replay_gives_what_was_served() {
    let scene = Scene::serving(&["web"], 1, None);
    let mut other = scene.state.clone();
    assert_eq!(id(check_replay(&scene.state, &other)), None);
    other.position += 1;
    assert_eq!(id(check_replay(&scene.state, &other)), Some("DUR-2"));
}

#[test]
fn a_snapshot_shows_what_the_state_routes_and_no_endpoint_twice() {
    let mut scene = Scene::serving(&["web"], 2, None);
    let good = snapshot(&scene.state);
    assert_eq!(id(check_routes(&scene.state, &good)), None);
    assert!(!must_publish(&good, &good, &scene.state));
    let mut shared = good.clone();
    let backends = &mut shared.apps.get_mut(&shop()).unwrap().backends;
    backends[1].endpoint = backends[0].endpoint.clone();
    assert_eq!(id(check_routes(&scene.state, &shared)), Some("RTE-5"));
    for host in ["shop.localhost", "*.localhost"] {
        let mut claimed = good.clone();
        let hosts = vec![berth_routing::Host(host.to_owned())];
        let route = berth_routing::AppRoute {
            hosts,
            backends: Vec::new(),
            hold: berth_spec::Millis(0),
            rate_limits: Vec::new(),
            gate: berth_spec::Gate::Open,
            address: None,
            ..berth_routing::AppRoute::default()
        };
        claimed.apps.insert("acme/prod/other".parse().unwrap(), route);
        assert_eq!(id(check_routes(&scene.state, &claimed)), Some("RTE-6"), "{host}");
    }
    for (percent, ordinal) in [(100, 9), (90, 1)] {
        let mut cut = good.clone();
        let share = berth_routing::Share { release: v(1), percent, instances: [ordinal].into() };
        cut.apps.get_mut(&shop()).unwrap().shares = vec![share];
        assert_eq!(id(check_routes(&scene.state, &cut)), Some("RTE-7"), "{percent} {ordinal}");
    }
    let mut missing = good.clone();
    missing.apps.get_mut(&shop()).unwrap().backends[0].role = Role::Parked;
    assert_eq!(id(check_routes(&scene.state, &missing)), Some("RTE-2"));
    scene.fact(crate::command::Fact::Gone { ordinal: 1, cause: GoneCause::Lost }).unwrap();
    assert_eq!(id(check_routes(&scene.state, &good)), Some("RTE-4"));
    assert!(must_publish(&good, &snapshot(&scene.state), &scene.state));
}

#[test]
fn only_what_is_ready_is_newly_routed_to() {
    let mut scene = Scene::serving(&["web"], 1, None);
    let (app, world) = (scene.app().clone(), scene.world.clone());
    assert_eq!(id(check_newly_routed(&app, &[1].into(), &world)), None);
    scene.healthy = false;
    scene.deploy(None);
    scene.run_until(|it| it.world.instances.contains_key(&2));
    let found = check_newly_routed(scene.app(), &[1, 2].into(), &scene.world);
    assert_eq!(id(found), Some("RTE-4"));
}

#[test]
fn stops_leaks_and_artifacts() {
    let scene = Scene::serving(&["web"], 1, None);
    let app = scene.app();
    assert_eq!(id(check_stop(app, 1, &scene.world, true)), Some("RTE-1"));
    assert_eq!(id(check_stop(app, 9, &scene.world, false)), None);
    assert_eq!(id(check_leaks(app, &[1].into())), None);
    assert_eq!(id(check_leaks(app, &[1, 9].into())), Some("INS-1"));
    let kept = kept_artifacts(app);
    assert_eq!((kept.len(), id(check_artifacts(app, &kept))), (1, None));
    assert_eq!(id(check_artifacts(app, &BTreeSet::new())), Some("DEP-3"));
}

#[test]
fn a_wrong_state_is_found() {
    type Change = fn(&mut App);
    let cases: [(&str, Change); 7] = [
        ("RTE-4", |app| {
            app.routed.insert(9);
        }),
        ("RTE-4", |app| app.instances.get_mut(&1).unwrap().stopping = Some(StopReason::Retired)),
        ("RTE-4", |app| app.instances.get_mut(&1).unwrap().port = None),
        ("RTE-4", |app| app.serving = None),
        ("RTE-7", |app| app.split = Some(Split { release: v(1), percent: 10, held: false })),
        ("RTE-7", |app| app.split = Some(Split { release: v(9), percent: 10, held: false })),
        ("DEP-1", |app| {
            let release = app.releases.get_mut(&v(1)).unwrap();
            std::sync::Arc::make_mut(release).phase = Phase::Activating;
        }),
    ];
    let good = Scene::serving(&["web"], 1, None).app().clone();
    assert_eq!(id(check_app(&good)), None);
    for (expected, change) in cases {
        let mut app = good.clone();
        change(&mut app);
        assert_eq!(id(check_app(&app)), Some(expected));
    }
}

#[test]
fn a_wrong_step_is_found() {
    let good = Scene::serving(&["web"], 1, None).app().clone();
    let assigned = Event::InstanceAssigned {
        ordinal: 1,
        process: "web".parse().unwrap(),
        release: v(1),
        token: "a".to_owned(),
    };
    assert_eq!(id(check_step(&good, &[assigned], &good)), Some("NUM-1"));
    let again = Event::ReleaseActivated { number: v(1), previous: None };
    assert_eq!(id(check_step(&good, &[again], &good)), Some("DEP-2"));
    let mut dark = good.clone();
    dark.routed.clear();
    for why in [StopReason::Replaced, StopReason::ScaledDown, StopReason::Retired] {
        let stop = Event::InstanceStopping { ordinal: 1, why };
        assert_eq!(id(check_step(&good, &[stop], &dark)), Some("RTE-2"), "whatever it is said to be for");
    }
    let gone = Event::InstanceGone { ordinal: 1, cause: GoneCause::Lost };
    assert_eq!(id(check_step(&good, &[gone], &dark)), None);
}
