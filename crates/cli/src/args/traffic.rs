//! `traffic`, `promote` and `abort`.

use std::str::FromStr;

use berth_spec::ReleaseNumber;
use clap::{Args, Subcommand};

use super::{OfApp, Waiting};

/// `berth traffic`
#[derive(Debug, Clone, Args)]
pub struct TrafficArgs {
    /// What to do; nothing shows how requests are shared.
    #[command(subcommand)]
    pub action: Option<TrafficAction>,
    /// Whose requests.
    #[command(flatten)]
    pub of: OfApp,
}

/// What to do with the shares.
#[derive(Debug, Clone, Subcommand)]
pub enum TrafficAction {
    /// Show how requests are shared, and what was seen of the releases
    Show(OfApp),
    /// Give a release so many percent of the requests, until it is promoted, aborted or set anew
    Set {
        /// The release and its share, `v43=10`
        #[arg(value_name = "RELEASE=PERCENT")]
        share: ShareWish,
        /// Whose.
        #[command(flatten)]
        of: OfApp,
    },
}

/// `v43=10`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareWish {
    /// The release.
    pub release: ReleaseNumber,
    /// Its share.
    pub percent: u8,
}

impl FromStr for ShareWish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || "write it like v43=10, with a share from 0 to 100".to_owned();
        let (release, percent) = text.split_once('=').ok_or_else(wanted)?;
        let percent = percent.strip_suffix('%').unwrap_or(percent);
        let release = release.parse().ok().ok_or_else(wanted)?;
        let percent = percent.parse().ok().filter(|percent| *percent <= 100).ok_or_else(wanted)?;
        Ok(Self { release, percent })
    }
}

/// `berth promote`
#[derive(Debug, Clone, Args)]
pub struct PromoteArgs {
    /// Whose release.
    #[command(flatten)]
    pub of: OfApp,
    /// Whether to follow it.
    #[command(flatten)]
    pub waiting: Waiting,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_release_and_a_percentage() {
        let share = |text: &str| text.parse::<ShareWish>().ok().map(|it| (it.release.0, it.percent));
        assert_eq!(
            [share("v43=10"), share("43=0"), share("v1=100%")],
            [Some((43, 10)), Some((43, 0)), Some((1, 100))]
        );
        for wrong in ["", "v43", "v43=", "v43=101", "v43=-1", "v0=1", "x=1", "=1"] {
            assert_eq!(share(wrong), None, "{wrong}");
        }
    }
}
