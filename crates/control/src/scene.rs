//! A small stage for the tests: one app, a world that does what it is told unless a test says otherwise, and all events in order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use berth_routing::Generation;
use berth_routing::wire::Health;
use berth_spec::manifest::{Manifest, Strategy};
use berth_spec::{AppId, Millis, ProcessName, ReleaseNumber, Timestamp};

use crate::command::{Command, Deploy, Fact, Refusal, Wish};
use crate::decide::decide;
use crate::event::{Artifact, Event, Image, Ordinal, Stream, VolumeDeed};
use crate::fold::Stamp;
use crate::invariant::{check_freeze, check_newly_routed, check_start, check_step, check_stop, check_wake};
use crate::plan::{Action, Plan, plan};
use crate::state::{App, Instance, State};
use crate::world::{
    AppWorld, Build, Check, EdgeProcess, Life, Listener, Probed, ReleaseCommand, Seen, SeenRun, Stopwatch,
};

/// The stage.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    pub(crate) state: State,
    pub(crate) world: AppWorld,
    pub(crate) watch: Stopwatch,
    pub(crate) now: Duration,
    /// What happened so far.
    pub(crate) log: Vec<Event>,
    /// The processes of artifacts that are built from now on.
    pub(crate) processes: Vec<&'static str>,
    /// Whether instances that are started from now on get ready.
    pub(crate) healthy: bool,
    /// What image artifacts are that are built from now on.
    pub(crate) image: Option<Image>,
    /// How instances that are started from now on stand with a check of their own.
    pub(crate) check: Option<Check>,
    /// Whether edge takes over what is published.
    pub(crate) edge_follows: bool,
    /// What release commands come to.
    pub(crate) command: ReleaseCommand,
    pub(crate) edge_restarts: u32,
    tokens: u64,
}

pub(crate) fn shop() -> AppId {
    "default/default/shop".parse().unwrap()
}

pub(crate) fn web() -> ProcessName {
    "web".parse().unwrap()
}

pub(crate) fn worker() -> ProcessName {
    "worker".parse().unwrap()
}

pub(crate) fn v(number: u64) -> ReleaseNumber {
    ReleaseNumber(number)
}

/// A manifest with short times and this strategy.
pub(crate) fn manifest(strategy: Option<Strategy>) -> Manifest {
    let mut manifest = Manifest::default();
    manifest.deploy.strategy = strategy;
    manifest.deploy.warm = Millis::from_secs(60);
    manifest.deploy.timeout = Millis::from_secs(120);
    manifest.shutdown.drain = Millis::from_secs(10);
    manifest
}

pub(crate) fn deploy_of(manifest: Manifest) -> Wish {
    Wish::Deploy(Box::new(Deploy { tree: "t1".to_owned(), manifest, description: None, commit: None }))
}

pub(crate) fn artifact(id: &str, processes: &[&str]) -> Artifact {
    let command = |name: &&str| {
        let command = berth_spec::command::Command::Argv(vec![format!("bin/{name}")]);
        (name.parse().unwrap(), command)
    };
    let processes = processes.iter().map(command).collect();
    Artifact { id: id.to_owned(), processes, bytes: 1, ..Artifact::default() }
}

impl Scene {
    /// The default project, and nothing in it.
    pub(crate) fn new() -> Self {
        let mut world = AppWorld::default();
        world.edge.alive = Some(EdgeProcess::default());
        let mut scene = Self {
            state: State::default(),
            world,
            watch: Stopwatch::default(),
            now: Duration::ZERO,
            log: Vec::new(),
            processes: vec!["web"],
            healthy: true,
            image: None,
            check: None,
            edge_follows: true,
            command: ReleaseCommand::Succeeded,
            edge_restarts: 0,
            tokens: 0,
        };
        scene.command(&Command::EnsureProject { project: "default/default".parse().unwrap() }).unwrap();
        scene
    }

