//! What a control finds that comes after one that died.

use std::os::unix::net::UnixListener;

use berth_process::{Identity, Launch, Program, Signal};
use berth_runtime::{InstanceState, Runtime as _};

use crate::roles::ROLE;
use crate::world::{World, is_running, line_with, stop_within, until};

/// Changes the record of an instance on disk.
fn edit(world: &World, spec: &berth_runtime::InstanceSpec, change: impl Fn(&mut serde_json::Value)) {
    let path = world.folder(&spec.id).join("start.json");
    let mut record = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut record);
    std::fs::write(&path, record.to_string()).unwrap();
}

#[tokio::test]
async fn instances_outlive_control_and_are_adopted_with_their_exits() {
    let world = World::new();
    let (spec, crashed) = (world.spec("wait"), {
        let mut spec = world.spec("crash");
        spec.restart = berth_runtime::Restart::Never;
        spec
    });
    let runtime = world.runtime();
    runtime.start(crashed.clone()).await.unwrap();
    let started = runtime.start(spec.clone()).await.unwrap();
    line_with(&runtime, &spec.id, "ready").await;
    let before = until(&runtime, &spec.id, is_running).await;
    drop(runtime);
    assert!(started.shim.as_ref().unwrap().is_alive().unwrap());

    let runtime = world.runtime();
    let adopted = runtime.adopt_all().await.unwrap();
    let found = adopted.iter().find(|observed| observed.id == spec.id).unwrap();
    assert_eq!((&found.shim, found.state, found.port), (&started.shim, before.state, before.port));
    let over = until(&runtime, &crashed.id, |observed| observed.state.is_over()).await;
    if over.state == InstanceState::Exited {
        assert_eq!(over.exits.last().unwrap().signal, Some(6));
    }
    // A start that is repeated by the new control is still the same start.
    assert_eq!(runtime.start(spec.clone()).await.unwrap().shim, started.shim);
    let ended = runtime.stop(&spec.id, stop_within(60_000)).await.unwrap();
    assert_eq!(ended.state, InstanceState::Exited);
    for id in [&spec.id, &crashed.id] {
        runtime.remove(id).await.unwrap();
    }
    assert_eq!(runtime.adopt_all().await.unwrap(), []);
}

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
async fn a_start_cut_short_leaves_nothing_behind_and_can_be_repeated() {
    let world = World::new();
    let spec = world.spec("wait");
    let runtime = world.runtime();
    let started = runtime.start(spec.clone()).await.unwrap();
    // Control dies before it knew the shim, and the next one is told to start before it looked.
    drop(runtime);
    edit(&world, &spec, |record| drop(record.as_object_mut().unwrap().remove("shim")));
    let runtime = world.runtime();
    let again = runtime.start(spec.clone()).await.unwrap();
    assert_ne!(again.shim, started.shim);
    assert!(!started.shim.unwrap().is_alive().unwrap());
    runtime.kill(&spec.id).await.unwrap();
    runtime.remove(&spec.id).await.unwrap();
    // It died before it wrote the record.
    std::fs::create_dir_all(world.folder(&spec.id)).unwrap();
    assert_eq!(runtime.adopt_all().await.unwrap(), []);
    assert!(!world.folder(&spec.id).try_exists().unwrap());
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
    let mut innocent = Launch::new(Program::Own).args(args).env(ROLE, "wait").start().unwrap();
    edit(&world, &spec, |record| record["shim"]["pid"] = innocent.pid().into());
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
    edit(&world, &spec, |record| record["boot"] = "an earlier one".into());
    // A socket that nobody answers at, as a crash leaves it.
    let stale = world.layout().run.join("i/0123456789ab.sock");
    drop(UnixListener::bind(&stale).unwrap());
    let runtime = world.runtime();
    assert_eq!(runtime.adopt_all().await.unwrap(), []);
    assert!(!world.folder(&spec.id).try_exists().unwrap());
    assert!(!stale.try_exists().unwrap());
}

#[tokio::test]
async fn a_shim_whose_record_is_lost_is_ended() {
    let world = World::new();
    let spec = world.spec("wait");
    let runtime = world.runtime();
    let started = runtime.start(spec.clone()).await.unwrap();
    drop(runtime);
    std::fs::remove_file(world.folder(&spec.id).join("start.json")).unwrap();
    let runtime = world.runtime();
    assert_eq!(runtime.adopt_all().await.unwrap(), []);
    assert!(!started.shim.as_ref().is_some_and(|shim: &Identity| shim.is_alive().unwrap()));
}
