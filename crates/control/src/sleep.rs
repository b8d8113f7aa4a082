//! Scale to zero: which apps may sleep, how deep, and when one of their instances may stand still.
//!
//! An app that sleeps is nowhere routed. Edge holds what comes for it and says that it is wanted. In the first depth its web instances stand
//! still and keep their memory and their connections, and wake in milliseconds; in the second they are stopped. The order is that of
//! every other change of routing: nothing stands still before edge has applied the snapshot in which the app sleeps and has nothing under way
//! to the instance, and nothing is routed again before it goes on.

use std::collections::BTreeSet;

use berth_spec::manifest::Sleep;
use berth_spec::{ProcessName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::event::Ordinal;
use crate::state::{App, Instance, Life, Position};
use crate::world::{AppWorld, Life as SeenLife};

/// How deep an app sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Depth {
    /// Its web instances stand still.
    Frozen,
    /// They are stopped.
    Stopped,
}

/// Why an app woke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WakeReason {
    /// Somebody asked for it.
    Requested,
    /// A new release takes over.
    Deployed,
    /// It was scaled to nothing on purpose, which is no sleep.
    ScaledDown,
    /// A volume of its is worked on.
    VolumeWork,
}

/// An app that sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asleep {
    /// Since when.
    pub since: Timestamp,
    /// Where in the journal it fell asleep: tells one sleep from another.
    pub position: Position,
    /// How deep.
    pub depth: Depth,
}

/// By what the app would sleep now, if it may: its serving release says so, something is wanted of it, and nothing else is being done with it. A
/// release that is kept warm keeps it awake: that it can take over at once was promised for longer.
#[must_use]
pub fn may_sleep(app: &App) -> Option<&Sleep> {
    let serving = app.serving_release()?;
    let rests = app.life == Life::Alive
        && app.activation.is_none()
        && app.split.is_none()
        && app.warm.is_none()
        && app.volume_work.is_none()
        && web_of(app).is_some_and(|web| app.wanted(web) > 0);
    serving.manifest.sleep().filter(|_| rests)
}

/// The web process of the release that serves.
fn web_of(app: &App) -> Option<&ProcessName> {
    app.serving_release()?.processes()?.keys().find(|process| process.is_web())
}

/// Whether it was asked for that no web instance runs, which is no sleep.
#[must_use]
pub fn is_scaled_down(app: &App) -> bool {
    web_of(app).is_some_and(|web| app.wanted(web) == 0)
}

/// Whether the instance is one of those that sleep with their app, or would.
#[must_use]
pub fn is_put_to_sleep(app: &App, instance: &Instance) -> bool {
    instance.process.is_web() && instance.is_wanted() && Some(instance.release) == app.serving
}

/// Why the instance is to be stopped though its release serves: its app sleeps so deep, or it was never ready, so that nobody knows whether it
/// would answer after it stood still.
#[must_use]
pub fn is_stopped_by_sleep(app: &App, instance: &Instance) -> bool {
    let deep = |asleep: &Asleep| asleep.depth == Depth::Stopped || !instance.proven;
    app.asleep.as_ref().is_some_and(deep) && is_put_to_sleep(app, instance)
}

/// Whether no request is under way to the instance and none can come: it may stand still. Checked by the planner before it plans that, and by
/// whoever performs it.
#[must_use]
pub fn freeze_is_safe(app: &App, ordinal: Ordinal, world: &AppWorld) -> bool {
    let Some(instance) = app.instances.get(&ordinal) else { return false };
    let sleeps = app.asleep.is_some_and(|asleep| asleep.depth == Depth::Frozen);
    if !sleeps || app.routed.contains(&ordinal) || !is_put_to_sleep(app, instance) {
        return false;
    }
    let unrouted = instance.routing_changed_at;
    let applied = world.edge.alive.is_none_or(|edge| edge.applied.0 >= unrouted);
    let still = || world.still.get(&ordinal).is_some_and(|generation| generation.0 >= unrouted);
    world.edge.durable.0 >= unrouted && applied && (world.edge.alive.is_none() || still())
}

/// The instances that may stand still, whatever is known of them: they have to go on before the app is awake.
pub(crate) fn may_stand_still(app: &App, world: &AppWorld) -> BTreeSet<Ordinal> {
    let frozen = app.instances.iter().filter(|(ordinal, instance)| {
        let lives = world.instances.get(ordinal).is_some_and(|seen| {
            seen.token == instance.token && !matches!(seen.life, SeenLife::Gone | SeenLife::NotStarted { .. })
        });
        lives && is_put_to_sleep(app, instance) && world.frozen.get(ordinal) != Some(&false)
    });
    frozen.map(|(&ordinal, _)| ordinal).collect()
}
