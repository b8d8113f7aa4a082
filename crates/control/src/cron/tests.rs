//! Decisions about entries as time passes, jumps and stands still.

use std::collections::BTreeMap;

use berth_spec::manifest::Manifest;
use proptest::prelude::*;

use super::*;
use crate::command::{Fact, Wish};
use crate::plan::Action;
use crate::scene::{Scene, deploy_of, v, web};

const HOUR: Millis = Millis::from_secs(3_600);
const MINUTE: Millis = Millis::from_secs(60);
/// 1 January 2026, 00:30 UTC.
const START: Timestamp = Timestamp(1_767_227_400_000);

fn name(text: &str) -> CronName {
    text.parse().unwrap()
}

fn manifest(entries: &str) -> Manifest {
    let mut manifest = Manifest::parse(entries).unwrap_or_else(|problems| panic!("{problems}"));
    manifest.deploy.warm = MINUTE;
    manifest
}

fn entry(schedule: &str, more: &str) -> String {
    format!("[[cron]]\nname = \"tidy\"\nschedule = \"{schedule}\"\ncommand = \"bin/tidy\"\n{more}\n")
}

/// An app that serves a release with these entries since [`START`].
fn serving(entries: &str) -> Scene {
    let mut scene = Scene::new();
    scene.world.wall = Some(START);
    scene.wish(deploy_of(manifest(entries)));
    scene.run_until(|scene| scene.app().serving == Some(v(1)));
    scene
}

impl Scene {
    fn wall(&self) -> Timestamp {
        self.world.wall.unwrap()
    }

    /// The run that goes on ends well.
    fn end_runs(&mut self) {
        let exit = Exit { status: Some(0), signal: None, after: Millis(5), oom: None, unhealthy: false };
        for run in self.world.runs.values_mut().filter(|run| run.ended.is_none()) {
            run.ended = Some(crate::event::RunEnd { exit: Some(exit), why: None, detail: vec![] });
        }
        while !self.pass().actions.is_empty() {}
    }

    /// When the entry was due that were run, in their order.
    fn moments(&self) -> Vec<Timestamp> {
        let due = |event: &Event| match event {
            Event::RunAssigned { cron, .. } => cron.as_ref()?.due,
            _ => None,
        };
        self.log.iter().filter_map(due).collect()
    }

    fn skips(&self) -> Vec<(CronSkip, u64)> {
        let skip = |event: &Event| match event {
            Event::CronSkipped { why, missed, .. } => Some((*why, *missed)),
            _ => None,
        };
        self.log.iter().filter_map(skip).collect()
    }

    /// Lets time pass as the planner asks for, every run ending at once.
    fn live(&mut self, span: Millis) {
        let end = self.wall() + span;
        loop {
            let plan = self.pass();
            self.end_runs();
            let again = plan.look_again.unwrap_or(HOUR);
            if !plan.actions.is_empty() {
                continue;
            }
            let left = end - self.wall();
            self.wait(again.min(left));
            if left <= again {
                return;
            }
        }
    }
}

#[test]
fn an_entry_runs_when_it_is_due_and_not_before() {
    let mut scene = serving(&entry("@hourly", ""));
    assert!(scene.moments().is_empty());
    scene.live(Millis(3 * HOUR.0));
    let first = Timestamp(START.0 + 30 * MINUTE.0);
    assert_eq!(scene.moments(), [first, first + HOUR, first + Millis(2 * HOUR.0)]);
    let progress = &scene.app().cron[&name("tidy")];
    assert!(matches!(progress.past[0].outcome, CronOutcome::Ended { run: 1, why: None, .. }), "{progress:?}");
    assert_eq!((progress.past.len(), scene.skips().len()), (3, 0));
}

#[test]
fn what_was_missed_is_made_up_for_once_or_told() {
    let mut scene = serving(&entry("@hourly", "catch_up = \"10m\""));
    // The platform is down for five hours and six minutes beyond the hour; then until twenty beyond.
    scene.wait(Millis(5 * HOUR.0 + 36 * MINUTE.0));
    scene.live(MINUTE);
    assert_eq!(scene.moments(), [Timestamp(START.0 + 5 * HOUR.0 + 30 * MINUTE.0)]);
    let Event::RunAssigned { cron: Some(cron), .. } =
        scene.log.iter().find(|it| matches!(it, Event::RunAssigned { .. })).unwrap()
    else {
        panic!("it is a command of an entry")
    };
    assert_eq!(cron.missed, 5);
    scene.wait(Millis(2 * HOUR.0 + 14 * MINUTE.0));
    scene.live(MINUTE);
    assert_eq!((scene.moments().len(), scene.skips()), (1, vec![(CronSkip::TooLate, 1)]));
    // Nothing is late within a minute.
    let mut scene = serving(&entry("@hourly", "catch_up = \"0s\""));
    scene.wait(Millis(30 * MINUTE.0 + 59_000));
    scene.pass();
    assert_eq!(scene.moments().len(), 1);
}

