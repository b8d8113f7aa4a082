//! Writing a berth.toml: only what differs from the defaults, with a word about each part.

use std::fmt::Write as _;

use super::{
    Build, Canary, CronEntry, Deploy, Egress, Http, HttpCache, HttpMethod, HttpRoute, Manifest, Network,
    RateLimit, Readiness, RequestConcurrency, Shutdown, Signal, Volume,
};
use crate::command::Command;
use crate::name::{CronName, ProcessName, VolumeName};
use crate::unit::Millis;

impl Manifest {
    /// The manifest as the text of a berth.toml that [`Self::parse`] reads to the same value. `head` stands above it and `foot`
    /// below it, as comments, a line each.
    ///
    /// A static site among the processes is what a builder found, not what a person writes, and is left out.
    #[must_use]
    pub fn write(&self, head: &[String], foot: &[String]) -> String {
        let Self {
            format: _,
            app,
            stack,
            build,
            processes,
            args,
            env,
            deploy,
            http,
            shutdown,
            cron,
            network,
            resources,
            isolation,
            volumes,
            scale,
            healthcheck,
        } = self;
        let mut out = Out::default();
        out.comments(head);
        if let Some(app) = app {
            out.blank();
            out.entry("app", &text(app.as_str()));
        }
        if let Some(stack) = stack {
            out.blank();
            out.entry("stack", &text(stack.as_str()));
        }
        out.section("build", "How the source becomes what runs.", &build_keys(build));
        let stated: Keys = build.args.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        out.section("build.args", "Arguments of the Dockerfile.", &stated);
        let own = processes.iter().filter(|(_, command)| !matches!(command, Command::StaticSite { .. }));
        let own: Keys = own.map(|(name, it)| (name.to_string(), command(it))).collect();
        out.section(
            "processes",
            "What runs. `web` gets the requests, on the port that it finds in PORT.",
            &own,
        );
        let args: Keys = args.iter().map(|(name, words)| (name.to_string(), list(words))).collect();
        out.section("args", "What the image's entrypoint is given.", &args);
        let env: Keys = env.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        out.section(
            "env",
            "Plain settings. Secrets are set with `berth secrets set NAME` and win over these.",
            &env,
        );
        out.section("deploy", "How a release replaces the one before.", &deploy_keys(deploy));
        out.section("deploy.canary", "In which steps, and what is compared.", &canary_keys(&deploy.canary));
        out.http(http);
        out.section("shutdown", "How an instance is stopped.", &shutdown_keys(shutdown));
        out.each("[cron]", "What runs by a schedule.", cron.iter().map(|(name, it)| cron_keys(name, it)));
        let volumes = volumes.iter().map(|(name, volume)| volume_keys(name, volume));
        out.each("[volumes]", "What outlives releases and instances.", volumes);
        out.network(network);
        let limits = resources.iter().map(|(name, of)| (name, of.written()));
        out.by_process("resources", "How much of the machine one instance may take.", limits);
        let sleeps = scale.iter().map(|(name, sleep)| (name, sleep.written()));
        out.by_process("scale", "When it sleeps for want of requests.", sleeps);
        let checks = healthcheck.iter().map(|(name, check)| (name, check.written()));
        out.by_process("healthcheck", "The command that says whether an instance is well.", checks);
        let minimum: Keys = given("minimum", isolation.map(|level| text(level.name()))).into_iter().collect();
        out.section("isolation", "What has to stand between an instance and the rest.", &minimum);
        if !foot.is_empty() {
            out.blank();
            out.comments(foot);
        }
        out.text
    }
}

/// Keys with their values as TOML.
type Keys = Vec<(String, String)>;

/// The text so far.
#[derive(Default)]
struct Out {
    text: String,
}

