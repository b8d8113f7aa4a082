//! What instances are told of the apps of their projects.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, PoisonError};

use berth_routing::Names;
use berth_routing::names::Project;
use berth_spec::{AppId, AppName, InstanceId};

use super::{Inner, blocking};
use crate::error::RuntimeError;
use crate::hosts;
use crate::instance::InstanceSpec;
use crate::record::StartRecord;
use crate::sandbox::hostname;

impl Inner {
    /// The apps of all projects, as they were last told.
    pub(super) fn names(&self) -> Arc<Names> {
        Arc::clone(&self.names.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes on which apps there are, and has the instances know that run.
    pub(super) async fn tell_names(self: Arc<Self>, names: Names) -> Result<(), RuntimeError> {
        let now = Arc::new(names);
        let before = {
            let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *names, Arc::clone(&now))
        };
        let changed = |id: &&InstanceId| apps(&before, &id.app) != apps(&now, &id.app);
        let changed: Vec<InstanceId> = self.entries().keys().filter(changed).cloned().collect();
        if !changed.is_empty() {
            blocking(move || changed.iter().for_each(|id| self.rename(id))).await;
        }
        Ok(())
    }

    /// Has an instance know which apps there are now.
    pub(super) fn rename(&self, id: &InstanceId) {
        // Two that write to one file at once would write over each other.
        let _turn = self.naming.lock().unwrap_or_else(PoisonError::into_inner);
        let renamed = || -> io::Result<()> {
            let Some(record) = StartRecord::read(&self.layout.instance(id))? else { return Ok(()) };
            let names = self.names();
            let none = Project::default();
            let wanted = hosts::lines(names.beside(&id.app).unwrap_or(&none), &record.aliases);
            match hosts::update(&self.layout.hosts(id), &wanted) {
                // One that has no way to others.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            }
        };
        if let Err(error) = renamed() {
            tracing::warn!(instance = %id, %error, "an instance does not know which apps there are");
        }
    }

    /// Writes what an instance that is about to start knows of other apps.
    pub(super) fn write_hosts(&self, spec: &InstanceSpec) -> io::Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.layout.hosts(&spec.id);
        let names = self.names();
        let lines = names.beside(&spec.id.app).map(|project| hosts::lines(project, &spec.aliases));
        let mut text = hosts::own(&hostname(spec));
        for line in lines.unwrap_or_default() {
            text.push_str(&line);
            text.push('\n');
        }
        std::fs::write(&path, text)?;
        // Whatever umask we run with: the app's own user reads it.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644))
    }
}

fn apps<'n>(names: &'n Names, app: &AppId) -> Option<&'n BTreeMap<AppName, Ipv4Addr>> {
    names.beside(app).map(|project| &project.apps)
}
