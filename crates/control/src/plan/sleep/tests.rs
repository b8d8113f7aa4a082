//! Falling asleep, sleeping deeper, waking: in which order, and what keeps awake.

use berth_spec::manifest::{Manifest, Sleep, Strategy};

use super::*;
use crate::command::Wish;
use crate::event::{Event, StopReason, VolumeDeed, VolumeWork};
use crate::scene::{Scene, deploy_of, manifest, v, web};

const IDLE: Millis = Millis::from_secs(600);
const STOP: Millis = Millis::from_secs(3_600);

fn sleepy(strategy: Option<Strategy>) -> Manifest {
    let mut manifest = manifest(strategy);
    manifest.deploy.warm = Millis(0);
    manifest.scale = [(web(), Sleep { idle_after: IDLE, stop_after: STOP })].into();
    manifest
}

/// An app that serves with `count` instances and may sleep.
fn awake(count: u32, strategy: Option<Strategy>) -> Scene {
    let mut scene = Scene::new();
    scene.world.freezes = true;
    scene.world.may_wake = true;
    scene.wish(deploy_of(sleepy(strategy)));
    scene.scale(web(), count);
    scene.run_until(|it| it.app().serving == Some(v(1)) && it.app().routed.len() == count as usize);
    scene
}

/// The same, standing still.
fn frozen(count: u32, strategy: Option<Strategy>) -> Scene {
    let mut scene = awake(count, strategy);
    scene.run_until(|it| it.world.frozen.values().filter(|frozen| **frozen).count() == count as usize);
    assert_eq!(scene.app().asleep.map(|it| it.depth), Some(Depth::Frozen));
    scene
}

fn woken(why: WakeReason) -> impl Fn(&Event) -> bool {
    move |event| matches!(event, Event::AppWoken { why: it, .. } if *it == why)
}

#[test]
fn an_app_that_nobody_asks_for_stands_still_and_then_stops() {
    let mut scene = awake(2, None);
    let began = scene.now;
    scene.run_until(|it| it.app().asleep.is_some());
    assert!(scene.now - began >= IDLE.as_duration());
    assert_eq!((scene.app().routed.len(), scene.app().instances.len()), (0, 2));
    scene.run_until(|it| it.world.frozen.len() == 2);
    let slept = scene.now;
    scene.run_until(|it| it.app().instances.is_empty());
    assert!(scene.now - slept >= STOP.as_duration());
    assert_eq!(scene.app().asleep.map(|it| it.depth), Some(Depth::Stopped));
    let stopped = |event: &Event| matches!(event, Event::InstanceStopping { why: StopReason::Asleep, .. });
    assert_eq!(scene.log.iter().filter(|it| stopped(it)).count(), 2);
    scene.settle();
    let plan = scene.plan();
    assert_eq!((plan.actions.len(), plan.look_again), (0, None), "what is stopped needs no look");
}

#[test]
fn nothing_stands_still_before_edge_has_nothing_under_way_to_it() {
    let mut scene = awake(1, None);
    scene.edge_follows = false;
    scene.run_until(|it| it.app().asleep.is_some());
    for _ in 0..5 {
        let plan = scene.pass();
        assert!(!plan.actions.iter().any(|it| matches!(it, Action::Freeze(_))), "{plan:?}");
    }
    // It follows, and somebody still takes an answer.
    let applied = scene.world.edge.durable;
    scene.world.edge.alive = Some(crate::world::EdgeProcess { applied });
    assert!(!scene.pass().actions.iter().any(|it| matches!(it, Action::Freeze(_))));
    scene.world.still.insert(1, applied);
    assert_eq!(scene.pass().actions, [Action::Freeze(1)]);
}

#[test]
fn who_asks_keeps_it_awake() {
    let mut scene = awake(1, None);
    for _ in 0..20 {
        scene.world.idle = Some(Millis(IDLE.0 - 1));
        let plan = scene.pass();
        assert_eq!(plan.actions, []);
        assert!(plan.look_again.is_some(), "for when its time is over");
        scene.wait(IDLE);
    }
    scene.world.idle = Some(IDLE);
    scene.pass();
    assert!(scene.app().asleep.is_some());
}

