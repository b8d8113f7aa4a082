//! What an app tries with that which comes into its namespaces to run beside it.

use std::fs;

use berth_runtime::{Attach, Attached, Exec, Executing, InstanceSpec, Runtime as _};
use berth_spec::Command;

use super::{end, is_without_namespaces};
use crate::suite::all;
use crate::world::{World, descendants, line_with};

/// Looks for everything that came in and is no program of the app's, and tries to get something out of it, or into it.
const LOOK: &str = r#"
found=0
for it in /proc/[0-9]*; do
    test "$(cat "$it/comm" 2>/dev/null)" = berth-exec || continue
    found=$((found + 1))
    for file in environ maps auxv stack syscall personality; do
        test "$(head -c 1 "$it/$file" 2>/dev/null | wc -c)" = 0 || echo "read $file"
    done
    for link in exe cwd root ns/mnt ns/user ns/pid fd/0 fd/1 fd/3; do
        readlink "$it/$link" 2>/dev/null && echo "followed $link"
    done
    ls "$it/fd" "$it/root/" "$it/map_files" >/dev/null 2>&1 && echo "listed"
    for file in mem exe oom_score_adj coredump_filter; do
        (: >>"$it/$file") 2>/dev/null && echo "opened $file to write"
    done
done
echo "looked at $found"
"#;

fn shell(script: &str) -> Exec {
    Exec { argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(), ..Exec::default() }
}

#[tokio::test]
async fn what_enters_is_not_looked_into() {
    let world = World::new();
    let runtime = world.runtime();
    if is_without_namespaces(&runtime) {
        return;
    }
    let script = "echo ready; exec sleep 1000";
    let command = Command::Argv(["/bin/sh", "-c", script].map(str::to_owned).to_vec());
    let spec = InstanceSpec { command, ..world.spec("none") };
    let started = runtime.start(spec.clone()).await.unwrap();
    line_with(&runtime, &spec.id, "ready").await;
    let begun = runtime.exec(&spec.id, shell("echo begun; exec sleep 1000"), Attach::Pipes).await.unwrap();
    let (attached, _executing): (Attached, Executing) = begun;
    let ends = attached.into_ends().unwrap();
    let mut buffer = [0; 16];
    assert_eq!(ends.output.read(&mut buffer).await.unwrap(), 6);

    let (looks, _looking) = runtime.exec(&spec.id, shell(LOOK), Attach::Pipes).await.unwrap();
    let looks = looks.into_ends().unwrap();
    let said = String::from_utf8(all(&looks.output).await).unwrap();
    // The other one's and its own.
    assert_eq!(said, "looked at 2\n");

    let shim = started.shim.as_ref().unwrap().pid;
    let named =
        |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|it| it == "berth-exec\n");
    let entered = descendants(shim).into_iter().find(named).unwrap();
    if rustix::process::geteuid().is_root() {
        // All that it holds is its way to the shim, and what it is made of nobody writes to.
        assert_eq!(fs::read_dir(format!("/proc/{entered}/fd")).unwrap().count(), 1);
        let exe = format!("/proc/{entered}/exe");
        assert!(fs::read_link(&exe).unwrap().to_string_lossy().contains("memfd:berth-shim"));
        assert!(fs::OpenOptions::new().write(true).open(&exe).is_err());
    }
    let status = fs::read_to_string(format!("/proc/{entered}/status")).unwrap();
    let line = |name: &str| status.lines().find_map(|it| it.strip_prefix(name)).unwrap().trim().to_owned();
    for name in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(line(name), "0000000000000000", "{name}");
    }
    assert_eq!((line("NoNewPrivs:").as_str(), line("Seccomp:").as_str()), ("1", "2"));
    end(&runtime, &started).await;
}
