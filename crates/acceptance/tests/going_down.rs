//! Going down ends well whatever happens on the way: nothing of the platform or its apps is left, which the harness looks for
//! when each platform is dropped.
#![expect(clippy::print_stdout, reason = "whether the victim was still there is printed")]

use std::time::Duration;

use berth_acceptance::{Actor, Options, Platform, Source, User, Victim, wait_until};
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(60);

fn with_instances(user: User) -> Platform {
    let platform = Platform::start(Options { user, ..Options::default() });
    let source = Source::built(&platform);
    let _released = platform.cli(["deploy".as_ref(), source.path().as_os_str()]).ok();
    let _scaled = platform.cli(["scale", "web=3", "--app", Source::APP]).ok();
    assert!(wait_until(PATIENCE, || platform.prey(Victim::Instance).len() == 3));
    platform
}

/// Has the platform go down, and kills `victim` once the supervisor has begun.
fn killed_on_the_way(user: User, victim: Victim) {
    let mut platform = with_instances(user);
    let down = platform.begin(["down"]);
    assert!(wait_until(PATIENCE, || platform.log("supervisor").contains("request=down")));
    let prey = platform.prey(victim).into_iter().next();
    let killed = prey.is_some_and(berth_acceptance::Prey::kill);
    println!("{victim} {}", if killed { "killed" } else { "had ended" });
    assert_eq!(platform.wait(), Some(0), "{}", platform.log("supervisor"));
    let _answer = down.wait().ok();
}

#[test]
fn though_control_is_killed() {
    killed_on_the_way(User::Own, Victim::Control);
}

#[test]
fn though_control_of_an_ordinary_user_is_killed() {
    killed_on_the_way(User::Ordinary, Victim::Control);
}

#[test]
fn though_edge_is_killed() {
    killed_on_the_way(User::Own, Victim::Edge);
}

#[test]
fn though_a_shim_is_killed() {
    killed_on_the_way(User::Own, Victim::Shim);
}

/// What stops at no signal is waited for; a second Ctrl-C at the terminal ends the patience.
#[test]
fn at_once_by_a_second_ctrl_c() {
    let mut platform = Platform::start(Options::default());
    let ignoring = r#"["sh", "-c", "trap '' TERM; while :; do sleep 1; done"]"#;
    let manifest = format!("[processes]\nworker = {ignoring}\n[shutdown]\nkill_after = \"300s\"\n");
    let _released = Actor::new(&platform, "stubborn", &manifest).deploy().ok();
    platform.signal(platform.supervisor(), Signal::INT);
    assert!(wait_until(PATIENCE, || platform.log("supervisor").contains("another Ctrl-C kills them")));
    platform.signal(platform.supervisor(), Signal::INT);
    assert!(wait_until(PATIENCE, || platform.log("supervisor").contains("voice: killing the apps")));
    assert_eq!(platform.wait(), Some(0), "{}", platform.log("supervisor"));
}

/// The instances are nobody's children any more that the supervisor could see, and no control lives to stop them.
#[test]
fn after_another_supervisor_and_without_control() {
    for user in [User::Own, User::Ordinary] {
        let mut platform = with_instances(user);
        platform.kill(platform.supervisor());
        platform.start_again();
        let down = platform.begin(["down"]);
        assert!(wait_until(PATIENCE, || platform.log("supervisor").contains("request=down")));
        assert!(wait_until(PATIENCE, || {
            for prey in platform.prey(Victim::Control) {
                let _was_alive = prey.kill();
            }
            platform.log("supervisor").contains("voice: stopped")
        }));
        assert_eq!(platform.wait(), Some(0), "{}", platform.log("supervisor"));
        let _answer = down.wait();
    }
}

/// The platform's table in the machine's packet filter is there as long as instances may be: it outlives a supervisor and a control that are
/// killed, and goes with an orderly end, also where no control lives to see to that.
#[test]
fn with_its_table_in_the_packet_filter() {
    if !rustix::process::geteuid().is_root() {
        println!("only root puts anything into the packet filter");
        return;
    }
    let mut platform = with_instances(User::Own);
    assert!(platform.has_filter_table(), "an instance has a way out");
    platform.kill(platform.supervisor());
    platform.start_again();
    assert!(platform.has_filter_table(), "the instances outlived their supervisor");
    platform.kill(platform.role("control")[0]);
    let _down = platform.cli(["down"]).ok();
    assert!(!platform.has_filter_table(), "{}", platform.log("supervisor"));
    platform.start_again();
    assert!(wait_until(PATIENCE, || platform.prey(Victim::Instance).len() == 3));
    assert!(wait_until(PATIENCE, || platform.has_filter_table()));
    let down = platform.begin(["down"]);
    assert!(wait_until(PATIENCE, || platform.log("supervisor").matches("request=down").count() == 2));
    let _killed = platform.prey(Victim::Control).into_iter().next().is_some_and(berth_acceptance::Prey::kill);
    assert_eq!(platform.wait(), Some(0), "{}", platform.log("supervisor"));
    let _answer = down.wait().ok();
    assert!(!platform.has_filter_table(), "{}", platform.log("supervisor"));
}
