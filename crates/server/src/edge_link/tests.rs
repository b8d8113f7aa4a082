//! The link to edge, with edges that a test plays.

use berth_clock::ManualClock;
use berth_control::command::{Command, Deploy, Fact, Wish};
use berth_control::event::{Artifact, GoneCause, StopReason};
use berth_control::state::State;
use berth_journal::{Journal, Options};
use berth_routing::Role;
use berth_routing::wire::{AppCounts, Decoder, PROTOCOL};
use berth_spec::manifest::Manifest;
use berth_spec::{ReleaseNumber, Timestamp};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::*;
use crate::desk::{self, Asker};

fn shelf(routing: &Path) -> CertificateShelf {
    let vault = crate::secrets::Vault::new(crate::config::KeyEncryptionKey::new([7; 32]));
    CertificateShelf::open(routing, None, Arc::new(vault)).unwrap()
}

struct Stage {
    dir: tempfile::TempDir,
    desk: Desk,
    link: Arc<EdgeLink>,
    _desk_task: tokio::task::JoinHandle<()>,
}

fn shop() -> AppId {
    "default/default/shop".parse().unwrap()
}

fn instance(ordinal: Ordinal) -> InstanceId {
    shop().instance("web".parse().unwrap(), ordinal)
}

impl Stage {
    /// An app that serves with one instance, at port 20001.
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("routing")).unwrap();
        let journal = Arc::new(Journal::open(&dir.path().join("journal"), Options::default()).unwrap());
        let clock = Arc::new(ManualClock::new(Timestamp(1), 7));
        let (desk, task) = desk::open(journal, Arc::clone(&clock) as Arc<dyn Clock>, State::default()).await;
        let claims = EdgeClaims::below(dir.path());
        let routing = dir.path().join("routing");
        let link = Arc::new(EdgeLink::open(&routing, None, claims, shelf(&routing), clock).unwrap());
        let stage = Self { dir, desk, link, _desk_task: tokio::spawn(task.run()) };
        stage.submit(Command::EnsureProject { project: "default/default".parse().unwrap() }).await;
        let deploy =
            Deploy { tree: "t".to_owned(), manifest: Manifest::default(), description: None, commit: None };
        stage.submit(Command::App { app: shop(), wish: Wish::Deploy(Box::new(deploy)) }).await;
        let release = ReleaseNumber(1);
        let process: berth_spec::ProcessName = "web".parse().unwrap();
        let command = berth_spec::Command::Argv(vec!["bin/web".to_owned()]);
        let processes = [(process.clone(), command)].into();
        let artifact = Artifact { id: "a".to_owned(), processes, bytes: 1, ..Artifact::default() };
        stage.fact(Fact::Built { release, artifact }).await;
        stage.fact(Fact::BeginActivation { release }).await;
        stage.fact(Fact::CommandFinished { release }).await;
        stage.fact(Fact::Assign { release, process, tokens: vec!["01".to_owned()] }).await;
        stage.fact(Fact::Started { ordinal: 1, port: Some(20_001), dialer: None }).await;
        stage.fact(Fact::Route { ordinals: [1].into() }).await;
        stage.fact(Fact::Activate { release }).await;
        assert!(stage.link.publish(&stage.desk).unwrap());
        stage
    }

    async fn submit(&self, command: Command) {
        self.desk.submit(command, Asker::platform("test"), None, None).await.unwrap();
    }

    async fn fact(&self, fact: Fact) {
        self.submit(Command::Fact { app: shop(), fact }).await;
    }

    fn newest(&self) -> Generation {
        self.link.newest.borrow().snapshot.generation
    }

    fn hear(&self, edge: (u32, u64), message: FromEdge) {
        self.link.hear(edge.0, edge.1, message, &self.desk);
    }

    /// An edge that says hello as this very process.
    async fn connect(&self) -> Peer {
        let (ours, theirs) = UnixStream::pair().unwrap();
        tokio::spawn(Arc::clone(&self.link).talk(theirs, std::process::id(), self.desk.clone()));
        Peer { stream: ours, decoder: Decoder::default() }
    }
}

/// An edge as a test plays it.
struct Peer {
    stream: UnixStream,
    decoder: Decoder,
}

impl Peer {
    async fn say(&mut self, message: &FromEdge) {
        self.stream.write_all(&encode(message).unwrap()).await.unwrap();
    }

    async fn hello(&mut self) {
        self.say(&FromEdge::Hello { protocol: PROTOCOL, pid: std::process::id() }).await;
        assert!(matches!(self.next().await, Some(ToEdge::Hello { protocol: PROTOCOL })));
    }

    /// What control says next; nothing when it hangs up.
    async fn next(&mut self) -> Option<ToEdge> {
        loop {
            if let Some(message) = self.decoder.message().unwrap() {
                return Some(message);
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(length) => self.decoder.feed(&buffer[..length]),
            }
        }
    }
}

fn living(pid: u32) -> Identity {
    Identity::of(pid).unwrap().unwrap()
}

/// Two processes that live for as long as the test does.
fn two() -> [u32; 2] {
    [std::process::id(), std::os::unix::process::parent_id()]
}

