//! Wiring of the edge role: what the supervisor handed down becomes what edge is configured with.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use berth_clock::SystemClock;
use berth_edge::{AccessLog, Config, ExitReason, Limits};
use tokio::sync::oneshot;

use super::{RoleError, Ties, take};
use crate::args::EdgeArgs;

pub(super) fn run(args: &EdgeArgs) -> Result<(), RoleError> {
    let ties = Ties::take(&args.role)?;
    let _claim: OwnedFd = take(args.claim)?;
    let listeners: Vec<TcpListener> =
        args.listener.iter().map(|number| take(*number)).collect::<Result<_, _>>()?;
    let secure: Vec<TcpListener> =
        args.secure.iter().map(|number| take(*number)).collect::<Result<_, _>>()?;
    // Edge stops by SIGTERM; this way is for its tests. The sender must live as long as edge does.
    let (_never, stop) = oneshot::channel();
    let config = Config {
        listeners,
        secure,
        routing_dir: take(args.routing)?,
        dial_folder: args.dial.clone(),
        control_socket: args.control.clone(),
        leash: Some(ties.leash),
        ready: Some(ties.ready),
        handover: Some(take(args.handover)?),
        owner_uid: args.owner,
        access_log: AccessLog::To(Box::new(io::stderr())),
        limits: Limits::default(),
        proxies: args.proxies.clone().unwrap_or_default(),
        clock: Arc::new(SystemClock::new()),
        // The supervisor gives edge a user of its own wherever it can.
        allow_root: false,
        stop,
    };
    match berth_edge::run(config)? {
        ExitReason::Drained => tracing::info!("drained"),
        ExitReason::DeadlinePassed { cut } => tracing::warn!(cut, "requests were cut: they took too long"),
    }
    Ok(())
}
