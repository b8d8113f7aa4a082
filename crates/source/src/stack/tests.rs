//! Compose files as stacks: what is taken over, and every line that is not.

use berth_spec::Command;
use proptest::prelude::*;

use super::*;

const SHOP: &str = r#"name: shop
x-common: &common
  restart: unless-stopped
services:
  web:
    <<: *common
    build: ./web
    command: ["bin/server", "--port", "$$PORT"]
    ports:
      - "127.0.0.1:80:3000"
    environment:
      RAILS_ENV: production
      GREETING: hello ${WHO:-world}
      TOKEN:
    env_file: [web.env]
    depends_on:
      db:
        condition: service_healthy
      migrate:
        condition: service_completed_successfully
    healthcheck:
      test: ["CMD", "curl", "-f", "http://localhost:3000/up"]
      interval: 2s
      start_period: 1m
    deploy:
      replicas: 3
    stop_signal: SIGQUIT
  migrate:
    build: ./web
    command: bin/migrate --all
    depends_on: [db]
  background_jobs:
    build: { context: ./web, dockerfile: Dockerfile.jobs }
    command: bin/jobs
    depends_on: [db]
  db:
    image: postgres:17
    volumes: ["pg_data:/var/lib/postgresql/data"]
    container_name: db
volumes:
  pg_data:
"#;

fn variable(name: &str) -> Option<String> {
    (name == "TOKEN").then(|| "secret".to_owned())
}

fn told(text: &str) -> Vec<String> {
    let stack = read("compose.yaml", text, &variable).unwrap();
    stack
        .told
        .iter()
        .map(|it| format!("{}{} {}", it.line, if it.refused { "!" } else { "" }, it.what))
        .collect()
}

#[test]
fn each_service_is_an_app_after_those_that_it_needs() {
    let stack = read("compose.yaml", SHOP, &variable).unwrap();
    assert_eq!(stack.name.as_deref(), Some("shop"));
    let order: Vec<&str> = stack.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(order, ["db", "background-jobs", "migrate", "web"]);
    let [db, jobs, migrate, web] = &stack.services[..] else { panic!("{stack:?}") };
    assert_eq!(db.manifest.build.image.as_deref(), Some("postgres:17"));
    assert_eq!(db.manifest.volumes["pg-data"].path.as_str(), "/var/lib/postgresql/data");
    let line = |line: &str| Command::parse(line).unwrap();
    assert_eq!(jobs.manifest.args["background-jobs"], ["bin/jobs"]);
    assert_eq!(jobs.manifest.build.dockerfile.as_deref(), Some("Dockerfile.jobs"));
    assert_eq!(
        (migrate.is_job, migrate.manifest.deploy.release_command.clone()),
        (true, Some(line("bin/migrate --all")))
    );
    assert_eq!(migrate.replicas, Some(("migrate".parse().unwrap(), 0)));
    assert_eq!(web.context.as_deref(), Some("./web"));
    let argv = ["bin/server", "--port", "$PORT"].map(str::to_owned).to_vec();
    assert_eq!(web.manifest.processes["web"], Command::Argv(argv));
    assert_eq!((web.manifest.http.port, &web.replicas), (Some(3_000), &Some(("web".parse().unwrap(), 3))));
    let env: Vec<(&str, &str)> =
        web.manifest.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(env, [("GREETING", "hello world"), ("RAILS_ENV", "production"), ("TOKEN", "secret")]);
    assert_eq!(web.manifest.http.readiness.path.as_ref().map(|path| path.as_str()), Some("/up"));
    assert_eq!(web.manifest.http.readiness.grace, berth_spec::Millis::from_secs(66), "and three of 2 s");
    assert_eq!(web.after.len(), 2);
    assert_eq!(web.env_files[0].path, "web.env");
    assert!(!stack.is_refused());
    assert_eq!(told(SHOP), ["10 services.web.ports", "39 services.db.container_name"]);
}

#[test]
fn what_would_be_another_thing_is_refused_with_its_line() {
    let text = "services:\n  web:\n    image: a\n    privileged: true\n    volumes:\n      - ./data:/data\n      - /tmp\n    ports: [\"53:53/udp\"]\n    command: run it\n    environment: [UNKNOWN]\n    depends_on: [nobody]\n    frobnicate: 1\n  a:\n    image: b\n    volumes: [\"d:/d\"]\n    scale: 2\n  b:\n    image: b\n    volumes: [\"d:/d\"]\n  c: {}\nsecrets: {}\n";
    assert_eq!(
        told(text),
        [
            "2! services.web.depends_on",
            "4! services.web.privileged",
            "6! services.web.volumes",
            "7 services.web.volumes",
            "8! services.web.ports",
            "10! services.web.environment.UNKNOWN",
            "12! services.web.frobnicate",
            "13! services.a",
            "17! services.b.volumes",
            "20! services.c",
            "21! secrets",
        ]
    );
    let cycle = "services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: [a]}\n";
    let problems = read("compose.yaml", cycle, &variable).unwrap_err().to_string();
    assert!(problems.contains("wait for each other: a, b"), "{problems}");
    for bad in ["", "[]", "services: {}", "services: [", "a: 1"] {
        read("compose.yaml", bad, &variable).unwrap_err();
    }
}