#[tokio::test]
async fn an_edge_that_was_not_heard_yet_counts_as_one_that_applied_nothing() {
    let stage = Stage::new().await;
    let unheard = Edge { durable: stage.newest(), alive: Some(EdgeProcess::default()) };
    assert_eq!(stage.link.observe(), unheard);
    let pid = std::process::id();
    let edge = (pid, stage.link.greet(pid, living(pid)));
    stage.hear(edge, FromEdge::Applied { generation: Generation(3) });
    assert_eq!(stage.link.observe().alive.unwrap().applied, Generation(3));
    let dead = Identity { starttime: living(pid).starttime + 1, ..living(pid) };
    let edge = (pid, stage.link.greet(pid, dead));
    stage.hear(edge, FromEdge::Applied { generation: Generation(3) });
    assert_eq!(stage.link.observe(), unheard, "it is proven dead, and its successor is still to come");
    assert!(stage.link.pids().is_empty());
}

#[tokio::test]
async fn of_several_edges_the_one_that_is_behind_counts() {
    let stage = Stage::new().await;
    let [one, other] = two().map(|pid| (pid, stage.link.greet(pid, living(pid))));
    let applied = |generation| FromEdge::Applied { generation: Generation(generation) };
    let drained =
        |generation| FromEdge::Drained { instance: instance(1), generation: Generation(generation) };
    stage.hear(one, applied(7));
    assert_eq!(stage.link.observe().alive.unwrap().applied, Generation(0));
    stage.hear(other, applied(5));
    assert_eq!(stage.link.observe().alive.unwrap().applied, Generation(5));
    stage.hear(other, applied(4));
    assert_eq!(stage.link.observe().alive.unwrap().applied, Generation(5), "it never goes back");
    stage.hear(one, drained(7));
    assert_eq!(stage.link.drained(&instance(1)), None, "the other has not");
    stage.hear(other, drained(6));
    assert_eq!(stage.link.drained(&instance(1)), Some(Generation(6)));

    let health = |health| FromEdge::Health { instance: instance(1), health, evidence: vec![] };
    stage.hear(other, health(Health::Ready));
    stage.hear(one, health(Health::Failing));
    assert!(stage.link.is_ready(&instance(1)), "the one that connected last decides");
    // One that connects again replaces what it said before, and the old connection has no more say.
    let again = (one.0, stage.link.greet(one.0, living(one.0)));
    stage.hear(one, health(Health::Ready));
    stage.hear(again, health(Health::Unready));
    assert!(!stage.link.is_ready(&instance(1)));
    assert_eq!(stage.link.observe().alive.unwrap().applied, Generation(0));
    stage.link.forget(&instance(1));
    assert_eq!(stage.link.health(&instance(1)), None);
}

#[tokio::test]
async fn what_edge_says_does_not_grow_without_end() {
    let stage = Stage::new().await;
    let pid = std::process::id();
    let edge = (pid, stage.link.greet(pid, living(pid)));
    let stranger: InstanceId = "default/default/other/web.1".parse().unwrap();
    for unknown in [stranger.clone(), instance(2)] {
        let evidence = vec![];
        stage.hear(edge, FromEdge::Health { instance: unknown.clone(), health: Health::Ready, evidence });
        stage.hear(edge, FromEdge::Drained { instance: unknown.clone(), generation: Generation(1) });
        assert_eq!((stage.link.health(&unknown), stage.link.drained(&unknown)), (None, None));
    }
    let counts =
        AppCounts { app: stranger.app, by_class: [1; 5], unserved: 0, busy: false, releases: Vec::new() };
    stage.hear(edge, FromEdge::Counts { apps: vec![counts] });
    let evidence = (0..9).map(|number| format!("{number}{}", "\u{e4}".repeat(500))).collect();
    stage.hear(edge, FromEdge::Health { instance: instance(1), health: Health::Unready, evidence });
    let kept = stage.link.health(&instance(1)).unwrap().evidence;
    assert_eq!(kept.len(), EVIDENCE);
    assert!(kept[4].starts_with('8') && kept.iter().all(|line| line.len() <= EVIDENCE_BYTES));
}

#[tokio::test]
async fn who_asks_for_what_is_stored_keeps_no_app_awake() {
    let stage = Stage::new().await;
    let pid = std::process::id();
    let edge = (pid, stage.link.greet(pid, living(pid)));
    let counts = |busy| {
        let counts =
            AppCounts { app: shop(), by_class: [0, 9, 0, 1, 0], unserved: 0, busy, releases: vec![] };
        FromEdge::Counts { apps: vec![counts] }
    };
    stage.hear(edge, counts(false));
    assert_eq!(stage.link.idle(&shop()), None);
    stage.hear(edge, counts(true));
    assert!(stage.link.idle(&shop()).is_some());
}

