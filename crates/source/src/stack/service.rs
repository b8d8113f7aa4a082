//! One service: the manifest of its app, and what of it means something else here.

use std::collections::BTreeMap;

use berth_spec::manifest::{Build, Healthcheck, Resources, Signal, Volume};
use berth_spec::name::RELEASE_COMMAND_PROCESS;
use berth_spec::{AppName, Command, EnvName, Millis, ProcessName, VolumeName};

use super::node::Node;
use super::{Condition, EnvFile, Reader, Service, health, resources};

/// What changes nothing here, and why.
const IDLE: [(&str, &str); 20] = [
    ("container_name", "instances are called by their app, process and number"),
    ("hostname", "an instance is called by its process and number"),
    ("domainname", "an instance is called by its process and number"),
    ("networks", "each app is in a network of its own"),
    ("links", "all services of the file reach each other by name"),
    ("labels", "nobody reads them here"),
    ("annotations", "nobody reads them here"),
    ("logging", "`berth logs` has what it writes"),
    ("init", "every instance has an init"),
    ("tty", "its output is a log"),
    ("stdin_open", "its input is empty"),
    ("platform", "the image for this machine is taken"),
    ("pull_policy", "an image is held to its digest when it is submitted"),
    ("security_opt", "instances can gain no privileges, and their system calls are filtered"),
    ("cap_drop", "instances have the least that they can have"),
    ("ulimits", "the limits are those of every app"),
    ("mem_reservation", "memory is not reserved"),
    ("oom_score_adj", "nobody is preferred when memory runs out"),
    ("stop_timeout", "write `stop_grace_period`"),
    ("develop", "`berth deploy` builds what has changed"),
];

/// What means that something else would run, and why it cannot be had.
const ELSE: [(&str, &str); 17] = [
    ("privileged", "no app is given the machine"),
    ("cap_add", "no app is given a capability"),
    ("devices", "no app is given a device"),
    ("network_mode", "an app has a network of its own"),
    ("pid", "an app sees its own processes alone"),
    ("ipc", "an app has its own messages and memory"),
    ("userns_mode", "users are mapped for every image alike"),
    ("cgroup_parent", "control groups are Berth's own"),
    ("sysctls", "the settings of the kernel are not an app's"),
    ("extra_hosts", "names cannot be added yet"),
    ("dns", "names are looked up as the machine does"),
    ("extends", "write out what the service has"),
    ("configs", "not available in this version: put the file into the source, or into a volume"),
    ("secrets", "not available in this version: `berth secrets set` keeps what is secret"),
    ("user", "an image runs as the user that it names, a build as the app's own"),
    ("working_dir", "it runs where its image says, or in its source"),
    ("volumes_from", "a volume is one app's alone"),
];

/// `name` in the form of an app's.
pub(super) fn app_name(name: &str) -> Result<AppName, String> {
    AppName::new(&name.to_ascii_lowercase().replace(['_', '.'], "-")).map_err(|bad| bad.to_string())
}

/// What of a service is put together once all its keys are read.
#[derive(Default)]
struct Parts {
    image: Option<String>,
    command: Option<Vec<String>>,
    command_line: Option<String>,
    entrypoint: Option<Vec<String>>,
    port: Option<u16>,
    protocol: berth_spec::HttpProtocol,
    /// Whether others than the services of the file are meant to reach it.
    is_public: bool,
    replicas: Option<u32>,
    healthcheck: Option<Healthcheck>,
    resources: Resources,
}

