//! Which formats of the journal this program reads, and when it begins to write a newer one.
//!
//! After an upgrade the journal keeps the format that it has, so that the program before can go on with it. `berth upgrade commit` ends that. What the
//! formats have is [`berth_control::format`]'s; the number lies in the journal itself, where programs that do not know it refuse to open it.

use berth_control::format::{NEWEST, OLDEST};
use berth_journal::{AdvanceError, Journal};
use serde::{Deserialize, Serialize};

use crate::desk::Desk;

/// The formats that a program reads and can go on writing. Printed by the hidden verb `__formats`, by which one program asks another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Formats {
    /// The oldest.
    pub oldest: u32,
    /// The newest.
    pub newest: u32,
}

impl Formats {
    /// Those of this program.
    pub const OWN: Self = Self { oldest: OLDEST, newest: NEWEST };
    /// Those of programs that cannot be asked: they are older than the question, and the second format came with it.
    pub const UNASKED: Self = Self { oldest: 1, newest: 1 };

    /// Whether a journal of this format is read.
    #[must_use]
    pub fn has(self, format: u32) -> bool {
        (self.oldest..=self.newest).contains(&format)
    }
}

impl std::fmt::Display for Formats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.oldest == self.newest {
            return write!(f, "format {} alone", self.oldest);
        }
        write!(f, "formats {} to {}", self.oldest, self.newest)
    }
}

/// A journal that says an older format than its events have was written before formats were told apart. There is no way back from it
/// already, and what is in it has to go on: it is said to have the format that it has.
///
/// # Errors
/// When the journal cannot write.
pub(crate) async fn settle(journal: &Journal, needed: u32) -> Result<(), AdvanceError> {
    if needed > journal.format() {
        tracing::info!(from = journal.format(), to = needed, "the journal's format is that of its events");
        journal.advance(needed).await?;
    }
    Ok(())
}

/// Has the journal written in the newest format from here on, durably, and with it what the desk decides. Gives the format before and the one
/// after.
///
/// # Errors
/// When the journal cannot write. Nothing has changed then.
pub(crate) async fn commit(journal: &Journal, desk: &Desk) -> Result<[u32; 2], AdvanceError> {
    let before = journal.format();
    let after = journal.advance(NEWEST).await?;
    desk.write_format(after);
    if before != after {
        tracing::info!(before, after, "the upgrade is committed");
    }
    Ok([before, after])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_and_the_events_count_alike() {
        assert_eq!(Journal::newest_format(), NEWEST);
        let own = Formats::OWN;
        assert!(own.has(OLDEST) && own.has(NEWEST) && !own.has(NEWEST + 1) && !own.has(OLDEST - 1));
        assert_eq!(Formats::UNASKED.to_string(), "format 1 alone");
        assert_eq!(Formats { oldest: 2, newest: 4 }.to_string(), "formats 2 to 4");
    }
}
