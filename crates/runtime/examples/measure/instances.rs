//! How quickly instances start, what they take and how quickly they wake, beside other launchers.
//!
//! The app is busybox's httpd everywhere, a static program, so that what is measured is the launcher. A start is from its beginning to the
//! first byte of the app's first answer. Ours and the peers' take turns, one start each.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_clock::{Clock as _, SystemClock};
use berth_runtime::{Frozen, InstanceSpec, Observed, PlainRuntime, Resources, Runtime as _, dial_folder};
use berth_shim::dial;
use berth_spec::manifest::Egress;
use serde_json::json;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::peers::Peer;

/// Where the app listens, in its own network.
pub(crate) const PORT: u16 = 8080;
/// What runs.
pub(crate) const APP: [&str; 7] = ["/bin/busybox", "httpd", "-f", "-p", "127.0.0.1:8080", "-h", "/tmp"];
/// How long to wait between two attempts to connect.
const PAUSE: Duration = Duration::from_micros(200);
/// An app that does not answer for so long does not answer.
const HANG: Duration = Duration::from_secs(20);
/// How many are started at once when many are.
const AT_ONCE: usize = 4;
/// How long the process of the runtime is watched while all stand there.
const IDLE: Duration = Duration::from_secs(10);

/// What is to be measured.
pub(crate) struct Wish<'a> {
    pub(crate) starts: usize,
    pub(crate) many: usize,
    pub(crate) scratch: &'a Path,
    pub(crate) peers: &'a [&'a str],
}

pub(crate) async fn measure(home: &Path, wish: &Wish<'_>) -> Outcome<()> {
    let bench = Bench::new(crate::open(home)?, dial_folder(&home.join("run")));
    let level = bench.runtime.capabilities().isolation;
    if !bench.runtime.capabilities().own_network {
        return Err("this user cannot make networks".into());
    }
    let mut peers =
        wish.peers.iter().map(|name| Peer::new(name, wish.scratch)).collect::<Outcome<Vec<_>>>()?;
    let (mut ours, mut named, mut out) = (Vec::new(), Vec::new(), Vec::new());
    let mut theirs = vec![Vec::new(); peers.len()];
    // The first of each finds cold caches and is not counted.
    for round in 0..=wish.starts {
        let counts = round > 0;
        ours.extend(Some(bench.start(Egress::None).await?).filter(|_| counts));
        named.extend(Some(bench.start(Egress::Internal).await?).filter(|_| counts));
        out.extend(Some(bench.start(Egress::Internet).await?).filter(|_| counts));
        for (peer, times) in peers.iter_mut().zip(&mut theirs) {
            times.extend(Some(peer.start(round)?).filter(|_| counts));
        }
    }
    let starts: serde_json::Map<_, _> =
        wish.peers.iter().zip(theirs).map(|(name, times)| ((*name).to_owned(), json!(times))).collect();
    drop(peers);
    let wakes = bench.wakes(wish.starts).await?;
    let many = bench.many(wish.many).await?;
    println!(
        "{}",
        json!({
            "level": level, "start_ms": ours, "start_with_names_ms": named, "start_with_a_way_out_ms": out,
            "peers": starts, "wake_ms": wakes, "many": many,
        })
    );
    Ok(())
}

/// A runtime whose instances are measured.
pub(crate) struct Bench {
    pub(crate) runtime: Arc<PlainRuntime>,
    /// Where edge would ask for sockets of their networks.
    folder: PathBuf,
    pub(crate) clock: SystemClock,
}

impl Bench {
    pub(crate) fn new(runtime: PlainRuntime, folder: PathBuf) -> Self {
        Self { runtime: Arc::new(runtime), folder, clock: SystemClock::new() }
    }

    pub(crate) fn spec(number: usize, egress: Egress) -> Outcome<InstanceSpec> {
        let mut spec = crate::spec(number, &APP)?;
        spec.resources = Resources {
            memory: Some(256 << 20),
            cpu_millis: Some(2_000),
            processes: Some(256),
            ..Resources::default()
        };
        spec.egress = egress;
        Ok(spec)
    }

    /// How long one takes to start and answer, in milliseconds.
    pub(crate) async fn start(&self, egress: Egress) -> Outcome<f64> {
        let spec = Self::spec(0, egress)?;
        let id = spec.id.clone();
        let began = self.clock.monotonic();
        let observed = self.runtime.start(spec).await?;
        first_byte(&self.clock, || self.connect(&observed))?;
        let took = millis(self.clock.monotonic() - began);
        self.runtime.kill(&id).await?;
        self.runtime.remove(&id).await?;
        Ok(took)
    }

