//! Debian's kernel, fetched by apt into a folder and unpacked there: nothing of it is installed on this machine.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::find;
use crate::program::{self, Program};

/// The package that depends on the newest kernel of the release. Not the one for clouds, which lacks 9p, by which the guest sees files of this machine.
const NEWEST: &str = "linux-image-amd64";
/// What must be loaded before the guest has its root: it is seen through these.
const FOR_THE_ROOT: [&str; 4] = ["virtio_pci", "9pnet_virtio", "9p", "overlay"];

/// A kernel that was unpacked.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) image: PathBuf,
    /// Its modules, with the lists of what they need and are called.
    pub(super) modules: PathBuf,
}

/// A module that is there as the kernel takes it.
#[derive(Debug)]
pub(super) struct Module {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

impl Kernel {
    /// The kernel below `place`, fetched if it is not there.
    ///
    /// # Errors
    /// It is not there and cannot be had.
    pub(super) fn have(place: &Path) -> Result<Self> {
        ensure!(program::find("apt-get").is_some(), "apt-get is not installed, which fetches it");
        let package = newest(&Program::new("apt-cache").args(["depends", NEWEST]).output()?)
            .with_context(|| format!("apt knows no {NEWEST}"))?;
        let folder = place.join(&package);
        if !folder.try_exists()? {
            fetch(&package, place, &folder)?;
        }
        let version = package.trim_start_matches("linux-image-");
        let image = folder.join("boot").join(format!("vmlinuz-{version}"));
        ensure!(image.is_file(), "{package} has no kernel at {}", image.display());
        // Newer releases have one folder for libraries, and link to it.
        let modules = ["usr/lib/modules", "lib/modules"].map(|path| folder.join(path).join(version));
        let modules = modules.into_iter().find(|path| path.is_dir()).context("it has no modules")?;
        Ok(Self { image, modules })
    }

    /// The modules that are loaded before there is a root, in the order in which they can be.
    ///
    /// # Errors
    /// One is missing or cannot be read.
    pub(super) fn for_the_root(&self) -> Result<Vec<Module>> {
        let list = std::fs::read_to_string(self.modules.join("modules.dep"))?;
        let (mut seen, mut modules) = (BTreeSet::new(), Vec::new());
        for name in FOR_THE_ROOT {
            let paths = needed(&list, name).with_context(|| format!("the kernel has no module {name}"))?;
            for path in paths.into_iter().filter(|path| seen.insert((*path).to_owned())) {
                modules.push(read(&self.modules.join(path))?);
            }
        }
        Ok(modules)
    }
}

fn read(path: &Path) -> Result<Module> {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    ensure!(file.ends_with(".ko"), "{file} is compressed, and the guest's first program cannot load it");
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Module { name: file.into_owned(), bytes })
}

/// Fetches `package` and unpacks it into `folder`, which is there only once that is done.
fn fetch(package: &str, place: &Path, folder: &Path) -> Result<()> {
    let fetched = place.join("fetched");
    let _gone = std::fs::remove_dir_all(&fetched);
    std::fs::create_dir_all(&fetched)?;
    println!("fetching {package}, which is unpacked below {} and not installed", place.display());
    Program::new("apt-get")
        .args(["-qq", "-o", "APT::Sandbox::User=root", "download", package])
        .dir(&fetched)
        .run()?;
    let file = std::fs::read_dir(&fetched)?.flatten().map(|entry| entry.path()).next();
    let file = file.context("apt-get fetched nothing")?;
    let unpacked = fetched.join("unpacked");
    Program::new("dpkg-deb").arg("--extract").arg(&file).arg(&unpacked).run()?;
    std::fs::remove_file(&file)?;
    let version = package.trim_start_matches("linux-image-");
    // Which its installation does otherwise.
    Program::new(find("busybox")?).args(["depmod", "-b"]).arg(&unpacked).arg(version).run()?;
    std::fs::rename(&unpacked, folder)?;
    Ok(std::fs::remove_dir_all(&fetched)?)
}

/// The package that apt-cache(8) says the newest kernel is in.
fn newest(depends: &str) -> Option<String> {
    let mut words = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    words.find(|name| name.starts_with("linux-image-")).map(str::to_owned)
}

/// The files of the module `name` and of what it needs, what is needed first. modules.dep(5) has them the other way round.
fn needed<'a>(list: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let is_it = |path: &str| {
        let file = path.rsplit('/').next().unwrap_or_default();
        file.split('.').next().is_some_and(|stem| stem.replace('-', "_") == name)
    };
    let (own, needs) = list.lines().filter_map(|line| line.split_once(':')).find(|(path, _)| is_it(path))?;
    Some(needs.split_whitespace().rev().chain([own]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_read_from_what_apt_says() {
        let said = "linux-image-amd64\n  Depends: linux-image-6.1.0-56-amd64\n  Conflicts: x\n";
        assert_eq!(newest(said).as_deref(), Some("linux-image-6.1.0-56-amd64"));
        assert_eq!(newest("linux-image-amd64\n"), None);
    }

    #[test]
    fn what_a_module_needs_comes_before_it() {
        let list =
            "kernel/a.ko:\nkernel/fs/b.ko: kernel/a.ko\nkernel/fs/c-d.ko: kernel/fs/b.ko kernel/a.ko\n";
        assert_eq!(needed(list, "c_d").unwrap(), ["kernel/a.ko", "kernel/fs/b.ko", "kernel/fs/c-d.ko"]);
        assert_eq!(needed(list, "a").unwrap(), ["kernel/a.ko"]);
        assert_eq!(needed(list, "d"), None);
    }
}
