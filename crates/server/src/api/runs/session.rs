//! The conversation between a one-off command and whoever is connected to it.
//!
//! Nothing is buffered beyond what is bounded here: what the command writes is read only when the connection has room for it, and what it
//! reads comes on credit. The conversation ends when the command has, or when nobody is there any more.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_contract::Run;
use berth_contract::run::{Frame, Frames, INPUT_WINDOW, RunEnded};
use berth_control::event::RunStop;
use berth_runtime::{Attached, End, Ends, Size};
use berth_spec::InstanceId;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::{Notify, mpsc, oneshot};

use super::super::words::run_stop;
use crate::events;
use crate::machine::Machine;
use crate::machine::runs::Ended;

/// How much is read at once, either way: less than a frame may hold.
const PIECE: usize = 32 << 10;
/// Frames that wait for the connection, some 128 KiB: as much again as the kernel holds.
const WAITING: usize = 4;
/// How often something is sent when nothing happens, so that a connection that is broken is found out.
const ALIVE: Duration = Duration::from_secs(15);
/// How long a client may take for the last of what an ended command wrote.
const REST_WITHIN: Duration = Duration::from_secs(600);
/// What ends the input of a terminal's program that has not changed it.
const END_OF_INPUT: u8 = 4;

type Connection = TokioIo<Upgraded>;

/// Speaks for the command until it has ended or nobody listens.
pub(super) async fn run(
    upgraded: Upgraded,
    run: Run,
    attached: Attached,
    ended: oneshot::Receiver<Ended>,
    machine: &Arc<Machine>,
) {
    let (from_client, to_client) = tokio::io::split(TokioIo::new(upgraded));
    let Ends { input, output, errors, terminal } = match attached.into_ends() {
        Ok(ends) => ends,
        Err(error) => return events::could_not("connect to a one-off command", &error),
    };
    let id = run.id.clone();
    let queue = Input::default();
    let (frames, waiting) = mpsc::channel(WAITING);
    let pumps = async {
        let errors = async {
            if let Some(errors) = &errors {
                pump(errors, &frames, Frame::Errors).await;
            }
        };
        tokio::join!(pump(&output, &frames, Frame::Output), errors);
    };
    let end = async {
        let pumps = std::pin::pin!(pumps);
        let mut pumps = futures_util::FutureExt::fuse(pumps);
        let mut over = std::pin::pin!(futures_util::FutureExt::fuse(ended));
        // Both at once: a command that nobody reads from does not end, and one that has ended may have more to be read.
        let ended = tokio::select! {
            ended = &mut over => {
                drop(tokio::time::timeout(REST_WITHIN, pumps).await);
                ended
            }
            () = &mut pumps => over.await,
        };
        let ended = told(ended.ok());
        drop(frames.send(Frame::Ended(ended)).await);
    };
    let feed = feed(input, &queue, &frames, terminal);
    tokio::select! {
        written = write(to_client, run, waiting) => note(&id, written),
        heard = hear(from_client, &queue, &output, &id, machine) => note(&id, heard),
        () = async { tokio::join!(end, feed); std::future::pending().await } => {}
    }
}

fn note(id: &InstanceId, ended: io::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%id, %error, "the connection to a one-off command broke");
    }
}

/// Sends what the command writes, as the connection takes it.
async fn pump(from: &End, frames: &mpsc::Sender<Frame>, frame: impl Fn(Vec<u8>) -> Frame) {
    let mut buffer = vec![0; PIECE];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        let piece = buffer.get(..read).unwrap_or_default();
        if piece.is_empty() || frames.send(frame(piece.to_vec())).await.is_err() {
            return;
        }
    }
}

/// Gives the command what it reads, and the client new credit.
async fn feed(input: End, queue: &Input, frames: &mpsc::Sender<Frame>, terminal: bool) {
    while let Some(piece) = queue.next().await {
        // One that reads no more has its input thrown away, as a pipe without a reader does with it.
        let written = input.write_all(&piece).await;
        let count = u32::try_from(piece.len()).unwrap_or(u32::MAX);
        if frames.send(Frame::Taken(count)).await.is_err() {
            return;
        }
        if let Err(error) = written {
            tracing::trace!(%error, "a one-off command reads no more");
        }
    }
    if terminal {
        drop(input.write_all(&[END_OF_INPUT]).await);
    }
}