    /// An app that serves v1, with `count` web instances.
    pub(crate) fn serving(processes: &[&'static str], count: u32, strategy: Option<Strategy>) -> Self {
        let mut scene = Self::new();
        scene.processes = processes.to_vec();
        scene.wish(deploy_of(manifest(strategy)));
        scene.wish(Wish::Scale { processes: [(web(), count)].into() });
        scene.settle();
        assert_eq!(scene.app().serving, Some(v(1)), "{scene:?}");
        scene
    }

    pub(crate) fn app(&self) -> &App {
        &self.state.apps[&shop()]
    }

    /// Decides, folds, checks.
    pub(crate) fn command(&mut self, command: &Command) -> Result<Vec<Event>, Refusal> {
        let decision = decide(&self.state, command)?;
        let before = match &decision.stream {
            Stream::App(id) => {
                self.state.apps.get(id).map_or_else(|| App::new(id.clone()), |app| App::clone(app))
            }
            Stream::Platform => App::new(shop()),
        };
        for event in &decision.events {
            let position = self.state.position + 1;
            let at = self.world.wall.unwrap_or(Timestamp(position));
            let stamp = Stamp { position, at, actor: "test".to_owned() };
            self.state.apply(&decision.stream, event, &stamp);
        }
        if let Stream::App(id) = &decision.stream
            && !decision.events.is_empty()
        {
            check_step(&before, &decision.events, &self.state.apps[id]).unwrap();
        }
        self.log.extend(decision.events.iter().cloned());
        Ok(decision.events)
    }

    pub(crate) fn try_wish(&mut self, wish: Wish) -> Result<Vec<Event>, Refusal> {
        self.command(&Command::App { app: shop(), wish })
    }

    pub(crate) fn wish(&mut self, wish: Wish) -> Vec<Event> {
        self.try_wish(wish).unwrap()
    }

    pub(crate) fn fact(&mut self, fact: Fact) -> Result<Vec<Event>, Refusal> {
        self.command(&Command::Fact { app: shop(), fact })
    }

    pub(crate) fn deploy(&mut self, strategy: Option<Strategy>) {
        self.wish(deploy_of(manifest(strategy)));
    }

    pub(crate) fn scale(&mut self, process: ProcessName, count: u32) {
        self.wish(Wish::Scale { processes: [(process, count)].into() });
    }

    pub(crate) fn plan(&mut self) -> Plan {
        let app = std::sync::Arc::clone(&self.state.apps[&shop()]);
        plan(&app, &self.world, &mut self.watch, self.now)
    }

    /// One pass: plans and performs. Returns what was planned.
    pub(crate) fn pass(&mut self) -> Plan {
        let app = App::clone(self.app());
        let seen = self.world.clone();
        let plan = self.plan();
        for action in plan.actions.clone() {
            self.perform(action, &app, &seen);
        }
        self.publish();
        plan
    }

    fn perform(&mut self, action: Action, app: &App, seen: &AppWorld) {
        match action {
            Action::Record(fact) => {
                check_fact(&fact, app, seen);
                match self.fact(fact) {
                    Ok(_) | Err(Refusal::Stale(_)) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            Action::Assign { release, process, count } => {
                let tokens = (0..count).map(|_| self.token()).collect();
                self.perform(Action::Record(Fact::Assign { release, process, tokens }), app, seen);
            }
            Action::Build(number) => {
                let made = artifact(&format!("a-{number}"), &self.processes);
                let artifact = Artifact { image: self.image.clone().map(Box::new), ..made };
                self.world.builds.insert(number, Build::Done(artifact));
            }
            Action::CancelBuild(number) => {
                self.world.builds.remove(&number);
                self.world.commands.remove(&number);
            }
            Action::RunReleaseCommand(number) => {
                self.world.commands.insert(number, self.command.clone());
            }
            Action::Start(ordinal) => {
                check_start(app, ordinal, seen).unwrap();
                self.start(ordinal);
            }
            Action::Stop(ordinal) => {
                check_stop(app, ordinal, seen, true).unwrap();
                if let Some(it) = self.world.instances.get_mut(&ordinal) {
                    it.life = Life::Gone;
                }
            }
            Action::Freeze(ordinal) => self.freeze(ordinal, app, seen),
            Action::Thaw(ordinal) => drop(self.world.frozen.insert(ordinal, false)),
            Action::Remove(ordinal) => {
                self.world.instances.remove(&ordinal);
                self.world.health.remove(&ordinal);
            }
            Action::Cron { entry, at } => {
                let token = self.token();
                self.perform(Action::Record(Fact::Cron { entry, at, token }), app, seen);
            }
            Action::StartRun(number) => {
                let token = self.app().runs[&number].token.clone();
                self.world.runs.insert(number, SeenRun { token, attended: true, ended: None });
            }
            Action::StopRun(number, why) => {
                if let Some(run) = self.world.runs.get_mut(&number) {
                    run.ended = Some(crate::event::RunEnd::stopped(why));
                }
            }
            Action::RemoveRun(number) => drop(self.world.runs.remove(&number)),
            Action::WorkOnVolume(work) => {
                let stands_still = seen.freezes && work.what == VolumeDeed::Snapshot;
                let runs = |(ordinal, it): (&Ordinal, &Instance)| {
                    let life = seen.instances.get(ordinal).map(|seen| &seen.life);
                    crate::volume::is_wanted_for_work(app, it) && life == Some(&Life::Running)
                };
                assert!(stands_still || !app.instances.iter().any(runs), "{work:?} while something has it");
                self.world.volume_worked = Some((work, None));
            }
            Action::RemoveVolumes => self.world.volumes_left = false,
            Action::RestartEdge => {
                self.edge_restarts += 1;
                self.world.edge.alive = Some(EdgeProcess { applied: self.world.edge.durable });
            }
        }
    }

    fn freeze(&mut self, ordinal: Ordinal, app: &App, seen: &AppWorld) {
        check_freeze(app, ordinal, seen).unwrap();
        self.world.frozen.insert(ordinal, true);
    }

    /// Time passes.
    pub(crate) fn wait(&mut self, span: Millis) {
        self.now += span.as_duration();
        self.world.wall = self.world.wall.map(|wall| wall + span);
    }

    fn token(&mut self) -> String {
        self.tokens += 1;
        format!("{:08x}", self.tokens)
    }

    fn start(&mut self, ordinal: Ordinal) {
        let instance = &self.app().instances[&ordinal];
        let is_web = instance.process.is_web();
        let seen = Seen {
            token: instance.token.clone(),
            life: Life::Running,
            port: is_web.then(|| 20_000 + u16::try_from(ordinal).unwrap()),
            dialer: None,
            listener: if is_web && self.healthy { Listener::Expected } else { Listener::None },
            restarts: 0,
            last_exit: None,
            log_tail: Vec::new(),
            not_begun: Vec::new(),
            check: self.check.clone(),
        };
        self.world.instances.insert(ordinal, seen);
        let health = if self.healthy { Health::Ready } else { Health::Unready };
        if is_web {
            self.world
                .health
                .insert(ordinal, Probed { health, evidence: vec!["GET /healthz: 200".to_owned()] });
        }
    }

    /// Makes the state durable and, where edge follows, used.
    pub(crate) fn publish(&mut self) {
        let generation = Generation(self.state.position);
        self.world.edge.durable = generation;
        if !self.edge_follows {
            return;
        }
        self.world.edge.alive = Some(EdgeProcess { applied: generation });
        let idle: BTreeMap<Ordinal, Generation> = match self.state.apps.get(&shop()) {
            Some(app) => app
                .instances
                .keys()
                .filter(|it| !app.routed.contains(it))
                .map(|&it| (it, generation))
                .collect(),
            None => BTreeMap::new(),
        };
        self.world.still = idle.clone();
        self.world.drained = idle;
    }

    /// Passes until there is nothing to do and nothing to wait for below an hour.
    pub(crate) fn settle(&mut self) {
        self.settle_within(Duration::from_secs(3_600));
    }

    /// Passes until there is nothing to do and nothing to wait for within `patience`.
    pub(crate) fn settle_within(&mut self, patience: Duration) {
        let end = self.now + patience;
        for _ in 0..1_000 {
            let plan = self.pass();
            if plan.actions.is_empty() {
                let Some(again) = plan.look_again else { return };
                if self.now + again.as_duration() > end {
                    return;
                }
                self.wait(again);
            }
        }
        panic!("it does not settle: {:?}", self.plan());
    }

    /// Passes until `done`, letting time pass as the planner asks for.
    pub(crate) fn run_until(&mut self, done: impl Fn(&Self) -> bool) {
        for _ in 0..1_000 {
            if done(self) {
                return;
            }
            let plan = self.pass();
            if plan.actions.is_empty() {
                self.wait(plan.look_again.unwrap_or(Millis(1)));
            }
        }
        panic!("it never came to it: {:?}", self.app());
    }

    pub(crate) fn routed_releases(&self) -> BTreeSet<ReleaseNumber> {
        self.app().routed.iter().map(|it| self.app().instances[it].release).collect()
    }

    /// The index in the log of the first event that fits.
    pub(crate) fn first(&self, fits: impl Fn(&Event) -> bool) -> usize {
        self.log.iter().position(fits).unwrap_or_else(|| panic!("no such event in {:#?}", self.log))
    }

    pub(crate) fn failure_code(&self, number: u64) -> Option<&str> {
        self.app().release(v(number))?.failure.as_ref().map(|failure| failure.code.as_str())
    }
}

fn check_fact(fact: &Fact, app: &App, seen: &AppWorld) {
    match fact {
        Fact::Route { ordinals } => check_newly_routed(app, ordinals, seen).unwrap(),
        Fact::Wake { ordinals, .. } => check_wake(app, ordinals, seen).unwrap(),
        _ => {}
    }
}
