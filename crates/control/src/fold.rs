//! Folding events into the state. Total: an event of the journal is a fact, and is never refused here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use berth_spec::{CronName, Gate, ProcessName, ReleaseNumber, Timestamp};

use crate::cron::{CronOutcome, CronPast, carried_over, is_stopped};
use crate::event::{CronRun, Depth, Event, GitSettings, ReleaseSubmitted, ShiftWhy, Stream};
use crate::sleep::Asleep;
use crate::state::{
    Activation, App, Instance, Life, Phase, Platform, Position, Release, Run, Secret, Split, State, Token,
};

/// What the journal keeps beside an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// Where in the journal it stands.
    pub position: Position,
    /// When it was appended.
    pub at: Timestamp,
    /// Who caused it.
    pub actor: String,
}

impl State {
    /// Folds in the event that stands next in the journal.
    pub fn apply(&mut self, stream: &Stream, event: &Event, stamp: &Stamp) {
        self.position = stamp.position;
        match stream {
            Stream::Platform => Arc::make_mut(&mut self.platform).apply(event),
            Stream::App(id) => {
                if let Event::AppCreated { slot } = event {
                    let platform = Arc::make_mut(&mut self.platform);
                    platform.next_slot = platform.next_slot.max(slot + 1);
                }
                let app = self.apps.entry(id.clone()).or_insert_with(|| Arc::new(App::new(id.clone())));
                Arc::make_mut(app).apply(event, stamp);
            }
        }
    }
}

impl Platform {
    fn apply(&mut self, event: &Event) {
        self.version += 1;
        match event {
            Event::TenantCreated { tenant } => {
                self.tenants.insert(tenant.clone());
            }
            Event::ProjectCreated { project } => {
                self.projects.insert(project.clone());
            }
            Event::TokenIssued { token, sha256, grants } => {
                self.tokens.insert(token.clone(), Token { sha256: sha256.clone(), grants: grants.clone() });
            }
            Event::TokenRevoked { token } => {
                self.tokens.remove(token);
            }
            Event::InvariantBroken { .. } => self.breaches += 1,
            Event::CertificatesChanged { change } => self.certificates.apply(change),
            Event::AppCreated { .. }
            | Event::ConfigChanged { .. }
            | Event::SecretsChanged { .. }
            | Event::ScaleChanged { .. }
            | Event::DomainsChanged { .. }
            | Event::GateChanged { .. }
            | Event::GitChanged { .. }
            | Event::HookFailed { .. }
            | Event::ReleaseSubmitted(_)
            | Event::ReleaseBuilt { .. }
            | Event::ReleaseCommandFinished { .. }
            | Event::ActivationBegan { .. }
            | Event::ProcessesHandedOver { .. }
            | Event::InstanceAssigned { .. }
            | Event::InstanceStarted { .. }
            | Event::InstancesAdopted { .. }
            | Event::Routed { .. }
            | Event::TrafficShifted { .. }
            | Event::ReleaseActivated { .. }
            | Event::ReleaseFailed { .. }
            | Event::ReleaseSuperseded { .. }
            | Event::WarmEnded { .. }
            | Event::InstanceStopping { .. }
            | Event::InstanceExited { .. }
            | Event::InstanceGone { .. }
            | Event::RunAssigned { .. }
            | Event::RunEnded { .. }
            | Event::CronSkipped { .. }
            | Event::CronSetBack { .. }
            | Event::VolumeRemoved { .. }
            | Event::VolumeWorkBegan { .. }
            | Event::VolumeWorkEnded { .. }
            | Event::AppSlept { .. }
            | Event::AppWoken { .. }
            | Event::AppDestroying { .. }
            | Event::AppDestroyed {} => {}
        }
    }
}

