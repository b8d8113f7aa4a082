//! What the planner makes of rollouts.

use std::time::Duration;

use berth_rollout::{Difference, Evidence, Side, Verdict};
use berth_routing::wire::Health;
use berth_spec::Millis;
use berth_spec::manifest::Strategy;

use crate::command::{Refusal, Wish};
use crate::event::{Event, Exit, Ordinal, ShiftWhy};
use crate::plan::{Action, Fact};
use crate::scene::{Scene, v, web, worker};
use crate::state::Phase;
use crate::world::{Compared, Stopwatch};

const CANARY: Option<Strategy> = Some(Strategy::Canary);

/// v1 serves with two instances, and v2 is being rolled out and has its first share.
fn rolling_out() -> Scene {
    let mut scene = Scene::serving(&["web", "worker"], 2, CANARY);
    scene.log.clear();
    scene.deploy(CANARY);
    scene.run_until(|it| it.routed_releases() == [v(1), v(2)].into());
    assert_eq!(scene.app().split.map(|it| (it.release, it.percent, it.held)), Some((v(2), 5, false)));
    scene
}

fn seen(verdict: Verdict) -> Evidence {
    Evidence {
        verdict,
        seconds: 30,
        new: Side { requests: 200, errors: 20 },
        old: Side { requests: 4_000, errors: 0 },
        errors: Some(Difference { new: 100_000, old: 0, odds: 999, matters: true }),
        latency: None,
    }
}

/// From now on this is seen of v2, whatever its share.
fn see(scene: &mut Scene, verdict: Verdict) {
    let percent = scene.app().split.map_or(0, |split| split.percent);
    scene.world.compared = Some(Compared { release: v(2), percent, evidence: seen(verdict) });
}

fn shares(scene: &Scene) -> Vec<u8> {
    let shifted = |event: &Event| match event {
        Event::TrafficShifted { percent, .. } => Some(*percent),
        _ => None,
    };
    scene.log.iter().filter_map(shifted).collect()
}

fn first_new(scene: &Scene) -> Ordinal {
    scene.app().running(v(2), &web()).next().unwrap().0
}

/// A rollback leaves the rollout for the release that serves, and a newer deploy takes its place: neither waits for its steps.
#[test]
fn what_is_newer_ends_it_at_once() {
    let mut scene = rolling_out();
    assert_eq!(scene.app().rollback_target(), Some(v(1)));
    let began = scene.now;
    scene.wish(Wish::Rollback { to: v(1), keep_config: false });
    scene.run_until(|it| it.app().serving == Some(v(3)));
    assert!(scene.now - began < Duration::from_secs(60), "not even the first step was waited for");
    assert_eq!(scene.failure_code(2), Some("rollout_aborted"));
    assert_eq!(shares(&scene), [5]);

    let mut scene = rolling_out();
    scene.deploy(None);
    scene.run_until(|it| it.app().serving == Some(v(3)));
    assert_eq!((scene.failure_code(2), shares(&scene)), (Some("rollout_aborted"), vec![5]));
}

#[test]
fn it_goes_up_in_steps_and_takes_over_at_the_end() {
    let mut scene = rolling_out();
    let began = scene.now;
    scene.run_until(|it| it.app().serving == Some(v(2)));
    assert!(scene.now - began >= Duration::from_secs(3 * 60));
    assert_eq!(shares(&scene), [5, 25, 50, 100]);
    assert_eq!((scene.app().warm, scene.app().split), (Some(v(1)), None));
    // Before the shares nothing was routed to it, and the worker stayed the old one's until the end.
    let shifted = scene.first(|it| matches!(it, Event::TrafficShifted { .. }));
    assert!(shifted < scene.first(|it| matches!(it, Event::Routed { .. })));
    let last = scene.first(|it| matches!(it, Event::TrafficShifted { percent: 100, .. }));
    let handed =
        scene.first(|it| matches!(it, Event::InstanceAssigned { process, .. } if *process == worker()));
    assert!(last < handed);
    scene.settle();
    assert_eq!(scene.app().instances.len(), 3);
}

#[test]
fn what_is_worse_goes_back_at_once_in_one_decision() {
    let mut scene = rolling_out();
    scene.wait(Millis(1_000));
    see(&mut scene, Verdict::Worse);
    let before = scene.now;
    scene.pass();
    assert_eq!((scene.now, scene.routed_releases()), (before, [v(1)].into()));
    assert_eq!((scene.app().split, scene.failure_code(2)), (None, Some("rollout_worse")));
    let failure = scene.app().release(v(2)).unwrap().failure.clone().unwrap();
    assert_eq!(failure.summary, "v2 is worse than v1: it fails more often, at 5 % of the requests");
    assert!(failure.detail[1].starts_with("error rate: 10.00 % for v2"), "{failure:?}");
    let failed = scene.first(|it| matches!(it, Event::ReleaseFailed { .. }));
    assert!(matches!(scene.log[failed + 1], Event::Routed { .. }), "{:?}", &scene.log[failed..]);
    scene.settle();
    assert_eq!((scene.app().serving, scene.app().instances.len()), (Some(v(1)), 3));
}