impl Out {
    fn blank(&mut self) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
    }

    fn comments(&mut self, lines: &[String]) {
        for line in lines {
            let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            self.line(format!("# {line}").trim_end());
        }
    }

    fn network(&mut self, network: &Network) {
        let named = |egress: &Egress| {
            let named = Egress::NAMED.iter().find(|(_, it)| it == egress);
            text(named.map(|(name, _)| *name).expect("every policy has a name"))
        };
        let egress: Keys = unlike("egress", &network.egress, &Egress::default(), named).into_iter().collect();
        self.section("network", "What instances reach.", &egress);
        let names = network.names.iter().map(|(alias, app)| (alias.to_string(), text(app.as_str())));
        self.section("network.names", "What this app calls others.", &names.collect::<Keys>());
    }

    /// A section of the same name for each; `what` stands above the first.
    fn each(&mut self, section: &str, what: &str, all: impl Iterator<Item = Keys>) {
        for (index, keys) in all.enumerate() {
            self.section(section, if index == 0 { what } else { "" }, &keys);
        }
    }

    /// A section for each process; `what` stands above the first.
    fn by_process<'n>(
        &mut self,
        section: &str,
        what: &str,
        all: impl Iterator<Item = (&'n ProcessName, Keys)>,
    ) {
        for (index, (name, keys)) in all.enumerate() {
            self.section(&format!("{section}.{name}"), if index == 0 { what } else { "" }, &keys);
        }
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn entry(&mut self, key: &str, value: &str) {
        writeln!(self.text, "{key} = {value}").expect("writing to a string cannot fail");
    }

    fn http(&mut self, http: &Http) {
        let (keys, checks) = http_keys(http);
        self.section("http", "How the web process is reached.", &keys);
        let limits = concurrency_keys(http.concurrency);
        self.section("http.concurrency", "How many requests an instance gets at a time.", &limits);
        for (index, rule) in http.rate_limits.iter().enumerate() {
            let what = if index == 0 { "How often somebody may ask." } else { "" };
            self.section("[http.rate_limit]", what, &rate_limit_keys(rule));
        }
        for (index, route) in http.routes.iter().enumerate() {
            let what = if index == 0 { "What holds for parts of the app alone." } else { "" };
            self.section("[http.route]", what, &route_keys(route));
        }
        let cache = http.cache.as_ref().map(cache_keys).unwrap_or_default();
        self.section("http.cache", "That answers are stored, as the app says of each.", &cache);
        self.section("[http.checks]", "What a new instance has to answer before it gets requests.", &checks);
    }

    /// A section with what it is for; nothing when it has no keys.
    fn section(&mut self, name: &str, what: &str, keys: &Keys) {
        if keys.is_empty() {
            return;
        }
        self.blank();
        if !what.is_empty() {
            self.comments(&[what.to_owned()]);
        }
        self.line(&format!("[{name}]"));
        for (key, value) in keys {
            self.entry(key, value);
        }
    }
}

pub(super) fn text(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn list(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| text(word)).collect();
    format!("[{}]", words.join(", "))
}

pub(super) fn command(it: &Command) -> String {
    match it {
        Command::Argv(argv) => list(argv),
        Command::Line(line) | Command::Shell(line) => text(line),
        Command::StaticSite { root, .. } => text(root.as_str()),
    }
}

/// The key when its value is given.
fn given(key: &str, value: Option<String>) -> Option<(String, String)> {
    value.map(|value| (key.to_owned(), value))
}

/// The key when its value is not the default's.
fn unlike<T: PartialEq>(
    key: &str,
    value: &T,
    default: &T,
    written: impl Fn(&T) -> String,
) -> Option<(String, String)> {
    (value != default).then(|| (key.to_owned(), written(value)))
}

fn span(span: &Millis) -> String {
    text(&span.to_string())
}

fn build_keys(build: &Build) -> Keys {
    let Build { builder, command: run, output, offline, env, image, dockerfile, target, args: _ } = build;
    let names = || env.iter().map(|name| text(name.as_str())).collect::<Vec<_>>().join(", ");
    let keys = [
        given("builder", builder.map(|builder| text(builder.name()))),
        given("command", run.as_ref().map(command)),
        given("output", output.as_ref().map(|output| text(output.as_str()))),
        given("image", image.as_ref().map(|image| text(image))),
        given("dockerfile", dockerfile.as_ref().map(|path| text(path))),
        given("target", target.as_ref().map(|stage| text(stage))),
        given("network", offline.then(|| "false".to_owned())),
        given("env", (!env.is_empty()).then(|| format!("[{}]", names()))),
    ];
    keys.into_iter().flatten().collect()
}

fn deploy_keys(deploy: &Deploy) -> Keys {
    let default = Deploy::default();
    let Deploy { release_command, strategy, timeout, warm, canary: _ } = deploy;
    let strategy = strategy.map(|strategy| text(strategy.name()));
    let keys = [
        given("release_command", release_command.as_ref().map(command)),
        given("strategy", strategy),
        unlike("timeout", timeout, &default.timeout, span),
        unlike("warm", warm, &default.warm, span),
    ];
    keys.into_iter().flatten().collect()
}