impl App {
    fn apply(&mut self, event: &Event, stamp: &Stamp) {
        self.version += 1;
        self.position = stamp.position;
        match event {
            Event::AppCreated { slot } => self.create(*slot, stamp.at),
            Event::ConfigChanged { set, unset } => {
                self.config.retain(|name, _| !unset.contains(name));
                self.config.extend(set.iter().map(|(name, value)| (name.clone(), value.clone())));
            }
            Event::SecretsChanged { set, unset } => {
                for (name, value) in set {
                    let secret = self
                        .secrets
                        .entry(name.clone())
                        .or_insert_with(|| Secret { current: None, values: BTreeMap::new() });
                    secret.current = Some(value.version);
                    secret.values.insert(value.version, value.sealed.clone());
                }
                for name in unset {
                    if let Some(secret) = self.secrets.get_mut(name) {
                        secret.current = None;
                    }
                }
            }
            Event::ScaleChanged { processes } => self.rescale(processes, stamp.at),
            Event::DomainsChanged { added, removed } => {
                self.domains.retain(|host| !removed.contains(host));
                self.domains.extend(added.iter().cloned());
            }
            Event::GateChanged { gate } => self.gate = *gate,
            Event::RunAssigned { .. } | Event::RunEnded { .. } => self.apply_to_run(event, stamp),
            Event::CronSkipped { .. } | Event::CronSetBack { .. } => self.apply_to_cron(event, stamp),
            Event::GitChanged { git } => self.git = git.clone(),
            Event::VolumeWorkBegan { work } => self.volume_work = Some(work.clone()),
            Event::VolumeWorkEnded { work, failure } => {
                self.volume_work.take_if(|current| current == work);
                self.volume_worked = Some((work.clone(), failure.clone()));
            }
            Event::HookFailed { .. } | Event::VolumeRemoved { .. } => {}
            Event::AppSlept { .. }
            | Event::AppWoken { .. }
            | Event::AppDestroying { .. }
            | Event::AppDestroyed {} => self.apply_to_life(event, stamp),
            Event::ReleaseSubmitted(_)
            | Event::ReleaseBuilt { .. }
            | Event::ReleaseCommandFinished { .. }
            | Event::ActivationBegan { .. }
            | Event::ProcessesHandedOver { .. }
            | Event::TrafficShifted { .. }
            | Event::ReleaseActivated { .. }
            | Event::ReleaseFailed { .. }
            | Event::ReleaseSuperseded { .. }
            | Event::WarmEnded { .. } => self.apply_to_release(event, stamp),
            Event::InstanceAssigned { .. }
            | Event::InstanceStarted { .. }
            | Event::InstancesAdopted { .. }
            | Event::Routed { .. }
            | Event::InstanceStopping { .. }
            | Event::InstanceExited { .. }
            | Event::InstanceGone { .. } => self.apply_to_instance(event, stamp.position),
            Event::TenantCreated { .. }
            | Event::ProjectCreated { .. }
            | Event::TokenIssued { .. }
            | Event::TokenRevoked { .. }
            | Event::InvariantBroken { .. }
            | Event::CertificatesChanged { .. } => {}
        }
    }

    fn apply_to_life(&mut self, event: &Event, stamp: &Stamp) {
        match event {
            Event::AppDestroying { volumes } => self.begin_to_destroy(*volumes, stamp.position),
            Event::AppDestroyed {} => self.destroy(),
            Event::AppSlept { depth, .. } => self.fall_asleep(*depth, stamp),
            Event::AppWoken { ordinals, .. } => {
                self.asleep = None;
                self.route(ordinals, stamp.position);
            }
            _ => unreachable!("apply() hands over only events of an app's life"),
        }
    }

    fn apply_to_release(&mut self, event: &Event, stamp: &Stamp) {
        match event {
            Event::ReleaseSubmitted(submitted) => self.submit(submitted, stamp),
            Event::ReleaseBuilt { number, artifact } => self.change(*number, |release| {
                release.phase = Phase::Built;
                release.artifact = Some(artifact.clone());
            }),
            Event::ActivationBegan { number } => {
                self.change(*number, |release| release.phase = Phase::Activating);
                self.activation = Some(Activation {
                    release: *number,
                    began_at: stamp.at,
                    handed_over: BTreeSet::new(),
                    command_done: false,
                });
            }
            Event::ReleaseCommandFinished { .. } => {
                if let Some(activation) = &mut self.activation {
                    activation.command_done = true;
                }
            }
            Event::ProcessesHandedOver { processes, .. } => {
                if let Some(activation) = &mut self.activation {
                    activation.handed_over.extend(processes.iter().cloned());
                }
            }
            Event::TrafficShifted { number, percent, why, evidence: _ } => {
                let split = Split { release: *number, percent: *percent, held: *why == ShiftWhy::Asked };
                // One that is being rolled out and gets nothing for now is still compared; one that was before is done with.
                let rolls_out = self.activation.as_ref().is_some_and(|it| it.release == *number);
                self.split = (*percent > 0 || rolls_out).then_some(split);
            }
            Event::ReleaseActivated { number, previous } => {
                self.split = None;
                self.settle(*number, Phase::Activated, stamp.at);
                self.activation = None;
                self.serving = Some(*number);
                // It slept to here if the new release has nothing that could be routed to.
                self.asleep = None;
                self.warm = *previous;
                self.carry_cron_over(*number, stamp.at);
            }
            Event::ReleaseFailed { number, failure } => {
                self.settle(*number, Phase::Failed, stamp.at);
                self.change(*number, |release| release.failure = Some(failure.clone()));
                self.activation.take_if(|activation| activation.release == *number);
                self.split.take_if(|split| split.release == *number);
            }
            Event::ReleaseSuperseded { number, .. } => self.settle(*number, Phase::Superseded, stamp.at),
            Event::WarmEnded { number, .. } => {
                self.warm = None;
                self.split.take_if(|split| split.release == *number);
            }
            _ => unreachable!("apply() hands over only events of releases"),
        }
    }

