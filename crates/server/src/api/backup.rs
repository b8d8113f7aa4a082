//! The platform as one archive, streamed while it is made.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use berth_backup::KeyFile;
use berth_contract::{BackupQuery, Code, Problem, route};
use futures_util::stream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::Api;
use super::auth::{Peer, Principal};
use super::problem::{Query, Refused};
use crate::backup::Saving;
use crate::desk::Asker;
use crate::events;

/// How much is sent at a time, and how many of those wait for a reader: half a megabyte in all.
const PIECE: usize = 128 << 10;
const WAITING: usize = 4;
/// How long a reader may take for a piece. One that stands still would keep garbage from being collected.
const PATIENCE: Duration = Duration::from_secs(60);

#[utoipa::path(get, path = route::PLATFORM_BACKUP, tag = "platform", params(BackupQuery),
    responses((status = 200, description = "A tar; see docs/backup.md. Without a manifest at its end it is not whole",
        content_type = "application/x-tar")))]
pub(super) async fn save(
    State(api): State<Arc<Api>>,
    principal: Principal,
    Extension(peer): Extension<Peer>,
    Query(query): Query<BackupQuery>,
) -> Result<Response, Refused> {
    principal.own_platform()?;
    if query.key && peer == Peer::Network {
        let problem = Problem::new(Code::Forbidden, "the key leaves the platform over its Unix socket alone");
        return Err(problem.next("make the backup on the platform's own machine, or without the key").into());
    }
    let busy = || Problem::new(Code::Overloaded, "another backup is being made");
    let turn = api.machine.begin_saving().ok_or_else(|| busy().next("try again when it is done"))?;
    let asker = Asker { actor: principal.name.clone(), correlation: principal.correlation.clone() };
    let saving = saving(&api, &query, asker);
    let (pieces, waiting) = mpsc::channel::<io::Result<Bytes>>(WAITING);
    let runtime = Handle::current();
    drop(tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let mut out =
            Pieces { buffer: Vec::with_capacity(PIECE), pieces: pieces.clone(), runtime: runtime.clone() };
        if let Err(error) = saving.save(&mut out) {
            events::could_not("save the platform", &super::super::machine::in_full(&error));
            // Breaks the connection off: what came so far must not look like all.
            drop(runtime.block_on(pieces.send(Err(io::Error::other("the backup failed")))));
        }
    }));
    let body = stream::unfold(waiting, |mut waiting| async move { Some((waiting.recv().await?, waiting)) });
    Ok(([(CONTENT_TYPE, route::TAR)], Body::from_stream(body)).into_response())
}

fn saving(api: &Api, query: &BackupQuery, asker: Asker) -> Saving {
    let identity = &api.identity;
    let key = || {
        let token = std::fs::read_to_string(identity.home.join("keys/owner-token")).ok();
        KeyFile::new(&identity.platform, api.vault.key().expose(), token)
    };
    Saving {
        home: identity.home.clone(),
        journal: Arc::clone(&api.journal),
        desk: api.desk.clone(),
        platform: identity.platform.clone(),
        addresses: [identity.edge.to_string(), identity.api.to_string()],
        key_id: api.vault.key_id(),
        key: query.key.then(key),
        clock: Arc::clone(&api.clock),
        asker,
        machine: Arc::clone(&api.machine),
        runtime: Handle::current(),
        volumes: query.volumes,
    }
}

/// Cuts what is written into pieces for the connection.
struct Pieces {
    buffer: Vec<u8>,
    pieces: mpsc::Sender<io::Result<Bytes>>,
    runtime: Handle,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = PIECE - self.buffer.len();
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.buffer.extend_from_slice(taken);
        if self.buffer.len() == PIECE {
            self.flush()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = Bytes::from(std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE)));
        let sent = async { tokio::time::timeout(PATIENCE, self.pieces.send(Ok(piece))).await };
        match self.runtime.block_on(sent) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_gone)) => {
                Err(io::Error::new(io::ErrorKind::BrokenPipe, "whoever asked for the backup is gone"))
            }
            Err(_late) => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "whoever asked for the backup reads no more"))
            }
        }
    }
}
