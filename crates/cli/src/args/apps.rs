//! `apps`, `scale` and `destroy`.

use berth_contract::AppState;
use berth_spec::ProcessName;
use clap::{Args, ValueEnum};

use super::OfApp;
use super::spelling::app_text;

/// `berth apps`
#[derive(Debug, Clone, Args)]
pub struct AppsArgs {
    /// Only apps whose name holds this text
    #[arg(value_name = "TEXT", value_parser = app_text)]
    pub text: Option<String>,
    /// Only apps that are so: empty, running, degraded, down, stopped or destroying
    #[arg(long, value_name = "STATE", value_parser = app_state)]
    pub state: Option<AppState>,
    /// In which order: name, state (those in trouble first) or release (the most releases first)
    #[arg(long, value_enum, value_name = "KEY", default_value_t, hide_possible_values = true)]
    pub sort: AppOrder,
    /// How many to list at most
    #[arg(long, short = 'n', value_name = "COUNT")]
    pub count: Option<usize>,
}

/// The order of a list of apps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum AppOrder {
    /// By name.
    #[default]
    Name,
    /// Those in trouble first.
    State,
    /// Those with the most releases first.
    Release,
}

fn app_state(text: &str) -> Result<AppState, String> {
    let all = AppState::ALL;
    let found = all.iter().find(|state| state.as_str() == text);
    found.copied().ok_or_else(|| {
        let all: Vec<&str> = all.iter().map(|state| state.as_str()).collect();
        format!("an app is one of {}", all.join(", "))
    })
}

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
    /// Remove its volumes too; they stay otherwise
    #[arg(long)]
    pub volumes: bool,
}

fn process_count(text: &str) -> Result<(ProcessName, u32), String> {
    let (process, count) = text.split_once('=').ok_or("expected PROCESS=COUNT, as in web=2")?;
    let process = process.parse().map_err(|problem| format!("{problem}"))?;
    let count = count.parse().map_err(|_problem| format!("{count:?} is not a whole number"))?;
    Ok((process, count))
}