    fn apply_to_instance(&mut self, event: &Event, position: Position) {
        match event {
            Event::InstanceAssigned { ordinal, process, release, token } => {
                self.last_ordinal = self.last_ordinal.max(*ordinal);
                let instance = Instance {
                    process: process.clone(),
                    release: *release,
                    started_as: *release,
                    token: token.clone(),
                    port: None,
                    dialer: None,
                    started: false,
                    stopping: None,
                    routing_changed_at: position,
                    proven: false,
                    exits: 0,
                };
                self.instances.insert(*ordinal, instance);
            }
            Event::InstanceStarted { ordinal, port, dialer } => {
                if let Some(instance) = self.instances.get_mut(ordinal) {
                    instance.started = true;
                    instance.port = *port;
                    instance.dialer.clone_from(dialer);
                    instance.routing_changed_at = position;
                }
            }
            Event::InstancesAdopted { number, ordinals } => {
                for ordinal in ordinals {
                    if let Some(instance) = self.instances.get_mut(ordinal) {
                        instance.release = *number;
                    }
                }
            }
            Event::Routed { ordinals } => self.route(ordinals, position),
            Event::InstanceStopping { ordinal, why } => {
                if let Some(instance) = self.instances.get_mut(ordinal) {
                    instance.stopping = Some(*why);
                }
            }
            Event::InstanceGone { ordinal, .. } => {
                self.instances.remove(ordinal);
                self.routed.remove(ordinal);
            }
            Event::InstanceExited { ordinal, more, .. } => {
                if let Some(instance) = self.instances.get_mut(ordinal).filter(|it| it.proven) {
                    instance.exits = instance.exits.saturating_add(1).saturating_add(*more);
                }
            }
            _ => unreachable!("apply() hands over only events of instances"),
        }
    }

    fn apply_to_run(&mut self, event: &Event, stamp: &Stamp) {
        match event {
            Event::RunAssigned { run, release, command, mode, limit, token, cron, within, variables: _ } => {
                self.last_run = self.last_run.max(*run);
                let started = Run {
                    release: *release,
                    command: command.clone(),
                    mode: *mode,
                    limit: *limit,
                    token: token.clone(),
                    assigned_at: stamp.at,
                    by: stamp.actor.clone(),
                    cron: cron.clone(),
                    within: *within,
                };
                if let Some(CronRun { entry, due, missed, replaces: _ }) = cron {
                    let outcome = CronOutcome::Running(*run);
                    self.add_to_cron(entry, CronPast { due: *due, at: stamp.at, missed: *missed, outcome });
                }
                self.runs.insert(*run, started);
            }
            Event::RunEnded { run, end } => {
                let entry = self.runs.remove(run).and_then(|run| run.cron).map(|cron| cron.entry);
                if let Some(progress) = entry.and_then(|entry| self.cron.get_mut(&entry)) {
                    progress.end(*run, end.exit, end.why, stamp.at);
                }
            }
            _ => unreachable!("apply() hands over only events of one-off commands"),
        }
    }

    fn apply_to_cron(&mut self, event: &Event, stamp: &Stamp) {
        match event {
            Event::CronSkipped { entry, due, why, missed } => {
                let outcome = CronOutcome::Skipped(*why);
                let past = CronPast { due: Some(*due), at: stamp.at, missed: *missed, outcome };
                self.add_to_cron(entry, past);
            }
            Event::CronSetBack { to } => {
                self.cron_floor = self.cron_floor.min(*to);
                self.cron.values_mut().for_each(|it| it.decided_until = it.decided_until.min(*to));
            }
            _ => unreachable!("apply() hands over only events of cron entries"),
        }
    }

