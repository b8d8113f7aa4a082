//! Why the release that is being activated cannot make it, told with what was seen of it.

use berth_routing::wire::Health;
use berth_spec::ReleaseNumber;

use crate::event::{Failure, Ordinal};
use crate::report;
use crate::state::{Instance, Release};
use crate::world::{Life, Listener, Mark, Seen, Verdict};

use super::{CRASHES, ELSEWHERE_GRACE, Planner};

impl Planner<'_> {
    /// Why the release that is being activated cannot make it, if so.
    pub(super) fn failure(&mut self, release: &Release) -> Option<Failure> {
        let (app, number) = (self.app, release.number);
        for (&ordinal, instance) in
            app.instances.iter().filter(|(_, it)| it.started_as == number && it.is_wanted())
        {
            if let Some(seen) = self.seen(ordinal, instance).cloned()
                && let Some(failure) = self.instance_failure(release, ordinal, instance, seen)
            {
                return Some(failure);
            }
        }
        // A rollout takes the time that its steps take.
        if app.rollout().is_some_and(|split| split.percent < 100) {
            return None;
        }
        let timeout = release.manifest.deploy.timeout;
        if !self.is_over(Mark::Activating(number), timeout) {
            return None;
        }
        Some(self.not_ready(release, format!("the release was not ready within {timeout}")))
    }

    /// Why an instance of the release cannot make it, if so.
    fn instance_failure(
        &mut self,
        release: &Release,
        ordinal: Ordinal,
        instance: &Instance,
        seen: Seen,
    ) -> Option<Failure> {
        let name = format!("{}.{ordinal}", instance.process);
        if let Life::NotStarted { code, detail } = seen.life {
            return Some(Failure {
                detail: vec![detail],
                ..Failure::new(&code, format!("{name} could not be started"))
            });
        }
        let is_ended_for_it = seen.last_exit.is_some_and(|exit| exit.unhealthy);
        if is_ended_for_it || seen.check.as_ref().is_some_and(|check| check.verdict == Verdict::Unhealthy) {
            return Some(Failure {
                detail: self.evidence(release.number),
                log: report::that_matter(&seen.log_tail),
                next: missing_variable(release, &seen.log_tail),
                ..Failure::new("health_check_failed", format!("{name} failed its health check"))
            });
        }
        if seen.restarts >= CRASHES {
            return Some(crashed(release, &name, seen));
        }
        if let Some(port) = instance.port
            && let Some(where_to) = misplaced(&name, &seen.listener, port)
            && self.is_over(Mark::Elsewhere(ordinal), ELSEWHERE_GRACE)
        {
            return Some(Failure {
                detail: vec![
                    "an app must listen on the port that the environment variable PORT names, at 127.0.0.1 or 0.0.0.0"
                        .to_owned(),
                ],
                next: Some(how_to_listen(release, instance, &seen.listener)),
                ..Failure::new("listens_elsewhere", where_to)
            });
        }
        let grace = release.grace(&instance.process);
        if !self.keeps_unready(ordinal, instance, &seen) || !self.is_over(Mark::Unready(ordinal), grace) {
            return None;
        }
        let summary =
            format!("{name} was not ready within {grace}; `grace` under [[http.checks]] allows more");
        Some(self.not_ready(release, summary))
    }

    /// Whether a web instance that was never routed is seen not to serve. Where edge is down or has not spoken of it yet nothing is
    /// seen, and its grace does not run.
    fn keeps_unready(&self, ordinal: Ordinal, instance: &Instance, seen: &Seen) -> bool {
        let unhealthy = || self.world.health.get(&ordinal).is_some_and(|it| it.health != Health::Ready);
        let silent = seen.life == Life::Running && seen.listener == Listener::None;
        let candidate = instance.process.is_web() && !self.app.routed.contains(&ordinal);
        candidate && self.world.edge.alive.is_some() && (silent || unhealthy())
    }

    /// The failure of a release that runs and does not get ready.
    fn not_ready(&self, release: &Release, summary: String) -> Failure {
        let number = release.number;
        let code = self.timeout_code(number);
        let output = self.output(number);
        let waits = matches!(code, "never_listened" | "listens_elsewhere");
        let web = self.app.instances.values().find(|it| it.release == number && it.process.is_web());
        let next = missing_variable(release, &output)
            .or_else(|| serves_nobody(release).filter(|_| code == "never_listened"))
            .or_else(|| web.filter(|_| waits).map(|web| how_to_listen(release, web, &Listener::None)));
        Failure {
            detail: self.evidence(number),
            log: report::that_matter(&output),
            next,
            ..Failure::new(code, summary)
        }
    }

    /// What the release was still waiting for.
    fn timeout_code(&self, number: ReleaseNumber) -> &'static str {
        let mut all = self.app.instances.iter().filter(|(_, it)| it.release == number);
        let unwell = all.any(|(ordinal, it)| self.seen(*ordinal, it).is_some_and(|seen| !seen.is_well()));
        let waiting = self.app.instances.iter().filter(|(_, it)| it.release == number && it.process.is_web());
        let listeners: Vec<_> = waiting
            .filter_map(|(ordinal, it)| Some((*ordinal, &self.seen(*ordinal, it)?.listener)))
            .collect();
        if listeners.iter().any(|(_, listener)| **listener == Listener::None) {
            return "never_listened";
        }
        if listeners.iter().any(|(_, it)| matches!(it, Listener::Elsewhere(_) | Listener::Unreachable(_))) {
            return "listens_elsewhere";
        }
        let unhealthy = |ordinal| self.world.health.get(ordinal).is_none_or(|it| it.health != Health::Ready);
        if unwell || listeners.iter().any(|(ordinal, _)| unhealthy(ordinal)) {
            "health_check_failed"
        } else {
            "deploy_timed_out"
        }
    }

    /// What the release's instances printed last: that of the one which printed most, since they all do the same.
    fn output(&self, number: ReleaseNumber) -> Vec<String> {
        let instances = self.app.instances.iter().filter(|(_, it)| it.release == number);
        let tails = instances.filter_map(|(ordinal, it)| Some(&self.seen(*ordinal, it)?.log_tail));
        tails.max_by_key(|tail| tail.len()).cloned().unwrap_or_default()
    }

    /// What each instance of the release last showed.
    fn evidence(&self, number: ReleaseNumber) -> Vec<String> {
        let mut lines = Vec::new();
        for (ordinal, instance) in self.app.instances.iter().filter(|(_, it)| it.release == number) {
            let name = format!("{}.{ordinal}", instance.process);
            if let Some(seen) = self.seen(*ordinal, instance) {
                let port = instance.port.map_or_else(String::new, |port| format!(" on port {port}"));
                let misplaced = misplaced(&name, &seen.listener, instance.port.unwrap_or_default());
                lines.push(match (&seen.life, &seen.listener, misplaced) {
                    (Life::Running, Listener::None, _) if instance.process.is_web() => {
                        format!("{name} runs and does not listen{port}")
                    }
                    (Life::Running, Listener::Expected, _) => format!("{name} runs and listens{port}"),
                    (Life::Running, _, Some(misplaced)) => misplaced,
                    (life, ..) => format!("{name} {}", in_words(life)),
                });
                lines.extend(seen.last_exit.map(|exit| format!("{name} {exit}")));
                lines.extend(seen.last_exit.and_then(|exit| report::explained(&exit)));
                lines.extend(seen.not_begun.iter().cloned());
                let check = seen.check.iter().flat_map(|check| &check.evidence);
                lines.extend(check.map(|line| format!("{name}: {line}")));
            }
            let probed = self.world.health.get(ordinal);
            lines.extend(
                probed.into_iter().flat_map(|it| it.evidence.iter().map(|line| format!("{name}: {line}"))),
            );
        }
        lines
    }
}

