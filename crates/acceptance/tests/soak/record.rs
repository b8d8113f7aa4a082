//! What was said to be done, what was killed meanwhile, and whether the one fits the other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use berth_acceptance::Victim;
use berth_acceptance::load::{Activation, Kill, Outcome};
use serde_json::{Value, json};

use crate::soak::Order;

/// How far before a failure that nothing explains it is of interest what was killed.
const LOOK_BACK: Duration = Duration::from_secs(5);

/// A process that was killed.
#[derive(Debug)]
pub(crate) struct Killed {
    pub(crate) victim: Victim,
    pub(crate) pid: u32,
    /// Just before the signal was sent, on the load's clock.
    pub(crate) at: Duration,
    /// When it and what was below it had ended; when there were listeners again, where they were lost with it.
    pub(crate) ended: Duration,
    /// Whether they were.
    pub(crate) lost: bool,
    /// The clients' ports of an edge's connections.
    pub(crate) connections: Option<BTreeSet<u16>>,
}

impl fmt::Display for Killed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} at {:?} for {:?}", self.victim, self.pid, self.at, self.ended - self.at)?;
        let Some(connections) = &self.connections else { return Ok(()) };
        write!(f, " with {} connections", connections.len())
    }
}

/// A release, as it was when its deployment had ended.
#[derive(Debug)]
struct Ended {
    state: String,
    names: Vec<String>,
    /// Before the command that made it.
    begun: Duration,
    /// When it was seen to have ended.
    seen: Duration,
}

impl Ended {
    fn served(&self) -> bool {
        ["active", "retired"].contains(&self.state.as_str())
    }
}

/// Everything that is known of a run.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) kills: Vec<Killed>,
    pub(crate) acknowledged: BTreeSet<u64>,
    ended: BTreeMap<u64, Ended>,
}

impl Record {
    /// Takes in those of `releases` that are new, all of which have ended. Gives their states.
    pub(crate) fn take(&mut self, releases: &[Value], begun: Duration, seen: Duration) -> Vec<String> {
        let mut states = Vec::new();
        for release in releases.iter().rev() {
            let number = release["number"].as_u64().unwrap();
            if self.ended.contains_key(&number) {
                continue;
            }
            let mut names = vec![format!("v{number}")];
            if let Some(source) = release["rollback_of"].as_u64() {
                names.extend(self.ended[&source].names.clone());
            }
            let state = release["state"].as_str().unwrap().to_owned();
            states.push(state.clone());
            self.ended.insert(number, Ended { state, names, begun, seen });
        }
        states
    }

    /// Panics unless `releases` has every release that was acknowledged or seen, as it had ended, in order and one active.
    pub(crate) fn assert_kept(&self, releases: &[Value]) {
        let mut expected = self.ended.keys().rev().copied();
        for release in releases {
            let number = release["number"].as_u64().unwrap();
            assert_eq!(Some(number), expected.next(), "{releases:?}");
            let (before, now) = (&self.ended[&number], release["state"].as_str().unwrap());
            let same = before.state == now || (before.state == "active" && now == "retired");
            assert!(same, "v{number} had ended as {} and is {now}", before.state);
        }
        assert_eq!(expected.next(), None, "releases are lost: {releases:?}");
        let known: BTreeSet<u64> = self.ended.keys().copied().collect();
        assert!(self.acknowledged.is_subset(&known), "acknowledged {:?} of {known:?}", self.acknowledged);
        assert_eq!(known, (1..=u64::try_from(known.len()).unwrap()).collect(), "a number was left out");
        let active: Vec<&Value> = releases.iter().filter(|release| release["state"] == "active").collect();
        let last = self.ended.iter().rev().find(|(_, ended)| ended.served()).map(|(number, _)| *number);
        assert_eq!(active.len(), 1, "{releases:?}");
        assert_eq!(active[0]["number"].as_u64(), last, "an earlier release is active");
    }

    /// Panics unless every failure was in flight where something was killed, and every answer came from a release in its time.
    pub(crate) fn assert_served(&self, outcome: &Outcome) {
        let kills: Vec<Kill> = self.kills.iter().filter(|kill| kill.victim.serves()).map(as_excuse).collect();
        outcome.assert_clean(&self.activations(), &kills);
        for kill in kills.iter().filter(|kill| !kill.refuses) {
            // A connection has one request in flight at a time: with a second failure something else went wrong.
            let mut hit = BTreeSet::new();
            for failed in outcome.failed.iter().filter(|failed| kill.explains(failed)) {
                let others = kills.iter().filter(|other| other.explains(failed)).count();
                assert!(hit.insert(failed.worker()) || others > 1, "{kill:?} twice on one client: {failed}");
            }
        }
    }

