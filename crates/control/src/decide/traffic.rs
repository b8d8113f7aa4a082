//! How requests are shared between two releases: step by step by a rollout, or as somebody wants it.

use std::collections::BTreeSet;

use berth_rollout::Evidence;
use berth_spec::ReleaseNumber;

use super::fact::route_back;
use crate::command::Refusal;
use crate::event::{Event, Failure, Ordinal, ShiftWhy};
use crate::state::App;

type Outcome = Result<Vec<Event>, Refusal>;

/// The next step of a rollout. It only goes forward, and not past what somebody set.
pub(super) fn step(app: &App, number: ReleaseNumber, percent: u8, evidence: Option<&Evidence>) -> Outcome {
    let begun = app.rollout();
    let forward = begun.is_none_or(|split| !split.held && split.percent < percent);
    if !forward || !(1..=100).contains(&percent) {
        return Err(Refusal::Stale("the rollout is further than this step, or is held"));
    }
    let shifted = Event::TrafficShifted { number, percent, why: ShiftWhy::Step, evidence: evidence.cloned() };
    // What had a share until now has none beside a rollout.
    let other = app.split.filter(|split| split.release != number);
    let back = other.and_then(|split| route_back(app, split.release));
    Ok([shifted].into_iter().chain(back).collect())
}

/// Somebody sets the share of a release. Of two that stand, naming either says what both have.
pub(super) fn set(app: &App, named: ReleaseNumber, percent: u8) -> Outcome {
    let cannot =
        |why: &'static str| Refusal::CannotShare { app: app.id.clone(), number: named, percent, why };
    if app.release(named).is_none() {
        return Err(Refusal::NoSuchRelease { app: app.id.clone(), number: named });
    }
    if percent > 100 {
        return Err(cannot("there are no more than 100"));
    }
    if app.activation.is_some() && app.rollout().is_none() {
        return Err(cannot("a release is being deployed that is not rolled out in steps"));
    }
    let rollout = app.rollout().map(|split| split.release);
    let other =
        rollout.or(app.warm).ok_or_else(|| cannot("no other release stands beside the one that serves"))?;
    let share = match named {
        _ if named == other => percent,
        _ if Some(named) == app.serving => 100 - percent,
        _ => return Err(cannot("it neither serves, nor is rolled out, nor is kept warm")),
    };
    if app.rollout().is_some_and(|split| split.percent == 100) {
        return Err(cannot("the rollout has come to its end and is about to take over"));
    }
    match (rollout, share) {
        (Some(_), 100) => promote(app),
        (Some(number), percent) => {
            let is_so = app.split.is_some_and(|split| split.held && split.percent == percent);
            let shifted = Event::TrafficShifted { number, percent, why: ShiftWhy::Asked, evidence: None };
            Ok(if is_so { Vec::new() } else { vec![shifted] })
        }
        (None, 100) => Err(cannot("to go back to it, roll back: that takes milliseconds, too")),
        (None, 0) if app.split.is_none() => Ok(Vec::new()),
        (None, 0) => abort(app),
        (None, percent) => {
            share_with_warm(app, other, percent).ok_or_else(|| cannot("none of its web instances is left"))
        }
    }
}

/// The release before gets requests again, beside the one that serves.
fn share_with_warm(app: &App, warm: ReleaseNumber, percent: u8) -> Option<Vec<Event>> {
    if app.split.is_some_and(|split| split.percent == percent) {
        return Some(Vec::new());
    }
    let kept = app.instances.iter().filter(|(_, it)| {
        it.release == warm && it.process.is_web() && it.proven && it.is_wanted() && it.port.is_some()
    });
    let kept: BTreeSet<Ordinal> = kept.map(|(&ordinal, _)| ordinal).collect();
    if kept.is_empty() || app.routed.is_empty() {
        return None;
    }
    let shifted = Event::TrafficShifted { number: warm, percent, why: ShiftWhy::Asked, evidence: None };
    let ordinals: BTreeSet<Ordinal> = app.routed.union(&kept).copied().collect();
    let routed = (ordinals != app.routed).then_some(Event::Routed { ordinals });
    Some([shifted].into_iter().chain(routed).collect())
}

/// The release that is being rolled out takes over at once.
pub(super) fn promote(app: &App) -> Outcome {
    let split = app.rollout().ok_or_else(|| Refusal::NoRollout(app.id.clone()))?;
    if split.percent == 100 {
        return Ok(Vec::new());
    }
    let (number, why) = (split.release, ShiftWhy::Promoted);
    Ok(vec![Event::TrafficShifted { number, percent: 100, why, evidence: None }])
}

/// All requests go to the release that serves again, and one that was being rolled out will never serve.
pub(super) fn abort(app: &App) -> Outcome {
    let split = app.split.ok_or_else(|| Refusal::NoRollout(app.id.clone()))?;
    let number = split.release;
    let ends = if app.rollout().is_some() {
        let summary = format!("the rollout of {number} was aborted at {} % of the requests", split.percent);
        Event::ReleaseFailed { number, failure: Failure::new("rollout_aborted", summary) }
    } else {
        Event::TrafficShifted { number, percent: 0, why: ShiftWhy::Asked, evidence: None }
    };
    // In one decision with that: nothing is ever routed to what has no share.
    Ok([ends].into_iter().chain(route_back(app, number)).collect())
}
