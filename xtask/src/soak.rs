//! `cargo xtask soak`: the test that kills everything during deploys, for longer than CI has time.

use anyhow::{Result, bail};

use crate::args::{Args, UsageError};
use crate::provision;
use crate::runner::{Selection, run_tests};
use crate::workspace::Workspace;

/// Part of the name of the test, which reads the number of deploys from `BERTH_SOAK_DEPLOYS`.
const TEST: &str = "soak";
const DEPLOYS: u32 = 200;

pub(crate) fn run(workspace: &Workspace, mut args: Args) -> Result<()> {
    let deploys = match args.option("--deploys")? {
        None => DEPLOYS,
        Some(text) => {
            text.parse().map_err(|_error| UsageError::new(format!("`{text}` is no number of deploys")))?
        }
    };
    args.finish()?;
    provision::provide(provision::FOR_TESTS);
    let selection = Selection {
        package: Some("berth-acceptance"),
        name: Some(TEST),
        profile: Some("soak"),
        ..Selection::default()
    };
    if !run_tests(workspace, &selection, &[("BERTH_SOAK_DEPLOYS", &deploys.to_string())])?.passed {
        bail!("the platform did not come through {deploys} deploys");
    }
    Ok(())
}
