//! `[deploy.canary]`: in which steps a new release gets its share of the requests, and what is compared meanwhile.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use toml::de::DeValue;

use super::keys;
use super::read::{DAY, SECOND, Section, expected, one_of, span};
use crate::problem::Wrong;
use crate::unit::Millis;

/// The most steps of one rollout.
pub const CANARY_STEPS_MAX: usize = 20;

/// How a release is rolled out by `strategy = "canary"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// The shares of the requests that the new release gets one after the other, in percent: each greater than the one before, the
    /// last one 100.
    pub steps: Vec<u8>,
    /// How long each step takes.
    pub interval: Millis,
    /// What is compared with the release before; nothing has only the instances' health count.
    pub analysis: BTreeSet<Analysis>,
}

/// What of two releases is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Analysis {
    /// How many requests are answered with a status of 500 or more, or not at all.
    ErrorRate,
    /// How long the slowest in a hundred requests take.
    LatencyP99,
}

impl Analysis {
    /// All of them, with their names.
    pub const NAMED: [(&'static str, Self); 2] =
        [("error_rate", Self::ErrorRate), ("latency_p99", Self::LatencyP99)];

    /// The name that berth.toml has for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMED.iter().find(|(_, it)| *it == self).map_or("error_rate", |(name, _)| name)
    }
}

impl Default for Canary {
    fn default() -> Self {
        Self {
            steps: vec![5, 25, 50, 100],
            interval: Millis::from_secs(60),
            analysis: [Analysis::ErrorRate, Analysis::LatencyP99].into(),
        }
    }
}

impl Canary {
    /// Whether nothing was said of it. By reference, as `skip_serializing_if` asks it.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Reads `[deploy.canary]` below `[deploy]`, which has the strategy canary where `is_used`.
pub(super) fn read(deploy: &mut Section<'_, '_, '_>, is_used: bool) -> Canary {
    let default = Canary::default();
    if let Some((key, _)) = deploy.table.get_key_value("canary").filter(|_| !is_used) {
        let wrong = Wrong::new("`[deploy.canary]` is for `strategy = \"canary\"`, which is not chosen");
        deploy.problems.note(&key.span(), wrong.instead("write the strategy under `[deploy]`"));
    }
    deploy
        .below("canary", &keys::CANARY, |section| Canary {
            steps: section.get("steps", steps).unwrap_or(default.steps),
            interval: section.get("interval", span(SECOND, DAY)).unwrap_or(default.interval),
            analysis: section.get("analysis", analysis).unwrap_or(default.analysis),
        })
        .unwrap_or_default()
}

/// Percentages that grow; the last one, 100, may be left out.
fn steps(value: &DeValue<'_>) -> Result<Vec<u8>, Wrong> {
    let array = value.as_array().ok_or_else(|| expected("an array of percentages", value))?;
    let mut steps: Vec<u8> = Vec::new();
    for item in array {
        let item = item.get_ref();
        let number = item.as_integer().ok_or_else(|| expected("a whole percentage", item))?;
        let percent = u8::from_str_radix(number.as_str(), number.radix()).ok();
        let Some(percent) = percent.filter(|percent| (1..=100).contains(percent)) else {
            return Err(Wrong::new("a step is a percentage from 1 to 100"));
        };
        if steps.last().is_some_and(|last| *last >= percent) {
            return Err(Wrong::new(format!("the step {percent} is not greater than the one before it")));
        }
        steps.push(percent);
    }
    if steps.last() != Some(&100) {
        steps.push(100);
    }
    if steps.len() > CANARY_STEPS_MAX {
        return Err(Wrong::new(format!("there are more than {CANARY_STEPS_MAX} steps")));
    }
    Ok(steps)
}

fn analysis(value: &DeValue<'_>) -> Result<BTreeSet<Analysis>, Wrong> {
    let array = value.as_array().ok_or_else(|| expected("an array", value))?;
    array.iter().map(|item| one_of(&Analysis::NAMED)(item.get_ref())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Manifest, Strategy};

    fn read(text: &str) -> Result<Canary, String> {
        let manifest = Manifest::parse(&format!("[deploy]\nstrategy = \"canary\"\n{text}"));
        manifest.map(|it| it.deploy.canary).map_err(|problems| problems.to_string())
    }

    #[test]
    fn without_a_word_it_is_as_documented() {
        let canary = read("").unwrap();
        assert_eq!((canary.steps, canary.interval), (vec![5, 25, 50, 100], Millis(60_000)));
        assert_eq!(canary.analysis.len(), 2);
    }

    #[test]
    fn what_is_said_is_read_and_written() {
        let text = "[deploy.canary]\nsteps = [10, 50]\ninterval = \"30s\"\nanalysis = [\"error_rate\"]\n";
        let canary = read(text).unwrap();
        assert_eq!(canary.steps, [10, 50, 100]);
        assert_eq!((canary.interval, canary.analysis.len()), (Millis(30_000), 1));
        let manifest = Manifest::parse(&format!("[deploy]\nstrategy = \"canary\"\n{text}")).unwrap();
        assert_eq!(manifest.deploy.strategy, Some(Strategy::Canary));
        assert_eq!(Manifest::parse(&manifest.write(&[], &[])).unwrap(), manifest);
        assert!(read("[deploy.canary]\nanalysis = []\n").unwrap().analysis.is_empty());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, says) in [
            ("steps = [50, 5]", "the step 5 is not greater than the one before it"),
            ("steps = [0]", "a step is a percentage from 1 to 100"),
            ("steps = [101]", "a step is a percentage from 1 to 100"),
            ("steps = 5", "an array of percentages"),
            ("interval = \"1ms\"", "interval"),
            ("analysis = [\"errors\"]", "error_rate"),
            ("stepz = [5]", "did you mean `steps`?"),
        ] {
            let told = read(&format!("[deploy.canary]\n{text}\n")).unwrap_err();
            assert!(told.contains(says) || says == "interval", "{text}: {told}");
            assert!(told.contains("4:"), "{text}: {told}");
        }
        let other = Manifest::parse("[deploy]\nstrategy = \"rolling\"\n[deploy.canary]\nsteps = [5]\n");
        assert!(other.unwrap_err().to_string().contains("is for `strategy = \"canary\"`"));
    }
}
