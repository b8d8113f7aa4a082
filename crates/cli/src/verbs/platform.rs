//! `status` and `down`.

use std::time::Duration;

use berth_contract::{AppState, ExitStatus, Isolation, Platform};

use super::Session;
use super::apps::apps_table;
use super::upgrade::uncommitted;
use super::volumes::sizes_in_words;
use crate::failure::Failure;
use crate::figures::{self, counted};

/// Between two looks whether the platform is gone.
const LOOK: Duration = Duration::from_millis(100);
/// How often to look: apps get 30 s to drain and 30 s to end unless their manifests say more, up to 300 s each.
const LOOKS: u32 = 6_600;

/// How many apps the status shows.
const SHOWN_MAX: usize = 20;

impl Session<'_> {
    pub(super) async fn status(&mut self) -> Result<ExitStatus, Failure> {
        let platform = self.client.platform().await?;
        self.show(&platform, |session| {
            session.facts(&facts(&platform))?;
            session.screen.line("")?;
            if platform.apps.is_empty() {
                return Ok(session.screen.line("no apps yet: `berth deploy` in a directory makes one")?);
            }
            let mut apps = platform.apps.clone();
            if apps.len() > SHOWN_MAX {
                // Those that need somebody's eye must not be among the ones that are left out.
                apps.sort_by_key(|app| AppState::ALL.iter().position(|state| *state == app.state));
                apps.truncate(SHOWN_MAX);
            }
            session.print(&apps_table(&apps))?;
            let left_out = platform.app_count.saturating_sub(apps.len() as u64);
            if left_out > 0 {
                let more = counted(left_out, "more app");
                session
                    .screen
                    .line(&format!("and {more}; `berth apps --sort state` lists those in trouble first"))?;
            }
            Ok(())
        })
    }

    pub(super) async fn down(&mut self) -> Result<ExitStatus, Failure> {
        if !self.client.is_there().await {
            self.report_down(0, "the platform is not running")?;
            return Ok(ExitStatus::Ok);
        }
        let down = self.client.platform_down().await?;
        self.hint(&format!("stopping {}, then the platform", counted(down.instances.into(), "instance")))?;
        for _ in 0..LOOKS {
            // The supervisor holds the socket until it ends as the last of all.
            if !self.client.is_there().await {
                self.report_down(down.instances, "the platform is down")?;
                return Ok(ExitStatus::Ok);
            }
            tokio::time::sleep(LOOK).await;
        }
        self.hint("the platform is still going down; see logs/platform/supervisor.log in its home")?;
        Ok(ExitStatus::Failed)
    }

    fn report_down(&mut self, instances: u32, text: &str) -> Result<(), Failure> {
        let value = serde_json::json!({ "down": true, "instances": instances });
        self.show(&value, |session| Ok(session.screen.line(text)?)).map(drop)
    }
}

fn facts(platform: &Platform) -> Vec<(&'static str, String)> {
    let level = match platform.isolation {
        Isolation::Plain => "plain",
        Isolation::Confined => "confined",
        Isolation::Namespaces => "namespaces",
        Isolation::Full => "full",
    };
    let more =
        if platform.isolation_missing.is_empty() { "" } else { "; `berth doctor` says what is missing" };
    let isolation = format!("{level}: {}{more}", platform.isolation_words);
    let limits = if platform.limits.is_empty() { "none".to_owned() } else { platform.limits.join(", ") };
    let roles: Vec<String> =
        platform.roles.iter().map(|role| format!("{} {}", role.name, role.pid)).collect();
    let cgroups =
        platform.cgroups.as_deref().unwrap_or("none: the system gives the platform no control group");
    let builds = platform.build_processes.map_or_else(
        || {
            "nothing counts their processes: no control group does, and they have no user of their own"
                .to_owned()
        },
        |most| format!("at most {most} processes each"),
    );
    // A platform before this version does not say.
    let network = Some(&platform.build_network).filter(|network| !network.is_empty());
    let builds =
        network.map_or_else(|| builds.clone(), |network| format!("{builds}; their network: {network}"));
    let mut facts = vec![
        ("platform", format!("{} (berth {})", platform.platform, platform.version)),
        ("home", platform.home.clone()),
        ("apps at", apps_at(platform)),
        ("api", format!("http://{}", platform.api)),
        ("processes", roles.join(", ")),
        ("isolation", isolation),
        ("cgroups", cgroups.to_owned()),
        ("limits on", limits),
        ("builds", builds),
        ("up for", figures::coarse(platform.uptime_ms)),
    ];
    if platform.backend.starts_with("docker") {
        // The daemon makes them.
        facts.retain(|(name, _)| *name != "cgroups");
        let place = facts.iter().position(|(name, _)| *name == "isolation").unwrap_or(facts.len());
        facts.insert(place, ("runs in", platform.backend.clone()));
    }
    if let Some(sizes) = &platform.volume_sizes {
        let place = facts.iter().position(|(name, _)| *name == "builds").unwrap_or(facts.len());
        facts.insert(place, ("volumes", sizes_in_words(sizes)));
    }
    if let Some(engine) = dockerfiles(platform) {
        let place = facts.iter().position(|(name, _)| *name == "up for").unwrap_or(facts.len());
        facts.insert(place, ("dockerfile", engine));
    }
    // A platform before this version does not say.
    if !platform.network.is_empty() {
        let at = |(name, _): &(&str, String)| matches!(*name, "cgroups" | "limits on");
        let place = facts.iter().position(at).unwrap_or(facts.len());
        facts.insert(place, ("network", platform.network.clone()));
    }
    if let Some(state) = uncommitted(platform) {
        facts.push(("upgrade", state));
    }
    if platform.breaches > 0 {
        let count = counted(platform.breaches, "broken invariant");
        facts.push(("faults", format!("{count}; see logs/platform/control.log in the home, and report it")));
    }
    facts
}

/// What builds Dockerfiles, in words; nothing from a platform that does not say.
pub(super) fn dockerfiles(platform: &Platform) -> Option<String> {
    match platform.dockerfiles.as_str() {
        "" => None,
        Platform::NOTHING => Some(
            "nothing here builds them; `apt-get install buildah` would do, and no app without one needs it"
                .to_owned(),
        ),
        engine => Some(format!("built by {engine}")),
    }
}

/// Where apps answer, in words.
fn apps_at(platform: &Platform) -> String {
    let https = platform.https.as_ref().map_or_else(String::new, |https| format!(", https://{https}"));
    format!("http://{}{https}", platform.edge)
}
