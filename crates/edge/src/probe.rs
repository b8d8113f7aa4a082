//! Asks instances how they are.

mod by_frames;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as _;
use std::io;
use std::sync::Arc;

use berth_routing::Probe;
use berth_routing::health::{Answer, Question, Tracker};
use berth_routing::wire::Health;
use bytes::Bytes;
use http::header::{CONNECTION, HOST, LOCATION, USER_AGENT};
use http::{Request, Response};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use crate::backend::Backend;
use crate::events;
use crate::fleet::Target;

/// What a probe found out that the one before had not.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) backend: Arc<Backend>,
    pub(crate) health: Health,
    pub(crate) evidence: Vec<String>,
}

/// So many findings wait for the control thread; a probe that finds no room waits, which only delays its next one.
const FINDINGS_MAX: usize = 256;

/// What a probe calls itself.
const PROBER: &str = "berth-health";
const NOT_A_PATH: &str = "the path of the health check is not valid";

/// Runs a task for each instance that is to be probed.
pub(crate) struct Prober {
    running: BTreeMap<u64, Running>,
    tasks: JoinSet<()>,
    findings: mpsc::Sender<Finding>,
}

struct Running {
    probe: Probe,
    backend: Arc<Backend>,
    task: AbortHandle,
}

impl Prober {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Finding>) {
        let (findings, receiver) = mpsc::channel(FINDINGS_MAX);
        (Self { running: BTreeMap::new(), tasks: JoinSet::new(), findings }, receiver)
    }

    /// Probes exactly `targets`: starts and ends tasks where needed and leaves the others as they are. Gives the
    /// backends that are no longer probed.
    pub(crate) fn follow(&mut self, targets: Vec<Target>) -> Vec<Arc<Backend>> {
        let wanted: BTreeSet<u64> = targets.iter().map(|target| target.backend.key).collect();
        let mut gone = Vec::new();
        self.running.retain(|key, running| {
            let stays = wanted.contains(key);
            if !stays {
                running.task.abort();
                gone.push(Arc::clone(&running.backend));
            }
            stays
        });
        for target in targets {
            let key = target.backend.key;
            if self.running.get(&key).is_some_and(|running| running.probe == target.probe) {
                continue;
            }
            let (probe, backend) = (target.probe.clone(), Arc::clone(&target.backend));
            let task = self.tasks.spawn_local(probe_for_ever(target, self.findings.clone()));
            if let Some(before) = self.running.insert(key, Running { probe, backend, task }) {
                before.task.abort();
            }
        }
        gone
    }

    /// Takes note of tasks that ended.
    pub(crate) fn reap(&mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            match ended {
                Err(error) if !error.is_cancelled() => events::task_failed(&error),
                Ok(()) | Err(_) => {}
            }
        }
    }

    /// Whether findings about this backend still count.
    pub(crate) fn is_probing(&self, backend: &Backend) -> bool {
        self.running.contains_key(&backend.key)
    }
}

async fn probe_for_ever(target: Target, findings: mpsc::Sender<Finding>) {
    let mut tracker = Tracker::new(target.probe);
    // A thousand instances that are well shall wake nobody.
    let mut said = None;
    loop {
        loop {
            let limit = tracker.timeout();
            let asking = ask(&target.backend, tracker.question(), &target.host);
            let answer = match tokio::time::timeout(limit, asking).await {
                Ok(answer) => answer,
                Err(_elapsed) => Answer::Silent(format!("no answer within {} ms", limit.as_millis())),
            };
            if tracker.answer(&answer) {
                break;
            }
        }
        let found = (tracker.health(), tracker.evidence());
        if said.as_ref() != Some(&found) {
            said = Some(found.clone());
            let (health, evidence) = found;
            let finding = Finding { backend: Arc::clone(&target.backend), health, evidence };
            if findings.send(finding).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(tracker.pause()).await;
    }
}

/// A connection of its own for each question: a pooled one would keep an instance from closing, and would not show
/// that it still accepts.
async fn ask(backend: &Backend, question: Question<'_>, host: &str) -> Answer {
    let socket = match backend.place.connect().await {
        Ok(socket) => socket,
        Err(error) => return Answer::Unreachable(in_words(&error)),
    };
    let Question::Get(path) = question else { return Answer::Connected };
    if backend.speaks_http2() {
        return by_frames::ask(socket, path, host).await;
    }
    let request = Request::get(path)
        .header(HOST, host)
        .header(USER_AGENT, PROBER)
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new());
    let request = match request {
        Ok(request) => request,
        Err(_not_a_path) => return Answer::Silent(NOT_A_PATH.to_owned()),
    };
    let (mut sender, connection) = match http1::handshake(TokioIo::new(socket)).await {
        Ok(both) => both,
        Err(error) => return Answer::Silent(error.to_string()),
    };
    let sent = sender.send_request(request);
    tokio::pin!(sent, connection);
    let outcome = tokio::select! {
        outcome = &mut sent => outcome,
        // The connection may end with the answer in hand.
        _ended = &mut connection => sent.await,
    };
    match outcome {
        Ok(response) => responded(&response),
        Err(error) if error.is_parse() => Answer::Silent("the answer is not HTTP".to_owned()),
        Err(error) if error.is_incomplete_message() => {
            Answer::Silent("it closed the connection without an answer".to_owned())
        }
        Err(error) => {
            let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
            Answer::Silent(cause.map_or_else(|| error.to_string(), in_words))
        }
    }
}

fn responded<B>(response: &Response<B>) -> Answer {
    let location = response.headers().get(LOCATION);
    let location = location.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    Answer::Responded { status: response.status().as_u16(), location }
}

fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "it reset the connection".to_owned(),
        io::ErrorKind::TimedOut => "timed out".to_owned(),
        _ => error.to_string(),
    }
}