    /// Writes what came of it to the file that `BERTH_SOAK_RECORD` names, if it does: `given` are the commands.
    pub(crate) fn write(&self, outcome: &Outcome, given: &BTreeMap<Order, u64>) {
        let Some(path) = std::env::var_os("BERTH_SOAK_RECORD") else { return };
        let kills: Vec<Kill> = self.kills.iter().filter(|kill| kill.victim.serves()).map(as_excuse).collect();
        let times = |order: Order| given.get(&order).copied().unwrap_or_default();
        let record = json!({
            "deploys": self.acknowledged.len(),
            "rollbacks": times(Order::RollBack),
            "upgrades": times(Order::Upgrade),
            "kills": self.kills.len(),
            "lost": self.kills.iter().filter(|kill| kill.lost).count(),
            "sent": outcome.samples.len() + outcome.failed.len(),
            "rate": outcome.rate(),
            "right": outcome.right,
            "failed": outcome.failed.len(),
            "unmatched": outcome.unexplained(&kills).len(),
        });
        std::fs::write(path, record.to_string()).unwrap();
    }

    /// The first failure that nothing explains, and what was killed in the seconds before it: where to look in the logs.
    pub(crate) fn first_unmatched(&self, outcome: &Outcome) -> Option<String> {
        let kills: Vec<Kill> = self.kills.iter().filter(|kill| kill.victim.serves()).map(as_excuse).collect();
        let first = outcome.unexplained(&kills).into_iter().min_by_key(|failed| failed.end)?;
        let before = self.kills.iter().filter(|kill| (kill.at..kill.at + LOOK_BACK).contains(&first.end));
        let before: Vec<String> = before.map(ToString::to_string).collect();
        Some(format!("{first}\n  after {}", before.join(", ")))
    }

    /// A supervisor that was killed is followed by one that found no edge, so that nobody had the listeners from when the last edge that it had started,
    /// `edge`, was killed until `now`. Panics where nobody killed that one: then one was lost that should have lived.
    pub(crate) fn listeners_were_lost(&mut self, edge: Option<u32>, now: Duration) {
        let mut kills = self.kills.iter_mut().rev();
        let killed = kills.find(|kill| kill.victim == Victim::Edge && Some(kill.pid) == edge);
        let killed = killed.unwrap_or_else(|| panic!("edge {edge:?} is gone, which nobody killed"));
        (killed.ended, killed.lost) = (now, true);
    }

    fn activations(&self) -> Vec<Activation> {
        let served = self.ended.values().filter(|ended| ended.served());
        served
            .map(|ended| Activation {
                names: ended.names.clone(),
                submitted: ended.begun,
                active: ended.seen,
            })
            .collect()
    }

    /// How many were killed of each kind, and how many requests failed by that.
    pub(crate) fn summary(&self, outcome: &Outcome) -> String {
        let mut lines: BTreeMap<Victim, (usize, usize, Duration)> = BTreeMap::new();
        for kill in &self.kills {
            let line = lines.entry(kill.victim).or_default();
            let excuse = as_excuse(kill);
            line.0 += 1;
            line.1 += outcome.failed.iter().filter(|failed| excuse.explains(failed)).count();
            line.2 = line.2.max(kill.ended - kill.at);
        }
        let mut states: BTreeMap<&str, usize> = BTreeMap::new();
        for ended in self.ended.values() {
            *states.entry(&ended.state).or_default() += 1;
        }
        let mut text = format!("{} acknowledged, ended {states:?}", self.acknowledged.len());
        for (victim, (kills, failures, longest)) in lines {
            text.push_str(&format!(
                "\n  {kills} x {victim} killed, {failures} requests failed, dead after {longest:?} at most"
            ));
        }
        text
    }
}

/// What was on an edge's connections may fail, or in flight between the signal and the end where anything else was killed.
fn as_excuse(kill: &Killed) -> Kill {
    let (effect, connections) = (kill.ended - kill.at, kill.connections.clone());
    Kill { what: kill.to_string(), at: kill.at, effect, refuses: kill.lost, connections }
}
