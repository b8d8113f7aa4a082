//! The order of deciding, appending and publishing.
//!
//! Commands are decided one after the other on the *speculative* state, which is ahead of the disk, so that many can share one
//! fdatasync. Nobody sees that state: what is answered and published is the *durable* one, which follows when the journal says so. When
//! an append fails, everything decided after it rests on events that never were, and is discarded with it: the speculative state is
//! built anew from the durable one, and a new epoch of the journal begins.

use std::collections::VecDeque;
use std::sync::Arc;

use berth_spec::Timestamp;

use crate::command::{Command, Decision, Refusal};
use crate::decide::decide;
use crate::event::{Event, Stream};
use crate::fold::Stamp;
use crate::format;
use crate::state::{App, Platform, Position, State};

/// The two states and what is between them.
#[derive(Debug)]
pub struct Ledger {
    durable: State,
    speculative: State,
    pending: VecDeque<Pending>,
    /// The format that the journal is written in.
    format: u32,
}

/// Events to be appended to the journal as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The stream they go to.
    pub stream: Stream,
    /// How many events the stream has before them.
    pub expected: u64,
    /// The position that the first of them will have.
    pub first: Position,
    /// The events; never empty.
    pub events: Vec<Event>,
}

/// A batch that is not durable yet, with what the state will be once it is.
#[derive(Debug)]
struct Pending {
    last: Position,
    part: Part,
}

/// The part of the state that a batch changes.
#[derive(Debug)]
enum Part {
    Platform(Arc<Platform>),
    App(Arc<App>, Arc<Platform>),
}

impl Ledger {
    /// A ledger that goes on from what was replayed, in the newest format.
    #[must_use]
    pub fn new(replayed: State) -> Self {
        Self {
            durable: replayed.clone(),
            speculative: replayed,
            pending: VecDeque::new(),
            format: format::NEWEST,
        }
    }

    /// Has nothing written from here on that a journal of this format does not take.
    pub fn write_format(&mut self, format: u32) {
        self.format = format;
    }

    /// The format that what is decided is written in.
    #[must_use]
    pub fn format(&self) -> u32 {
        self.format
    }

    /// What is durable: what may be answered and published.
    #[must_use]
    pub fn durable(&self) -> &State {
        &self.durable
    }

    /// What will be, if nothing fails. Only for deciding what to ask, such as the version that a secret is sealed for.
    #[must_use]
    pub fn speculative(&self) -> &State {
        &self.speculative
    }

    /// How many batches are on their way to the disk.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Decides on `command`; `None` when it is so already. The answer to it must wait for [`Ledger::committed`], and so must "it is so
    /// already", for what it rests on may not be durable yet: see [`Ledger::speculative`]'s position.
    ///
    /// # Errors
    /// [`Refusal`] when the command is refused.
    pub fn submit(
        &mut self,
        command: &Command,
        at: Timestamp,
        actor: &str,
    ) -> Result<Option<Batch>, Refusal> {
        let Decision { stream, events } = decide(&self.speculative, command)?;
        if events.is_empty() {
            return Ok(None);
        }
        if let Some(newer) = format::beyond(self.format, &events) {
            let (what, needs, writes) = (newer.what, newer.format, self.format);
            return Err(Refusal::NotCommitted { what, needs, writes });
        }
        let expected = self.speculative.version(&stream);
        let first = self.speculative.position + 1;
        for (position, event) in (first..).zip(&events) {
            let stamp = Stamp { position, at, actor: actor.to_owned() };
            self.speculative.apply(&stream, event, &stamp);
        }
        let platform = Arc::clone(&self.speculative.platform);
        let part = match &stream {
            Stream::Platform => Part::Platform(platform),
            Stream::App(id) => {
                let app = self.speculative.apps.get(id).expect("an event of an app's stream makes the app");
                Part::App(Arc::clone(app), platform)
            }
        };
        self.pending.push_back(Pending { last: self.speculative.position, part });
        Ok(Some(Batch { stream, expected, first, events }))
    }

    /// The batches up to position `last` are durable: publishes them.
    pub fn committed(&mut self, last: Position) {
        while self.pending.front().is_some_and(|pending| pending.last <= last) {
            let Some(pending) = self.pending.pop_front() else {
                return;
            };
            match pending.part {
                Part::Platform(platform) => self.durable.platform = platform,
                Part::App(app, platform) => {
                    self.durable.platform = platform;
                    self.durable.apps.insert(app.id.clone(), app);
                }
            }
            self.durable.position = pending.last;
        }
    }

    /// An append failed: discards all that is not durable. The caller begins a new epoch of the journal before it submits again, and
    /// tells everybody who waits that nothing was done.
    pub fn failed(&mut self) {
        self.pending.clear();
        self.speculative = self.durable.clone();
    }
}

#[cfg(test)]
mod tests;
