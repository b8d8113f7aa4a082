//! Being connected to a one-off command.

use berth_spec::AppId;
use bytes::Bytes;
use http::{Method, StatusCode};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use super::connection::Call;
use super::{Client, ClientError, refusal};
use crate::route;
use crate::run::{Frame, Frames, PROTOCOL, Run, StartRun};

/// How much is read at once.
const PIECE: usize = 32 << 10;

/// What the platform says of the command.
#[derive(Debug)]
pub struct FromRun {
    connection: ReadHalf<TokioIo<Upgraded>>,
    frames: Frames,
    buffer: Vec<u8>,
}

/// What is said to the command.
#[derive(Debug)]
pub struct ToRun {
    connection: WriteHalf<TokioIo<Upgraded>>,
}

impl FromRun {
    /// The next frame; `None` when the connection ended before the command was said to have. May be given up at any await.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            match self.frames.next() {
                Ok(Some(frame)) => return Some(frame),
                Ok(None) => {}
                Err(_) => return None,
            }
            let read = self.connection.read(&mut self.buffer).await.ok().filter(|read| *read > 0)?;
            self.frames.feed(self.buffer.get(..read)?);
        }
    }
}

impl ToRun {
    /// Says something.
    ///
    /// # Errors
    /// When the connection broke.
    pub async fn send(&mut self, frame: &Frame) -> std::io::Result<()> {
        self.connection.write_all(&frame.encode()).await?;
        self.connection.flush().await
    }
}

impl Client {
    /// Starts a one-off command that goes on by itself.
    ///
    /// # Errors
    /// What the platform refused, or that it could not be asked.
    pub async fn run_detached(&self, app: &AppId, start: &StartRun) -> Result<Run, ClientError> {
        self.change(Method::POST, route::below_app(app, "runs"), start).await
    }

    /// Starts a one-off command and connects to it. It is asked for once: a second time would be a second command.
    ///
    /// # Errors
    /// What the platform refused, or that it could not be asked.
    pub async fn run_attached(&self, app: &AppId, start: &StartRun) -> Result<(FromRun, ToRun), ClientError> {
        let body = serde_json::to_vec(start).expect("wire types have string keys and no failing parts");
        let path = route::below_app(app, "runs");
        let body = Bytes::from(body);
        let call = Call::change(Method::POST, path, (self.inside.keys)(), body, "application/json");
        let call = call.upgrading(PROTOCOL);
        let patience = self.inside.patience.answer;
        let mut connection = self.connect().await?;
        let response = connection.send(&call, &self.inside, patience).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(refusal(&connection.read(response, patience).await?));
        }
        // The connection drives what is upgraded until it hands it over.
        let upgraded = hyper::upgrade::on(response).await.map_err(|source| connection.lost(source))?;
        let (from, to) = tokio::io::split(TokioIo::new(upgraded));
        let from = FromRun { connection: from, frames: Frames::default(), buffer: vec![0; PIECE] };
        Ok((from, ToRun { connection: to }))
    }
}
