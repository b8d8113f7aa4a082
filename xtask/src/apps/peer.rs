//! The peer of a sample: what a person would type to build and start it without a platform, timed to the first right answer.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::commands::{Running, Surroundings, last_lines, rest};
use super::sample::{Sample, words};
use crate::http;
use crate::platform::free_address;
use crate::stopwatch::Stopwatch;

/// How long a started peer may take to answer.
const PATIENCE: Duration = Duration::from_secs(120);

/// Builds and starts the sample in `source` and gives the seconds until `text` was answered; then it is ended.
///
/// # Errors
/// A command fails, or the right answer does not come.
pub(super) fn seconds(
    sample: &Sample,
    source: &Path,
    text: &str,
    surroundings: &Surroundings<'_>,
) -> Result<f64> {
    let addr = free_address()?;
    let port = addr.port().to_string();
    let values = [("name", sample.name.as_str()), ("port", port.as_str())];
    let mut here = Surroundings { dir: source, ..surroundings.clone() };
    here.env.push(("PORT".into(), port.as_str().into()));
    here.env.extend(sample.bare.env.iter().map(|(name, value)| (name.into(), value.into())));
    let stopwatch = Stopwatch::start();
    for command in &sample.bare.build {
        here.run(&words(command, &values))?;
    }
    let mut running = here.start(&words(&sample.bare.start, &values))?;
    let started = Stopwatch::start();
    // `localhost`, because development servers refuse hosts that they do not know.
    while !http::get(addr, &format!("localhost:{port}"), &sample.path)
        .is_ok_and(|answer| answer.status == 200 && answer.body.contains(text))
    {
        check(&mut running, started, surroundings.log)?;
        rest();
    }
    Ok(stopwatch.seconds())
}

fn check(running: &mut Running, started: Stopwatch, log: &Path) -> Result<()> {
    if let Some(status) = running.child.try_wait()? {
        bail!("the bare command ended with {status}:\n{}", last_lines(log));
    }
    ensure!(started.elapsed() < PATIENCE, "the bare command does not answer:\n{}", last_lines(log));
    Ok(())
}
