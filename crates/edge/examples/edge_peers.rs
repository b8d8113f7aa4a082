//! Measures the CPU time that edge, nginx and HAProxy take for one plain proxied request, side by side.
//!
//! `edge_peers [--quick]` prints `{"ours_us", "nginx_us", "haproxy_us", "n", "rounds", "absent"}`: medians over the
//! rounds of user plus system time of the whole process tree, in microseconds per request. All carry the same load:
//! keep-alive to 64 clients and to the upstream, an access log written to a file, X-Forwarded-* and a request id
//! set, timeouts on, one core for the proxy and another for the load and the upstream. The order rotates.
#![expect(clippy::unwrap_used, reason = "a measurement that cannot be made ends")]
#![expect(clippy::print_stdout, reason = "the figures are the output")]
#![expect(clippy::disallowed_methods, reason = "the peers are fixed programs, started here alone")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use berth_clock::SystemClock;
use berth_edge::{AccessLog, Config, Limits};
use berth_routing::{AppRoute, Backend, Endpoint, Generation, Host, Probe, ProbePath, Role, Snapshot};
use berth_spec::{AppId, Gate, Millis, Proxies};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PROXY_CORE: &str = "0";
const LOAD_CORE: &str = "1";
const CLIENTS: &str = "64";
const HOST: &str = "Host: app.localhost";
const NAMES: [&str; 3] = ["ours", "nginx", "haproxy"];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["upstream", port] => upstream(port.parse().unwrap()),
        ["edge", port, upstream, dir] => {
            edge(port.parse().unwrap(), upstream.parse().unwrap(), Path::new(dir))
        }
        ["--quick"] => measure(3, "2s"),
        [] => measure(7, "5s"),
        _ => panic!("usage: edge_peers [--quick]"),
    }
}

