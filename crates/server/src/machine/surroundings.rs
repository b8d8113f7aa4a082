//! What an instance has of the machine beside its artifact: the tools that it was built for.

use std::path::{Path, PathBuf};

use berth_control::state::Release;
use berth_runtime::{Mount, Resources, Root};
use berth_spec::Command;

use super::Machine;

/// What stands around every instance of a release, whichever of its processes it runs.
pub(super) struct Surroundings {
    pub(super) root: Root,
    pub(super) mounts: Vec<Mount>,
    pub(super) resources: Resources,
}

impl Machine {
    /// What stands around an instance of `release`.
    pub(super) fn surroundings(&self, release: &Release) -> Surroundings {
        let mut places: Vec<PathBuf> = Vec::new();
        let tools = release.artifact.iter().flat_map(|artifact| &artifact.tools);
        places.extend(tools.filter_map(|folder| installation(Path::new(folder))));
        let serves_files = |command: &Command| matches!(command, Command::StaticSite { .. });
        if release.processes().is_some_and(|processes| processes.values().any(serves_files)) {
            places.push(self.places.exe.clone());
        }
        places.sort();
        places.dedup();
        let mount = |place: PathBuf| Mount { source: place.clone(), target: place, writable: false };
        Surroundings {
            root: Root::Host,
            mounts: places.into_iter().map(mount).collect(),
            resources: Resources::default(),
        }
    }
}

/// The folder that a tool is installed in, by that of its programs: they need its libraries too. None for those of the system, which
/// every instance has.
fn installation(programs: &Path) -> Option<PathBuf> {
    let system = ["/usr", "/bin", "/sbin", "/opt", "/nix"].iter().any(|folder| programs.starts_with(folder));
    if system || programs == Path::new("/") {
        return None;
    }
    let whole = match programs.parent() {
        Some(parent) if programs.ends_with("bin") && parent.parent().is_some() => parent,
        _ => programs,
    };
    Some(whole.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_is_had_with_its_libraries_and_nothing_around_it() {
        let of = |programs: &str| {
            installation(Path::new(programs)).map(|place| place.to_string_lossy().into_owned())
        };
        assert_eq!(
            of("/home/a/.nvm/versions/node/v20/bin").as_deref(),
            Some("/home/a/.nvm/versions/node/v20")
        );
        assert_eq!(of("/srv/tools/deno").as_deref(), Some("/srv/tools/deno"));
        assert_eq!(of("/usr/local/bin"), None);
        // The top of the machine is no installation.
        assert_eq!(of("/bin"), None);
        assert_eq!(of("/tools/bin").as_deref(), Some("/tools"));
    }
}
