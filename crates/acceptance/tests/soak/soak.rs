//! One run: a command, a kill at some moment of it, and what came of both; over and over.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::time::Duration;

use berth_acceptance::load::{Http2, Load, Options as LoadOptions};
use berth_acceptance::{Actor, Answer, Chance, Platform, Running, Source, User, Victim, another, wait_until};
use serde_json::Value;

use crate::record::{Killed, Record};

/// What a busy machine is given for one step before the test says that it hangs.
const PATIENCE: Duration = Duration::from_secs(120);
/// Connections of HTTP/1.1; those of HTTP/2, and the streams of each of them.
const CONNECTIONS: u32 = 32;
const HTTP2: (u32, u32) = (4, 8);
/// How many requests may pass between a command and the kill: about as long as a deploy that builds.
const MOMENTS: usize = 200;
const INSTANCES: usize = 2;
/// The app to which event streams, WebSockets and slow uploads lead.
const LASTING: &str = "lasting";

/// What can be asked of a platform that has an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Order {
    DeployChanged,
    DeployUnchanged,
    SetConfig,
    RollBack,
    /// Two at once, of which the second may take the first one's place.
    DeployAndSetConfig,
    /// A release of the app with the sessions that last.
    DeployLasting,
    /// The platform becomes another program.
    Upgrade,
}

impl Order {
    const ALL: [Self; 7] = [
        Self::DeployChanged,
        Self::DeployUnchanged,
        Self::SetConfig,
        Self::RollBack,
        Self::DeployAndSetConfig,
        Self::DeployLasting,
        Self::Upgrade,
    ];
}

/// A run.
#[derive(Debug)]
pub(crate) struct Soak {
    platform: Platform,
    source: Source,
    load: Load,
    chance: Chance,
    deck: Vec<Victim>,
    orders: Vec<Order>,
    given: BTreeMap<Order, u64>,
    user: User,
    config: u64,
    record: Record,
}

impl Soak {
    /// Two apps that serve, under load: so many requests in a second to the one, and sessions that last to the other.
    pub(crate) fn begin(platform: Platform, user: User, seed: u64, rate: u32) -> Self {
        let source = Source::for_user(&platform, user);
        let _deployed = platform.cli(["deploy".as_ref(), source.path().as_os_str()]).ok();
        let _scaled = platform.cli(["scale", &format!("web={INSTANCES}"), "--app", Source::APP]).ok();
        let lasting = Actor::web(&platform, LASTING, "serve");
        let _deployed = lasting.deploy().ok();
        let _scaled = lasting.verb(&["scale", &format!("web={INSTANCES}")]).ok();
        let load = Load::start(LoadOptions {
            rate,
            connections: CONNECTIONS,
            http2: Some(Http2 {
                edge: platform.https().expect("edge serves HTTPS"),
                authority: platform.cli(["certs", "ca"]).ok().stdout,
                connections: HTTP2.0,
                streams: HTTP2.1,
            }),
            lasting: Some(format!("{LASTING}.localhost")),
            ..LoadOptions::new(platform.edge(), Source::APP)
        });
        let mut soak = Self {
            platform,
            source,
            load,
            chance: Chance::new(seed),
            deck: Vec::new(),
            orders: Vec::new(),
            given: BTreeMap::new(),
            user,
            config: 0,
            record: Record::default(),
        };
        let _first = soak.settle(Duration::ZERO);
        wait_for_instances(&soak.platform);
        // A second release, so that there is one to go back to whatever comes first.
        let begun = soak.load.now();
        let answer = soak.set_config().wait();
        soak.judge(&answer, begun);
        let _second = soak.settle(begun);
        soak
    }

