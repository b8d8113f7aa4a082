//! Docker's daemon is killed, stopped and started again under a platform whose instances are in containers of it.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::time::Duration;

use berth_acceptance::load::{Load, Options as LoadOptions};
use berth_acceptance::{Answer, Options, Platform, Source, exchange, wait_until};
use berth_docker::Engine;
use berth_docker::testing::LoneDaemon;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(120);
const AWAY: &str = "which does not answer";

/// A platform in containers of a daemon of its own. The platform goes first, so that it finds the daemon.
struct Stage {
    platform: Platform,
    daemon: LoneDaemon,
    _home: tempfile::TempDir,
}

impl Stage {
    /// `None`, said aloud, where there can be none.
    #[expect(clippy::print_stdout, reason = "what was not tested must not look as if it had been")]
    fn set(live_restore: bool) -> Option<Self> {
        let home = tempfile::Builder::new().prefix("berth-docker-").tempdir().unwrap();
        let daemon = match LoneDaemon::start(home.path(), live_restore) {
            Ok(daemon) => daemon,
            Err(why) => {
                println!("!! NOT TESTED: {why}");
                return None;
            }
        };
        let env = vec![("DOCKER_HOST".to_owned(), format!("unix://{}", daemon.socket.display()))];
        let platform = Platform::start(Options { backend: Some("docker"), env, ..Options::default() });
        Some(Self { platform, daemon, _home: home })
    }

    fn status(&self) -> Answer {
        self.platform.cli(["status"])
    }

    /// Waits until `berth status` says that the daemon is away, or says so no more.
    fn until_noticed(&self, away: bool) {
        let noticed = || {
            let status = self.status();
            status.status == 0 && status.stdout.contains(AWAY) == away
        };
        assert!(wait_until(PATIENCE, noticed), "{} {}", self.status().stdout, self.platform.log("control"));
    }

    /// The instances of the app by their names, with their process ids where they run.
    fn instances(&self) -> Vec<(String, Option<u64>)> {
        let listed = self.platform.cli(["ps", "--app", Source::APP, "--json"]).ok().json();
        let listed = listed.as_array().or_else(|| listed["instances"].as_array()).unwrap().clone();
        let instance = |it: &Value| (it["id"].to_string(), it["pid"].as_u64());
        let mut instances: Vec<_> = listed.iter().map(instance).collect();
        instances.sort();
        instances
    }

    fn containers(&self) -> usize {
        let status = self.platform.cli(["status", "--json"]).ok().json();
        let name = status["platform"].as_str().unwrap().to_owned();
        Engine::connect(&self.daemon.socket).unwrap().containers("berth.platform", &name).unwrap().len()
    }

    /// Waits until there is a container for each instance, all of them run, and there is no container beside these.
    fn until_whole(&self) {
        let whole = || {
            let instances = self.instances();
            instances.iter().all(|(_, pid)| pid.is_some()) && self.containers() == instances.len()
        };
        assert!(
            wait_until(PATIENCE, whole),
            "{:?}, {} containers; {}",
            self.instances(),
            self.containers(),
            self.platform.log("control")
        );
    }

    fn answers(&self) -> bool {
        let request =
            format!("GET /version HTTP/1.1\r\nHost: {}.localhost\r\nConnection: close\r\n\r\n", Source::APP);
        exchange(self.platform.edge(), request.as_bytes()).is_ok_and(|reply| reply.status == 200)
    }

    /// A new release cannot be started, says why, and leaves nothing.
    fn a_deploy_fails(&self) {
        let before = self.instances();
        let failed = self.platform.cli(["config", "set", "--app", Source::APP, "WHEN=away"]);
        let said = format!("{}{}", failed.stdout, failed.stderr);
        assert!(failed.status == 1 && said.contains("docker_unavailable"), "{said}");
        assert!(said.contains(&self.daemon.socket.display().to_string()), "{said}");
        let same = || self.instances().len() == before.len();
        assert!(wait_until(PATIENCE, same), "{before:?} {:?}", self.instances());
    }
}

