//! The container runtime beside runc, bubblewrap and Docker: starts, wakes, memory, many instances, a pull; and the way into their networks.

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::measured::Measured;
use super::statistics::Samples;
use super::{Context, network, pull, wake};
use crate::program::Program;

/// Starts of each launcher, and instances that stand at once.
const STARTS: (u32, u32) = (200, 500);
const QUICK: (u32, u32) = (100, 100);

pub(super) fn run(context: &Context<'_>) -> Result<Measured> {
    let mut measured = Measured::default();
    network::latency(context, &mut measured)?;
    let (starts, many) = if context.quick { QUICK } else { STARTS };
    let scratch = std::env::temp_dir().join(format!("berth-bench-runtime-{}", std::process::id()));
    std::fs::create_dir_all(&scratch)?;
    let (program, peers) = (context.workspace.target_dir()?.join("release/examples/measure"), peers(context));
    let text = Program::new(program)
        .args(["instances", &starts.to_string(), &many.to_string()])
        .arg(&scratch)
        .args(&peers)
        .output()?;
    std::fs::remove_dir_all(&scratch).with_context(|| format!("cannot remove {}", scratch.display()))?;
    let outcome: Value = serde_json::from_str(text.trim()).context("what the measurement printed")?;
    starts_of(&outcome, &peers, &mut measured)?;
    standing(&outcome["many"], &mut measured)?;
    let level = outcome["level"].as_str().unwrap_or_default();
    measured.notes.push(format!(
        "isolation `{level}`; a start is from its beginning to the first byte of the first answer of busybox's httpd, in a network of its own \
         without a way out; `start_with_names` has the way to other apps beside that, and `start_with_a_way_out` a pair of interfaces and the packet \
         filter as well"
    ));
    measured.notes.push(
        "every launcher starts one in turn; runc has no user namespace and no seccomp, bwrap no limits and no seccomp, docker is asked by its API and has the network \
         `none`: less to do than ours"
            .to_owned(),
    );
    measured.notes.push(
        "instance_mb is what the machine has less of for each instance that stands, the app, its init, its shim and the kernel's part of \
         it all"
            .to_owned(),
    );
    let berth = wake::program(context, &mut measured)?;
    pull::pulls(context, &berth, &mut measured)?;
    Ok(measured)
}

/// The names of the peers that are there, as the measurement knows them.
fn peers(context: &Context<'_>) -> Vec<&'static str> {
    let named = context.peers.iter().filter_map(|tool| match tool.program {
        "dockerd" => Some("docker"),
        name @ ("runc" | "bwrap") => Some(name),
        _ => None,
    });
    named.collect()
}

fn starts_of(outcome: &Value, peers: &[&str], measured: &mut Measured) -> Result<()> {
    let kinds = [
        ("start", "start_ms"),
        ("start_with_names", "start_with_names_ms"),
        ("start_with_a_way_out", "start_with_a_way_out_ms"),
    ];
    for (stem, key) in kinds {
        let ours = samples(&outcome[key])?;
        for percent in [50, 99] {
            measured.percentile(stem, percent, "ms", &ours);
        }
    }
    for name in peers {
        let theirs = samples(&outcome["peers"][name])?;
        for percent in [50, 99] {
            let figure = measured.figures.get_mut(&format!("start_p{percent}_ms"));
            if let (Some(figure), Some(value)) = (figure, theirs.percentile(percent)) {
                figure.peer(name, value);
            }
        }
    }
    let wakes = samples(&outcome["wake_ms"])?;
    for percent in [50, 99] {
        measured.percentile("freeze_thaw", percent, "ms", &wakes);
    }
    Ok(())
}

fn standing(many: &Value, measured: &mut Measured) -> Result<()> {
    let number = |key: &str| many[key].as_f64().with_context(|| key.to_owned());
    let count = many["count"].as_u64().context("count")?;
    measured.figure("instances_per_s", number("count")? / number("seconds")?, "instances/s", count);
    measured.figure("instance_mb", number("taken_kb")? / 1_024.0 / number("count")?, "MiB", count);
    measured.figure("many_idle_cpu_pct", number("idle_cpu_pct")?, "% of a core", count);
    Ok(())
}

fn samples(list: &Value) -> Result<Samples> {
    let list = list.as_array().context("a list of times")?;
    Ok(list.iter().filter_map(Value::as_f64).collect())
}
