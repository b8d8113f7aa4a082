//! What control is told, kept so that a new connection to it can be told everything again.

use std::collections::{BTreeMap, BTreeSet};

use berth_routing::Generation;
use berth_routing::wire::{AppCounts, FromEdge, Health};
use berth_spec::{AppId, InstanceId};

use crate::tally;

/// What edge knows that control should know. Bounded by the instances and apps of the snapshot: a newer statement
/// about the same thing replaces the older one, sent or not.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    applied: Option<Generation>,
    drained: BTreeMap<InstanceId, Generation>,
    health: BTreeMap<InstanceId, (Health, Vec<String>)>,
    still: BTreeMap<InstanceId, Generation>,
    wanted: BTreeMap<AppId, Generation>,
    counts: BTreeMap<AppId, AppCounts>,
    unsent: Unsent,
}

#[derive(Debug, Default)]
struct Unsent {
    applied: bool,
    drained: BTreeSet<InstanceId>,
    health: BTreeSet<InstanceId>,
    still: BTreeSet<InstanceId>,
    wanted: BTreeSet<AppId>,
}

/// Drained instances that are in no snapshot any more are remembered up to this number, so that a control which was
/// restarted in the meantime hears of them.
const DRAINED_MAX: usize = 10_000;

impl Ledger {
    /// Every thread uses `generation`.
    pub(crate) fn applied(&mut self, generation: Generation) {
        self.unsent.applied |= self.applied != Some(generation);
        self.applied = Some(generation);
    }

    /// Control repeated a snapshot, so it shall hear again which one is in use.
    pub(crate) fn repeat_applied(&mut self) {
        self.unsent.applied |= self.applied.is_some();
    }

    /// As of `generation`, which is applied, exactly the instances in `quiet` have nothing under way and get nothing
    /// new; `routed` are those that get requests. Each is told once until it is routed again.
    pub(crate) fn drained(
        &mut self,
        quiet: BTreeSet<InstanceId>,
        generation: Generation,
        routed: impl Fn(&InstanceId) -> bool,
    ) {
        self.drained.retain(|instance, _| !routed(instance));
        for instance in quiet {
            if !self.drained.contains_key(&instance) {
                self.unsent.drained.insert(instance.clone());
                self.drained.insert(instance, generation);
            }
        }
        while self.drained.len() > DRAINED_MAX {
            // The one that was drained longest ago.
            let oldest = self.drained.iter().min_by_key(|(_, generation)| **generation);
            let Some(oldest) = oldest.map(|(instance, _)| instance.clone()) else { break };
            self.drained.remove(&oldest);
        }
    }

    /// As of `generation`, which is applied, exactly the instances in `still` have nothing under way but what stands open.
    pub(crate) fn still(&mut self, still: &BTreeSet<InstanceId>, generation: Generation) {
        self.still.retain(|instance, _| still.contains(instance));
        self.unsent.still.retain(|instance| still.contains(instance));
        for instance in still {
            if !self.still.contains_key(instance) {
                self.unsent.still.insert(instance.clone());
                self.still.insert(instance.clone(), generation);
            }
        }
    }

    /// Somebody waits for exactly these apps, which sleep.
    pub(crate) fn wanted(&mut self, wanted: BTreeMap<AppId, Generation>) {
        let news = wanted.iter().filter(|(app, asleep)| self.wanted.get(*app) != Some(*asleep));
        self.unsent.wanted.extend(news.map(|(app, _)| app.clone()));
        self.wanted = wanted;
    }

    pub(crate) fn health(&mut self, instance: &InstanceId, health: Health, evidence: Vec<String>) {
        let news = (health, evidence);
        if self.health.get(instance) != Some(&news) {
            self.health.insert(instance.clone(), news);
            self.unsent.health.insert(instance.clone());
        }
    }

    /// The instance is probed no longer.
    pub(crate) fn forget_health(&mut self, instance: &InstanceId) {
        self.health.remove(instance);
        self.unsent.health.remove(instance);
    }

    pub(crate) fn count(&mut self, counts: Vec<AppCounts>) {
        for count in counts {
            match self.counts.get_mut(&count.app) {
                None => {
                    self.counts.insert(count.app.clone(), count);
                }
                Some(sum) => {
                    for (sum, more) in sum.by_class.iter_mut().zip(count.by_class) {
                        *sum += more;
                    }
                    sum.unserved += count.unserved;
                    count.releases.into_iter().for_each(|more| tally::add(&mut sum.releases, more));
                    sum.busy |= count.busy;
                }
            }
        }
    }