#[test]
fn one_that_has_not_ended_is_left_alone_joined_or_replaced() {
    for (concurrency, runs, skips) in [("forbid", 1, 1), ("allow", 2, 0), ("replace", 2, 0)] {
        let mut scene = serving(&entry("* * * * *", &format!("concurrency = \"{concurrency}\"")));
        scene.wait(MINUTE);
        while !scene.pass().actions.is_empty() {}
        scene.wait(MINUTE);
        scene.pass();
        assert_eq!((scene.moments().len(), scene.skips().len()), (runs, skips), "{concurrency}");
        if concurrency == "replace" {
            let plan = scene.plan();
            assert_eq!(plan.actions, [Action::StopRun(1, RunStop::Replaced)]);
            while !scene.pass().actions.is_empty() {}
            assert_eq!(scene.app().runs.keys().copied().collect::<Vec<_>>(), [2]);
            assert_eq!(scene.world.runs.keys().copied().collect::<Vec<_>>(), [2]);
        }
        if concurrency == "forbid" {
            assert_eq!(scene.skips(), [(CronSkip::StillRunning { run: 1 }, 0)]);
            let refused = scene.try_wish(Wish::RunCron { entry: name("tidy"), token: "t".to_owned() });
            assert_eq!(refused.unwrap_err().code(), "cron_running");
        }
    }
}

#[test]
fn one_whose_turn_never_came_is_over_when_another_takes_it() {
    let mut scene = serving(&entry("* * * * *", "concurrency = \"replace\""));
    let now = |scene: &mut Scene| scene.wish(Wish::RunCron { entry: name("tidy"), token: "t".to_owned() });
    now(&mut scene);
    scene.pass();
    now(&mut scene);
    now(&mut scene);
    // Of three the first runs, and the second waits for it.
    let plan = scene.plan();
    assert!(plan.actions.contains(&Action::StopRun(1, RunStop::Replaced)), "{plan:?}");
    assert!(!plan.actions.iter().any(|action| matches!(action, Action::StartRun(_))), "{plan:?}");
    while !scene.pass().actions.is_empty() {}
    assert_eq!(scene.app().runs.keys().copied().collect::<Vec<_>>(), [3]);
}

#[test]
fn ten_at_a_time_are_enough() {
    let mut scene = serving(&entry("* * * * *", "concurrency = \"allow\""));
    for _ in 0..12 {
        scene.wait(MINUTE);
        while !scene.pass().actions.is_empty() {}
    }
    assert_eq!((scene.moments().len(), scene.skips()), (RUNS_MAX, vec![(CronSkip::TooMany, 0); 2]));
    let one_off = crate::command::RunWish {
        within: None,
        release: None,
        command: berth_spec::Command::Argv(vec!["bin/console".to_owned()]),
        variables: BTreeSet::new(),
        mode: RunMode::Detached,
        limit: HOUR,
        token: "t".to_owned(),
    };
    scene.wish(Wish::Run(Box::new(one_off)));
}

#[test]
fn entries_belong_to_the_release_that_serves() {
    let mut scene = serving(&entry("@hourly", ""));
    scene.live(HOUR);
    assert_eq!(scene.moments().len(), 1);
    scene.wish(deploy_of(manifest("")));
    scene.live(HOUR);
    assert!(scene.app().cron.is_empty(), "{:?}", scene.app().cron);
    assert_eq!(scene.moments().len(), 1);
    let to_first = || Wish::Rollback { to: v(1), keep_config: false };
    scene.wish(to_first());
    scene.live(HOUR);
    assert_eq!(scene.moments().len(), 2, "{:?}", scene.moments());
    // With another schedule it begins anew: nothing of the last hour is made up for.
    scene.wish(deploy_of(manifest(&entry("*/10 * * * *", ""))));
    scene.live(MINUTE);
    assert_eq!(scene.moments().len(), 2, "{:?}", scene.moments());
    assert_eq!(scene.app().cron[&name("tidy")].past.len(), 1);
    let refused = scene.try_wish(Wish::RunCron { entry: name("other"), token: "t".to_owned() }).unwrap_err();
    assert_eq!(
        (refused.code(), refused.to_string()),
        ("cron_not_found", "default/default/shop has no cron entry other; it has tidy".to_owned())
    );
}

