//! How instances start, stop and die.

use std::collections::BTreeSet;
use std::time::Duration;

use berth_process::{Signal, Tree};
use berth_runtime::{
    Frozen, InstanceState, Listener, Observed, PlainRuntime, PortWish, Restart, Runtime as _, RuntimeError,
    RuntimeEvent, Step,
};
use berth_spec::Command;

use crate::world::{LONG, World, is_running, line_with, number_after, process_of, stop_within, until};

async fn end(runtime: &PlainRuntime, observed: &Observed) {
    runtime.kill(&observed.id).await.unwrap();
    runtime.remove(&observed.id).await.unwrap();
    assert!(runtime.list().iter().all(|other| other.id != observed.id));
}

#[tokio::test]
async fn an_app_gets_what_it_was_told_and_no_descriptor_beyond_the_first_three() {
    let (world, spec) = {
        let world = World::new();
        let spec = world.spec("report");
        (world, spec)
    };
    let runtime = world.runtime();
    let started = runtime.start(spec.clone()).await.unwrap();
    assert_eq!(line_with(&runtime, &spec.id, "fds").await, "fds [0, 1, 2]");
    let port = started.port.unwrap();
    line_with(&runtime, &spec.id, &format!("env PORT={port}")).await;
    line_with(&runtime, &spec.id, "env TMPDIR=").await;
    line_with(&runtime, &spec.id, "dir /").await;
    assert!(line_with(&runtime, &spec.id, "NoNewPrivs").await.ends_with('1'));
    if let Some(user) = &spec.user {
        let expected = format!("Uid:\t{0}\t{0}\t{0}\t{0}", user.uid);
        assert_eq!(line_with(&runtime, &spec.id, "Uid:").await, expected);
        assert!(line_with(&runtime, &spec.id, "Groups:").await.trim_end().ends_with(':'));
        assert!(line_with(&runtime, &spec.id, "CapEff").await.ends_with("0000000000000000"));
    }
    end(&runtime, &started).await;
    assert!(!world.folder(&spec.id).try_exists().unwrap());
    assert_eq!(std::fs::read_dir(world.layout().run.join("i")).unwrap().count(), 0);
}

#[tokio::test]
async fn an_app_ends_at_its_signal_and_one_that_ignores_it_is_killed() {
    let world = World::new();
    let runtime = world.runtime();
    for (role, signal) in [("wait", 15), ("stubborn", 9)] {
        let spec = world.spec(role);
        let started = runtime.start(spec.clone()).await.unwrap();
        line_with(&runtime, &spec.id, "ready").await;
        let kill_after = if signal == 9 { 300 } else { 60_000 };
        let ended = runtime.stop(&spec.id, stop_within(kill_after)).await.unwrap();
        assert_eq!((ended.state, ended.shim), (InstanceState::Exited, None));
        let exit = ended.exits.last().unwrap();
        assert_eq!((exit.signal, exit.stopped, exit.code), (Some(signal), true, None), "{role}");
        assert!(exit.max_rss > 0);
        end(&runtime, &started).await;
    }
}

