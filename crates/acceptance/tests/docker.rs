//! A platform whose instances are in containers of Docker: the same journeys, with a real dockerd of the tests' own.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use berth_acceptance::load::{Activation, Load, Options as LoadOptions};
use berth_acceptance::{ImageRegistry, Options, Platform, Source, exchange, wait_until};
use berth_docker::Engine;
use berth_docker::testing::{Daemon, Podman};

const PATIENCE: Duration = Duration::from_secs(120);

/// A platform in containers, or why there can be none.
fn in_containers() -> Result<(Platform, Daemon), String> {
    let daemon = Daemon::get()?;
    let env = vec![("DOCKER_HOST".to_owned(), format!("unix://{}", daemon.socket.display()))];
    let options = Options { backend: Some("docker"), env, ..Options::default() };
    Ok((Platform::start(options), daemon))
}

/// How many containers the platform has.
fn containers(platform: &Platform, daemon: &Daemon) -> usize {
    let name = platform.cli(["status", "--json"]).ok().json()["platform"].as_str().unwrap().to_owned();
    Engine::connect(&daemon.socket).unwrap().containers("berth.platform", &name).unwrap().len()
}

fn page(platform: &Platform, app: &str, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {app}.localhost\r\nConnection: close\r\n\r\n");
    let reply = exchange(platform.edge(), request.as_bytes()).unwrap();
    (reply.status, reply.text())
}

#[test]
fn an_app_lives_in_containers_as_it_does_without() {
    let (mut platform, daemon) = match in_containers() {
        Ok(both) => both,
        Err(why) => return println!("!! NOT TESTED: {why}"),
    };
    let status = platform.cli(["status"]).ok().stdout;
    assert!(status.contains("runs in") && status.contains("docker "), "{status}");
    let mut source = Source::built(&platform);
    let deploy = |platform: &Platform, source: &Source| {
        let _released = platform.cli([Path::new("deploy"), source.path()]).ok();
    };
    deploy(&platform, &source);
    assert!(containers(&platform, &daemon) >= 1);

    // A new release and the death of control under load, without one failed request.
    let load = Load::start(LoadOptions { rate: 100, ..LoadOptions::new(platform.edge(), Source::APP) });
    let first =
        Activation { names: vec!["v1".to_owned()], submitted: Duration::ZERO, active: Duration::ZERO };
    let submitted = load.now();
    source.change();
    deploy(&platform, &source);
    let second = Activation { names: vec!["v2".to_owned()], submitted, active: load.now() };
    let instances = || platform.cli(["ps", "--app", Source::APP, "--json"]).ok().json();
    let before = instances();
    let control = platform.role("control");
    platform.kill(control[0]);
    let back = || {
        let new = platform.role("control");
        new.len() == 1 && new != control && platform.cli(["status"]).status == 0
    };
    assert!(wait_until(PATIENCE, back), "{}", platform.log("supervisor"));
    let pids = |list: &serde_json::Value| {
        let list = list.as_array().or_else(|| list["instances"].as_array()).unwrap().clone();
        let mut pids: Vec<_> = list.iter().filter_map(|it| it["pid"].as_u64()).collect();
        pids.sort_unstable();
        pids
    };
    assert!(wait_until(PATIENCE, || pids(&instances()) == pids(&before)), "{before} {}", instances());
    let enough = load.begun() + 50;
    assert!(wait_until(PATIENCE, || load.begun() >= enough));
    let outcome = load.stop();
    println!("{outcome}");
    outcome.assert_clean(&[first, second], &[]);

    // The same log, and one-off commands, with pipes.
    let logs = platform.cli(["logs", "--app", Source::APP]).ok().stdout;
    assert!(!logs.trim().is_empty());
    let ran = platform.cli(["run", "--app", Source::APP, "--", "sh", "-c", "echo $APP_NAME; id -u; exit 7"]);
    assert_eq!(ran.status, 7, "{} {}", ran.stdout, ran.stderr);
    assert!(ran.stdout.starts_with(Source::APP), "{}", ran.stdout);
    assert_ne!(ran.stdout.lines().nth(1), Some("0"));

    let name = platform.cli(["status", "--json"]).ok().json()["platform"].as_str().unwrap().to_owned();
    let _down = platform.cli(["down"]).ok();
    assert_eq!(platform.wait(), Some(0));
    let left = Engine::connect(&daemon.socket).unwrap().containers("berth.platform", &name).unwrap();
    assert_eq!(left, []);
}