#[test]
fn what_looks_worse_is_held_for_a_while_and_then_goes_on() {
    let mut scene = rolling_out();
    let began = scene.now;
    see(&mut scene, Verdict::Unclear);
    scene.run_until(|it| it.app().split.is_none_or(|split| split.percent > 5));
    assert_eq!(scene.now - began, Duration::from_secs(4 * 60));
}

#[test]
fn one_that_exits_or_fails_its_checks_goes_back() {
    let mut scene = rolling_out();
    let (new, old) = (first_new(&scene), scene.app().running(v(1), &web()).next().unwrap().0);
    let exit = Exit { status: Some(1), signal: None, after: Millis(3_200), oom: None, unhealthy: false };
    scene.fact(Fact::Exited { ordinal: old, exit, more: 0 }).unwrap();
    scene.pass();
    assert_eq!(scene.failure_code(2), None, "the old one's exits are not its fault");
    scene.fact(Fact::Exited { ordinal: new, exit, more: 0 }).unwrap();
    scene.pass();
    assert_eq!((scene.failure_code(2), scene.routed_releases()), (Some("rollout_failed"), [v(1)].into()));

    let mut scene = rolling_out();
    let (new, old) = (first_new(&scene), scene.app().running(v(1), &web()).next().unwrap().0);
    for ordinal in [old, new] {
        scene.world.health.get_mut(&ordinal).unwrap().health = Health::Failing;
    }
    scene.pass();
    assert_eq!(scene.failure_code(2), None, "what fails for both is not its fault");
    scene.world.health.get_mut(&old).unwrap().health = Health::Ready;
    scene.pass();
    assert_eq!((scene.failure_code(2), scene.routed_releases()), (Some("rollout_failed"), [v(1)].into()));
}

#[test]
fn a_share_that_somebody_sets_stays_until_it_is_promoted_or_aborted() {
    for promote in [true, false] {
        let mut scene = rolling_out();
        scene.wish(Wish::SetTraffic { release: v(1), percent: 90 });
        assert_eq!(scene.wish(Wish::SetTraffic { release: v(2), percent: 10 }), []);
        scene.settle();
        assert_eq!(scene.app().split.map(|it| (it.percent, it.held)), Some((10, true)));
        if promote {
            let events = scene.wish(Wish::Promote);
            assert!(matches!(events[0], Event::TrafficShifted { why: ShiftWhy::Promoted, .. }));
            assert_eq!(scene.wish(Wish::Promote), []);
            scene.run_until(|it| it.app().serving == Some(v(2)));
        } else {
            scene.wish(Wish::Abort);
            assert_eq!(scene.failure_code(2), Some("rollout_aborted"));
            assert_eq!(scene.routed_releases(), [v(1)].into());
            scene.settle();
            assert_eq!(scene.app().instances.len(), 3);
        }
        assert!(matches!(scene.try_wish(Wish::Promote), Err(Refusal::NoRollout(_))));
        assert!(matches!(scene.try_wish(Wish::Abort), Err(Refusal::NoRollout(_))));
    }
}

#[test]
fn what_is_worse_goes_back_though_somebody_set_its_share() {
    let mut scene = rolling_out();
    scene.wish(Wish::SetTraffic { release: v(2), percent: 40 });
    see(&mut scene, Verdict::Worse);
    scene.pass();
    assert_eq!(scene.failure_code(2), Some("rollout_worse"));
}

#[test]
fn the_release_before_can_have_a_share_while_it_is_warm() {
    let mut scene = Scene::serving(&["web"], 2, None);
    scene.deploy(None);
    scene.run_until(|it| it.app().serving == Some(v(2)));
    let set = |release, percent| Wish::SetTraffic { release, percent };
    assert!(matches!(scene.try_wish(set(v(1), 100)), Err(Refusal::CannotShare { .. })));
    assert!(matches!(scene.try_wish(set(v(3), 1)), Err(Refusal::NoSuchRelease { .. })));
    scene.wish(set(v(1), 10));
    scene.settle();
    assert_eq!(scene.app().warm, Some(v(1)), "it is kept as long as it has a share");
    assert_eq!(scene.routed_releases(), [v(1), v(2)].into());
    let route = crate::route::snapshot(&scene.state).apps.into_values().next().unwrap();
    let told: Vec<_> = route.shares.iter().map(|it| (it.release, it.percent, it.instances.len())).collect();
    assert_eq!(told, [(v(1), 10, 2), (v(2), 90, 2)]);
    assert!(matches!(scene.try_wish(Wish::Promote), Err(Refusal::NoRollout(_))));
    scene.wish(Wish::Abort);
    assert_eq!((scene.app().split, scene.routed_releases()), (None, [v(2)].into()));
    scene.settle();
    assert_eq!(scene.app().warm, None);
    assert!(matches!(scene.try_wish(set(v(1), 10)), Err(Refusal::CannotShare { .. })));
}