    /// How many releases the platform has said to have made.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.record.acknowledged.len().try_into().unwrap()
    }

    /// A command, a kill, and both their ends.
    pub(crate) fn step(&mut self) {
        let victim = self.draw_victim();
        let order = if victim == Victim::Build { Order::DeployChanged } else { self.draw_order() };
        let begun = self.load.now();
        let mut running = self.give(order);
        let struck = self.strike(victim, &mut running[0]);
        // While one recovers, another may be hit.
        if self.chance.below(3) == 0 {
            let other = self.draw_victim();
            let _also_struck = self.strike(other, &mut running[0]);
        }
        let answers: Vec<Answer> = running.into_iter().map(Running::wait).collect();
        println!(
            "{begun:?} {order:?}, {victim} {}: exit {:?} after {:?}",
            if struck { "killed" } else { "not there" },
            answers.iter().map(|answer| answer.status).collect::<Vec<_>>(),
            self.load.now() - begun
        );
        for answer in &answers {
            match order {
                Order::DeployLasting => self.judge_lasting(answer, begun),
                Order::Upgrade => self.judge_upgrade(answer, begun),
                _ => self.judge(answer, begun),
            }
        }
        let states = self.settle(begun);
        let failed = states.iter().filter(|state| *state == "failed").count();
        assert!(failed == 0 || self.was_killed_since(Victim::Build, begun), "{states:?}: {answers:?}");
        // Now and then the next command meets a platform that still recovers.
        if self.chance.below(3) > 0 {
            wait_for_instances(&self.platform);
        }
    }

    /// Every kind as often as every other, in an order of chance.
    fn draw_victim(&mut self) -> Victim {
        if self.deck.is_empty() {
            self.deck.extend(Victim::ALL);
            // An ordinary user's source is built already.
            self.deck.retain(|victim| *victim != Victim::Build || self.user == User::Own);
        }
        self.chance.take(&mut self.deck).unwrap()
    }

    fn draw_order(&mut self) -> Order {
        if self.orders.is_empty() {
            self.orders.extend(Order::ALL);
        }
        self.chance.take(&mut self.orders).unwrap()
    }

    fn give(&mut self, order: Order) -> Vec<Running> {
        *self.given.entry(order).or_default() += 1;
        match order {
            Order::DeployChanged => {
                self.source.change();
                vec![self.deploy()]
            }
            Order::DeployUnchanged => vec![self.deploy()],
            Order::SetConfig => vec![self.set_config()],
            Order::RollBack => vec![self.begin_verb(["rollback"])],
            Order::DeployAndSetConfig => {
                self.source.change();
                vec![self.deploy(), self.set_config()]
            }
            Order::DeployLasting => {
                let lasting = self.platform.scratch().join(LASTING);
                vec![self.platform.begin([OsString::from("deploy"), lasting.into()])]
            }
            Order::Upgrade => {
                // Two take turns, so that no copy is written to while it runs.
                let turn = self.given[&order] % 2;
                let program =
                    another(&self.platform, &format!("program-{turn}"), &self.given[&order].to_string());
                vec![self.platform.begin(["upgrade".into(), "--from".into(), program.into_os_string()])]
            }
        }
    }

    fn deploy(&self) -> Running {
        self.begin_verb(["deploy".into(), self.source.path().as_os_str().to_owned()])
    }

    fn set_config(&mut self) -> Running {
        self.config += 1;
        self.begin_verb(["config", "set", &format!("SOAK={}", self.config)])
    }

    fn begin_verb<A: Into<OsString>>(&self, words: impl IntoIterator<Item = A>) -> Running {
        let words = words.into_iter().map(Into::into);
        self.platform.begin(words.chain(["--app", Source::APP, "--json"].map(OsString::from)))
    }

    /// Kills one of this kind at a moment of chance; says whether there was one.
    fn strike(&mut self, victim: Victim, running: &mut Running) -> bool {
        // A build is there for a moment only, so it is met where it begins.
        let span = if victim == Victim::Build { 1 } else { MOMENTS };
        let moment = self.load.begun() + u64::try_from(self.chance.below(span)).unwrap();
        assert!(wait_until(PATIENCE, || self.load.begun() >= moment), "the load stands still");
        let mut prey = Vec::new();
        let _found = wait_until(PATIENCE, || {
            prey = self.platform.prey(victim);
            // What else is not there now is being replaced.
            !prey.is_empty() || victim != Victim::Build || running.has_ended()
        });
        let Some(prey) = self.chance.take(&mut prey) else { return false };
        let (pid, at) = (prey.pid, self.load.now());
        let connections = (victim == Victim::Edge).then(|| prey.stop());
        if !prey.kill() {
            return false;
        }
        self.record.kills.push(Killed { victim, pid, at, ended: self.load.now(), lost: false, connections });
        if victim == Victim::Supervisor {
            let before = self.platform.log("supervisor");
            self.platform.start_again();
            let log = self.platform.log("supervisor");
            // One that is about to end, or drains, is found, too, and has none.
            if !log.get(before.len()..).unwrap_or(&log).contains("an orphaned edge handed its listeners over")
            {
                self.record.listeners_were_lost(last_edge(&before), self.load.now());
            }
        }
        true
    }

    /// Takes note of what was acknowledged; panics when a command failed by anything but a kill that may have failed it.
    fn judge(&mut self, answer: &Answer, begun: Duration) {
        match answer.status {
            // Done, failed as the deployment has, superseded: all of them name the release.
            0 | 1 | 6 if !answer.stdout.is_empty() => {
                let number = answer.json()["release"]["number"].as_u64();
                self.record.acknowledged.insert(number.unwrap_or_else(|| panic!("no release: {answer:?}")));
            }
            // There was nobody to be reached, and it may have been made all the same.
            5 if self.was_killed_since(Victim::Supervisor, begun) => {}
            _ => panic!("{answer:?}\n{}", logs(&self.platform)),
        }
    }

    /// Panics when a command whose release nobody counts failed for another reason than that there was nobody to be reached.
    fn judge_lasting(&self, answer: &Answer, begun: Duration) {
        let excused = answer.status == 5 && self.was_killed_since(Victim::Supervisor, begun);
        assert!(answer.status == 0 || excused, "{answer:?}\n{}", logs(&self.platform));
    }

    /// Panics when the platform did not become another program although all of what that takes lived.
    fn judge_upgrade(&self, answer: &Answer, begun: Duration) {
        let parts = [Victim::Supervisor, Victim::Control, Victim::Edge];
        let excused = parts.iter().any(|part| self.was_killed_since(*part, begun));
        assert!(answer.status == 0 || excused, "{answer:?}\n{}", logs(&self.platform));
    }

    fn was_killed_since(&self, victim: Victim, begun: Duration) -> bool {
        self.record.kills.iter().any(|kill| kill.victim == victim && kill.at >= begun)
    }

    /// Waits until no deployment is under way, and takes in those that have ended since. Gives their states.
    fn settle(&mut self, begun: Duration) -> Vec<String> {
        let (mut releases, mut lasting) = (Vec::new(), Vec::new());
        let settled = wait_until(PATIENCE, || {
            releases = self.releases(Source::APP);
            lasting = self.releases(LASTING);
            have_ended(&releases) && have_ended(&lasting)
        });
        assert!(settled, "a deployment does not end: {releases:?} {lasting:?}\n{}", logs(&self.platform));
        // Nothing is built for it, so that no kill excuses one that failed.
        assert!(lasting.iter().all(|release| release["state"] != "failed"), "{lasting:?}");
        self.record.take(&releases, begun, self.load.now())
    }

    /// Every release, newest first; none where the platform does not answer just now.
    fn releases(&self, app: &str) -> Vec<Value> {
        let answer = self.platform.cli(["releases", "-n", "100000", "--app", app, "--json"]);
        let list = if answer.status == 0 { answer.json() } else { Value::Null };
        list["releases"].as_array().cloned().unwrap_or_default()
    }

    /// Judges the whole run: what was served, what is kept, that it survives the death of everything, and that a replay of the
    /// log gives it again.
    pub(crate) fn finish(self) {
        wait_for_instances(&self.platform);
        let Self { mut platform, load, record, given, .. } = self;
        let outcome = load.stop();
        println!("{outcome}\n{given:?}\n{}", record.summary(&outcome));
        record.write(&outcome, &given);
        if let Some(first) = record.first_unmatched(&outcome) {
            println!("{first}\n{}\n{}", platform.log("supervisor"), without_requests(&platform.log("edge")));
        }
        record.assert_served(&outcome);
        for victim in [Victim::Control, Victim::Edge] {
            let one = || platform.role(&victim.to_string()).len() == 1;
            assert!(wait_until(PATIENCE, one), "{victim}: {:?}", platform.role(&victim.to_string()));
        }
        let kept = state(&platform);
        record.assert_kept(kept[1]["releases"].as_array().unwrap());

        for victim in [Victim::Supervisor, Victim::Control, Victim::Edge, Victim::Shim] {
            for prey in platform.prey(victim) {
                // Control dies with its supervisor.
                let _was_alive = prey.kill();
            }
        }
        platform.start_again();
        assert_eq!(state(&platform), kept, "not everything survived");
        wait_for_instances(&platform);

        let _down = platform.cli(["down"]).ok();
        assert_eq!(platform.wait(), Some(0));
        for entry in fs::read_dir(platform.home().join("journal")).unwrap().flatten() {
            if entry.file_name().to_string_lossy().starts_with("snapshot") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        platform.start_again();
        assert_eq!(state(&platform), kept, "a replay gives another state");
        let _down = platform.cli(["down"]).ok();
        assert_eq!(platform.wait(), Some(0));
    }
}

