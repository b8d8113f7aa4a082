//! What the planner makes of each situation.

use std::time::Duration;

use berth_routing::Generation;
use berth_routing::wire::Health;
use berth_spec::Millis;
use berth_spec::manifest::Strategy;

use super::*;
use crate::command::{Refusal, Wish};
use crate::event::{Event, Exit, Failure, GoneCause, StopReason, WarmEnd};
use crate::scene::{Scene, deploy_of, manifest, shop, v, web, worker};
use crate::state::Phase;
use crate::world::{Build, EdgeProcess, Listener, ReleaseCommand};

fn activated(number: u64) -> impl Fn(&Event) -> bool {
    move |event| matches!(event, Event::ReleaseActivated { number: it, .. } if *it == v(number))
}

fn assigned(number: u64, process: ProcessName) -> impl Fn(&Event) -> bool {
    move |event| matches!(event, Event::InstanceAssigned { release, process: it, .. } if *release == v(number) && *it == process)
}

fn gone(ordinal: Ordinal) -> impl Fn(&Event) -> bool {
    move |event| matches!(event, Event::InstanceGone { ordinal: it, .. } if *it == ordinal)
}

/// In every way to rest the world is at rest: the same plan again and again, with nothing in it.
fn assert_rests(scene: &mut Scene) {
    let again = scene.plan();
    assert_eq!(again.actions, [], "{:?}", scene.app());
    assert_eq!(scene.plan(), again);
}

#[test]
fn blue_green_shifts_all_at_once_and_keeps_the_old_one_warm() {
    let mut scene = Scene::serving(&["web"], 2, None);
    scene.log.clear();
    scene.deploy(None);
    scene.run_until(|it| it.app().serving == Some(v(2)));
    assert_eq!((scene.app().warm, scene.routed_releases()), (Some(v(1)), [v(2)].into()));
    assert_eq!(scene.app().instances.len(), 4);
    let routings: Vec<_> = scene.log.iter().filter(|it| matches!(it, Event::Routed { .. })).collect();
    assert_eq!(routings.len(), 1, "{routings:?}");
    scene.settle();
    assert_eq!((scene.app().warm, scene.app().instances.len()), (None, 2));
    assert_rests(&mut scene);
}

#[test]
fn rolling_never_has_fewer_than_wanted() {
    let mut scene = Scene::serving(&["web"], 3, Some(Strategy::Rolling));
    scene.log.clear();
    scene.deploy(Some(Strategy::Rolling));
    scene.settle();
    let routings: Vec<usize> = scene
        .log
        .iter()
        .filter_map(|event| if let Event::Routed { ordinals } = event { Some(ordinals.len()) } else { None })
        .collect();
    assert_eq!(routings, [3, 3, 3]);
    assert_eq!((scene.app().serving, scene.app().instances.len()), (Some(v(2)), 3));
    assert_rests(&mut scene);
}

#[test]
fn recreate_has_the_old_one_gone_before_the_new_one_is_assigned() {
    let mut scene = Scene::serving(&["web"], 1, Some(Strategy::Recreate));
    scene.deploy(Some(Strategy::Recreate));
    scene.settle();
    assert!(scene.first(gone(1)) < scene.first(assigned(2, web())));
    assert_eq!((scene.app().serving, scene.app().warm), (Some(v(2)), None));
    assert_rests(&mut scene);
}

#[test]
fn a_worker_never_runs_twice_and_is_ready_after_a_while() {
    let mut scene = Scene::serving(&["web", "worker"], 1, None);
    let old = scene.app().running(v(1), &worker()).next().unwrap().0;
    scene.deploy(None);
    let began = scene.now;
    scene.run_until(|it| it.app().serving == Some(v(2)));
    assert!(scene.first(gone(old)) < scene.first(assigned(2, worker())));
    assert!(scene.now - began >= WORKER_READY.as_duration());
    scene.settle();
    assert_eq!(scene.app().instances.len(), 2);
    assert_rests(&mut scene);
}

