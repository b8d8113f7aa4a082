//! An edge with real sockets on loopback, a control that the test plays, and instances that the test scripts.

use std::collections::VecDeque;
use std::io::{PipeWriter, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use berth_certificate::{AUTHORITY, LocalAuthority};
use berth_clock::{Clock as _, SystemClock};
use berth_edge::{AccessLog, Config, EdgeError, ExitReason, Http1, Limits};
use berth_routing::wire::{Decoder, FromEdge, PROTOCOL, ToEdge, encode};
use berth_routing::{AppRoute, Backend, Endpoint, Generation, Host, Probe, ProbePath, Role, Snapshot};
use berth_spec::{AppId, InstanceId, Millis, Proxies};
use tempfile::TempDir;

/// Nothing here takes so long; it only turns a hang into a failure.
pub(crate) const HANG: Duration = Duration::from_secs(30);

pub(crate) struct World {
    pub(crate) addr: SocketAddr,
    /// Where it serves HTTPS.
    pub(crate) secure: SocketAddr,
    pub(crate) control: Control,
    pub(crate) log: Arc<Mutex<Vec<u8>>>,
    pub(crate) handover: PathBuf,
    /// The supervisor's end of the leash.
    pub(crate) leash: Option<PipeWriter>,
    home: TempDir,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    edge: Option<JoinHandle<Result<ExitReason, EdgeError>>>,
}

pub(crate) struct Options {
    /// What `current.json` holds.
    pub(crate) boot: Option<Vec<u8>>,
    pub(crate) limits: Limits,
    pub(crate) threads: usize,
    /// Whether clients without TLS may speak HTTP/2.
    pub(crate) h2c: bool,
    /// Instead of new ones.
    pub(crate) listeners: Option<Vec<TcpListener>>,
}

impl Default for Options {
    fn default() -> Self {
        let limits = Limits {
            tick: Duration::from_millis(20),
            drain_idle: Duration::from_millis(100),
            ..Limits::default()
        };
        Self { boot: None, limits, threads: 2, h2c: false, listeners: None }
    }
}

struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl World {
    /// An edge that serves `snapshot`, connected to the test's control.
    pub(crate) fn serving(snapshot: &Snapshot) -> Self {
        let mut world = Self::start(Options::default());
        world.apply(snapshot);
        world
    }

    pub(crate) fn start(options: Options) -> Self {
        let home = TempDir::new().unwrap();
        if let Some(boot) = &options.boot {
            std::fs::write(home.path().join("current.json"), boot).unwrap();
        }
        let now = i64::try_from(SystemClock::new().now().0 / 1_000).unwrap();
        std::fs::write(home.path().join(AUTHORITY), LocalAuthority::make(now).unwrap()).unwrap();
        let control_socket = home.path().join("edge.sock");
        let control = UnixListener::bind(&control_socket).unwrap();
        let handover = home.path().join("handover.sock");
        let handover_listener = UnixListener::bind(&handover).unwrap();
        let listeners = options.listeners.unwrap_or_else(|| reuse_port_listeners(options.threads));
        let addr = listeners[0].local_addr().unwrap();
        let secure = reuse_port_listeners(listeners.len());
        let secure_addr = secure[0].local_addr().unwrap();
        let log = Arc::<Mutex<Vec<u8>>>::default();
        let sink = Sink(Arc::clone(&log));
        let (leash, supervisor) = std::io::pipe().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let config = Config {
            listeners,
            secure,
            routing_dir: OwnedFd::from(std::fs::File::open(home.path()).unwrap()),
            dial_folder: home.path().to_owned(),
            control_socket,
            leash: Some(OwnedFd::from(leash)),
            handover: Some(handover_listener),
            owner_uid: 0,
            access_log: AccessLog::To(Box::new(sink)),
            limits: options.limits,
            h2c: options.h2c,
            http1: if env!("CARGO_CRATE_NAME") == "edge_by_hyper" { Http1::Hyper } else { Http1::Own },
            proxies: Proxies::default(),
            clock: Arc::new(SystemClock::new()),
            allow_root: true,
            ready: None,
            stop: stopped,
        };
        let edge = std::thread::spawn(move || berth_edge::run(config));
        let control = Control::accept(control);
        Self {
            addr,
            secure: secure_addr,
            control,
            log,
            handover,
            leash: Some(supervisor),
            home,
            stop: Some(stop),
            edge: Some(edge),
        }
    }

    /// Sends a snapshot and waits until every thread uses it.
    pub(crate) fn apply(&mut self, snapshot: &Snapshot) {
        self.control.send(&ToEdge::Snapshot(snapshot.clone()));
        let (_, before) = self.control.wait(|message| {
            matches!(message, FromEdge::Applied { generation } if *generation == snapshot.generation)
        });
        // An instance may be found ready before every thread uses the snapshot that named it.
        self.control.passed.extend(before.into_iter().filter(|it| matches!(it, FromEdge::Health { .. })));
    }

    /// Ends control's side of the connection and waits for edge to come back.
    pub(crate) fn restart_control(&mut self) {
        let path = self.home.path().join("edge.sock");
        self.control.stream.shutdown(Shutdown::Both).unwrap();
        let listener = self.control.listener.take().unwrap();
        drop(listener);
        std::fs::remove_file(&path).unwrap();
        self.control = Control::accept(UnixListener::bind(&path).unwrap());
    }

    /// The certificate of its own authority.
    pub(crate) fn authority(&self) -> String {
        let pem = std::fs::read_to_string(self.home.path().join(AUTHORITY)).unwrap();
        LocalAuthority::read(&pem).unwrap().root_pem().to_owned()
    }

    /// What tells it to stop.
    pub(crate) fn stopper(&mut self) -> tokio::sync::oneshot::Sender<()> {
        self.stop.take().unwrap()
    }

    /// The folder in which it looks for the sockets of shims.
    pub(crate) fn dial_folder(&self) -> &std::path::Path {
        self.home.path()
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.addr)
    }

    /// One request on a connection of its own.
    pub(crate) fn get(&self, host: &str, path: &str) -> Response {
        self.client().request(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
    }

    pub(crate) fn tell_to_stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    /// Waits for the end of an edge that was told to stop.
    pub(crate) fn ended(&mut self) -> ExitReason {
        self.edge.take().unwrap().join().unwrap().unwrap()
    }

    pub(crate) fn log_text(&self) -> String {
        String::from_utf8(self.log.lock().unwrap().clone()).unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let (Some(stop), Some(edge)) = (self.stop.take(), self.edge.take()) {
            let told = stop.send(());
            if told.is_ok() && !std::thread::panicking() {
                edge.join().unwrap().unwrap();
            }
        }
    }
}

fn reuse_port_listeners(count: usize) -> Vec<TcpListener> {
    use rustix::net::{AddressFamily, SocketType, bind, listen, socket, sockopt};
    let mut addr = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut listeners = Vec::new();
    for _ in 0..count {
        let fd = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        sockopt::set_socket_reuseport(&fd, true).unwrap();
        bind(&fd, &addr).unwrap();
        listen(&fd, 128).unwrap();
        let listener = TcpListener::from(fd);
        addr = listener.local_addr().unwrap();
        listeners.push(listener);
    }
    listeners
}

/// An address at which nothing listens, held so that nobody else takes it.
pub(crate) fn nobody() -> (SocketAddr, OwnedFd) {
    use rustix::net::{AddressFamily, SocketType, bind, socket, sockopt};
    let fd = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    sockopt::set_socket_reuseport(&fd, true).unwrap();
    bind(&fd, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let addr = rustix::net::getsockname(&fd).unwrap().try_into().unwrap();
    (addr, fd)
}

/// Lets someone listen there after all.
pub(crate) fn listen(fd: OwnedFd) -> TcpListener {
    rustix::net::listen(&fd, 16).unwrap();
    TcpListener::from(fd)
}

/// The test as control.
pub(crate) struct Control {
    listener: Option<UnixListener>,
    stream: UnixStream,
    decoder: Decoder,
    /// What came while something else was waited for, and is to be seen still.
    passed: VecDeque<FromEdge>,
}

impl Control {
    fn accept(listener: UnixListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(HANG)).unwrap();
        let (decoder, passed) = (Decoder::default(), VecDeque::new());
        let mut control = Self { listener: Some(listener), stream, decoder, passed };
        let hello = control.next();
        assert_eq!(hello, FromEdge::Hello { protocol: PROTOCOL, pid: std::process::id() });
        control.send(&ToEdge::Hello { protocol: PROTOCOL });
        control
    }

    pub(crate) fn send(&mut self, message: &ToEdge) {
        self.stream.write_all(&encode(message).unwrap()).unwrap();
    }

    pub(crate) fn next(&mut self) -> FromEdge {
        loop {
            if let Some(message) = self.decoder.message().unwrap() {
                return message;
            }
            let mut piece = [0; 4096];
            let count = self.stream.read(&mut piece).expect("edge says something in time");
            assert!(count > 0, "edge closed the connection to control");
            self.decoder.feed(&piece[..count]);
        }
    }

    /// The next message that `wanted` picks, and all that came before it.
    pub(crate) fn wait(&mut self, wanted: impl Fn(&FromEdge) -> bool) -> (FromEdge, Vec<FromEdge>) {
        let mut before = Vec::new();
        loop {
            let message = self.passed.pop_front().unwrap_or_else(|| self.next());
            if wanted(&message) {
                return (message, before);
            }
            before.push(message);
        }
    }

    pub(crate) fn wait_drained(&mut self, ordinal: u64) -> (Generation, Vec<FromEdge>) {
        let wanted = instance(ordinal);
        let (message, before) =
            self.wait(|message| matches!(message, FromEdge::Drained { instance, .. } if *instance == wanted));
        let FromEdge::Drained { generation, .. } = message else { unreachable!() };
        (generation, before)
    }
}

pub(crate) fn app(name: &str) -> AppId {
    format!("default/default/{name}").parse().unwrap()
}

/// An instance of the app `shop`.
pub(crate) fn instance(ordinal: u64) -> InstanceId {
    app("shop").instance("web".parse().unwrap(), ordinal)
}

/// The app `shop` at `shop.localhost` with these instances, numbered from 1.
pub(crate) fn shop(generation: u64, backends: &[(SocketAddr, Role)]) -> Snapshot {
    with_probe(generation, backends, ProbePath::Guess)
}

pub(crate) fn with_probe(generation: u64, backends: &[(SocketAddr, Role)], path: ProbePath) -> Snapshot {
    let backends = (1..).zip(backends).map(|(ordinal, (addr, role))| Backend {
        instance: instance(ordinal),
        endpoint: Endpoint::Tcp { addr: *addr },
        role: *role,
        // So long an interval keeps probes out of what a scripted instance sees, after the first.
        probe: Probe {
            path: path.clone(),
            interval: Millis::from_secs(3_600),
            timeout: Millis::from_secs(20),
        },
        concurrency: berth_spec::RequestConcurrency::default(),
        request_timeout: None,
        protocol: berth_spec::HttpProtocol::default(),
    });
    let route = AppRoute {
        hosts: vec![Host("shop.*".to_owned()), Host("shop.example.com".to_owned())],
        backends: backends.collect(),
        hold: Millis::from_secs(20),
        rate_limits: Vec::new(),
        gate: berth_spec::Gate::Open,
        address: None,
        ..berth_routing::AppRoute::default()
    };
    Snapshot {
        format: Snapshot::FORMAT,
        ..Snapshot::new(Generation(generation), [(app("shop"), route)].into())
    }
}

pub(crate) fn with_hold(mut snapshot: Snapshot, hold: u64) -> Snapshot {
    snapshot.apps.values_mut().for_each(|app| app.hold = Millis(hold));
    snapshot
}

/// An instance: each connection that is not a probe's goes to the script.
pub(crate) struct Instance {
    pub(crate) addr: SocketAddr,
}

/// A connection to an instance whose first request's head was read.
pub(crate) struct Call {
    pub(crate) stream: TcpStream,
    pub(crate) head: String,
}

impl Instance {
    pub(crate) fn scripted(script: impl Fn(Call) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        Self::on(listener, script);
        Self { addr }
    }

    /// Like `scripted`, on a socket that was bound before.
    pub(crate) fn on(listener: TcpListener, script: impl Fn(Call) + Send + Sync + 'static) {
        let script = Arc::new(script);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let script = Arc::clone(&script);
                std::thread::spawn(move || {
                    stream.set_read_timeout(Some(HANG)).unwrap();
                    let Some(head) = read_head(&mut stream) else { return };
                    if head.contains("user-agent: berth-health") {
                        drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
                        return;
                    }
                    script(Call { stream, head });
                });
            }
        });
    }

    /// Answers each request when the test says so; with the end that says that one has come, and the one to say it by.
    pub(crate) fn gated(answer: impl Fn(Call) + Send + Sync + 'static) -> (Self, Receiver<()>, Sender<()>) {
        let (told, began) = channel();
        let (go, gate) = channel();
        let (told, gate) = (Mutex::new(told), Mutex::new(gate));
        let instance = Self::scripted(move |call| {
            told.lock().unwrap().send(()).unwrap();
            gate.lock().unwrap().recv_timeout(HANG).unwrap();
            answer(call);
        });
        (instance, began, go)
    }

    /// Answers each request with what `answer` makes of its head, as long as that says that there may be another; with how many connections it had.
    pub(crate) fn answering(
        answer: impl Fn(&mut Call) -> bool + Send + Sync + 'static,
    ) -> (Self, Arc<AtomicUsize>) {
        let connections = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&connections);
        let instance = Self::scripted(move |mut call| {
            counter.fetch_add(1, SeqCst);
            while answer(&mut call) {
                let Some(head) = read_head(&mut call.stream) else { return };
                call.head = head;
            }
        });
        (instance, connections)
    }

    /// Answers every request with its own head, and passes the heads on.
    pub(crate) fn mirror() -> (Self, Receiver<String>) {
        let (heads, seen) = channel();
        let heads: Mutex<Sender<String>> = Mutex::new(heads);
        let instance = Self::scripted(move |mut call| {
            loop {
                drop(heads.lock().unwrap().send(call.head.clone()));
                call.respond(&call.head.clone());
                let Some(head) = read_head(&mut call.stream) else { return };
                call.head = head;
            }
        });
        (instance, seen)
    }
}