#[test]
fn a_rollout_takes_the_share_of_the_release_before() {
    let mut scene = Scene::serving(&["web"], 1, None);
    scene.deploy(None);
    scene.run_until(|it| it.app().serving == Some(v(2)));
    scene.wish(Wish::SetTraffic { release: v(1), percent: 10 });
    scene.deploy(CANARY);
    scene.run_until(|it| it.app().serving == Some(v(3)));
    assert_eq!(shares(&scene), [10, 5, 25, 50, 100]);
}

#[test]
fn a_secret_that_is_revoked_takes_the_share_of_what_holds_it() {
    use crate::event::SealedSecret;
    let mut scene = Scene::serving(&["web"], 1, None);
    let key: berth_spec::EnvName = "KEY".parse().unwrap();
    let sealed = SealedSecret { version: 1, sealed: String::new() };
    scene.wish(Wish::ChangeSecrets { set: [(key.clone(), sealed)].into(), unset: [].into() });
    scene.run_until(|it| it.app().serving == Some(v(2)));
    scene.deploy(None);
    scene.run_until(|it| it.app().serving == Some(v(3)));
    scene.wish(Wish::SetTraffic { release: v(2), percent: 10 });
    scene.wish(Wish::ChangeSecrets { set: [].into(), unset: [key].into() });
    assert_eq!((scene.app().split, scene.routed_releases()), (None, [v(3)].into()));
}

#[test]
fn the_first_release_and_a_rollback_take_no_steps() {
    let mut scene = Scene::serving(&["web"], 1, CANARY);
    assert_eq!(shares(&scene), [] as [u8; 0]);
    scene.deploy(CANARY);
    scene.run_until(|it| it.app().serving == Some(v(2)));
    scene.log.clear();
    let began = scene.now;
    scene.wish(Wish::Rollback { to: v(1), keep_config: false });
    scene.run_until(|it| it.app().serving == Some(v(3)));
    assert_eq!(shares(&scene), [] as [u8; 0]);
    assert!(scene.now - began < Duration::from_secs(60));
}

#[test]
fn whenever_control_is_killed_it_goes_on() {
    for when in 0..20 {
        let mut scene = Scene::serving(&["web", "worker"], 2, CANARY);
        scene.deploy(CANARY);
        for _ in 0..when {
            let plan = scene.pass();
            if plan.actions.is_empty() {
                scene.wait(plan.look_again.unwrap_or(Millis(1)));
            }
        }
        scene.watch = Stopwatch::default();
        scene.run_until(|it| it.app().serving == Some(v(2)));
        scene.settle();
        assert_eq!(scene.app().release(v(2)).unwrap().phase, Phase::Activated, "{when}");
    }
}

#[test]
fn a_lost_instance_of_either_is_replaced_and_gets_requests() {
    for of in [1, 2] {
        let mut scene = rolling_out();
        let lost = scene.app().running(v(of), &web()).next().unwrap().0;
        scene.world.instances.remove(&lost);
        scene.run_until(|it| !it.app().routed.contains(&lost) && it.app().routed.len() == 4);
        assert_eq!(scene.failure_code(2), None);
        assert!(!scene.plan().actions.iter().any(|it| matches!(it, Action::Record(Fact::Route { .. }))));
    }
}

#[test]
fn scaled_or_destroyed_in_the_middle_it_still_ends() {
    for when in 0..10 {
        let mut scene = rolling_out();
        (0..when).for_each(|_| drop(scene.pass()));
        scene.scale(web(), [0, 1, 3][when % 3]);
        scene.run_until(|it| it.app().serving == Some(v(2)));
        scene.settle();
        assert_eq!(scene.app().routed.len(), [0, 1, 3][when % 3]);
        let mut scene = rolling_out();
        scene.wish(Wish::Destroy { volumes: false });
        scene.settle();
        assert_eq!(scene.app().life, crate::state::Life::Destroyed);
    }
}
