//! Instances that are made to stand still, and go on.

use std::sync::Arc;

use berth_process::{Cgroup, Mark};
use berth_spec::InstanceId;

use super::{Inner, app_pids, blocking};
use crate::error::{RuntimeError, during};
use crate::instance::Frozen;

impl Inner {
    /// The control group of an instance, without which it cannot be frozen.
    fn group(&self, id: &InstanceId) -> Result<Cgroup, RuntimeError> {
        let group = self.entry(id)?.tree.cgroup.clone();
        group.ok_or(RuntimeError::Invalid("it has no control group that could be frozen"))
    }

    pub(super) async fn freeze(self: Arc<Self>, id: InstanceId, then: Frozen) -> Result<(), RuntimeError> {
        let entry = self.entry(&id)?;
        let group = if self.containers.is_none() { Some(self.group(&id)?) } else { None };
        blocking(move || {
            if let Some(containers) = &self.containers {
                containers.freeze(entry.token)?;
            }
            if let Some(group) = &group {
                group.freeze().map_err(during("freezing a control group"))?;
            }
            if then == Frozen::PagedOut && berth_process::swap_is_there() {
                // One that has ended meanwhile has no memory left.
                for pid in app_pids(&entry.tree).map_err(during("listing the processes of an instance"))? {
                    if let Err(error) = berth_process::page_out(pid) {
                        tracing::debug!(pid, %error, "the memory of a process was not moved out");
                    }
                }
            }
            Ok(())
        })
        .await
    }

    pub(super) async fn thaw(self: Arc<Self>, id: InstanceId) -> Result<(), RuntimeError> {
        let token = self.entry(&id)?.token;
        let group = if self.containers.is_none() { Some(self.group(&id)?) } else { None };
        blocking(move || match group {
            Some(group) => group.thaw().map_err(during("thawing a control group")),
            None => self.thaw_container(token),
        })
        .await
    }

    /// Has what is in the container of an instance go on, where it has one. Blocks.
    pub(super) fn thaw_container(&self, token: Mark) -> Result<(), RuntimeError> {
        self.containers.as_ref().map_or(Ok(()), |containers| containers.thaw(token))
    }
}
