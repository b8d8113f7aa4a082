//! Wiring of the edge role: what the supervisor handed down becomes what edge is configured with.

use std::ffi::OsStr;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use berth_clock::SystemClock;
use berth_edge::{AccessLog, Config, ExitReason, Http1, Limits};
use tokio::sync::oneshot;

use super::{RoleError, Ties, take};
use crate::args::EdgeArgs;

/// Who reads HTTP/1: `own` or `hyper`.
pub(crate) const HTTP1_VARIABLE: &str = "BERTH_EDGE_HTTP1";

/// Whether clients without TLS may speak HTTP/2: `on` or `off`.
pub(crate) const H2C_VARIABLE: &str = "BERTH_EDGE_H2C";

fn h2c(said: Option<&OsStr>) -> Result<bool, RoleError> {
    match said.map(OsStr::as_encoded_bytes) {
        None | Some(b"off") => Ok(false),
        Some(b"on") => Ok(true),
        Some(_) => Err(RoleError::Variable { name: H2C_VARIABLE, wanted: "`on` or `off`" }),
    }
}

fn http1(said: Option<&OsStr>) -> Result<Http1, RoleError> {
    match said.map(OsStr::as_encoded_bytes) {
        None | Some(b"own") => Ok(Http1::Own),
        Some(b"hyper") => Ok(Http1::Hyper),
        Some(_) => Err(RoleError::Variable { name: HTTP1_VARIABLE, wanted: "`own` or `hyper`" }),
    }
}

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
        h2c: h2c(std::env::var_os(H2C_VARIABLE).as_deref())?,
        http1: http1(std::env::var_os(HTTP1_VARIABLE).as_deref())?,
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
