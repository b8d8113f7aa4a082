//! The snapshot in use: the table, and the instances with what is in flight to them over all threads.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use berth_routing::balance::{self, Load};
use berth_routing::names::DOMAIN;
use berth_routing::wire::AppCounts;
use berth_routing::{Endpoint, Flaw, Generation, InvalidSnapshot, Names, Probe, Role, Snapshot, Table};
use berth_spec::{AppId, Gate, InstanceId, ProjectId};
use tokio::sync::Notify;

use crate::activity::Activity;
use crate::dial::Place;

/// One instance at one place, the same object from snapshot to snapshot.
#[derive(Debug)]
pub(crate) struct Backend {
    /// Unlike any other backend's of this process.
    pub(crate) key: u64,
    pub(crate) instance: InstanceId,
    /// The instance as the access log names it.
    pub(crate) label: Box<str>,
    pub(crate) place: Place,
    /// Whether its probes fail, so that others are preferred.
    pub(crate) failing: AtomicBool,
    pub(crate) activity: Arc<Activity>,
    in_flight: AtomicU64,
    /// Those of them that stand open and are no requests under way.
    standing: AtomicU64,
    open: AtomicU64,
    /// Set while control waits for this backend to drain, so that only then the last guard wakes the control thread.
    watched: AtomicBool,
    drained: Arc<Notify>,
}

impl Backend {
    /// Whether nothing is in flight to it and no connection to it is open.
    pub(crate) fn is_quiet(&self) -> bool {
        self.in_flight.load(SeqCst) == 0 && self.open.load(SeqCst) == 0
    }

    /// Whether no request is under way to it: nothing but what stands open.
    ///
    /// What is in flight is read first. What stands open goes off its own count first, so that it is never taken for a request that ended.
    pub(crate) fn is_still(&self) -> bool {
        let (in_flight, standing) = (self.in_flight.load(SeqCst), self.standing.load(SeqCst));
        in_flight == standing && self.open.load(SeqCst) <= standing
    }

    /// Whether a client waits for it or takes an answer.
    fn is_in_use(&self) -> bool {
        let in_flight = self.in_flight.load(SeqCst);
        in_flight > self.standing.load(SeqCst)
    }

    /// Whether the last guard to go tells the control thread. The caller looks at [`Backend::is_quiet`] after this:
    /// a guard either goes before that look or sees the flag.
    pub(crate) fn watch(&self, watched: bool) {
        self.watched.store(watched, SeqCst);
    }

    fn left(&self, count: &AtomicU64) {
        let before = count.fetch_sub(1, SeqCst);
        debug_assert!(before > 0, "every guard adds one first");
        self.tell();
    }

    /// Wakes the control thread where that waits. Not only when the last one goes: those that are left may stand open.
    fn tell(&self) {
        if self.watched.load(SeqCst) {
            self.drained.notify_one();
        }
    }
}

/// A request in flight, from the moment of the pick until its response has ended.
#[derive(Debug)]
pub(crate) struct InFlight {
    backend: Arc<Backend>,
    stands: bool,
}

impl InFlight {
    fn new(backend: &Arc<Backend>) -> Self {
        backend.in_flight.fetch_add(1, SeqCst);
        Self { backend: Arc::clone(backend), stands: false }
    }

    pub(crate) fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// From here on it stands open: what the client sends on it counts, and it by itself does not.
    pub(crate) fn stand(&mut self) {
        if !self.stands {
            self.stands = true;
            self.backend.standing.fetch_add(1, SeqCst);
            self.backend.tell();
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.stands {
            self.backend.standing.fetch_sub(1, SeqCst);
        }
        self.backend.left(&self.backend.in_flight);
    }
}

/// A connection to a backend, in use, pooled or upgraded. It lives inside the socket's owner.
#[derive(Debug)]
pub(crate) struct Open(Arc<Backend>);

impl Open {
    pub(crate) fn new(backend: &Arc<Backend>) -> Self {
        backend.open.fetch_add(1, SeqCst);
        Self(Arc::clone(backend))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.left(&self.0.open);
    }
}

/// An app's requests since they were last taken.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    by_class: [AtomicU64; 5],
    unserved: AtomicU64,
}