/// Whether there are any, and none is under way.
fn have_ended(releases: &[Value]) -> bool {
    const ENDS: [&str; 4] = ["active", "retired", "failed", "superseded"];
    !releases.is_empty() && releases.iter().all(|release| ENDS.iter().any(|end| release["state"] == **end))
}

/// Waits until the active releases have all their instances.
fn wait_for_instances(platform: &Platform) {
    for app in [Source::APP, LASTING] {
        wait_for_instances_of(platform, app);
    }
}

fn wait_for_instances_of(platform: &Platform, app: &str) {
    let mut seen = Value::Null;
    let there = wait_until(PATIENCE, || {
        let answer = platform.cli(["ps", "--app", app, "--json"]);
        if answer.status != 0 {
            return false;
        }
        seen = answer.json();
        let instances = seen["instances"].as_array().unwrap();
        instances.iter().filter(|instance| instance["state"] == "ready").count() == INSTANCES
    });
    assert!(there, "the app does not recover: {seen}\n{}", logs(platform));
}

fn logs(platform: &Platform) -> String {
    ["supervisor", "control", "edge"].map(|role| platform.log(role)).join("\n")
}

/// The last edge that was started, as a supervisor's log says it.
fn last_edge(log: &str) -> Option<u32> {
    let (_, rest) = log.rsplit_once("started role=edge pid=")?;
    rest.lines().next()?.trim().parse().ok()
}

/// What edge says of itself, in a log that has a line for each request too.
fn without_requests(log: &str) -> String {
    let of_itself =
        |line: &&str| [" INFO ", " WARN ", " ERROR ", "panicked"].iter().any(|word| line.contains(word));
    log.lines().filter(of_itself).collect::<Vec<_>>().join("\n")
}

/// What the journal alone decides: the apps, their releases, their configuration.
fn state(platform: &Platform) -> [Value; 4] {
    let ask = |words: &[&str]| platform.cli(words.iter().chain(&["--json"])).ok().json();
    let mut apps = ask(&["apps"]);
    forget_the_present(&mut apps);
    [
        apps,
        ask(&["releases", "-n", "100000", "--app", Source::APP]),
        ask(&["config", "--app", Source::APP]),
        ask(&["scale", "--app", Source::APP]),
    ]
}

/// Takes away how many instances run just now, and with it the word for that.
fn forget_the_present(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !["running", "state"].contains(&name.as_str()));
            fields.values_mut().for_each(forget_the_present);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_the_present),
        _ => {}
    }
}
