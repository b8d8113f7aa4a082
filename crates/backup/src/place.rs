//! Where in a home a file of an archive belongs. What has no such place is refused.

use berth_spec::{AppId, TenantName, VolumeName};

use crate::error::BackupError;
use crate::sections::{FOOT, HEAD};

/// The longest path of a file in an artifact, in bytes.
const PATH_MAX: usize = 4_096;
/// The deepest path of a file in an artifact; an artifact has no deeper one.
const DEPTH_MAX: usize = 130;

/// Where a file belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The first file.
    Head,
    /// The last file.
    Foot,
    /// The journal.
    Journal,
    /// The key-encryption key, in archives that have it.
    Key,
    /// A chunk of a tenant's sources, by its hash.
    Chunk(TenantName, String),
    /// A source tree, by its id.
    Tree(TenantName, String),
    /// The repository of an app, as a bundle of git's.
    Bundle(AppId),
    /// The commits at which the history in it is cut off.
    Shallow(AppId),
    /// A volume of an app, as a tar of its own.
    Volume(AppId, VolumeName),
    /// What is known of an artifact beside its files.
    Note(AppId, String),
    /// A file, link or directory of an artifact; an empty path is the artifact itself.
    Artifact(AppId, String, String),
}

impl Place {
    /// The place of the file `name`.
    ///
    /// # Errors
    /// [`BackupError::Hostile`] when no backup has such a file.
    pub fn of(name: &str) -> Result<Self, BackupError> {
        let refuse = |problem| BackupError::hostile(name, problem);
        let unknown = || refuse("is no part of a backup");
        match name {
            HEAD => return Ok(Self::Head),
            FOOT => return Ok(Self::Foot),
            "journal.db" => return Ok(Self::Journal),
            "key.json" => return Ok(Self::Key),
            _ => {}
        }
        if name.len() > PATH_MAX || name.contains('\0') {
            return Err(refuse("is no path"));
        }
        let segments: Vec<&str> = name.trim_end_matches('/').split('/').collect();
        if segments.iter().any(|segment| matches!(*segment, "" | "." | "..") || segment.len() > 255) {
            return Err(refuse("leads out of its place"));
        }
        match segments[..] {
            ["chunks", tenant, "trees", id] if is_hex(id.strip_prefix('t').unwrap_or_default(), 64) => {
                Ok(Self::Tree(tenant.parse().map_err(|_no_name| unknown())?, id.to_owned()))
            }
            ["chunks", tenant, folder, hash]
                if is_hex(hash, 64) && hash.starts_with(folder) && folder.len() == 2 =>
            {
                Ok(Self::Chunk(tenant.parse().map_err(|_no_name| unknown())?, hash.to_owned()))
            }
            ["git", tenant, project, file] => {
                let (app, kind) = file.rsplit_once('.').ok_or_else(unknown)?;
                let app: AppId = format!("{tenant}/{project}/{app}").parse().map_err(|_no_id| unknown())?;
                match kind {
                    "bundle" => Ok(Self::Bundle(app)),
                    "shallow" => Ok(Self::Shallow(app)),
                    _ => Err(unknown()),
                }
            }
            ["volumes", tenant, project, app, file] => {
                let app: AppId = format!("{tenant}/{project}/{app}").parse().map_err(|_no_id| unknown())?;
                let volume = file.strip_suffix(".tar").and_then(|name| VolumeName::new(name).ok());
                Ok(Self::Volume(app, volume.ok_or_else(unknown)?))
            }
            ["artifacts", tenant, project, app, id, ref path @ ..] => {
                let app: AppId = format!("{tenant}/{project}/{app}").parse().map_err(|_no_id| unknown())?;
                match id.strip_suffix(".json") {
                    Some(id) if path.is_empty() && is_artifact(id) => Ok(Self::Note(app, id.to_owned())),
                    None if path.len() > DEPTH_MAX => Err(refuse("is too deep")),
                    None if is_artifact(id) => Ok(Self::Artifact(app, id.to_owned(), path.join("/"))),
                    _ => Err(unknown()),
                }
            }
            _ => Err(unknown()),
        }
    }

