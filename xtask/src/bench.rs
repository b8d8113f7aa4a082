//! `cargo xtask bench NAME`: measure, record as JSON, and write `docs/benchmarks.md` from all records.
//!
//! A bench is a function from a [`Context`] to [`Measured`]; the frame adds where and when, names the peers that are missing, and
//! writes. To add one: a file beside this one, a row in [`BENCHES`], its budgets in `bench/budget.rs`.

mod apps;
mod apps10k;
mod budget;
mod build_time;
mod deploy;
mod edge;
mod garbage;
mod measured;
mod network;
mod page;
mod process_usage;
mod pull;
mod record;
mod rollouts;
mod runtime;
mod statistics;
mod wake;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use self::measured::Measured;
use self::record::Record;
use crate::args::{Args, UsageError};
use crate::machine;
use crate::provision::{self, Tool};
use crate::stopwatch;
use crate::workspace::Workspace;

/// One thing that can be measured.
struct Bench {
    name: &'static str,
    about: &'static str,
    /// Programs that are measured beside ours in the same run. Installed where we may; a missing one is named in the record.
    peers: &'static [Tool],
    run: fn(&Context<'_>) -> Result<Measured>,
}

const BENCHES: &[Bench] = &[
    Bench {
        name: "apps",
        about: "sample apps from source to an answer, cold and after a one-line change, beside their bare commands; garbage",
        peers: &[],
        run: apps::run,
    },
    Bench {
        name: "apps10k",
        about: "a platform of ten thousand stopped apps: its start, its lists, what it takes",
        peers: &[],
        run: apps10k::run,
    },
    Bench {
        name: "build",
        about: "how long cargo takes to build and test the workspace, from nothing and after a touch",
        peers: &[],
        run: build_time::run,
    },
    Bench {
        name: "deploy",
        about: "deploys, rollbacks, the idle platform, the journal, failed requests",
        peers: &[],
        run: deploy::run,
    },
    Bench {
        name: "edge",
        about: "requests of all kinds through edge, beside nginx, HAProxy, Caddy and Envoy; idle connections, many routes",
        peers: PROXIES,
        run: edge::run,
    },
    Bench {
        name: "network",
        about: "a request into an instance's own network, beside the machine's loopback",
        peers: &[],
        run: network::run,
    },
    Bench {
        name: "pull",
        about: "an image of 200 MB from its registry to the first answer, beside Docker",
        peers: pull::PEERS,
        run: pull::run,
    },
    Bench {
        name: "rollouts",
        about: "simulated rollouts by canary: good ones that are taken back, bad ones that go through",
        peers: &[],
        run: rollouts::run,
    },
    Bench {
        name: "runtime",
        about: "starts of isolated instances, wakes, memory, many at once, a cold pull, beside runc, bubblewrap and Docker",
        peers: LAUNCHERS,
        run: runtime::run,
    },
    Bench {
        name: "wake",
        about: "how long a request waits for an app that sleeps, from frozen and from stopped",
        peers: &[],
        run: wake::run,
    },
];

const LAUNCHERS: &[Tool] = &[
    Tool { program: "busybox", package: "busybox-static", for_what: "is the app that is started" },
    Tool { program: "runc", package: "runc", for_what: "instances are started beside it" },
    Tool { program: "bwrap", package: "bubblewrap", for_what: "instances are started beside it" },
    Tool { program: "dockerd", package: "docker.io", for_what: "instances are started beside it" },
    Tool { program: "nft", package: "nftables", for_what: "lets instances out by a policy" },
    Tool { program: "docker-registry", package: "docker-registry", for_what: "is pulled from" },
    Tool { program: "skopeo", package: "skopeo", for_what: "pushes the image that is pulled" },
];

const PROXIES: &[Tool] = &[
    Tool { program: "nginx", package: "nginx", for_what: "edge is measured beside it" },
    Tool { program: "haproxy", package: "haproxy", for_what: "edge is measured beside it" },
    Tool { program: "caddy", package: "caddy", for_what: "edge is measured beside it" },
    Tool { program: "h2load", package: "nghttp2-client", for_what: "it sends the requests of HTTP/2" },
    Tool { program: "wrk", package: "wrk", for_what: "it sends the requests that edge is measured by" },
];

/// What a bench is given.
struct Context<'a> {
    workspace: &'a Workspace,
    /// End within five minutes, building apart.
    quick: bool,
    /// The peers that are installed, in the order in which this run takes them.
    peers: Vec<Tool>,
}

