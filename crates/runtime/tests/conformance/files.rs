//! What an app sees of files, and what it may write to.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use berth_runtime::{InstanceSpec, Mount, Stream};

use super::Bench;

pub(super) async fn the_machines_programs_run(bench: Bench) {
    assert_eq!(bench.said("/usr/bin/env true && /bin/echo one | sed s/one/two/").await, ["two"]);
}

pub(super) async fn devices_work(bench: Bench) {
    let script = "head -c 4 /dev/urandom | wc -c; head -c 3 /dev/zero | wc -c; echo gone > /dev/null && echo x > /dev/full; echo $?; echo err > /dev/stderr; echo out > /dev/stdout";
    let spec = bench.shell(script);
    let said = bench.run(&spec).await.1;
    assert_eq!(said.iter().map(|line| line.trim()).collect::<Vec<_>>()[..2], ["4", "3"]);
    assert_ne!(said[2], "0");
    assert_eq!(said[3], "out");
    assert!(bench.lines(&spec.id, Stream::Err).contains(&"err".to_owned()));
}

pub(super) async fn the_root_is_read_only(bench: Bench) {
    for folder in ["/", "/usr", "/etc", "/usr/bin", "/opt", "/var"] {
        let exit = bench.run(&bench.shell(&format!("! touch {folder}/berth-was-here"))).await.0;
        assert_eq!(exit.code, Some(0), "{folder}");
    }
}

pub(super) async fn the_machines_files_are_not_there(bench: Bench) {
    let home = bench.world.layout().instances;
    let script = format!("cd /; ls -d home/* root/* boot/* var/lib/* var/log/* etc/shadow {} 2>/dev/null | grep -v ^var/lib/gems; true", home.display());
    assert_eq!(bench.said(&script).await, Vec::<String>::new());
}

pub(super) async fn tmp_is_nobody_elses(bench: Bench) {
    let first = bench.service("echo secret > /tmp/mine; echo ready; exec sleep 1000");
    bench.start(&first, "ready").await;
    assert_eq!(bench.said("ls /tmp | grep -c mine; true").await, ["0"]);
    assert!(!std::path::Path::new("/tmp/mine").try_exists().unwrap());
    bench.end(&first.id).await;
}

pub(super) async fn tmp_is_empty_after_a_restart(bench: Bench) {
    let spec = bench.service("ls $TMPDIR | grep -c mine; touch $TMPDIR/mine; exit 1");
    bench.runtime().start(spec.clone()).await.unwrap();
    bench.until(&spec.id, |observed| observed.exit_count >= 3).await;
    bench.end(&spec.id).await;
    assert!(bench.lines(&spec.id, Stream::Out).iter().all(|line| line == "0"));
}

/// A folder of the machine that belongs to the instance's user, with a file in it.
fn folder(bench: &Bench, name: &str, spec: &InstanceSpec) -> PathBuf {
    let folder = bench.world.home().join(name);
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(folder.join("file"), "from outside\n").unwrap();
    if let Some(user) = &spec.user {
        for path in [&folder, &folder.join("file")] {
            std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid)).unwrap();
        }
    }
    folder
}

fn with(bench: &Bench, script: &str, writable: bool) -> (InstanceSpec, PathBuf) {
    let mut spec = bench.shell(script);
    let source = folder(bench, "mounted", &spec);
    // Where there is no root of its own it is where it is.
    let namespaces = bench.runtime().capabilities().isolation >= berth_spec::Isolation::Namespaces;
    let target = if namespaces { "/data".into() } else { source.clone() };
    spec.env.insert("DATA".to_owned(), target.to_str().unwrap().to_owned());
    spec.mounts.push(Mount { source: source.clone(), target, writable });
    (spec, source)
}

pub(super) async fn what_is_mounted_can_be_read(bench: Bench) {
    let (spec, _) = with(&bench, "cat $DATA/file", false);
    assert_eq!(bench.run(&spec).await.1, ["from outside"]);
}

pub(super) async fn what_is_mounted_to_be_read_cannot_be_written_to(bench: Bench) {
    let (spec, source) = with(&bench, "! touch $DATA/new && ! echo x >> $DATA/file", false);
    assert_eq!(bench.run(&spec).await.0.code, Some(0));
    assert_eq!(std::fs::read_to_string(source.join("file")).unwrap(), "from outside\n");
    assert!(!source.join("new").try_exists().unwrap());
}

pub(super) async fn what_is_mounted_to_be_written_can_be(bench: Bench) {
    let (spec, source) = with(&bench, "echo from inside > $DATA/new && mkdir $DATA/folder && mv $DATA/new $DATA/folder", true);
    assert_eq!(bench.run(&spec).await.0.code, Some(0));
    assert_eq!(std::fs::read_to_string(source.join("folder/new")).unwrap(), "from inside\n");
}

pub(super) async fn what_is_mounted_lasts(bench: Bench) {
    let (first, source) = with(&bench, "echo once >> $DATA/file", true);
    bench.run(&first).await;
    let mut second = bench.shell("cat /data/file");
    second.mounts.push(Mount { source, target: "/data".into(), writable: true });
    assert_eq!(bench.run(&second).await.1, ["from outside", "once"]);
}

pub(super) async fn its_directory_is_read_only(bench: Bench) {
    let mut spec = bench.shell("cat file; ! touch new && ! echo x > file");
    spec.dir = folder(&bench, "artifact", &spec);
    let (exit, said) = bench.run(&spec).await;
    assert_eq!((exit.code, said), (Some(0), vec!["from outside".to_owned()]));
}

pub(super) async fn other_processes_are_not_there(bench: Bench) {
    let neighbour = bench.service("echo ready; exec sleep 1000");
    bench.start(&neighbour, "ready").await;
    let count: u32 = bench.said("ls -d /proc/[0-9]* | wc -l").await[0].trim().parse().unwrap();
    assert!(count <= 5, "{count} processes");
    bench.end(&neighbour.id).await;
}

pub(super) async fn the_kernels_settings_are_read_only(bench: Bench) {
    let script = "! echo 1 > /proc/sys/vm/drop_caches; ! echo x > /proc/sysrq-trigger; ! echo core > /proc/sys/kernel/core_pattern; head -c 1 /proc/kcore | wc -c";
    assert_eq!(bench.said(script).await.last().unwrap().trim(), "0");
}

pub(super) async fn accounts_have_its_user(bench: Bench) {
    assert_eq!(bench.said("id -un; wc -l < /etc/passwd").await, ["app", "3"]);
}