impl Counters {
    pub(crate) fn answered(&self, status: u16) {
        let class = usize::from(status / 100).wrapping_sub(1);
        if let Some(count) = self.by_class.get(class) {
            count.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn unserved(&self) {
        self.unserved.fetch_add(1, Relaxed);
    }

    fn take(&self, app: &AppId, busy: bool) -> Option<AppCounts> {
        let by_class = self.by_class.each_ref().map(|count| count.swap(0, Relaxed));
        let unserved = self.unserved.swap(0, Relaxed);
        let any = busy || unserved > 0 || by_class.iter().any(|count| *count > 0);
        any.then(|| AppCounts { app: app.clone(), by_class, unserved, busy })
    }
}

/// One app of the snapshot in use.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) hold: Duration,
    pub(crate) gate: Gate,
    pub(crate) asleep: bool,
    pub(crate) activity: Arc<Activity>,
    pub(crate) counters: Arc<Counters>,
    routed: Vec<Arc<Backend>>,
}

impl App {
    /// Chooses a backend that is not in `tried` and counts the request in flight to it at once, so that there is no
    /// moment in which a thread has chosen and the count does not show it.
    pub(crate) fn pick(&self, tried: &[u64], random: (u32, u32)) -> Option<InFlight> {
        let load = |place: usize| {
            let backend = self.routed.get(place).filter(|backend| !tried.contains(&backend.key))?;
            let in_flight = backend.in_flight.load(Relaxed);
            Some(Load { failing: backend.failing.load(Relaxed), in_flight })
        };
        let place = balance::pick(self.routed.len(), load, random)?;
        self.routed.get(place).map(InFlight::new)
    }
}

/// An app as an instance of its project reaches it: that project, and its address there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Named {
    pub(crate) project: ProjectId,
    pub(crate) address: Ipv4Addr,
}

/// A snapshot as the threads use it.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    table: Table,
    apps: Vec<Arc<App>>,
    names: Names,
    named: BTreeMap<Named, Arc<App>>,
    routed: BTreeSet<u64>,
    /// False when edge started without being able to read its snapshot: what it does not know may exist.
    pub(crate) complete: bool,
}

impl Fleet {
    pub(crate) fn generation(&self) -> Generation {
        self.table.generation()
    }

    pub(crate) fn app(&self, host: &str) -> Option<&Arc<App>> {
        self.apps.get(self.table.app_at(host)?)
    }

    /// The app that is called so.
    pub(crate) fn named(&self, named: &Named) -> Option<&Arc<App>> {
        self.named.get(named)
    }

    /// The address of `app` in its project.
    pub(crate) fn address(&self, app: &AppId) -> Option<Ipv4Addr> {
        self.names.beside(app)?.apps.get(&app.app).copied()
    }

    /// The ports at which apps of the project of `app` are reached.
    pub(crate) fn ports_beside(&self, app: &AppId) -> BTreeSet<u16> {
        self.names.beside(app).map(|project| project.ports.clone()).unwrap_or_default()
    }

    /// Whether connections to this backend may be kept.
    pub(crate) fn routes(&self, key: u64) -> bool {
        self.routed.contains(&key)
    }
}

/// What to probe and how.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) backend: Arc<Backend>,
    pub(crate) probe: Probe,
    /// The name that the app expects to be called by.
    pub(crate) host: String,
    /// Whether it sleeps with its app: it answers nothing and is not asked.
    pub(crate) sleeps: bool,
}

/// Everything that outlives a snapshot. Owned by the control thread.
#[derive(Debug)]
pub(crate) struct Registry {
    /// All backends of the last snapshot, and those that left it until they are quiet.
    backends: BTreeMap<(InstanceId, Endpoint), Arc<Backend>>,
    counters: BTreeMap<AppId, Arc<Counters>>,
    activities: BTreeMap<AppId, Arc<Activity>>,
    next_key: u64,
    drained: Arc<Notify>,
    /// The folder of the sockets at which shims are asked for the way to their instances.
    dial_folder: PathBuf,
}

impl Registry {
    pub(crate) fn new(drained: Arc<Notify>, dial_folder: PathBuf) -> Self {
        let (counters, activities) = (BTreeMap::new(), BTreeMap::new());
        Self { backends: BTreeMap::new(), counters, activities, next_key: 0, drained, dial_folder }
    }

