//! `volumes`.

use berth_contract::{ExitStatus, Volume};
use berth_spec::{Bytes, VolumeName};
use serde_json::json;

use super::Session;
use crate::args::{OfApp, VolumesAction, VolumesArgs};
use crate::failure::Failure;
use crate::figures::{self, counted};
use crate::screen::Style;
use crate::table::{Cell, Table};

impl Session<'_> {
    pub(super) async fn volumes(&mut self, args: VolumesArgs) -> Result<ExitStatus, Failure> {
        match args.action {
            None => self.list_volumes(&args.of).await,
            Some(VolumesAction::List(of)) => self.list_volumes(&of.or(args.of)).await,
            Some(VolumesAction::Remove { name, yes, of }) => {
                self.remove_volume(&name, yes, &of.or(args.of)).await
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
            if list.volumes.iter().any(|volume| volume.size.is_some() && !volume.enforced) {
                session
                    .hint("limits are not kept: the file system of the home counts no quotas of projects")?;
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
                let what = format!("This removes {} with all that is in it.", described(volume));
                self.confirm(&format!("removing the volume {name}"), &what, name.as_str())?;
            }
        }
        self.client.remove_volume(&app, name).await?;
        self.show(&json!({ "removed": name }), |session| {
            Ok(session.screen.line(&format!("the volume {name} of {} is gone", app.app))?)
        })
    }
}

fn row(volume: &Volume) -> Vec<Cell> {
    let list =
        |names: Vec<String>, none: &str| if names.is_empty() { none.to_owned() } else { names.join(", ") };
    let used = volume.used.map_or_else(|| "-".to_owned(), figures::size);
    let limit = volume.size.map_or_else(|| "-".to_owned(), |size| Bytes(size).to_string());
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

/// A volume and what is in it: `data (1.2 MB in 34 files)`.
pub(super) fn described(volume: &Volume) -> String {
    match (volume.used, volume.entries) {
        (Some(used), Some(entries)) => {
            format!("{} ({} in {})", volume.name, figures::size(used), counted(entries, "file"))
        }
        _ => volume.name.to_string(),
    }
}