    /// A connection as edge makes its first one to an instance.
    pub(crate) fn connect(&self, observed: &Observed) -> Outcome<TcpStream> {
        let name = observed.dialer().ok_or("it has a network of its own")?;
        let mut line = UnixStream::connect(self.folder.join(format!("{name}.sock")))?;
        line.write_all(&dial::request(1))?;
        let sockets: Vec<OwnedFd> = dial::receive(&line)?;
        let socket = sockets.into_iter().next().ok_or("the shim gave none")?;
        connect_by(socket)
    }

    /// How long a frozen one takes to answer a request that comes in, thawing it included.
    async fn wakes(&self, count: usize) -> Outcome<Vec<f64>> {
        let spec = Self::spec(0, Egress::None)?;
        let id = spec.id.clone();
        let observed = self.runtime.start(spec).await?;
        first_byte(&self.clock, || self.connect(&observed))?;
        let mut wakes = Vec::new();
        for _ in 0..count {
            self.runtime.freeze(&id, Frozen::Resident).await?;
            let began = self.clock.monotonic();
            self.runtime.thaw(&id).await?;
            first_byte(&self.clock, || self.connect(&observed))?;
            wakes.push(millis(self.clock.monotonic() - began));
        }
        self.runtime.kill(&id).await?;
        self.runtime.remove(&id).await?;
        Ok(wakes)
    }

    /// Starts many, and looks at what they take while they stand there.
    async fn many(&self, count: usize) -> Outcome<serde_json::Value> {
        let before = available()?;
        let began = self.clock.monotonic();
        let specs = (0..count).map(|number| Self::spec(number, Egress::None)).collect::<Outcome<Vec<_>>>()?;
        let mut started = Vec::new();
        let mut starts = JoinSet::new();
        for spec in specs {
            if starts.len() == AT_ONCE
                && let Some(one) = starts.join_next().await
            {
                started.push(one??);
            }
            let runtime = Arc::clone(&self.runtime);
            starts.spawn(async move { runtime.start(spec).await });
        }
        while let Some(one) = starts.join_next().await {
            started.push(one??);
        }
        for observed in &started {
            first_byte(&self.clock, || self.connect(observed))?;
        }
        let took = (self.clock.monotonic() - began).as_secs_f64();
        let taken = before.saturating_sub(available()?);
        let (ours, began) = (own_cpu()?, self.clock.monotonic());
        // Nothing is waited for: this is the time over which the processor is read.
        tokio::time::sleep(IDLE).await;
        let cpu = (own_cpu()? - ours) / (self.clock.monotonic() - began).as_secs_f64() * 100.0;
        for observed in &started {
            self.runtime.kill(&observed.id).await?;
            self.runtime.remove(&observed.id).await?;
        }
        Ok(json!({ "count": count, "seconds": took, "taken_kb": taken, "idle_cpu_pct": cpu }))
    }
}

/// Asks until there is an answer, and gives up when there is none for long.
pub(crate) fn first_byte(clock: &SystemClock, connect: impl Fn() -> Outcome<TcpStream>) -> Outcome<()> {
    let began = clock.monotonic();
    loop {
        match connect().and_then(|stream| ask(stream)) {
            Ok(()) => return Ok(()),
            Err(error) if clock.monotonic() - began > HANG => return Err(error),
            Err(_) => pause(PAUSE),
        }
    }
}

/// Between two looks at what tells nobody that it is there.
#[expect(clippy::disallowed_methods, reason = "a launcher of others' says nothing that could be waited for")]
pub(crate) fn pause(span: Duration) {
    std::thread::sleep(span);
}

/// Connects by a socket that was made where the app is.
pub(crate) fn connect_by(socket: OwnedFd) -> Outcome<TcpStream> {
    rustix::io::ioctl_fionbio(&socket, false)?;
    rustix::net::connect(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)))?;
    Ok(TcpStream::from(socket))
}

fn ask(mut stream: TcpStream) -> Outcome<()> {
    stream.set_read_timeout(Some(HANG))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut first = [0];
    stream.read_exact(&mut first)?;
    if first == *b"H" { Ok(()) } else { Err("that is no answer".into()) }
}

pub(crate) fn millis(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e3
}

/// The memory that the machine has left, in KiB: what an instance takes shows in no process alone, the kernel's part being the larger.
fn available() -> Outcome<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB")).ok_or("no MemAvailable")?;
    Ok(number.trim().parse()?)
}

/// The processor time of this process, in seconds.
fn own_cpu() -> Outcome<f64> {
    let usage = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Ok(Duration::new(usage.tv_sec.try_into()?, usage.tv_nsec.try_into()?).as_secs_f64())
}
