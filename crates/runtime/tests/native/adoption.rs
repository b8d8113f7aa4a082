//! What a control finds that comes after one that died.

use std::os::unix::net::UnixListener;

use berth_process::{Launch, Program, Signal};
use berth_runtime::{InstanceState, Runtime as _};

use crate::roles::ROLE;
use crate::world::{World, line_with};

#[tokio::test]
async fn an_instance_whose_shim_died_meanwhile_is_ended_and_told() {
    let world = World::new();
    let spec = world.spec("scatter");
    let runtime = world.runtime();
    let started = runtime.start(spec.clone()).await.unwrap();
    let line = line_with(&runtime, &spec.id, "scattered").await;
    let marked = crate::world::process_of(&started, crate::world::number_after(&line, "marked"));
    drop(runtime);
    let pidfd = started.shim.unwrap().pidfd().unwrap().unwrap();
    rustix::process::pidfd_send_signal(pidfd, Signal::KILL).unwrap();
    let runtime = world.runtime();
    let adopted = runtime.adopt_all().await.unwrap();
    assert_eq!(adopted[0].state, InstanceState::Gone);
    assert!(!marked.is_alive().unwrap());
    runtime.remove(&spec.id).await.unwrap();
}

#[tokio::test]
async fn a_reused_pid_fools_nobody() {
    let world = World::new();
    let spec = world.spec("wait");
    let runtime = world.runtime();
    runtime.start(spec.clone()).await.unwrap();
    runtime.kill(&spec.id).await.unwrap();
    drop(runtime);
    // The dead shim's pid is that of an innocent process now.
    let args = ["--exact", "roles::role_wait", "--test-threads=1"];
    let started = std::cell::Cell::new(None);
    world.edit_record(&spec.id, |record| started.set(record["shim"]["starttime"].as_u64()));
    assert!(started.get().is_some());
    let mut innocent = loop {
        let mut child = Launch::new(Program::Own).args(args).env(ROLE, "wait").start().unwrap();
        // No pid comes again within one tick of the kernel's clock, in which two that have it would be the same.
        if Some(child.identity().starttime) != started.get() {
            break child;
        }
        child.signal(Signal::KILL).unwrap();
        child.wait().unwrap();
    };
    world.edit_record(&spec.id, |record| record["shim"]["pid"] = innocent.pid().into());
    let runtime = world.runtime();
    assert_eq!(runtime.adopt_all().await.unwrap()[0].state, InstanceState::Gone);
    assert!(innocent.identity().is_alive().unwrap());
    runtime.remove(&spec.id).await.unwrap();
    innocent.signal(Signal::KILL).unwrap();
    innocent.wait().unwrap();
}

#[tokio::test]
async fn what_is_of_an_earlier_boot_is_cleaned_up() {
    let world = World::new();
    let spec = world.spec("wait");
    let runtime = world.runtime();
    runtime.start(spec.clone()).await.unwrap();
    runtime.kill(&spec.id).await.unwrap();
    drop(runtime);
    world.edit_record(&spec.id, |record| record["boot"] = "an earlier one".into());
    // A socket that nobody answers at, as a crash leaves it.
    let stale = world.layout().run.join("i/0123456789ab.sock");
    drop(UnixListener::bind(&stale).unwrap());
    let runtime = world.runtime();
    assert_eq!(runtime.adopt_all().await.unwrap(), []);
    assert!(!world.folder(&spec.id).try_exists().unwrap());
    assert!(!stale.try_exists().unwrap());
}
