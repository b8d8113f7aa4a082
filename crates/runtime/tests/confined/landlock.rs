//! What is kept from an app that sees the machine's files: each denial by its name. Landlock decides on the opening of a file, so that what
//! is tried is to open.

use std::path::Path;

use berth_runtime::{InstanceSpec, Mount};

use crate::suite::Bench;

/// What a script says that tries to read, or to write, each of some paths, and names those that it could.
async fn opened(spec: InstanceSpec, bench: &Bench, reads: &[&Path], writes: &[&Path]) -> Vec<String> {
    let attempt = |how: &str, path: &Path| {
        let path = path.display();
        format!("( : {how} '{path}' ) 2>/dev/null && echo '{how} {path}'; ")
    };
    let reads = reads.iter().map(|path| attempt("<", path));
    let writes = writes.iter().map(|path| attempt(">>", path));
    let script: String = reads.chain(writes).collect();
    let mut spec = spec;
    spec.command = bench.shell(&format!("{script} true")).command;
    bench.run(&spec).await.1
}

/// A folder that anybody may read and write, as far as its permissions say.
fn open_folder(bench: &Bench, name: &str) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = bench.world.home().join(name);
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    std::fs::write(folder.join("file"), "x").unwrap();
    std::fs::set_permissions(folder.join("file"), std::fs::Permissions::from_mode(0o666)).unwrap();
    folder
}

/// An app in a directory of its own: the suite's are at the top, and so may read everything.
fn own(bench: &Bench) -> InstanceSpec {
    InstanceSpec { dir: open_folder(bench, "own"), ..bench.shell("") }
}

#[tokio::test]
async fn files_of_others_are_not_read_though_all_may() {
    let bench = Bench::new();
    let other = open_folder(&bench, "other").join("file");
    let paths = ["/var/lib/dpkg/status", "/etc/hosts.allow", "/etc/fstab", "/boot", "/sys/kernel/notes"];
    let mut paths: Vec<&Path> = paths.iter().map(Path::new).collect();
    paths.push(&other);
    let spec = own(&bench);
    assert_eq!(opened(spec, &bench, &paths, &[]).await, [""; 0]);
}

#[tokio::test]
async fn files_of_others_are_not_written_though_all_may() {
    let bench = Bench::new();
    let other = open_folder(&bench, "other");
    let (file, fresh) = (other.join("file"), other.join("fresh"));
    let paths = [&file, &fresh, Path::new("/tmp/berth-landlock"), Path::new("/var/tmp/berth-landlock")];
    let spec = own(&bench);
    assert_eq!(opened(spec, &bench, &[], &paths).await, [""; 0]);
    assert_eq!(std::fs::read(file).unwrap(), b"x");
}

#[tokio::test]
async fn its_own_are_read_and_what_it_may_write_is_written() {
    let bench = Bench::new();
    let [dir, shown, volume] = ["dir", "shown", "volume"].map(|name| open_folder(&bench, name));
    let mut spec = bench.shell("");
    spec.dir.clone_from(&dir);
    spec.mounts.push(Mount { source: shown.clone(), target: shown.clone(), writable: false });
    spec.mounts.push(Mount { source: volume.clone(), target: volume.clone(), writable: true });
    let files = [&dir, &shown, &volume].map(|folder| folder.join("file"));
    let files: Vec<&Path> = files.iter().map(std::path::PathBuf::as_path).collect();
    let [first, second, third] = [0, 1, 2].map(|at| files[at].display().to_string());
    assert_eq!(
        opened(spec, &bench, &files, &files).await,
        [format!("< {first}"), format!("< {second}"), format!("< {third}"), format!(">> {third}")]
    );
}

#[tokio::test]
async fn programs_of_the_machine_run_and_cannot_be_changed() {
    let bench = Bench::new();
    let spec = own(&bench);
    let paths = ["/usr/bin/env", "/etc/ssl", "/usr/lib"].map(Path::new);
    assert_eq!(opened(spec, &bench, &paths[..1], &paths).await, ["< /usr/bin/env"]);
}

/// Links lead where their targets are allowed, and nowhere else.
#[tokio::test]
async fn a_link_in_a_volume_opens_nothing() {
    let bench = Bench::new();
    let (volume, other) = (open_folder(&bench, "volume"), open_folder(&bench, "other"));
    let link = volume.join("link");
    std::os::unix::fs::symlink(other.join("file"), &link).unwrap();
    let mut spec = own(&bench);
    spec.mounts.push(Mount { source: volume.clone(), target: volume, writable: true });
    assert_eq!(opened(spec, &bench, &[&link], &[&link]).await, [""; 0]);
    assert_eq!(bench.runtime().capabilities().isolation, berth_spec::Isolation::Confined);
}