const FOLDER: &str = "docs/benchmarks";
const PAGE: &str = "docs/benchmarks.md";

pub(crate) fn run(workspace: &Workspace, mut args: Args) -> Result<()> {
    let quick = args.flag("--quick");
    let json = args.option("--json")?.map(PathBuf::from);
    let name = args.word();
    args.finish()?;
    let Some(name) = name else {
        for bench in BENCHES {
            println!("{:<10} {}", bench.name, bench.about);
        }
        return Ok(());
    };
    let Some(bench) = BENCHES.iter().find(|bench| bench.name == name) else {
        return Err(
            UsageError::new(format!("there is no bench `{name}`; `cargo xtask bench` lists them")).into()
        );
    };
    let absent = provision::provide(bench.peers);
    let context = Context { workspace, quick, peers: rotated(bench.peers, &absent) };
    let load = machine::load()?;
    let mut measured = (bench.run)(&context)?;
    measured.notes.extend(machine::shared(load));
    let record = record_of(workspace, bench, quick, measured, &absent)?;
    let text = record.to_json()?;
    println!("{text}");
    match json {
        Some(file) => std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display())),
        None => {
            let file = workspace.root().join(FOLDER).join(format!("{name}.json"));
            std::fs::create_dir_all(workspace.root().join(FOLDER))?;
            std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
            write_page(workspace)
        }
    }
}

fn record_of(
    workspace: &Workspace,
    bench: &Bench,
    quick: bool,
    measured: Measured,
    absent: &[Tool],
) -> Result<Record> {
    let mut names: Vec<String> = absent.iter().map(|tool| tool.program.to_owned()).collect();
    names.extend(measured.absent);
    Ok(Record {
        name: bench.name.to_owned(),
        date: stopwatch::today(),
        commit: machine::commit(workspace)?,
        machine: machine::describe(&workspace.target_dir()?)?,
        quick,
        figures: measured.figures,
        absent: names,
        notes: measured.notes,
    })
}

/// The installed peers, beginning with another one in each process: what runs first finds a colder machine.
fn rotated(peers: &[Tool], absent: &[Tool]) -> Vec<Tool> {
    let mut present: Vec<Tool> = peers.iter().filter(|tool| !absent.contains(tool)).copied().collect();
    if !present.is_empty() {
        let turn = usize::try_from(std::process::id()).unwrap_or(0) % present.len();
        present.rotate_left(turn);
    }
    present
}

/// Writes the page anew from every record.
fn write_page(workspace: &Workspace) -> Result<()> {
    let folder = workspace.root().join(FOLDER);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    let records = files.iter().map(|file| read_record(file)).collect::<Result<Vec<_>>>()?;
    if records.is_empty() {
        bail!("there are no records in {FOLDER}");
    }
    std::fs::write(workspace.root().join(PAGE), page::render(&records))?;
    println!("wrote {PAGE}");
    Ok(())
}

fn read_record(file: &Path) -> Result<Record> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no record", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Tool = Tool { program: "a", package: "a", for_what: "" };
    const B: Tool = Tool { program: "b", package: "b", for_what: "" };

    #[test]
    fn peers_rotate_and_absent_ones_are_left_out() {
        let order = rotated(&[A, B], &[]);
        assert!(order == [A, B] || order == [B, A]);
        assert_eq!(rotated(&[A, B], &[A]), [B]);
        assert!(rotated(&[A], &[A]).is_empty());
    }

    #[test]
    fn every_bench_has_a_name_of_its_own() {
        let names: Vec<&str> = BENCHES.iter().map(|bench| bench.name).collect();
        for (at, name) in names.iter().enumerate() {
            assert!(!names[..at].contains(name));
        }
    }
}
