//! Real children: what they get, what they do not get, and that whole trees of them end.
//!
//! Every child is this very test program again ([`Program::Own`]), told by `BERTH_TEST_ROLE` what to do.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in its helper functions")]

use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::time::Duration;

use berth_clock::{SystemClock, random_bytes};
use berth_process::{
    Cgroups, Child, Controller, Ground, Group, Identity, Launch, Limits, Mark, Program, Quota, Signal, Stdio,
    Tree, User,
};

const ROLE: &str = "BERTH_TEST_ROLE";
const LONG: Duration = Duration::from_secs(60);

/// A child that plays `role`: the test of that name below, which does nothing when it is run as a test.
fn role(role: &str) -> Launch {
    Launch::new(Program::Own)
        .args(["--exact", &format!("role_{role}"), "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .stdout(Stdio::Piped)
}

fn plays(role: &str) -> bool {
    std::env::var(ROLE).is_ok_and(|played| played == role)
}

fn mark() -> Mark {
    Mark(random_bytes(&SystemClock::new()))
}

/// Reads the child's output up to a line that holds `word`, and gives what was read.
fn read_until(child: &mut Child, word: &str) -> String {
    let mut text = String::new();
    let out = child.stdout.as_mut().unwrap();
    let mut byte = [0];
    while !(text.ends_with('\n') && text.contains(word)) {
        assert_eq!(out.read(&mut byte).unwrap(), 1, "the child ended after {text:?}");
        text.push(byte[0].into());
    }
    text
}

fn number_after(text: &str, word: &str) -> u32 {
    let (_, rest) = text.rsplit_once(word).unwrap();
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

fn wait_for_ever() -> ! {
    loop {
        std::thread::park();
    }
}

#[test]
fn role_report() {
    if !plays("report") {
        return;
    }
    let mut fds: Vec<i32> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    // Without that of the folder just read, which is closed by now.
    fds.retain(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok());
    fds.sort_unstable();
    let names: Vec<String> = std::env::vars().map(|(name, _)| name).collect();
    println!("fds {fds:?} names {names:?} dir {:?}", std::env::current_dir().unwrap());
    for line in std::fs::read_to_string("/proc/self/status").unwrap().lines() {
        println!("{line}");
    }
    println!("{}", std::fs::read_to_string("/proc/self/limits").unwrap());
    println!("group {} own {}", rustix::process::getpgrp() == rustix::process::getpid(), std::process::id());
}

#[test]
fn role_wait() {
    if plays("wait") {
        println!("waiting {}", std::process::id());
        wait_for_ever();
    }
}

/// Starts one that left the session and dropped the mark, one that left the session and kept the mark, and waits.
#[test]
fn role_scatter() {
    if !plays("scatter") {
        return;
    }
    let mut bare = role("wait").group(Group::Session).start().unwrap();
    let marked = role("wait").group(Group::Session).env_from_ours(Mark::VARIABLE).start();
    let mut marked = marked.unwrap();
    let (bare, marked) = (read_until(&mut bare, "waiting"), read_until(&mut marked, "waiting"));
    println!("bare {} marked {} scattered", number_after(&bare, "waiting"), number_after(&marked, "waiting"));
    wait_for_ever();
}

/// Starts one in its own session, and waits.
#[test]
fn role_follow() {
    if !plays("follow") {
        return;
    }
    let mut below = role("wait").group(Group::Inherited).start().unwrap();
    let text = read_until(&mut below, "waiting");
    println!("followed {}", number_after(&text, "waiting"));
    wait_for_ever();
}

/// Starts threads until it may have no more, forty at most.
#[test]
fn role_breed() {
    if !plays("breed") {
        return;
    }
    let start = |_| std::thread::Builder::new().spawn(|| wait_for_ever()).ok();
    println!("bred {}", (0..40).map_while(start).count());
    wait_for_ever();
}

/// Forks without end: each child starts the next and ends.
#[test]
fn role_run_away() {
    if !plays("run_away") {
        return;
    }
    // Without its folder the test is over; a child that escaped it must not go on for ever.
    let Ok(mut out) =
        std::fs::OpenOptions::new().append(true).open(std::env::var_os("BERTH_TEST_OUT").unwrap())
    else {
        return;
    };
    out.write_all(b".").unwrap();
    let next = role("run_away").group(Group::Session).stdout(Stdio::Null);
    drop(next.env_from_ours(Mark::VARIABLE).env_from_ours("BERTH_TEST_OUT").start());
}

#[test]
fn a_child_gets_what_it_was_told_and_nothing_else() {
    // A descriptor that is not close-on-exec, as one that we were started with may be.
    let leaky = std::fs::File::open("/dev/null").unwrap();
    rustix::io::fcntl_setfd(&leaky, rustix::io::FdFlags::empty()).unwrap();
    let given = std::fs::File::open("/dev/zero").unwrap();
    let mut launch =
        role("report").dir("/").limits(Limits { open_files: Some(77), core: Some(0), ..Limits::default() });
    let number = launch.inherit(&given).unwrap();
    let mut child = launch.no_new_privs().start().unwrap();
    let text = read_until(&mut child, "group");
    assert!(text.contains(&format!("fds [0, 1, 2, {number}]")), "{text}");
    assert!(number != leaky.as_raw_fd());
    assert!(text.contains("names [\"BERTH_TEST_ROLE\"]"), "{text}");
    assert!(text.contains("dir \"/\"") && text.contains("NoNewPrivs:\t1"), "{text}");
    let limit = text.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(limit.split_whitespace().nth(3), Some("77"));
    assert!(text.contains("group true"), "{text}");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_child_that_sees_to_itself_is_left_as_it_is_and_given_nothing_else() {
    let mut child = role("report").group(Group::ByItself).start().unwrap();
    let text = read_until(&mut child, "group");
    assert!(text.contains("group false"), "{text}");
    assert!(child.wait().unwrap().success());
    let limited = role("report").limits(Limits { core: Some(0), ..Limits::default() });
    let mut inheriting = role("report");
    let _number = inheriting.inherit(std::fs::File::open("/dev/zero").unwrap()).unwrap();
    for launch in [limited, inheriting, role("report").no_new_privs(), role("report").die_with_parent()] {
        assert!(launch.group(Group::ByItself).start().is_err(), "who would do it?");
    }
}

#[test]
fn as_root_a_tenants_program_runs_as_its_user_alone() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let user = User { uid: 2_000_003_000, gid: 2_000_003_000, groups: vec![2_000_003_001] };
    let ground = Ground::new(Path::new("/tmp"), Some(user)).unwrap();
    let mut child =
        Launch::new(ground.shell("cat /proc/self/status; pwd")).stdout(Stdio::Piped).start().unwrap();
    let text = read_until(&mut child, "/tmp");
    assert!(text.contains("Uid:\t2000003000\t2000003000\t2000003000\t2000003000"), "{text}");
    assert!(text.contains("Groups:\t2000003001 \n") && text.contains("CapEff:\t0000000000000000"), "{text}");
    assert!(text.contains("NoNewPrivs:\t1"), "{text}");
    assert!(Launch::new(ground.shell("true")).dir("/etc").start().is_err());
    assert!(Launch::new(ground.shell("true")).dir("/tmp/../etc").start().is_err());
    let root = User { uid: 0, gid: 0, groups: vec![] };
    assert!(Launch::new(ground.shell("true")).user(root).start().is_err());
    child.wait().unwrap();
}

#[test]
fn a_missing_program_is_an_error_at_the_start() {
    let user =
        rustix::process::geteuid().is_root().then(|| User { uid: 65_000, gid: 65_000, groups: vec![] });
    let ground = Ground::new(Path::new("/tmp"), user).unwrap();
    assert!(ground.program("no-such-program", "/bin".as_ref()).is_none());
    let program = ground.program("./no-such-program", "/bin".as_ref()).unwrap();
    assert!(Launch::new(program).start().is_err());
}

#[test]
fn signals_reach_a_child_and_its_identity_ends_with_it() {
    let mut child = role("wait").start().unwrap();
    read_until(&mut child, "waiting");
    let identity = child.identity().clone();
    assert!(identity.is_alive().unwrap());
    assert_eq!(child.wait_for(Duration::ZERO).unwrap(), None);
    child.signal_group(Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(15));
    assert!(!identity.is_alive().unwrap());
    child.signal(Signal::TERM).unwrap();
    child.signal_group(Signal::TERM).unwrap();
}

#[test]
fn a_child_bound_to_us_is_started_from_a_thread_that_stays() {
    let start = || role("wait").stdin(Stdio::Piped).die_with_parent().start().unwrap();
    let mut child = std::thread::spawn(start).join().unwrap();
    // The thread that asked has ended, and with it would the child have.
    read_until(&mut child, "waiting");
    child.stdin.take().unwrap().write_all(b"x").unwrap();
    assert_eq!(child.try_wait().unwrap(), None);
    child.signal(Signal::KILL).unwrap();
    child.wait().unwrap();
}

fn assert_tree_ends(tree: &Tree, child: &mut Child) {
    let text = read_until(child, "scattered");
    let pids = [number_after(&text, "bare"), number_after(&text, "marked"), child.pid()];
    let all: Vec<Identity> = pids.iter().map(|pid| Identity::of(*pid).unwrap().unwrap()).collect();
    let members: Vec<u32> = tree.members().unwrap().iter().map(|stat| stat.pid).collect();
    assert!(pids.iter().all(|pid| members.contains(pid)), "{pids:?} in {members:?}");
    tree.kill(&SystemClock::new(), LONG).unwrap();
    assert!(all.iter().all(|identity| !identity.is_alive().unwrap()));
    assert_eq!(tree.members().unwrap(), []);
    child.wait().unwrap();
}

#[test]
fn a_tree_ends_wherever_its_processes_went() {
    let mark = mark();
    let mut child = role("scatter").mark(mark).group(Group::Session).start().unwrap();
    let tree = Tree { root: Some(child.identity().clone()), mark: Some(mark), cgroup: None };
    assert_tree_ends(&tree, &mut child);
}

#[test]
fn the_marked_end_even_when_the_root_is_gone() {
    let mark = mark();
    let mut child = role("scatter").mark(mark).group(Group::Session).start().unwrap();
    let text = read_until(&mut child, "scattered");
    let orphan = Identity::of(number_after(&text, "marked")).unwrap().unwrap();
    let bare = Identity::of(number_after(&text, "bare")).unwrap().unwrap();
    child.signal(Signal::KILL).unwrap();
    child.wait().unwrap();
    assert!(orphan.is_alive().unwrap());
    Tree { mark: Some(mark), ..Tree::default() }.kill(&SystemClock::new(), LONG).unwrap();
    assert!(!orphan.is_alive().unwrap());
    // What dropped the mark and lost its ancestors is out of reach without a control group, as `Tree` says.
    Tree { root: Some(bare), ..Tree::default() }.kill(&SystemClock::new(), LONG).unwrap();
}

#[test]
fn a_control_group_holds_what_the_scan_could_not_find() {
    let Some(groups) = Cgroups::discover(&format!("berth-test-tree-{}", std::process::id())) else {
        return println!("SKIPPED: no control group may be made");
    };
    let cgroup = groups.create("tree").unwrap();
    let mut child = role("scatter").cgroup(cgroup.clone()).group(Group::Session).start().unwrap();
    let text = read_until(&mut child, "scattered");
    let bare = Identity::of(number_after(&text, "bare")).unwrap().unwrap();
    child.signal(Signal::KILL).unwrap();
    child.wait().unwrap();
    Tree { cgroup: Some(cgroup.clone()), ..Tree::default() }.kill(&SystemClock::new(), LONG).unwrap();
    assert!(!bare.is_alive().unwrap());
    // One that init has not reaped yet is listed still, and is dead.
    let alive = |pid: &u32| Identity::of(*pid).unwrap().is_some_and(|it| it.is_alive().unwrap());
    assert!(!cgroup.pids().unwrap().iter().any(alive));
    cgroup.remove().unwrap();
    groups.remove().unwrap();
}

#[test]
fn as_root_a_known_root_and_its_group_are_all_that_is_looked_at() {
    let Some(groups) = Cgroups::discover(&format!("berth-test-held-{}", std::process::id())) else {
        return println!("SKIPPED: no control group may be made");
    };
    let cgroup = groups.create("held").unwrap();
    let mut child = role("scatter").cgroup(cgroup.clone()).group(Group::Session).start().unwrap();
    let text = read_until(&mut child, "scattered");
    let below = ["bare", "marked"].map(|word| Identity::of(number_after(&text, word)).unwrap().unwrap());
    let root = Some(child.identity().clone());
    let tree = Tree { root, mark: None, cgroup: Some(cgroup.clone()) };
    tree.kill(&SystemClock::new(), LONG).unwrap();
    child.wait().unwrap();
    assert!(below.iter().all(|identity| !identity.is_alive().unwrap()));
    assert_eq!(cgroup.pids().unwrap(), Vec::<u32>::new());
    // Nothing is left, and a root that has ended is no hindrance.
    tree.kill(&SystemClock::new(), LONG).unwrap();
    cgroup.remove().unwrap();
    groups.remove().unwrap();
}

#[test]
fn a_bounded_group_refuses_what_is_too_many() {
    let Some(groups) = Cgroups::discover(&format!("berth-test-bound-{}", std::process::id())) else {
        println!("SKIPPED: no control group may be made");
        return;
    };
    if !groups.controllers().contains(&Controller::Processes) {
        println!("SKIPPED: control groups are not counted");
        groups.remove().unwrap();
        return;
    }
    let cgroup = groups.create_limited("tree", &Quota::of_processes(20)).unwrap();
    assert_eq!(cgroup.refused_processes(), Some(0));
    let mut child = role("breed").cgroup(cgroup.clone()).group(Group::Session).start().unwrap();
    let bred = number_after(&read_until(&mut child, "bred"), "bred");
    assert!((10..20).contains(&bred), "{bred} were started");
    assert!(cgroup.refused_processes().unwrap() > 0);
    Tree { cgroup: Some(cgroup.clone()), ..Tree::default() }.kill(&SystemClock::new(), LONG).unwrap();
    child.wait().unwrap();
    // By its name alone, as whoever sweeps knows it.
    groups.group("tree").remove().unwrap();
    assert_eq!(cgroup.refused_processes(), None);
    groups.remove().unwrap();
}

#[test]
fn a_tree_that_keeps_forking_does_not_outrun_us() {
    let (mark, dir) = (mark(), tempfile::tempdir().unwrap());
    let out = dir.path().join("out");
    std::fs::write(&out, "").unwrap();
    let mut child = role("run_away").mark(mark).env("BERTH_TEST_OUT", &out).start().unwrap();
    child.wait().unwrap();
    Tree { mark: Some(mark), ..Tree::default() }.kill(&SystemClock::new(), LONG).unwrap();
    let length = || std::fs::metadata(&out).unwrap().len();
    let before = length();
    assert!(before > 0);
    // A survivor would have written many times while this one starts and ends.
    for _ in 0..5 {
        role("run_away").env("BERTH_TEST_OUT", "/nowhere").start().unwrap().wait().unwrap();
    }
    assert_eq!(length(), before);
}

#[test]
fn a_reused_pid_is_not_hit() {
    let mut child = role("wait").start().unwrap();
    read_until(&mut child, "waiting");
    let stale = Identity { starttime: child.identity().starttime + 1, ..child.identity().clone() };
    let tree = Tree { root: Some(stale), ..Tree::default() };
    assert_eq!(tree.members().unwrap(), []);
    tree.kill(&SystemClock::new(), LONG).unwrap();
    assert_eq!(child.try_wait().unwrap(), None);
    child.signal(Signal::KILL).unwrap();
    child.wait().unwrap();
}

#[test]
fn the_number_of_a_session_whose_leader_ended_is_nobodys() {
    let mut child = role("follow").group(Group::Session).start().unwrap();
    let text = read_until(&mut child, "followed");
    let below = Identity::of(number_after(&text, "followed")).unwrap().unwrap();
    let leader = child.identity().clone();
    child.signal(Signal::KILL).unwrap();
    child.wait().unwrap();
    // The kernel keeps the number for as long as the session has members.
    assert!(below.is_alive().unwrap());
    assert!(leader.pidfd().unwrap().is_none());
    Tree { root: Some(leader), ..Tree::default() }.kill(&SystemClock::new(), LONG).unwrap();
    Tree { root: Some(below), ..Tree::default() }.kill(&SystemClock::new(), LONG).unwrap();
}

#[cfg(feature = "tokio")]
#[tokio::test]
async fn a_child_can_be_awaited_and_read() {
    use tokio::io::AsyncReadExt as _;
    let mut child = role("report").start().unwrap();
    let mut out = child.take_pipes().unwrap().stdout.unwrap();
    let mut text = String::new();
    out.read_to_string(&mut text).await.unwrap();
    assert!(text.contains("group true"));
    assert!(child.ended().await.unwrap().success());
}
