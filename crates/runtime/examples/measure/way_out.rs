//! What a way out costs that is a program's: starts with and without it in turn, and the memory of what stands beside each instance.

use std::collections::BTreeMap;
use std::path::Path;

use berth_process::procfs;
use berth_runtime::{Runtime as _, dial_folder};
use berth_spec::manifest::Egress;
use serde_json::json;

use crate::Outcome;
use crate::instances::{Bench, first_byte};

/// The processes whose memory is told, as the kernel calls them.
const NAMES: [&str; 3] = ["berth-shim", "berth-way-out", "slirp4netns"];

pub(crate) async fn measure(home: &Path, starts: usize, many: usize) -> Outcome<()> {
    let bench = Bench::new(crate::open(home)?, dial_folder(&home.join("run")));
    if let Some(why) = bench.runtime.capabilities().no_egress {
        return Err(why.into());
    }
    let (mut without, mut with) = (Vec::new(), Vec::new());
    // The first of each finds cold caches and is not counted.
    for round in 0..=starts {
        without.extend(Some(bench.start(Egress::Internal).await?).filter(|_| round > 0));
        with.extend(Some(bench.start(Egress::Internet).await?).filter(|_| round > 0));
    }
    let mut standing = Vec::new();
    for number in 0..many {
        let observed = bench.runtime.start(Bench::spec(number, Egress::Internet)?).await?;
        first_byte(&bench.clock, || bench.connect(&observed))?;
        standing.push(observed.id);
    }
    let memory = memory()?;
    for id in standing {
        bench.runtime.kill(&id).await?;
        bench.runtime.remove(&id).await?;
    }
    println!(
        "{}",
        json!({ "start_with_names_ms": without, "start_with_a_way_out_ms": with, "pss_kb": memory })
    );
    Ok(())
}

/// The share in memory of each of these processes that we may look at, in KiB.
fn memory() -> Outcome<BTreeMap<String, Vec<u64>>> {
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for pid in procfs::pids()? {
        let text = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let (comm, rollup) = (text("comm"), text("smaps_rollup"));
        let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB"));
        if let (Some(pss), true) = (pss, NAMES.contains(&comm.trim())) {
            found.entry(comm.trim().to_owned()).or_default().push(pss.trim().parse()?);
        }
    }
    Ok(found)
}
