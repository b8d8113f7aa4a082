//! One instance after another: by its files, its processes, its memory, and by links in what both may write to.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use berth_runtime::{Mount, Runtime as _};

use super::{call, end, is_without_namespaces, makes, say, spec, verdict};
use crate::world::{World, line_with};

const PLACE: &str = "BERTH_TEST_PLACE";

#[test]
fn role_look_around() {
    if makes(concat!(module_path!(), "::role_look_around")) {
        let place = std::env::var(PLACE).unwrap();
        let mut gains = Vec::new();
        let pids =
            fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
        let pids: Vec<i64> = pids.filter_map(|name| name.parse().ok()).collect();
        // Init and itself.
        gains.extend((pids.len() > 2).then(|| format!("processes {pids:?}")));
        gains.extend(fs::read_dir(&place).ok().map(|_| format!("saw {place}")));
        // Every process that there could be, gently.
        for pid in 2..40_000 {
            let own = fs::metadata(format!("/proc/self/task/{pid}")).is_ok();
            if !own && call(libc::SYS_kill, [pid, 0, 0, 0, 0, 0]).is_ok() {
                gains.push(format!("reaches {pid}"));
            }
        }
        // System V memory, and messages by name.
        let key = 0x0BE7_0001;
        gains.extend(call(libc::SYS_shmget, [key, 0, 0, 0, 0, 0]).ok().map(|_| "shared memory".to_owned()));
        gains.extend(fs::metadata("/dev/shm/left").ok().map(|_| "left in /dev/shm".to_owned()));
        gains.extend(fs::metadata("/tmp/left").ok().map(|_| "left in /tmp".to_owned()));
        say(&gains);
    }
}

#[test]
fn role_leave_traces() {
    if makes(concat!(module_path!(), "::role_leave_traces")) {
        fs::write("/tmp/left", "x").unwrap();
        fs::write("/dev/shm/left", "x").unwrap();
        drop(call(libc::SYS_shmget, [0x0BE7_0001, 4_096, 0o1666, 0, 0, 0]));
        say(&[]);
    }
}

#[tokio::test]
async fn an_instance_sees_nothing_of_its_neighbour() {
    let world = World::new();
    let runtime = world.runtime();
    if is_without_namespaces(&runtime) {
        return;
    }
    let neighbour =
        runtime.start(spec(&world, concat!(module_path!(), "::role_leave_traces"))).await.unwrap();
    assert_eq!(verdict(&runtime, &neighbour).await, "");
    let mut spec = spec(&world, concat!(module_path!(), "::role_look_around"));
    let place = world.folder(&neighbour.id);
    spec.env.insert(PLACE.to_owned(), place.to_str().unwrap().to_owned());
    let started = runtime.start(spec).await.unwrap();
    assert_eq!(verdict(&runtime, &started).await, "");
    end(&runtime, &started).await;
    end(&runtime, &neighbour).await;
}

#[test]
fn role_follow_links() {
    if makes(concat!(module_path!(), "::role_follow_links")) {
        let mut gains = Vec::new();
        for name in ["secret", "folder/secret", "up/secret"] {
            gains.extend(fs::read_to_string(format!("/data/{name}")).ok());
        }
        gains.extend(fs::write("/data/out/made", "x").ok().map(|()| "wrote through a link".to_owned()));
        fs::write("/data/mine", "kept").unwrap();
        say(&gains);
    }
}

/// Links in a volume, to the machine's files and to folders above it, lead nowhere but into the app's own root.
#[tokio::test]
async fn links_in_a_volume_do_not_lead_out_of_it() {
    let world = World::new();
    let runtime = world.runtime();
    if is_without_namespaces(&runtime) {
        return;
    }
    let outside = tempfile::tempdir().unwrap();
    let (volume, away) = (outside.path().join("volume"), outside.path().join("away"));
    for folder in [&volume, &away] {
        fs::create_dir(folder).unwrap();
        fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
    }
    fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(away.join("secret"), "the secret").unwrap();
    let link = |to: &std::path::Path, name: &str| std::os::unix::fs::symlink(to, volume.join(name)).unwrap();
    link(&away.join("secret"), "secret");
    link(&away, "folder");
    link(std::path::Path::new("../away"), "up");
    link(&away, "out");
    let mut spec = spec(&world, concat!(module_path!(), "::role_follow_links"));
    spec.mounts.push(Mount { source: volume.clone(), target: "/data".into(), writable: true });
    let started = runtime.start(spec).await.unwrap();
    assert_eq!(verdict(&runtime, &started).await, "");
    assert_eq!(fs::read_to_string(volume.join("mine")).unwrap(), "kept");
    assert!(!away.join("made").try_exists().unwrap());
    end(&runtime, &started).await;
}

/// A place to mount at that is a link within the app's root is resolved there.
#[tokio::test]
async fn a_volume_is_mounted_within_the_root_wherever_links_lead() {
    let world = World::new();
    let runtime = world.runtime();
    if is_without_namespaces(&runtime) {
        return;
    }
    let volume = tempfile::tempdir().unwrap();
    fs::write(volume.path().join("here"), "it is").unwrap();
    fs::set_permissions(volume.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut spec = world.spec("wait");
    // `/var/run` is a link to `/run` in there, and `/run` of the machine stays as it is.
    let source = volume.path().to_owned();
    spec.mounts.push(Mount { source, target: "/var/run/deep/volume".into(), writable: false });
    spec.command =
        berth_spec::Command::Argv(["/bin/cat", "/run/deep/volume/here"].map(str::to_owned).to_vec());
    spec.restart = berth_runtime::Restart::Never;
    let started = runtime.start(spec).await.unwrap();
    line_with(&runtime, &started.id, "it is").await;
    assert!(!std::path::Path::new("/run/deep").try_exists().unwrap());
    end(&runtime, &started).await;
}