impl Call {
    pub(crate) fn respond(&mut self, body: &str) {
        self.write(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
    }

    /// For a script that ends here: edge must not keep the connection for the next request.
    pub(crate) fn respond_and_close(&mut self, body: &str) {
        let length = body.len();
        self.write(&format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        ));
    }

    pub(crate) fn write(&mut self, text: &str) {
        // The other side may be gone by intention.
        drop(self.stream.write_all(text.as_bytes()));
    }

    /// Everything until the other side ends.
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        drop(self.stream.read_to_end(&mut bytes));
        bytes
    }

    pub(crate) fn read_until(&mut self, end: &str) -> String {
        read_until(&mut self.stream, end).expect("the other side sends so much")
    }
}

fn read_head(stream: &mut TcpStream) -> Option<String> {
    read_until(stream, "\r\n\r\n")
}

/// `None` when the stream ends before `end` came.
pub(crate) fn read_until(stream: &mut TcpStream, end: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(end.as_bytes()) {
        match stream.read(&mut byte) {
            Ok(1) => bytes.push(byte[0]),
            _ => return None,
        }
    }
    Some(String::from_utf8(bytes).unwrap())
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
}

impl Client {
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(HANG)).unwrap();
        Self { stream }
    }

    pub(crate) fn send(&mut self, text: &str) {
        drop(self.stream.write_all(text.as_bytes()));
    }

    pub(crate) fn request(&mut self, text: &str) -> Response {
        self.send(text);
        self.response(!text.starts_with("HEAD")).expect("edge answers")
    }

    /// The next response; `None` when the connection ends first. A chunked body is given as it came.
    pub(crate) fn response(&mut self, has_body: bool) -> Option<Response> {
        let head = read_until(&mut self.stream, "\r\n\r\n")?;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut response = Response { status, head, body: String::new() };
        if let Some(length) = response.header("content-length").filter(|_| has_body) {
            let mut body = vec![0; length.parse().unwrap()];
            self.stream.read_exact(&mut body).ok()?;
            response.body = String::from_utf8(body).unwrap();
        } else if response.header("transfer-encoding").is_some() {
            response.body = read_until(&mut self.stream, "0\r\n\r\n")?;
        }
        Some(response)
    }

    pub(crate) fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        drop(self.stream.read_to_end(&mut bytes));
        String::from_utf8(bytes).unwrap()
    }

    pub(crate) fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0) | Err(_))
    }
}
