//! The snapshot in use: the table, the apps, and what of them outlives it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use berth_routing::names::DOMAIN;
use berth_routing::wire::AppCounts;
use berth_routing::{
    AppRoute, Backend as BackendRoute, Endpoint, Flaw, Generation, InvalidSnapshot, Names, Probe, Role,
    Snapshot, Table,
};
use berth_spec::{AppId, InstanceId, ProjectId, ReleaseNumber};
use tokio::sync::Notify;

use crate::activity::Activity;
use crate::app::{App, Counters};
use crate::backend::Backend;
use crate::cache::Cache;
use crate::certificates::Shown;
use crate::circuit::Decision;
use crate::dial::Place;
use crate::queue::Queue;
use crate::rate::Limiter;
use crate::routes::Routes;
use crate::tally::Tally;
use crate::visit::Split;

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
    shown: Shown,
    /// Those that wait for an app of which nothing is known yet.
    pub(crate) unknown: Arc<Queue>,
    /// Whether any app limits how often somebody may ask.
    pub(crate) limits_rates: bool,
    /// Whether any app has its answers stored.
    pub(crate) caches: bool,
    /// Whether the requests of any app are shared between releases, so that it matters who sends one.
    pub(crate) splits: bool,
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

    /// The certificates.
    pub(crate) fn shown(&self) -> &Shown {
        &self.shown
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

    /// Decides at `now` which instances are passed over, and says what is new.
    pub(crate) fn pass_over(&self, now: Duration, told: impl Fn(&InstanceId, Decision)) {
        self.apps.iter().for_each(|app| app.pass_over(now, &told));
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

/// What of an app outlives a snapshot.
#[derive(Debug)]
struct Lasting {
    counters: Arc<Counters>,
    queue: Arc<Queue>,
    limiter: Arc<Limiter>,
    routes: Arc<Routes>,
    cache: Option<Arc<Cache>>,
    activity: Arc<Activity>,
}

/// Everything that outlives a snapshot. Owned by the control thread.
#[derive(Debug)]
pub(crate) struct Registry {
    /// All backends of the last snapshot, and those that left it until they are quiet.
    backends: BTreeMap<(InstanceId, Endpoint), Arc<Backend>>,
    apps: BTreeMap<AppId, Lasting>,
    tallies: BTreeMap<(AppId, ReleaseNumber), Arc<Tally>>,
    /// Requests that wait, of all apps.
    waiting: Arc<AtomicUsize>,
    /// Bytes that are stored, of all apps.
    cached: Arc<AtomicUsize>,
    next_key: u64,
    drained: Arc<Notify>,
    /// The folder of the sockets at which shims are asked for the way to their instances.
    dial_folder: PathBuf,
}

impl Registry {
    pub(crate) fn new(drained: Arc<Notify>, dial_folder: PathBuf) -> Self {
        Self {
            backends: BTreeMap::new(),
            apps: BTreeMap::new(),
            tallies: BTreeMap::new(),
            waiting: Arc::default(),
            cached: Arc::default(),
            next_key: 0,
            drained,
            dial_folder,
        }
    }

    /// Compiles `snapshot`, and gives what is to be probed as of it.
    pub(crate) fn compile(
        &mut self,
        snapshot: &Snapshot,
        shown: Shown,
        applied: Generation,
    ) -> Result<(Fleet, Vec<Target>, Vec<Flaw>), InvalidSnapshot> {
        let (table, flaws) = Table::compile(snapshot, applied)?;
        let mut fleet =
            Fleet { table, names: Names::of(snapshot), shown, complete: true, ..Fleet::default() };
        let mut targets = Vec::new();
        let mut seen = BTreeSet::new();
        for (id, app) in &snapshot.apps {
            let inside = format!("{}.{DOMAIN}", id.app);
            let host = app.hosts.first().map_or(inside.as_str(), |host| host.0.as_str());
            let host = host.strip_suffix(".*").map_or(host.to_owned(), |label| format!("{label}.localhost"));
            let lasting = self.lasting(id, app);
            let (counters, queue) = (Arc::clone(&lasting.counters), Arc::clone(&lasting.queue));
            let (limiter, routes) = (Arc::clone(&lasting.limiter), Arc::clone(&lasting.routes));
            let cache = lasting.cache.clone().filter(|_| app.shares.is_empty());
            fleet.caches |= cache.is_some();
            let activity = Arc::clone(&lasting.activity);
            fleet.limits_rates |= limiter.has_rules();
            activity.set_asleep(app.asleep);
            let mut routed = Vec::new();
            for backend in &app.backends {
                if backend.instance.app != *id || !seen.insert(&backend.instance) {
                    continue;
                }
                let state = self.backend(backend, &queue, &activity);
                state.bound(backend.concurrency.into(), backend.request_timeout);
                if backend.role == Role::Routed {
                    fleet.routed.insert(state.key);
                    routed.push(Arc::clone(&state));
                }
                let sleeps = app.asleep.is_some() && backend.role == Role::Parked;
                let (probe, host) = (backend.probe.clone(), host.clone());
                targets.push(Target { backend: state, probe, host, sleeps });
            }
            let split = Split::new(&app.shares, |release| self.tally(id, release));
            fleet.splits |= split.is_some();
            let (hold, gate, https, asleep) =
                (app.hold.as_duration(), app.gate, app.https, app.asleep.is_some());
            let compiled = Arc::new(App {
                hold,
                gate,
                https,
                asleep,
                activity,
                counters,
                queue,
                limiter,
                routes,
                cache,
                routed,
                split,
            });
            if let Some(address) = app.address {
                let named = Named { project: id.project_id(), address };
                fleet.named.insert(named, Arc::clone(&compiled));
            }
            fleet.apps.push(compiled);
        }
        Ok((fleet, targets, flaws))
    }

    fn lasting(&mut self, app: &AppId, route: &AppRoute) -> &Lasting {
        let lasting = self.apps.entry(app.clone()).or_insert_with(|| Lasting {
            counters: Arc::default(),
            queue: Queue::among(&self.waiting),
            limiter: Arc::default(),
            routes: Arc::default(),
            cache: None,
            activity: Arc::new(Activity::new(Arc::clone(&self.drained))),
        });
        // A release with the same rules goes on with what is remembered.
        if !lasting.limiter.is_of(&route.rate_limits) {
            lasting.limiter = Arc::new(Limiter::new(&route.rate_limits));
        }
        if !lasting.routes.is_of(&route.routes) {
            lasting.routes = Arc::new(Routes::new(&route.routes, &lasting.routes));
        }
        // Of another release nothing that is stored is of use; an app that was given up stores nothing.
        let same = |cache: &Arc<Cache>| route.cache.as_ref().is_some_and(|said| cache.is_of(said));
        if !lasting.cache.as_ref().is_some_and(same) {
            let cache = |said| Arc::new(Cache::new(said, &self.cached));
            lasting.cache = route.cache.clone().map(cache);
        }
        lasting
    }

    fn backend(
        &mut self,
        route: &BackendRoute,
        queue: &Arc<Queue>,
        activity: &Arc<Activity>,
    ) -> Arc<Backend> {
        let key = (route.instance.clone(), route.endpoint.clone());
        let backend = self.backends.entry(key).or_insert_with(|| {
            self.next_key += 1;
            let way = (Place::of(&route.endpoint, &self.dial_folder), route.protocol);
            let (queue, activity) = (Arc::clone(queue), Arc::clone(activity));
            let drained = Arc::clone(&self.drained);
            Arc::new(Backend::new(self.next_key, route.instance.clone(), way, queue, activity, drained))
        });
        Arc::clone(backend)
    }

    fn tally(&mut self, app: &AppId, release: ReleaseNumber) -> Arc<Tally> {
        let tally =
            self.tallies.entry((app.clone(), release)).or_insert_with(|| Arc::new(Tally::new(release)));
        Arc::clone(tally)
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
        let wanted = |(app, lasting): (&AppId, &Lasting)| Some((app.clone(), lasting.activity.wanted()?));
        self.apps.iter().filter_map(wanted).collect()
    }

    /// The requests since the last call, by app. Apps that `known` does not have are forgotten.
    pub(crate) fn counts(&mut self, known: impl Fn(&AppId) -> bool) -> Vec<AppCounts> {
        // Who waits for an answer or takes one keeps the app awake all the while.
        self.backends
            .values()
            .filter(|backend| backend.is_in_use())
            .for_each(|backend| backend.activity.stir());
        let took = |(app, lasting): (&AppId, &Lasting)| {
            if lasting.activity.is_waited_for() {
                lasting.activity.stir();
            }
            lasting.counters.take(app, lasting.activity.take_stirred())
        };
        let mut counts: Vec<AppCounts> = self.apps.iter().filter_map(took).collect();
        // An instance that is still drained has the queue of its app, and would not be its app's if that came back with another.
        self.apps.retain(|app, lasting| known(app) || Arc::strong_count(&lasting.queue) > 1);
        for ((app, _), tally) in &self.tallies {
            let Some(told) = tally.take() else { continue };
            match counts.iter_mut().find(|it| it.app == *app) {
                Some(counted) => counted.releases.push(told),
                // An answer that has begun and not ended is counted here, and not there yet.
                None => counts.push(AppCounts {
                    app: app.clone(),
                    by_class: [0; 5],
                    unserved: 0,
                    busy: false,
                    releases: vec![told],
                }),
            }
        }
        // Those that no snapshot in use names any more, once nobody counts on them.
        self.tallies.retain(|_, tally| Arc::strong_count(tally) > 1);
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
    use std::sync::atomic::Ordering::SeqCst;

    use super::*;
    use crate::backend::{InFlight, Open};
    use crate::visit::Visit;
    use berth_routing::{AppRoute, Host, Https, ProbePath};
    use berth_spec::{Gate, Millis};

    fn snapshot(generation: u64, roles: &[(u64, Role)]) -> Snapshot {
        let app: AppId = "default/default/shop".parse().unwrap();
        let backends = roles.iter().map(|(ordinal, role)| berth_routing::Backend {
            instance: app.instance("web".parse().unwrap(), *ordinal),
            endpoint: Endpoint::Tcp {
                addr: ([127, 0, 0, 1], 20_000 + u16::try_from(*ordinal).unwrap()).into(),
            },
            role: *role,
            probe: Probe { path: ProbePath::Guess, interval: Millis(1_000), timeout: Millis(1_000) },
            concurrency: berth_spec::RequestConcurrency::default(),
            request_timeout: None,
            protocol: berth_spec::HttpProtocol::default(),
        });
        let route = AppRoute {
            hosts: vec![Host("shop.*".to_owned())],
            backends: backends.collect(),
            hold: Millis::from_secs(5),
            rate_limits: Vec::new(),
            routes: Vec::new(),
            cache: None,
            gate: Gate::Open,
            address: Some(Ipv4Addr::new(198, 19, 0, 1)),
            https: Https::default(),
            shares: Vec::new(),
            asleep: None,
        };
        Snapshot::new(Generation(generation), [(app, route)].into())
    }

    fn compile(
        registry: &mut Registry,
        snapshot: &Snapshot,
        applied: Generation,
    ) -> Result<(Fleet, Vec<Target>, Vec<Flaw>), InvalidSnapshot> {
        registry.compile(snapshot, Shown::default(), applied)
    }

    fn listed(targets: &[Target]) -> BTreeSet<u64> {
        targets.iter().map(|target| target.backend.key).collect()
    }

    #[test]
    fn a_parked_backend_is_quiet_only_without_requests_and_connections() {
        let mut registry = Registry::new(Arc::default(), PathBuf::new());
        let (before, ..) = compile(&mut registry, &snapshot(1, &[(1, Role::Routed)]), Generation(0)).unwrap();
        let lease = before.app("shop.localhost").unwrap().pick(Visit::new(7), &[], (0, 0)).unwrap();
        let open = Open::new(lease.backend());
        let (after, targets, _) =
            compile(&mut registry, &snapshot(2, &[(1, Role::Parked)]), Generation(1)).unwrap();
        let listed = listed(&targets);
        assert!(registry.quiet(&after, &listed).quiet.is_empty());
        drop(lease);
        assert!(registry.quiet(&after, &listed).quiet.is_empty());
        drop(open);
        assert_eq!(registry.quiet(&after, &listed).quiet.len(), 1);
        assert!(after.app("shop.localhost").unwrap().pick(Visit::new(7), &[], (0, 0)).is_none());
    }

    #[test]
    fn an_address_leads_to_its_app_within_its_project_alone() {
        let mut registry = Registry::new(Arc::default(), PathBuf::new());
        let (fleet, ..) = compile(&mut registry, &snapshot(1, &[(1, Role::Routed)]), Generation(0)).unwrap();
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
        let (before, ..) = compile(&mut registry, &snapshot(1, &[(1, Role::Routed)]), Generation(0)).unwrap();
        let lease = before.app("shop.localhost").unwrap().pick(Visit::new(7), &[], (0, 0)).unwrap();
        let (after, targets, _) =
            compile(&mut registry, &snapshot(2, &[(2, Role::Routed)]), Generation(1)).unwrap();
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
        let (fleet, ..) = compile(&mut registry, &snapshot(1, &roles), Generation(0)).unwrap();
        let app = fleet.app("shop.localhost").unwrap();
        let first = app.pick(Visit::new(7), &[], (0, 0)).unwrap();
        first.backend().failing.store(true, SeqCst);
        let second = app.pick(Visit::new(7), &[], (0, 0)).unwrap();
        assert_ne!(first.backend().key, second.backend().key);
        let again = app.pick(Visit::new(7), &[second.backend().key], (1, 1)).unwrap();
        assert_eq!(again.backend().key, first.backend().key);
        assert!(app.pick(Visit::new(7), &[first.backend().key, second.backend().key], (0, 1)).is_none());
    }

    #[test]
    fn what_has_as_many_requests_as_it_may_gets_no_more() {
        let mut registry = Registry::new(Arc::default(), PathBuf::new());
        let mut routes = snapshot(1, &[(1, Role::Routed), (2, Role::Routed)]);
        for backend in routes.apps.values_mut().flat_map(|app| &mut app.backends) {
            backend.concurrency = berth_spec::RequestConcurrency { soft_limit: Some(1), hard_limit: Some(2) };
        }
        let (fleet, ..) = compile(&mut registry, &routes, Generation(0)).unwrap();
        let app = fleet.app("shop.localhost").unwrap();
        let mut held: Vec<InFlight> = (0..2).map(|_| app.pick(Visit::new(7), &[], (0, 0)).unwrap()).collect();
        assert_ne!(
            held[0].backend().key,
            held[1].backend().key,
            "the other is preferred from the soft limit on"
        );
        held.extend((0..2).map(|_| app.pick(Visit::new(7), &[], (1, 1)).unwrap()));
        assert!(app.pick(Visit::new(7), &[], (0, 0)).is_none() && app.has_besides(&[]));
        held.pop();
        assert!(app.pick(Visit::new(7), &[], (0, 0)).is_some(), "who leaves makes room");
        // A release without limits, whose instances are the same ones here, has them no more.
        let (fleet, ..) = compile(&mut registry, &snapshot(2, &[(1, Role::Routed)]), Generation(1)).unwrap();
        let app = fleet.app("shop.localhost").unwrap();
        assert_eq!((0..9).filter_map(|_| app.pick(Visit::new(7), &[], (0, 0))).count(), 9);
    }

    #[test]
    fn who_waits_for_one_that_is_well_is_not_sent_to_one_that_is_not() {
        let mut registry = Registry::new(Arc::default(), PathBuf::new());
        let mut routes = snapshot(1, &[(1, Role::Routed), (2, Role::Routed)]);
        for backend in routes.apps.values_mut().flat_map(|app| &mut app.backends) {
            backend.concurrency.hard_limit = Some(1);
        }
        let (fleet, ..) = compile(&mut registry, &routes, Generation(0)).unwrap();
        let app = fleet.app("shop.localhost").unwrap();
        let (bad, good) =
            (app.pick(Visit::new(7), &[], (0, 0)).unwrap(), app.pick(Visit::new(7), &[], (0, 0)).unwrap());
        let second = Duration::from_secs(1);
        (0..5).for_each(|_| bad.backend().failed(second));
        fleet.pass_over(second, |_, decision| assert_eq!(decision, Decision::PassOver(30 * second)));
        let key = bad.backend().key;
        let backend = Arc::clone(bad.backend());
        drop(bad);
        assert!(app.pick(Visit::new(7), &[], (0, 0)).is_none() && app.has_besides(&[]));
        let instead = app.pick(Visit::new(7), &[good.backend().key], (0, 0)).unwrap();
        assert_eq!(instead.backend().key, key, "for want of another");
        drop((instead, good));
        let well = app.pick(Visit::new(7), &[], (0, 0)).unwrap();
        assert_ne!(well.backend().key, key);
        fleet.pass_over(31 * second, |_, decision| assert_eq!(decision, Decision::TryAgain));
        let trial = app.pick(Visit::new(7), &[], (0, 0)).unwrap();
        assert_eq!(trial.backend().key, key);
        assert!(backend.circuit.succeeded(|| 32 * second));
    }
}