#[test]
fn a_control_that_just_started_waits_the_whole_time() {
    let mut scene = awake(1, None);
    scene.wait(IDLE);
    scene.watch = crate::world::Stopwatch::default();
    scene.world.idle = Some(Millis(IDLE.0 * 10));
    assert_eq!(scene.pass().look_again, Some(IDLE));
    assert!(scene.app().asleep.is_none());
}

#[test]
fn a_request_wakes_what_stands_still_and_is_sent_there_at_once() {
    let mut scene = frozen(2, None);
    scene.log.clear();
    scene.world.wanted = true;
    let plan = scene.pass();
    assert_eq!(plan.actions, [Action::Thaw(1), Action::Thaw(2)], "before anything is sent to it");
    assert!(scene.app().asleep.is_some());
    scene.pass();
    scene.world.wanted = false;
    assert_eq!(scene.log, [Event::AppWoken { why: WakeReason::Requested, ordinals: [1, 2].into() }]);
    assert_eq!((scene.app().asleep, scene.app().routed.clone()), (None, [1, 2].into()));
}

#[test]
fn a_request_starts_what_was_stopped() {
    let mut scene = awake(1, None);
    scene.world.freezes = false;
    scene.run_until(|it| it.app().instances.is_empty());
    scene.log.clear();
    scene.world.wanted = true;
    scene.pass();
    scene.world.wanted = false;
    assert_eq!(scene.log, [Event::AppWoken { why: WakeReason::Requested, ordinals: [].into() }]);
    scene.run_until(|it| it.app().routed == [2].into());
}

#[test]
fn an_app_waits_for_its_turn_to_wake() {
    let mut scene = frozen(1, None);
    scene.world.wanted = true;
    scene.world.may_wake = false;
    let plan = scene.pass();
    assert_eq!((plan.actions.len(), plan.look_again), (0, Some(SOON)));
    scene.world.may_wake = true;
    assert_eq!(scene.pass().actions, [Action::Thaw(1)]);
}

#[test]
fn a_new_control_has_it_go_on_though_it_does_not_know_that_it_stands_still() {
    let mut scene = frozen(1, None);
    scene.world.frozen.clear();
    scene.world.wanted = true;
    assert_eq!(scene.pass().actions, [Action::Thaw(1)]);
}

/// What comes on a connection that stood open would be lost with it.
#[test]
fn one_that_is_to_stop_goes_on_while_it_is_drained() {
    let mut scene = frozen(1, None);
    scene.run_until(|it| it.app().asleep.is_some_and(|asleep| asleep.depth == Depth::Stopped));
    scene.run_until(|it| !it.app().instances[&1].is_wanted());
    // Edge follows, and a client holds on to its connection.
    scene.publish();
    scene.world.drained.clear();
    // Whoever has a volume stands still while that is copied, whatever is known of it.
    let app = scene.app().id.clone();
    let work = VolumeWork {
        volume: "data".parse().unwrap(),
        snapshot: "20260101T000000Z".parse().unwrap(),
        what: VolumeDeed::Snapshot,
    };
    std::sync::Arc::make_mut(scene.state.apps.get_mut(&app).unwrap()).volume_work = Some(work);
    assert!(!scene.plan().actions.contains(&Action::Thaw(1)));
    std::sync::Arc::make_mut(scene.state.apps.get_mut(&app).unwrap()).volume_work = None;
    let plan = scene.pass();
    assert_eq!((plan.actions, plan.look_again.is_some_and(|it| it <= SOON)), (vec![Action::Thaw(1)], true));
    assert_eq!(scene.world.instances[&1].life, Life::Running, "it is not stopped before");
}

