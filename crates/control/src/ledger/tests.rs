//! Deciding ahead of the disk, and what becomes of it when the disk refuses.

use std::collections::BTreeSet;

use super::*;
use crate::command::Wish;
use crate::scene::{deploy_of, manifest, shop};

fn ledger() -> Ledger {
    let mut ledger = Ledger::new(State::default());
    let project = Command::EnsureProject { project: shop().project_id() };
    let batch = ledger.submit(&project, Timestamp(1), "test").unwrap().unwrap();
    assert_eq!((batch.stream, batch.expected, batch.first), (Stream::Platform, 0, 1));
    ledger.committed(2);
    ledger
}

fn set(name: &str, value: &str) -> Command {
    let set = [(name.parse().unwrap(), value.to_owned())].into();
    Command::App { app: shop(), wish: Wish::ChangeConfig { set, unset: BTreeSet::new() } }
}

#[test]
fn nothing_is_durable_before_the_journal_says_so() {
    let mut ledger = ledger();
    let first = ledger.submit(&set("A", "1"), Timestamp(2), "test").unwrap().unwrap();
    let second = ledger.submit(&set("B", "2"), Timestamp(3), "test").unwrap().unwrap();
    assert_eq!((first.first, first.expected, second.first, second.expected), (3, 0, 5, 2));
    assert!(ledger.durable().apps.is_empty());
    assert_eq!((ledger.pending(), ledger.speculative().position), (2, 5));
    ledger.committed(4);
    assert_eq!((ledger.durable().position, ledger.pending()), (4, 1));
    assert_eq!(ledger.durable().apps[&shop()].config.len(), 1);
    ledger.committed(5);
    assert_eq!(ledger.durable(), ledger.speculative());
}

#[test]
fn half_a_batch_is_no_batch() {
    let mut ledger = ledger();
    ledger.submit(&set("A", "1"), Timestamp(2), "test").unwrap().unwrap();
    ledger.committed(3);
    assert!(ledger.durable().apps.is_empty());
}

#[test]
fn a_failed_append_takes_everything_decided_after_it_along() {
    let mut ledger = ledger();
    ledger.submit(&set("A", "1"), Timestamp(2), "test").unwrap().unwrap();
    ledger.committed(4);
    let before = ledger.durable().clone();
    ledger.submit(&set("B", "2"), Timestamp(3), "test").unwrap().unwrap();
    let deploy = Command::App { app: shop(), wish: deploy_of(manifest(None)) };
    ledger.submit(&deploy, Timestamp(4), "test").unwrap().unwrap();
    ledger.failed();
    assert_eq!((ledger.durable(), ledger.speculative(), ledger.pending()), (&before, &before, 0));
    let again = ledger.submit(&deploy, Timestamp(5), "test").unwrap().unwrap();
    assert_eq!(again.first, 5);
    // A late word about what was discarded changes nothing that is pending.
    ledger.committed(4);
    assert_eq!(ledger.durable(), &before);
}

#[test]
fn what_is_so_already_and_what_is_refused_leave_no_trace() {
    let mut ledger = ledger();
    ledger.submit(&set("A", "1"), Timestamp(2), "test").unwrap().unwrap();
    assert_eq!(ledger.submit(&set("A", "1"), Timestamp(3), "test").unwrap(), None);
    let rollback = Wish::Rollback { to: berth_spec::ReleaseNumber(9), keep_config: false };
    ledger.submit(&Command::App { app: shop(), wish: rollback }, Timestamp(3), "test").unwrap_err();
    assert_eq!((ledger.pending(), ledger.speculative().position), (1, 4));
}

#[test]
fn nothing_newer_than_the_journals_format_is_decided() {
    let mut ledger = ledger();
    ledger.write_format(1);
    let sleeps = berth_spec::Manifest::parse("[scale.web]\nmin = 0\n").unwrap();
    let deploy = Command::App { app: shop(), wish: deploy_of(sleeps) };
    let before = ledger.speculative().clone();
    let refusal = ledger.submit(&deploy, Timestamp(2), "test").unwrap_err();
    assert!(matches!(refusal, Refusal::NotCommitted { needs: 2, writes: 1, .. }), "{refusal}");
    assert_eq!((refusal.code(), ledger.pending()), ("upgrade_uncommitted", 0));
    assert_eq!(ledger.speculative(), &before);
    // What the older format has goes on, and everything once there is no way back.
    ledger.submit(&set("A", "1"), Timestamp(3), "test").unwrap().unwrap();
    ledger.write_format(2);
    ledger.submit(&deploy, Timestamp(4), "test").unwrap().unwrap();
}