#[test]
fn a_release_without_a_web_process_ends_the_old_one_for_good() {
    let mut scene = Scene::serving(&["web"], 2, None);
    scene.processes = vec!["worker"];
    scene.deploy(None);
    scene.settle();
    let assigned_web = scene.log.iter().filter(|it| assigned(1, web())(it)).count();
    assert_eq!(assigned_web, 2, "what is taken away is not started again");
    assert_eq!((scene.app().serving, scene.app().instances.len()), (Some(v(2)), 1));
    assert_rests(&mut scene);
    scene.processes = vec!["web", "worker"];
    scene.deploy(None);
    scene.settle();
    assert_eq!((scene.app().serving, scene.app().routed.len()), (Some(v(3)), 2));
}

#[test]
fn scale_follows_to_nothing_and_back() {
    let mut scene = Scene::serving(&["web"], 1, None);
    for count in [3, 0, 2, 1] {
        scene.scale(web(), count);
        scene.settle();
        assert_eq!(scene.app().routed.len(), count as usize);
        assert_eq!(scene.app().instances.len(), count as usize);
        assert_rests(&mut scene);
    }
}

#[test]
fn scaled_to_nothing_during_an_activation_it_still_ends() {
    for strategy in [Strategy::BlueGreen, Strategy::Rolling, Strategy::Recreate] {
        for when in 0..12 {
            let mut scene = Scene::serving(&["web", "worker"], 2, Some(strategy));
            scene.deploy(Some(strategy));
            (0..when).for_each(|_| drop(scene.pass()));
            scene.scale(web(), 0);
            scene.settle();
            let app = scene.app();
            assert_eq!(
                (app.serving, app.routed.len(), app.instances.len()),
                (Some(v(2)), 0, 1),
                "{strategy:?} {when}"
            );
            assert_rests(&mut scene);
        }
    }
}

#[test]
fn destroyed_at_any_moment_nothing_is_left() {
    for strategy in [Strategy::BlueGreen, Strategy::Rolling, Strategy::Recreate] {
        for when in 0..14 {
            let mut scene = Scene::serving(&["web", "worker"], 2, Some(strategy));
            let mut next = manifest(Some(strategy));
            next.deploy.release_command = Some(berth_spec::command::Command::Argv(vec!["bin/m".to_owned()]));
            scene.wish(deploy_of(next));
            (0..when).for_each(|_| drop(scene.pass()));
            scene.wish(Wish::Destroy { volumes: false });
            scene.settle();
            assert_eq!(scene.app().life, crate::state::Life::Destroyed, "{strategy:?} {when}");
            let world = &scene.world;
            assert!(world.instances.is_empty() && world.builds.is_empty() && world.commands.is_empty());
            assert_rests(&mut scene);
        }
    }
}

#[test]
fn a_rollback_within_the_time_takes_the_warm_instances() {
    let mut scene = Scene::serving(&["web"], 2, None);
    let first: Vec<Ordinal> = scene.app().instances.keys().copied().collect();
    scene.deploy(None);
    scene.run_until(|it| it.app().serving == Some(v(2)));
    scene.wish(Wish::Rollback { to: v(1), keep_config: false });
    scene.log.clear();
    scene.run_until(|it| it.app().serving == Some(v(3)));
    assert!(scene.app().routed.iter().eq(&first));
    assert!(!scene.log.iter().any(|it| matches!(it, Event::InstanceAssigned { .. })), "{:?}", scene.log);
    assert_eq!((scene.app().warm, scene.app().instances[&first[0]].started_as), (Some(v(2)), v(1)));
    // And forth again, the same way.
    scene.wish(Wish::Rollback { to: v(2), keep_config: false });
    scene.log.clear();
    scene.run_until(|it| it.app().serving == Some(v(4)));
    assert!(!scene.log.iter().any(|it| matches!(it, Event::InstanceAssigned { .. })));
}

