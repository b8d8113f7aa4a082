//! What an exit status or a signal usually means.

use crate::event::Exit;

/// What a shell adds to the number of the signal that ended its command.
const OF_SIGNAL: i32 = 128;

/// A sentence about how a program ended, for the ends that say something by themselves.
#[must_use]
pub fn explained(exit: &Exit) -> Option<String> {
    let signal = exit.signal.or_else(|| exit.status.map(|status| status - OF_SIGNAL).filter(|it| *it > 0));
    let text = match (exit.status, signal) {
        (Some(status), _) if exit.oom == Some(true) && status != OF_SIGNAL + 9 => {
            return Some(format!(
                "status {status}: the kernel killed a process of it because memory ran out; let it use less, or give it more by `[resources]` in berth.toml"
            ));
        }
        (Some(126), _) => {
            "status 126: the command was found and could not be run: it is not executable, or was made for another machine"
        }
        (Some(127), _) => "status 127: a command was not found",
        (_, Some(4)) => "SIGILL: the program holds instructions that this processor does not have",
        (_, Some(6)) => "SIGABRT: the program gave up by itself, as after a failed assertion",
        (_, Some(9)) => match exit.oom {
            Some(true) => {
                "SIGKILL: the kernel killed it because memory ran out; let it use less, or give it more by `[resources]` in berth.toml"
            }
            Some(false) => "SIGKILL: something killed it, and not the kernel for lack of memory",
            None => "SIGKILL: something killed it, as the kernel does when memory runs out",
        },
        (_, Some(11)) => {
            "SIGSEGV: the program touched memory that is not its own, which is a fault in native code"
        }
        (_, Some(15)) if exit.unhealthy => "SIGTERM: Berth asked it to end, since its health check failed",
        (_, Some(15)) => "SIGTERM: it was asked to end, and not by Berth",
        _ => return None,
    };
    Some(match exit.status {
        Some(status) if status > OF_SIGNAL => format!("status {status} is what a shell makes of {text}"),
        _ => text.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_spec::Millis;

    #[test]
    fn ends_that_say_something_are_explained() {
        let exit = |status, signal, oom| {
            explained(&Exit { status, signal, after: Millis(5), oom, unhealthy: false })
        };
        for (status, signal, oom, expected) in [
            (Some(126), None, None, "not executable"),
            (Some(127), None, None, "not found"),
            (None, Some(9), Some(true), "because memory ran out"),
            (None, Some(9), Some(false), "not the kernel"),
            (None, Some(9), None, "as the kernel does"),
            (Some(137), None, Some(true), "status 137 is what a shell makes of SIGKILL: the kernel"),
            (Some(1), None, Some(true), "status 1: the kernel killed a process of it because memory ran out"),
            (None, Some(11), None, "native code"),
            (Some(139), None, None, "SIGSEGV"),
            (Some(143), None, None, "asked to end"),
        ] {
            let text = exit(status, signal, oom).unwrap();
            assert!(text.contains(expected), "{text}");
        }
        for status in [0, 1, 2, 70, 128] {
            assert_eq!(exit(Some(status), None, None), None);
        }
    }
}