    /// Compiles `snapshot`, and gives what is to be probed as of it.
    pub(crate) fn compile(
        &mut self,
        snapshot: &Snapshot,
        applied: Generation,
    ) -> Result<(Fleet, Vec<Target>, Vec<Flaw>), InvalidSnapshot> {
        let (table, flaws) = Table::compile(snapshot, applied)?;
        let mut fleet = Fleet { table, names: Names::of(snapshot), complete: true, ..Fleet::default() };
        let mut targets = Vec::new();
        let mut seen = BTreeSet::new();
        for (id, app) in &snapshot.apps {
            let inside = format!("{}.{DOMAIN}", id.app);
            let host = app.hosts.first().map_or(inside.as_str(), |host| host.0.as_str());
            let host = host.strip_suffix(".*").map_or(host.to_owned(), |label| format!("{label}.localhost"));
            let activity = self.activity(id);
            activity.set_asleep(app.asleep);
            let mut routed = Vec::new();
            for backend in &app.backends {
                if backend.instance.app != *id || !seen.insert(&backend.instance) {
                    continue;
                }
                let state = self.backend(&backend.instance, &backend.endpoint, &activity);
                if backend.role == Role::Routed {
                    fleet.routed.insert(state.key);
                    routed.push(Arc::clone(&state));
                }
                let sleeps = app.asleep.is_some() && backend.role == Role::Parked;
                let (probe, host) = (backend.probe.clone(), host.clone());
                targets.push(Target { backend: state, probe, host, sleeps });
            }
            let counters = Arc::clone(self.counters.entry(id.clone()).or_default());
            let (hold, asleep) = (app.hold.as_duration(), app.asleep.is_some());
            let compiled = Arc::new(App { hold, gate: app.gate, asleep, activity, counters, routed });
            if let Some(address) = app.address {
                let named = Named { project: id.project_id(), address };
                fleet.named.insert(named, Arc::clone(&compiled));
            }
            fleet.apps.push(compiled);
        }
        Ok((fleet, targets, flaws))
    }

    fn activity(&mut self, app: &AppId) -> Arc<Activity> {
        let fresh = || Arc::new(Activity::new(Arc::clone(&self.drained)));
        Arc::clone(self.activities.entry(app.clone()).or_insert_with(fresh))
    }

    fn backend(
        &mut self,
        instance: &InstanceId,
        endpoint: &Endpoint,
        activity: &Arc<Activity>,
    ) -> Arc<Backend> {
        let backend = self.backends.entry((instance.clone(), endpoint.clone())).or_insert_with(|| {
            self.next_key += 1;
            Arc::new(Backend {
                key: self.next_key,
                instance: instance.clone(),
                label: instance.short().into(),
                place: Place::of(endpoint, &self.dial_folder),
                failing: AtomicBool::new(false),
                activity: Arc::clone(activity),
                in_flight: AtomicU64::new(0),
                standing: AtomicU64::new(0),
                open: AtomicU64::new(0),
                watched: AtomicBool::new(false),
                drained: Arc::clone(&self.drained),
            })
        });
        Arc::clone(backend)
    }

    /// The instances to which nothing goes as of `fleet`, which every thread uses, and nothing is under way; and those of which the same is
    /// true but for what stands open. `listed` are the backends that the snapshot of `fleet` names in any role; the others are forgotten once quiet.
    pub(crate) fn quiet(&mut self, fleet: &Fleet, listed: &BTreeSet<u64>) -> Quiet {
        let (mut quiet, mut still) = (BTreeSet::new(), BTreeSet::new());
        let (mut busy, mut in_use) = (BTreeSet::new(), BTreeSet::new());
        self.backends.retain(|(instance, _), backend| {
            let routed = fleet.routes(backend.key);
            backend.watch(!routed);
            if routed || !backend.is_quiet() {
                busy.insert(instance.clone());
                let stands = if !routed && backend.is_still() { &mut still } else { &mut in_use };
                stands.insert(instance.clone());
                return true;
            }
            quiet.insert(instance.clone());
            listed.contains(&backend.key)
        });
        quiet.retain(|instance| !busy.contains(instance));
        still.retain(|instance| !in_use.contains(instance));
        Quiet { quiet, still }
    }

    /// The apps that somebody waits for while they sleep, each with the sleep that is meant.
    pub(crate) fn wanted(&self) -> BTreeMap<AppId, Generation> {
        self.activities.iter().filter_map(|(app, activity)| Some((app.clone(), activity.wanted()?))).collect()
    }

    /// The requests since the last call, by app. Apps that `known` does not have are forgotten.
    pub(crate) fn counts(&mut self, known: impl Fn(&AppId) -> bool) -> Vec<AppCounts> {
        // Who waits for an answer or takes one keeps the app awake all the while.
        self.backends
            .values()
            .filter(|backend| backend.is_in_use())
            .for_each(|backend| backend.activity.stir());
        self.activities.values().filter(|it| it.is_waited_for()).for_each(|activity| activity.stir());
        let busy = |app| self.activities.get(app).is_some_and(|activity| activity.take_stirred());
        let counts =
            self.counters.iter().filter_map(|(app, counters)| counters.take(app, busy(app))).collect();
        self.counters.retain(|app, _| known(app));
        self.activities.retain(|app, _| known(app));
        counts
    }
}

/// Instances that are not routed to and have nothing under way.
#[derive(Debug)]
pub(crate) struct Quiet {
    /// Nothing at all: no connection is open to them.
    pub(crate) quiet: BTreeSet<InstanceId>,
    /// Nothing but what stands open.
    pub(crate) still: BTreeSet<InstanceId>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_routing::{AppRoute, Host, ProbePath};
    use berth_spec::Millis;