#[test]
fn a_rollback_that_differs_in_configuration_starts_anew() {
    let mut scene = Scene::serving(&["web"], 1, None);
    let set = [("A".parse().unwrap(), "1".to_owned())].into();
    scene.wish(Wish::ChangeConfig { set, unset: [].into() });
    scene.run_until(|it| it.app().serving == Some(v(2)));
    scene.wish(Wish::Rollback { to: v(1), keep_config: true });
    scene.settle();
    assert_eq!(scene.app().release(v(3)).unwrap().config.len(), 1);
    scene.first(assigned(3, web()));
}

#[test]
fn the_warm_release_ends_for_each_reason() {
    type Change = fn(&mut Scene);
    let cases: [(WarmEnd, Change); 5] = [
        (WarmEnd::Expired, |scene| scene.now += Duration::from_secs(61)),
        (WarmEnd::MemoryPressure, |scene| scene.world.memory_short = true),
        (WarmEnd::Gone, |scene| {
            scene.world.instances.remove(&1);
        }),
        (WarmEnd::Displaced, |scene| scene.deploy(None)),
        (WarmEnd::Used, |scene| {
            scene.wish(Wish::Rollback { to: v(1), keep_config: false });
        }),
    ];
    for (why, change) in cases {
        let mut scene = Scene::serving(&["web"], 1, None);
        scene.deploy(None);
        scene.run_until(|it| it.app().warm == Some(v(1)));
        scene.pass();
        change(&mut scene);
        scene.run_until(|it| it.app().warm != Some(v(1)));
        scene.first(
            |event| matches!(event, Event::WarmEnded { number, why: it } if *number == v(1) && *it == why),
        );
    }
}

#[test]
fn the_newest_that_is_ready_supersedes_those_before() {
    let mut scene = Scene::serving(&["web"], 1, None);
    for _ in 0..3 {
        scene.deploy(None);
    }
    // The build of v3 takes longer than any other.
    scene.world.builds.insert(v(3), Build::Running);
    scene.settle();
    let phases = [2, 3, 4].map(|number| scene.app().release(v(number)).unwrap().phase);
    assert_eq!(phases, [Phase::Superseded, Phase::Superseded, Phase::Activated]);
    assert!(scene.world.builds.is_empty());
    assert!(!scene.log.iter().any(|it| assigned(2, web())(it) || assigned(3, web())(it)));
}

#[test]
fn what_waits_behind_an_activation_is_superseded_once_a_newer_one_is_built() {
    let mut scene = Scene::serving(&["web"], 1, None);
    scene.healthy = false;
    scene.deploy(None);
    scene.run_until(|scene| scene.app().activation.is_some());
    (0..3).for_each(|_| scene.deploy(None));
    // v3 is still being built when v4 and v5 stand.
    scene.world.builds.insert(v(3), Build::Running);
    scene.run_until(|scene| scene.app().release(v(4)).unwrap().phase.is_settled());
    scene.pass();
    let phases = [2, 3, 4, 5].map(|number| scene.app().release(v(number)).unwrap().phase);
    assert_eq!(phases, [Phase::Activating, Phase::Superseded, Phase::Superseded, Phase::Built]);
    assert!(!scene.world.builds.contains_key(&v(3)), "nobody needs its build any more");
    assert!(matches!(scene.fact(Fact::Supersede { by: v(4) }), Err(Refusal::Stale(_))));
    scene.healthy = true;
    scene.settle();
    assert_eq!(scene.app().serving, Some(v(5)));
    assert!(matches!(scene.fact(Fact::Supersede { by: v(5) }), Err(Refusal::Stale(_))));
    assert_rests(&mut scene);
}

#[test]
fn a_rollback_during_a_deploy_waits_for_its_turn() {
    for when in 0..8 {
        let mut scene = Scene::serving(&["web"], 2, None);
        scene.deploy(None);
        (0..when).for_each(|_| drop(scene.pass()));
        scene.wish(Wish::Rollback { to: v(1), keep_config: false });
        scene.settle();
        assert_eq!((scene.app().serving, scene.app().routed.len()), (Some(v(3)), 2), "{when}");
        assert_rests(&mut scene);
    }
}