pub(super) fn read(reader: &mut Reader<'_>, what: &str, name: AppName, node: &Node) -> Service {
    let mut service = Service {
        name,
        line: node.line,
        alias: None,
        manifest: berth_spec::Manifest::default(),
        context: None,
        env_files: Vec::new(),
        after: BTreeMap::new(),
        replicas: None,
        is_job: false,
    };
    let mut parts = Parts::default();
    if !node.is_table() {
        reader.refuse(node, what, "a service is a table of keys and values");
    }
    for (key, value) in node.entries() {
        let full = format!("{what}.{key}");
        match key {
            "image" => parts.image = reader.text(value),
            "build" => build(reader, &full, value, &mut service),
            "command" => match words(reader, &full, value) {
                Some(Words::Line(line)) => parts.command_line = Some(line),
                Some(Words::Argv(argv)) => parts.command = Some(argv),
                None => {}
            },
            "entrypoint" => parts.entrypoint = entrypoint(reader, &full, value),
            "environment" => service.manifest.env = variables(reader, &full, value),
            "env_file" => env_files(reader, value, &mut service),
            "ports" | "expose" => {
                parts.is_public |= key == "ports";
                ports(reader, &full, value, &mut parts);
            }
            "volumes" => volumes(reader, &full, value, &mut service),
            "depends_on" => depends_on(reader, &full, value, &mut service),
            "healthcheck" => parts.healthcheck = health::read(reader, &full, value),
            "deploy" => deploy(reader, &full, value, &mut parts),
            "scale" => parts.replicas = number(reader, &full, value),
            "mem_limit" | "cpus" | "pids_limit" => {
                resources::limit(reader, &full, key, value, &mut parts.resources)
            }
            "stop_signal" => stop_signal(reader, &full, value, &mut service),
            "stop_grace_period" => match span(reader, value, Millis::from_secs(300)) {
                Some(span) => service.manifest.shutdown.kill_after = span,
                None => reader.refuse(value, &full, "Berth waits 300 s at most"),
            },
            "restart" if value.plain().as_deref() == Some("no") => {
                reader.tell(
                    value,
                    &full,
                    "a process that ends is started again, unless another service waits for its end",
                );
            }
            "restart" => {}
            "profiles" => reader.refuse(
                value,
                &full,
                "all services of a file are run: put those of a profile into a file of its own",
            ),
            key if key.starts_with("x-") => {}
            key => other(reader, &full, key, value),
        }
    }
    finish(reader, what, node, parts, &mut service);
    service
}

fn other(reader: &mut Reader<'_>, full: &str, key: &str, value: &Node) {
    if let Some((_, why)) = IDLE.iter().find(|(name, _)| *name == key) {
        return reader.tell(value, full, why);
    }
    match ELSE.iter().find(|(name, _)| *name == key) {
        Some((_, why)) => reader.refuse(value, full, why),
        None => match key {
            "cpu_shares" | "cpuset" | "cpu_quota" | "cpu_period" | "memswap_limit" | "mem_swappiness" => {
                reader.tell(value, full, "`cpus` and `mem_limit` are what an instance is held to");
            }
            "shm_size" => {
                reader.tell(value, full, "memory that processes share counts as the instance's memory")
            }
            "read_only" | "tmpfs" => {
                reader.tell(value, full, "what it writes outside of volumes is in memory, and gone with it")
            }
            _ => reader.refuse(value, full, "not known here"),
        },
    }
}