fn canary_keys(canary: &Canary) -> Keys {
    let default = Canary::default();
    let Canary { steps, interval, analysis } = canary;
    let list = |items: Vec<String>| format!("[{}]", items.join(", "));
    let keys = [
        unlike("steps", steps, &default.steps, |steps| list(steps.iter().map(ToString::to_string).collect())),
        unlike("interval", interval, &default.interval, span),
        unlike("analysis", analysis, &default.analysis, |analysis| {
            list(analysis.iter().map(|it| text(it.name())).collect())
        }),
    ];
    keys.into_iter().flatten().collect()
}

/// The keys of `[http]` and those of its check.
fn http_keys(http: &Http) -> (Keys, Keys) {
    let Http {
        port,
        protocol,
        hosts,
        internal,
        force_https,
        hsts,
        request_timeout,
        concurrency: _,
        rate_limits: _,
        routes: _,
        cache: _,
        readiness,
    } = http;
    let list = |hosts: &Vec<super::HostName>| {
        let hosts: Vec<String> = hosts.iter().map(|host| text(host.as_str())).collect();
        format!("[{}]", hosts.join(", "))
    };
    let keys = [
        given("port", port.map(|port| port.to_string())),
        given("protocol", (!protocol.is_default()).then(|| text(protocol.name()))),
        given("public", internal.then(|| "false".to_owned())),
        unlike("hosts", hosts, &Vec::new(), list),
        given("force_https", force_https.map(|force| force.to_string())),
        given("hsts", hsts.as_ref().map(span)),
        given("request_timeout", request_timeout.as_ref().map(span)),
    ];
    let default = Readiness::default();
    let Readiness { path, interval, timeout, grace } = readiness;
    let checks = [
        given("path", path.as_ref().map(|path| text(path.as_str()))),
        unlike("interval", interval, &default.interval, span),
        unlike("timeout", timeout, &default.timeout, span),
        unlike("grace", grace, &default.grace, span),
    ];
    let mut checks: Keys = checks.into_iter().flatten().collect();
    if !checks.is_empty() {
        checks.insert(0, ("type".to_owned(), text("readiness")));
    }
    (keys.into_iter().flatten().collect(), checks)
}

fn rate_limit_keys(rule: &RateLimit) -> Keys {
    let RateLimit { requests, per, burst, by, path, methods } = rule;
    let keys = [
        given("requests", Some(requests.to_string())),
        given("per", Some(span(per))),
        unlike("burst", burst, requests, u32::to_string),
        given("by", Some(text(by.as_str()))),
        given("path", path.as_ref().map(|path| text(path.as_str()))),
        method_list(methods),
    ];
    keys.into_iter().flatten().collect()
}

fn route_keys(route: &HttpRoute) -> Keys {
    let HttpRoute { path, methods, request_timeout, concurrency } = route;
    let keys = [
        given("path", Some(text(path.as_str()))),
        method_list(methods),
        given("request_timeout", request_timeout.as_ref().map(span)),
        given("concurrency", concurrency.map(|count| count.to_string())),
    ];
    keys.into_iter().flatten().collect()
}

fn cache_keys(cache: &HttpCache) -> Keys {
    let HttpCache { size, max_body } = cache;
    let sizes = [("size", size), ("max_body", max_body)];
    sizes.into_iter().filter_map(|(key, size)| given(key, Some(text(&size.to_string())))).collect()
}

fn method_list(methods: &[HttpMethod]) -> Option<(String, String)> {
    let names: Vec<String> = methods.iter().map(|method| text(method.as_str())).collect();
    given("methods", (!names.is_empty()).then(|| format!("[{}]", names.join(", "))))
}

fn concurrency_keys(concurrency: RequestConcurrency) -> Keys {
    let RequestConcurrency { soft_limit, hard_limit } = concurrency;
    let keys = [
        given("soft_limit", soft_limit.map(|count| count.to_string())),
        given("hard_limit", hard_limit.map(|count| count.to_string())),
    ];
    keys.into_iter().flatten().collect()
}