#[test]
fn a_failed_build_or_release_command_leaves_everything_as_it_was() {
    let failure = Failure::new("x", "");
    let mut scene = Scene::serving(&["web"], 1, None);
    let before = scene.app().clone();
    scene.deploy(None);
    scene.world.builds.insert(v(2), Build::Failed(failure.clone()));
    scene.settle();
    scene.command = ReleaseCommand::Failed(failure);
    let mut next = manifest(None);
    next.deploy.release_command = Some(berth_spec::command::Command::Argv(vec!["bin/m".to_owned()]));
    scene.wish(deploy_of(next));
    scene.settle();
    assert_eq!((scene.failure_code(2), scene.failure_code(3)), (Some("x"), Some("x")));
    let app = scene.app();
    assert_eq!(
        (&app.instances, &app.routed, app.serving),
        (&before.instances, &before.routed, before.serving)
    );
    assert!(scene.world.commands.is_empty() && scene.world.builds.is_empty());
    assert_rests(&mut scene);
}

#[test]
fn each_way_not_to_get_ready_has_its_code() {
    type Change = fn(&mut crate::world::Seen);
    let exit = Exit { status: Some(1), signal: None, after: Millis(5), oom: None, unhealthy: false };
    let cases: [(&str, Change); 5] = [
        ("start_failed", |seen| {
            seen.life =
                crate::world::Life::NotStarted { code: "start_failed".to_owned(), detail: "no".to_owned() };
        }),
        ("crashed_at_start", |seen| seen.restarts = CRASHES),
        ("listens_elsewhere", |seen| seen.listener = Listener::Elsewhere(vec![3_000])),
        ("listens_elsewhere", |seen| seen.listener = Listener::Unreachable(vec!["::1".to_owned()])),
        ("never_listened", |_| {}),
    ];
    for (code, change) in cases {
        let mut scene = Scene::serving(&["web"], 1, None);
        scene.healthy = false;
        scene.deploy(None);
        scene.run_until(|it| it.world.instances.contains_key(&2));
        let seen = scene.world.instances.get_mut(&2).unwrap();
        seen.last_exit = Some(exit);
        change(seen);
        let routed = scene.app().routed.clone();
        scene.settle();
        assert_eq!(scene.failure_code(2), Some(code));
        let failure = scene.app().release(v(2)).unwrap().failure.clone().unwrap();
        assert!(code == "crashed_at_start" || !failure.detail.is_empty(), "{failure:?}");
        assert_eq!((&scene.app().routed, scene.app().instances.len()), (&routed, 1), "{code}");
        assert_rests(&mut scene);
    }
}

#[test]
fn an_instance_has_its_grace_to_get_ready_and_no_longer() {
    let mut scene = Scene::serving(&["web"], 1, None);
    scene.healthy = false;
    let mut next = manifest(None);
    next.http.readiness.grace = Millis::from_secs(30);
    scene.wish(deploy_of(next));
    let before = scene.now;
    scene.settle();
    assert_eq!(scene.failure_code(2), Some("never_listened"));
    let took = scene.now - before;
    assert!((30..60).contains(&took.as_secs()), "{took:?}");
}

#[test]
fn an_unhealthy_release_times_out_with_what_the_probes_said() {
    let mut scene = Scene::serving(&["web"], 1, None);
    scene.healthy = false;
    scene.deploy(None);
    scene.run_until(|it| it.world.instances.contains_key(&2));
    scene.world.instances.get_mut(&2).unwrap().listener = Listener::Expected;
    scene.world.health.get_mut(&2).unwrap().health = Health::Failing;
    scene.settle();
    assert_eq!(scene.failure_code(2), Some("health_check_failed"));
    let failure = scene.app().release(v(2)).unwrap().failure.clone().unwrap();
    assert_eq!(failure.detail, ["web.2 runs and listens on port 20002", "web.2: GET /healthz: 200"]);
}

