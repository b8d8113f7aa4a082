//! The machine over a runtime that only takes note of what it is asked.

use std::io::Read as _;

use berth_clock::ManualClock;
use berth_control::state::{App, State};
use berth_journal::{Journal, Options};
use berth_runtime::{
    Answer, Attach, Attached, Capabilities, Exec, Executing, Finished, InstanceLog, InstanceSpec, Observed,
    RuntimeError, RuntimeEvent, Stop,
};
use berth_spec::{ReleaseId, Timestamp};
use tokio::sync::{broadcast, watch};

use super::*;
use crate::desk;
use crate::stage::config;

/// Knows no instance, never ends a command, and writes down what it is asked to end.
#[derive(Debug)]
struct Deaf {
    events: broadcast::Sender<RuntimeEvent>,
    removed: watch::Sender<Vec<InstanceId>>,
}

fn unknown<'a, T>(id: &InstanceId) -> Answer<'a, T> {
    let error = RuntimeError::NotFound(id.clone());
    Box::pin(async { Err(error) })
}

impl Runtime for Deaf {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            backend: "deaf",
            daemon: None,
            isolation: berth_spec::Isolation::Plain,
            missing: Vec::new(),
            limits: Vec::new(),
            users: false,
            cgroup: None,
            freezes: false,
            own_network: false,
            no_egress: None,
            names: false,
        }
    }

    fn start(&self, spec: InstanceSpec) -> Answer<'_, Observed> {
        unknown(&spec.id)
    }

    fn start_attached(&self, spec: InstanceSpec, _how: Attach) -> Answer<'_, (Observed, Attached)> {
        unknown(&spec.id)
    }

    fn over<'a>(&'a self, id: &'a InstanceId) -> Answer<'a, Observed> {
        unknown(id)
    }

    fn adopt_all(&self) -> Answer<'_, Vec<Observed>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn list(&self) -> Vec<Observed> {
        Vec::new()
    }

    fn list_app(&self, _app: &AppId) -> Vec<Observed> {
        Vec::new()
    }

    fn observe<'a>(&'a self, id: &'a InstanceId) -> Answer<'a, Observed> {
        unknown(id)
    }

    fn tell_names(&self, _names: berth_routing::Names) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn stop<'a>(&'a self, id: &'a InstanceId, _how: Stop) -> Answer<'a, Observed> {
        unknown(id)
    }

    fn signal<'a>(&'a self, id: &'a InstanceId, _signal: i32) -> Answer<'a, ()> {
        unknown(id)
    }

    fn exec<'a>(
        &'a self,
        _id: &'a InstanceId,
        _command: Exec,
        _how: Attach,
    ) -> Answer<'a, (Attached, Executing)> {
        unreachable!()
    }

    fn freeze<'a>(&'a self, _id: &'a InstanceId, _then: berth_runtime::Frozen) -> Answer<'a, ()> {
        unreachable!()
    }

    fn thaw<'a>(&'a self, _id: &'a InstanceId) -> Answer<'a, ()> {
        unreachable!()
    }

    fn kill<'a>(&'a self, id: &'a InstanceId) -> Answer<'a, Observed> {
        unknown(id)
    }

    fn remove<'a>(&'a self, id: &'a InstanceId) -> Answer<'a, ()> {
        self.removed.send_modify(|removed| removed.push(id.clone()));
        Box::pin(async { Ok(()) })
    }

    fn watch(&self) -> broadcast::Receiver<RuntimeEvent> {
        self.events.subscribe()
    }

    fn run_once(&self, _spec: InstanceSpec, _limit: Option<Duration>) -> Answer<'_, Finished> {
        Box::pin(std::future::pending())
    }

    fn log(&self, id: &InstanceId) -> InstanceLog {
        panic!("nothing of {id} is read here")
    }

    fn remove_log<'a>(&'a self, _id: &'a InstanceId) -> Answer<'a, ()> {
        Box::pin(async { Ok(()) })
    }
}