/// What runs, by which name.
fn finish(reader: &mut Reader<'_>, what: &str, node: &Node, parts: Parts, service: &mut Service) {
    let is_image = service.context.is_none();
    match (&parts.image, is_image) {
        (Some(image), true) => {
            service.manifest.build = Build { image: Some(image.clone()), ..Build::default() }
        }
        (Some(_), false) => {
            let at = node.get("image").unwrap_or(node);
            reader.tell(at, &format!("{what}.image"), "it is built: nothing is pushed anywhere");
        }
        (None, true) => reader.refuse(node, what, "it has neither `image` nor `build`"),
        (None, false) => {}
    }
    let mut args = None;
    let command = match (parts.entrypoint, parts.command, parts.command_line) {
        (Some(mut entrypoint), words, line) => {
            entrypoint.extend(words.into_iter().flatten());
            entrypoint.extend(line.iter().flat_map(|line| line.split_whitespace().map(str::to_owned)));
            Some(Command::from_argv(entrypoint))
        }
        (None, None, None) => None,
        // The entrypoint of the image is given it.
        (None, words, line) if is_image || service.manifest.build.dockerfile.is_some() => {
            let at = node.get("command").unwrap_or(node);
            args = words.or_else(|| split(reader, &format!("{what}.command"), at, &line?));
            None
        }
        (None, Some(argv), _) => Some(Command::from_argv(argv)),
        (None, None, Some(line)) => Some(Command::parse(&line)),
    };
    let named = ProcessName::new(service.name.as_str())
        .ok()
        .filter(|name| !["run", "release-command"].contains(&name.as_str()));
    let web = ProcessName::new(ProcessName::WEB).expect("it is a name");
    // What an image does without being told otherwise is taken for what it is there for, which is to listen.
    let is_told = command.is_some() || (args.is_some() && !is_image);
    let process = match (is_told, parts.port) {
        (false, _) | (_, Some(_)) => web,
        (true, None) => named.unwrap_or_else(|| ProcessName::new("worker").expect("it is a name")),
    };
    match command {
        None => {}
        Some(Ok(command)) => drop(service.manifest.processes.insert(process.clone(), command)),
        Some(Err(bad)) => reader.refuse(node, what, &bad.to_string()),
    }
    if parts.resources != Resources::default() {
        service.manifest.resources.insert(process.clone(), parts.resources);
    }
    service.manifest.args = args.map(|args| (process.clone(), args)).into_iter().collect();
    service.manifest.http.port = parts.port;
    if let Some(check) = parts.healthcheck {
        let at = node.get("healthcheck").unwrap_or(node);
        health::finish(reader, (at, what), check, &process, &mut service.manifest);
    }
    service.manifest.http.protocol = parts.protocol;
    service.manifest.http.internal = !parts.is_public;
    service.replicas = parts.replicas.map(|count| (process.clone(), count));
    if parts.replicas.is_some_and(|count| count > 1) && !service.manifest.volumes.is_empty() {
        reader.refuse(
            node,
            what,
            "it has a volume, which one instance has at a time: leave the replicas out",
        );
    }
    // The bounds of its numbers are those of a manifest.
    if let Err(problems) = berth_spec::Manifest::parse(&service.manifest.write(&[], &[])) {
        problems.0.iter().for_each(|problem| reader.refuse(node, what, &problem.what));
    }
}

/// A service that runs once: the release command of its app, whose process is wanted nought times.
pub(super) fn make_job(service: &mut Service) {
    service.is_job = true;
    if let Some((process, command)) = service.manifest.processes.pop_first() {
        let limits = service.manifest.resources.remove(&process);
        let once = ProcessName::new(RELEASE_COMMAND_PROCESS).expect("it is a name");
        service.manifest.resources.extend(limits.map(|limits| (once, limits)));
        service.manifest.healthcheck.clear();
        service.manifest.deploy.release_command = Some(command.clone());
        service.replicas = Some((process.clone(), 0));
        service.manifest.processes.insert(process, command);
    }
}

