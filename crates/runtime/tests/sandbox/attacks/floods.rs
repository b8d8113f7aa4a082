//! Taking all of the machine: processes, memory, disk, and the patience of whoever stops an instance.
//!
//! The bombs here are small, and each has a bound of its own below what would hurt the machine, should a limit not hold.

use std::fs::{self, File};
use std::io::Write as _;

use berth_runtime::{PlainRuntime, Resources, Restart, Runtime as _};

use super::{call, end, is_without_namespaces, makes, say, spec, verdict};
use crate::world::{World, until};

const MIB: u64 = 1 << 20;

/// Whether control groups limit this here; a machine where they do not is said loudly.
fn limits(runtime: &PlainRuntime, controller: &str) -> bool {
    let has = runtime.capabilities().limits.contains(&controller);
    if !has {
        println!("!! NOT TESTED: no control group limits {controller} here");
    }
    has
}

#[test]
fn role_fork_bomb() {
    if makes(concat!(module_path!(), "::role_fork_bomb")) {
        let mut forked = 0;
        for _ in 0..400 {
            match call(libc::SYS_clone, [libc::SIGCHLD.into(), 0, 0, 0, 0, 0]) {
                Ok(0) => loop {
                    std::thread::park();
                },
                Ok(_) => forked += 1,
                Err(_) => break,
            }
        }
        say(&[forked.to_string()]);
    }
}

#[tokio::test]
async fn a_fork_bomb_ends_at_the_limit_of_processes() {
    let world = World::new();
    let runtime = world.runtime();
    if !limits(&runtime, "pids") {
        return;
    }
    let mut spec = spec(&world, concat!(module_path!(), "::role_fork_bomb"));
    spec.resources.processes = Some(64);
    let started = runtime.start(spec).await.unwrap();
    let forked: u32 = verdict(&runtime, &started).await.parse().unwrap();
    assert!((30..64).contains(&forked), "{forked}");
    end(&runtime, &started).await;
}

#[test]
fn role_memory_bomb() {
    if makes(concat!(module_path!(), "::role_memory_bomb")) {
        let mut kept = Vec::new();
        for _ in 0..512 {
            kept.push(vec![1_u8; 1 << 20]);
        }
        say(&[kept.len().to_string()]);
    }
}

#[tokio::test]
async fn a_memory_bomb_is_killed_and_told_as_that() {
    let world = World::new();
    let runtime = world.runtime();
    if !limits(&runtime, "memory") {
        return;
    }
    let mut spec = spec(&world, concat!(module_path!(), "::role_memory_bomb"));
    spec.resources = Resources { memory: Some(96 * MIB), ..Resources::default() };
    spec.restart = Restart::Never;
    let started = runtime.start(spec).await.unwrap();
    let over = until(&runtime, &started.id, |observed| observed.state.is_over()).await;
    let exit = over.exits.last().unwrap();
    assert_eq!((exit.signal, exit.oom), (Some(9), Some(true)), "{exit:?}");
    end(&runtime, &started).await;
}

#[test]
fn role_disk_fill() {
    if makes(concat!(module_path!(), "::role_disk_fill")) {
        let mut file = File::create("/tmp/full").unwrap();
        let written = (0..256).take_while(|_| file.write_all(&[1; 1 << 20]).is_ok()).count();
        say(&[written.to_string()]);
    }
}

#[tokio::test]
async fn a_full_disk_is_its_own() {
    let world = World::new();
    let runtime = world.runtime();
    if is_without_namespaces(&runtime) {
        return;
    }
    let mut spec = spec(&world, concat!(module_path!(), "::role_disk_fill"));
    spec.resources.tmp = Some(16 * MIB);
    let started = runtime.start(spec).await.unwrap();
    assert_eq!(verdict(&runtime, &started).await, "16");
    end(&runtime, &started).await;
}

#[test]
fn role_inode_fill() {
    if makes(concat!(module_path!(), "::role_inode_fill")) {
        let made = (0..20_000).take_while(|number| File::create(format!("/tmp/{number}")).is_ok()).count();
        let elsewhere =
            (0..20_000).take_while(|number| fs::create_dir(format!("/dev/shm/{number}")).is_ok()).count();
        say(&[made.to_string(), elsewhere.to_string()]);
    }
}

#[tokio::test]
async fn files_run_out_for_itself_alone() {
    let world = World::new();
    let runtime = world.runtime();
    if is_without_namespaces(&runtime) {
        return;
    }
    let mut spec = spec(&world, concat!(module_path!(), "::role_inode_fill"));
    spec.resources.tmp = Some(16 * MIB);
    let started = runtime.start(spec).await.unwrap();
    let counts = verdict(&runtime, &started).await;
    let counts: Vec<u32> = counts.split("; ").map(|count| count.parse().unwrap()).collect();
    assert!(counts[0] <= 2_048 && counts[1] <= 4_096, "{counts:?}");
    end(&runtime, &started).await;
}

/// Children whose parents end at once, a thousand of them, are nobody's but init's.
#[test]
fn role_zombie_storm() {
    if makes(concat!(module_path!(), "::role_zombie_storm")) {
        for _ in 0..1_000 {
            match call(libc::SYS_clone, [libc::SIGCHLD.into(), 0, 0, 0, 0, 0]) {
                Ok(0) => {
                    drop(call(libc::SYS_clone, [libc::SIGCHLD.into(), 0, 0, 0, 0, 0]));
                    drop(call(libc::SYS_exit_group, [0; 6]));
                }
                Ok(_) => drop(call(libc::SYS_wait4, [-1, 0, 0, 0, 0, 0])),
                Err(_) => {}
            }
        }
        // wait: for init to have reaped the last of them.
        for _ in 0..2_000 {
            if zombies() == 0 {
                break;
            }
            std::thread::park_timeout(std::time::Duration::from_millis(5));
        }
        say(&[zombies().to_string()]);
    }
}

fn zombies() -> usize {
    let states = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("stat")).ok());
    states.filter(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z"))).count()
}

#[tokio::test]
async fn a_storm_of_zombies_is_reaped() {
    let world = World::new();
    let runtime = world.runtime();
    if is_without_namespaces(&runtime) {
        return;
    }
    let started = runtime.start(spec(&world, concat!(module_path!(), "::role_zombie_storm"))).await.unwrap();
    assert_eq!(verdict(&runtime, &started).await, "0");
    end(&runtime, &started).await;
}

/// What an app exits with is what is told, though it is another's child.
#[tokio::test]
async fn how_it_ended_is_told_by_its_init() {
    let world = World::new();
    let runtime = world.runtime();
    for (line, code, signal) in [("exit 7", Some(7), None), ("kill -15 $$", None, Some(15))] {
        let mut spec = world.spec("wait");
        spec.command = berth_spec::Command::Argv(["/bin/sh", "-c", line].map(str::to_owned).to_vec());
        let finished = runtime.run_once(spec, None).await.unwrap();
        let exit = finished.exit.unwrap();
        assert_eq!((exit.code, exit.signal, exit.failure), (code, signal, None), "{line}");
        assert!(exit.max_rss > 0);
    }
}
