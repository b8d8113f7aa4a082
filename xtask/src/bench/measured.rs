//! What a bench hands back.

use std::collections::BTreeMap;

use super::record::Figure;
use super::statistics::Samples;

/// Figures by their key; a key carries its unit and, for a percentile, which one: `rollback_p99_ms`.
#[derive(Debug, Default)]
pub(super) struct Measured {
    pub figures: BTreeMap<String, Figure>,
    pub absent: Vec<String>,
    pub notes: Vec<String>,
}

impl Measured {
    /// One number that stands on `n` measurements.
    pub(super) fn figure(&mut self, key: &str, value: f64, unit: &str, n: u64) -> &mut Figure {
        let figure = Figure { value: rounded(value), unit: unit.to_owned(), n, peer: BTreeMap::new() };
        self.figures.insert(key.to_owned(), figure);
        self.figures.get_mut(key).expect("inserted just now")
    }

    /// The `percent`th percentile of `samples` as `<stem>_p<percent>_<unit>`, or the maximum as `<stem>_max_<unit>` where there are
    /// too few samples for it. Without samples there is no figure, and a note says so.
    pub(super) fn percentile(&mut self, stem: &str, percent: u32, unit: &str, samples: &Samples) {
        let n = u64::try_from(samples.len()).unwrap_or(u64::MAX);
        match (samples.percentile(percent), samples.maximum()) {
            (Some(value), _) => {
                self.figure(&format!("{stem}_p{percent}_{unit}"), value, unit, n);
            }
            (None, Some(value)) => {
                self.figure(&format!("{stem}_max_{unit}"), value, unit, n);
                self.notes
                    .push(format!("{stem}: {n} samples are too few for a p{percent}; the maximum is given"));
            }
            (None, None) => self.notes.push(format!("{stem}: nothing was measured")),
        }
    }
}

impl Figure {
    /// The same figure of a peer.
    pub(super) fn peer(&mut self, name: &str, value: f64) -> &mut Self {
        self.peer.insert(name.to_owned(), rounded(value));
        self
    }
}

/// Three digits after the point: no bench here measures finer.
fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_samples_give_a_maximum_named_so() {
        let mut measured = Measured::default();
        let few: Samples = (1..=99).map(f64::from).collect();
        measured.percentile("a", 99, "ms", &few);
        measured.percentile("a", 50, "ms", &few);
        measured.percentile("b", 99, "ms", &(1..=100).map(f64::from).collect());
        measured.percentile("c", 50, "ms", &Samples::default());
        let keys: Vec<&str> = measured.figures.keys().map(String::as_str).collect();
        assert_eq!(keys, ["a_max_ms", "a_p50_ms", "b_p99_ms"]);
        assert_eq!(measured.notes.len(), 2);
    }
}
