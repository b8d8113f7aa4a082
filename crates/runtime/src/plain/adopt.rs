//! What a new control finds: the instances of the one before it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_process::{Identity, Tree};
use tokio::task::JoinSet;

use super::{Inner, KILL_LIMIT, blocking, joined, link, remove_file};
use crate::egress::WayOut;
use crate::error::{RuntimeError, during};
use crate::instance::{InstanceState, Observed};
use crate::layout::{dial_folder, short};
use crate::record::StartRecord;

/// Shims spoken to at once: one that hangs must not hold up the rest, and each takes a descriptor or two.
const AT_ONCE: usize = 32;
/// The folders between `instances/` and an instance's own: tenant, project, app.
const DEPTH: usize = 4;

impl Inner {
    pub(super) async fn adopt_all(self: Arc<Self>) -> Result<Vec<Observed>, RuntimeError> {
        let inner = Arc::clone(&self);
        let records = blocking(move || -> Result<_, RuntimeError> {
            let records = inner.records()?;
            inner.keep_rules(&records);
            Ok(records)
        });
        let records = records.await?;
        let mut known: BTreeSet<String> = records.iter().map(|record| short(record.token)).collect();
        // Instances that were started meanwhile are none of ours to clean up after.
        known.extend(self.entries().values().map(|entry| short(entry.token)));
        let mut adopted = Vec::new();
        let mut tasks = JoinSet::new();
        for record in records {
            if tasks.len() >= AT_ONCE
                && let Some(done) = tasks.join_next().await
            {
                adopted.extend(joined(done)?);
            }
            tasks.spawn(Arc::clone(&self).adopt(record));
        }
        while let Some(done) = tasks.join_next().await {
            adopted.extend(joined(done)?);
        }
        self.clear_strays(&known).await?;
        self.attend();
        Ok(adopted)
    }

    /// Ends all that records name, and removes it and the sockets of shims. Blocks.
    pub(super) fn end_all(&self) -> Result<(), RuntimeError> {
        for record in self.records()? {
            self.clear(&record)?;
            self.layout.remove_instance(&record.id).map_err(during("removing an instance's folder"))?;
        }
        if let Some(containers) = &self.containers {
            containers.sweep(|| Ok(BTreeSet::new()))?;
        }
        for folder in self.layout.socket_folders() {
            for socket in files_in(&folder).map_err(during("listing sockets"))? {
                remove_file(&socket).map_err(during("removing a socket"))?;
            }
        }
        if let Ok(WayOut::Pair(pair)) = &self.way_out {
            pair.close().map_err(during("removing the rules of the packet filter"))?;
        }
        Ok(())
    }

    /// Has the rules about instances with a way out be in the packet filter, if there are such instances. Those run whether they are or not.
    fn keep_rules(&self, records: &[StartRecord]) {
        if let Ok(WayOut::Pair(pair)) = &self.way_out
            && let Err(error) = pair.adopt(records.iter().map(|record| record.token))
        {
            tracing::error!(%error, "the rules about instances could not be put into the packet filter");
        }
    }

    async fn adopt(self: Arc<Self>, record: StartRecord) -> Result<Option<Observed>, RuntimeError> {
        let _turn = self.gate(&record.id).await;
        if let Ok(entry) = self.entry(&record.id) {
            return Ok(Some(entry.observed.borrow().clone()));
        }
        let socket = self.layout.socket(record.token).map_err(during("naming a socket"))?;
        let record = Arc::clone(&self).with_shim(record).await?;
        if record.boot == self.boot {
            match link::meet(&socket, record.token).await {
                // A pid that lies is no shim of ours; what it names is left alone.
                Ok(met) if self.is_shim(&met, &record)? => {
                    return self.link(record, met, None).map(Some);
                }
                Ok(_) => tracing::warn!(instance = %record.id, "something else answers at a shim's socket"),
                Err(what) => tracing::warn!(instance = %record.id, what, "a shim is gone; its tree is ended"),
            }
        }
        let inner = Arc::clone(&self);
        blocking(move || {
            inner.clear(&record)?;
            if record.boot == inner.boot {
                let (entry, _) = inner.enter(&StartRecord { shim: None, ..record }, InstanceState::Gone);
                return Ok(Some(entry.observed.borrow().clone()));
            }
            inner.layout.remove_instance(&record.id).map_err(during("removing an instance's folder"))?;
            Ok(None)
        })
        .await
    }

    /// The record with the shim in it, which in a container does not know what it is called out here: a control that died before it wrote
    /// that down has left the container.
    async fn with_shim(self: Arc<Self>, record: StartRecord) -> Result<StartRecord, RuntimeError> {
        if self.containers.is_none() || record.shim.is_some() {
            return Ok(record);
        }
        blocking(move || {
            let shim =
                self.containers.as_ref().map_or(Ok(None), |containers| containers.shim(record.token))?;
            Ok(StartRecord { shim, ..record })
        })
        .await
    }

