//! The disk: a journal that keeps what was synced, the routing snapshot, the artifacts.

use std::collections::{BTreeMap, BTreeSet};

use berth_control::event::{Event, Stream};
use berth_control::fold::Stamp;
use berth_control::invariant::{Breach, Invariant};
use berth_control::ledger::Batch;
use berth_control::state::{Position, State};
use berth_routing::Snapshot;
use berth_spec::{AppId, ReleaseNumber, Timestamp};

use crate::chance::Chance;
use crate::fault::{Fault, Tally};

/// What a command led to: kept with its idempotency key in the same append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) position: Position,
    pub(crate) release: Option<ReleaseNumber>,
}

/// One append: all of it survives or nothing.
#[derive(Debug, Clone)]
pub(crate) struct Append {
    pub(crate) batch: Option<Batch>,
    pub(crate) at: Timestamp,
    pub(crate) actor: String,
    pub(crate) key: Option<(String, Kept)>,
}

/// No space is left.
#[derive(Debug)]
pub(crate) struct NoSpace;

/// What survives a crash, and what does not yet.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    synced: Vec<Append>,
    buffered: Vec<Append>,
    /// The last synced position.
    pub(crate) head: Position,
    pub(crate) full: bool,
    keys: BTreeMap<String, Kept>,
    buffered_keys: BTreeMap<String, Kept>,
    numbers: BTreeSet<(AppId, u64)>,
    releases: BTreeSet<(AppId, ReleaseNumber)>,
    /// The routing snapshot that edge boots from.
    pub(crate) routing: Snapshot,
    /// The artifacts by app.
    pub(crate) artifacts: BTreeMap<AppId, BTreeSet<String>>,
}

impl Disk {
    pub(crate) fn append(&mut self, append: Append) -> Result<(), NoSpace> {
        if self.full {
            return Err(NoSpace);
        }
        if let Some(batch) = &append.batch {
            let last = self.buffered.iter().rev().find_map(|it| it.batch.as_ref()).map_or(self.head, last_of);
            assert_eq!(batch.first, last + 1, "the ledger reckons with another position than the journal");
        }
        if let Some((key, kept)) = &append.key {
            self.buffered_keys.insert(key.clone(), kept.clone());
        }
        self.buffered.push(append);
        Ok(())
    }

    pub(crate) fn is_dirty(&self) -> bool {
        !self.buffered.is_empty()
    }

    /// Makes everything durable. Returns the last position.
    pub(crate) fn sync(&mut self) -> Result<Position, Breach> {
        for append in std::mem::take(&mut self.buffered) {
            self.keep(append)?;
        }
        self.buffered_keys.clear();
        Ok(self.head)
    }

    fn keep(&mut self, append: Append) -> Result<(), Breach> {
        if let Some(batch) = &append.batch {
            self.head = last_of(batch);
            if let Stream::App(app) = &batch.stream {
                for event in &batch.events {
                    self.note_number(app, event)?;
                }
            }
        }
        if let Some((key, kept)) = &append.key {
            self.keys.insert(key.clone(), kept.clone());
        }
        self.synced.push(append);
        Ok(())
    }

    /// The numbers of all lives of an app are one series: whatever the state says, none may come twice.
    fn note_number(&mut self, app: &AppId, event: &Event) -> Result<(), Breach> {
        let fresh = match event {
            Event::InstanceAssigned { ordinal, .. } => self.numbers.insert((app.clone(), *ordinal)),
            Event::ReleaseSubmitted(release) => self.releases.insert((app.clone(), release.number)),
            _ => true,
        };
        if fresh {
            return Ok(());
        }
        Err(Breach { invariant: Invariant::NumbersAreUnique, detail: format!("{app} has twice: {event:?}") })
    }

    /// What an epoch that failed had not synced never was.
    pub(crate) fn discard(&mut self) {
        self.buffered.clear();
        self.buffered_keys.clear();
    }

    /// Whoever wrote is gone: of what was not synced the first few appends survive, none of which was acknowledged.
    pub(crate) fn crash(&mut self, chance: &Chance, tally: &mut Tally) -> Result<(), Breach> {
        let mut left = std::mem::take(&mut self.buffered);
        self.buffered_keys.clear();
        if left.is_empty() {
            return Ok(());
        }
        let survivors = chance.below(left.len() + 1);
        let lost = left.split_off(survivors);
        if !lost.is_empty() {
            tally.add(if chance.one_in(2) { Fault::AppendTorn } else { Fault::UnsyncedLost });
        }
        for append in left {
            tally.add(Fault::UnsyncedKept);
            self.keep(append)?;
        }
        Ok(())
    }

    /// What a key led to, if that is durable.
    pub(crate) fn kept(&self, key: &str) -> Option<&Kept> {
        self.keys.get(key)
    }

    /// Whether a command with this key is on its way to the disk.
    pub(crate) fn is_on_its_way(&self, key: &str) -> bool {
        self.buffered_keys.contains_key(key)
    }

    /// How many events are durable.
    pub(crate) fn events(&self) -> usize {
        self.synced.iter().filter_map(|append| append.batch.as_ref()).map(|batch| batch.events.len()).sum()
    }

    /// The state that the journal gives up to `last`, but for the event at index `without`. With `decoded` every event goes
    /// through its written form, as it does in production.
    pub(crate) fn replay(&self, last: Position, without: Option<usize>, decoded: bool) -> State {
        let mut state = State::default();
        let mut index = 0;
        for append in &self.synced {
            let Some(batch) = &append.batch else { continue };
            for (position, event) in (batch.first..).zip(&batch.events).take_while(|(at, _)| *at <= last) {
                let stamp = Stamp { position, at: append.at, actor: append.actor.clone() };
                index += 1;
                if without == Some(index - 1) {
                    continue;
                }
                if decoded {
                    let event = Event::decode(event.kind(), Event::SCHEMA, &event.encode());
                    state.apply(&batch.stream, &event.expect("what was encoded can be decoded"), &stamp);
                } else {
                    state.apply(&batch.stream, event, &stamp);
                }
            }
        }
        state
    }
}

fn last_of(batch: &Batch) -> Position {
    batch.first + batch.events.len() as u64 - 1
}
