//! The JSON Schema of berth.toml as people write it, for editors.
//!
//! The types here are never filled: [`crate::manifest`] reads the file, so that it can report every mistake
//! with its place. A test keeps their keys equal to those that are read, and the schema equal to
//! `contracts/manifest.schema.json`; run the tests with `BERTH_UPDATE_GOLDENS=1` to write it anew.
#![expect(dead_code, reason = "the fields are read by the derive alone")]

use std::collections::BTreeMap;

use schemars::JsonSchema;

/// The schema as JSON (draft 2020-12).
#[must_use]
pub fn manifest_schema() -> serde_json::Value {
    schemars::schema_for!(Manifest).into()
}

/// How Berth builds, runs and serves an app.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, title = "berth.toml")]
struct Manifest {
    /// The app's name: a-z, 0-9 and -, starting with a letter, of at most 40 characters.
    #[schemars(regex(pattern = r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$"))]
    app: Option<String>,
    /// The stack that it is a service of: `berth stack` writes it, and takes down no app without it.
    #[schemars(regex(pattern = r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$"))]
    stack: Option<String>,
    /// How the source becomes an artifact. Leave it out and Berth detects.
    build: Option<Build>,
    /// What runs, by process. `web` receives HTTP.
    processes: Option<BTreeMap<String, Command>>,
    /// What the entrypoint of the image is given in place of the image's own command, by process.
    args: Option<BTreeMap<String, Vec<String>>>,
    /// Environment of every process. Configuration and secrets win over it.
    env: Option<BTreeMap<String, String>>,
    /// How a release replaces the one before.
    deploy: Option<Deploy>,
    /// How the web process is reached and probed.
    http: Option<Http>,
    /// How an instance is stopped.
    shutdown: Option<Shutdown>,
    /// What runs by a schedule.
    #[schemars(length(max = 50))]
    cron: Option<Vec<Cron>>,
    /// What instances reach.
    network: Option<Network>,
    /// How much of the machine one instance may take, by process; `run` for one-off commands, `release-command` for that.
    resources: Option<BTreeMap<String, Resources>>,
    /// What has to stand between an instance and the rest of its machine.
    isolation: Option<Isolation>,
    /// Directories that outlive releases and instances.
    #[schemars(length(max = 20))]
    volumes: Option<Vec<Volume>>,
    /// Which processes stand still while nobody asks for them. Only `web` can.
    scale: Option<BTreeMap<String, Scale>>,
    /// The commands that say by their status whether an instance is well, by process. What the image says when left out.
    healthcheck: Option<BTreeMap<String, Healthcheck>>,
}

/// A line split by POSIX rules with $VAR expanded, or an array taken as it is. A line that needs operators runs as
/// `sh -c` as the app's own user.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Command {
    Line(String),
    Argv(#[schemars(length(min = 1))] Vec<String>),
}