#[tokio::test]
async fn what_left_the_session_does_not_survive_a_stop() {
    let (world, spec) = {
        let world = World::new();
        let spec = world.spec("scatter");
        (world, spec)
    };
    let runtime = world.runtime();
    let started = runtime.start(spec.clone()).await.unwrap();
    let line = line_with(&runtime, &spec.id, "scattered").await;
    let away = ["marked", "bare"].map(|word| process_of(&started, number_after(&line, word)));
    assert!(away.iter().all(|process| process.is_alive().unwrap()));
    runtime.stop(&spec.id, stop_within(60_000)).await.unwrap();
    assert!(away.iter().all(|process| !process.is_alive().unwrap()));
    end(&runtime, &started).await;
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

/// An instance that stands still does not answer, goes on where it was, and can be stopped as it is.
#[tokio::test]
async fn a_frozen_instance_stands_still_and_goes_on() {
    use std::io::{Read as _, Write as _};
    let world = World::new();
    let runtime = world.runtime();
    let started = runtime.start(world.spec("echo")).await.unwrap();
    let (id, port) = (started.id.clone(), started.port.unwrap());
    line_with(&runtime, &id, "listening").await;
    if runtime.capabilities().cgroup.is_none() {
        assert!(matches!(runtime.freeze(&id, Frozen::Resident).await, Err(RuntimeError::Invalid(_))));
        return end(&runtime, &started).await;
    }
    for how in [Frozen::Resident, Frozen::PagedOut] {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let answered = |stream: &mut std::net::TcpStream, limit: Duration| {
            stream.set_read_timeout(Some(limit)).unwrap();
            stream.read_exact(&mut [0; 1]).is_ok()
        };
        stream.write_all(b"x").unwrap();
        assert!(answered(&mut stream, LONG));
        runtime.freeze(&id, how).await.unwrap();
        stream.write_all(b"x").unwrap();
        assert!(!answered(&mut stream, Duration::from_millis(50)));
        runtime.thaw(&id).await.unwrap();
        assert!(answered(&mut stream, LONG));
    }
    runtime.freeze(&id, Frozen::Resident).await.unwrap();
    let stopped = runtime.stop(&id, stop_within(60_000)).await.unwrap();
    assert_eq!(stopped.exits.last().unwrap().signal, Some(15));
    end(&runtime, &started).await;
}

#[tokio::test]
async fn a_crash_loop_backs_off_and_can_be_stopped() {
    let world = World::new();
    let runtime = world.runtime();
    let mut spec = world.spec("crash");
    spec.backoff.first = 5;
    spec.backoff.most = 3_600_000;
    let mut events = runtime.watch();
    let started = runtime.start(spec.clone()).await.unwrap();
    let observed = until(&runtime, &spec.id, |observed| {
        observed.exit_count >= 6 && matches!(observed.state, InstanceState::BackingOff { .. })
    });
    let observed = observed.await;
    assert_eq!(observed.restarts + 1, observed.exit_count);
    assert!(observed.exits.iter().all(|exit| exit.signal == Some(6) && !exit.stopped && !exit.core));
    let first = loop {
        if let RuntimeEvent::Exited { exit, .. } = events.recv().await.unwrap() {
            break exit;
        }
    };
    assert_eq!(first, observed.exits[0]);
    let ended = runtime.stop(&spec.id, stop_within(60_000)).await.unwrap();
    assert_eq!(ended.state, InstanceState::Exited);
    end(&runtime, &started).await;
}

#[tokio::test]
async fn a_start_that_is_repeated_is_the_same_start() {
    let (world, spec) = {
        let world = World::new();
        let spec = world.spec("wait");
        (world, spec)
    };
    let runtime = world.runtime();
    let (first, second) = tokio::join!(runtime.start(spec.clone()), runtime.start(spec.clone()));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!((first.shim.clone(), first.port), (second.shim, second.port));
    let other = berth_runtime::InstanceSpec { token: world.spec("wait").token, ..spec.clone() };
    assert!(matches!(runtime.start(other).await, Err(RuntimeError::Occupied(_))));
    assert!(matches!(runtime.remove(&spec.id).await, Err(RuntimeError::StillRuns(_))));
    end(&runtime, &first).await;
    runtime.remove(&spec.id).await.unwrap();
    assert!(matches!(runtime.kill(&spec.id).await, Err(RuntimeError::NotFound(_))));
}

#[tokio::test]
async fn a_listener_elsewhere_is_told() {
    let world = World::new();
    let runtime = world.runtime();
    let at_port = world.spec("listen");
    let mut elsewhere = world.spec("listen");
    elsewhere.env.insert("LISTEN_ELSEWHERE".to_owned(), String::new());
    for (spec, right) in [(at_port, true), (elsewhere, false)] {
        let started = runtime.start(spec.clone()).await.unwrap();
        let line = line_with(&runtime, &spec.id, "ready").await;
        until(&runtime, &spec.id, is_running).await;
        let port = u16::try_from(number_after(&line, "at")).unwrap();
        let expected = if right { Listener::Expected } else { Listener::Elsewhere { ports: vec![port] } };
        let observed = runtime.observe(&spec.id).await.unwrap();
        assert_eq!(observed.listener, expected);
        assert_eq!(observed.port == Some(port), right);
        // The lease is the shim's now, and nobody else gets the port.
        let taken = PortWish::Exactly(observed.port.unwrap());
        let mut rival = world.spec("wait");
        rival.port = taken;
        assert!(matches!(runtime.start(rival).await, Err(RuntimeError::PortTaken(_))));
        end(&runtime, &started).await;
    }
}

#[tokio::test]
async fn a_one_off_command_gives_its_end_and_leaves_nothing() {
    let world = World::new();
    let runtime = world.runtime();
    let spec = world.spec("report");
    let done = runtime.run_once(spec.clone(), None).await.unwrap();
    assert_eq!((done.exit.unwrap().code, done.timed_out), (Some(0), false));
    assert!(done.tail.iter().any(|record| record.body.starts_with(b"NoNewPrivs")));
    assert!(!world.folder(&spec.id).try_exists().unwrap());
    assert!(!runtime.log(&spec.id).segments().unwrap().is_empty());
    runtime.remove_log(&spec.id).await.unwrap();
    assert!(runtime.log(&spec.id).segments().unwrap().is_empty());

    let hung = runtime.run_once(world.spec("wait"), Some(Duration::from_millis(100))).await.unwrap();
    assert_eq!((hung.timed_out, hung.exit.unwrap().signal), (true, Some(9)));
    let mut missing = world.spec("wait");
    missing.command = Command::Argv(vec!["no-such-program".to_owned()]);
    let failed = runtime.run_once(missing, None).await.unwrap().exit.unwrap();
    assert_eq!((failed.code, failed.failure.unwrap().step), (Some(127), Step::Exec));
    assert_eq!(runtime.list(), []);
}

/// `web: server --port $PORT`, as every Procfile has it: the port is known no earlier than here.
#[tokio::test]
async fn a_command_is_expanded_from_all_that_the_instance_gets() {
    let world = World::new();
    let runtime = world.runtime();
    let mut spec = world.spec("wait");
    spec.command = Command::parse("echo port $PORT home $HOME role $BERTH_TEST_NONE end").unwrap();
    spec.restart = Restart::Never;
    let started = runtime.start(spec.clone()).await.unwrap();
    let line = line_with(&runtime, &spec.id, "port").await;
    let port = started.port.unwrap();
    let own_root = runtime.capabilities().isolation >= berth_spec::Isolation::Namespaces;
    let home = if own_root { "/tmp".into() } else { world.folder(&spec.id).join("tmp") };
    assert_eq!(line, format!("port {port} home {} role end", home.display()));
    end(&runtime, &started).await;
}

#[tokio::test]
async fn what_cannot_be_started_is_refused_and_leaves_nothing() {
    let world = World::new();
    let runtime = world.runtime();
    let good = world.spec("wait");
    let root = berth_runtime::User { uid: 0, gid: 0, groups: vec![] };
    for bad in [
        berth_runtime::InstanceSpec { command: Command::Argv(vec![]), ..good.clone() },
        berth_runtime::InstanceSpec { command: Command::Argv(vec!["a\0".to_owned()]), ..good.clone() },
        berth_runtime::InstanceSpec { dir: "x".into(), ..good.clone() },
        berth_runtime::InstanceSpec { user: Some(root), ..good.clone() },
    ] {
        assert!(matches!(runtime.start(bad).await, Err(RuntimeError::Invalid(_))));
    }
    assert!(!world.folder(&good.id).try_exists().unwrap());
    let port = PortWish::Any { exclude: berth_runtime::PORTS.collect::<BTreeSet<u16>>() };
    let none = runtime.start(berth_runtime::InstanceSpec { port, ..good.clone() }).await;
    assert!(matches!(none, Err(RuntimeError::NoPort)));
    runtime.remove(&good.id).await.unwrap();
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
