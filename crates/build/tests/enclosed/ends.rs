//! How commands end in their sandbox: as they would without, with all they started, and with whoever waits for them.

use std::time::Duration;

use berth_build::BuildError;
use berth_process::{Cgroups, Controller, Launch, Program, Signal};

use crate::enclosed;
use crate::place::{Place, is_running};

/// Says to a test that it is the builder that gets killed, and what its build is to run.
const ROLE: &str = "BERTH_TEST_BUILDER";

fn manifest(command: &str) -> String {
    format!("[build]\ncommand = {command:?}\n[processes]\nweb = \"x\"")
}

/// A number of seconds that no other test sleeps for.
fn seconds(test: u32) -> String {
    format!("{}{test}.5", 1_000 + std::process::id())
}

async fn outcome(place: &Place, command: &str) -> (Result<(), BuildError>, String) {
    let (outcome, lines) = place.build(&[("a", "x")], &manifest(command)).await;
    (outcome.map(drop), lines.text())
}

#[tokio::test]
async fn a_command_ends_with_its_own_status_or_signal() {
    let place = Place::new();
    for (command, expected) in [
        ("true; exit 3", "exited with 3"),
        ("true; exit 71", "exited with 71"),
        ("true; kill -9 $$", "was killed by signal 9"),
        ("true; kill -11 $$", "was killed by signal 11"),
        ("true; exec ./nothing-here", "exited with 127"),
    ] {
        let (ended, said) = outcome(&place, command).await;
        let Err(BuildError::Failed { outcome, .. }) = ended else { panic!("{ended:?}\n{said}") };
        assert_eq!(outcome, expected, "{command}");
    }
    place.assert_clean();
}

#[tokio::test]
async fn a_program_that_cannot_be_run_is_named() {
    let place = Place::new();
    let manifest = "[build]\ncommand = [\"./broken\"]\n[processes]\nweb = \"x\"";
    let (ended, lines) = place.build(&[("broken", "#!/nowhere/sh\n")], manifest).await;
    let said = lines.text();
    assert!(matches!(ended, Err(BuildError::Failed { .. })), "{ended:?}\n{said}");
    assert!(said.contains("berth: the command was not started: running the program"), "{said}");
}

#[tokio::test]
async fn a_daemon_that_a_build_leaves_is_dead_when_it_has_ended() {
    let Some(place) = enclosed(|_| {}) else { return };
    let sleeper = seconds(1);
    // It has left its session, its parent, and the environment that it would be known by.
    let command =
        format!("(setsid env -i /bin/sleep {sleeper} > /dev/null 2>&1 < /dev/null &) && echo made > made");
    let (ended, said) = outcome(&place, &command).await;
    ended.unwrap_or_else(|error| panic!("{error:?}\n{said}"));
    assert!(!is_running(&sleeper));
    place.assert_clean();
}

#[tokio::test]
async fn role_of_a_builder_that_is_killed() {
    let Ok(sleeper) = std::env::var(ROLE) else { return };
    let place = Place::new();
    // One of them can be known by nothing but its namespace.
    let command = format!("(setsid env -i /bin/sleep {sleeper} &) ; sleep {sleeper}; true");
    drop(outcome(&place, &command).await);
}

#[tokio::test]
async fn a_builder_that_is_killed_takes_its_builds_along() {
    let Some(place) = enclosed(|_| {}) else { return };
    let sleeper = seconds(2);
    let args = ["--exact", "ends::role_of_a_builder_that_is_killed", "--nocapture", "--test-threads=1"];
    let launch = Launch::new(Program::Own).args(args).env(ROLE, &sleeper).env("TMPDIR", place.path(""));
    let mut builder = launch.env_from_ours("PATH").env_from_ours("HOME").start().unwrap();
    until(|| is_running(&format!("/bin/sleep\0{sleeper}"))).await;
    builder.signal_group(Signal::KILL).unwrap();
    builder.wait().unwrap();
    until(|| !is_running(&sleeper)).await;
}

async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        // wait: for the kernel to start or end processes of somebody else, of which it tells us nothing.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Control groups of a test's own that limit this; said loudly where there are none.
fn groups(name: &str, needed: Controller) -> Option<Cgroups> {
    let groups = Cgroups::discover(&format!("berth-test-{name}-{}", std::process::id()));
    let found = groups.filter(|groups| groups.controllers().contains(&needed));
    if found.is_none() {
        println!("!! NOT TESTED: there is no control group that limits {}", needed.name());
    }
    found
}

#[tokio::test]
async fn a_build_that_runs_out_of_memory_is_told_so() {
    let Some(groups) = groups("memory", Controller::Memory) else { return };
    let limited = groups.clone();
    let Some(place) = enclosed(|config| {
        config.memory_max = Some(64 << 20);
        config.cgroups = Some(limited);
    }) else {
        return;
    };
    // It holds all of it until there is an end of a line.
    let (ended, said) = outcome(&place, "head -c 300000000 /dev/zero | tail > made").await;
    let error = ended.unwrap_err().to_string();
    assert!(
        error.ends_with("it wanted more than the 64 MiB of memory that a build may have"),
        "{error}\n{said}"
    );
    let (ended, said) = outcome(&place, "true; exit 7").await;
    let error = ended.unwrap_err().to_string();
    assert!(error.ends_with("exited with 7"), "{error}\n{said}");
    place.assert_clean();
    groups.remove().unwrap();
}

#[tokio::test]
async fn a_fork_bomb_is_bounded_and_gone() {
    let Some(groups) = groups("bomb", Controller::Processes) else { return };
    let limited = groups.clone();
    let Some(place) = enclosed(|config| {
        config.processes_max = 48;
        config.cgroups = Some(limited);
    }) else {
        return;
    };
    let (ended, said) =
        outcome(&place, "bomb_of_ends() { bomb_of_ends | bomb_of_ends & }; bomb_of_ends; sleep 0.2; exit 3")
            .await;
    assert!(ended.is_err());
    assert!(said.contains("the build may have 48 processes at once, and wanted more"), "{said}");
    assert!(!is_running("bomb_of_ends"));
    place.assert_clean();
    groups.remove().unwrap();
}

/// What tools do between the folders of a build: links within a cache, moves from one folder to another.
#[tokio::test]
async fn a_builds_folders_take_what_tools_do() {
    let place = Place::new();
    let command = "set -e; echo x > $TMPDIR/a; mv $TMPDIR/a made; mkdir -p one two; ln made one/linked; mv one/linked two/; \
                   mkfifo pipe; rm pipe; [ $(id -u) != 0 ]; test -w /tmp; echo err >&2; cat < /dev/null";
    let (ended, said) = outcome(&place, command).await;
    ended.unwrap_or_else(|error| panic!("{error:?}\n{said}"));
    place.assert_clean();
}
