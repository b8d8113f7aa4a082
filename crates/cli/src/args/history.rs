//! `logs`, `why` and `timeline`.

use berth_spec::ProcessName;
use clap::Args;

use super::OfApp;

/// `berth logs`
#[derive(Debug, Clone, Args)]
pub struct LogsArgs {
    /// Wait for more lines, until Ctrl-C
    #[arg(long, short)]
    pub follow: bool,
    /// How many of the newest lines to begin with
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 100)]
    pub lines: u32,
    /// Only this process: `web`
    #[arg(long, short, value_name = "NAME")]
    pub process: Option<ProcessName>,
    /// Only this instance: `web.7`
    #[arg(long, short, value_name = "NAME")]
    pub instance: Option<String>,
    /// Only lines after this cursor, as --json gives it
    #[arg(long, value_name = "CURSOR")]
    pub after: Option<String>,
    /// Whose log.
    #[command(flatten)]
    pub of: OfApp,
}

/// `berth why`
#[derive(Debug, Clone, Args)]
pub struct WhyArgs {
    /// `v42`, `web.7`, `web`, `scale`; nothing explains the app as it is
    pub subject: Option<String>,
    /// Whose.
    #[command(flatten)]
    pub of: OfApp,
}

/// `berth timeline`
#[derive(Debug, Clone, Args)]
pub struct TimelineArgs {
    /// The whole platform instead of one app
    #[arg(long, conflicts_with = "app")]
    pub all: bool,
    /// Only what came after this position
    #[arg(long, value_name = "POSITION")]
    pub after: Option<u64>,
    /// How many entries
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub count: u32,
    /// Whose.
    #[command(flatten)]
    pub of: OfApp,
}