    /// A new connection to control: everything that is true is to be said again.
    pub(crate) fn connected(&mut self) {
        self.unsent.applied = self.applied.is_some();
        self.unsent.drained = self.drained.keys().cloned().collect();
        self.unsent.health = self.health.keys().cloned().collect();
        self.unsent.still = self.still.keys().cloned().collect();
        self.unsent.wanted = self.wanted.keys().cloned().collect();
    }

    /// What was not said yet and only a control that knows of sleeping apps takes.
    pub(crate) fn take_of_sleep(&mut self) -> Vec<FromEdge> {
        let mut messages = Vec::new();
        for instance in std::mem::take(&mut self.unsent.still) {
            if let Some(generation) = self.still.get(&instance).copied() {
                messages.push(FromEdge::Still { instance, generation });
            }
        }
        for app in std::mem::take(&mut self.unsent.wanted) {
            if let Some(asleep) = self.wanted.get(&app).copied() {
                messages.push(FromEdge::Wanted { app, asleep });
            }
        }
        messages
    }

    /// What was not said yet. Health goes before Applied and Drained, so that who acts on those knows it.
    pub(crate) fn take(&mut self) -> Vec<FromEdge> {
        let mut messages = Vec::new();
        for instance in std::mem::take(&mut self.unsent.health) {
            if let Some((health, evidence)) = self.health.get(&instance).cloned() {
                messages.push(FromEdge::Health { instance, health, evidence });
            }
        }
        if std::mem::take(&mut self.unsent.applied)
            && let Some(generation) = self.applied
        {
            messages.push(FromEdge::Applied { generation });
        }
        for instance in std::mem::take(&mut self.unsent.drained) {
            if let Some(generation) = self.drained.get(&instance).copied() {
                messages.push(FromEdge::Drained { instance, generation });
            }
        }
        if !self.counts.is_empty() {
            let apps = std::mem::take(&mut self.counts).into_values().collect();
            messages.push(FromEdge::Counts { apps });
        }
        messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(ordinal: u64) -> InstanceId {
        format!("default/default/shop/web.{ordinal}").parse().unwrap()
    }

    #[test]
    fn each_thing_is_said_once_and_all_again_after_a_reconnect() {
        let mut ledger = Ledger::default();
        ledger.applied(Generation(3));
        ledger.drained([instance(1)].into(), Generation(3), |_| false);
        ledger.health(&instance(2), Health::Ready, vec!["GET /up answered 200".to_owned()]);
        let said = ledger.take();
        assert_eq!(said.len(), 3);
        ledger.applied(Generation(3));
        ledger.drained([instance(1)].into(), Generation(3), |_| false);
        ledger.health(&instance(2), Health::Ready, vec!["GET /up answered 200".to_owned()]);
        assert_eq!(ledger.take(), []);
        ledger.connected();
        assert_eq!(ledger.take(), said);
    }

    #[test]
    fn what_is_routed_again_may_drain_again() {
        let mut ledger = Ledger::default();
        ledger.drained([instance(1)].into(), Generation(3), |_| false);
        ledger.take();
        ledger.drained(BTreeSet::new(), Generation(4), |_| true);
        ledger.drained([instance(1)].into(), Generation(5), |_| false);
        assert_eq!(ledger.take(), [FromEdge::Drained { instance: instance(1), generation: Generation(5) }]);
    }

    #[test]
    fn counts_add_up_until_they_are_sent() {
        let mut ledger = Ledger::default();
        let app = instance(1).app;
        for _ in 0..3 {
            ledger.count(vec![AppCounts {
                app: app.clone(),
                by_class: [0, 2, 0, 0, 1],
                unserved: 1,
                busy: false,
                releases: Vec::new(),
            }]);
        }
        let apps = vec![AppCounts {
            app,
            by_class: [0, 6, 0, 0, 3],
            unserved: 3,
            busy: false,
            releases: Vec::new(),
        }];
        assert_eq!(ledger.take(), [FromEdge::Counts { apps }]);
        assert_eq!(ledger.take(), []);
    }
}