#[test]
fn a_port_may_say_what_is_spoken_there() {
    let text = |protocol: &str| {
        format!(
            "name: a\nservices:\n  web:\n    build: .\n    ports:\n      - target: 50051\n        app_protocol: {protocol}\n"
        )
    };
    let spoken = |protocol| {
        let stack = read("compose.yaml", &text(protocol), &variable).unwrap();
        stack.services[0].manifest.http.protocol
    };
    for protocol in ["h2c", "grpc", "http2", "kubernetes.io/h2c"] {
        assert_eq!(spoken(protocol), berth_spec::HttpProtocol::H2c, "{protocol}");
        assert!(told(&text(protocol)).is_empty());
    }
    assert_eq!(spoken("http"), berth_spec::HttpProtocol::Http1);
    assert_eq!(spoken("mysql"), berth_spec::HttpProtocol::Http1);
    assert_eq!(told(&text("mysql")), ["6 services.web.ports"], "what is not known is said");
}

#[test]
fn a_check_is_asked_by_edge_or_run_as_it_stands() {
    let check = |service: &str| {
        let text = format!("services:\n  web:\n{service}");
        let stack = read("compose.yaml", &text, &variable).unwrap();
        let manifest = &stack.services[0].manifest;
        let path = manifest.http.readiness.path.as_ref().map(|path| path.as_str().to_owned());
        (path, manifest.healthcheck.clone().into_iter().next(), told(&text))
    };
    let image = "    healthcheck: {test: [CMD, pg_isready, -U, app], interval: 5s, timeout: 3s, retries: 5, start_period: 20s}\n    image: postgres:17\n";
    let (path, run, told) = check(image);
    let (process, run) = run.unwrap();
    assert!(path.is_none() && told.is_empty() && process.is_web(), "{path:?} {told:?}");
    assert_eq!(run.command, Some(Command::Argv(["pg_isready", "-U", "app"].map(str::to_owned).to_vec())));
    assert_eq!((run.interval, run.retries), (Some(berth_spec::Millis(5_000)), Some(5)));
    let shell = "    image: redis\n    healthcheck:\n      test: redis-cli ping | grep PONG\n";
    let shell = check(shell).1.unwrap().1;
    assert_eq!(shell.command, Some(Command::Shell("redis-cli ping | grep PONG".to_owned())));
    // The port of another service of the same container is not edge's to ask.
    let other = "    build: .\n    ports: [\"3000\"]\n    healthcheck: {test: \"curl -f http://localhost:9090/up\"}\n";
    assert!(check(other).0.is_none() && check(other).1.is_some());
    let own = other.replace("9090", "3000");
    assert_eq!((check(&own).0.as_deref(), check(&own).1), (Some("/up"), None));
    // A worker has no port that edge could ask.
    let jobs = "services:\n  jobs:\n    build: .\n    command: bin/work\n    healthcheck: {test: \"curl -f http://localhost:9090/up\"}\n";
    let jobs = read("compose.yaml", jobs, &variable).unwrap().services.remove(0).manifest;
    assert!(jobs.healthcheck.contains_key("jobs") && jobs.http.readiness.path.is_none());
    for off in ["{disable: true}", "{test: [NONE], interval: 5s}"] {
        let off = check(&format!("    image: a\n    healthcheck: {off}\n"));
        assert!(off.1.unwrap().1.disable && off.2.is_empty());
    }
    for (bad, at) in [
        ("{test: [curl, x]}", "4! services.web.healthcheck.test"),
        ("{test: [CMD]}", "4! services.web.healthcheck.test"),
        ("{test: x, interval: 2d}", "4! services.web.healthcheck.interval"),
        ("{test: x, interval: 1ms}", "2! services.web"),
        ("{test: x, else: 1}", "4! services.web.healthcheck.else"),
    ] {
        assert_eq!(check(&format!("    image: a\n    healthcheck: {bad}\n")).2, [at], "{bad}");
    }
    let idle = check("    build: .\n    healthcheck: {interval: 5s}\n");
    assert_eq!((idle.1, idle.2), (None, vec!["4 services.web.healthcheck".to_owned()]));
}

#[test]
fn a_command_is_given_to_the_entrypoint_of_the_image() {
    let of = |service: &str| {
        let text = format!("services:\n  web:\n{service}");
        let stack = read("compose.yaml", &text, &variable).unwrap();
        (stack.services[0].manifest.clone(), told(&text))
    };
    let words = |manifest: &Manifest| manifest.args.values().next().cloned().unwrap_or_default();
    let (redis, said) = of("    image: redis\n    command: redis-server --save 60 1\n");
    assert_eq!(words(&redis), ["redis-server", "--save", "60", "1"]);
    assert!(redis.processes.is_empty() && redis.args.contains_key("web") && said.is_empty());
    let (minio, _) =
        of("    image: minio\n    command: [server, /data, \"--name=a b\"]\n    ports: [\"9000\"]\n");
    assert_eq!(words(&minio), ["server", "/data", "--name=a b"]);
    let (whole, _) = of("    image: a\n    entrypoint: [\"/bin/a\"]\n    command: [b]\n");
    assert_eq!(whole.processes["web"], Command::Argv(["/bin/a", "b"].map(str::to_owned).to_vec()));
    assert!(whole.args.is_empty());
    assert_eq!(of("    image: a\n    command: \"sh -c 'a b'\"\n").1, ["4! services.web.command"]);
}

