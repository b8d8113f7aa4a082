//! Work on volumes: each a task that ends in an observation for the planner, and may be done again from its beginning.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_control::event::{Failure, VolumeDeed, VolumeWork};
use berth_control::state::App;
use berth_control::volume::of_instance;
use berth_runtime::{Frozen, RuntimeError};
use berth_spec::{AppId, InstanceId, VolumeName};
use berth_volume::VolumeError;

use super::building::RESERVE;
use super::volumes::blocking;
use super::{Machine, in_full};
use crate::{events, tasks};

/// The field of [`Machine`].
pub(super) type WorkNotes = Mutex<BTreeMap<AppId, Working>>;

/// Work that is under way, or has ended and was not taken note of.
#[derive(Debug)]
pub(super) enum Working {
    Running,
    Ended(VolumeWork, Option<Failure>),
}

impl Machine {
    fn volume_work(&self) -> MutexGuard<'_, BTreeMap<AppId, Working>> {
        self.volume_work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was done with a volume of an app that still is to be.
    pub(super) fn volume_worked(&self, app: &App) -> Option<(VolumeWork, Option<Failure>)> {
        let mut notes = self.volume_work();
        if app.volume_work.is_none() {
            // Taken note of: the same may be asked for again, and is to be done again then.
            notes.retain(|id, working| *id != app.id || matches!(working, Working::Running));
            return None;
        }
        match notes.get(&app.id) {
            Some(Working::Ended(work, failure)) => Some((work.clone(), failure.clone())),
            _ => None,
        }
    }

    /// Whether instances can be had stand still here.
    pub(super) fn freezes(&self) -> bool {
        self.runtime.capabilities().cgroup.is_some()
    }

    /// Works on a volume, in a task of its own, unless that runs or has ended.
    pub fn work_on_volume(self: &Arc<Self>, app: &Arc<App>, work: VolumeWork) {
        {
            let mut notes = self.volume_work();
            match notes.get(&app.id) {
                Some(Working::Running) => return,
                Some(Working::Ended(done, _)) if *done == work => return,
                _ => drop(notes.insert(app.id.clone(), Working::Running)),
            }
        }
        let (this, app) = (Arc::clone(self), Arc::clone(app));
        tasks::run("working on a volume", async move {
            let failure = this.do_volume_work(&app, &work).await.err();
            this.volume_work().insert(app.id.clone(), Working::Ended(work, failure));
            this.desk.changed().add(app.id.clone());
        });
    }

    async fn do_volume_work(&self, app: &App, work: &VolumeWork) -> Result<(), Failure> {
        let (store, id, work) = (self.volumes.clone(), app.id.clone(), work.clone());
        let frozen = match work.what {
            VolumeDeed::Snapshot => self.freeze_holders(app, &work.volume).await?,
            VolumeDeed::Restore => Vec::new(),
        };
        let done = blocking(move || match work.what {
            VolumeDeed::Snapshot => store.snapshot(&id, &work.volume, &work.snapshot, RESERVE),
            VolumeDeed::Restore => store.restore(&id, &work.volume, &work.snapshot, RESERVE),
        });
        let done = done.await;
        self.let_go_on(&frozen).await;
        done.map_err(|error| failure(&error))
    }

    /// Has all instances stand still that have the volume, and gives which.
    async fn freeze_holders(&self, app: &App, volume: &VolumeName) -> Result<Vec<InstanceId>, Failure> {
        let holders = app.instances.iter().filter(|(_, it)| of_instance(app, it).any(|name| name == volume));
        let alive: Vec<InstanceId> = self
            .runtime
            .list_app(&app.id)
            .into_iter()
            .filter(|it| !it.state.is_over())
            .map(|it| it.id)
            .collect();
        let holders =
            holders.filter_map(|(&ordinal, _)| app.instance_id(ordinal)).filter(|id| alive.contains(id));
        let mut frozen = Vec::new();
        for id in holders {
            match self.runtime.freeze(&id, Frozen::Resident).await {
                Ok(()) => frozen.push(id),
                Err(RuntimeError::NotFound(_)) => {}
                Err(error) => {
                    frozen.push(id);
                    self.let_go_on(&frozen).await;
                    let summary = "what has the volume cannot be had stand still";
                    return Err(Failure {
                        detail: vec![in_full(&error)],
                        ..Failure::new("storage_failed", summary)
                    });
                }
            }
        }
        Ok(frozen)
    }

    async fn let_go_on(&self, frozen: &[InstanceId]) {
        for id in frozen {
            match self.runtime.thaw(id).await {
                // It may have slept before.
                Ok(()) => self.note_still(id, false),
                Err(RuntimeError::NotFound(_)) => {}
                Err(error) => events::could_not("have an instance go on", &error),
            }
        }
    }
}

fn failure(error: &VolumeError) -> Failure {
    let code = if error.is_disk_full() { "disk_full" } else { "storage_failed" };
    let detail = std::error::Error::source(error).map(in_full).into_iter().collect();
    Failure { detail, ..Failure::new(code, error.to_string()) }
}