#[test]
fn an_edge_that_does_not_follow_fails_the_shift_and_is_restarted() {
    let mut scene = Scene::serving(&["web"], 1, None);
    scene.deploy(None);
    scene.run_until(|it| it.app().instances.get(&2).is_some_and(|instance| instance.port.is_some()));
    scene.edge_follows = false;
    scene.run_until(|it| it.edge_restarts > 0);
    assert_eq!((scene.failure_code(2), scene.edge_restarts), (Some("edge_unresponsive"), 1));
    assert_eq!((scene.routed_releases(), scene.app().instances.len()), ([v(1)].into(), 2));
    scene.edge_follows = true;
    scene.settle();
    assert_rests(&mut scene);
}

#[test]
fn no_stop_before_edge_has_applied_and_drained() {
    let mut scene = Scene::serving(&["web"], 2, None);
    scene.edge_follows = false;
    scene.scale(web(), 1);
    scene.run_until(|it| it.app().instances.values().any(|it| !it.is_wanted()));
    let (&ordinal, instance) = scene.app().instances.iter().find(|(_, it)| !it.is_wanted()).unwrap();
    let unrouted = Generation(instance.routing_changed_at);
    let stops = |scene: &mut Scene| scene.plan().actions.contains(&Action::Stop(ordinal));
    let applied = |generation: u64| Some(EdgeProcess { applied: Generation(generation) });
    scene.world.edge.durable = Generation(unrouted.0 - 1);
    scene.world.edge.alive = None;
    assert!(!stops(&mut scene), "not durable");
    scene.world.edge.durable = unrouted;
    assert!(stops(&mut scene), "no edge is alive");
    scene.world.edge.alive = applied(unrouted.0 - 1);
    scene.world.drained.insert(ordinal, unrouted);
    assert!(!stops(&mut scene), "not applied");
    scene.world.edge.alive = applied(unrouted.0);
    scene.world.drained.insert(ordinal, Generation(unrouted.0 - 1));
    assert!(!stops(&mut scene), "drained before it was taken out");
    scene.now += Duration::from_secs(11);
    assert!(stops(&mut scene), "its time to drain is over");
    scene.world.drained.insert(ordinal, unrouted);
    assert!(stops(&mut scene), "drained");
}

#[test]
fn an_edge_that_stays_behind_is_restarted_once_in_its_time() {
    let mut scene = Scene::serving(&["web"], 1, None);
    scene.edge_follows = false;
    scene.world.edge.durable = Generation(scene.state.position + 1);
    let restarts =
        |scene: &mut Scene| scene.plan().actions.iter().filter(|it| **it == Action::RestartEdge).count();
    assert_eq!(restarts(&mut scene), 0);
    scene.now += APPLY_DEADLINE.as_duration();
    assert_eq!((restarts(&mut scene), restarts(&mut scene)), (1, 0));
    scene.world.edge.alive = None;
    scene.now += APPLY_DEADLINE.as_duration();
    assert_eq!(restarts(&mut scene), 0, "the supervisor starts it already");
}

#[test]
fn what_is_lost_is_replaced_and_what_is_strange_removed() {
    let mut scene = Scene::serving(&["web"], 2, None);
    scene.world.instances.remove(&1);
    scene.settle();
    assert_eq!(scene.app().routed, [2, 3].into());
    let cause = |event: &Event| matches!(event, Event::InstanceGone { cause: GoneCause::Lost, .. });
    scene.first(cause);
    let mut stranger = scene.world.instances[&2].clone();
    "other".clone_into(&mut stranger.token);
    scene.world.instances.insert(9, stranger.clone());
    assert_eq!(scene.plan().actions, [Action::Remove(9)]);
    scene.settle();
    // Something else runs under the ordinal: the instance is lost, and what runs is not it.
    scene.world.instances.insert(2, stranger);
    scene.settle();
    assert_eq!(scene.app().routed, [3, 4].into());
    assert_rests(&mut scene);
}

