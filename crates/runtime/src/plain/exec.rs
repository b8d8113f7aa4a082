//! Commands that run within an instance: asked of its shim on a connection of their own, which ends them when it ends.

use std::fs;
use std::sync::Arc;

use berth_process::User;
use berth_shim::exec::{self, Exec};
use berth_shim::wire::{Exit, FromShim, ToShim};
use berth_spec::InstanceId;
use tokio::io::{AsyncWriteExt as _, Interest};

use super::link::{self, Wire};
use super::{Inner, blocking};
use crate::attach::{self, Attach, Attached};
use crate::error::{RuntimeError, during};
use crate::instance::InstanceState;

/// A command that runs within an instance. Dropped, it is killed with all that it started.
#[derive(Debug)]
pub struct Executing {
    wire: Wire,
}

impl Executing {
    /// Waits for the command's end, and that of all that it started; `None` when its instance ended with its shim.
    pub async fn over(&mut self) -> Option<Exit> {
        loop {
            match self.wire.read().await {
                Ok(Some(FromShim::Executed(exit))) => return Some(exit),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return None,
            }
        }
    }
}

impl Executing {
    /// Sends the command's process group a signal, and leaves it to the command what it makes of it.
    pub async fn signal(&mut self, signal: i32) {
        // One that is over needs none, and whose shim is gone is.
        drop(self.wire.stream.write_all(&ToShim::Signal { signal }.encode()).await);
    }
}

impl Inner {
    pub(super) async fn exec(
        self: Arc<Self>,
        id: InstanceId,
        command: Exec,
        how: Attach,
    ) -> Result<(Attached, Executing), RuntimeError> {
        let entry = self.entry(&id)?;
        let state = entry.observed.borrow().state;
        let InstanceState::Running { pid, .. } = state else {
            return Err(RuntimeError::NotRunning(id.clone()));
        };
        let request = command.encode().ok_or(RuntimeError::TooLong)?;
        let socket = self.layout.socket(entry.token).map_err(during("naming a socket"))?;
        let met = link::meet(&socket, entry.token).await;
        let met = met.map_err(|what| RuntimeError::Shim { id: id.clone(), what })?;
        if !met.runs_commands() {
            return Err(RuntimeError::Older(id));
        }
        let mut wire = met.into_wire();
        let made = blocking(move || attach::make(how, user_of(pid).as_ref())).await;
        let (attached, ends) = made.map_err(during("making what a command reads and writes"))?;
        let asking = during("asking a shim for a command");
        let send = || exec::send(&wire.stream, &request, ends.borrowed());
        let sent = wire.stream.async_io(Interest::WRITABLE, send).await.map_err(&asking)?;
        let rest = request.get(sent..).unwrap_or_default();
        wire.stream.write_all(rest).await.map_err(&asking)?;
        Ok((attached, Executing { wire }))
    }
}

/// The user whom the app runs as, as it is known out here; `None` where that is ours, or not to be seen.
fn user_of(pid: u32) -> Option<User> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let effective = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    Some(User { uid: effective("Uid:")?, gid: effective("Gid:")?, groups: Vec::new() })
}