struct Stage {
    _dir: tempfile::TempDir,
    _ends: Vec<UnixStream>,
    supervisor: UnixStream,
    clock: Arc<ManualClock>,
    machine: Arc<Machine>,
    removed: watch::Receiver<Vec<InstanceId>>,
    _desk_task: tokio::task::JoinHandle<()>,
}

impl Stage {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp(1), 7));
        let (config, mut ends) = config(dir.path(), Arc::<ManualClock>::clone(&clock));
        let journal = Arc::new(Journal::open(&dir.path().join("journal"), Options::default()).unwrap());
        let (desk, task) = desk::open(journal, Arc::clone(&config.clock), State::default()).await;
        let desk_task = tokio::spawn(task.run());
        let mut machine = Machine::open(&config, &desk).await.unwrap();
        let (removed_sender, removed) = watch::channel(Vec::new());
        machine.runtime = Arc::new(Deaf { events: broadcast::channel(4).0, removed: removed_sender });
        let supervisor = ends.pop().unwrap();
        let machine = Arc::new(machine);
        Self { _dir: dir, _ends: ends, supervisor, clock, machine, removed, _desk_task: desk_task }
    }
}

fn first() -> ReleaseId {
    "default/default/shop/v1".parse().unwrap()
}

#[tokio::test]
async fn edge_is_restarted_once_however_many_apps_wait_for_it() {
    let mut stage = Stage::new().await;
    let asked: Vec<bool> = (0..50).map(|_| stage.machine.restart_edge()).collect();
    assert_eq!(asked.iter().filter(|it| **it).count(), 1);
    stage.clock.advance(APPLY_DEADLINE);
    assert!(stage.machine.restart_edge() && !stage.machine.restart_edge());
    drop(stage.machine);
    stage.supervisor.set_nonblocking(true).unwrap();
    let mut said = String::new();
    drop(stage.supervisor.read_to_string(&mut said));
    assert_eq!(said, "restart-edge\nrestart-edge\n");
}

#[tokio::test]
async fn a_release_command_that_nobody_needs_is_ended_and_forgotten() {
    let mut stage = Stage::new().await;
    let release = first();
    assert!(stage.machine.jobs.begin_command(&release));
    let runs = tokio::spawn(std::future::pending::<()>());
    stage.machine.jobs.set_command_task(&release, runs.abort_handle());
    let app = App::new(release.app.clone());
    for _ in 0..3 {
        stage.machine.cancel_build(&app, release.number);
    }
    assert!(runs.await.unwrap_err().is_cancelled());
    let removed = stage.removed.wait_for(|removed| !removed.is_empty()).await.unwrap().clone();
    assert_eq!(removed.iter().map(InstanceId::short).collect::<Vec<_>>(), ["release-command.1"]);
    // Told once it is forgotten, so that the planner sees it gone.
    assert_eq!(stage.machine.desk.changed().take().await, [release.app.clone()].into());
    assert!(stage.machine.jobs.commands_of(&release.app).is_empty());
}

#[tokio::test]
async fn looking_at_old_builds_drives_no_output_out() {
    let stage = Stage::new().await;
    let running = stage.machine.build_output(&first().app, first().number, false);
    running.push("a line");
    for number in 2..200 {
        let old = stage.machine.build_output(&first().app, ReleaseNumber(number), true);
        assert_eq!(old.count(), 0);
    }
    assert_eq!(stage.machine.build_output(&first().app, first().number, false).count(), 1);
}

#[tokio::test]
async fn what_is_noted_of_an_instance_goes_with_it() {
    let stage = Stage::new().await;
    let app = App::new(first().app);
    let gone = app.id.instance("web".parse().unwrap(), 3);
    {
        let mut notes = stage.machine.notes();
        notes.not_started.insert(gone.clone(), ("start_failed".to_owned(), "no room".to_owned()));
        notes.unwritten_exits.entry(gone).or_default();
        notes.seen.insert(app.id.clone(), BTreeMap::new());
    }
    assert_eq!(stage.machine.observe(&app).await.instances, BTreeMap::new());
    let notes = stage.machine.notes();
    assert!(notes.not_started.is_empty() && notes.unwritten_exits.is_empty() && notes.seen.is_empty());
}
