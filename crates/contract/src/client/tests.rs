//! The client against a platform that answers by script, and breaks off where the script says so.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use berth_spec::{AppId, ReleaseNumber};
use secrecy::SecretString;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;

use super::*;
use crate::logs::LogQuery;
use crate::release::Stage;
use crate::settings::ConfigPatch;
use crate::{ChunkHash, Code, ExitStatus};

/// What the platform does with the next request.
enum Step {
    /// Answers and keeps the connection.
    Answer(String),
    /// Answers and closes.
    AnswerAndClose(String),
    /// Closes without an answer.
    Close,
}

#[derive(Debug, Clone)]
struct Seen {
    connection: usize,
    head: String,
    body: String,
}

impl Seen {
    fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (given, value) = line.split_once(':')?;
            given.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

struct Platform {
    _directory: TempDir,
    endpoint: Endpoint,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Drop for Platform {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Platform {
    fn run(script: Vec<Step>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("api.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut script = script.into_iter();
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                if serve(stream, connection, &mut script, &noted).await.is_none() {
                    return;
                }
            }
        });
        Self { _directory: directory, endpoint: Endpoint::Unix(path), seen, task }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn client(&self) -> (Client, Arc<Mutex<Vec<Notice>>>) {
        client_of(self.endpoint.clone())
    }
}

/// Serves one connection; none when the script is at its end.
async fn serve(
    mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin,
    connection: usize,
    script: &mut impl Iterator<Item = Step>,
    noted: &Mutex<Vec<Seen>>,
) -> Option<()> {
    loop {
        let mut bytes = Vec::new();
        let head_end = loop {
            if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                return Some(());
            }
        };
        let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
        let mut seen = Seen { connection, head, body: String::new() };
        let length: usize = seen.header("content-length").map_or(0, |text| text.parse().unwrap());
        while bytes.len() < head_end + length {
            stream.read_buf(&mut bytes).await.ok()?;
        }
        seen.body = String::from_utf8_lossy(&bytes[head_end..]).into_owned();
        noted.lock().unwrap().push(seen);
        match script.next()? {
            Step::Close => return Some(()),
            Step::Answer(text) => stream.write_all(text.as_bytes()).await.ok()?,
            Step::AnswerAndClose(text) => {
                stream.write_all(text.as_bytes()).await.ok()?;
                return Some(());
            }
        }
    }
}

fn client_of(endpoint: Endpoint) -> (Client, Arc<Mutex<Vec<Notice>>>) {
    let notices = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&notices);
    let next = Mutex::new(0_u128);
    let keys = move || {
        let mut next = next.lock().unwrap();
        *next += 1;
        IdempotencyKey::new(next.to_be_bytes())
    };
    let patience = Patience {
        first_delay: Duration::from_millis(1),
        longest_delay: Duration::from_millis(4),
        in_all: Duration::from_millis(15),
        ..Patience::default()
    };
    let client = Client::builder(endpoint, keys)
        .token(SecretString::from("berth_x"))
        .patience(patience)
        .on_notice(move |notice| told.lock().unwrap().push(notice))
        .build();
    (client, notices)
}

