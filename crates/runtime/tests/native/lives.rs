//! What only the native backend's instances have: a shim outside of their sandbox. What all backends do is in the suite.

use std::time::Duration;

use berth_clock::Clock as _;
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

/// It is started without anything being done between fork and exec, so it sees to that itself.
#[tokio::test]
async fn a_shim_has_nothing_of_ours_open_and_a_session_of_its_own() {
    // One that is not close-on-exec, as those are that a service manager has started us with.
    let unsealed = std::fs::File::open("/dev/full").unwrap();
    rustix::io::fcntl_setfd(&unsealed, rustix::io::FdFlags::empty()).unwrap();
    let world = World::new();
    let (runtime, spec) = (world.runtime(), world.spec("wait"));
    let started = runtime.start(spec).await.unwrap();
    let pid = started.shim.as_ref().unwrap().pid;
    let open: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| Some(std::fs::read_link(entry.unwrap().path()).ok()?.display().to_string()))
        .collect();
    assert!(open.contains(&"/dev/null".to_owned()) && !open.contains(&"/dev/full".to_owned()), "{open:?}");
    assert!(!open.iter().any(|path| path.contains("berth-shim-start")), "it has been read: {open:?}");
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap());
    assert_eq!(rustix::process::getsid(pid).ok(), pid);
    drop(unsealed);
    end(&runtime, &started).await;
}

/// How far apart the moments are at which a shim is killed. A start takes some milliseconds.
const MOMENT: Duration = Duration::from_micros(400);
const MOMENTS: u32 = 40;

/// From the first moment of a start to the last of a stop there is none at which a shim that dies leaves anything behind.
#[tokio::test]
async fn a_shim_that_is_killed_at_any_moment_leaves_nothing() {
    let (world, clock) = (World::new(), berth_clock::SystemClock::new());
    let runtime = std::sync::Arc::new(world.runtime());
    for number in 0..MOMENTS {
        let spec = world.spec("wait");
        let started = runtime.start(spec.clone()).await.unwrap();
        let shim = started.shim.clone().unwrap();
        // Every second one is told to stop meanwhile.
        let stopping = (number % 2 == 1).then(|| {
            let (runtime, id) = (std::sync::Arc::clone(&runtime), spec.id.clone());
            tokio::spawn(async move { runtime.stop(&id, crate::world::stop_within(60_000)).await })
        });
        let began = clock.monotonic();
        while clock.monotonic() - began < MOMENT * number {
            tokio::task::yield_now().await;
        }
        let pid = rustix::process::Pid::from_raw(i32::try_from(shim.pid).unwrap()).unwrap();
        // One that was told to stop may have ended by itself.
        let killed = rustix::process::kill_process(pid, Signal::KILL);
        assert!(killed.is_ok() || stopping.is_some(), "{number}: {killed:?}");
        until(&*runtime, &spec.id, |observed| observed.state.is_over()).await;
        if let Some(stopping) = stopping {
            drop(stopping.await.unwrap());
        }
        end(&runtime, &started).await;
        assert_eq!(crate::left_of(&world, &spec), [""; 0], "{number}");
        if let Some(user) = &spec.user {
            assert_eq!(processes_of(user.uid), [0; 0], "{number}");
        }
    }
}

/// The processes of a user, but for those that have ended and that the machine's first process has not reaped yet.
fn processes_of(uid: u32) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").unwrap();
    let pids = all.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u32>().ok());
    let of_user = |pid: &u32| crate::world::field(*pid, "Uid:").is_some_and(|last| last == uid.to_string());
    pids.filter(of_user).filter(|pid| lives(*pid)).collect()
}

fn lives(pid: u32) -> bool {
    crate::world::field(pid, "State:").is_some_and(|last| last != "(zombie)" && last != "(dead)")
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
