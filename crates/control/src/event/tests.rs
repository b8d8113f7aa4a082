//! The written form of every kind of event, held against `contracts/events/`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use berth_rollout::{Difference, Side, Verdict};
use berth_spec::manifest::{Manifest, Strategy};
use berth_spec::{Gate, Timestamp};
use serde::{Deserialize, Serialize};

use super::*;
use crate::fold::Stamp;
use crate::scene::{artifact, shop, v, web, worker};
use crate::state::{Life, State};

/// A sample as `contracts/events/` keeps it.
#[derive(Debug, Serialize, Deserialize)]
struct Sample {
    stream: String,
    event: serde_json::Value,
}

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contracts/events")
}

/// The kinds that the code knows, read where it names them: the compiler sees to it that none is missing there.
fn kinds() -> Vec<&'static str> {
    let source = include_str!("../event.rs");
    let (_, names) = source.split_once("pub fn kind(&self)").unwrap();
    let (names, _) = names.split_once("pub fn encode").unwrap();
    names.lines().filter_map(|line| line.split_once("=> \"")?.1.split('"').next()).collect()
}

fn env(name: &str) -> EnvName {
    name.parse().unwrap()
}

pub(crate) fn submitted(number: u64, reason: Reason, artifact: Option<Artifact>) -> Event {
    let text = "app = \"shop\"\n[processes]\nweb = \"bin/server --port $PORT\"\nworker = \"bin/worker\"\n\
                [deploy]\nrelease_command = \"bin/migrate\"\nstrategy = \"rolling\"\n[http]\nhosts = [\"shop.example.com\"]\n";
    let manifest = Manifest::parse(text).unwrap();
    assert_eq!(manifest.deploy.strategy, Some(Strategy::Rolling));
    Event::ReleaseSubmitted(Box::new(ReleaseSubmitted {
        number: v(number),
        reason,
        tree: format!("t{}", "5e".repeat(32)),
        manifest,
        artifact,
        config: [(env("LOG_LEVEL"), "info".to_owned())].into(),
        secrets: [(env("API_KEY"), 1)].into(),
        description: Some("the checkout in two steps".to_owned()),
        commit: Some("9fceb02d0ae598e95dc970b74767f19372d61af8".to_owned()),
    }))
}

fn certificate_stored() -> CertificateChange {
    CertificateChange::Stored {
        certificate: crate::certificate::Certificate {
            id: "ab".repeat(32),
            hosts: ["shop.example.com".parse().unwrap()].into(),
            chain: "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n".to_owned(),
            key: "AQ".to_owned(),
            not_before: Timestamp(1_795_233_000_000),
            not_after: Timestamp(1_803_009_000_000),
            issuer: "Example CA R1".to_owned(),
            origin: crate::certificate::Origin::Acme,
            server: Some("https://acme.example.com/directory".to_owned()),
        },
    }
}

pub(crate) fn platform_samples() -> Vec<Event> {
    let tenant: TenantId = "acme".parse().unwrap();
    let project: ProjectId = "acme/shops".parse().unwrap();
    let grants = vec![
        Grant::Platform,
        Grant::Tenant { tenant: tenant.clone() },
        Grant::Project { project: project.clone() },
    ];
    vec![
        Event::TenantCreated { tenant },
        Event::ProjectCreated { project },
        Event::TokenIssued { token: "ci".to_owned(), sha256: "ab".repeat(32), grants },
        Event::TokenRevoked { token: "ci".to_owned() },
        Event::CertificatesChanged { change: Box::new(certificate_stored()) },
        Event::InvariantBroken {
            invariant: "RTE-1".to_owned(),
            detail: "acme/shops/shop instance 7 was to be stopped while edge may still reach it".to_owned(),
        },
    ]
}

/// An artifact as a recipe makes it, with all that its processes find.
fn by_recipe(artifact: Artifact) -> Artifact {
    Artifact {
        why: vec!["there is a requirements.txt".to_owned()],
        env: [("VIRTUAL_ENV".to_owned(), "$ARTIFACT/.venv".to_owned())].into(),
        path: vec![RelativeDir::new(".venv/bin").unwrap()],
        tools: vec!["/var/lib/berth/builds/.toolchains/python3-3.12.1-0f0f/bin".to_owned()],
        release_command: Some(Command::Argv(vec!["python".to_owned(), "manage.py".to_owned()])),
        ..artifact
    }
}

