//! A Dockerfile built by a daemon: Docker, or Podman by Docker's API.

use std::fs::File;
use std::sync::Arc;

use berth_docker::{Dockerfile, EngineError, Watched};

use super::{MADE_BELOW, Order, context};
use crate::builder::workplace::Workplace;
use crate::builder::{Inside, blocking};
use crate::error::BuildError;
use crate::log::Stream;
use crate::weigh::free;

/// Has the daemon build it, and gives the image as an archive.
pub(super) async fn build(
    inside: &Arc<Inside>,
    daemon: berth_docker::Engine,
    order: Order,
    place: &Workplace,
) -> Result<File, BuildError> {
    let (inside, dir, group) = (Arc::clone(inside), place.dir.clone(), place.group.clone());
    blocking(move || {
        let named = daemon.product().to_string();
        let not_done =
            |error: EngineError| BuildError::Engine { engine: named.clone(), source: error.into() };
        let Order { request, tree, store, log, deadline } = order;
        let context = context::pack(&store, &tree, &request.path, &dir)?;
        let below = group.as_ref().filter(|_| rustix::process::geteuid().is_root());
        let what = Dockerfile {
            path: request.path,
            name: request.name,
            target: request.target,
            args: request.args.into_iter().collect(),
            secrets: request.secrets.into_iter().collect(),
            offline: request.offline,
            cgroup: below.map(|group| format!("{}/{MADE_BELOW}", group.from_top())),
        };
        let is_late = || inside.clock.monotonic() >= deadline;
        // The daemon's storage is most likely on the same disk; a full one stops the platform with all that it runs.
        let is_full = || free(&inside.disk()).is_some_and(|free| free < inside.config.reserve);
        let end_commands = || {
            if let Some(Err(error)) = group.as_ref().map(berth_process::Cgroup::kill) {
                tracing::debug!(%error, "the commands of a Dockerfile could not be ended");
            }
        };
        let watched = Watched {
            say: &mut |line| log.output(Stream::Out, line.to_owned()),
            stop: &|| request.cancel.is_cancelled() || is_late() || is_full(),
            end_commands: &end_commands,
        };
        match daemon.build(context, &what, watched) {
            Ok(true) => {}
            Ok(false) if request.cancel.is_cancelled() => return Err(BuildError::Cancelled),
            Ok(false) if is_late() => return Err(BuildError::Timeout(inside.config.timeout)),
            Ok(false) => return Err(BuildError::DiskFull(inside.disk())),
            Err(EngineError::Refused { what: "building", message, .. }) => {
                let message = message.trim().to_owned();
                return Err(BuildError::Dockerfile { message, tail: log.tail() });
            }
            Err(error) => return Err(not_done(error)),
        }
        let archive = daemon.save(&what.name, &dir, &|| !is_full());
        // Its layers go into our store.
        daemon.remove_image(&what.name).map_err(&not_done)?;
        archive.map_err(not_done)?.ok_or_else(|| BuildError::DiskFull(inside.disk()))
    })
    .await
}
