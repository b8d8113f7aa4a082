//! `volumes`.

use std::time::Duration;

use berth_contract::{Code, ExitStatus, RestoreVolume, Volume, VolumeSizes, VolumeWork};
use berth_spec::{AppId, Manifest, SnapshotName, VolumeName};
use serde_json::json;

use super::Session;
use crate::args::{OfApp, VolumesAction, VolumesArgs};
use crate::failure::Failure;
use crate::figures::{self, counted};
use crate::screen::Style;
use crate::table::{Cell, Table};

/// From how many hundredths of its size on it is said of a volume that it is full.
const FULL: u64 = 90;
/// Between two looks whether work on a volume is over.
const LOOK: Duration = Duration::from_millis(100);

impl Session<'_> {
    pub(super) async fn volumes(&mut self, args: VolumesArgs) -> Result<ExitStatus, Failure> {
        match args.action {
            None => self.list_volumes(&args.of).await,
            Some(VolumesAction::List(of)) => self.list_volumes(&of.or(args.of)).await,
            Some(VolumesAction::Snapshot { name, of }) => self.take_snapshot(&name, &of.or(args.of)).await,
            Some(VolumesAction::Snapshots { name, of }) => self.list_snapshots(name, &of.or(args.of)).await,
            Some(VolumesAction::Restore { name, snapshot, yes, of }) => {
                self.restore_volume(&name, snapshot, yes, &of.or(args.of)).await
            }
            Some(VolumesAction::Remove { name, snapshot: None, yes, of }) => {
                self.remove_volume(&name, yes, &of.or(args.of)).await
            }
            Some(VolumesAction::Remove { name, snapshot: Some(snapshot), yes, of }) => {
                self.remove_snapshot(&name, &snapshot, yes, &of.or(args.of)).await
            }
        }
    }

    async fn list_volumes(&mut self, of: &OfApp) -> Result<ExitStatus, Failure> {
        let app = self.app_id(of)?;
        let list = self.client.volumes(&app).await?;
        self.show(&list, |session| {
            if list.volumes.is_empty() {
                return session.hint(&format!(
                    "{} has no volumes; write [[volumes]] into berth.toml and deploy",
                    app.app
                ));
            }
            let mut table = Table::new(&["NAME", ">USED", ">LIMIT", "PATH", "PROCESSES", "INSTANCES"]);
            for volume in &list.volumes {
                table.row(row(volume));
            }
            session.print(&table)?;
            for problem in list.volumes.iter().filter_map(|volume| volume.problem.as_ref()) {
                session.hint(problem)?;
            }
            for said in said_of_sizes(&list.volumes, list.sizes.as_ref()) {
                session.hint(&said)?;
            }
            Ok(())
        })
    }

    async fn remove_volume(
        &mut self,
        name: &VolumeName,
        yes: bool,
        of: &OfApp,
    ) -> Result<ExitStatus, Failure> {
        let app = self.app_id(of)?;
        if !yes {
            let list = self.client.volumes(&app).await?;
            let known = list.volumes.iter().find(|volume| volume.name == *name);
            // One that is not there is refused below, before anybody types its name.
            if let Some(volume) = known {
                let what =
                    format!("This removes {} with all that is in it and its snapshots.", described(volume));
                self.confirm(&format!("removing the volume {name}"), &what, name.as_str())?;
            }
        }
        self.client.remove_volume(&app, name).await?;
        self.show(&json!({ "removed": name }), |session| {
            Ok(session.screen.line(&format!("the volume {name} of {} is gone", app.app))?)
        })
    }
}

