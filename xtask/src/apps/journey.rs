//! The way of one sample: made, deployed on a platform of its own, changed and deployed again under load.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::commands::{Surroundings, environment, last_lines, rest};
use super::record::{Measured, Row};
use super::sample::Sample;
use super::{peer, source};
use crate::http;
use crate::platform::Platform;
use crate::stopwatch::Stopwatch;

/// Requests in a second while the change is deployed, and over how many connections: enough to be on the way at any moment, few enough
/// for servers of one process that build beside it.
const RATE: &str = "50";
const CONNECTIONS: &str = "8";
/// How long a deploy may take until it shows.
const PATIENCE: Duration = Duration::from_secs(900);
/// How long the load goes on after the change was seen, so that the old release's end is under load, too.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// What all samples of a run have in common.
pub(super) struct Ground<'a> {
    /// The binary that runs the platform, and the strict client.
    pub berth: &'a Path,
    pub load: &'a Path,
    /// The search path, with the samples' tools in front.
    pub path: OsString,
    /// Downloads that are kept from run to run, for generators.
    pub downloads: &'a Path,
    /// A folder outside of any project, for everything else.
    pub scratch: &'a Path,
    /// Whether the tools' bare commands are timed, too.
    pub peers: bool,
}

/// Two deploys or two runs of the peer take turns: what comes first finds the network's caches colder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    PeerFirst,
    PeerLast,
}

/// Takes `sample` all the way and notes in `row` what was seen, as far as it came.
///
/// # Errors
/// What did not go as it must.
pub(super) fn take(
    ground: &Ground<'_>,
    sample: &Sample,
    files: Option<&Path>,
    order: Order,
    row: &mut Row,
) -> Result<()> {
    let folder = ground.scratch.join(&sample.name);
    std::fs::create_dir_all(&folder)?;
    let log = folder.join("log");
    let commands =
        Surroundings { dir: &folder, log: &log, env: environment(ground.path.clone(), ground.downloads) };
    let made = source::make(sample, files, &folder.join("source"), &commands).context("making it")?;
    if ground.peers && order == Order::PeerFirst {
        bare(ground, sample, &made, &folder, row)?;
    }
    let env = vec![("PATH", ground.path.clone())];
    let platform = Platform::start(ground.berth, &folder.join("platform"), env)?;
    let visit = Visit { platform: &platform, sample, source: &made };
    visit.detect(row)?;
    visit.first(row)?;
    visit.second(ground, row)?;
    platform.down()?;
    if ground.peers && order == Order::PeerLast {
        // The change is in by now, and the peer begins without it.
        let again =
            source::make(sample, files, &folder.join("again"), &commands).context("making it again")?;
        bare(ground, sample, &again, &folder, row)?;
    }
    Ok(())
}

/// Times the peer, with empty caches and once more after the change, in a copy of the source.
fn bare(ground: &Ground<'_>, sample: &Sample, made: &Path, folder: &Path, row: &mut Row) -> Result<()> {
    let copy = folder.join("bare").join(&sample.name);
    super::sample::lay_over(made, &copy)?;
    let log = folder.join("bare.log");
    let env = environment(ground.path.clone(), &folder.join("bare.downloads"));
    let commands = Surroundings { dir: &copy, log: &log, env };
    let seconds = |text| peer::seconds(sample, &copy, text, &commands).context("its bare commands");
    row.measured.bare_cold_s = Some(seconds(sample.edit.before())?);
    source::edit(&copy, &sample.edit)?;
    row.measured.bare_warm_s = Some(seconds(sample.edit.after())?);
    Ok(())
}

/// A sample on its platform.
struct Visit<'a> {
    platform: &'a Platform,
    sample: &'a Sample,
    source: &'a Path,
}

