//! `run`.

use berth_spec::{EnvName, ReleaseNumber};
use clap::Args;

use super::OfApp;

/// `berth run`
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// A program and its arguments; a single one is a line, which `sh -c` runs where it needs a shell
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = false, value_name = "COMMAND")]
    pub command: Vec<String>,
    /// The release to run it in, `v42` [default: the one that serves]
    #[arg(long, value_name = "RELEASE")]
    pub release: Option<ReleaseNumber>,
    /// A variable that wins over the app's own; its value is kept nowhere
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = variable)]
    pub env: Vec<(EnvName, String)>,
    /// Return at once; it goes on by itself, and what it writes goes to the app's log
    #[arg(long)]
    pub detach: bool,
    /// How long it may run: `90s`, `10m`, `2h` [default: 1d, which is the most]
    #[arg(long, value_name = "SPAN")]
    pub limit: Option<berth_spec::Millis>,
    /// Whose.
    #[command(flatten)]
    pub of: OfApp,
}

/// `exec`.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// A program and its arguments; a single one is a line, which `sh -c` runs where it needs a shell
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = false, value_name = "COMMAND")]
    pub command: Vec<String>,
    /// The instance to run it in, `web.1` [default: the first that runs, of web before others]
    #[arg(long, short, value_name = "INSTANCE")]
    pub instance: Option<String>,
    /// A variable that wins over the app's own; its value is kept nowhere
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = variable)]
    pub env: Vec<(EnvName, String)>,
    /// Whose.
    #[command(flatten)]
    pub of: OfApp,
}

fn variable(text: &str) -> Result<(EnvName, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    let name = name.parse().map_err(|problem| format!("{problem}"))?;
    Ok((name, value.to_owned()))
}