    fn snapshot(generation: u64, roles: &[(u64, Role)]) -> Snapshot {
        let app: AppId = "default/default/shop".parse().unwrap();
        let backends = roles.iter().map(|(ordinal, role)| berth_routing::Backend {
            instance: app.instance("web".parse().unwrap(), *ordinal),
            endpoint: Endpoint::Tcp {
                addr: ([127, 0, 0, 1], 20_000 + u16::try_from(*ordinal).unwrap()).into(),
            },
            role: *role,
            probe: Probe { path: ProbePath::Guess, interval: Millis(1_000), timeout: Millis(1_000) },
        });
        let route = AppRoute {
            hosts: vec![Host("shop.*".to_owned())],
            backends: backends.collect(),
            hold: Millis::from_secs(5),
            gate: Gate::Open,
            address: Some(Ipv4Addr::new(198, 19, 0, 1)),
            asleep: None,
        };
        Snapshot { format: 1, generation: Generation(generation), apps: [(app, route)].into() }
    }

    fn listed(targets: &[Target]) -> BTreeSet<u64> {
        targets.iter().map(|target| target.backend.key).collect()
    }

    #[test]
    fn a_parked_backend_is_quiet_only_without_requests_and_connections() {
        let mut registry = Registry::new(Arc::default(), PathBuf::new());
        let (before, ..) = registry.compile(&snapshot(1, &[(1, Role::Routed)]), Generation(0)).unwrap();
        let lease = before.app("shop.localhost").unwrap().pick(&[], (0, 0)).unwrap();
        let open = Open::new(lease.backend());
        let (after, targets, _) =
            registry.compile(&snapshot(2, &[(1, Role::Parked)]), Generation(1)).unwrap();
        let listed = listed(&targets);
        assert!(registry.quiet(&after, &listed).quiet.is_empty());
        drop(lease);
        assert!(registry.quiet(&after, &listed).quiet.is_empty());
        drop(open);
        assert_eq!(registry.quiet(&after, &listed).quiet.len(), 1);
        assert!(after.app("shop.localhost").unwrap().pick(&[], (0, 0)).is_none());
    }

    #[test]
    fn an_address_leads_to_its_app_within_its_project_alone() {
        let mut registry = Registry::new(Arc::default(), PathBuf::new());
        let (fleet, ..) = registry.compile(&snapshot(1, &[(1, Role::Routed)]), Generation(0)).unwrap();
        let named = |project: &str, last: u8| {
            let named = Named { project: project.parse().unwrap(), address: Ipv4Addr::new(198, 19, 0, last) };
            fleet.named(&named).is_some()
        };
        assert!(named("default/default", 1));
        assert!(!named("default/default", 2) && !named("default/other", 1) && !named("other/default", 1));
        let beside: AppId = "default/default/worker".parse().unwrap();
        assert_eq!(fleet.ports_beside(&beside), [80, 20_001].into());
        assert!(fleet.ports_beside(&"other/default/worker".parse().unwrap()).is_empty());
    }

    #[test]
    fn a_backend_that_left_is_remembered_until_it_is_quiet() {
        let mut registry = Registry::new(Arc::default(), PathBuf::new());
        let (before, ..) = registry.compile(&snapshot(1, &[(1, Role::Routed)]), Generation(0)).unwrap();
        let lease = before.app("shop.localhost").unwrap().pick(&[], (0, 0)).unwrap();
        let (after, targets, _) =
            registry.compile(&snapshot(2, &[(2, Role::Routed)]), Generation(1)).unwrap();
        assert!(registry.quiet(&after, &listed(&targets)).quiet.is_empty());
        drop(lease);
        let Quiet { quiet, .. } = registry.quiet(&after, &listed(&targets));
        assert_eq!(quiet.iter().map(InstanceId::short).collect::<Vec<_>>(), ["web.1"]);
        assert_eq!(registry.backends.len(), 1);
    }

    #[test]
    fn a_failing_backend_and_one_that_was_tried_are_passed_over() {
        let mut registry = Registry::new(Arc::default(), PathBuf::new());
        let roles = [(1, Role::Routed), (2, Role::Routed), (3, Role::Candidate)];
        let (fleet, ..) = registry.compile(&snapshot(1, &roles), Generation(0)).unwrap();
        let app = fleet.app("shop.localhost").unwrap();
        let first = app.pick(&[], (0, 0)).unwrap();
        first.backend().failing.store(true, SeqCst);
        let second = app.pick(&[], (0, 0)).unwrap();
        assert_ne!(first.backend().key, second.backend().key);
        let again = app.pick(&[second.backend().key], (1, 1)).unwrap();
        assert_eq!(again.backend().key, first.backend().key);
        assert!(app.pick(&[first.backend().key, second.backend().key], (0, 1)).is_none());
    }
}
