//! What an app tries to get out of its sandbox, to look at others, or to take all of the machine, each attempt by its name.
//!
//! An attempt runs within the instance and says what it gained; a test fails when that is anything. Those that are about limits say how
//! far they came.
#![expect(unsafe_code, reason = "attackers are not kept to safe functions")]
#![expect(
    clippy::print_stdout,
    reason = "an instance says by its output what it gained, and a test what was not tested"
)]

mod entries;
mod escapes;
mod floods;
mod strangers;

use std::io;

use berth_runtime::{InstanceSpec, Observed, PlainRuntime, Runtime as _};
use berth_spec::Isolation;

use crate::world::{World, line_with, stop_within};

/// Which attempt an instance makes.
pub(crate) const ATTACK: &str = "BERTH_TEST_ATTACK";

/// Declares attempts: each a role within the instance, by its name, and a test that it gained nothing.
macro_rules! attempts {
    ($($(#[$doc:meta])* $name:ident $attempt:expr;)*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn role() {
                if crate::attacks::makes(concat!(module_path!(), "::role")) {
                    let attempt: fn() -> Vec<String> = $attempt;
                    crate::attacks::say(&attempt());
                }
            }

            $(#[$doc])*
            #[tokio::test]
            async fn gains_nothing() {
                let gained = crate::attacks::gains(concat!(module_path!(), "::role")).await;
                assert_eq!(gained, "", "{}", stringify!($name));
            }
        }
    )*};
}
pub(crate) use attempts;

/// Whether this process makes the attempt of this path, which begins with the name of the test program.
pub(crate) fn makes(path: &str) -> bool {
    std::env::var(ATTACK).as_deref() == Ok(path)
}

/// Says what was gained, and waits to be ended.
pub(crate) fn say(gained: &[String]) -> ! {
    println!("\nverdict:{}", gained.join("; "));
    loop {
        std::thread::park();
    }
}

/// An instance that makes the attempt of this path.
pub(crate) fn spec(world: &World, path: &str) -> InstanceSpec {
    let mut spec = world.spec("attack");
    let (_program, name) = path.split_once("::").unwrap();
    if let berth_spec::Command::Argv(argv) = &mut spec.command {
        name.clone_into(&mut argv[2]);
    }
    spec.env.insert(ATTACK.to_owned(), path.to_owned());
    spec
}

/// What an instance that makes this attempt gained.
pub(crate) async fn gains(path: &str) -> String {
    let world = World::new();
    let runtime = world.runtime();
    if is_without_namespaces(&runtime) {
        return String::new();
    }
    gains_in(&world, &runtime, path).await
}

async fn gains_in(world: &World, runtime: &PlainRuntime, path: &str) -> String {
    let spec = spec(world, path);
    let started = runtime.start(spec).await.unwrap();
    let gained = verdict(runtime, &started).await;
    end(runtime, &started).await;
    gained
}

/// The attempts are real: outside of a sandbox the same ones gain something.
#[tokio::test]
async fn attempts_gain_something_from_plain_instances() {
    let world = World::new();
    let runtime = crate::open_at(world.layout(), Some(Isolation::Plain));
    for (attempt, expected) in [
        ("privileges", "Seccomp: 0"),
        ("files_of_the_machine", "/var/lib/dpkg"),
        ("descriptors_left_open", "/boot"),
        ("namespaces_of_its_own", "clone user"),
        ("other_processes", "traceme"),
        ("doors_of_the_kernel", "add_key"),
        ("programs_that_gain_rights", " / "),
    ] {
        let path = format!("sandbox::attacks::escapes::{attempt}::role");
        let gained = gains_in(&world, &runtime, &path).await;
        println!("{attempt}: {gained}");
        assert!(gained.contains(expected), "{attempt}: {gained}");
    }
}

/// What the instance said.
pub(crate) async fn verdict(runtime: &PlainRuntime, started: &Observed) -> String {
    let line = line_with(runtime, &started.id, "verdict:").await;
    line.strip_prefix("verdict:").unwrap().to_owned()
}

pub(crate) async fn end(runtime: &PlainRuntime, started: &Observed) {
    runtime.stop(&started.id, stop_within(0)).await.unwrap();
    runtime.remove(&started.id).await.unwrap();
    runtime.remove_log(&started.id).await.unwrap();
}

/// These tests are about namespaces. A machine without them is said loudly, since nothing is shown there.
pub(crate) fn is_without_namespaces(runtime: &PlainRuntime) -> bool {
    let capabilities = runtime.capabilities();
    let without = capabilities.isolation < Isolation::Namespaces;
    if without {
        println!("!! NOT TESTED: this machine has no namespaces for us: {:?}", capabilities.missing);
    }
    without
}

/// Names what worked.
pub(crate) fn gained<T>(what: &str, outcome: io::Result<T>) -> Option<String> {
    outcome.is_ok().then(|| what.to_owned())
}

/// The outcome of a system call.
pub(crate) fn call(number: libc::c_long, arguments: [libc::c_long; 6]) -> io::Result<libc::c_long> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: whatever the kernel makes of these, it happens to a process that does nothing else.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    match result {
        // A child that a successful clone has made must not go on with the attempts.
        0 if number == libc::SYS_clone && a != libc::c_long::from(libc::SIGCHLD) => loop {
            std::thread::park();
        },
        result if result < 0 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}

/// A text as an argument of a system call.
pub(crate) fn text(text: &'static std::ffi::CStr) -> libc::c_long {
    text.as_ptr() as libc::c_long
}
