//! The desk over a real journal: order, durability, a full disk, repeats.

use std::path::Path;

use berth_clock::{ManualClock, SystemClock};
use berth_control::command::Wish;
use berth_control::invariant::check_replay;
use berth_journal::Options;
use berth_spec::ProjectId;
use futures_util::FutureExt as _;

use super::*;
use crate::replay;

fn project() -> ProjectId {
    "default/default".parse().unwrap()
}

fn app(name: &str) -> AppId {
    project().app(name.parse().unwrap())
}

fn create(name: &str) -> Command {
    Command::App { app: app(name), wish: Wish::Create }
}

fn config(name: &str, variable: &str, value: String) -> Command {
    let set = [(variable.parse().unwrap(), value)].into();
    Command::App { app: app(name), wish: Wish::ChangeConfig { set, unset: BTreeSet::new() } }
}

fn asker() -> Asker {
    Asker::platform("test")
}

fn key(text: &str, body: u8) -> RequestKey {
    RequestKey { scope: "token:ci".to_owned(), key: text.to_owned(), hash: [body; 32] }
}

/// A desk over the journal in `dir`, whose task ends when the last [`Desk`] does.
async fn desk_at(dir: &Path, options: Options) -> (Desk, Arc<Journal>, tokio::task::JoinHandle<()>) {
    let journal = Arc::new(Journal::open(dir, options).unwrap());
    let state = replay::replay(&journal, &SystemClock::new(), [0; 32]).unwrap().state;
    let clock = Arc::new(ManualClock::new(berth_spec::Timestamp(1), 7));
    let (desk, task) = open(Arc::clone(&journal), clock, state).await;
    let task = tokio::spawn(task.run());
    desk.submit(Command::EnsureProject { project: project() }, asker(), None, None).await.unwrap();
    (desk, journal, task)
}

async fn close(desk: Desk, journal: Arc<Journal>, task: tokio::task::JoinHandle<()>) {
    drop(desk);
    task.await.unwrap();
    Arc::try_unwrap(journal).unwrap().close().unwrap();
}

#[tokio::test]
async fn answers_come_in_order_and_never_before_what_they_rest_on() {
    let dir = tempfile::tempdir().unwrap();
    let (desk, journal, _task) = desk_at(dir.path(), Options::default()).await;
    let missing = Command::App { app: app("gone"), wish: Wish::Destroy { volumes: false } };
    let commands = vec![create("shop"), create("shop"), missing, create("blog")];
    let answers = desk.submit_all(commands, &asker()).await;
    let made: Vec<Option<bool>> = answers.iter().map(|it| it.as_ref().ok().map(|it| it.changed)).collect();
    assert_eq!(made, [Some(true), Some(false), None, Some(true)]);
    assert!(matches!(answers[2], Err(SubmitError::Refused(Refusal::NoSuchApp(_)))));
    let positions: Vec<u64> = answers.iter().flatten().map(|it| it.position).collect();
    assert!(positions.is_sorted(), "{positions:?}");
    assert!(journal.head().0 >= positions[2]);
    assert!(desk.app(&app("blog")).is_some());
    let (position, changed) = desk.read_changed(|state, changed| (state.position, changed));
    assert_eq!((position, changed), (journal.head().0, [app("blog"), app("shop")].into()));
    assert!(desk.read_changed(|_, changed| changed).is_empty(), "they were taken");
}

#[tokio::test]
async fn so_already_waits_for_what_it_rests_on() {
    let dir = tempfile::tempdir().unwrap();
    let (desk, journal, _task) = desk_at(dir.path(), Options::default()).await;
    // Many at once: whichever is first makes it, and nobody is told that it is there before it is durable.
    let many: Vec<_> = (0..50)
        .map(|_| {
            let (desk, journal) = (desk.clone(), Arc::clone(&journal));
            tokio::spawn(async move {
                let outcome = desk.submit(create("shop"), asker(), None, None).await.unwrap();
                (outcome, journal.head().0, desk.app(&app("shop")).is_some())
            })
        })
        .collect();
    let mut made = 0;
    for one in many {
        let (outcome, head, there) = one.await.unwrap();
        assert!(outcome.position <= head && there, "{outcome:?} at {head}");
        made += usize::from(outcome.changed);
    }
    assert_eq!(made, 1);
}

#[tokio::test]
async fn a_dropped_request_is_done_or_not_and_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let (desk, _journal, _task) = desk_at(dir.path(), Options::default()).await;
    for number in 0..20 {
        let asked = desk.submit(create(&format!("a{number}")), asker(), None, None);
        assert_eq!(asked.now_or_never(), None, "polled once and dropped");
    }
    desk.submit(create("last"), asker(), None, None).await.unwrap();
    // All of them had their place in the order before they were dropped.
    assert_eq!(desk.read(|state| state.apps.len()), 21);
}