#[test]
fn an_image_is_run_from_the_layers_that_were_verified() {
    let (platform, _daemon) = match in_containers() {
        Ok(both) => both,
        Err(why) => return println!("!! NOT TESTED: {why}"),
    };
    let registry = ImageRegistry::start();
    let empty = platform.scratch().join("nothing");
    fs::create_dir(&empty).unwrap();
    let image = format!("{}/team/shop:1", registry.address);
    let _first = platform.cli_in(&empty, ["deploy", "--app", "shop", "--image", &image]).ok();
    assert_eq!(page(&platform, "shop", "/index.html"), (200, "from the image\n".to_owned()));
    let run = |command: &[&str]| {
        let words = ["run", "--app", "shop", "--", "/bin/busybox"].iter().chain(command).copied();
        platform.cli_in(&empty, words).ok().stdout
    };
    assert_eq!(run(&["id"]).trim(), "uid=1000(guest) gid=1000(guest)");
    assert_eq!(run(&["sh", "-c", "pwd; echo $COLOUR"]).trim(), "/srv\nblue");
    let again = platform.cli_in(&empty, ["config", "set", "--app", "shop", "COLOUR=red"]).ok();
    assert!(again.stdout.contains("is active"), "{}", again.stdout);
    assert_eq!(run(&["sh", "-c", "echo $COLOUR"]).trim(), "red");
}

/// The source of an app that has a Dockerfile and nothing else: a program within an archive, and a page.
fn dockerfile(folder: &Path, lines: &str) {
    fs::create_dir_all(folder).unwrap();
    let mut tar = tar::Builder::new(fs::File::create(folder.join("rootfs.tar")).unwrap());
    let program = fs::read("/bin/busybox").unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_size(program.len() as u64);
    header.set_mode(0o755);
    tar.append_data(&mut header, "bin/busybox", &*program).unwrap();
    tar.finish().unwrap();
    for (name, text) in [
        ("page.txt", "first\n"),
        ("secret.txt", "not for the image\n"),
        (".dockerignore", "secret.*\n"),
        (
            "Dockerfile",
            &format!(
                "FROM scratch\nADD rootfs.tar /\nCOPY *.txt /srv/\nWORKDIR /srv\n{lines}\nEXPOSE 80\nCMD [\"/bin/busybox\", \"httpd\", \"-f\", \"-p\", \"80\", \"-h\", \"/srv\"]\n"
            ),
        ),
    ] {
        fs::write(folder.join(name), text).unwrap();
    }
}

/// A platform of Berth's own backend, with a Docker that builds, and nothing else that does.
fn with_builder() -> Result<(Platform, Daemon), String> {
    let daemon = Daemon::get()?;
    let env = vec![
        ("DOCKER_HOST".to_owned(), format!("unix://{}", daemon.socket.display())),
        ("BERTH_BUILD_ENGINE".to_owned(), "docker".to_owned()),
    ];
    Ok((Platform::start(Options { env, ..Options::default() }), daemon))
}

/// The same with Podman, or with buildah: what it is called by `berth status`, and what has to live as long as the platform.
fn with_engine(engine: &str, home: &Path) -> Result<(Platform, Option<Podman>, &'static str), String> {
    let podman = if engine == "podman" { Some(Podman::start(home)?) } else { None };
    let mut env = vec![("DOCKER_HOST".to_owned(), "unix:///nowhere/docker.sock".to_owned())];
    let nowhere = Path::new("/nowhere/podman.sock");
    let socket = podman.as_ref().map_or(nowhere, |podman| &podman.socket);
    env.push(("CONTAINER_HOST".to_owned(), format!("unix://{}", socket.display())));
    let platform = Platform::start(Options { env, ..Options::default() });
    let named = if engine == "podman" { "built by Podman 4." } else { "built by buildah" };
    let status = platform.cli(["status"]).ok().stdout;
    if !status.contains(named) {
        return Err(format!("{engine} is not installed: apt-get install {engine}\n{status}"));
    }
    Ok((platform, podman, named))
}

