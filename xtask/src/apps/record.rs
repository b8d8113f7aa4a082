//! What came of the samples, as it stands in `docs/apps.json`: one row for each, each with its day and commit.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// All rows, by the name of the sample.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Where the newest rows were made.
    pub machine: String,
    pub rows: BTreeMap<String, Row>,
}

/// One sample, as it was last tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub what: String,
    /// UTC, `2026-01-31`.
    pub date: String,
    pub commit: String,
    /// What the platform said the source is; empty when it did not come that far.
    pub builder: String,
    /// What runs, by process.
    #[serde(default)]
    pub processes: Vec<String>,
    /// Where it stopped, when it did.
    #[serde(default)]
    pub problem: Option<String>,
    #[serde(default)]
    pub measured: Measured,
    #[serde(default)]
    pub note: String,
}

/// The figures of a sample, as far as it came.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Seconds from `berth deploy` to the first right answer through edge: the first deploy, with empty caches.
    pub cold_s: Option<f64>,
    /// The same after the one-line change, under load.
    pub warm_s: Option<f64>,
    /// The tool's bare commands, to the first right answer: with empty caches, and once more after the change.
    pub bare_cold_s: Option<f64>,
    pub bare_warm_s: Option<f64>,
    /// Bytes that were sent for the one-line change.
    pub sent_bytes: Option<u64>,
    /// Bytes on disk of the first artifact, with what it shares.
    pub artifact_bytes: Option<u64>,
    /// Bytes on disk that the second added.
    pub added_bytes: Option<u64>,
    /// Requests sent while the change was deployed, and how many of them failed.
    pub requests: Option<u64>,
    pub failed_requests: Option<u64>,
}

impl Record {
    /// Reads the record; without a file it is empty.
    pub(super) fn read(file: &Path) -> Result<Self> {
        if !file.try_exists()? {
            return Ok(Self::default());
        }
        let text = std::fs::read_to_string(file)?;
        serde_json::from_str(&text).with_context(|| format!("{} is no record", file.display()))
    }

    pub(super) fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }
}