#[test]
fn a_dockerfile_has_its_stage_and_arguments() {
    let build = "{context: ., target: runtime, args: {VERSION: \"1\", TOKEN: }}";
    let of = |build: &str| {
        let text = format!("services:\n  web:\n    build: {build}\n    command: [serve]\n");
        let stack = read("compose.yaml", &text, &variable).unwrap();
        (stack.services[0].manifest.clone(), told(&text))
    };
    let (made, said) = of(build);
    assert_eq!(
        (made.build.target.as_deref(), made.build.dockerfile.as_deref()),
        (Some("runtime"), Some("Dockerfile"))
    );
    let args: Vec<(&str, &str)> =
        made.build.args.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!((args, said), (vec![("TOKEN", "secret"), ("VERSION", "1")], Vec::new()));
    assert_eq!(made.args.values().next().unwrap(), &["serve"], "the image has an entrypoint");
    let (listed, _) = of("{context: ., dockerfile: ./D, args: [VERSION=1]}");
    assert_eq!((listed.build.args.len(), listed.build.dockerfile.as_deref()), (1, Some("D")));
    assert_eq!(of("{context: ., args: [UNKNOWN]}").1, ["3! services.web.build.args.UNKNOWN"]);
    assert_eq!(of("{context: ., dockerfile_inline: FROM a}").1, ["3! services.web.build.dockerfile_inline"]);
    assert_eq!(of("{context: ., target: --pull}").1, ["2! services.web"]);
}

/// What is commented out leaves its key behind; what has another form than it must have is not heard, and says so.
#[test]
fn a_key_without_a_value_is_nothing_and_one_of_another_form_is_refused() {
    for key in ["environment", "depends_on", "healthcheck", "deploy"] {
        let with = |value: &str| told(&format!("services:\n  web:\n    build: .\n    {key}:{value}\n"));
        assert_eq!(with(""), [""; 0], "{key}");
        assert_eq!(with(" word"), [format!("4! services.web.{key}")], "{key}");
    }
}

#[test]
fn limits_are_those_of_the_file() {
    let limits = |service: &str| {
        let text = format!("services:\n  web:\n    build: .\n{service}");
        let stack = read("compose.yaml", &text, &variable).unwrap();
        let of = stack.services[0].manifest.resources.values().next().copied();
        (of, told(&text))
    };
    let new = "    deploy: {resources: {limits: {cpus: '0.5', memory: 256M, pids: 100}, reservations: {memory: 20M}}}\n";
    let (of, said) = limits(new);
    let of = of.unwrap();
    assert_eq!((of.cpu_millis, of.memory, of.processes), (Some(500), Some(256 << 20), Some(100)));
    assert_eq!(said, ["4 services.web.deploy.resources.reservations"]);
    let old = limits("    mem_limit: 1g\n    cpus: 2\n    pids_limit: -1\n").0.unwrap();
    assert_eq!((old.cpu_millis, old.memory, old.processes), (Some(2_000), Some(1 << 30), None));
    for (bad, at) in [
        ("    mem_limit: much\n", "4! services.web.mem_limit"),
        ("    mem_limit: 1k\n", "2! services.web"),
        ("    cpus: none\n", "4! services.web.cpus"),
        (
            "    deploy: {resources: {reservations: {devices: [{count: 1}]}}}\n",
            "4! services.web.deploy.resources.reservations",
        ),
    ] {
        assert_eq!(limits(bad).1, [at], "{bad}");
    }
}

#[test]
fn a_job_has_to_say_what_it_runs() {
    let text = "services:\n  once: {image: x}\n  web:\n    image: y\n    depends_on: {once: {condition: service_completed_successfully}}\n";
    assert_eq!(told(text), ["2! services.once"]);
    let text = text.replace("image: x", "image: x, entrypoint: [\"/bin/once\"]");
    assert_eq!(told(&text), [""; 0]);
}

proptest! {
    #[test]
    fn any_text_is_a_stack_or_an_error(text in any::<String>()) {
        drop(read("compose.yaml", &text, &variable));
    }

    #[test]
    fn any_mutation_of_a_stack_is_one_or_an_error(at in 0..SHOP.len(), cut in 0..30_usize, put in "[\\[\\]{}:\\-$&*a \n'\"]{0,8}") {
        let end = (at + cut).min(SHOP.len());
        if let (Some(before), Some(after)) = (SHOP.get(..at), SHOP.get(end..)) {
            drop(read("compose.yaml", &format!("{before}{put}{after}"), &variable));
        }
    }
}