fn shutdown_keys(shutdown: &Shutdown) -> Keys {
    let default = Shutdown::default();
    let Shutdown { signal, drain, kill_after } = shutdown;
    let name = |signal: &Signal| {
        let named = Signal::NAMED.iter().find(|(_, it)| it == signal);
        text(named.map(|(name, _)| *name).expect("every signal has a name"))
    };
    let keys = [
        unlike("signal", signal, &default.signal, name),
        unlike("drain", drain, &default.drain, span),
        unlike("kill_after", kill_after, &default.kill_after, span),
    ];
    keys.into_iter().flatten().collect()
}

fn volume_keys(name: &VolumeName, volume: &Volume) -> Keys {
    let Volume { path, size, processes } = volume;
    let names = || processes.iter().map(|name| text(name.as_str())).collect::<Vec<_>>().join(", ");
    let keys = [
        given("name", Some(text(name.as_str()))),
        given("path", Some(text(path.as_str()))),
        given("size", size.map(|size| text(&size.to_string()))),
        given("processes", (!processes.is_empty()).then(|| format!("[{}]", names()))),
    ];
    keys.into_iter().flatten().collect()
}

fn cron_keys(name: &CronName, entry: &CronEntry) -> Keys {
    let CronEntry { schedule, timezone, command: run, concurrency, timeout, catch_up } = entry;
    let default = CronEntry::new(schedule.clone(), run.clone());
    let keys = [
        given("name", Some(text(name.as_str()))),
        given("schedule", Some(text(schedule.as_str()))),
        unlike("timezone", timezone, &default.timezone, |zone| text(zone.as_str())),
        given("command", Some(command(run))),
        unlike("concurrency", concurrency, &default.concurrency, |it| text(it.name())),
        unlike("timeout", timeout, &default.timeout, span),
        unlike("catch_up", catch_up, &default.catch_up, span),
    ];
    keys.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_differs_is_written() {
        assert_eq!(Manifest::default().write(&[], &[]), "");
        let given = r#"app = "shop"
[build]
command = "npm run build"
[processes]
web = "node server.js --port $PORT"
worker = ["bin/worker", "a b"]
[env]
GREETING = "hello\n\"you\""
[deploy]
release_command = "bin/migrate && true"
timeout = "5m"
[http]
hosts = ["shop.example.com"]
[[http.checks]]
type = "readiness"
path = "/up"
[shutdown]
signal = "SIGINT"
[[cron]]
schedule = "0 3 * * *"
timezone = "Europe/Berlin"
command = "bin/nightly --all"
[[cron]]
name = "sweep"
schedule = "@hourly"
command = ["bin/sweep"]
concurrency = "replace"
timeout = "5m"
catch_up = "0s"
[[volumes]]
name = "data"
path = "/data"
size = "10Gi"
processes = ["web"]
[[volumes]]
name = "logs"
path = "/var/log/shop"
"#;
        let manifest = Manifest::parse(given).unwrap();
        let written = manifest.write(&["From a test.".to_owned()], &["The\nend.".to_owned()]);
        assert_eq!(Manifest::parse(&written).unwrap(), manifest, "{written}");
        assert!(written.starts_with("# From a test.\n\napp = \"shop\"\n\n# How the source"), "{written}");
        assert!(written.ends_with("path = \"/var/log/shop\"\n\n# The end.\n"), "{written}");
        assert!(!written.contains("warm") && !written.contains("interval"), "{written}");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_to_the_same(
            env in prop::collection::btree_map("[A-Z]{3,6}", any::<String>(), 0..4),
            line in "[a-z$'\" &|;\n\\\\]{1,20}",
            argv in prop::collection::vec("[^\0]{0,9}", 1..4),
            remark in any::<String>(),
            seconds in 1_u64..80_000,
        ) {
            let env = env.into_iter().filter_map(|(name, value)| Some((name.parse().ok()?, value))).collect();
            let mut manifest = Manifest { env, ..Manifest::default() };
            manifest.processes.extend(Command::parse(&line).ok().map(|it| ("web".parse().unwrap(), it)));
            manifest.processes.extend(Command::from_argv(argv).ok().map(|it| ("worker".parse().unwrap(), it)));
            manifest.deploy.timeout = Millis::from_secs(seconds);
            let written = manifest.write(&[remark], &[]);
            if let Ok(read) = Manifest::parse(&written) {
                prop_assert_eq!(read, manifest, "{}", written);
            } else {
                // A variable with a NUL byte is refused wherever it comes from.
                prop_assert!(manifest.env.values().any(|value| value.contains('\0')), "{}", written);
            }
        }
    }
}
