//! `[[volumes]]`: directories that outlive releases and instances.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::{Deserialize, Serialize};
use toml::de::DeValue;

use super::keys;
use super::read::{Section, array, expected, text};
use crate::name::{ProcessName, VolumeName};
use crate::problem::{Wrong, nearest};
use crate::unit::Bytes;

/// The most volumes of one app.
pub const VOLUMES_MAX: usize = 20;
/// The smallest limit on a volume's size: below it no file system would work.
const SIZE_MIN: Bytes = Bytes(1 << 20);
/// Where the kernel's own file systems are, in every root.
const KERNEL: [&str; 3] = ["/proc", "/sys", "/dev"];
/// What an app from source has of its machine and cannot write to: nothing can be mounted within.
const MACHINE: [&str; 9] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix"];

/// A directory that outlives releases and instances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Where instances with a root of their own have it.
    pub path: MountPath,
    /// How much it may hold, where the file system counts that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Bytes>,
    /// The processes that have it; empty for all of them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub processes: BTreeSet<ProcessName>,
}

impl Volume {
    /// Whether instances of `process` have it.
    #[must_use]
    pub fn is_of(&self, process: &ProcessName) -> bool {
        self.processes.is_empty() || self.processes.contains(process)
    }
}

impl VolumeName {
    /// The environment variable that says where the volume is: `VOLUME_DATA`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("VOLUME_{}", self.as_str().to_ascii_uppercase().replace('-', "_"))
    }
}

super::checked_text! {
    /// Where a volume is: an absolute path of plain parts, and nowhere that the kernel has something of its own.
    MountPath, mount_path, InvalidMountPath("{0:?} is not where a volume can be");
}

impl MountPath {
    /// The folder of the machine that it lies in, within which an app from source can have nothing mounted.
    #[must_use]
    pub fn within_machine(&self) -> Option<&'static str> {
        MACHINE.into_iter().find(|folder| is_within(self.as_str(), folder))
    }
}

fn mount_path(path: &str) -> Option<String> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let parts = path.strip_prefix('/')?;
    let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(char::is_control);
    let fits =
        path.len() <= 255 && parts.split('/').all(plain) && !KERNEL.iter().any(|it| is_within(path, it));
    fits.then(|| path.to_owned())
}

/// Whether `path` is `folder` or lies in it.
fn is_within(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

pub(super) fn read(
    section: &mut Section<'_, '_, '_>,
    processes: &BTreeSet<ProcessName>,
    is_image: bool,
) -> BTreeMap<VolumeName, Volume> {
    let tables = array(section, "volumes", "an array of tables: `[[volumes]]`");
    let mut volumes: BTreeMap<VolumeName, Volume> = BTreeMap::new();
    for (index, value) in tables.iter().enumerate() {
        if index >= VOLUMES_MAX {
            let wrong = Wrong::new(format!("an app has at most {VOLUMES_MAX} volumes"));
            section.problems.note(&value.span(), wrong);
            break;
        }
        let Some(table) = value.get_ref().as_table() else {
            section.problems.note(&value.span(), expected("a table", value.get_ref()));
            continue;
        };
        let mut one = Section::new(section.problems, table, &keys::VOLUMES);
        let Some((name, volume)) = entry(&mut one, &value.span(), processes, is_image) else { continue };
        let clash = volumes.iter().find(|(other, it)| {
            let (one, two) = (it.path.as_str(), volume.path.as_str());
            **other == name || is_within(one, two) || is_within(two, one)
        });
        if let Some((other, _)) = clash {
            let wrong = if *other == name {
                Wrong::new(format!("there is a volume {name} already"))
            } else {
                Wrong::new(format!("the volumes {other} and {name} lie one within the other"))
            };
            section.problems.note(&value.span(), wrong.instead("give each a name and a path of its own"));
            continue;
        }
        volumes.insert(name, volume);
    }
    volumes
}

fn entry(
    section: &mut Section<'_, '_, '_>,
    at: &Range<usize>,
    processes: &BTreeSet<ProcessName>,
    is_image: bool,
) -> Option<(VolumeName, Volume)> {
    let name = section.get("name", |value| VolumeName::new(text(value)?).map_err(Wrong::new));
    let path = section.get("path", |value| {
        let path: MountPath = text(value)?.parse().map_err(|bad| {
            Wrong::new(bad).instead("write an absolute path like \"/data\", outside of /proc, /sys and /dev")
        })?;
        match path.within_machine().filter(|_| !is_image) {
            Some(folder) => {
                let wrong =
                    Wrong::new(format!("nothing can be mounted within {folder}: it is the machine's"));
                Err(wrong.instead("write a path like \"/data\", which the app also finds in its environment"))
            }
            None => Ok(path),
        }
    });
    for (key, example) in [("name", "name = \"data\""), ("path", "path = \"/data\"")] {
        if section.table.get(key).is_none() {
            let wrong = Wrong::new(format!("`volumes` has no `{key}`")).instead(format!("write {example}"));
            section.problems.note(at, wrong);
        }
    }
    let size = section.get("size", size);
    let mut of = BTreeSet::new();
    for value in array(section, "processes", "an array of processes") {
        let process = section.note(value.span(), process(value.get_ref(), processes));
        of.extend(process);
    }
    Some((name?, Volume { path: path?, size, processes: of }))
}

/// A process that there is, where the manifest says which there are.
fn process(value: &DeValue<'_>, all: &BTreeSet<ProcessName>) -> Result<ProcessName, Wrong> {
    let process = ProcessName::new(text(value)?).map_err(Wrong::new)?;
    if all.is_empty() || all.contains(&process) {
        return Ok(process);
    }
    let wrong = Wrong::new(format!("there is no process {process} below [processes]"));
    Err(match nearest(process.as_str(), all.iter().map(ProcessName::as_str)) {
        Some(near) => wrong.instead(format!("did you mean \"{near}\"?")),
        None => wrong,
    })
}

fn size(value: &DeValue<'_>) -> Result<Bytes, Wrong> {
    let size: Bytes = text(value)?
        .parse()
        .map_err(|bad| Wrong::new(bad).instead("write it like \"500Mi\", \"10Gi\" or \"1Ti\""))?;
    if size < SIZE_MIN {
        return Err(Wrong::new(format!("{size} is less than the {SIZE_MIN} that a volume has at least")));
    }
    Ok(size)
}
