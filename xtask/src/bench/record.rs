//! The record of one bench as it stands in `docs/benchmarks/NAME.json`.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// One run of one bench.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub name: String,
    /// UTC, `2026-01-31`.
    pub date: String,
    /// The commit that was measured, with `+` when the checkout had changes.
    pub commit: String,
    /// Processor, cores, memory, kernel, file system, compiler.
    pub machine: String,
    /// Measured with fewer repetitions.
    #[serde(default)]
    pub quick: bool,
    pub figures: BTreeMap<String, Figure>,
    /// What would have been measured too, had it been there.
    #[serde(default)]
    pub absent: Vec<String>,
    /// What a reader of the figures should know.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// One number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Figure {
    pub value: f64,
    pub unit: String,
    /// How many measurements it stands on.
    pub n: u64,
    /// The same measured of others in the same run, by name and version.
    #[serde(default)]
    pub peer: BTreeMap<String, f64>,
}

impl Record {
    pub(super) fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}
