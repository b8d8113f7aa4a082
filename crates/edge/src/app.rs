//! One app of the snapshot in use: which of its instances takes a request, and how many it had.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use berth_routing::breaker::are_outliers;
use berth_routing::wire::AppCounts;
use berth_routing::{Https, balance, retry};
use berth_spec::{AppId, Gate, InstanceId};

use crate::activity::Activity;
use crate::backend::{Backend, InFlight};
use crate::cache::Cache;
use crate::circuit::Decision;
use crate::queue::Queue;
use crate::rate::Limiter;
use crate::routes::Routes;
use crate::tally::Tally;
use crate::visit::{Split, Visit};

/// An app's requests since they were last taken.
#[derive(Debug)]
pub(crate) struct Counters {
    by_class: [AtomicU64; 5],
    unserved: AtomicU64,
    /// How many may be sent again.
    repeats: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        Self { by_class: Default::default(), unserved: AtomicU64::new(0), repeats: retry::FIRST.into() }
    }
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

    /// Whether one more request may be sent again; it counts as if it were.
    pub(crate) fn may_repeat(&self) -> bool {
        self.repeats.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    /// Called once a second.
    pub(crate) fn take(&self, app: &AppId, busy: bool) -> Option<AppCounts> {
        let by_class = self.by_class.each_ref().map(|count| count.swap(0, Relaxed));
        let unserved = self.unserved.swap(0, Relaxed);
        let requests = by_class.iter().sum();
        let refilled = |left| Some(retry::refilled(left, requests));
        let _always = self.repeats.fetch_update(Relaxed, Relaxed, refilled).is_ok();
        let any = busy || unserved > 0 || by_class.iter().any(|count| *count > 0);
        any.then(|| AppCounts { app: app.clone(), by_class, unserved, busy, releases: Vec::new() })
    }
}

/// One app of the snapshot in use.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) hold: Duration,
    pub(crate) gate: Gate,
    pub(crate) https: Https,
    pub(crate) asleep: bool,
    pub(crate) activity: Arc<Activity>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) limiter: Arc<Limiter>,
    pub(crate) routes: Arc<Routes>,
    /// There while one release alone gets requests.
    pub(crate) cache: Option<Arc<Cache>>,
    pub(crate) routed: Vec<Arc<Backend>>,
    pub(crate) split: Option<Split>,
}

impl App {
    /// Chooses a backend that is not in `tried` and counts the request in flight to it at once, so that there is no
    /// moment in which a thread has chosen and the count does not show it. One that is not well is chosen where no other is, not where
    /// the others have no room in this moment.
    pub(crate) fn pick(&self, visit: Visit, tried: &[u64], random: (u32, u32)) -> Option<InFlight> {
        let share = self.split.as_ref().and_then(|split| split.share_for(visit, &self.routed, tried));
        let load = |place: usize| {
            let backend = self.routed.get(place).filter(|backend| !tried.contains(&backend.key))?;
            if share.is_some_and(|share| !share.instances.contains(&backend.instance.ordinal)) {
                return None;
            }
            let load = backend.load()?;
            let is_out = load.failing && self.has_well(tried);
            (!is_out).then_some(load)
        };
        loop {
            let place = balance::pick(self.routed.len(), load, random)?;
            let chosen = self.routed.get(place).and_then(InFlight::new);
            if chosen.is_some() {
                return chosen;
            }
        }
    }

    fn has_well(&self, tried: &[u64]) -> bool {
        self.routed.iter().any(|backend| !tried.contains(&backend.key) && backend.is_well())
    }

    /// Decides at `now` which instances are passed over because requests to them fail, and says what is new.
    pub(crate) fn pass_over(&self, now: Duration, told: &impl Fn(&InstanceId, Decision)) {
        if !self.routed.iter().any(|backend| backend.circuit.is_open()) {
            return;
        }
        // While releases share the requests each is looked at by itself: that all of a new one's instances fail is what it is to be taken back for, and who
        // passes them over sees no more of it.
        let mut releases: BTreeMap<Option<usize>, Vec<&Backend>> = BTreeMap::new();
        for backend in &self.routed {
            let place = self.split.as_ref().and_then(|split| split.place_of(backend.instance.ordinal));
            releases.entry(place).or_default().push(backend.as_ref());
        }
        for instances in releases.into_values() {
            let open = instances.iter().filter(|backend| backend.circuit.is_open()).count();
            let outliers = are_outliers(open, instances.len());
            for backend in instances {
                if let Some(decision) = backend.circuit.decide(outliers, now) {
                    told(&backend.instance, decision);
                }
            }
        }
    }

    /// Whether there is an instance that is not in `tried`. Where none was picked, all such have as many requests as they may.
    pub(crate) fn has_besides(&self, tried: &[u64]) -> bool {
        self.routed.iter().any(|backend| !tried.contains(&backend.key))
    }

    /// Whether its requests differ in nothing but which instance they go to: by no header, and by nobody who sends them.
    pub(crate) fn is_plain(&self) -> bool {
        self.split.is_none()
            && !self.limiter.has_rules()
            && self.cache.is_none()
            && !self.routed.iter().any(|backend| backend.speaks_http2())
    }

    /// Where a request is counted that went to `lease`, while requests are shared between releases.
    pub(crate) fn tally_of(&self, visit: Visit, lease: &InFlight) -> Option<&Arc<Tally>> {
        self.split.as_ref()?.tally_of(visit, lease)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_again_is_paid_for_by_what_was_answered() {
        let (counters, app) = (Counters::default(), "default/default/shop".parse().unwrap());
        let spent = || std::iter::from_fn(|| counters.may_repeat().then_some(())).count();
        assert_eq!(spent(), 100);
        assert!(counters.take(&app, false).is_none());
        assert_eq!(spent(), 10);
        (0..50).for_each(|_| counters.answered(200));
        assert!(counters.take(&app, false).is_some());
        assert_eq!(spent(), 20);
    }
}
