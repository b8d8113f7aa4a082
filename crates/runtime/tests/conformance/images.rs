//! Instances whose root is the layers of an image, here of one program and two layers made by the test.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use berth_runtime::{InstanceSpec, Network, OWN_PORT, Root, User};
use berth_spec::Command;

use super::Bench;
use crate::world::connect;

/// The layers, the topmost first. What is to be hidden is in the lower one, and what hides it in the upper one.
fn layers(bench: &Bench) -> Vec<PathBuf> {
    let (upper, lower) = (bench.world.home().join("upper"), bench.world.home().join("lower"));
    if upper.try_exists().unwrap() {
        return vec![upper, lower];
    }
    for folder in ["bin", "etc", "tmp", "data", "srv"] {
        std::fs::create_dir_all(lower.join(folder)).unwrap();
    }
    std::fs::create_dir_all(upper.join("data")).unwrap();
    std::fs::copy(busybox(), lower.join("bin/busybox")).unwrap();
    for name in ["sh", "cat", "echo", "id", "ls", "sleep", "chown", "stat", "touch", "nc", "su", "mkdir", "test"] {
        std::os::unix::fs::symlink("busybox", lower.join("bin").join(name)).unwrap();
    }
    let passwd = "root:x:0:0::/:/bin/sh\nweb:x:1000:1000::/srv:/bin/sh\n";
    for (path, text) in [("etc/passwd", passwd), ("data/hidden", "no"), ("data/changed", "lower"), ("data/kept", "kept")] {
        std::fs::write(lower.join(path), text).unwrap();
    }
    std::fs::write(upper.join("data/changed"), "upper").unwrap();
    let hides = upper.join("data/hidden");
    // As an ordinary user it is a file that overlays take for the same.
    if rustix::process::geteuid().is_root() {
        let nobody = rustix::fs::makedev(0, 0);
        let (kind, mode) = (rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::empty());
        rustix::fs::mknodat(rustix::fs::CWD, &hides, kind, mode, nobody).unwrap();
    }
    for layer in [&upper, &lower] {
        own(layer, bench.world.images());
    }
    std::fs::set_permissions(lower.join("tmp"), std::fs::Permissions::from_mode(0o1777)).unwrap();
    std::fs::set_permissions(&lower, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&upper, std::fs::Permissions::from_mode(0o755)).unwrap();
    vec![upper, lower]
}

fn busybox() -> &'static str {
    let places = ["/usr/bin/busybox", "/bin/busybox"];
    places.into_iter().find(|path| Path::new(path).try_exists().unwrap()).expect("Debian's busybox-static is installed")
}

/// Makes everything below `path` the property of the image's root.
fn own(path: &Path, uid_base: u32) {
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::lchown(path, Some(uid_base), Some(uid_base)).unwrap();
    }
    if path.symlink_metadata().unwrap().is_dir() {
        std::fs::read_dir(path).unwrap().for_each(|entry| own(&entry.unwrap().path(), uid_base));
    }
}

fn image(bench: &Bench, uid: u32, script: &str) -> InstanceSpec {
    let command = Command::Argv(["/bin/sh", "-c", script].map(str::to_owned).to_vec());
    let spec = bench.shell("");
    let user = spec.user.is_some().then(|| User { uid, gid: uid, groups: vec![] });
    let root = Root::Layers { lower: layers(bench), uid_base: bench.world.images() };
    InstanceSpec { command, user, root, mounts: Vec::new(), dir: "/srv".into(), ..spec }
}

pub(super) async fn its_root_is_its_layers(bench: Bench) {
    let said = bench.run(&image(&bench, 0, "pwd; ls /usr /home /var/lib 2>/dev/null; cat /data/kept; echo; ls /bin/busybox")).await.1;
    assert_eq!(said, ["/srv", "kept", "/bin/busybox"]);
}

pub(super) async fn upper_layers_hide_lower_ones(bench: Bench) {
    let mut said = bench.run(&image(&bench, 0, "cat /data/changed; echo; ls /data")).await.1;
    if !rustix::process::geteuid().is_root() {
        said.retain(|line| line != "hidden");
    }
    assert_eq!(said, ["upper", "changed", "kept"]);
}

pub(super) async fn it_can_write_to_its_root(bench: Bench) {
    let script = "echo new > /data/new && echo more > /data/changed && mkdir /folder && cat /data/new /data/changed";
    assert_eq!(bench.run(&image(&bench, 0, script)).await.1, ["new", "more"]);
}

pub(super) async fn what_it_wrote_is_lost_with_it(bench: Bench) {
    let first = image(&bench, 0, "echo new > /data/kept && touch /data/mine && cat /data/kept");
    assert_eq!(bench.run(&first).await.1, ["new"]);
    let again = InstanceSpec { id: bench.shell("").id, token: bench.shell("").token, ..first };
    let command = Command::Argv(["/bin/sh", "-c", "cat /data/kept; echo; ls /data"].map(str::to_owned).to_vec());
    let said = bench.run(&InstanceSpec { command, ..again }).await.1;
    assert_eq!(said, ["kept", "changed", "kept"]);
}

pub(super) async fn its_users_are_its_own_within(bench: Bench) {
    for (uid, name) in [(0, "root"), (1_000, "web")] {
        let said = bench.run(&image(&bench, uid, "id -u; id -un; stat -c %u /data/kept")).await.1;
        assert_eq!(said, [uid.to_string(), name.to_owned(), "0".to_owned()]);
    }
}

pub(super) async fn its_root_may_prepare_its_files(bench: Bench) {
    let script = "mkdir /data/own && chown 1000:1000 /data/own && su web -c 'touch /data/own/file && stat -c %u /data/own/file'";
    assert_eq!(bench.run(&image(&bench, 0, script)).await.1, ["1000"]);
}

pub(super) async fn its_users_are_nobody_outside(bench: Bench) {
    let spec = InstanceSpec { restart: berth_runtime::Restart::Always, ..image(&bench, 0, "echo ready; exec sleep 1000") };
    let started = bench.start(&spec, "ready").await;
    let within = crate::world::descendants(started.shim.as_ref().unwrap().pid);
    let sleeps = within.iter().filter(|pid| crate::world::field(**pid, "Name:").as_deref() == Some("sleep"));
    let users: Vec<_> = sleeps.map(|pid| crate::world::field(*pid, "Uid:")).collect();
    assert_eq!(users, [Some(bench.world.images().to_string())]);
    bench.end(&spec.id).await;
}

pub(super) async fn edge_gets_into_an_image(bench: Bench) {
    let script = "echo ready; exec nc -ll -p $PORT -e echo from the image";
    let spec = InstanceSpec { network: Network::Own, restart: berth_runtime::Restart::Always, ..image(&bench, 1_000, script) };
    let started = bench.start(&spec, "ready").await;
    assert_eq!(started.port, Some(OWN_PORT));
    let said = loop {
        // wait: for the server behind the word to listen.
        if let Ok(mut stream) = connect(&bench.world, &started) {
            let mut said = String::new();
            std::io::Read::read_to_string(&mut stream, &mut said).unwrap();
            break said;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(said, "from the image\n");
    bench.end(&spec.id).await;
}