/// An artifact that is an image, of which nothing was built.
fn of_image(artifact: Artifact, health_path: Option<&str>) -> Artifact {
    let digest = format!("sha256:{}", "5e".repeat(32));
    let image = Image {
        reference: format!("registry.example.com/shop:1.4@{digest}"),
        manifest: digest,
        user: "app".to_owned(),
        workdir: "/srv".to_owned(),
        port: Some(8080),
        stop_signal: Some(3),
        health_path: health_path.map(str::to_owned),
        check: None,
    };
    Artifact { image: Some(Box::new(image)), ..artifact }
}

/// The same, with a check that is a command.
fn with_check(artifact: Artifact) -> Artifact {
    let check = ImageCheck {
        command: ["pg_isready", "-q"].map(str::to_owned).to_vec(),
        interval: Millis(30_000),
        timeout: Millis(5_000),
        start_period: Millis(60_000),
        start_interval: Millis(1_000),
        retries: 3,
    };
    let image = artifact.image.map(|image| Box::new(Image { check: Some(check), ..*image }));
    Artifact { image, ..artifact }
}

fn release_samples() -> Vec<Event> {
    let built = || artifact("a-5e5e", &["web", "worker"]);
    let failure = Failure {
        detail: vec![
            "web.2 runs and listens on port 20002".to_owned(),
            "web.2: GET /healthz: 500".to_owned(),
        ],
        ..Failure::new("health_check_failed", "the release was not ready within 10m")
    };
    let crashed = Failure {
        log: vec!["KeyError: 'DATABASE_URL'".to_owned()],
        next: Some("`berth config set DATABASE_URL=...`".to_owned()),
        ..Failure::new("crashed_at_start", "web.2 exited 3 times before it was ready")
    };
    let rollback = |keep_config| Reason::Rollback { of: v(1), keep_config };
    vec![
        submitted(1, Reason::Deploy, None),
        submitted(2, Reason::Config, Some(built())),
        submitted(3, Reason::Secrets, Some(built())),
        submitted(4, rollback(false), Some(built())),
        submitted(5, rollback(true), Some(built())),
        Event::ReleaseBuilt { number: v(1), artifact: built() },
        Event::ReleaseBuilt { number: v(2), artifact: by_recipe(built()) },
        Event::ReleaseBuilt { number: v(3), artifact: of_image(built(), None) },
        Event::ReleaseBuilt { number: v(3), artifact: of_image(built(), Some("/up")) },
        Event::ReleaseBuilt { number: v(3), artifact: with_check(of_image(built(), None)) },
        Event::ActivationBegan { number: v(1) },
        Event::ReleaseCommandFinished { number: v(1) },
        Event::ProcessesHandedOver { number: v(1), processes: [web(), worker()].into() },
        Event::ReleaseActivated { number: v(1), previous: None },
        Event::ReleaseFailed { number: v(2), failure },
        Event::ReleaseFailed { number: v(2), failure: crashed },
        Event::ReleaseSuperseded { number: v(3), by: v(4) },
        Event::ReleaseActivated { number: v(4), previous: Some(v(1)) },
    ]
}

fn instance_samples() -> Vec<Event> {
    let assigned = |ordinal, process| Event::InstanceAssigned {
        ordinal,
        process,
        release: v(1),
        token: format!("{ordinal:032x}"),
    };
    let exit = |status, signal| Exit { status, signal, after: Millis(73_412), oom: None, unhealthy: false };
    let mut samples: Vec<Event> = (1..=5).map(|ordinal| assigned(ordinal, web())).collect();
    samples.push(assigned(6, worker()));
    samples.extend([
        Event::InstanceStarted { ordinal: 1, port: Some(20_417), dialer: None },
        Event::InstanceStarted { ordinal: 2, port: Some(8_080), dialer: Some("0000000000ab".to_owned()) },
        Event::InstanceStarted { ordinal: 6, port: None, dialer: None },
        Event::Routed { ordinals: [1].into() },
        Event::InstanceExited { ordinal: 1, exit: exit(Some(1), None), more: 0 },
        Event::InstanceExited { ordinal: 1, exit: exit(None, Some(9)), more: 17 },
        Event::InstanceExited { ordinal: 1, exit: Exit { oom: Some(true), ..exit(None, Some(9)) }, more: 0 },
        Event::InstancesAdopted { number: v(4), ordinals: [1].into() },
        Event::InstanceExited { ordinal: 6, exit: Exit { unhealthy: true, ..exit(None, Some(15)) }, more: 0 },
    ]);
    let stops = [
        StopReason::Retired,
        StopReason::ReleaseFailed,
        StopReason::ScaledDown,
        StopReason::Replaced,
        StopReason::Destroyed,
        StopReason::VolumeWork,
        StopReason::Asleep,
    ];
    samples.extend((2..).zip(stops).map(|(ordinal, why)| Event::InstanceStopping { ordinal, why }));
    let causes = [
        GoneCause::Stopped,
        GoneCause::Lost,
        GoneCause::NotStarted { detail: "no space left on device".to_owned() },
        GoneCause::PlatformDown,
    ];
    samples.extend((2..).zip(causes).map(|(ordinal, cause)| Event::InstanceGone { ordinal, cause }));
    samples
}

