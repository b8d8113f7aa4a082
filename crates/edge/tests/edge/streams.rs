//! Instances that speak HTTP/2, scripted stream by stream, and clients that do.

use std::future::Future;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use berth_routing::{ProbePath, Role, Snapshot};
use berth_spec::HttpProtocol;
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};

use crate::world::{HANG, Options, World, with_probe};

type Script = Pin<Box<dyn Future<Output = ()>>>;

/// One stream at an instance.
pub(crate) struct Call {
    /// Which connection of the instance it came on, from 1.
    pub(crate) connection: usize,
    pub(crate) request: Request<RecvStream>,
    pub(crate) respond: SendResponse<Bytes>,
}

impl Call {
    /// All of the request's body and its trailers; the error where it broke off.
    pub(crate) async fn body(&mut self) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
        collect(self.request.body_mut()).await
    }

    /// Begins an answer of gRPC.
    pub(crate) fn begin(&mut self) -> SendStream<Bytes> {
        let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        self.respond.send_response(head, false).unwrap()
    }

    /// Answers like a server of gRPC: with `data`, and trailers that say what became of it.
    pub(crate) fn finish(&mut self, data: &'static [u8], status: &str) {
        let mut stream = self.begin();
        stream.send_data(Bytes::from_static(data), false).unwrap();
        stream.send_trailers(trailers(status)).unwrap();
    }
}

pub(crate) fn trailers(status: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_str(status).unwrap());
    trailers.insert("grpc-message", HeaderValue::from_static("as%20it%20was%20said"));
    trailers
}

pub(crate) async fn collect(body: &mut RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut all = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        all.extend_from_slice(&piece);
    }
    Ok((all, body.trailers().await?))
}

/// An instance whose streams that are no probe's go to `script`.
pub(crate) fn instance<F: Future<Output = ()> + 'static>(
    settings: h2::server::Builder,
    script: impl Fn(Call) -> F + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let script = Arc::new(move |call| -> Script { Box::pin(script(call)) });
        alone(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let connections = Arc::new(AtomicUsize::new(0));
            while let Ok((socket, _)) = listener.accept().await {
                let (settings, script) = (settings.clone(), Arc::clone(&script));
                let Ok(mut connection) = settings.handshake::<_, Bytes>(socket).await else { continue };
                // A probe's has none.
                let mut number = 0;
                let connections = Arc::clone(&connections);
                tokio::task::spawn_local(async move {
                    while let Some(Ok((request, mut respond))) = connection.accept().await {
                        if request.headers().get("user-agent").is_some_and(|it| it == "berth-health") {
                            respond.send_response(Response::new(()), true).unwrap();
                            continue;
                        }
                        if number == 0 {
                            number = connections.fetch_add(1, SeqCst) + 1;
                        }
                        tokio::task::spawn_local(script(Call { connection: number, request, respond }));
                    }
                });
            }
        });
    });
    addr
}

/// An instance that says by GOAWAY that it did nothing with the first stream on its first connection for requests, and then is like `instance`.
pub(crate) fn leaving(then: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut left = false;
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            if left {
                // What comes from now on is served elsewhere.
                let mut there = std::net::TcpStream::connect(then).unwrap();
                let (mut from, mut to) = (socket.try_clone().unwrap(), there.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut from, &mut to).is_ok());
                std::thread::spawn(move || std::io::copy(&mut there, &mut socket).is_ok());
                continue;
            }
            const SETTINGS: [u8; 18] = [0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0];
            const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            socket.set_read_timeout(Some(HANG)).unwrap();
            socket.write_all(&SETTINGS).unwrap();
            socket.read_exact(&mut [0; 24]).unwrap();
            loop {
                let mut head = [0; 9];
                if socket.read_exact(&mut head).is_err() {
                    break;
                }
                let length = usize::from(head[1]) << 8 | usize::from(head[2]);
                let mut payload = vec![0; length];
                socket.read_exact(&mut payload).unwrap();
                // HEADERS of what is no probe: a probe begins with GET, the second entry of HPACK's table.
                if head[3] == 1 && payload.first() == Some(&0x82) {
                    break;
                }
                if head[3] == 1 {
                    left = true;
                    socket.write_all(&GOAWAY).unwrap();
                    // Until it was seen.
                    let _closed = socket.read(&mut [0; 4096]);
                    break;
                }
            }
        }
    });
    addr
}

/// Runs what is to be on one thread.
pub(crate) fn alone<T>(task: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, task)
}

/// The same with an end to what hangs.
pub(crate) fn within<T>(task: impl Future<Output = T>) -> T {
    alone(async { tokio::time::timeout(HANG, task).await.expect("it comes to its end in time") })
}

/// The app `shop` whose instances speak HTTP/2.
pub(crate) fn framed(generation: u64, backends: &[(SocketAddr, Role)]) -> Snapshot {
    checked(generation, backends, ProbePath::Guess)
}

pub(crate) fn checked(generation: u64, backends: &[(SocketAddr, Role)], path: ProbePath) -> Snapshot {
    let mut snapshot = with_probe(generation, backends, path);
    for app in snapshot.apps.values_mut() {
        app.backends.iter_mut().for_each(|backend| backend.protocol = HttpProtocol::H2c);
    }
    snapshot
}

/// An edge of one thread that takes HTTP/2 without TLS.
pub(crate) fn edge(snapshot: &Snapshot, change: impl FnOnce(&mut Options)) -> World {
    let mut options = Options { h2c: true, threads: 1, ..Options::default() };
    change(&mut options);
    let mut world = World::start(options);
    world.apply(snapshot);
    world
}

pub(crate) struct Caller {
    pub(crate) sender: h2::client::SendRequest<Bytes>,
}

impl Caller {
    pub(crate) async fn connect(world: &World) -> Self {
        Self::with(world, &h2::client::Builder::new()).await
    }

    pub(crate) async fn with(world: &World, settings: &h2::client::Builder) -> Self {
        let socket = tokio::net::TcpStream::connect(world.addr).await.unwrap();
        let (sender, connection) = settings.handshake(socket).await.unwrap();
        tokio::task::spawn_local(async move { drop(connection.await) });
        Self { sender }
    }

    /// Begins a call of gRPC.
    pub(crate) async fn call(&self, path: &str) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
        let request = Request::post(format!("http://shop.localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        self.sender.clone().ready().await.unwrap().send_request(request, false).unwrap()
    }

    /// Makes a whole call with `data`; the head of its answer, the body and the trailers.
    pub(crate) async fn unary(
        &self,
        path: &str,
        data: Vec<u8>,
    ) -> (Response<()>, Vec<u8>, Option<HeaderMap>) {
        let (answer, mut body) = self.call(path).await;
        body.send_data(Bytes::from(data), true).unwrap();
        whole(answer).await
    }
}

pub(crate) async fn whole(answer: h2::client::ResponseFuture) -> (Response<()>, Vec<u8>, Option<HeaderMap>) {
    let (head, mut body) = answer.await.unwrap().into_parts();
    let (data, trailers) = collect(&mut body).await.unwrap();
    (Response::from_parts(head, ()), data, trailers)
}