    fn is_shim(&self, met: &link::Met, record: &StartRecord) -> Result<bool, RuntimeError> {
        let alive = |shim: &Identity| shim.is_alive().map_err(during("looking at a shim"));
        match (&self.containers, &record.shim) {
            (None, _) => alive(&met.identity(self)),
            (Some(_), shim) => shim.as_ref().map_or(Ok(false), alive),
        }
    }

    /// The folders of all instances.
    fn folders(&self) -> Result<Vec<PathBuf>, RuntimeError> {
        let mut folders = vec![self.layout.instances.clone()];
        for _ in 0..DEPTH {
            let mut below = Vec::new();
            for folder in &folders {
                below.extend(folders_in(folder).map_err(during("listing instances"))?);
            }
            folders = below;
        }
        Ok(folders)
    }

    /// The tokens of which there is a record just now, as containers are labelled with them. Instances may come and go meanwhile.
    pub(super) fn recorded(&self) -> Result<BTreeSet<String>, RuntimeError> {
        let mut tokens = BTreeSet::new();
        for folder in self.folders()? {
            let record = StartRecord::read(&folder).map_err(during("reading start.json"))?;
            tokens.extend(record.map(|record| short(record.token)));
        }
        Ok(tokens)
    }

    /// The records of all instances. A folder without one is of a start that was cut short before it made anything.
    fn records(&self) -> Result<Vec<StartRecord>, RuntimeError> {
        let mut records = Vec::new();
        for folder in self.folders()? {
            match StartRecord::read(&folder) {
                Ok(Some(record)) if self.layout.instance(&record.id) == folder => records.push(record),
                Ok(None) => fs::remove_dir_all(&folder).map_err(during("removing an instance's folder"))?,
                Ok(Some(_)) => {
                    tracing::error!(folder = %folder.display(), "a start.json is of another instance")
                }
                Err(error) => {
                    tracing::error!(folder = %folder.display(), %error, "a start.json cannot be read")
                }
            }
        }
        Ok(records)
    }

    /// Ends and removes what belongs to no record: shims whose folder somebody removed, groups, sockets.
    async fn clear_strays(self: &Arc<Self>, known: &BTreeSet<String>) -> Result<(), RuntimeError> {
        let sockets = files_in(&self.layout.sockets()).map_err(during("listing sockets"))?;
        let stray =
            |path: &&PathBuf| path.file_stem().is_none_or(|stem| !known.contains(&*stem.to_string_lossy()));
        for socket in sockets.iter().filter(stray) {
            // A container is found and ended by its label.
            let root = if self.containers.is_none() { link::stranger(socket, self).await } else { None };
            let (inner, socket) = (Arc::clone(self), socket.clone());
            blocking(move || {
                if let Some((root, mark)) = root {
                    inner.end_stray(root, mark)?;
                }
                remove_file(&socket).map_err(during("removing a socket"))
            })
            .await?;
        }
        let (inner, known) = (Arc::clone(self), known.clone());
        blocking(move || {
            if let Some(containers) = &inner.containers {
                containers.sweep(|| Ok(known.clone()))?;
            }
            let dial = files_in(&dial_folder(&inner.layout.run)).map_err(during("listing sockets"))?;
            let stray = |path: &&PathBuf| {
                path.file_stem().is_none_or(|stem| !known.contains(&*stem.to_string_lossy()))
            };
            for socket in dial.iter().filter(stray) {
                remove_file(socket).map_err(during("removing a socket"))?;
            }
            let Some(groups) = &inner.cgroups else {
                return Ok(());
            };
            let names = groups.names().map_err(during("listing control groups"))?;
            for name in names.into_iter().filter(|name| !known.contains(name)) {
                let group = groups.group(&name);
                let tree = Tree { cgroup: Some(group.clone()), ..Tree::default() };
                if let Err(error) = tree.kill(&*inner.clock, KILL_LIMIT) {
                    tracing::error!(group = name, %error, "a stray control group does not end");
                } else {
                    group.remove().map_err(during("removing a control group"))?;
                }
            }
            Ok(())
        })
        .await
    }

    fn end_stray(&self, root: Identity, mark: berth_process::Mark) -> Result<(), RuntimeError> {
        tracing::warn!(pid = root.pid, "a shim without a record is ended");
        let cgroup = self.cgroups.as_ref().map(|groups| groups.group(&short(mark)));
        let tree = Tree { root: Some(root), mark: Some(mark), cgroup };
        tree.kill(&*self.clock, KILL_LIMIT).map_err(|error| RuntimeError::System {
            what: "ending a stray shim",
            source: io::Error::other(error),
        })
    }
}

fn folders_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn files_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
}