fn run_samples() -> Vec<Event> {
    let modes =
        [RunMode::Attached { terminal: true }, RunMode::Attached { terminal: false }, RunMode::Detached];
    let assigned = (1..).zip(modes).map(|(run, mode)| Event::RunAssigned {
        run,
        release: v(4),
        command: Command::Argv(vec!["bin/migrate".to_owned(), "--all".to_owned()]),
        variables: [env("DEBUG")].into(),
        mode,
        limit: Millis(86_400_000),
        token: format!("{run:032x}"),
        cron: None,
        within: None,
    });
    let exit = Exit { status: Some(3), signal: None, after: Millis(1_050), oom: None, unhealthy: false };
    let whys = [
        RunStop::Unattended,
        RunStop::TimeOver,
        RunStop::Destroyed,
        RunStop::PlatformDown,
        RunStop::NotStarted,
        RunStop::Lost,
        RunStop::Replaced,
    ];
    let failed = RunEnd { exit: Some(exit), why: None, detail: vec!["no such table: users".to_owned()] };
    let cron = |run, due, missed, replaces: &[RunNumber]| Event::RunAssigned {
        run,
        release: v(4),
        command: Command::Line("bin/nightly --all".to_owned()),
        variables: BTreeSet::new(),
        mode: RunMode::Detached,
        limit: Millis(86_400_000),
        token: format!("{run:032x}"),
        cron: Some(CronRun { entry: nightly(), due, missed, replaces: replaces.iter().copied().collect() }),
        within: None,
    };
    let within = Event::RunAssigned {
        run: 6,
        release: v(4),
        command: Command::Line("ps".to_owned()),
        variables: BTreeSet::new(),
        mode: RunMode::Attached { terminal: true },
        limit: Millis(86_400_000),
        token: format!("{:032x}", 6),
        cron: None,
        within: Some(2),
    };
    let by_schedule =
        [cron(4, Some(Timestamp(1_767_236_400_000)), 2, &[3]), cron(5, None, 0, &[])].into_iter();
    let assigned = assigned.chain(by_schedule).chain([within]);
    let ended = [failed].into_iter().chain(whys.map(RunEnd::stopped));
    assigned.chain((1..).zip(ended).map(|(run, end)| Event::RunEnded { run, end })).collect()
}

fn nightly() -> CronName {
    "nightly".parse().unwrap()
}

fn cron_samples() -> Vec<Event> {
    let whys = [CronSkip::TooLate, CronSkip::StillRunning { run: 4 }, CronSkip::TooMany];
    let skipped = whys.map(|why| Event::CronSkipped {
        entry: nightly(),
        due: Timestamp(1_767_236_400_000),
        why,
        missed: 3,
    });
    skipped.into_iter().chain([Event::CronSetBack { to: Timestamp(1_767_236_400_000) }]).collect()
}

fn sleep_samples() -> Vec<Event> {
    let mut samples = Vec::new();
    samples.extend(
        [Depth::Frozen, Depth::Stopped].map(|depth| Event::AppSlept { depth, idle: Millis(600_000) }),
    );
    let whys = [WakeReason::Requested, WakeReason::Deployed, WakeReason::ScaledDown, WakeReason::VolumeWork];
    samples.extend(whys.map(|why| Event::AppWoken { why, ordinals: [1].into() }));
    samples
}

