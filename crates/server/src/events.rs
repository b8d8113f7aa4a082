//! What control says of itself: one function for each kind of log line.

use berth_control::command::Refusal;
use berth_control::event::Failure;
use berth_control::invariant::{Breach, Invariant};
use berth_journal::AppendError;
use berth_routing::Generation;
use berth_spec::{AppId, InstanceId};
use tracing::{debug, error, info, warn};

use crate::desk::SubmitError;

/// An invariant was checked: a breach ends a debug build and is counted by a release build.
pub fn breach(checked: Result<(), Breach>) {
    let Err(breach) = checked else {
        return;
    };
    error!(invariant = breach.invariant.id(), detail = %breach.detail, "an invariant is broken");
    BREACHES.report(breach.invariant);
    debug_assert!(false, "{breach}");
}

/// How often each invariant was found broken since the start.
pub static BREACHES: Breaches =
    Breaches([const { std::sync::atomic::AtomicU64::new(0) }; Invariant::ALL.len()]);

/// A counter for each invariant.
#[derive(Debug)]
pub struct Breaches([std::sync::atomic::AtomicU64; Invariant::ALL.len()]);

impl Breaches {
    fn report(&self, invariant: Invariant) {
        let index = Invariant::ALL.iter().position(|it| *it == invariant);
        if let Some(counter) = index.and_then(|index| self.0.get(index)) {
            counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// How often any of them was found broken.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().map(|count| count.load(std::sync::atomic::Ordering::Relaxed)).sum()
    }

    /// The invariants that were found broken, and how often.
    #[must_use]
    pub fn counts(&self) -> Vec<(Invariant, u64)> {
        let counts = Invariant::ALL.iter().zip(&self.0);
        let counts = counts.map(|(it, count)| (*it, count.load(std::sync::atomic::Ordering::Relaxed)));
        counts.filter(|(_, count)| *count > 0).collect()
    }
}

pub fn started(position: u64, apps: usize, from_snapshot: bool, took: std::time::Duration) {
    info!(position, apps, from_snapshot, took_ms = took.as_millis(), "the journal is replayed");
}

pub fn append_failed(error: &AppendError, waiting: usize) {
    error!(%error, waiting, "an append failed; what was decided since the last durable event is discarded");
}

pub fn refused(app: &AppId, refusal: &Refusal) {
    debug!(%app, %refusal, "a fact was refused");
}

pub fn not_recorded(app: &AppId, error: &SubmitError) {
    warn!(%app, %error, "a fact could not be recorded");
}

pub fn snapshot_written(generation: Generation, apps: usize) {
    debug!(%generation, apps, "the routing snapshot is durable");
}

pub fn snapshot_not_written(error: &std::io::Error) {
    error!(%error, "the routing snapshot could not be written; edge keeps the one it has");
}

pub fn edge_connected(pid: u32) {
    info!(pid, "edge is connected");
}

pub fn edge_gone(pid: u32) {
    warn!(pid, "edge is gone");
}

pub fn edge_refused(why: &str) {
    warn!(why, "a connection to edge.sock was refused");
}

pub fn edge_restarted(app: &AppId) {
    error!(%app, "edge did not apply the routing in time and is restarted");
}

pub fn started_instance(instance: &InstanceId, port: Option<u16>) {
    info!(%instance, port, "started");
}

pub fn not_started(instance: &InstanceId, error: &dyn std::fmt::Display) {
    warn!(%instance, %error, "could not be started");
}

pub fn stopping_instance(instance: &InstanceId) {
    info!(%instance, "told to stop");
}

pub fn removed_instance(instance: &InstanceId) {
    info!(%instance, "cleared away");
}

pub fn could_not(what: &str, error: &dyn std::fmt::Display) {
    warn!(%error, "could not {what}");
}

pub fn dns_record_left(name: &str, failure: &Failure) {
    warn!(name, why = failure.summary, said = failure.log.join("; "), "a record of a proof stays in DNS");
}

pub fn git_broke_off(service: &str, why: &str) {
    warn!(service, why, "git did not serve a request to its end");
}