fn build(reader: &mut Reader<'_>, full: &str, value: &Node, service: &mut Service) {
    let context = if value.is_table() { value.get("context") } else { Some(value) };
    let context = context.and_then(|context| reader.text(context)).unwrap_or_else(|| ".".to_owned());
    if context.contains("://") || context.starts_with("git@") {
        reader.refuse(value, full, "what is built lies beside the file: clone it there");
    }
    service.context = Some(context);
    for (key, value) in value.entries().filter(|(key, _)| *key != "context") {
        let full = format!("{full}.{key}");
        match key {
            // One that is not named is found where nothing else in the source says how to build.
            "dockerfile" => {
                let path = reader.text(value).map(|path| path.trim_start_matches("./").to_owned());
                if path
                    .as_deref()
                    .is_some_and(|path| path.starts_with('/') || path.split('/').any(|step| step == ".."))
                {
                    reader.refuse(value, &full, "it has to lie within what is built");
                }
                service.manifest.build.dockerfile = path;
            }
            "dockerfile_inline" => {
                reader.refuse(value, &full, "write it to a file, and name that as `dockerfile`")
            }
            "target" => service.manifest.build.target = reader.text(value),
            "args" => service.manifest.build.args = variables(reader, &full, value),
            "tags" | "cache_from" | "cache_to" | "labels" | "platforms" | "pull" | "no_cache" | "network" => {
                reader.tell(value, &full, "not used by builds here");
            }
            _ => reader.refuse(value, &full, "not known here"),
        }
    }
    // Nothing else has either.
    let build = &mut service.manifest.build;
    if (build.target.is_some() || !build.args.is_empty()) && build.dockerfile.is_none() {
        build.dockerfile = Some("Dockerfile".to_owned());
    }
}

enum Words {
    Line(String),
    Argv(Vec<String>),
}

fn words(reader: &mut Reader<'_>, full: &str, value: &Node) -> Option<Words> {
    if value.is_list() {
        return Some(Words::Argv(value.items().iter().filter_map(|word| reader.text(word)).collect()));
    }
    if value.is_table() {
        reader.refuse(value, full, "a command is a line or a list of words");
    }
    reader.text(value).map(Words::Line)
}

fn entrypoint(reader: &mut Reader<'_>, full: &str, value: &Node) -> Option<Vec<String>> {
    match words(reader, full, value)? {
        Words::Argv(argv) => Some(argv),
        Words::Line(line) => split(reader, full, value, &line),
    }
}

/// A line is split at blanks; one with quotation marks has to be a list.
fn split(reader: &mut Reader<'_>, full: &str, at: &Node, line: &str) -> Option<Vec<String>> {
    if line.contains(['"', '\'', '\\']) {
        reader.refuse(at, full, "write it as a list of words");
        return None;
    }
    Some(line.split_whitespace().map(str::to_owned).collect())
}

/// As a table, or as a list of `NAME=VALUE`. A name without a value has that of whoever runs the stack.
fn variables(reader: &mut Reader<'_>, full: &str, value: &Node) -> BTreeMap<EnvName, String> {
    let mut all = BTreeMap::new();
    if !reader.has_parts(full, value) {
        return all;
    }
    let mut add = |reader: &mut Reader<'_>, at: &Node, name: &str, text: Option<String>| {
        let full = format!("{full}.{name}");
        let text = text.or_else(|| (reader.variable)(name));
        match (EnvName::new(name), text) {
            (Err(bad), _) => reader.refuse(at, &full, &bad.to_string()),
            (Ok(_), None) => {
                reader.refuse(at, &full, "it has no value here: set it in the environment or in .env")
            }
            (Ok(name), Some(text)) => drop(all.insert(name, text)),
        }
    };
    for item in if value.is_list() { value.items() } else { &[] } {
        if let Some(text) = reader.text(item) {
            match text.split_once('=') {
                Some((name, text)) => add(reader, item, name, Some(text.to_owned())),
                None => add(reader, item, &text, None),
            }
        }
    }
    for (name, item) in value.entries() {
        let text = reader.text(item);
        if item.plain().is_none() || text.is_some() {
            add(reader, item, name, text);
        }
    }
    all
}

fn env_files(reader: &mut Reader<'_>, value: &Node, service: &mut Service) {
    let one = std::slice::from_ref(value);
    for item in if value.is_list() { value.items() } else { one } {
        let path = item.get("path").unwrap_or(item);
        let required = item.get("required").and_then(Node::plain).as_deref() != Some("false");
        let raw = item.get("format").and_then(Node::plain).as_deref() == Some("raw");
        service.env_files.extend(reader.text(path).map(|path| EnvFile { path, required, raw }));
    }
}