#[tokio::test]
async fn snapshots_are_sent_after_a_hello_and_coalesce() {
    let stage = Stage::new().await;
    let mut peer = stage.connect().await;
    peer.hello().await;
    let Some(ToEdge::Snapshot(first)) = peer.next().await else { panic!("a snapshot comes after the hello") };
    assert_eq!(first.generation, stage.newest());
    assert_eq!(first.apps[&shop()].backends[0].role, Role::Routed);
    peer.say(&FromEdge::Applied { generation: first.generation }).await;
    for port in 20_002..20_012 {
        stage.fact(Fact::Started { ordinal: 1, port: Some(port), dialer: None }).await;
        assert!(stage.link.publish(&stage.desk).unwrap());
    }
    assert!(!stage.link.publish(&stage.desk).unwrap(), "nothing has changed");
    loop {
        let Some(ToEdge::Snapshot(next)) = peer.next().await else { panic!("the newest comes in the end") };
        assert!(next.generation > first.generation);
        if next.generation == stage.newest() {
            break;
        }
    }
    let on_disk = std::fs::read(stage.dir.path().join("routing").join(CURRENT)).unwrap();
    assert_eq!(serde_json::from_slice::<Snapshot>(&on_disk).unwrap().generation, stage.newest());
}

#[tokio::test]
async fn who_does_not_keep_to_the_protocol_is_hung_up_on() {
    let stage = Stage::new().await;
    let pid = std::process::id();
    let frame = |message: &FromEdge| encode(message).unwrap();
    let hello = frame(&FromEdge::Hello { protocol: PROTOCOL, pid });
    for (what, bytes) in [
        ("another protocol", frame(&FromEdge::Hello { protocol: PROTOCOL + 1, pid })),
        ("another process", frame(&FromEdge::Hello { protocol: PROTOCOL, pid: pid + 1 })),
        ("no hello", frame(&FromEdge::Applied { generation: Generation(1) })),
        ("two hellos", [hello.clone(), hello.clone()].concat()),
        ("nonsense", [&hello[..], &[2, 0, 0, 0], b"{]"].concat()),
        ("a frame that is too long", vec![255; 8]),
    ] {
        let mut peer = stage.connect().await;
        peer.stream.write_all(&bytes).await.unwrap();
        while peer.next().await.is_some() {}
        assert_eq!(stage.link.observe().alive.map(|edge| edge.applied), Some(Generation(0)), "{what}");
    }
}

#[tokio::test]
async fn a_port_is_free_once_every_edge_has_let_go_of_it() {
    let stage = Stage::new().await;
    let pid = std::process::id();
    let edge = (pid, stage.link.greet(pid, living(pid)));
    let with = stage.newest();
    stage.hear(edge, FromEdge::Applied { generation: with });
    assert_eq!(stage.link.ports_in_use(), [20_001].into());
    stage.fact(Fact::Gone { ordinal: 1, cause: GoneCause::Lost }).await;
    assert!(stage.link.publish(&stage.desk).unwrap());
    assert_eq!(stage.link.ports_in_use(), [20_001].into(), "edge still goes by the snapshot before");
    stage.hear(edge, FromEdge::Applied { generation: stage.newest() });
    assert_eq!(stage.link.ports_in_use(), BTreeSet::new());
}

#[tokio::test]
async fn what_could_not_be_written_is_written_later() {
    let stage = Stage::new().await;
    let (dir, away) = (stage.dir.path().join("routing"), stage.dir.path().join("away"));
    let before = stage.newest();
    std::fs::rename(&dir, &away).unwrap();
    stage.submit(Command::App { app: shop(), wish: Wish::Destroy { volumes: false } }).await;
    stage.fact(Fact::Stop { ordinal: 1, why: StopReason::Destroyed }).await;
    stage.link.publish(&stage.desk).unwrap_err();
    assert_eq!(stage.newest(), before, "what is not durable is not sent");
    std::fs::rename(&away, &dir).unwrap();
    assert!(stage.link.publish(&stage.desk).unwrap(), "though nothing has changed since");
    assert!(stage.newest() > before);
    let (claims, clock) = (stage.link.claims.clone(), Arc::clone(&stage.link.clock));
    let again = EdgeLink::open(&dir, None, claims, shelf(&dir), clock).unwrap();
    assert_eq!(again.newest.borrow().snapshot, stage.link.newest.borrow().snapshot);
}

#[tokio::test]
async fn an_edge_that_has_not_said_hello_yet_has_applied_nothing() {
    let stage = Stage::new().await;
    let claims = stage.link.claims.clone();
    let applied = || stage.link.observe().alive.unwrap().applied;
    let first = claims.claim(1).unwrap();
    let mut peer = stage.connect().await;
    peer.hello().await;
    let generation = stage.newest();
    peer.say(&FromEdge::Applied { generation }).await;
    peer.say(&FromEdge::Counts { apps: vec![] }).await;
    while applied() != generation {
        tokio::task::yield_now().await;
    }
    // Beside it boots one that reads the snapshot by itself and has not connected.
    let second = claims.claim(1).unwrap();
    assert_eq!(applied(), Generation::default());
    assert!(!stage.link.ports_in_use().is_empty(), "its ports are kept");
    drop(second);
    assert_eq!(applied(), generation);
    drop(first);
    assert_eq!(applied(), generation, "the process is what counts once it is known");
}
