//! What edge tells its operator, one function for each kind of event.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use berth_routing::{Flaw, Generation, InvalidSnapshot};
use berth_spec::InstanceId;
use tokio::task::JoinError;
use tracing::{debug, error, info, warn};

use crate::boot::BootError;
use crate::circuit::Decision;
use crate::handover::HandoverError;
use crate::link::LinkError;

pub(crate) fn started(listeners: usize, generation: Generation) {
    info!(listeners, %generation, "edge serves");
}

pub(crate) fn boot_failed(error: &BootError) {
    error!(
        error = chain(error),
        "edge starts without routes and holds every request until control sends some"
    );
}

pub(crate) fn certificate_unreadable(name: &str, error: &io::Error) {
    error!(name, error = chain(error), "a certificate is left out");
}

pub(crate) fn applied(generation: Generation) {
    info!(%generation, "every thread uses the snapshot");
}

pub(crate) fn snapshot_refused(refusal: &InvalidSnapshot) {
    error!(error = %refusal, "a snapshot is refused");
}

pub(crate) fn snapshot_flawed(flaw: &Flaw) {
    warn!(%flaw, "a part of the snapshot is left out");
}

/// Once: a proxy that is not set up does it with every connection.
pub(crate) fn proxy_without_head(proxy: SocketAddr, error: &io::Error) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if !TOLD.swap(true, Ordering::Relaxed) {
        warn!(%proxy, error = chain(error), "a proxy that is trusted does not say who its clients are; its connections are closed");
    }
}

pub(crate) fn control_connected() {
    info!("connected to control");
}

pub(crate) fn control_lost(error: &LinkError) {
    warn!(error = chain(error), "no connection to control, serving goes on");
}

pub(crate) fn supervisor_died() {
    warn!("the supervisor is gone, serving goes on until another takes over");
}

pub(crate) fn handed_over() {
    info!("the listeners were handed to a new supervisor");
}

pub(crate) fn handover_failed(error: &HandoverError) {
    warn!(error = chain(error), "the listeners were not handed over");
}

pub(crate) fn accept_failed(error: &io::Error) {
    error!(%error, "no connection can be accepted, trying again in a moment");
}

pub(crate) fn task_failed(error: &JoinError) {
    if error.is_panic() {
        error!(%error, "a connection's task panicked");
    } else {
        debug!(%error, "a connection's task was ended");
    }
}

pub(crate) fn decided(instance: &InstanceId, decision: Decision) {
    match decision {
        Decision::PassOver(span) => {
            let seconds = span.as_secs();
            warn!(%instance, seconds, "requests to an instance fail one after another: others are preferred for a while");
        }
        Decision::TryAgain => info!(%instance, "an instance that was passed over gets one request"),
        // Of a lone instance that is started again it would be said over and over.
        Decision::Spare => {
            debug!(%instance, "requests fail at more than half of the app's instances, so that none is passed over")
        }
    }
}

pub(crate) fn readmitted(instance: &InstanceId) {
    info!(%instance, "an instance that was passed over gets requests again");
}

pub(crate) fn draining() {
    info!("told to stop: no new connections, letting requests finish");
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
