//! Upgraded connections: bytes both ways until both sides have ended.

use std::rc::Rc;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use crate::body::ResponseBody;
use crate::fleet::InFlight;
use crate::record::Record;
use crate::worker::Worker;

/// The two sides that will speak another protocol. The request stays in flight as long as they do.
pub(crate) struct Tunnel {
    pub(crate) client: OnUpgrade,
    pub(crate) app: OnUpgrade,
    pub(crate) lease: InFlight,
}

/// Connects the two sides once the response with status 101 has been written, and gives that response's body.
pub(crate) fn start(worker: &Rc<Worker>, tunnel: Tunnel, mut record: Record) -> ResponseBody {
    let guard = worker.tunnel_opened();
    worker.spawn(async move {
        let Tunnel { client, app, lease } = tunnel;
        // Either fails when its connection breaks first, the client's too when the 101 could not be written.
        let (Ok(client), Ok(app)) = tokio::join!(client, app) else { return };
        let (mut client, mut app) = (TokioIo::new(client), TokioIo::new(app));
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