#[test]
fn a_new_instance_that_dies_after_the_shift_holds_the_activation_up() {
    let mut scene = Scene::serving(&["web"], 1, None);
    scene.deploy(None);
    scene.run_until(|it| it.routed_releases() == [v(2)].into());
    let new = *scene.app().routed.first().unwrap();
    scene.world.instances.remove(&new);
    scene.healthy = false;
    scene.run_until(|it| !it.app().instances.contains_key(&new));
    assert_ne!(scene.app().serving, Some(v(2)), "nothing of it serves");
    scene.run_until(|it| it.routed_releases() == [v(1)].into());
    scene.settle();
    assert_eq!((scene.app().serving, scene.failure_code(2)), (Some(v(1)), Some("never_listened")));
    assert_eq!(scene.routed_releases(), [v(1)].into());
    assert_rests(&mut scene);
}

#[test]
fn what_serves_and_cannot_be_started_is_tried_again() {
    let mut scene = Scene::serving(&["web"], 1, None);
    scene.scale(web(), 2);
    scene.run_until(|it| it.world.instances.contains_key(&2));
    let detail = "the disk is full".to_owned();
    scene.world.instances.get_mut(&2).unwrap().life =
        crate::world::Life::NotStarted { code: "start_failed".to_owned(), detail };
    let plan = scene.plan();
    assert_eq!((plan.actions.as_slice(), plan.look_again), (&[][..], Some(START_RETRY)));
    scene.settle();
    assert_eq!(scene.app().routed, [1, 2].into());
}

#[test]
fn a_stop_is_recorded_once() {
    let mut scene = Scene::serving(&["web"], 1, Some(Strategy::Recreate));
    scene.deploy(Some(Strategy::Recreate));
    scene.settle();
    let stops = |event: &&Event| matches!(event, Event::InstanceStopping { why: StopReason::Replaced, .. });
    assert_eq!(scene.log.iter().filter(stops).count(), 1);
    assert_eq!(scene.first(activated(2)) + 1, scene.log.len());
    assert_eq!(scene.app().id, shop());
}

/// A manifest with one volume, of these processes.
fn with_volume(processes: &[&str]) -> berth_spec::manifest::Manifest {
    let volume = berth_spec::manifest::Volume {
        path: "/data".parse().unwrap(),
        size: None,
        processes: processes.iter().map(|name| name.parse().unwrap()).collect(),
    };
    let mut manifest = manifest(None);
    manifest.volumes = [("data".parse().unwrap(), volume)].into();
    manifest
}

fn started(ordinal: Ordinal) -> impl Fn(&Event) -> bool {
    move |event| matches!(event, Event::InstanceStarted { ordinal: it, .. } if *it == ordinal)
}

#[test]
fn a_volume_is_let_go_of_before_the_next_release_has_it() {
    let mut scene = Scene::new();
    scene.processes = vec!["web", "worker"];
    for processes in [&[] as &[&str], &["web"], &["worker"], &[]] {
        scene.wish(deploy_of(with_volume(processes)));
        scene.settle();
    }
    // The scene checks each start; all of them came through, and nothing is kept warm that has the volume.
    assert_eq!((scene.app().serving, scene.app().warm), (Some(v(4)), None));
    assert_eq!(scene.app().instances.len(), 2);
    assert_rests(&mut scene);
    let web: Vec<Ordinal> = (1..=scene.app().last_ordinal).collect();
    assert!(scene.first(gone(web[0])) < scene.first(started(3)), "{:#?}", scene.log);
}

#[test]
fn a_first_volume_and_a_last_one_cost_no_gap() {
    let mut scene = Scene::serving(&["web"], 1, None);
    scene.wish(deploy_of(with_volume(&["web"])));
    scene.run_until(|it| it.app().serving == Some(v(2)));
    assert!(scene.log.iter().all(|it| !matches!(it, Event::Routed { ordinals } if ordinals.is_empty())));
    // What serves without it may start beside what has it, which is not kept warm for a release that wants it again.
    scene.deploy(None);
    scene.run_until(|it| it.app().serving == Some(v(3)));
    assert!(scene.log.iter().all(|it| !matches!(it, Event::Routed { ordinals } if ordinals.is_empty())));
    scene.wish(Wish::Rollback { to: v(2), keep_config: false });
    scene.settle();
    assert_eq!((scene.app().serving, scene.app().routed.len()), (Some(v(4)), 1));
    assert_rests(&mut scene);
}