fn crashed(release: &Release, name: &str, seen: Seen) -> Failure {
    let exit = seen.last_exit.map_or_else(String::new, |exit| format!(": it {exit}"));
    let explained = seen.last_exit.and_then(|exit| report::explained(&exit));
    // What could not even be started has its own words, and no exit of its own that would mean something.
    let detail =
        if seen.not_begun.is_empty() { explained.into_iter().collect() } else { seen.not_begun.clone() };
    Failure {
        detail,
        log: report::that_matter(&seen.log_tail),
        next: missing_variable(release, &seen.log_tail),
        ..Failure::new(
            "crashed_at_start",
            format!("{name} exited {} times before it was ready{exit}", seen.restarts),
        )
    }
}

/// How to set the variable that the output says is missing, if the release has none of that name.
fn missing_variable(release: &Release, output: &[String]) -> Option<String> {
    let name = report::missing_variable(output)?;
    let known = release.config.contains_key(&name)
        || release.secrets.contains_key(&name)
        || release.manifest.env.contains_key(&name);
    (!known).then(|| {
        format!(
            "set what it misses: `berth config set {name}=...`, or `berth secrets set {name}` where nobody may see it"
        )
    })
}

/// What to write for a service of a stack of which neither its file nor its image says where it listens: it was taken for a server all the
/// same, since most images are there to be one.
fn serves_nobody(release: &Release) -> Option<String> {
    let image = release.artifact.as_ref()?.image.as_ref()?;
    let is_told = release.manifest.http.port.is_some() || image.port.is_some();
    (release.manifest.stack.is_some() && !is_told).then(|| {
        "if it serves, write its port into the compose file, as in `expose: [8080]`; if it serves nobody, write its whole command as `entrypoint`, which makes it a worker"
            .to_owned()
    })
}

fn how_to_listen(release: &Release, instance: &Instance, listener: &Listener) -> String {
    if let Listener::Unreachable(_) = listener {
        return "let the app listen at 127.0.0.1 or 0.0.0.0; some resolve `localhost` to ::1 alone"
            .to_owned();
    }
    let why = release.artifact.as_ref().map(|artifact| artifact.why.as_slice()).unwrap_or_default();
    let command = release.processes().and_then(|processes| processes.get(&instance.process));
    report::listen_on_port(command, why)
}

/// Where the instance listens, when that is not where it is asked.
fn misplaced(name: &str, listener: &Listener, expected: u16) -> Option<String> {
    match listener {
        Listener::None | Listener::Expected => None,
        Listener::Elsewhere(ports) => {
            let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
            Some(format!("{name} is listening on {}, expected {expected}", ports.join(", ")))
        }
        Listener::Unreachable(addresses) => Some(format!(
            "{name} listens on port {expected} at {} only, expected 127.0.0.1",
            addresses.join(", ")
        )),
    }
}

fn in_words(life: &Life) -> &str {
    match life {
        Life::NotStarted { detail, .. } => detail,
        Life::Starting => "is being started",
        Life::Running => "runs",
        Life::BackingOff => "ended and waits to be started again",
        Life::Stopping => "is being stopped",
        Life::Gone => "is gone",
    }
}

#[cfg(test)]
mod tests;
