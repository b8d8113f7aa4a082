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

/// Has what the journal holds already go on. One that says an older format than its events have was written before formats were told apart, by a
/// version that may take over again and reads it: what it says is left as it is until somebody commits.
pub(crate) fn go_on(journal: &Journal, desk: &Desk, held: u32) {
    if held > journal.format() {
        tracing::info!(says = journal.format(), held, "the journal holds more than its format has");
        desk.write_format(held);
    }
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
    use std::os::unix::fs::FileExt as _;
    use std::path::Path;
    use std::sync::Arc;

    use berth_clock::{Clock, SystemClock};
    use berth_control::command::{Command, Refusal};
    use berth_control::event::CertificateChange;
    use berth_journal::Options;

    use super::*;
    use crate::desk::{self, Asker, SubmitError};
    use crate::replay::{self, Replayed};

    async fn opened(dir: &Path) -> (Arc<Journal>, Desk, u32) {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let journal = Arc::new(Journal::open(dir, Options::default()).unwrap());
        let Replayed { state, format } = replay::replay(&journal, &*clock, [0; 32]).unwrap();
        // As a start does, so that the next one finds it.
        replay::keep_snapshot(&journal, [0; 32], &state);
        let (desk, task) = desk::open(Arc::clone(&journal), clock, state).await;
        tokio::spawn(task.run());
        go_on(&journal, &desk, format);
        (journal, desk, format)
    }

    async fn ask_for_certificates(desk: &Desk, host: &str) -> Result<desk::Outcome, SubmitError> {
        let change = Box::new(CertificateChange::Asked { host: host.parse().unwrap() });
        desk.submit(Command::ChangeCertificates { change }, Asker::platform("test"), None, None).await
    }

    /// Has the journal say the first format.
    fn say_1(dir: &Path) {
        let file = std::fs::OpenOptions::new().write(true).open(dir.join("journal.db")).unwrap();
        file.write_all_at(&1_u32.to_be_bytes(), 60).unwrap();
    }

    async fn close(journal: Arc<Journal>, desk: Desk) {
        drop(desk);
        while Arc::strong_count(&journal) > 1 {
            tokio::task::yield_now().await;
        }
        Arc::try_unwrap(journal).unwrap().close().unwrap();
    }

    #[tokio::test]
    async fn an_older_journal_takes_what_it_has_words_for_and_what_it_holds_already() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, desk, _) = opened(dir.path()).await;
        close(journal, desk).await;
        say_1(dir.path());
        let (journal, desk, held) = opened(dir.path()).await;
        assert_eq!((journal.format(), held), (1, 1));
        let refused = ask_for_certificates(&desk, "a.example.com").await.unwrap_err();
        assert!(matches!(refused, SubmitError::Refused(Refusal::NotCommitted { needs: 2, writes: 1, .. })));
        assert_eq!(commit(&journal, &desk).await.unwrap(), [1, NEWEST]);
        ask_for_certificates(&desk, "a.example.com").await.unwrap();
        close(journal, desk).await;
        // As a version between left it. It stays readable for that one, whatever snapshot there is.
        say_1(dir.path());
        for host in ["b.example.com", "c.example.com"] {
            let (journal, desk, held) = opened(dir.path()).await;
            assert_eq!((journal.format(), held), (1, 2));
            ask_for_certificates(&desk, host).await.unwrap();
            close(journal, desk).await;
        }
    }

    #[test]
    fn the_journal_and_the_events_count_alike() {
        assert_eq!(Journal::newest_format(), NEWEST);
        let own = Formats::OWN;
        assert!(own.has(OLDEST) && own.has(NEWEST) && !own.has(NEWEST + 1) && !own.has(OLDEST - 1));
        assert_eq!(Formats::UNASKED.to_string(), "format 1 alone");
        assert_eq!(Formats { oldest: 2, newest: 4 }.to_string(), "formats 2 to 4");
    }
}