#[test]
fn with_live_restore_apps_go_on_while_the_daemon_is_killed_and_are_adopted() {
    let Some(mut stage) = Stage::set(true) else { return };
    let mut source = Source::built(&stage.platform);
    let deploy = |stage: &Stage, source: &Source| {
        let _released = stage.platform.cli(["deploy".as_ref(), source.path().as_os_str()]).ok();
    };
    deploy(&stage, &source);
    source.change();
    deploy(&stage, &source);
    stage.until_whole();
    let before = stage.instances();
    let load = Load::start(LoadOptions { rate: 50, ..LoadOptions::new(stage.platform.edge(), Source::APP) });

    stage.daemon.kill();
    stage.until_noticed(true);
    let doctor = stage.platform.cli(["doctor"]).stdout;
    assert!(doctor.contains("Docker does not answer at"), "{doctor}");
    assert_eq!(stage.instances(), before);
    stage.a_deploy_fails();
    // What needs no new instance needs no daemon.
    let _back = stage.platform.cli(["rollback", "--app", Source::APP]).ok();
    assert!(stage.answers());

    // A control that dies meanwhile is back with the daemon. Until then the instances are nobody's, and nothing happens to them.
    let control = stage.platform.role("control");
    stage.platform.kill(control[0]);
    stage.daemon.start_again().unwrap();
    let back = || stage.platform.role("control") != control && stage.status().status == 0;
    assert!(wait_until(PATIENCE, back), "{}", stage.platform.log("supervisor"));
    stage.until_noticed(false);
    assert!(wait_until(PATIENCE, || stage.instances() == before), "{before:?} {:?}", stage.instances());
    stage.until_whole();

    // Once more, with a control that lives through it.
    stage.daemon.kill();
    stage.until_noticed(true);
    stage.daemon.start_again().unwrap();
    stage.until_noticed(false);
    assert_eq!(stage.instances(), before);
    let _set = stage.platform.cli(["config", "set", "--app", Source::APP, "WHEN=after"]).ok();
    stage.until_whole();
    let enough = load.begun() + 50;
    assert!(wait_until(PATIENCE, || load.begun() >= enough));
    let outcome = load.stop();
    assert!(outcome.failed.is_empty() && outcome.samples.len() > 50, "{outcome}");
}

#[test]
fn without_live_restore_what_the_daemon_took_along_is_started_again_when_it_is_back() {
    let Some(mut stage) = Stage::set(false) else { return };
    let source = Source::built(&stage.platform);
    let _released = stage.platform.cli(["deploy".as_ref(), source.path().as_os_str()]).ok();
    stage.until_whole();
    let before = stage.instances();

    // It ends its containers on its way.
    stage.daemon.stop();
    stage.until_noticed(true);
    let lost = || stage.instances().iter().all(|(_, pid)| pid.is_none());
    assert!(wait_until(PATIENCE, lost), "{:?}", stage.instances());
    stage.a_deploy_fails();
    stage.daemon.start_again().unwrap();
    stage.until_noticed(false);
    assert!(wait_until(PATIENCE, || stage.answers()), "{}", stage.platform.log("control"));
    stage.until_whole();
    assert_ne!(stage.instances(), before);
    let told = stage.platform.cli(["timeline", "--app", Source::APP]).ok().stdout;
    assert!(told.contains("was lost"), "{told}");

    // Killed it has no time for that, and ends those that it finds when it comes back.
    let before = stage.instances();
    stage.daemon.kill();
    stage.until_noticed(true);
    assert!(stage.answers());
    assert_eq!(stage.instances(), before);
    stage.daemon.start_again().unwrap();
    stage.until_noticed(false);
    let replaced = || stage.answers() && stage.instances() != before;
    assert!(wait_until(PATIENCE, replaced), "{:?} {}", stage.instances(), stage.platform.log("control"));
    stage.until_whole();
    let _set = stage.platform.cli(["config", "set", "--app", Source::APP, "WHEN=after"]).ok();
    stage.until_whole();
}