/// The life of an app, with every kind and every variant in it.
pub(crate) fn app_samples() -> Vec<Event> {
    let sealed = SealedSecret { version: 1, sealed: "c2VhbGVk".to_owned() };
    let mut samples = vec![
        Event::AppCreated { slot: 0 },
        Event::ConfigChanged {
            set: [(env("LOG_LEVEL"), "info".to_owned())].into(),
            unset: [env("DEBUG")].into(),
        },
        Event::SecretsChanged { set: [(env("API_KEY"), sealed)].into(), unset: [env("OLD_KEY")].into() },
        Event::ScaleChanged { processes: [(web(), 2), (worker(), 1)].into() },
        Event::GateChanged { gate: Gate::Maintenance },
        Event::GateChanged { gate: Gate::Open },
        Event::DomainsChanged {
            added: ["*.shop.example.com", "xn--bcher-kva.example"].map(|host| host.parse().unwrap()).into(),
            removed: ["old.example.com".parse().unwrap()].into(),
        },
        Event::GitChanged {
            git: GitSettings {
                branch: Some("release/2.x".parse().unwrap()),
                connection: Some(GitConnection {
                    hook: "0f9a1c2e3b4d5f60".to_owned(),
                    url: "https://git.example.com/acme/shop.git".to_owned(),
                    token: Some("AQ".to_owned()),
                }),
            },
        },
        Event::GitChanged { git: GitSettings::default() },
        Event::HookFailed {
            branch: "main".to_owned(),
            failure: Failure {
                code: "clone_failed".to_owned(),
                summary: "git fetch failed: could not resolve host".to_owned(),
                detail: Vec::new(),
                log: Vec::new(),
                next: Some("look at the address".to_owned()),
            },
        },
    ];
    samples.extend(release_samples());
    samples.extend(traffic_samples());
    samples.extend(instance_samples());
    let ends = [
        WarmEnd::Expired,
        WarmEnd::Displaced,
        WarmEnd::Used,
        WarmEnd::MemoryPressure,
        WarmEnd::SecretRevoked,
        WarmEnd::Gone,
    ];
    samples.extend(ends.map(|why| Event::WarmEnded { number: v(1), why }));
    samples.extend(run_samples());
    samples.extend(cron_samples());
    let snapshots = [None, Some("20261127T171530Z".parse().unwrap())];
    samples
        .extend(snapshots.map(|snapshot| Event::VolumeRemoved { volume: "data".parse().unwrap(), snapshot }));
    for what in [VolumeDeed::Snapshot, VolumeDeed::Restore] {
        let (volume, snapshot) = ("data".parse().unwrap(), "20261127T171530Z".parse().unwrap());
        let work = VolumeWork { volume, snapshot, what };
        let failure = Failure::new("disk_full", "the volume at /home/volumes/shop/data cannot be copied");
        samples.extend([
            Event::VolumeWorkBegan { work: work.clone() },
            Event::VolumeWorkEnded { work: work.clone(), failure: None },
            Event::VolumeWorkEnded { work, failure: Some(failure) },
        ]);
    }
    samples.extend(sleep_samples());
    samples.extend([false, true].map(|volumes| Event::AppDestroying { volumes }));
    samples.push(Event::AppDestroyed {});
    samples
}

fn traffic_samples() -> Vec<Event> {
    vec![
        Event::TrafficShifted {
            number: v(2),
            percent: 25,
            why: ShiftWhy::Step,
            evidence: Some(Evidence {
                verdict: Verdict::AsGood,
                seconds: 60,
                new: Side { requests: 150, errors: 0 },
                old: Side { requests: 2_850, errors: 3 },
                errors: Some(Difference { new: 0, old: 1_050, odds: 1, matters: false }),
                latency: Some(Difference { new: 92_160, old: 92_160, odds: 0, matters: false }),
            }),
        },
        Event::TrafficShifted { number: v(2), percent: 10, why: ShiftWhy::Asked, evidence: None },
        Event::TrafficShifted { number: v(2), percent: 100, why: ShiftWhy::Promoted, evidence: None },
    ]
}

fn by_kind() -> BTreeMap<&'static str, Vec<Sample>> {
    let mut samples: BTreeMap<&'static str, Vec<Sample>> = BTreeMap::new();
    let platform = platform_samples().into_iter().map(|event| (Stream::Platform, event));
    let app = app_samples().into_iter().map(|event| (Stream::App(shop()), event));
    for (stream, event) in platform.chain(app) {
        let written = serde_json::to_value(&event).unwrap();
        samples.entry(event.kind()).or_default().push(Sample { stream: stream.to_string(), event: written });
    }
    samples
}

