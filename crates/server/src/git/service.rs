//! One request that git serves: its input, its output, its end.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::pin::pin;
use std::time::Duration;

use axum::body::{Body, Bytes};
use berth_process::{Stdio, exited};
use futures_util::stream;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::UnixStream;
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, mpsc};

use super::address::Service;
use super::body::feed;
use super::repository::{COMMAND_WITHIN, GitError, Repository, Started, shown};
use super::{HOOK_SOCKET, repository};
use crate::config::PushBounds;
use crate::{events, tasks};

/// The most bytes with which a client says what it has and wants; a push sends its pack, too.
const WANTS_MAX: u64 = 64 << 20;
/// How long a client may take over sending a request as a whole.
const SENT_WITHIN: Duration = Duration::from_secs(3_600);
/// How long a client may leave git's answer lying.
const READ_WITHIN: Duration = Duration::from_secs(60);
/// How long what git has started may outlive it.
const GRACE: Duration = Duration::from_secs(10);
/// So many pieces of an answer of this many bytes wait for a client that is slow: half a megabyte.
const WAITING: usize = 16;
const PIECE: usize = 32 << 10;

/// A request for git to serve.
pub(super) struct Request {
    pub(super) repository: Repository,
    pub(super) service: Service,
    /// The version of the protocol that the client speaks.
    pub(super) protocol: Option<String>,
    /// A turn, given back when git has ended.
    pub(super) turn: OwnedSemaphorePermit,
    pub(super) body: Body,
    pub(super) gzip: bool,
}

/// What an answer to git's hook leaves: held until git has moved the branch.
pub(super) type Moving = Option<OwnedMutexGuard<()>>;

/// Starts git on `request` and gives the body of the answer. What git's hook asks is answered by `converse`.
///
/// A push whose client goes away before all of it was sent is ended; one that was sent whole goes on to its end, as a deployment does whose
/// watcher goes away.
///
/// # Errors
/// When git cannot be started.
pub(super) fn serve<C>(request: Request, converse: impl FnOnce(UnixStream) -> C) -> Result<Body, GitError>
where
    C: Future<Output = Moving> + Send + 'static,
{
    let (ours, theirs) =
        StdStream::pair().map_err(|source| GitError::Folder { verb: "asked about", source })?;
    let started = start(&request, theirs.into())?;
    let unusable = |source| GitError::Folder { verb: "asked about", source };
    ours.set_nonblocking(true).map_err(unusable)?;
    let conversation = converse(UnixStream::from_std(ours).map_err(unusable)?);
    let (answer, pieces) = mpsc::channel(WAITING);
    tasks::run("serving a repository", async move { run(request, started, answer, conversation).await });
    Ok(Body::from_stream(stream::unfold(pieces, |mut pieces| async { Some((pieces.recv().await?, pieces)) })))
}

fn start(request: &Request, hook: OwnedFd) -> Result<Started, GitError> {
    let mut launch = request.repository.git();
    let socket = launch.inherit(hook).map_err(|source| GitError::Folder { verb: "asked about", source })?;
    let mut launch = launch
        .env(HOOK_SOCKET, socket.to_string())
        .args([request.service.verb(), "--stateless-rpc", "."])
        .stdin(Stdio::Piped)
        .stdout(Stdio::Piped)
        .stderr(Stdio::Piped);
    if let Some(protocol) = &request.protocol {
        launch = launch.env("GIT_PROTOCOL", protocol);
    }
    Ok(Started(launch.start()?))
}

async fn run(
    request: Request,
    mut started: Started,
    answer: mpsc::Sender<std::io::Result<Bytes>>,
    conversation: impl Future<Output = Moving>,
) {
    let bounds = request.repository.bounds();
    let Request { service, turn, body, gzip, .. } = request;
    let pipes = match started.0.take_pipes() {
        Ok(pipes) => pipes,
        Err(error) => return events::could_not("read from git", &error),
    };
    let (stdin, stdout, stderr) = (
        pipes.stdin.expect("it is piped"),
        pipes.stdout.expect("it is piped"),
        pipes.stderr.expect("it is piped"),
    );
    let bytes = match service {
        Service::UploadPack => WANTS_MAX,
        // The list of branches comes before the pack.
        Service::ReceivePack => bounds.bytes.saturating_add(WANTS_MAX),
    };
    let bounds = PushBounds { bytes, ..bounds };
    let fed = async {
        let fed = tokio::time::timeout(SENT_WITHIN, feed(body, gzip, stdin, bounds)).await;
        if !matches!(fed, Ok(Ok(()))) {
            started.kill();
        }
        fed.map_or_else(
            |_late| Some("the request took too long".to_owned()),
            |fed| fed.err().map(|it| it.to_string()),
        )
    };
    let drained = drain(stdout, &answer, || match service {
        Service::UploadPack => started.kill(),
        Service::ReceivePack => {}
    });
    let mut errors = Vec::new();
    let mut stderr = stderr.take(repository::ERRORS_MAX);
    let (broken, held) = {
        let all = async {
            let (broken, (), _read, held) =
                tokio::join!(fed, drained, stderr.read_to_end(&mut errors), conversation);
            (broken, held)
        };
        let outlived = async {
            // Everything ends with git, unless something holds its pipes open.
            let _gone = exited(&started.0).await;
            tokio::time::sleep(GRACE).await;
            started.kill();
            std::future::pending::<()>().await;
        };
        let (mut all, mut outlived) = (pin!(all), pin!(outlived));
        loop {
            tokio::select! {
                ended = &mut all => break ended,
                () = &mut outlived => {}
            }
        }
    };
    let status = started.0.ended().await;
    // Only now: the branch is moved.
    drop(held);
    drop(turn);
    match (broken, status) {
        (Some(broken), _) => {
            events::git_broke_off(service.verb(), &broken);
            drop(answer.send(Err(std::io::Error::other(broken))).await);
        }
        (None, Ok(status)) if status.success() => {}
        // A push that was refused ends well, so this is git's own trouble or a client's nonsense. What git had to say to the client it said.
        (None, _) => events::git_broke_off(service.verb(), &shown(&errors)),
    }
}

/// Passes on what git answers. When nobody reads it any more `unheard` is called, and the rest is thrown away: git must not wait for a reader.
async fn drain(
    mut stdout: impl AsyncRead + Unpin,
    answer: &mpsc::Sender<std::io::Result<Bytes>>,
    unheard: impl Fn(),
) {
    let mut heard = true;
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        match stdout.read_buf(&mut piece).await {
            Ok(0) | Err(_) => return,
            Ok(_) if !heard => {}
            Ok(_) => {
                let sent = tokio::time::timeout(READ_WITHIN, answer.send(Ok(piece.into()))).await;
                if !matches!(sent, Ok(Ok(()))) {
                    heard = false;
                    unheard();
                }
            }
        }
    }
}

/// What git says of the branches that there are, whole: as much as there are branches.
///
/// # Errors
/// When git cannot be run, or fails.
pub(super) async fn advertise(
    repository: &Repository,
    service: Service,
    protocol: Option<&str>,
) -> Result<Vec<u8>, GitError> {
    let mut launch = repository.git();
    if let Some(protocol) = protocol {
        launch = launch.env("GIT_PROTOCOL", protocol);
    }
    let args = ["--stateless-rpc", "--advertise-refs", "."];
    repository::output(launch, COMMAND_WITHIN, service.verb(), &args, WANTS_MAX).await
}