fn json(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// The head of a chunked stream and one chunk; the end is missing.
fn stream_begin(events: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{events}\r\n", events.len())
}

fn progress(position: u64, stage: &str) -> String {
    format!(
        "id: {position}\nevent: progress\ndata: {{\"position\":{position},\"at\":0,\"release\":1,\"stage\":\"{stage}\",\"text\":\"\"}}\n\n"
    )
}

fn line(cursor: &str) -> String {
    format!(
        "id: {cursor}\nevent: line\ndata: {{\"cursor\":\"{cursor}\",\"at\":0,\"instance\":\"d/d/a/web.1\",\"process\":\"web\",\"stream\":\"stdout\",\"text\":\"{cursor}\"}}\n\n"
    )
}

fn app() -> AppId {
    "default/default/shop".parse().unwrap()
}

const CONFIG: &str = r#"{"config":{"A":"1"},"release":2,"from_the_future":true}"#;

#[tokio::test]
async fn a_problem_is_read() {
    let body =
        r#"{"type":"x","title":"t","status":404,"detail":"no app shop","code":"app_not_found","next":"n"}"#;
    let platform = Platform::run(vec![Step::Answer(json(404, body))]);
    let (client, _) = platform.client();
    let problem = client.app(&app()).await.unwrap_err();
    assert_eq!(problem.code(), Code::AppNotFound);
    assert_eq!(problem.code().exit_status(), ExitStatus::NotFound);
    assert_eq!(problem.to_string(), "no app shop");
    assert_eq!(platform.seen()[0].line(), "GET /api/v1/tenants/default/projects/default/apps/shop HTTP/1.1");
    assert_eq!(platform.seen()[0].header("authorization"), Some("Bearer berth_x"));
}

#[tokio::test]
async fn an_answer_that_is_not_the_apis_is_told_apart() {
    let platform = Platform::run(vec![Step::Answer(json(404, "<html>")), Step::Answer(json(200, "{"))]);
    let (client, _) = platform.client();
    assert!(matches!(client.app(&app()).await, Err(ClientError::Answer { status: 404, .. })));
    assert!(matches!(client.app(&app()).await, Err(ClientError::Answer { status: 200, .. })));
}

#[tokio::test]
async fn a_mutation_that_lost_its_connection_is_repeated_with_its_key() {
    let cut = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{{", CONFIG.len());
    let platform =
        Platform::run(vec![Step::Close, Step::AnswerAndClose(cut), Step::Answer(json(200, CONFIG))]);
    let (client, notices) = platform.client();
    let changed = client.patch_config(&app(), &ConfigPatch::default()).await.unwrap();
    assert_eq!(changed.release, Some(ReleaseNumber(2)));
    let seen = platform.seen();
    assert_eq!(seen.len(), 3);
    for request in &seen {
        assert_eq!(request.header("idempotency-key"), Some("00000000000000000000000000000001"));
        assert_eq!(request.body, r#"{"set":{},"unset":[]}"#);
    }
    let notices = notices.lock().unwrap().clone();
    assert!(matches!(
        notices[..],
        [Notice::Reconnecting { .. }, Notice::Reconnecting { .. }, Notice::Reconnected]
    ));
}

#[tokio::test]
async fn patience_has_an_end() {
    let platform = Platform::run((0..20).map(|_| Step::Close).collect());
    let (client, _) = platform.client();
    let problem = client.config(&app()).await.unwrap_err();
    assert_eq!(problem.code().exit_status(), ExitStatus::Unreachable);
    // Delays of 1, 2, 4, 4 and 4 ms are the 15 that there is patience for.
    assert_eq!(platform.seen().len(), 6);
}

#[tokio::test]
async fn a_platform_that_is_not_there_is_told_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let (client, notices) = client_of(Endpoint::Unix(directory.path().join("api.sock")));
    assert!(matches!(client.platform().await, Err(ClientError::Unreachable { .. })));
    assert!(matches!(client.progress(&app(), ReleaseNumber(1)).next().await, Some(Err(_))));
    assert!(notices.lock().unwrap().is_empty());
    assert!(!client.is_there().await);
}

#[tokio::test]
async fn a_connection_is_kept_and_replaced_without_a_word_when_it_was_closed() {
    let platform = Platform::run(vec![
        Step::Answer(json(200, CONFIG)),
        Step::Answer(json(200, CONFIG)),
        Step::Close,
        Step::Answer(json(200, CONFIG)),
    ]);
    let (client, notices) = platform.client();
    for _ in 0..3 {
        client.config(&app()).await.unwrap();
    }
    let connections: Vec<usize> = platform.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(connections, [0, 0, 0, 1]);
    assert!(notices.lock().unwrap().is_empty());
}

#[tokio::test]
async fn progress_goes_on_where_it_broke() {
    let busy = r#"{"type":"x","title":"t","status":503,"detail":"starting","code":"stopping"}"#;
    let whole = format!(
        "{}: still here\n\nevent: from_the_future\ndata: x\n\n{}",
        progress(7, "starting"),
        progress(8, "active")
    );
    let platform = Platform::run(vec![
        Step::AnswerAndClose(stream_begin(&progress(3, "submitted"))),
        Step::AnswerAndClose(stream_begin(&format!(
            "{}id: 6\nevent: progress\ndata: {{\"posi",
            progress(5, "building")
        ))),
        Step::Close,
        Step::Answer(json(503, busy)),
        Step::Answer(stream_begin(&whole)),
    ]);
    let (client, notices) = platform.client();
    let mut events = client.progress(&app(), ReleaseNumber(1));
    let mut positions = Vec::new();
    let mut last = None;
    while let Some(event) = events.next().await {
        let event = event.unwrap();
        positions.push(event.position);
        last = Some(event.stage);
    }
    assert_eq!(positions, [3, 5, 7, 8]);
    assert_eq!(last, Some(Stage::Active));
    let resumed: Vec<_> =
        platform.seen().iter().map(|seen| seen.header("last-event-id").map(str::to_owned)).collect();
    let five = || Some("5".to_owned());
    assert_eq!(resumed, [None, Some("3".to_owned()), five(), five(), five()]);
    assert_eq!(notices.lock().unwrap().last(), Some(&Notice::Reconnected));
}

#[tokio::test]
async fn a_stream_that_is_refused_or_ends_in_a_problem_ends() {
    let problem = r#"{"type":"x","title":"t","status":404,"detail":"no release","code":"release_not_found"}"#;
    let told = format!("{}event: problem\ndata: {problem}\n\n", line("a"));
    let platform =
        Platform::run(vec![Step::Answer(json(404, problem)), Step::AnswerAndClose(stream_begin(&told))]);
    let (client, _) = platform.client();
    let mut events = client.progress(&app(), ReleaseNumber(9));
    assert_eq!(events.next().await.unwrap().unwrap_err().code(), Code::ReleaseNotFound);
    assert!(events.next().await.is_none());
    let mut lines = client.logs(&app(), &LogQuery { follow: true, ..LogQuery::default() });
    assert_eq!(lines.next().await.unwrap().unwrap().text, "a");
    assert_eq!(lines.next().await.unwrap().unwrap_err().code(), Code::ReleaseNotFound);
    assert!(lines.next().await.is_none());
}

#[tokio::test]
async fn logs_end_plainly_unless_they_are_followed() {
    let ended = |events: &str| format!("{}0\r\n\r\n", stream_begin(events));
    let platform = Platform::run(vec![
        Step::Answer(ended(&line("a"))),
        Step::Answer(ended(&line("b"))),
        Step::Answer(stream_begin(&line("c"))),
    ]);
    let (client, _) = platform.client();
    let mut lines = client.logs(&app(), &LogQuery { lines: Some(5), ..LogQuery::default() });
    assert_eq!(lines.next().await.unwrap().unwrap().text, "a");
    assert!(lines.next().await.is_none());
    let mut followed = client.logs(&app(), &LogQuery { follow: true, ..LogQuery::default() });
    assert_eq!(followed.next().await.unwrap().unwrap().text, "b");
    assert_eq!(followed.next().await.unwrap().unwrap().text, "c");
    let seen = platform.seen();
    assert!(seen[0].line().contains("/shop/logs?lines=5 "), "{}", seen[0].line());
    assert!(seen[2].line().contains("/shop/logs?follow=true "), "{}", seen[2].line());
    assert_eq!(seen[2].header("last-event-id"), Some("b"));
}

#[tokio::test]
async fn only_missing_chunks_are_sent_each_once() {
    let hash = |digit: &str| digit.repeat(64).parse::<ChunkHash>().unwrap();
    let chunks = [hash("1"), hash("2"), hash("3")];
    let missing = format!(r#"{{"missing":["{}","{}"]}}"#, chunks[0], chunks[2]);
    let mut script = vec![Step::Answer(json(200, &missing))];
    // One connection is served at a time here, so each sender gets its own turn.
    script.extend((0..2).map(|_| Step::AnswerAndClose(json(204, "").replace("content-length: 0\r\n", ""))));
    let platform = Platform::run(script);
    let (client, _) = platform.client();
    let tenant = app().tenant;
    let missing = client.missing_chunks(&tenant, &chunks).await.unwrap();
    let sent = Mutex::new(0);
    let read = |chunk: &ChunkHash| Ok(chunk.as_str().as_bytes()[..8].to_vec());
    client.upload_chunks(&tenant, &missing, read, |length| *sent.lock().unwrap() += length).await.unwrap();
    assert_eq!(*sent.lock().unwrap(), 16);
    let mut bodies: Vec<String> = platform.seen().into_iter().skip(1).map(|seen| seen.body).collect();
    bodies.sort();
    assert_eq!(bodies, ["11111111", "33333333"]);
}

#[tokio::test]
async fn loopback_is_as_good_as_a_socket() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let noted = Mutex::new(Vec::new());
    let (client, _) = client_of(endpoint);
    let app = app();
    let asking = client.config(&app);
    let serving = async {
        let (stream, _) = listener.accept().await.unwrap();
        serve(stream, 0, &mut vec![Step::AnswerAndClose(json(200, CONFIG))].into_iter(), &noted).await
    };
    let (config, _) = tokio::join!(asking, serving);
    assert_eq!(config.unwrap().release, Some(ReleaseNumber(2)));
}