/// By an engine that has secrets: a Dockerfile is found, built with configuration and a secret, and run; `doctor` says who built it.
///
/// # Errors
/// Why the engine cannot be had.
fn a_dockerfile_is_built_with_a_secret_by(engine: &str) -> Result<(), String> {
    let home = tempfile::tempdir().unwrap();
    let (platform, _podman, named) = with_engine(engine, home.path())?;
    assert!(platform.cli(["doctor"]).stdout.contains(named));
    let folder = platform.scratch().join("hushed");
    let run = |script: &str| format!(r#"["/bin/busybox", "sh", "-c", "{script}"]"#);
    let greet = run("echo it is $COLOUR > /srv/page.txt");
    let count = run("/bin/busybox wc -c < /run/secrets/TOKEN >> /srv/page.txt");
    dockerfile(&folder, &format!("ARG COLOUR\nRUN {greet}\nRUN --mount=type=secret,id=TOKEN {count}"));
    let manifest = "app = \"hushed\"\n[build]\nnetwork = false\nenv = [\"COLOUR\", \"TOKEN\"]\n";
    fs::write(folder.join("berth.toml"), manifest).unwrap();
    let failed = platform.cli_in(&folder, ["deploy"]);
    let said = format!("{}{}", failed.stdout, failed.stderr);
    assert!(
        failed.status == 1 && said.contains("build_failed") && said.contains("/run/secrets/TOKEN"),
        "{said}"
    );
    let secrets = platform.scratch().join("secrets.env");
    fs::write(&secrets, "TOKEN=hush-hush\n").unwrap();
    let _set = platform.cli_in(&folder, ["secrets", "import", secrets.to_str().unwrap()]);
    let _set = platform.cli_in(&folder, ["config", "set", "COLOUR=blue"]);
    let deployed = platform.cli_in(&folder, ["deploy"]).ok().stdout;
    assert!(deployed.contains("made the image sha256:") && !deployed.contains("hush-hush"), "{deployed}");
    assert_eq!(page(&platform, "hushed", "/page.txt"), (200, "it is blue\n9\n".to_owned()));
    Ok(())
}

#[test]
fn a_dockerfile_is_built_with_a_secret_by_podman() {
    if let Err(why) = a_dockerfile_is_built_with_a_secret_by("podman") {
        println!("!! NOT TESTED: {why}");
    }
}

#[test]
fn a_dockerfile_is_built_with_a_secret_by_buildah() {
    if let Err(why) = a_dockerfile_is_built_with_a_secret_by("buildah") {
        println!("!! NOT TESTED: {why}");
    }
}

#[test]
fn a_dockerfile_is_found_built_and_run_without_docker() {
    let (platform, daemon) = match with_builder() {
        Ok(both) => both,
        Err(why) => return println!("!! NOT TESTED: {why}"),
    };
    let folder = platform.scratch().join("paged");
    dockerfile(&folder, "");
    let seen = platform.cli_in(&folder, ["deploy", "--dry-run"]).ok().stdout;
    assert!(seen.contains("Docker, Podman or buildah builds Dockerfile"), "{seen}");
    let first = platform.cli_in(&folder, ["deploy"]).ok().stdout;
    assert!(first.contains("ADD rootfs.tar") && first.contains("made the image sha256:"), "{first}");
    assert_eq!(page(&platform, "paged", "/page.txt"), (200, "first\n".to_owned()));
    // What is left out is not there, and nothing of it is left with the daemon but its cache.
    assert_eq!(page(&platform, "paged", "/secret.txt").0, 404);
    assert_eq!(containers(&platform, &daemon), 0);

    fs::write(folder.join("page.txt"), "second\n").unwrap();
    let _second = platform.cli_in(&folder, ["deploy"]).ok();
    assert_eq!(page(&platform, "paged", "/page.txt"), (200, "second\n".to_owned()));
    let _back = platform.cli_in(&folder, ["rollback"]).ok();
    assert_eq!(page(&platform, "paged", "/page.txt"), (200, "first\n".to_owned()));
}

#[test]
fn a_dockerfiles_commands_get_configuration_and_no_secrets_and_their_failure_is_told() {
    let (platform, _daemon) = match with_builder() {
        Ok(both) => both,
        Err(why) => return println!("!! NOT TESTED: {why}"),
    };
    let folder = platform.scratch().join("argued");
    let run =
        r#"RUN ["/bin/busybox", "sh", "-c", "echo it is $COLOUR > /srv/page.txt; test -n \"$COLOUR\""]"#;
    dockerfile(&folder, &format!("ARG COLOUR\n{run}"));
    let manifest =
        "app = \"argued\"\n[build]\ndockerfile = \"Dockerfile\"\nnetwork = false\nenv = [\"COLOUR\"]\n";
    fs::write(folder.join("berth.toml"), manifest).unwrap();
    let failed = platform.cli_in(&folder, ["deploy"]);
    let said = format!("{}{}", failed.stdout, failed.stderr);
    assert!(failed.status == 1 && said.contains("build_failed") && said.contains("non-zero code"), "{said}");
    let _set = platform.cli_in(&folder, ["config", "set", "COLOUR=blue"]);
    let _deployed = platform.cli_in(&folder, ["deploy"]).ok();
    assert_eq!(page(&platform, "argued", "/page.txt"), (200, "it is blue\n".to_owned()));

    fs::write(folder.join("berth.toml"), manifest.replace("[\"COLOUR\"]", "[\"COLOUR\", \"TOKEN\"]"))
        .unwrap();
    let secrets = platform.scratch().join("secrets.env");
    fs::write(&secrets, "TOKEN=hush\n").unwrap();
    let _set = platform.cli_in(&folder, ["secrets", "import", secrets.to_str().unwrap()]);
    let refused = platform.cli_in(&folder, ["deploy"]);
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert!(refused.status == 1 && said.contains("TOKEN is a secret"), "{said}");
    assert!(said.contains("apt-get install buildah"), "{said}");
}

#[test]
fn a_dockerfile_without_docker_is_refused_and_says_what_to_install() {
    let env = vec![
        ("DOCKER_HOST".to_owned(), "unix:///nowhere/docker.sock".to_owned()),
        ("BERTH_BUILD_ENGINE".to_owned(), "docker".to_owned()),
    ];
    let platform = Platform::start(Options { env, ..Options::default() });
    let status = platform.cli(["status"]).ok().stdout;
    assert!(status.contains("nothing here builds them"), "{status}");
    let folder = platform.scratch().join("alone");
    dockerfile(&folder, "");
    let refused = platform.cli_in(&folder, ["deploy"]);
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert!(said.contains("docker_unavailable") && said.contains("apt-get install docker.io"), "{said}");
    assert_eq!(refused.status, 1, "{said}");
}

/// What the platform needs and what is not there is told before anything begins.
#[test]
fn without_a_daemon_nothing_is_started() {
    let env = vec![("DOCKER_HOST".to_owned(), "unix:///nowhere/docker.sock".to_owned())];
    let platform = Platform::start(Options { env, ..Options::default() });
    let home = platform.scratch().join("another");
    let up = ["up", "--backend", "docker", "--home", home.to_str().unwrap()];
    let refused = platform.cli(up);
    assert_eq!(refused.status, 5, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("docker_unavailable") && refused.stderr.contains("/nowhere/docker.sock"),
        "{}",
        refused.stderr
    );
    assert!(!home.try_exists().unwrap());
}