    fn rescale(&mut self, processes: &BTreeMap<ProcessName, u32>, at: Timestamp) {
        let stopped = is_stopped(self);
        self.scale.extend(processes.iter().map(|(process, count)| (process.clone(), *count)));
        if stopped && !is_stopped(self) {
            // What was due while it was stopped is not made up for.
            self.cron.values_mut().for_each(|it| it.decided_until = it.decided_until.max(at));
        }
    }

    fn add_to_cron(&mut self, entry: &CronName, past: CronPast) {
        if let Some(progress) = self.cron.get_mut(entry) {
            progress.add(past);
        }
    }

    fn carry_cron_over(&mut self, number: ReleaseNumber, at: Timestamp) {
        let Some(release) = self.release(number).cloned() else { return };
        let before = std::mem::take(&mut self.cron);
        self.cron = carried_over(&release, &before, self.cron_floor, at);
        let gone = before.iter().filter(|(name, _)| !self.cron.contains_key(*name));
        self.cron_floor = gone.map(|(_, it)| it.decided_until).fold(self.cron_floor, Timestamp::max);
    }

    /// One that sleeps already stays the same sleep when it gets deeper.
    fn fall_asleep(&mut self, depth: Depth, stamp: &Stamp) {
        let fresh = Asleep { since: stamp.at, position: stamp.position, depth };
        let asleep = self.asleep.unwrap_or(fresh);
        self.asleep = Some(Asleep { depth, ..asleep });
        self.route(&BTreeSet::new(), stamp.position);
    }

    fn create(&mut self, slot: u32, at: Timestamp) {
        self.slot = slot;
        self.created_at = at;
        self.life = Life::Alive;
    }

    fn begin_to_destroy(&mut self, volumes: bool, position: Position) {
        self.volumes_go |= volumes;
        self.life = Life::Destroying;
        self.activation = None;
        self.serving = None;
        self.warm = None;
        self.split = None;
        self.route(&BTreeSet::new(), position);
    }

    /// Only what keeps numbers unique and explains the past is left.
    fn destroy(&mut self) {
        self.life = Life::Destroyed;
        self.volumes_go = false;
        self.volume_work = None;
        self.volume_worked = None;
        self.config.clear();
        self.secrets.clear();
        self.scale.clear();
        self.domains.clear();
        self.gate = Gate::Open;
        self.asleep = None;
        self.git = GitSettings::default();
        self.instances.clear();
        self.routed.clear();
        self.split = None;
        self.runs.clear();
        let cron = std::mem::take(&mut self.cron);
        self.cron_floor = cron.values().map(|it| it.decided_until).fold(self.cron_floor, Timestamp::max);
        if let Some((&last, _)) = self.releases.last_key_value() {
            self.releases.retain(|&number, _| number == last);
            // The next life of the name must not go back to it: its artifact is collected, its secrets are gone.
            self.change(last, |release| release.artifact = None);
        }
    }

    fn submit(&mut self, submitted: &ReleaseSubmitted, stamp: &Stamp) {
        let release = Release {
            number: submitted.number,
            reason: submitted.reason.clone(),
            phase: if submitted.artifact.is_some() { Phase::Built } else { Phase::Submitted },
            submitted_at: stamp.at,
            submitted_position: stamp.position,
            submitted_by: stamp.actor.clone(),
            settled_at: None,
            tree: submitted.tree.clone(),
            manifest: submitted.manifest.clone(),
            artifact: submitted.artifact.clone(),
            config: submitted.config.clone(),
            secrets: submitted.secrets.clone(),
            description: submitted.description.clone(),
            commit: submitted.commit.clone(),
            failure: None,
        };
        self.releases.insert(submitted.number, Arc::new(release));
    }

    fn settle(&mut self, number: ReleaseNumber, phase: Phase, at: Timestamp) {
        self.change(number, |release| {
            release.phase = phase;
            release.settled_at = Some(at);
        });
    }

    fn change(&mut self, number: ReleaseNumber, change: impl FnOnce(&mut Release)) {
        if let Some(release) = self.releases.get_mut(&number) {
            change(Arc::make_mut(release));
        }
    }

    /// Requests go to `ordinals` from here on; notes at which position each instance's place changed.
    fn route(&mut self, ordinals: &BTreeSet<u64>, position: Position) {
        for (ordinal, instance) in &mut self.instances {
            if self.routed.contains(ordinal) != ordinals.contains(ordinal) {
                instance.routing_changed_at = position;
            }
            instance.proven |= ordinals.contains(ordinal);
        }
        self.routed =
            ordinals.iter().copied().filter(|ordinal| self.instances.contains_key(ordinal)).collect();
    }
}