/// Answers every request with 1 KiB.
fn upstream(port: u16) {
    let response =
        format!("HTTP/1.1 200 OK\r\ncontent-length: 1024\r\n\r\n{}", "a".repeat(1024)).into_bytes();
    let response: &'static [u8] = response.leak();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let mut clients = tokio::task::JoinSet::new();
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.set_nodelay(true).unwrap();
            clients.spawn_local(async move {
                let mut head = vec![0; 16 << 10];
                let mut length = 0;
                while let Ok(count @ 1..) = socket.read(&mut head[length..]).await {
                    length += count;
                    // One request at a time comes on a connection from a proxy.
                    if head[..length].ends_with(b"\r\n\r\n") {
                        length = 0;
                        if socket.write_all(response).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
}

fn edge(port: u16, upstream: SocketAddr, dir: &Path) {
    let app: AppId = "default/default/app".parse().unwrap();
    let backend = Backend {
        instance: app.instance("web".parse().unwrap(), 1),
        endpoint: Endpoint::Tcp { addr: upstream },
        role: Role::Routed,
        probe: Probe {
            path: ProbePath::Guess,
            interval: Millis::from_secs(1),
            timeout: Millis::from_secs(5),
        },
        concurrency: berth_spec::RequestConcurrency::default(),
        request_timeout: None,
    };
    let route = AppRoute {
        hosts: vec![Host("app.*".to_owned())],
        backends: vec![backend],
        hold: Millis::from_secs(5),
        rate_limits: Vec::new(),
        gate: Gate::Open,
        address: None,
        ..berth_routing::AppRoute::default()
    };
    let snapshot = Snapshot::new(Generation(1), [(app, route)].into());
    fs::write(dir.join("current.json"), serde_json::to_vec(&snapshot).unwrap()).unwrap();
    let (_kept, stop) = tokio::sync::oneshot::channel();
    let config = Config {
        listeners: vec![TcpListener::bind(("127.0.0.1", port)).unwrap()],
        secure: Vec::new(),
        routing_dir: OwnedFd::from(File::open(dir).unwrap()),
        dial_folder: "/nonexistent".into(),
        control_socket: dir.join("nobody.sock"),
        leash: None,
        handover: None,
        owner_uid: 0,
        access_log: AccessLog::To(Box::new(File::create(dir.join("edge.log")).unwrap())),
        limits: Limits::default(),
        proxies: Proxies::default(),
        clock: Arc::new(SystemClock::new()),
        allow_root: true,
        ready: None,
        stop,
    };
    berth_edge::run(config).unwrap();
}

struct Bench {
    dir: PathBuf,
    upstream: SocketAddr,
    span: &'static str,
}

fn measure(rounds: usize, span: &'static str) {
    let dir = tempfile::TempDir::new().unwrap();
    let upstream = free_port();
    let mut server = on_core(LOAD_CORE, &this_program(), &["upstream", &upstream.port().to_string()]);
    wait_until_served(upstream);
    let bench = Bench { dir: dir.path().to_owned(), upstream, span };
    let mut figures: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut absent = Vec::new();
    let mut requests = 0;
    for round in 0..rounds {
        for turn in 0..NAMES.len() {
            let name = NAMES[(round + turn) % NAMES.len()];
            match bench.one(name) {
                Some((us, count)) => {
                    figures.entry(name).or_default().push(us);
                    requests += count;
                }
                None if absent.contains(&name) => {}
                None => absent.push(name),
            }
        }
    }
    end(&mut server);
    let median = |name: &str| {
        let mut values = figures.get(name)?.clone();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).map(|us| (us * 100.0).round() / 100.0)
    };
    let line = serde_json::json!({
        "ours_us": median("ours"), "nginx_us": median("nginx"), "haproxy_us": median("haproxy"),
        "n": requests, "rounds": figures, "absent": absent,
    });
    println!("{line}");
}

impl Bench {
    /// CPU microseconds for each request and the number of requests; `None` when the program is not installed.
    fn one(&self, name: &str) -> Option<(f64, u64)> {
        let addr = free_port();
        let mut proxy = match name {
            "nginx" => {
                let config = self.write("nginx.conf", &self.nginx(addr));
                let dir = format!("{}/", self.dir.display());
                on_core(PROXY_CORE, &installed("nginx")?, &["-p", &dir, "-c", &config, "-e", "error.log"])
            }
            "haproxy" => {
                let config = self.write("haproxy.cfg", &self.haproxy(addr));
                on_core(PROXY_CORE, &installed("haproxy")?, &["-f", &config])
            }
            _ => {
                let (port, upstream) = (addr.port().to_string(), self.upstream.to_string());
                let arguments = ["edge", &port, &upstream, &self.dir.display().to_string()];
                on_core(PROXY_CORE, &this_program(), &arguments)
            }
        };
        wait_until_served(addr);
        self.load(addr, "1s");
        let before = tree_ticks(proxy.id());
        let count = self.load(addr, self.span);
        let ticks = tree_ticks(proxy.id()) - before;
        end(&mut proxy);
        let micros = ticks as f64 * 1e6 / rustix::param::clock_ticks_per_second() as f64;
        Some((micros / count as f64, count))
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.dir.join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn nginx(&self, addr: SocketAddr) -> String {
        let (dir, upstream) = (self.dir.display(), self.upstream);
        format!(
            "daemon off; worker_processes 1; pid {dir}/nginx.pid; user root;
            events {{ worker_connections 4096; }}
            http {{
              log_format line '$msec $host $request_method $uri $status $body_bytes_sent $request_time $upstream_addr $request_id';
              access_log {dir}/nginx.log line buffer=32k flush=1s;
              keepalive_timeout 60s; keepalive_requests 100000000; client_header_timeout 10s; client_body_timeout 60s;
              send_timeout 60s; proxy_connect_timeout 2s; tcp_nodelay on; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p;
              fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
              upstream app {{ server {upstream}; keepalive 128; keepalive_requests 100000000; keepalive_timeout 60s; }}
              server {{ listen {addr}; server_name app.localhost;
                location / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection '';
                  proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr;
                  proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $host;
                  proxy_set_header X-Request-Id $request_id; }} }}
            }}"
        )
    }

    fn haproxy(&self, addr: SocketAddr) -> String {
        let upstream = self.upstream;
        format!(
            "global
  nbthread 1
  log stdout format raw local0
defaults
  mode http
  log global
  option httplog
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  timeout http-request 10s
  timeout http-keep-alive 60s
frontend web
  bind {addr}
  unique-id-format %{{+X}}o%ci:%cp_%fi:%fp_%Ts_%rt:%pid
  unique-id-header X-Request-Id
  http-request set-header X-Forwarded-For %[src]
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  use_backend app if {{ hdr(host) -i app.localhost }}
backend app
  http-reuse always
  server one {upstream}
"
        )
    }

    fn load(&self, addr: SocketAddr, span: &str) -> u64 {
        let url = format!("http://{addr}/");
        let output = Command::new("taskset")
            .args(["-c", LOAD_CORE, "wrk", "-t1", "-c", CLIENTS, "-d", span, "-H", HOST, &url])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(!text.contains("Non-2xx") && !text.contains("Socket errors"), "{text}");
        let count = text.split(" requests in").next().unwrap().split_whitespace().last().unwrap();
        count.parse().unwrap()
    }
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn this_program() -> String {
    std::env::current_exe().unwrap().display().to_string()
}

fn installed(name: &str) -> Option<String> {
    ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"]
        .iter()
        .map(|dir| format!("{dir}/{name}"))
        .find(|path| Path::new(path).is_file())
}

/// Starts a program on one core. What it logs to standard output goes to a file, as in production.
fn on_core(core: &str, program: &str, arguments: &[&str]) -> Child {
    let log = tempfile::tempfile().unwrap();
    Command::new("taskset")
        .args(["-c", core, program])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

fn wait_until_served(addr: SocketAddr) {
    let request = format!("GET / HTTP/1.1\r\n{HOST}\r\nConnection: close\r\n\r\n");
    loop {
        if let Ok(mut stream) = TcpStream::connect(addr)
            && stream.write_all(request.as_bytes()).is_ok()
            && matches!(stream.read(&mut [0; 64]), Ok(1..))
        {
            return;
        }
        std::thread::yield_now();
    }
}

/// Stops the program itself, never a worker of it: an orphaned worker would go on sharing the load.
fn end(child: &mut Child) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    child.wait().unwrap();
}

/// User and system time of a process and all below it.
fn tree_ticks(root: u32) -> u64 {
    let mut processes: BTreeMap<u32, (u32, u64)> = BTreeMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name may hold blanks and brackets; the rest follows its last bracket.
        let Some((_, rest)) = stat.rsplit_once(')') else { continue };
        let fields: Vec<u64> = rest.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
        processes.insert(pid, (u32::try_from(fields[1]).unwrap(), fields[11] + fields[12]));
    }
    let below = |mut pid: u32| {
        while pid != root {
            match processes.get(&pid) {
                Some((parent, _)) => pid = *parent,
                None => return false,
            }
        }
        true
    };
    processes.iter().filter(|(pid, _)| below(**pid)).map(|(_, (_, ticks))| ticks).sum()
}
