//! The order of releases: none may answer before it was submitted, nor after its successor was active.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::outcome::Sample;

/// A release that took the traffic, in the order in which they did.
///
/// A rollback takes it too, under a release of its own; its instances may be those of the old one, which still say that one's
/// name, and one that replaces a killed one of them says the new name. So the names here are what instances say, and come twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activation {
    /// What its instances answer as their release: one name, or for a rollback those of what it brings back too.
    pub names: Vec<String>,
    /// When the command that made it was begun: before, it cannot answer.
    pub submitted: Duration,
    /// When it was known to be active: a request begun later must not be answered by an earlier one.
    pub active: Duration,
}

/// An answer from a release whose time it was not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The answer.
    pub sample: Sample,
    /// What is wrong with it.
    pub why: &'static str,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sample { start, end, connection, release } = &self.sample;
        write!(f, "{release} on connection {connection:x} from {start:?} to {end:?}: {}", self.why)
    }
}

/// Answers that came from a release whose time it was not: globally by the windows of the activations, and on each connection,
/// which one thread of edge serves, by what it had answered before.
pub(super) fn violations(samples: &[Sample], activations: &[Activation]) -> Vec<Violation> {
    let mut reached: BTreeMap<u64, usize> = BTreeMap::new();
    let mut violations = Vec::new();
    // In the order of their ends: what a connection answers first ends first.
    for sample in samples {
        let fitting: Vec<usize> =
            (0..activations.len()).filter(|index| fits(sample, activations, *index)).collect();
        let floor = reached.get(&sample.connection).copied().unwrap_or(0);
        if let Some(index) = fitting.iter().find(|index| **index >= floor) {
            reached.insert(sample.connection, *index);
            continue;
        }
        let why = if fitting.is_empty() {
            "the release was not active, or not submitted yet"
        } else {
            "the connection had got a later release before"
        };
        violations.push(Violation { sample: sample.clone(), why });
    }
    violations
}

/// Whether `sample` may have come from the `index`-th activation.
fn fits(sample: &Sample, activations: &[Activation], index: usize) -> bool {
    let activation = &activations[index];
    let over = activations.get(index + 1).is_some_and(|next| next.active < sample.start);
    activation.names.contains(&sample.release) && activation.submitted <= sample.end && !over
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn sample(connection: u64, release: &str, start: u64, end: u64) -> Sample {
        Sample { start: ms(start), end: ms(end), connection, release: release.to_owned() }
    }

    fn activation(release: &str, submitted: u64, active: u64) -> Activation {
        Activation { names: vec![release.to_owned()], submitted: ms(submitted), active: ms(active) }
    }

    /// v1, then v2, then back to v1's warm instances.
    fn history() -> Vec<Activation> {
        vec![activation("v1", 0, 10), activation("v2", 100, 200), activation("v1", 300, 400)]
    }

    fn count(samples: &[Sample]) -> usize {
        violations(samples, &history()).len()
    }

    #[test]
    fn while_traffic_moves_either_may_answer_but_a_connection_does_not_go_back() {
        assert_eq!(
            count(&[sample(1, "v1", 150, 151), sample(2, "v2", 150, 152), sample(1, "v1", 160, 161)]),
            0
        );
        assert_eq!(count(&[sample(1, "v2", 150, 151), sample(1, "v1", 160, 161)]), 1);
        // Begun before v2 was active, ended after: in flight.
        assert_eq!(count(&[sample(1, "v1", 199, 250)]), 0);
    }

    #[test]
    fn afterwards_the_old_one_is_over() {
        assert_eq!(count(&[sample(1, "v1", 201, 202)]), 1);
        assert_eq!(count(&[sample(1, "v2", 401, 402)]), 1);
        assert_eq!(count(&[sample(1, "v1", 401, 402), sample(2, "v2", 350, 360)]), 0);
    }

    #[test]
    fn nobody_answers_before_he_was_sent_for() {
        assert_eq!(count(&[sample(1, "v2", 50, 60)]), 1);
        assert_eq!(count(&[sample(1, "v9", 50, 60)]), 1);
    }

    #[test]
    fn a_rollback_moves_a_connection_on_to_the_old_name() {
        assert_eq!(
            count(&[sample(1, "v1", 50, 60), sample(1, "v2", 250, 260), sample(1, "v1", 410, 420)]),
            0
        );
        assert_eq!(
            count(&[sample(1, "v2", 320, 330), sample(1, "v1", 340, 350), sample(1, "v2", 360, 370)]),
            1
        );
    }
}