fn write_missing() {
    std::fs::create_dir_all(folder()).unwrap();
    for (kind, samples) in by_kind() {
        let path = folder().join(format!("{kind}.v{}.json", Event::SCHEMA));
        if !path.try_exists().unwrap() {
            std::fs::write(path, serde_json::to_string_pretty(&samples).unwrap() + "\n").unwrap();
        }
    }
}

/// What was ever written is read, and folded in the order in which such events come.
#[test]
fn golden_events_decode_and_fold() {
    if std::env::var_os("BERTH_UPDATE_GOLDENS").is_some_and(|value| value == "1") {
        write_missing();
    }
    let mut read: BTreeMap<String, BTreeMap<u32, Vec<Sample>>> = BTreeMap::new();
    for entry in std::fs::read_dir(folder()).expect("`cargo xtask goldens --update` writes the samples") {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let (kind, schema) = name.strip_suffix(".json").and_then(|name| name.split_once(".v")).unwrap();
        let text = std::fs::read_to_string(folder().join(&name)).unwrap();
        let samples = serde_json::from_str(&text).unwrap();
        read.entry(kind.to_owned()).or_default().insert(schema.parse().unwrap(), samples);
    }
    let known: BTreeSet<&str> = kinds().into_iter().collect();
    let written: BTreeSet<&str> = read.keys().map(String::as_str).collect();
    assert_eq!(
        known, written,
        "each kind has a sample: `cargo xtask goldens --update` writes those that are missing"
    );

    let mut state = State::default();
    let order: Vec<&str> = kinds();
    for kind in order {
        for (&schema, samples) in &read[kind] {
            for sample in samples {
                let body = serde_json::to_vec(&sample.event).unwrap();
                let event = Event::decode(kind, schema, &body).unwrap();
                assert_eq!(event.kind(), kind);
                if schema == Event::SCHEMA {
                    let again: serde_json::Value = serde_json::from_slice(&event.encode()).unwrap();
                    assert_eq!(again, sample.event, "{kind} is written in another way now");
                }
                let position = state.position + 1;
                let stamp = Stamp { position, at: Timestamp(position), actor: "golden".to_owned() };
                state.apply(&sample.stream.parse().unwrap(), &event, &stamp);
            }
        }
    }
    let app = &state.apps[&shop()];
    assert_eq!((app.life, app.last_ordinal, app.next_number()), (Life::Destroyed, 6, v(6)));
    assert_eq!((app.version + state.platform.version, state.platform.breaches), (state.position, 1));
}

#[test]
fn a_newer_schema_and_what_is_no_event_are_refused() {
    let newer = Event::decode("app_destroyed", Event::SCHEMA + 1, b"{}").unwrap_err();
    assert!(matches!(newer, UnreadableEvent::Newer { .. }), "{newer}");
    for body in
        [&b"{"[..], b"{\"kind\":\"app_moved\",\"data\":{}}", b"{\"kind\":\"app_created\",\"data\":{}}"]
    {
        let malformed = Event::decode("app_created", 1, body).unwrap_err();
        assert!(matches!(malformed, UnreadableEvent::Malformed { .. }), "{malformed}");
    }
}

#[test]
fn a_stream_comes_back_from_its_text() {
    for stream in [Stream::Platform, Stream::App(shop())] {
        assert_eq!(stream.to_string().parse::<Stream>().unwrap(), stream);
    }
    for bad in ["", "app", "app/", "app/a/b", "apps/a/b/c", "platform "] {
        bad.parse::<Stream>().unwrap_err();
    }
}

#[test]
fn an_exit_reads_well() {
    let exit = |status, signal| {
        Exit { status, signal, after: Millis(1_050), oom: None, unhealthy: false }.to_string()
    };
    assert_eq!(exit(Some(3), None), "exited with status 3 after 1.050 s");
    assert_eq!(exit(None, Some(15)), "was ended by signal 15 after 1.050 s");
    assert!(exit(None, Some(9)).contains("memory"));
    assert_eq!(exit(None, None), "ended after 1.050 s");
    let starved =
        Exit { status: Some(1), signal: None, after: Millis(1_050), oom: Some(true), unhealthy: false };
    assert_eq!(
        starved.to_string(),
        "exited with status 1, after the kernel killed a process of it because memory ran out, after 1.050 s"
    );
}