impl Session<'_> {
    /// Says of a release whose volumes have sizes that these are not kept, where that is so.
    pub(super) async fn warn_of_sizes(&mut self, manifest: &Manifest) -> Result<(), Failure> {
        let sized = manifest.volumes.iter().filter(|(_, volume)| volume.size.is_some());
        let names: Vec<&str> = sized.map(|(name, _)| name.as_str()).collect();
        if names.is_empty() {
            return Ok(());
        }
        match self.client.platform().await?.volume_sizes {
            Some(sizes) if !sizes.enforced => self.hint(&format!(
                "the size of {} is not enforced: {}; `berth doctor` says what to do",
                names.join(", "),
                sizes.why.unwrap_or_default()
            )),
            _ => Ok(()),
        }
    }

    async fn take_snapshot(&mut self, name: &VolumeName, of: &OfApp) -> Result<ExitStatus, Failure> {
        let app = self.app_id(of)?;
        let begun = self.client.take_snapshot(&app, name).await?;
        self.until_worked(&app, &begun).await?;
        self.show(&begun, |session| {
            session.screen.line(&format!("took the snapshot {} of {name}", begun.snapshot))?;
            session.hint(&format!("`berth volumes restore {name} {}` brings it back", begun.snapshot))
        })
    }

    async fn restore_volume(
        &mut self,
        name: &VolumeName,
        snapshot: SnapshotName,
        yes: bool,
        of: &OfApp,
    ) -> Result<ExitStatus, Failure> {
        let app = self.app_id(of)?;
        if !yes {
            let what = format!(
                "This stops what has the volume and replaces all that is in it by the snapshot {snapshot}.\nWhat is in it now is lost; `berth volumes snapshot {name}` keeps it."
            );
            self.confirm(&format!("restoring the volume {name}"), &what, name.as_str())?;
        }
        let begun = self.client.restore_volume(&app, name, &RestoreVolume { snapshot }).await?;
        self.until_worked(&app, &begun).await?;
        self.show(&begun, |session| {
            session.screen.line(&format!("{name} is as it was in the snapshot {}", begun.snapshot))?;
            session.hint("`berth ps` shows how its instances come up again")
        })
    }

    /// Waits until the work is over. It ends by itself: what does not stop is killed.
    async fn until_worked(&mut self, app: &AppId, begun: &VolumeWork) -> Result<(), Failure> {
        self.screen.status("working on the volume")?;
        let list = loop {
            let list = self.client.volumes(app).await?;
            match &list.work {
                Some(work) if work.snapshot == begun.snapshot && work.what == begun.what => {
                    // wait: for the platform to be done with it, which it tells by its list alone.
                    tokio::time::sleep(LOOK).await;
                }
                _ => break list,
            }
        };
        self.screen.clear_status()?;
        let failure =
            list.worked.filter(|work| work.snapshot == begun.snapshot).and_then(|work| work.failure);
        match failure {
            None => Ok(()),
            Some(failure) => {
                let detail =
                    failure.details.iter().fold(failure.summary, |text, more| format!("{text}: {more}"));
                Err(Failure::local(
                    failure.code,
                    detail,
                    "the volume is as it was; ask again when the reason is gone",
                ))
            }
        }
    }

    async fn list_snapshots(&mut self, name: Option<VolumeName>, of: &OfApp) -> Result<ExitStatus, Failure> {
        let app = self.app_id(of)?;
        let name = match name {
            Some(name) => name,
            None => self.only_volume(&app).await?,
        };
        let list = self.client.snapshots(&app, &name).await?;
        self.show(&list, |session| {
            if list.snapshots.is_empty() {
                return session
                    .hint(&format!("{name} has no snapshots; `berth volumes snapshot {name}` takes one"));
            }
            let mut table = Table::new(&["SNAPSHOT", ">SIZE", ">FILES"]);
            for snapshot in &list.snapshots {
                let (size, files) = (figures::binary_size(snapshot.used), snapshot.entries.to_string());
                table.row(vec![snapshot.name.as_str().into(), size.into(), files.into()]);
            }
            session.print(&table)
        })
    }

    async fn only_volume(&self, app: &AppId) -> Result<VolumeName, Failure> {
        let mut list = self.client.volumes(app).await?.volumes;
        match (list.len(), list.pop()) {
            (1, Some(volume)) => Ok(volume.name),
            (count, _) => {
                let detail = format!("{} has {}", app.app, counted(count as u64, "volume"));
                Err(Failure::local(Code::UsageInvalid, detail, "name the volume; `berth volumes` lists them"))
            }
        }
    }

    async fn remove_snapshot(
        &mut self,
        name: &VolumeName,
        snapshot: &SnapshotName,
        yes: bool,
        of: &OfApp,
    ) -> Result<ExitStatus, Failure> {
        let app = self.app_id(of)?;
        if !yes {
            let what = format!("This removes the snapshot {snapshot} of {name}.");
            self.confirm(&format!("removing the snapshot {snapshot}"), &what, name.as_str())?;
        }
        self.client.remove_snapshot(&app, name, snapshot).await?;
        self.show(&json!({ "removed": snapshot }), |session| {
            Ok(session.screen.line(&format!("the snapshot {snapshot} of {name} is gone"))?)
        })
    }
}

/// Whether volumes are kept to their sizes, in words; nothing from a platform that does not say.
pub(super) fn sizes_in_words(sizes: &VolumeSizes) -> String {
    match &sizes.why {
        None => "their sizes are enforced by the file system".to_owned(),
        Some(why) => format!("their sizes are not enforced: {why}"),
    }
}