    /// The name of the file in the archive.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Head => HEAD.to_owned(),
            Self::Foot => FOOT.to_owned(),
            Self::Journal => "journal.db".to_owned(),
            Self::Key => "key.json".to_owned(),
            Self::Chunk(tenant, hash) => {
                format!("chunks/{tenant}/{}/{hash}", hash.get(..2).unwrap_or_default())
            }
            Self::Tree(tenant, id) => format!("chunks/{tenant}/trees/{id}"),
            Self::Bundle(app) => format!("git/{app}.bundle"),
            Self::Shallow(app) => format!("git/{app}.shallow"),
            Self::Volume(app, volume) => format!("volumes/{app}/{volume}.tar"),
            Self::Note(app, id) => format!("artifacts/{app}/{id}.json"),
            Self::Artifact(app, id, path) if path.is_empty() => format!("artifacts/{app}/{id}"),
            Self::Artifact(app, id, path) => format!("artifacts/{app}/{id}/{path}"),
        }
    }

    /// The section that it is part of; none for the two ends.
    pub(crate) fn section(&self) -> Option<String> {
        match self {
            Self::Head | Self::Foot => None,
            Self::Journal | Self::Key | Self::Bundle(_) | Self::Shallow(_) | Self::Volume(..) => {
                Some(self.name())
            }
            Self::Chunk(tenant, _) | Self::Tree(tenant, _) => Some(format!("chunks/{tenant}")),
            Self::Note(app, id) | Self::Artifact(app, id, _) => Some(format!("artifacts/{app}/{id}")),
        }
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn is_artifact(id: &str) -> bool {
    is_hex(id.strip_prefix('a').unwrap_or_default(), 40)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back_from_their_names_and_others_are_refused() {
        let (hash, id) = ("ab".repeat(32), format!("a{}", "0".repeat(40)));
        for name in [
            "berth-backup.json".to_owned(),
            "journal.db".to_owned(),
            "key.json".to_owned(),
            format!("chunks/acme/ab/{hash}"),
            format!("chunks/acme/trees/t{hash}"),
            "git/acme/web/shop.bundle".to_owned(),
            "git/acme/web/shop.shallow".to_owned(),
            "volumes/acme/web/shop/data.tar".to_owned(),
            format!("artifacts/acme/web/shop/{id}.json"),
            format!("artifacts/acme/web/shop/{id}"),
            format!("artifacts/acme/web/shop/{id}/bin/a b"),
        ] {
            assert_eq!(Place::of(&name).unwrap().name(), name);
        }
        for bad in [
            "",
            "/",
            "..",
            "journal.db/x",
            "/etc/passwd",
            "keys/kek",
            "journal/journal.db",
            "chunks/acme/ab/x",
            &format!("chunks/acme/cd/{hash}"),
            &format!("chunks/../ab/{hash}"),
            &format!("artifacts/acme/web/../{id}/x"),
            &format!("artifacts/acme/web/shop/{id}/../x"),
            &format!("artifacts/acme/web/shop/{id}//x"),
            &format!("artifacts/acme/web/shop/{id}/./x"),
            &format!("artifacts/acme/web/shop/{id}.json/x"),
            &format!("artifacts/acme/web/shop/{id}/{}", "x".repeat(256)),
            &format!("artifacts/acme/web/shop/{id}/{}", "x/".repeat(200)),
            &format!("artifacts/ACME/web/shop/{id}"),
            "artifacts/acme/web/shop/other",
            "git/acme/web/shop",
            "git/acme/web/shop.pack",
            "git/acme/web/../shop.bundle",
            "git/acme/web/.bundle",
            "git/acme/shop.bundle",
            "volumes/acme/web/shop/data",
            "volumes/acme/web/shop/.tar",
            "volumes/acme/web/shop/../data.tar",
            "volumes/acme/web/shop/data/x.tar",
        ] {
            assert!(matches!(Place::of(bad), Err(BackupError::Hostile { .. })), "{bad}");
        }
    }
}