#[test]
fn a_release_takes_over_from_a_sleeping_one() {
    for strategy in [None, Some(Strategy::Rolling), Some(Strategy::Recreate)] {
        let mut scene = frozen(2, strategy);
        scene.log.clear();
        scene.wish(deploy_of(sleepy(strategy)));
        scene.run_until(|it| it.app().serving == Some(v(2)));
        assert_eq!(scene.routed_releases(), [v(2)].into(), "{strategy:?}");
        assert_eq!(scene.log.iter().filter(|it| woken(WakeReason::Deployed)(it)).count(), 1);
        let began = scene.now;
        scene.run_until(|it| it.app().asleep.is_some());
        assert!(scene.now - began >= IDLE.as_duration(), "it sleeps again after the same while");
        assert_eq!(scene.app().serving, Some(v(2)));
    }
}

#[test]
fn a_release_takes_over_from_one_that_was_stopped_without_starting_that() {
    let mut scene = awake(1, None);
    scene.world.freezes = false;
    scene.run_until(|it| it.app().instances.is_empty());
    scene.log.clear();
    scene.wish(deploy_of(sleepy(None)));
    scene.run_until(|it| it.app().serving == Some(v(2)));
    let old = |event: &Event| matches!(event, Event::InstanceAssigned { release, .. } if *release == v(1));
    assert!(!scene.log.iter().any(old), "{:#?}", scene.log);
}

#[test]
fn a_release_that_fails_leaves_the_sleeper_asleep() {
    let mut scene = frozen(1, None);
    scene.healthy = false;
    scene.wish(deploy_of(sleepy(None)));
    scene.run_until(|it| it.failure_code(2).is_some());
    assert!(scene.app().asleep.is_some());
    scene.run_until(|it| it.app().instances.len() == 1);
    assert_eq!(scene.world.frozen.get(&1), Some(&true));
}

#[test]
fn one_that_is_kept_warm_keeps_it_awake_for_its_time() {
    let mut scene = awake(1, None);
    let mut next = sleepy(None);
    next.deploy.warm = Millis(IDLE.0 * 3);
    scene.wish(deploy_of(next));
    scene.run_until(|it| it.app().warm == Some(v(1)));
    let began = scene.now;
    scene.run_until(|it| it.app().asleep.is_some());
    assert!(scene.now - began >= Millis(IDLE.0 * 3).as_duration());
}

#[test]
fn a_sleeper_that_is_scaled_to_nothing_is_stopped_on_purpose() {
    let mut scene = frozen(1, None);
    scene.scale(web(), 0);
    scene.run_until(|it| it.app().instances.is_empty());
    assert!(scene.app().asleep.is_none());
    scene.first(woken(WakeReason::ScaledDown));
}

#[test]
fn a_volume_is_worked_on_awake() {
    let mut manifest = sleepy(Some(Strategy::Recreate));
    let volume =
        berth_spec::manifest::Volume { path: "/data".parse().unwrap(), size: None, processes: [].into() };
    manifest.volumes = [("data".parse().unwrap(), volume)].into();
    let mut scene = Scene::new();
    scene.world.freezes = true;
    scene.wish(deploy_of(manifest));
    scene.run_until(|it| it.world.frozen.get(&1) == Some(&true));
    let (volume, snapshot) = ("data".parse().unwrap(), "20261127T171530Z".parse().unwrap());
    scene.wish(Wish::WorkOnVolume { work: VolumeWork { volume, snapshot, what: VolumeDeed::Restore } });
    scene.run_until(|it| it.app().volume_work.is_none() && it.app().routed.len() == 1);
    scene.first(woken(WakeReason::VolumeWork));
}

#[test]
fn where_memory_is_short_what_stands_still_is_stopped() {
    let mut scene = frozen(1, None);
    scene.world.memory_short = true;
    scene.run_until(|it| it.app().instances.is_empty());
    assert_eq!(scene.app().asleep.map(|it| it.depth), Some(Depth::Stopped));
}

#[test]
fn an_app_that_says_nothing_of_it_never_sleeps() {
    let mut scene = Scene::serving(&["web"], 1, None);
    scene.world.freezes = true;
    scene.wait(Millis(IDLE.0 * 1_000));
    scene.settle();
    assert!(scene.app().asleep.is_none());
}