#[test]
fn a_release_that_fails_gives_the_volume_back() {
    let mut scene = Scene::new();
    scene.wish(deploy_of(with_volume(&[])));
    scene.settle();
    scene.healthy = false;
    scene.wish(deploy_of(with_volume(&[])));
    scene.run_until(|it| it.app().release(v(2)).is_some_and(|release| release.phase == Phase::Failed));
    scene.healthy = true;
    scene.settle();
    assert_eq!((scene.app().serving, scene.app().routed.len()), (Some(v(1)), 1));
    assert!(scene.first(gone(2)) < scene.first(started(3)));
    assert_rests(&mut scene);
}

#[test]
fn an_instance_that_still_stops_keeps_the_volume() {
    let mut scene = Scene::new();
    scene.wish(deploy_of(with_volume(&[])));
    scene.settle();
    scene.scale(web(), 0);
    scene.run_until(|it| !it.app().instances[&1].is_wanted());
    scene.scale(web(), 1);
    scene.run_until(|it| it.app().instances.contains_key(&2));
    scene.settle();
    assert!(scene.first(gone(1)) < scene.first(started(2)));
    assert_eq!(scene.app().routed, [2].into());
}

#[test]
fn volumes_stay_unless_they_are_to_go() {
    for volumes in [false, true] {
        let mut scene = Scene::new();
        scene.wish(deploy_of(with_volume(&[])));
        scene.settle();
        scene.world.volumes_left = true;
        scene.wish(Wish::Destroy { volumes: false });
        if volumes {
            scene.wish(Wish::Destroy { volumes });
            assert_eq!(scene.wish(Wish::Destroy { volumes }), []);
        }
        scene.settle();
        assert_eq!(scene.app().life, crate::state::Life::Destroyed);
        assert_eq!(scene.world.volumes_left, !volumes);
    }
}

fn work(what: crate::event::VolumeDeed) -> Wish {
    let (volume, snapshot) = ("data".parse().unwrap(), "20261127T171530Z".parse().unwrap());
    Wish::WorkOnVolume { work: crate::event::VolumeWork { volume, snapshot, what } }
}

#[test]
fn a_volume_is_worked_on_while_nothing_has_it() {
    use crate::event::VolumeDeed;
    for (what, freezes, stops) in [
        (VolumeDeed::Restore, true, true),
        (VolumeDeed::Snapshot, false, true),
        (VolumeDeed::Snapshot, true, false),
    ] {
        let mut scene = Scene::new();
        scene.processes = vec!["web", "worker"];
        scene.world.freezes = freezes;
        scene.wish(deploy_of(with_volume(&["web"])));
        scene.settle();
        let worker = scene.app().running(v(1), &worker()).next().unwrap().0;
        scene.wish(work(what));
        // The same again is the same; another release has to wait for it.
        assert_eq!(scene.wish(work(what)), []);
        scene.deploy(None);
        scene.run_until(|it| it.app().volume_work.is_none());
        let stopped = scene
            .log
            .iter()
            .any(|it| matches!(it, Event::InstanceStopping { why: StopReason::VolumeWork, .. }));
        assert_eq!(stopped, stops, "{what:?}");
        assert!(scene.app().instances.contains_key(&worker), "what does not have it runs on");
        scene.settle();
        assert!(
            scene.first(|it| matches!(it, Event::VolumeWorkEnded { .. }))
                < scene.first(|it| matches!(it, Event::ActivationBegan { number } if *number == v(2)))
        );
        assert_eq!((scene.app().serving, scene.app().routed.len()), (Some(v(2)), 1));
        assert_rests(&mut scene);
    }
}

#[test]
fn no_volume_is_worked_on_beside_a_deployment() {
    let mut scene = Scene::new();
    scene.wish(deploy_of(with_volume(&[])));
    scene.run_until(|it| it.app().activation.is_some());
    let refused = scene.try_wish(work(crate::event::VolumeDeed::Restore)).unwrap_err();
    assert_eq!(refused.code(), "volume_busy");
}