/// A span of time: `250ms`, `30s`, `10m`, `1h30m`.
#[derive(JsonSchema)]
struct Span(
    #[schemars(regex(pattern = r"^(?=.)([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$"))] String,
);

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Build {
    /// What turns source into an artifact. Found from the source when left out.
    builder: Option<Builder>,
    /// What to run in the source, as the app's build user, before the artifact is taken.
    command: Option<Command>,
    /// The directory below the source that becomes the artifact. The whole tree when left out.
    output: Option<String>,
    /// Whether its commands reach a network. True when left out.
    network: Option<bool>,
    /// Which of the app's configuration and secrets its commands see; a change of one builds anew.
    env: Option<Vec<String>>,
    /// An image that is run in place of anything that is built: `registry.example.com/shop:1.4`. What a tag means is found out
    /// when a release is submitted, and stays so for that release.
    image: Option<String>,
    /// A Dockerfile of the source, which Docker, Podman or buildah builds; the image is run. `network` and `env` hold for it, the latter as build
    /// arguments or, where it names secrets, as secrets of the build.
    dockerfile: Option<String>,
    /// The stage of the Dockerfile that is the image. The last one when left out.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_.][A-Za-z0-9_.-]{0,127}$"))]
    target: Option<String>,
    /// Arguments of the Dockerfile (`ARG`), which its image's history shows.
    args: Option<BTreeMap<String, String>>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Builder {
    /// `cargo build --release`; the binaries are the artifact.
    Cargo,
    /// The tree as it is.
    Copy,
    /// Files that Berth serves itself.
    Static,
    /// JavaScript by Node or Bun: npm, pnpm, yarn, bun.
    Node,
    /// Python in a virtual environment: pip, uv, poetry, pipenv.
    Python,
    /// `go build`.
    Go,
    /// Ruby with Bundler.
    Ruby,
    /// PHP, with Composer where there is a composer.json.
    Php,
    /// Java with Maven, with Gradle, or a source file by itself.
    Java,
    /// Deno.
    Deno,
    /// `dotnet publish`.
    Dotnet,
    /// Elixir with mix.
    Elixir,
    /// `make build`.
    Make,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Deploy {
    /// Runs once from the new artifact before traffic moves. Non-zero fails the deploy.
    release_command: Option<Command>,
    /// bluegreen for web and recreate for the others when left out.
    strategy: Option<Strategy>,
    /// How long activation may take, the build apart. 10m when left out, 1s to 1d.
    timeout: Option<Span>,
    /// How long the previous release stays able to take over at once. 10m when left out, at most 1d, 0s for never.
    warm: Option<Span>,
    /// How `strategy = "canary"` goes about it.
    canary: Option<Canary>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Canary {
    /// The shares of the requests that the new release gets one after the other, in percent, each greater than the one before.
    /// [5, 25, 50, 100] when left out.
    #[schemars(length(max = 20), inner(range(min = 1, max = 100)))]
    steps: Option<Vec<u8>>,
    /// How long each step takes. 1m when left out, 1s to 1d.
    interval: Option<Span>,
    /// What is compared with the release before: worse means back. Both when left out, nothing for the health of instances alone.
    analysis: Option<Vec<Analysis>>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Analysis {
    /// Requests that are answered with a status of 500 or more, or not at all.
    ErrorRate,
    /// How long the slowest in a hundred requests take.
    LatencyP99,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum Strategy {
    /// One instance at a time.
    Rolling,
    /// All new instances beside the old ones, then all traffic at once.
    BlueGreen,
    /// All new instances beside the old ones, then traffic in steps, as long as the new release does no worse.
    Canary,
    /// The old instances stop before the new ones start.
    Recreate,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Http {
    /// The port the app listens on where it has a network of its own. Elsewhere Berth chooses PORT.
    #[schemars(range(min = 1))]
    port: Option<u16>,
    /// Which version of HTTP it speaks there. HTTP/1.1 when left out.
    protocol: Option<HttpProtocol>,
    /// Whether hosts lead to the app. Where not, other apps of its project call it by name, and nobody else does. True when left out.
    public: Option<bool>,
    /// Hosts whose requests go to the app, beside its default one.
    #[schemars(length(max = 100))]
    hosts: Option<Vec<String>>,
    /// Whether a request by plain HTTP for a host that has a certificate is sent to HTTPS. True when left out.
    force_https: Option<bool>,
    /// For how long a browser that was here by HTTPS is to use nothing else (Strict-Transport-Security). Not said when left out.
    hsts: Option<Span>,
    /// How long an instance may take to begin its answer to a request, 100ms to 1h. Without end when left out.
    request_timeout: Option<Span>,
    /// How many requests an instance gets at a time. As many as come when left out.
    concurrency: Option<HttpConcurrency>,
    /// How often somebody may ask the app for something.
    #[schemars(length(max = 10))]
    rate_limit: Option<Vec<RateLimit>>,
    /// What holds for parts of the app alone.
    #[schemars(length(max = 50))]
    route: Option<Vec<HttpRoute>>,
    /// That answers are stored, as the app says of each. None is when left out.
    cache: Option<HttpCache>,
    /// How health is probed: at most one check.
    #[schemars(length(max = 1))]
    checks: Option<Vec<Check>>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum HttpProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 without TLS, from the first byte: gRPC, and what else speaks it.
    H2c,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct RateLimit {
    /// So many requests are let through in every `per`.
    #[schemars(range(min = 1, max = 1_000_000))]
    requests: u32,
    /// See `requests`; 1s to 1d.
    per: Span,
    /// So many of them may come at once. As many as `requests` when left out.
    #[schemars(range(min = 1, max = 1_000_000))]
    burst: Option<u32>,
    /// Whose requests are counted together: those of an address, `ip`, those with the same value of a header, `header:X-Api-Key`,
    /// or of a cookie, `cookie:session`.
    #[schemars(regex(pattern = "^(ip|(header|cookie):[A-Za-z0-9_.-]{1,64})$"))]
    by: String,
    /// What it is about: this path and those below it. Everything when left out.
    #[schemars(regex(pattern = "^/"))]
    path: Option<String>,
    /// And these methods. Every one when left out.
    #[schemars(length(max = 16))]
    methods: Option<Vec<String>>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct HttpCache {
    /// How much memory stored answers take, 1Mi to 256Mi. 32Mi when left out.
    size: Option<Size>,
    /// A longer body is not stored, 1Ki to `size`. 1Mi when left out.
    max_body: Option<Size>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct HttpRoute {
    /// What it is about: this path and those below it, where no other route has a longer one.
    #[schemars(regex(pattern = "^/"))]
    path: String,
    /// And these methods. Every one when left out.
    #[schemars(length(max = 16))]
    methods: Option<Vec<String>>,
    /// How long an instance may take to begin its answer, 100ms to 1h. What holds for the app when left out.
    request_timeout: Option<Span>,
    /// So many requests there are at a time, to all instances together. As many as come when left out.
    #[schemars(range(min = 1, max = 1_000_000))]
    concurrency: Option<u32>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct HttpConcurrency {
    /// From so many requests on other instances are preferred.
    #[schemars(range(min = 1, max = 1_000_000))]
    soft_limit: Option<u32>,
    /// At so many an instance gets no more; further requests wait.
    #[schemars(range(min = 1, max = 1_000_000))]
    hard_limit: Option<u32>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Check {
    /// The kind of check.
    r#type: CheckType,
    /// Must answer 2xx. When left out, /healthz and /up are tried and then TCP decides.
    #[schemars(regex(pattern = "^/"))]
    path: Option<String>,
    /// Time between probes once ready. 1s when left out, 100ms to 1h.
    interval: Option<Span>,
    /// How long one probe may take. 5s when left out, 10ms to 5m.
    timeout: Option<Span>,
    /// How long a new instance may take to become ready. 10s when left out, at most 1h.
    grace: Option<Span>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum CheckType {
    /// Decides whether an instance receives requests.
    Readiness,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Shutdown {
    /// What the process group gets first. SIGTERM when left out.
    signal: Option<Signal>,
    /// How long requests in flight may take to end before the signal. 30s when left out, at most 1h.
    drain: Option<Span>,
    /// How long after the signal SIGKILL follows. 30s when left out, at most 5m.
    kill_after: Option<Span>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Network {
    /// What instances may connect to. internet when left out.
    egress: Option<Egress>,
    /// What the app calls other apps of its project, beside `NAME.internal`: `db = "shop-db"`.
    names: Option<BTreeMap<String, String>>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum Egress {
    /// Nothing.
    None,
    /// Other apps of the project, by their names.
    Internal,
    /// These, and everything but the platform, this machine, other instances and metadata services.
    Internet,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Resources {
    /// Processors: 0.5 is half of one.
    #[schemars(range(min = 0.01, max = 8192))]
    cpu: Option<f64>,
    /// `256Mi`, `2Gi`. What is in /tmp counts, too.
    memory: Option<Size>,
    /// Processes and threads. 4096 when left out.
    #[schemars(range(min = 4, max = 4_194_304))]
    processes: Option<u64>,
    /// How much /tmp takes, or what is written to an image's root. 512Mi when left out.
    tmp: Option<Size>,
    /// How much is read in a second from the disk that the platform's home is on.
    disk_read: Option<Size>,
    /// How much is written to it in a second.
    disk_write: Option<Size>,
}

/// A size: `256Mi`, `1.5Gi`, `512M`.
#[derive(JsonSchema)]
struct Size(#[schemars(regex(pattern = r"^[0-9]+(\.[0-9]+)?([KMGT]i?|k)?B?$"))] String);

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Healthcheck {
    /// Whether there is none, whatever the image says. No other key goes with it.
    disable: Option<bool>,
    /// What is run in the instance. 0 means that it is well. The image's own when left out.
    command: Option<Command>,
    /// From the end of one to the beginning of the next. The image's or 30s when left out, 100ms to 1h.
    interval: Option<Span>,
    /// How long one may take. The image's or 30s when left out, 100ms to 1h.
    timeout: Option<Span>,
    /// How long from the start on a failure does not count. The image's or 0s when left out, at most 1h.
    start_period: Option<Span>,
    /// From one to the next as long as none has passed. The image's or 1s when left out, 100ms to 1h.
    start_interval: Option<Span>,
    /// How many must fail in a row. The image's or 3 when left out.
    #[schemars(range(min = 1, max = 1000))]
    retries: Option<u32>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Isolation {
    /// The least level; a platform that has less refuses the release.
    minimum: Option<IsolationLevel>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum IsolationLevel {
    /// A process like any other.
    Plain,
    /// Few system calls, its own files.
    Confined,
    /// Namespaces of its own.
    Namespaces,
    /// Namespaces, a user for every app, and limits.
    Full,
}

#[derive(JsonSchema)]
enum Signal {
    #[schemars(rename = "SIGTERM")]
    Term,
    #[schemars(rename = "SIGINT")]
    Int,
    #[schemars(rename = "SIGQUIT")]
    Quit,
    #[schemars(rename = "SIGHUP")]
    Hup,
    #[schemars(rename = "SIGUSR1")]
    Usr1,
    #[schemars(rename = "SIGUSR2")]
    Usr2,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Cron {
    /// What the entry is called, as an app is. Made of the command when left out.
    #[schemars(regex(pattern = r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$"))]
    name: Option<String>,
    /// Minute, hour, day of the month, month, day of the week; or @hourly, @daily, @weekly, @monthly, @yearly.
    schedule: String,
    /// By the clocks of which place: a name of the IANA database. UTC when left out.
    timezone: Option<String>,
    /// What to run, in the release that serves.
    command: Command,
    /// What happens when it is due and has not ended since the last time. forbid when left out.
    concurrency: Option<Concurrency>,
    /// How long it may run. 1d when left out, which is the most.
    timeout: Option<Span>,
    /// How late it may still start when the platform did not run at its time. 1h when left out, at most 31d.
    catch_up: Option<Span>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum Concurrency {
    /// It is left out this time.
    Forbid,
    /// Both run.
    Allow,
    /// The one that runs is ended first.
    Replace,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Scale {
    /// Nought: it may sleep.
    #[schemars(range(min = 0, max = 0))]
    min: u32,
    /// How long nobody asks for it before it sleeps, 1s to 30d. 10m when left out.
    idle_after: Option<Span>,
    /// How long it stands still, keeping its memory, before it is stopped, up to 30d. 4h when left out.
    stop_after: Option<Span>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Volume {
    /// What it is called, as an app is.
    #[schemars(regex(pattern = r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$"))]
    name: String,
    /// Where instances with a root of their own have it. Everywhere `VOLUME_NAME` says where it is.
    #[schemars(regex(pattern = "^/."))]
    path: String,
    /// How much it may hold, where the file system counts that: `500Mi`, `10Gi`. No limit when left out.
    #[schemars(regex(pattern = r"^[0-9]+(Ki|Mi|Gi|Ti)?$"))]
    size: Option<String>,
    /// The processes that have it. All of them when left out.
    processes: Option<Vec<String>>,
}
