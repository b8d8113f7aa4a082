//! Upgraded connections: bytes both ways until both sides have ended.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};

use crate::activity::Activity;
use crate::backend::InFlight;
use crate::body::ResponseBody;
use crate::frames::Frames;
use crate::record::Record;
use crate::worker::Worker;

/// The two sides that will speak another protocol. The request stays in flight as long as they do.
pub(crate) struct Tunnel {
    pub(crate) client: OnUpgrade,
    pub(crate) app: OnUpgrade,
    pub(crate) lease: InFlight,
    pub(crate) is_websocket: bool,
}

/// Connects the two sides once the response with status 101 has been written, and gives that response's body.
pub(crate) fn start(worker: &Rc<Worker>, tunnel: Tunnel, mut record: Box<Record>) -> ResponseBody {
    let guard = worker.tunnel_opened();
    worker.spawn(async move {
        let Tunnel { client, app, mut lease, is_websocket } = tunnel;
        // Either fails when its connection breaks first, the client's too when the 101 could not be written.
        let (Ok(client), Ok(app)) = tokio::join!(client, app) else { return };
        // Only now: until the head was written the request was under way.
        lease.stand();
        let frames = is_websocket.then(Frames::default);
        let activity = Arc::clone(&lease.backend().activity);
        let mut client = Stirring { socket: TokioIo::new(client), frames, activity };
        let mut app = TokioIo::new(app);
        // It passes on the end of one direction and goes on with the other.
        match copy_bidirectional(&mut client, &mut app).await {
            Ok((_, to_client)) => record.add_bytes(usize::try_from(to_client).unwrap_or(usize::MAX)),
            Err(_broken) => record.cut(),
        }
        record.finish();
        drop((client, app, lease, guard));
    });
    ResponseBody::none()
}

/// The client's side, on which whatever is sent keeps the app awake or wakes it, but for what a WebSocket sends of itself.
struct Stirring {
    socket: TokioIo<Upgraded>,
    frames: Option<Frames>,
    activity: Arc<Activity>,
}

impl AsyncRead for Stirring {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.socket).poll_read(cx, buffer);
        let came = buffer.filled().get(before..).unwrap_or_default();
        let counts = match &mut this.frames {
            Some(frames) => frames.has_data(came),
            None => !came.is_empty(),
        };
        if counts {
            this.activity.stir();
        }
        read
    }
}

impl AsyncWrite for Stirring {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}
