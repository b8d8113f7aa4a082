//! `maintenance`, `pause` and `resume`.

use clap::{Args, ValueEnum};

use super::OfApp;

/// `berth maintenance`
#[derive(Debug, Clone, Args)]
pub struct MaintenanceArgs {
    /// Nothing shows how it is
    pub switch: Option<Switch>,
    /// Whose.
    #[command(flatten)]
    pub of: OfApp,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Requests are answered with a page that says so
    On,
    /// Requests go to the app again
    Off,
}