/// What an `app_protocol` says: names as people give them there, and those of Kubernetes.
fn http_protocol(name: &str) -> Option<berth_spec::HttpProtocol> {
    match name {
        "h2c" | "grpc" | "http2" | "kubernetes.io/h2c" => Some(berth_spec::HttpProtocol::H2c),
        "http" | "ws" | "kubernetes.io/ws" => Some(berth_spec::HttpProtocol::Http1),
        _ => None,
    }
}

/// `8080`, `80:8080`, `127.0.0.1:80:8080/tcp`, or a table with `target`.
fn ports(reader: &mut Reader<'_>, full: &str, value: &Node, parts: &mut Parts) {
    for item in value.items() {
        let text = item.get("target").and_then(Node::plain).or_else(|| reader.text(item));
        let Some(text) = text else { continue };
        let (text, protocol) = text.split_once('/').unwrap_or((&text, "tcp"));
        let published = text.rsplit_once(':').map(|(published, _)| published);
        let target =
            text.rsplit(':').next().and_then(|port| port.parse::<u16>().ok()).filter(|port| *port > 0);
        match target {
            None => reader.refuse(item, full, "ports are one number each"),
            Some(_) if protocol != "tcp" => {
                reader.refuse(item, full, "only HTTP is routed: nobody would be heard at a port of udp");
            }
            Some(port) if parts.port.is_some_and(|other| other != port) => {
                reader.refuse(item, full, "only HTTP to one port is routed: leave the others out");
            }
            Some(port) => {
                parts.port = Some(port);
                if let Some(name) = item.get("app_protocol").and_then(Node::plain) {
                    match http_protocol(&name) {
                        Some(protocol) => parts.protocol = protocol,
                        None => reader.tell(
                            item,
                            full,
                            "its app_protocol is not known here: HTTP/1.1 is spoken to it",
                        ),
                    }
                }
                if let Some(published) = published {
                    let why =
                        format!("HTTP comes in by the app's host instead of port {published} of the machine");
                    reader.tell(item, full, &why);
                }
            }
        }
    }
}

/// `data:/data`, or a table with `type`, `source` and `target`.
fn volumes(reader: &mut Reader<'_>, full: &str, value: &Node, service: &mut Service) {
    for item in value.items() {
        let part = |key: &str| item.get(key).and_then(Node::plain).unwrap_or_default();
        let line = match item.plain() {
            Some(_) => reader.text(item),
            None if part("type") == "tmpfs" => {
                reader.tell(item, full, "what it writes outside of volumes is in memory already");
                continue;
            }
            None => Some(format!("{}:{}", part("source"), part("target"))),
        };
        let Some(line) = line else { continue };
        let mut parts = line.split(':');
        let (name, path, mode) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
        let Some(path) = path.filter(|_| !name.is_empty()) else {
            reader.tell(item, full, "it has no name: what is written there is gone with the instance");
            continue;
        };
        if name.starts_with(['/', '.', '~']) {
            let why = format!(
                "{name} is a directory of the machine, of which no app is given anything: copy what it needs into its source or into a volume"
            );
            reader.refuse(item, full, &why);
            continue;
        }
        if mode.is_some_and(|mode| mode.split(',').any(|it| it == "ro")) {
            reader.tell(item, full, "whoever has a volume may write to it");
        }
        let near = name.to_ascii_lowercase().replace(['_', '.'], "-");
        match (VolumeName::new(&near), path.parse()) {
            (Err(bad), _) => reader.refuse(item, full, &bad.to_string()),
            (_, Err(bad)) => {
                let bad: berth_spec::manifest::InvalidMountPath = bad;
                reader.refuse(item, full, &bad.to_string());
            }
            (Ok(name), Ok(path)) => {
                let made = Volume { path, size: None, processes: Default::default() };
                if service.manifest.volumes.insert(name, made).is_some() {
                    reader.refuse(item, full, "a volume is at one place");
                }
            }
        }
    }
}