/// Writes frames until the last one.
async fn write(
    mut client: WriteHalf<Connection>,
    run: Run,
    mut frames: mpsc::Receiver<Frame>,
) -> io::Result<()> {
    client.write_all(&Frame::Begun(run).encode()).await?;
    loop {
        let frame = match tokio::time::timeout(ALIVE, frames.recv()).await {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(()),
            Err(_) => Frame::Alive,
        };
        client.write_all(&frame.encode()).await?;
        client.flush().await?;
        if matches!(frame, Frame::Ended(_)) {
            return client.shutdown().await;
        }
    }
}

/// Takes in what the client says, until it is gone.
async fn hear(
    mut client: ReadHalf<Connection>,
    queue: &Input,
    output: &End,
    id: &InstanceId,
    machine: &Arc<Machine>,
) -> io::Result<()> {
    let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let (mut frames, mut buffer) = (Frames::default(), vec![0; PIECE]);
    loop {
        let read = client.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        frames.feed(buffer.get(..read).unwrap_or_default());
        while let Some(frame) = frames.next().map_err(|error| wrong(error.to_string()))? {
            match frame {
                Frame::Input(piece) => {
                    if !queue.push(piece) {
                        return Err(wrong("more input came than there was credit for".to_owned()));
                    }
                }
                Frame::InputEnd => queue.end(),
                Frame::Resize(size) => {
                    drop(output.resize(Size { rows: size.rows, columns: size.columns }));
                }
                Frame::Signal(number) => machine.signal_run(id, i32::from(number)).await,
                Frame::Begun(_)
                | Frame::Output(_)
                | Frame::Errors(_)
                | Frame::Taken(_)
                | Frame::Ended(_)
                | Frame::Alive => {}
            }
        }
    }
}

/// Input that has come and that the command has not read yet.
#[derive(Debug, Default)]
struct Input {
    pieces: Mutex<Pieces>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Pieces {
    waiting: VecDeque<Vec<u8>>,
    /// How many bytes; never more than the client had credit for.
    bytes: usize,
    ended: bool,
}

impl Input {
    fn with<T>(&self, work: impl FnOnce(&mut Pieces) -> T) -> T {
        work(&mut self.pieces.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds a piece; false when it is more than the client has credit for.
    fn push(&self, piece: Vec<u8>) -> bool {
        let fits = self.with(|pieces| {
            pieces.bytes += piece.len();
            if !piece.is_empty() {
                pieces.waiting.push_back(piece);
            }
            pieces.bytes <= INPUT_WINDOW
        });
        self.news.notify_one();
        fits
    }

    fn end(&self) {
        self.with(|pieces| pieces.ended = true);
        self.news.notify_one();
    }

    /// The next piece, `None` at the end. One caller.
    async fn next(&self) -> Option<Vec<u8>> {
        loop {
            let (piece, ended) = self.with(|pieces| {
                let piece = pieces.waiting.pop_front();
                pieces.bytes -= piece.as_ref().map_or(0, Vec::len);
                (piece, pieces.ended)
            });
            if piece.is_some() || ended {
                return piece;
            }
            self.news.notified().await;
        }
    }
}

fn told(ended: Option<Ended>) -> RunEnded {
    let (exit, failed, stopped) =
        ended.map_or((None, None, None), |ended| (ended.exit, ended.unstarted, ended.why));
    let failed = failed.map(|why| format!("it was not started: {why}"));
    let why = failed.or_else(|| stopped.map(|why| run_stop(why).to_owned()));
    let why = why.or_else(|| exit.is_none().then(|| run_stop(RunStop::Lost).to_owned()));
    RunEnded { status: exit.and_then(|exit| exit.code), signal: exit.and_then(|exit| exit.signal), why }
}
