//! A child process that appends: this test binary again, told by its environment what to do.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use berth_journal::{AppendError, Journal, Ticket};

use crate::fixture::{append, open};

const TASK: &str = "BERTH_JOURNAL_CHILD";
const DIR: &str = "BERTH_JOURNAL_CHILD_DIR";

/// What precedes an acknowledged position on the child's standard output.
pub(crate) const ACK: &str = "ack ";

/// How many appends [`Task::OneByOne`] makes: too few for the write-ahead log to be folded.
pub(crate) const ONE_BY_ONE: u64 = 100;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Task {
    /// Append for longer than any test lets it, with several appends under way at once.
    Stream,
    /// Append a hundred times, each after the last is acknowledged; end when standard input does.
    OneByOne,
    /// Come upon a limit for the size of files, have it raised, go on.
    OutOfSpace,
}

impl Task {
    fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::OneByOne => "one by one",
            Self::OutOfSpace => "out of space",
        }
    }
}

/// The child, run by `wrapper` (an argument vector, possibly empty), its output piped.
#[expect(
    clippy::disallowed_methods,
    reason = "the test runs itself; berth-process may not be used by this crate"
)]
pub(crate) fn command(task: Task, dir: &Path, wrapper: &[&OsStr]) -> Command {
    let this = std::env::current_exe().unwrap();
    let arguments = ["--exact", "child::act", "--nocapture", "--test-threads=1"].map(OsStr::new);
    let mut words = wrapper.iter().copied().chain([this.as_os_str()]).chain(arguments);
    let mut command = Command::new(words.next().unwrap());
    command.args(words).env(TASK, task.name()).env(DIR, dir).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// The position in a line of the child's output.
pub(crate) fn acknowledged(line: &str) -> Option<u64> {
    line.strip_prefix(ACK).map(|number| number.parse().unwrap())
}

/// What an event's body must be; long enough for the write-ahead log to be folded now and then.
pub(crate) fn body(position: u64) -> Vec<u8> {
    position.to_string().repeat(300).into_bytes()
}

/// Does nothing but in the child.
#[test]
fn act() {
    let Ok(task) = std::env::var(TASK) else { return };
    let dir = PathBuf::from(std::env::var_os(DIR).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        match task.as_str() {
            "stream" => stream(&open(&dir), 16, 50_000).await,
            "one by one" => one_by_one(&dir).await,
            "out of space" => out_of_space(&dir).await,
            _ => panic!("unknown task {task}"),
        }
    });
}

/// Ends the line that the harness has begun.
fn end_line() {
    std::io::stdout().write_all(b"\n").unwrap();
}

/// One write for each line, past the harness: a trace shows it where it happens.
fn tell(position: u64) {
    std::io::stdout().write_all(format!("{ACK}{position}\n").as_bytes()).unwrap();
}

async fn one_by_one(dir: &Path) {
    let journal = open(dir);
    stream(&journal, 1, ONE_BY_ONE).await;
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

async fn stream(journal: &Journal, under_way: usize, count: u64) {
    let start = journal.begin_epoch().await;
    end_line();
    let mut tickets: VecDeque<Ticket> = VecDeque::new();
    for number in 0..count {
        if tickets.len() == under_way {
            tell(tickets.pop_front().unwrap().await.unwrap().last.0);
        }
        let position = start.head.0 + 1 + number;
        let append = append(start.epoch, "a", position - 1, &[&body(position)]);
        tickets.push_back(journal.append(append).await);
    }
    for ticket in tickets {
        tell(ticket.await.unwrap().last.0);
    }
}

async fn out_of_space(dir: &Path) {
    let journal = open(dir);
    let start = journal.begin_epoch().await;
    end_line();
    ignore_file_size_signal();
    limit_file_size(200_000);
    let mut last = start.head.0;
    let refused = loop {
        let one = journal.append(append(start.epoch, "a", last, &[&body(last + 1)])).await;
        let two = journal.append(append(start.epoch, "a", last + 1, &[&body(last + 2)])).await;
        match (one.await, two.await) {
            (Ok(_), Ok(_)) => last += 2,
            // The two may have had a transaction each, of which the second failed.
            (Ok(_), Err(error)) => {
                last += 1;
                break error;
            }
            (Err(error), Err(_)) => break error,
            (Err(_), Ok(_)) => panic!("an append was accepted behind one that failed"),
        }
        tell(last);
    };
    assert!(matches!(refused, AppendError::Storage { .. }), "{refused}");
    tell(last);
    let behind = journal.append(append(start.epoch, "a", last, &[&body(last + 1)])).await.await.unwrap_err();
    assert!(matches!(behind, AppendError::EpochOver { .. }), "{behind}");
    assert_still_full(&journal, last).await;
    limit_file_size(libc::RLIM_INFINITY);
    let start = journal.begin_epoch().await;
    assert_eq!(start.head.0, last);
    for _ in 0..3 {
        last += 1;
        journal.append(append(start.epoch, "a", last - 1, &[&body(last)])).await.await.unwrap();
        tell(last);
    }
}

async fn assert_still_full(journal: &Journal, last: u64) {
    let start = journal.begin_epoch().await;
    assert_eq!(start.head.0, last);
    let body = vec![0; 300_000];
    let refused = journal.append(append(start.epoch, "a", last, &[&body])).await.await.unwrap_err();
    assert!(matches!(refused, AppendError::Storage { .. }), "{refused}");
}

/// So that a write beyond the limit fails instead of killing the process.
#[expect(unsafe_code, reason = "the standard library has no such call")]
fn ignore_file_size_signal() {
    // SAFETY: ignoring a signal installs no handler.
    let before = unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    assert_ne!(before, libc::SIG_ERR);
}

#[expect(unsafe_code, reason = "the standard library has no such call")]
fn limit_file_size(bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the call only reads `limit`, which lives longer.
    let done = unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) };
    assert_eq!(done, 0);
}