/// What there is to say of the sizes of volumes.
fn said_of_sizes(volumes: &[Volume], sizes: Option<&VolumeSizes>) -> Vec<String> {
    let mut sized = volumes.iter().filter_map(|volume| Some((volume, volume.size?))).peekable();
    let Some(sizes) = sizes.filter(|_| sized.peek().is_some()) else { return Vec::new() };
    if !sizes.enforced {
        let next = sizes.next.as_deref().unwrap_or_default();
        let why = format!("{}; {next}", sizes_in_words(sizes));
        let full = sized.filter_map(|(volume, size)| {
            let percent = percent(volume.used?, size);
            (percent >= FULL).then(|| format!("{} holds {percent} % of its size", volume.name))
        });
        return std::iter::once(why).chain(full).collect();
    }
    sized.filter_map(|(volume, size)| said_of_size(volume, size)).collect()
}

fn percent(used: u64, size: u64) -> u64 {
    used.saturating_mul(100) / size.max(1)
}

fn said_of_size(volume: &Volume, size: u64) -> Option<String> {
    let (name, used) = (&volume.name, volume.used?);
    let percent = percent(used, size);
    if !volume.enforced {
        return Some(if used > size {
            format!(
                "{name} holds more than its size, to which it is kept from the deploy on at which it fits"
            )
        } else {
            format!("{name} is kept to its size from the next start of an instance on")
        });
    }
    (percent >= FULL).then(|| {
        format!("{name} is {percent} % full; a greater `size` in berth.toml takes effect by a deploy")
    })
}

fn row(volume: &Volume) -> Vec<Cell> {
    let list =
        |names: Vec<String>, none: &str| if names.is_empty() { none.to_owned() } else { names.join(", ") };
    let used = volume.used.map_or_else(|| "-".to_owned(), figures::binary_size);
    let limit = volume.size.map_or_else(|| "-".to_owned(), figures::binary_size);
    let path = match &volume.path {
        Some(path) => path.as_str().into(),
        None => Cell::new("no release has it", Style::Dim),
    };
    let processes = volume.processes.iter().map(ToString::to_string).collect();
    let processes = if volume.path.is_some() { list(processes, "all") } else { "-".to_owned() };
    let instances = volume.instances.iter().map(|id| id.short()).collect();
    vec![
        volume.name.as_str().into(),
        used.into(),
        limit.into(),
        path,
        processes.into(),
        list(instances, "-").into(),
    ]
}

/// A volume and what is in it: `data (1.2 MiB in 34 files)`.
pub(super) fn described(volume: &Volume) -> String {
    match (volume.used, volume.entries) {
        (Some(used), Some(entries)) => {
            format!("{} ({} in {})", volume.name, figures::binary_size(used), counted(entries, "file"))
        }
        _ => volume.name.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(used: u64, enforced: bool) -> Volume {
        let volume =
            json!({ "name": "data", "size": 1_000_000, "used": used, "enforced": enforced, "place": "/" });
        serde_json::from_value(volume).unwrap()
    }

    fn said(used: u64, enforced: bool) -> Option<String> {
        let sizes = VolumeSizes { enforced: true, why: None, next: None };
        said_of_sizes(&[volume(used, enforced)], Some(&sizes)).pop()
    }

    #[test]
    fn a_volume_that_is_nearly_full_is_named_and_so_is_one_that_is_not_kept_to_its_size() {
        assert_eq!(said(899_999, true), None);
        assert!(said(900_000, true).unwrap().starts_with("data is 90 % full"));
        assert!(said(1, false).unwrap().contains("from the next start"));
        assert!(said(1_000_001, false).unwrap().contains("holds more than its size"));
    }

    #[test]
    fn where_sizes_are_not_enforced_the_reason_is_said_once_and_only_if_there_is_a_size() {
        let (why, next) = (Some("because".to_owned()), Some("do this".to_owned()));
        let sizes = VolumeSizes { enforced: false, why, next };
        let all = [volume(1, false), volume(2, false)];
        assert_eq!(said_of_sizes(&all, Some(&sizes)), ["their sizes are not enforced: because; do this"]);
        let more = said_of_sizes(&[volume(950_000, false), volume(1_200_000, false)], Some(&sizes));
        assert_eq!(more[1..], ["data holds 95 % of its size", "data holds 120 % of its size"]);
        let unsized_one = Volume { size: None, ..volume(1, false) };
        assert!(said_of_sizes(&[unsized_one], Some(&sizes)).is_empty());
        assert!(said_of_sizes(&all, None).is_empty(), "a platform of before does not say");
    }
}
