//! The house's own commands: `cargo xtask NAME`. One file per command; `cargo xtask` alone lists them.
#![expect(clippy::print_stdout, reason = "a command-line tool speaks on its standard output")]
#![expect(clippy::print_stderr, reason = "and says what went wrong on the other one")]

mod apps;
mod args;
mod bench;
mod deny;
mod goldens;
mod guest;
mod http;
mod layers;
mod machine;
mod platform;
mod program;
mod provision;
mod runner;
mod rust_source;
mod soak;
mod stopwatch;
mod test;
mod tidy;
mod up;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;

use crate::args::{Args, UsageError};
use crate::workspace::Workspace;

/// One command: its name, what it takes, what it does, and the function that does it.
struct Verb {
    name: &'static str,
    takes: &'static str,
    about: &'static str,
    run: fn(&Workspace, Args) -> Result<()>,
}

const VERBS: &[Verb] = &[
    Verb {
        name: "up",
        takes: "[--home DIR] [--edge ADDR] [--api ADDR] [--detach]",
        about: "build the platform, start it and deploy examples/simple-web-app",
        run: up::run,
    },
    Verb {
        name: "test",
        takes: "[--quick]",
        about: "everything that must hold before a change goes in; --quick leaves black-box tests and samples out",
        run: test::run,
    },
    Verb { name: "tidy", takes: "", about: "the rules of the house that no lint checks", run: tidy::run },
    Verb {
        name: "layers",
        takes: "",
        about: "which crate may use which (xtask/layers.toml)",
        run: layers::run,
    },
    Verb {
        name: "goldens",
        takes: "[--update]",
        about: "compare contracts/ with what the code writes now, or rewrite it",
        run: goldens::run,
    },
    Verb {
        name: "deny",
        takes: "",
        about: "banned crates, licences, sources, advisories (deny.toml)",
        run: deny::run,
    },
    Verb {
        name: "bench",
        takes: "NAME [--quick] [--json FILE]",
        about: "measure, write docs/benchmarks/NAME.json and docs/benchmarks.md; no NAME lists them",
        run: bench::run,
    },
    Verb {
        name: "apps",
        takes: "[NAME...] [--list] [--ci] [--no-peers] [--keep] [--berth FILE]",
        about: "take sample apps all the way and write docs/apps.md; --ci takes the dozen of CI",
        run: apps::run,
    },
    Verb {
        name: "guest",
        takes: "[--only SUITE]",
        about: "tests on a machine with control groups of version 2 alone, which is booted under QEMU",
        run: guest::run,
    },
    Verb {
        name: "soak",
        takes: "[--deploys N]",
        about: "the kill -9 test with many deploys (200 by default)",
        run: soak::run,
    },
];

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let Some(name) = words.next() else {
        print_usage();
        return ExitCode::SUCCESS;
    };
    let Some(verb) = VERBS.iter().find(|verb| verb.name == name) else {
        if matches!(name.as_str(), "help" | "--help" | "-h") {
            print_usage();
            return ExitCode::SUCCESS;
        }
        eprintln!("error: there is no command `{name}`; `cargo xtask` lists them");
        return ExitCode::from(2);
    };
    let result = Workspace::open().and_then(|workspace| (verb.run)(&workspace, Args::new(words)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<UsageError>() => {
            eprintln!("error: {error}\nusage: cargo xtask {} {}", verb.name, verb.takes);
            ExitCode::from(2)
        }
        // The runner's closing line stays the last one: what failed is already in the table above it.
        Err(error) if error.is::<test::Failed>() => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn print_usage() {
    println!("usage: cargo xtask COMMAND\n");
    for verb in VERBS {
        println!("  {} {}\n      {}", verb.name, verb.takes, verb.about);
    }
}
