//! Edge beside nginx, HAProxy, Caddy and Envoy: processor time for each request, time to an answer, memory of idle connections.

mod peers;
mod releases;
mod running;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use self::peers::{ALL, Place, Proxy};
use self::running::{LOAD_CORE, PROXY_CORE, Running};
use super::Context;
use super::measured::Measured;
use super::statistics::Samples;
use super::{process_usage, rollouts, wake};
use crate::program::Program;
use crate::stopwatch::Stopwatch;

/// One kind of traffic: the key of its figure, and how it is made.
struct Traffic {
    key: &'static str,
    /// Without the scheme and the address.
    path: &'static str,
    secure: bool,
    by: Client,
}

enum Client {
    /// `wrk` with so many connections, and more arguments.
    Wrk(&'static str, &'static [&'static str]),
    /// `wrk` whose requests go to all hosts in turns.
    Hosts,
    H2Load,
    Handshakes,
    /// `wrk` that sends a mebibyte with each request.
    Uploads,
}

const CLOSE: &[&str] = &["-H", "Connection: close"];
const TRAFFIC: &[Traffic] = &[
    Traffic { key: "plain", path: "/", secure: false, by: Client::Wrk("64", &[]) },
    Traffic { key: "close", path: "/", secure: false, by: Client::Wrk("64", CLOSE) },
    Traffic { key: "tls", path: "/", secure: true, by: Client::Wrk("64", &[]) },
    Traffic { key: "handshake", path: "/", secure: true, by: Client::Handshakes },
    Traffic { key: "h2", path: "/", secure: true, by: Client::H2Load },
    Traffic { key: "body1m", path: "/mib", secure: false, by: Client::Wrk("16", &[]) },
    Traffic { key: "upload1m", path: "/mib", secure: false, by: Client::Uploads },
];

/// What a proxy was measured to take.
#[derive(Default)]
struct Taken {
    /// Processor microseconds for a request, of each round.
    cpu: Vec<f64>,
    /// Microseconds to an answer, the median and the 99th percentile of each round.
    p50: Vec<f64>,
    p99: Vec<f64>,
    requests: u64,
}

type Figures = BTreeMap<(Proxy, String), Taken>;

struct Stage<'a> {
    context: &'a Context<'a>,
    dir: PathBuf,
    app: u16,
    seconds: u32,
}

pub(super) fn run(context: &Context<'_>) -> Result<Measured> {
    let package = ["--package", "berth-edge", "--example", "edge_alone"];
    Program::cargo(context.workspace, "build").args(["--quiet", "--release"]).args(package).run()?;
    peers::provide_envoy(context);
    let mut measured = Measured::default();
    let versions: BTreeMap<Proxy, String> =
        ALL.iter().filter_map(|proxy| Some((*proxy, proxy.version(context)?))).collect();
    measured.absent.extend(ALL.iter().filter(|it| !versions.contains_key(it)).map(|it| it.name().to_owned()));
    let dir = context.workspace.target_dir()?.join("bench-edge");
    if dir.try_exists()? {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir_all(&dir)?;
    let (rounds, seconds) = if context.quick { (3, 1) } else { (5, 4) };
    let app = free_port()?;
    let alone = context.workspace.target_dir()?.join("release/examples/edge_alone");
    let line = (alone, vec!["app".to_owned(), app.to_string()]);
    let mut behind = Running::start(LOAD_CORE, &line, &dir, Stdio::null())?;
    behind.until_listening(&[app])?;
    let stage = Stage { context, dir, app, seconds };
    let present: Vec<Proxy> = versions.keys().copied().collect();
    let mut figures = Figures::new();
    for round in 0..rounds {
        for turn in 0..present.len() {
            let proxy = present[(round + turn) % present.len()];
            stage.traffic(proxy, &mut figures).with_context(|| format!("while {} ran", proxy.name()))?;
        }
    }
    stage.routes(&present, &mut figures)?;
    report(&figures, &versions, &mut measured);
    stage.idle(&versions, &mut measured)?;
    stage.changes(&mut measured)?;
    drop(behind);
    rollouts::simulated(context, &mut measured)?;
    let berth = wake::program(context, &mut measured)?;
    wake::wakes(context, &berth, &mut measured)?;
    releases::measure(context, &berth, &mut measured)?;
    measured.notes.push(format!(
        "one core for the proxy, the other for the clients and the app; {rounds} rounds in rotating order, {seconds} s of each kind of traffic, medians of the rounds; \
         processor time is user and system time of all processes of the proxy; every proxy has time limits, an access log in a file, a request id and the client's address in headers on"
    ));
    measured.notes.push(
        "plain, close, tls: 64 connections by wrk, answers of 1 KiB; handshake: a new TLS 1.3 connection with P-256 for each request, without resumption; h2: 16 connections of 8 streams by h2load; \
         body1m and upload1m: a mebibyte down and up over 16 connections, nginx with buffering off and buffers of 64 KiB"
            .to_owned(),
    );
    Ok(measured)
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn report(figures: &Figures, versions: &BTreeMap<Proxy, String>, measured: &mut Measured) {
    let keys: Vec<String> =
        figures.keys().filter(|(proxy, _)| *proxy == Proxy::Edge).map(|(_, key)| key.clone()).collect();
    for key in keys {
        type Column = fn(&Taken) -> &Vec<f64>;
        let columns: [(&str, &str, Column); 3] = [
            ("us", "us CPU/request", |taken| &taken.cpu),
            ("p50_us", "us", |taken| &taken.p50),
            ("p99_us", "us", |taken| &taken.p99),
        ];
        for (suffix, unit, column) in columns {
            let of = |proxy: Proxy| {
                let taken = figures.get(&(proxy, key.clone()))?;
                Some((median(column(taken))?, taken.requests))
            };
            let Some((ours, requests)) = of(Proxy::Edge) else { continue };
            let figure = measured.figure(&format!("{key}_{suffix}"), ours, unit, requests);
            for (proxy, version) in versions.iter().filter(|(proxy, _)| **proxy != Proxy::Edge) {
                if let Some((value, _)) = of(*proxy) {
                    figure.peer(version, value);
                }
            }
        }
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// A proxy that runs, and where.
struct Served {
    running: Running,
    plain: u16,
    secure: u16,
}

impl Stage<'_> {
    fn serve(&self, proxy: Proxy, routes: usize) -> Result<Served> {
        let dir = self.dir.join(proxy.name());
        std::fs::create_dir_all(&dir)?;
        Program::new(self.alone()?).arg("certificate").arg(&dir).run()?;
        let (plain, secure) = (free_port()?, free_port()?);
        let place = Place { plain, secure, app: self.app, dir: &dir, routes };
        let line = proxy.line(self.context, &place)?;
        let mut running = Running::start(PROXY_CORE, &line, &dir, Stdio::null())?;
        running.until_listening(&[plain, secure])?;
        Ok(Served { running, plain, secure })
    }

    fn alone(&self) -> Result<PathBuf> {
        Ok(self.context.workspace.target_dir()?.join("release/examples/edge_alone"))
    }

    /// All kinds of traffic through one proxy, once.
    fn traffic(&self, proxy: Proxy, figures: &mut Figures) -> Result<()> {
        let served = self.serve(proxy, 1)?;
        self.load(&served, &TRAFFIC[0], 1)?;
        for traffic in TRAFFIC {
            self.measure(&served, proxy, traffic, traffic.key, figures)
                .with_context(|| format!("{} by {}", traffic.key, proxy.name()))?;
        }
        Ok(())
    }

    fn measure(
        &self,
        served: &Served,
        proxy: Proxy,
        traffic: &Traffic,
        key: &str,
        figures: &mut Figures,
    ) -> Result<()> {
        let pids = served.running.pids()?;
        let before = process_usage::cpu_seconds(&pids)?;
        let came = self.load(served, traffic, self.seconds)?;
        let used = process_usage::cpu_seconds(&pids)? - before;
        ensure!(came.requests > 0, "nothing was answered");
        let taken = figures.entry((proxy, key.to_owned())).or_default();
        taken.cpu.push(used * 1e6 / came.requests as f64);
        taken.p50.extend(came.p50);
        taken.p99.extend(came.p99);
        taken.requests += came.requests;
        Ok(())
    }

    fn load(&self, served: &Served, traffic: &Traffic, seconds: u32) -> Result<Came> {
        let (scheme, port) = if traffic.secure { ("https", served.secure) } else { ("http", served.plain) };
        let url = format!("{scheme}://localhost:{port}{}", traffic.path);
        let on_core = |program: &str| Program::new("taskset").args(["-c", LOAD_CORE, program]);
        let wrk = |connections: &str| {
            let time = format!("-d{seconds}s");
            on_core("wrk").args(["--latency", "-t1", "-c", connections, &time])
        };
        match traffic.by {
            Client::Wrk(connections, more) => Came::of_wrk(&wrk(connections).args(more).arg(&url).output()?),
            Client::Hosts => {
                Came::of_wrk(&wrk("64").arg("-s").arg(self.dir.join("hosts.lua")).arg(&url).output()?)
            }
            Client::Uploads => {
                let script = self.dir.join("upload.lua");
                std::fs::write(&script, "wrk.method = \"POST\"\nwrk.body = string.rep(\"a\", 1048576)\n")?;
                Came::of_wrk(&wrk("16").arg("-s").arg(script).arg(&url).output()?)
            }
            Client::H2Load => {
                let time = format!("-D{seconds}");
                Came::of_h2load(&on_core("h2load").args(["-c16", "-m8", "-t1", &time]).arg(&url).output()?)
            }
            Client::Handshakes => {
                let alone = self.alone()?.display().to_string();
                let address = format!("127.0.0.1:{port}");
                let text = on_core(&alone).args(["handshakes", &address, &seconds.to_string()]).output()?;
                Ok(Came { requests: text.trim().parse()?, p50: None, p99: None })
            }
        }
    }

    /// Requests to 64 hosts of a thousand and of ten thousand in turns. Caddy and Envoy are left out: they would be configured in another way for it.
    fn routes(&self, present: &[Proxy], figures: &mut Figures) -> Result<()> {
        let traffic = Traffic { key: "", path: "/", secure: false, by: Client::Hosts };
        for (routes, key) in [(1_000, "routes1k"), (10_000, "routes10k")] {
            // As many as their connections to the app can be open at a time.
            let hosts: Vec<String> = peers::hosts(routes).step_by(routes.div_ceil(64)).collect();
            let script = format!(
                "local hosts = {{\"{}\"}}\nlocal requests = {{}}\nlocal at = 0\n\
                 init = function() for i, host in ipairs(hosts) do requests[i] = \"GET / HTTP/1.1\\r\\nHost: \" .. host .. \"\\r\\n\\r\\n\" end end\n\
                 request = function() at = at % #requests + 1; return requests[at] end\n",
                hosts.join("\",\"")
            );
            std::fs::write(self.dir.join("hosts.lua"), script)?;
            for proxy in present.iter().filter(|it| !matches!(it, Proxy::Caddy | Proxy::Envoy)) {
                let served = self.serve(*proxy, routes)?;
                // Edge asks every instance once how it is when it starts.
                self.load(&served, &traffic, 4)?;
                self.measure(&served, *proxy, &traffic, key, figures)?;
            }
        }
        Ok(())
    }

    /// What a connection takes that waits for its next request.
    fn idle(&self, versions: &BTreeMap<Proxy, String>, measured: &mut Measured) -> Result<()> {
        for (key, kind, count) in [("idle_conn_kib", "plain", 2_000_u32), ("idle_tls_conn_kib", "tls", 1_000)]
        {
            let mut values = BTreeMap::new();
            for (proxy, version) in versions {
                let kib =
                    self.idle_of(*proxy, kind, count).with_context(|| format!("{kind} of {version}"))?;
                values.insert(*proxy, kib);
            }
            let ours = values.get(&Proxy::Edge).copied().context("edge was measured")?;
            let figure = measured.figure(key, ours, "KiB", count.into());
            for (proxy, version) in versions.iter().filter(|(proxy, _)| **proxy != Proxy::Edge) {
                if let Some(value) = values.get(proxy) {
                    figure.peer(version, *value);
                }
            }
        }
        measured.notes.push(
            "idle connections: growth of the proxy's proportional set size over the connections, each of which made one request; what the kernel holds for them is not in it"
                .to_owned(),
        );
        Ok(())
    }

    fn idle_of(&self, proxy: Proxy, kind: &str, count: u32) -> Result<f64> {
        let served = self.serve(proxy, 1)?;
        self.load(&served, &TRAFFIC[if kind == "tls" { 2 } else { 0 }], 1)?;
        let port = if kind == "tls" { served.secure } else { served.plain };
        let pids = served.running.pids()?;
        let before = process_usage::memory(&pids)?.pss;
        let arguments = ["idle", &format!("127.0.0.1:{port}"), &count.to_string(), kind].map(str::to_owned);
        let dir = self.dir.join("idle");
        std::fs::create_dir_all(&dir)?;
        let mut clients =
            Running::start(LOAD_CORE, &(self.alone()?, arguments.into()), &dir, Stdio::piped())?;
        until_ready(&dir)?;
        let after = process_usage::memory(&pids)?.pss;
        drop(clients.input());
        Ok(after.saturating_sub(before) as f64 / f64::from(count))
    }

    /// How long edge takes to use another snapshot of ten thousand apps.
    fn changes(&self, measured: &mut Measured) -> Result<()> {
        for (routes, key) in [("1000", "change1k"), ("10000", "change10k")] {
            let times = if self.context.quick { "10" } else { "100" };
            let text = Program::new(self.alone()?).args(["changes", routes, times]).output()?;
            let outcome: Value = serde_json::from_str(text.trim()).context("what the changes printed")?;
            let took = outcome.get("ms").and_then(Value::as_array).context("no times")?;
            let samples: Samples = took.iter().filter_map(Value::as_f64).collect();
            measured.percentile(key, 50, "ms", &samples);
        }
        measured.notes.push(
            "change1k and change10k: from the first byte of a snapshot of so many apps to the word that all threads use it"
                .to_owned(),
        );
        Ok(())
    }
}

/// Waits until the clients say that all their connections are there.
fn until_ready(dir: &Path) -> Result<()> {
    let stopwatch = Stopwatch::start();
    while !std::fs::read_to_string(dir.join("output.log"))?.contains("ready") {
        ensure!(stopwatch.elapsed() < Duration::from_secs(120), "not all connections were made");
        std::thread::yield_now();
    }
    Ok(())
}

/// What a client says of its requests.
struct Came {
    requests: u64,
    /// In microseconds.
    p50: Option<f64>,
    p99: Option<f64>,
}

impl Came {
    fn of_wrk(text: &str) -> Result<Self> {
        ensure!(!text.contains("Non-2xx") && !text.contains("Socket errors"), "not all was answered: {text}");
        let count = text.split(" requests in").next().and_then(|before| before.split_whitespace().last());
        let requests = count.context("no count")?.parse()?;
        let read = text.split(" read").next().and_then(|before| before.split_whitespace().last());
        // What sends clients elsewhere is quick, and no answer.
        let enough = read.and_then(bytes).is_some_and(|read| read >= 1_000.0 * requests as f64);
        ensure!(enough, "not every answer had its kibibyte: {text}");
        let percentile = |name: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(name))?;
            micros(line.trim())
        };
        Ok(Self { requests, p50: percentile("50%"), p99: percentile("99%") })
    }

    fn of_h2load(text: &str) -> Result<Self> {
        let line = text.lines().find(|line| line.starts_with("status codes:")).context("no status codes")?;
        let number = |after: &str| -> Option<u64> {
            line.split(", ")
                .find_map(|part| part.strip_suffix(after)?.split_whitespace().last()?.parse().ok())
        };
        let (good, bad) =
            (number(" 2xx").unwrap_or(0), number(" 5xx").unwrap_or(0) + number(" 4xx").unwrap_or(0));
        ensure!(bad == 0, "not all was answered: {text}");
        Ok(Self { requests: good, p50: None, p99: None })
    }
}

/// An amount as `wrk` writes it: `94.71KB`, `1.94GB`.
fn bytes(text: &str) -> Option<f64> {
    for (unit, factor) in [("KB", 1e3), ("MB", 1e6), ("GB", 1e9)] {
        if let Some(number) = text.strip_suffix(unit) {
            return Some(number.parse::<f64>().ok()? * factor);
        }
    }
    None
}

/// A time as `wrk` writes it: `812.00us`, `1.33ms`, `2.01s`.
fn micros(text: &str) -> Option<f64> {
    for (unit, factor) in [("us", 1.0), ("ms", 1e3), ("s", 1e6)] {
        if let Some(number) = text.strip_suffix(unit) {
            return Some(number.trim().parse::<f64>().ok()? * factor);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_print_is_read() {
        let text = "Running 1s test\n  Latency Distribution\n     50%  812.00us\n     99%    1.33ms\n  75321 requests in 1.00s, 90MB read\n";
        let came = Came::of_wrk(text).unwrap();
        assert_eq!((came.requests, came.p50, came.p99), (75_321, Some(812.0), Some(1_330.0)));
        assert!(Came::of_wrk(&text.replace("90MB", "9MB")).is_err());
        assert!(Came::of_wrk(&format!("{text}Non-2xx or 3xx responses: 2\n")).is_err());
        let text = "requests: 9 total\nstatus codes: 100 2xx, 0 3xx, 0 4xx, 0 5xx\n";
        assert_eq!(Came::of_h2load(text).unwrap().requests, 100);
        assert!(Came::of_h2load("status codes: 100 2xx, 0 3xx, 0 4xx, 3 5xx\n").is_err());
    }
}