#[test]
fn what_is_stopped_or_destroyed_runs_nothing() {
    let mut scene = serving(&entry("@hourly", ""));
    scene.wish(Wish::Scale { processes: [(web(), 0)].into() });
    scene.live(Millis(3 * HOUR.0));
    assert_eq!(scene.moments(), []);
    scene.wish(Wish::Scale { processes: [(web(), 1)].into() });
    scene.live(MINUTE);
    assert_eq!((scene.moments(), scene.skips()), (vec![], vec![]), "nothing is made up for");
    scene.live(HOUR);
    assert_eq!(scene.moments().len(), 1);
    let ran = scene.moments()[0];
    scene.wish(Wish::Destroy { volumes: false });
    scene.live(Millis(2 * HOUR.0));
    assert_eq!((scene.moments().len(), scene.app().life), (1, Life::Destroyed));
    // In its next life it does not run what it ran, though the clock says so.
    scene.world.wall = Some(Timestamp(ran.0 - MINUTE.0));
    scene.wish(deploy_of(manifest(&entry("@hourly", ""))));
    scene.live(Millis(2 * MINUTE.0));
    assert_eq!(scene.moments(), [ran]);
}

#[test]
fn a_clock_that_is_set_back_repeats_nothing_unless_it_was_wrong() {
    let mut scene = serving(&entry("@hourly", ""));
    scene.live(Millis(2 * HOUR.0));
    let ran = scene.moments();
    scene.world.wall = Some(Timestamp(scene.wall().0 - 2 * HOUR.0));
    scene.live(Millis(2 * HOUR.0));
    assert_eq!(scene.moments(), ran);
    // A year ahead, and back.
    scene.world.wall = Some(Timestamp(scene.wall().0 + 365 * 24 * HOUR.0));
    scene.live(HOUR);
    assert_eq!(scene.moments().len(), ran.len() + 2, "what was missed in a year is made up for once");
    scene.world.wall = Some(Timestamp(scene.wall().0 - 365 * 24 * HOUR.0));
    scene.live(HOUR);
    assert!(scene.log.iter().any(|event| matches!(event, Event::CronSetBack { .. })));
    assert_eq!(scene.moments().len(), ran.len() + 3);
}

#[test]
fn a_decision_that_is_asked_for_twice_is_made_once() {
    let mut scene = serving(&entry("@hourly", ""));
    let ask = |scene: &mut Scene, at| {
        scene.fact(Fact::Cron { entry: name("tidy"), at, token: "t".to_owned() }).unwrap().len()
    };
    let due = Timestamp(START.0 + 30 * MINUTE.0);
    assert_eq!(ask(&mut scene, Timestamp(due.0 - 1)), 0);
    assert_eq!((ask(&mut scene, due), ask(&mut scene, due), ask(&mut scene, due + MINUTE)), (1, 0, 0));
}

#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    Jump(i64),
    Restart,
    Deploy(u8),
    End,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1_u64..7_200_000).prop_map(Step::Pass),
        1 => (-10_000_000_i64..100_000_000).prop_map(Step::Jump),
        1 => Just(Step::Restart),
        1 => (0_u8..3).prop_map(Step::Deploy),
        3 => Just(Step::End),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Jumps back are below three hours here, and ahead they are a day: at most one run for each look, none twice, all of them real.
    #[test]
    fn no_moment_runs_twice_whatever_time_does(steps in proptest::collection::vec(step(), 1..40), often in 0_usize..3) {
        let schedule = ["@hourly", "*/7 * * * *", "0 3 * * *"][often];
        let mut scene = serving(&entry(schedule, "concurrency = \"allow\""));
        let mut highest = scene.wall();
        for step in steps {
            match step {
                Step::Pass(span) => scene.wait(Millis(span)),
                Step::Jump(by) => {
                    // From the highest time there was, or jumps would add up.
                    let to = scene.wall().0.saturating_add_signed(by).max(highest.0 - 10_000_000);
                    scene.world.wall = Some(Timestamp(to));
                }
                Step::Restart => scene.watch = crate::world::Stopwatch::default(),
                Step::Deploy(which) => {
                    let entries = [String::new(), entry(schedule, ""), entry("*/20 * * * *", "")];
                    scene.wish(deploy_of(manifest(&entries[usize::from(which)])));
                }
                Step::End => scene.end_runs(),
            }
            highest = highest.max(scene.wall());
            let before = scene.moments().len();
            while !scene.pass().actions.is_empty() {}
            prop_assert!(scene.moments().len() <= before + 1, "{:?}", scene.moments());
        }
        let mut counts: BTreeMap<Timestamp, u32> = BTreeMap::new();
        for moment in scene.moments() {
            *counts.entry(moment).or_default() += 1;
            prop_assert!(moment <= highest);
        }
        prop_assert!(counts.values().all(|count| *count == 1), "{counts:?}");
        let set_back = scene.log.iter().any(|event| matches!(event, Event::CronSetBack { .. }));
        prop_assert!(!set_back);
    }
}