#[tokio::test]
async fn a_full_disk_answers_everybody_and_is_recovered_from() {
    let dir = tempfile::tempdir().unwrap();
    let (desk, journal, task) = desk_at(dir.path(), Options { max_bytes: Some(256 << 10) }).await;
    desk.submit(create("shop"), asker(), None, None).await.unwrap();
    let mut done = 0;
    let full = loop {
        match desk
            .submit(config("shop", "A", format!("{done}{}", "x".repeat(20_000))), asker(), None, None)
            .await
        {
            Ok(_) => done += 1,
            Err(error) => break error,
        }
        assert!(done < 100, "256 KiB never fill up");
    };
    assert_eq!(full, SubmitError::DiskFull);
    let before = desk.app(&app("shop")).unwrap();
    // What rests on the failed append fails with it, and the state is what it was.
    let commands = (0..5).map(|number| config("shop", "A", format!("{number}{}", "y".repeat(30_000))));
    for answer in desk.submit_all(commands.collect(), &asker()).await {
        assert_eq!(answer, Err(SubmitError::DiskFull));
    }
    assert_eq!(desk.app(&app("shop")).unwrap(), before);
    assert_eq!(desk.app_ahead(&app("shop")).unwrap(), before);
    // What asks for nothing new is still answered.
    let same = before.config.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let same =
        Command::App { app: app("shop"), wish: Wish::ChangeConfig { set: same, unset: BTreeSet::new() } };
    assert!(!desk.submit(same, asker(), None, None).await.unwrap().changed);
    let served = desk.read(Clone::clone);
    close(desk, journal, task).await;

    let (desk, journal, task) = desk_at(dir.path(), Options::default()).await;
    check_replay(&served, &desk.read(Clone::clone)).unwrap();
    desk.submit(config("shop", "A", "room".to_owned()), asker(), None, None).await.unwrap();
    close(desk, journal, task).await;
}

#[tokio::test]
async fn what_is_too_large_fails_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (desk, _journal, _task) = desk_at(dir.path(), Options::default()).await;
    let huge = config("shop", "A", "x".repeat(2 << 20));
    let answers = desk.submit_all(vec![create("blog"), huge, create("shop")], &asker()).await;
    assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
    assert_eq!(answers[1], Err(SubmitError::TooLarge));
}

#[tokio::test]
async fn a_repeat_is_told_what_came_of_it_also_in_flight_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (desk, journal, task) = desk_at(dir.path(), Options::default()).await;
    let ask = |desk: &Desk, command, key| {
        let desk = desk.clone();
        async move { desk.submit(command, asker(), None, Some(key)).await }
    };
    let (first, second, other) = tokio::join!(
        ask(&desk, create("shop"), key("k", 1)),
        ask(&desk, create("shop"), key("k", 1)),
        ask(&desk, create("blog"), key("k", 2)),
    );
    let first = first.unwrap();
    assert!(first.changed);
    assert_eq!(second.unwrap(), first);
    assert_eq!(other, Err(SubmitError::KeyReused));
    // The keys of another principal are its own.
    let stranger = RequestKey { scope: "uid:7".to_owned(), ..key("k", 2) };
    assert!(!ask(&desk, create("shop"), stranger).await.unwrap().changed);
    // What was so already keeps its answer too; what was refused is decided anew.
    assert!(!ask(&desk, create("shop"), key("same", 1)).await.unwrap().changed);
    let destroy = || Command::App { app: app("blog"), wish: Wish::Destroy { volumes: false } };
    assert!(matches!(ask(&desk, destroy(), key("d", 1)).await, Err(SubmitError::Refused(_))));
    desk.submit(create("blog"), asker(), None, None).await.unwrap();
    assert!(ask(&desk, destroy(), key("d", 1)).await.unwrap().changed);
    close(desk, journal, task).await;

    let (desk, journal, task) = desk_at(dir.path(), Options::default()).await;
    assert_eq!(ask(&desk, create("shop"), key("k", 1)).await.unwrap(), first);
    assert_eq!(ask(&desk, create("shop"), key("k", 3)).await, Err(SubmitError::KeyReused));
    close(desk, journal, task).await;
}

#[tokio::test]
async fn a_snapshot_is_what_a_replay_gives() {
    let dir = tempfile::tempdir().unwrap();
    let (desk, journal, task) = desk_at(dir.path(), Options::default()).await;
    for number in 0..10 {
        let change = config(&format!("a{number}"), "A", number.to_string());
        desk.submit(change, asker(), Some("a reason".to_owned()), None).await.unwrap();
    }
    let halfway = desk.read(Clone::clone);
    replay::keep_snapshot(&journal, [9; 32], &halfway);
    desk.submit(create("after"), asker(), None, None).await.unwrap();
    let served = desk.read(Clone::clone);
    let clock = SystemClock::new();
    check_replay(&served, &replay::replay(&journal, &clock, [9; 32]).unwrap().state).unwrap();
    check_replay(&served, &replay::replay(&journal, &clock, [8; 32]).unwrap().state).unwrap();
    close(desk, journal, task).await;
}
