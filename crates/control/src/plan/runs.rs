//! One-off commands: started once, ended when nobody wants them any more, written down when they are over.

use crate::command::Fact;
use crate::event::{RunEnd, RunMode, RunNumber, RunStop};
use crate::state::{Life, Run};
use crate::world::{Mark, SeenRun};

use super::{Action, Planner};

impl Planner<'_> {
    pub(super) fn runs(&mut self) {
        let app = self.app;
        for (&number, run) in &app.runs {
            let replaced = app.runs.values().any(|other| replaces(other, number));
            match self.seen_run(number, run).cloned() {
                // Its turn never came.
                None if replaced => {
                    self.record(Fact::RunEnded { run: number, end: RunEnd::stopped(RunStop::Replaced) });
                }
                // What it takes the place of has to be over: its end is a change that leads here again.
                None if app.life == Life::Alive && app.runs.keys().any(|other| replaces(run, *other)) => {}
                // It has to wait for a volume that is worked on; the end of that leads here again.
                None if app.life == Life::Alive && crate::volume::keeps_waiting(app, run) => {}
                None if app.life == Life::Alive => self.act(Action::StartRun(number)),
                // It was not started in time, and nothing is to be started any more.
                None => self.record(Fact::RunEnded { run: number, end: RunEnd::stopped(RunStop::Destroyed) }),
                Some(SeenRun { ended: Some(end), .. }) => self.record(Fact::RunEnded { run: number, end }),
                Some(seen) => {
                    if let Some(why) = self.reason_to_stop_run(number, run, &seen) {
                        self.act(Action::StopRun(number, why));
                    }
                }
            }
        }
        let strays: Vec<RunNumber> = self
            .world
            .runs
            .iter()
            .filter(|(number, seen)| app.runs.get(number).is_none_or(|run| run.token != seen.token))
            .map(|(&number, _)| number)
            .collect();
        for number in strays {
            self.act(Action::RemoveRun(number));
        }
    }

    fn seen_run(&self, number: RunNumber, run: &Run) -> Option<&SeenRun> {
        self.world.runs.get(&number).filter(|seen| seen.token == run.token)
    }

    fn reason_to_stop_run(&mut self, number: RunNumber, run: &Run, seen: &SeenRun) -> Option<RunStop> {
        if self.app.life != Life::Alive {
            return Some(RunStop::Destroyed);
        }
        if self.app.runs.values().any(|other| replaces(other, number)) {
            return Some(RunStop::Replaced);
        }
        if matches!(run.mode, RunMode::Attached { .. }) && !seen.attended {
            return Some(RunStop::Unattended);
        }
        self.is_over(Mark::Running(number), run.limit).then_some(RunStop::TimeOver)
    }
}

fn replaces(run: &Run, other: RunNumber) -> bool {
    run.cron.as_ref().is_some_and(|cron| cron.replaces.contains(&other))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::command::{RunWish, Wish};
    use crate::event::RunEnd;
    use crate::scene::{Scene, manifest, v};
    use berth_spec::Millis;

    fn wish(mode: RunMode, release: Option<u64>) -> Wish {
        Wish::Run(Box::new(RunWish {
            release: release.map(v),
            within: None,
            command: berth_spec::Command::Argv(vec!["bin/console".to_owned()]),
            variables: [].into(),
            mode,
            limit: Millis::from_secs(60),
            token: "t".to_owned(),
        }))
    }

    #[test]
    fn a_command_within_an_instance_takes_one_that_is_there() {
        let mut scene = Scene::serving(&["web"], 1, None);
        let ordinal = *scene.app().instances.keys().next().unwrap();
        let within = |ordinal| {
            let Wish::Run(run) = wish(PIPES, None) else { unreachable!("it is one") };
            Wish::Run(Box::new(RunWish { within: Some(ordinal), ..*run }))
        };
        assert_eq!(scene.try_wish(within(ordinal + 7)).unwrap_err().code(), "instance_not_found");
        scene.wish(within(ordinal));
        let run = scene.app().runs.values().next().unwrap();
        assert_eq!((run.within, run.release), (Some(ordinal), v(1)));
    }

    const PIPES: RunMode = RunMode::Attached { terminal: false };

    #[test]
    fn a_command_runs_in_the_release_that_serves_and_is_forgotten_when_it_is_over() {
        let mut scene = Scene::new();
        scene.deploy(None);
        assert_eq!(scene.try_wish(wish(PIPES, None)).unwrap_err().code(), "never_deployed");
        scene.settle();
        assert_eq!(scene.try_wish(wish(PIPES, Some(9))).unwrap_err().code(), "release_not_found");
        scene.wish(wish(PIPES, None));
        assert_eq!(scene.app().runs[&1].release, v(1));
        assert!(scene.pass().actions.contains(&Action::StartRun(1)));
        assert!(scene.plan().actions.is_empty());
        scene.world.runs.get_mut(&1).unwrap().ended = Some(RunEnd { exit: None, why: None, detail: vec![] });
        scene.settle();
        assert!(scene.app().runs.is_empty() && scene.world.runs.is_empty());
        scene.wish(wish(RunMode::Detached, Some(1)));
        assert_eq!(
            scene.app().runs.keys().copied().collect::<Vec<_>>(),
            [2],
            "numbers are never given twice"
        );
    }

    #[test]
    fn it_ends_with_whoever_is_connected_and_when_its_time_is_over() {
        let mut scene = Scene::serving(&["web"], 1, None);
        scene.wish(wish(PIPES, None));
        scene.wish(wish(RunMode::Detached, None));
        scene.pass();
        for run in scene.world.runs.values_mut() {
            run.attended = false;
        }
        assert_eq!(scene.plan().actions, [Action::StopRun(1, RunStop::Unattended)]);
        scene.settle_within(Duration::from_secs(59));
        assert_eq!(scene.app().runs.keys().copied().collect::<Vec<_>>(), [2]);
        scene.settle_within(Duration::from_secs(61));
        assert!(scene.app().runs.is_empty());
    }

    #[test]
    fn what_goes_takes_its_commands_along_and_what_failed_runs_none() {
        let mut scene = Scene::serving(&["web"], 1, None);
        scene.wish(wish(RunMode::Detached, None));
        scene.wish(wish(RunMode::Detached, None));
        scene.healthy = false;
        scene.wish(crate::scene::deploy_of(manifest(None)));
        scene.settle_within(Duration::from_secs(30));
        assert_eq!(scene.failure_code(2), Some("never_listened"));
        assert_eq!(scene.try_wish(wish(PIPES, Some(2))).unwrap_err().code(), "release_gone");
        scene.wish(Wish::Destroy { volumes: false });
        scene.settle();
        assert_eq!(
            (scene.app().life, scene.app().runs.len(), scene.world.runs.len()),
            (Life::Destroyed, 0, 0)
        );
    }

    #[test]
    fn only_so_many_run_at_a_time() {
        let mut scene = Scene::serving(&["web"], 1, None);
        for _ in 0..crate::decide::MAX_RUNS {
            scene.wish(wish(RunMode::Detached, None));
        }
        assert_eq!(scene.try_wish(wish(PIPES, None)).unwrap_err().code(), "limit_exceeded");
    }
}
