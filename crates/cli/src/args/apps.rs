//! `scale` and `destroy`.

use berth_spec::ProcessName;
use clap::Args;

use super::OfApp;

/// `berth scale`
#[derive(Debug, Clone, Args)]
pub struct ScaleArgs {
    /// `web=2 worker=1`; nothing shows what is wanted now
    #[arg(value_name = "PROCESS=COUNT", value_parser = process_count)]
    pub counts: Vec<(ProcessName, u32)>,
    /// Whose processes.
    #[command(flatten)]
    pub of: OfApp,
}

/// `berth destroy`
#[derive(Debug, Clone, Args)]
pub struct DestroyArgs {
    /// The app.
    #[command(flatten)]
    pub of: OfApp,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
}

fn process_count(text: &str) -> Result<(ProcessName, u32), String> {
    let (process, count) = text.split_once('=').ok_or("expected PROCESS=COUNT, as in web=2")?;
    let process = process.parse().map_err(|problem| format!("{problem}"))?;
    let count = count.parse().map_err(|_problem| format!("{count:?} is not a whole number"))?;
    Ok((process, count))
}
