//! What only the native backend's instances have: a shim outside of their sandbox. What all backends do is in the suite.

use std::time::Duration;

use berth_process::{Signal, Tree};
use berth_runtime::{InstanceState, Observed, PlainRuntime, Restart, Runtime as _};

use crate::world::{World, line_with, number_after, process_of, until};

async fn end(runtime: &PlainRuntime, observed: &Observed) {
    runtime.kill(&observed.id).await.unwrap();
    runtime.remove(&observed.id).await.unwrap();
    assert!(runtime.list().iter().all(|other| other.id != observed.id));
}

#[tokio::test]
async fn what_left_the_session_does_not_survive_its_shim() {
    let (world, spec) = {
        let world = World::new();
        let spec = world.spec("scatter");
        (world, spec)
    };
    let runtime = world.runtime();
    let started = runtime.start(spec.clone()).await.unwrap();
    let line = line_with(&runtime, &spec.id, "scattered").await;
    let [marked, bare] = ["marked", "bare"].map(|word| process_of(&started, number_after(&line, word)));
    let shim = started.shim.clone().unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(shim.pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    until(&runtime, &spec.id, |observed| observed.state == InstanceState::Gone).await;
    assert!(!shim.is_alive().unwrap() && !marked.is_alive().unwrap());
    if runtime.capabilities().cgroup.is_some() {
        assert!(!bare.is_alive().unwrap());
    } else {
        // The one thing that escapes without control groups, as `Tree` says.
        Tree { root: Some(bare), ..Tree::default() }
            .kill(&berth_clock::SystemClock::new(), Duration::from_secs(60))
            .unwrap();
    }
    end(&runtime, &started).await;
}

/// The budget per instance is 2 MB, and the aim half of one; the shim is most of it.
#[tokio::test]
async fn a_shim_holds_little_memory_of_its_own() {
    let world = World::new();
    let runtime = world.runtime();
    let spec = berth_runtime::InstanceSpec { restart: Restart::Never, ..world.spec("wait") };
    let started = runtime.start(spec.clone()).await.unwrap();
    line_with(&runtime, &spec.id, "ready").await;
    let shim = started.shim.clone().unwrap().pid;
    let rollup = std::fs::read_to_string(format!("/proc/{shim}/smaps_rollup")).unwrap();
    let kib: u32 = rollup
        .lines()
        // The program itself lies in a memory file that all shims map, so that only what is anonymous is its own.
        .filter(|line| line.starts_with("Anonymous:"))
        .map(|line| line.split_whitespace().nth(1).unwrap().parse::<u32>().unwrap())
        .sum();
    println!("private memory of a shim: {kib} KiB");
    assert!(kib < 256, "{rollup}");
    end(&runtime, &started).await;
}
