//! A snapshot of a volume for as long as it is saved: what is in the volume itself changes meanwhile.

use std::time::Duration;

use berth_control::command::{Command, Wish};
use berth_control::event::{Failure, VolumeDeed, VolumeWork};
use berth_spec::{AppId, SnapshotName, VolumeName};
use tokio::sync::watch;

use super::Saving;
use crate::desk::SubmitError;
use crate::machine::in_full;

/// How long an app that is busy - a release is being activated, a command runs on the volume - is waited for.
const BUSY: Duration = Duration::from_secs(120);

/// A snapshot of a volume.
pub(super) struct Taken {
    pub(super) name: SnapshotName,
    /// Whether it was there before, and is somebody's who wants to keep it.
    kept: bool,
}

impl Saving {
    /// Takes a snapshot of a volume; the reason why there is none otherwise.
    pub(super) async fn take(&self, app: &AppId, volume: &VolumeName) -> Result<Taken, String> {
        let name = SnapshotName::at(self.clock.now());
        let there = self.machine.snapshots(app, volume).await.map_err(|error| in_full(&error))?;
        let kept = there.iter().any(|(there, _)| *there == name);
        let work = VolumeWork { volume: volume.clone(), snapshot: name.clone(), what: VolumeDeed::Snapshot };
        let mut durable = self.desk.durable();
        let begun = tokio::time::timeout(BUSY, self.begin(app, &work, &mut durable)).await;
        begun.unwrap_or_else(|_elapsed| Err("the app was busy for too long".to_owned()))?;
        match self.over(app, &work, &mut durable).await? {
            None => Ok(Taken { name, kept }),
            Some(failure) => Err(failure.summary),
        }
    }

    /// Has the work begin, once the app is not busy any more.
    async fn begin(
        &self,
        app: &AppId,
        work: &VolumeWork,
        durable: &mut watch::Receiver<u64>,
    ) -> Result<(), String> {
        loop {
            durable.mark_unchanged();
            let wish = Wish::WorkOnVolume { work: work.clone() };
            let command = Command::App { app: app.clone(), wish };
            match self.desk.submit(command, self.asker.clone(), None, None).await {
                Ok(_) => return Ok(()),
                // What it is busy with is over with an event.
                Err(SubmitError::Refused(_)) => {
                    durable.changed().await.map_err(|_closed| "the platform is stopping".to_owned())?;
                }
                Err(error) => return Err(in_full(&error)),
            }
        }
    }

    /// Waits until the work is over, and gives the failure that it ended with.
    async fn over(
        &self,
        app: &AppId,
        work: &VolumeWork,
        durable: &mut watch::Receiver<u64>,
    ) -> Result<Option<Failure>, String> {
        loop {
            durable.mark_unchanged();
            let now = self.desk.app(app).ok_or("the app is gone")?;
            if now.volume_work.as_ref() != Some(work) {
                let worked = now.volume_worked.as_ref().filter(|(worked, _)| worked == work);
                return Ok(worked.and_then(|(_, failure)| failure.clone()));
            }
            durable.changed().await.map_err(|_closed| "the platform is stopping".to_owned())?;
        }
    }

    /// Removes a snapshot that was taken to be saved. One that stays is listed as any other, and takes room alone.
    pub(super) async fn remove(&self, app: &AppId, volume: &VolumeName, taken: Taken) {
        if taken.kept {
            return;
        }
        let wish = Wish::RemoveVolume { volume: volume.clone(), snapshot: Some(taken.name.clone()) };
        let command = Command::App { app: app.clone(), wish };
        let submitted = self.desk.submit(command, self.asker.clone(), None, None).await;
        if let Err(error) = submitted {
            crate::events::could_not("remove the snapshot of a backup", &in_full(&error));
        } else if let Err(error) = self.machine.remove_volume(app, volume, Some(taken.name)).await {
            crate::events::could_not("remove the snapshot of a backup", &in_full(&error));
        }
    }
}