/// A list of names, or a table with conditions.
fn depends_on(reader: &mut Reader<'_>, full: &str, value: &Node, service: &mut Service) {
    let mut add = |reader: &mut Reader<'_>, at: &Node, name: &str, condition: Condition| match app_name(name)
    {
        Ok(name) => drop(service.after.insert(name, condition)),
        Err(why) => reader.refuse(at, full, &why),
    };
    for item in if reader.has_parts(full, value) && value.is_list() { value.items() } else { &[] } {
        if let Some(name) = item.plain() {
            add(reader, item, &name, Condition::Ready);
        }
    }
    for (name, item) in value.entries() {
        let condition = match item.get("condition").and_then(Node::plain).as_deref() {
            None | Some("service_started" | "service_healthy") => Condition::Ready,
            Some("service_completed_successfully") => Condition::Completed,
            Some(other) => {
                reader.refuse(item, full, &format!("{other} is no condition"));
                continue;
            }
        };
        add(reader, item, name, condition);
    }
}

fn deploy(reader: &mut Reader<'_>, full: &str, value: &Node, parts: &mut Parts) {
    if !reader.is_table(full, value) {
        return;
    }
    for (key, value) in value.entries() {
        let full = format!("{full}.{key}");
        match key {
            "replicas" => parts.replicas = number(reader, &full, value),
            "resources" => resources::read(reader, &full, value, &mut parts.resources),
            "mode" | "placement" | "endpoint_mode" => {
                reader.tell(value, &full, "everything runs on this machine")
            }
            "restart_policy" | "update_config" | "rollback_config" | "labels" => {
                reader.tell(
                    value,
                    &full,
                    "a deploy starts new instances beside the old ones, and a failed one changes nothing",
                );
            }
            _ => reader.refuse(value, &full, "not known here"),
        }
    }
}

fn stop_signal(reader: &mut Reader<'_>, full: &str, value: &Node, service: &mut Service) {
    let named = value.plain().unwrap_or_default().to_ascii_uppercase();
    let fits = |(name, signal): &&(&str, Signal)| {
        *name == named || name.strip_prefix("SIG") == Some(&named) || signal.number().to_string() == named
    };
    match Signal::NAMED.iter().find(fits) {
        Some((_, signal)) => service.manifest.shutdown.signal = *signal,
        None => reader.refuse(value, full, "it is none of the signals that ask to end"),
    }
}

pub(super) fn number(reader: &mut Reader<'_>, full: &str, value: &Node) -> Option<u32> {
    let number = reader.text(value).and_then(|text| text.parse().ok());
    if number.is_none() {
        reader.refuse(value, full, "it is no whole number");
    }
    number
}

/// `1m30s`, `2.5s`, or a number of seconds; at most so much.
pub(super) fn span(reader: &mut Reader<'_>, value: &Node, most: Millis) -> Option<Millis> {
    let text = reader.text(value)?;
    let seconds = text.parse::<u64>().ok().and_then(|it| it.checked_mul(1_000)).map(Millis);
    seconds.or_else(|| gos(&text)).filter(|span| *span <= most)
}

/// A span as Go writes it: numbers with units one after the other, each with a fraction if need be.
fn gos(text: &str) -> Option<Millis> {
    const UNITS: [(&str, f64); 7] =
        [("ms", 1.0), ("us", 1e-3), ("\u{b5}s", 1e-3), ("ns", 1e-6), ("s", 1e3), ("m", 6e4), ("h", 3.6e6)];
    let (mut rest, mut total) = (text, 0.0);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let (unit, times) = UNITS.into_iter().find(|(unit, _)| tail.starts_with(unit))?;
        total += number.parse::<f64>().ok()? * times;
        rest = tail.strip_prefix(unit)?;
    }
    let is_one = !text.is_empty() && (0.0..1e15).contains(&total);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0 and 1e15")]
    is_one.then(|| Millis(total.ceil() as u64))
}