impl Visit<'_> {
    fn detect(&self, row: &mut Row) -> Result<()> {
        let path = self.source.to_string_lossy();
        let said = self.platform.berth(&["deploy", &path, "--dry-run", "--json"]).context("the dry run")?;
        let said: Value = serde_json::from_str(&said).context("what the dry run printed")?;
        row.builder = said.get("builder").and_then(Value::as_str).unwrap_or_default().to_owned();
        let processes = said.get("processes").and_then(Value::as_object).into_iter().flatten();
        row.processes =
            processes.filter_map(|(name, line)| Some(format!("{name}: {}", line.as_str()?))).collect();
        ensure!(!row.processes.is_empty(), "the dry run names no process: {said}");
        ensure!(
            row.builder == self.sample.builder,
            "it was detected as `{}`, not as `{}`: {said}",
            row.builder,
            self.sample.builder
        );
        Ok(())
    }

    fn first(&self, row: &mut Row) -> Result<()> {
        row.measured.cold_s = Some(self.until_seen(self.sample.edit.before()).context("its first deploy")?);
        row.measured.artifact_bytes = Some(on_disk(&self.artifacts())?);
        Ok(())
    }

    fn second(&self, ground: &Ground<'_>, row: &mut Row) -> Result<()> {
        let Measured { artifact_bytes, .. } = row.measured;
        let chunks = self.platform.home().join("chunks");
        let (sent, added) = (written(&chunks)?, artifact_bytes.unwrap_or_default());
        let edit = &self.sample.edit;
        let words = [&self.sample.name, RATE, CONNECTIONS, &self.sample.path, edit.before(), edit.after()];
        let load = self.platform.spawn_load(ground.load, &words)?;
        source::edit(self.source, edit)?;
        let seen = self.until_seen(edit.after()).context("its deploy after the change");
        self.platform.rest(AFTERWARDS);
        let outcome = self.platform.stop_load(load)?;
        row.measured.warm_s = Some(seen?);
        row.measured.sent_bytes = Some(written(&chunks)?.saturating_sub(sent));
        row.measured.added_bytes = Some(on_disk(&self.artifacts())?.saturating_sub(added));
        let number = |key: &str| outcome.get(key).and_then(Value::as_u64);
        (row.measured.requests, row.measured.failed_requests) = (number("sent"), number("failed"));
        let failed = number("failed").context("what the load printed")?;
        ensure!(failed == 0, "{failed} of {:?} requests failed while it was deployed", row.measured.requests);
        ensure!(row.measured.requests > Some(0), "no request was sent while it was deployed");
        Ok(())
    }

    /// Deploys, and gives the seconds until `text` is answered. The deploy must end well, too.
    fn until_seen(&self, text: &str) -> Result<f64> {
        let log = self.platform.dir().join("deploy.log");
        let path = self.source.to_string_lossy();
        let host = format!("{}.localhost", self.sample.name);
        let stopwatch = Stopwatch::start();
        let mut deploy = self.platform.spawn_into(&["deploy", &path], &log)?;
        let mut seen = None;
        loop {
            // Looked at before the page: an answer after the end of the deploy must be the right one.
            let ended = deploy.try_wait()?;
            if seen.is_none() && self.answers(&host, text) {
                seen = Some(stopwatch.seconds());
            }
            match (ended, seen) {
                (Some(status), Some(seconds)) if status.success() => return Ok(seconds),
                (Some(status), _) if !status.success() => bail!("{status}:\n{}", last_lines(&log)),
                (Some(_), _) => {
                    let answer = http::get(self.platform.edge(), &host, &self.sample.path)?;
                    let start: String = answer.body.chars().take(400).collect();
                    bail!("deployed, but the answer is {} without `{text}`: {start}", answer.status);
                }
                (None, _) => {}
            }
            if stopwatch.elapsed() > PATIENCE {
                // Dropping a child leaves it running, and the platform would wait for its release.
                deploy.kill()?;
                deploy.wait()?;
                bail!("not there after {PATIENCE:?}:\n{}", last_lines(&log));
            }
            rest();
        }
    }

    fn answers(&self, host: &str, text: &str) -> bool {
        http::get(self.platform.edge(), host, &self.sample.path)
            .is_ok_and(|answer| answer.status == 200 && answer.body.contains(text))
    }

    /// Where artifacts lie, with what they share.
    fn artifacts(&self) -> PathBuf {
        self.platform.home().join("artifacts")
    }
}

/// Bytes of all files below `folder`.
fn written(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    walk(folder, &mut |metadata| sum += if metadata.is_file() { metadata.size() } else { 0 })?;
    Ok(sum)
}

/// Bytes that everything below `folder` takes on disk, directories too, a file with several names counted once.
fn on_disk(folder: &Path) -> Result<u64> {
    let mut seen = BTreeSet::new();
    let mut sum = 0;
    walk(folder, &mut |metadata| {
        if seen.insert((metadata.dev(), metadata.ino())) {
            // stat(2) counts in units of 512 whatever the file system's own.
            sum += metadata.blocks() * 512;
        }
    })?;
    Ok(sum)
}

fn walk(folder: &Path, see: &mut impl FnMut(&std::fs::Metadata)) -> Result<()> {
    if !folder.try_exists()? {
        return Ok(());
    }
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in
            std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?
        {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                waiting.push(entry.path());
            }
            see(&metadata);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_name_takes_no_space() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("a"), vec![1; 8192]).unwrap();
        let alone = on_disk(temp.path()).unwrap();
        std::fs::hard_link(temp.path().join("a"), temp.path().join("b")).unwrap();
        assert_eq!(on_disk(temp.path()).unwrap(), alone);
        assert_eq!(on_disk(&temp.path().join("nowhere")).unwrap(), 0);
        assert_eq!(written(temp.path()).unwrap(), 2 * 8192);
    }
}
