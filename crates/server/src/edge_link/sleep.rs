//! What edge says of apps that sleep: who keeps them awake, who wants them, what stands open only.

use std::collections::BTreeMap;

use berth_control::event::Ordinal;
use berth_control::state::App;
use berth_routing::Generation;
use berth_routing::wire::AppCounts;
use berth_spec::{AppId, Gate, InstanceId, Millis};

use super::EdgeLink;
use crate::desk::Desk;

/// Edge tells once a second of those who do something. What it has told holds until it would have told again, and a little longer.
const TOLD_EVERY: Millis = Millis(1_500);

fn is_wanted(app: &App, count: &AppCounts) -> bool {
    count.unserved > 0 && app.gate == Gate::Open
}

impl EdgeLink {
    /// Takes note of who keeps apps awake: clients who want something of the app itself, and not of what is stored of it. An app that sleeps and
    /// whose requests were not served is wanted: an edge of an older version does not say so itself. Not while it is paused or under maintenance,
    /// when nobody is served on purpose.
    pub(super) fn note_activity(&self, counts: &[AppCounts], desk: &Desk) {
        let now = self.clock.monotonic();
        for count in counts {
            let Some(app) = desk.app(&count.app) else { continue };
            self.with(|known| {
                if count.busy {
                    known.stirred.insert(count.app.clone(), now);
                }
                if let Some(asleep) = app.asleep.filter(|_| is_wanted(&app, count)) {
                    let wanted = Generation(asleep.position);
                    for process in known.edges.values_mut() {
                        process.wanted.insert(app.id.clone(), wanted);
                    }
                }
            });
            if app.asleep.is_some() && is_wanted(&app, count) {
                desk.changed().add(count.app.clone());
            }
        }
    }

    /// How long ago it was last heard of somebody who keeps the app awake.
    pub(crate) fn idle(&self, app: &AppId) -> Option<Millis> {
        let now = self.clock.monotonic();
        let last = self.with(|known| known.stirred.get(app).copied())?;
        let ago = now.saturating_sub(last).saturating_sub(TOLD_EVERY.as_duration());
        Some(Millis(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Whether somebody waits for the app, of this sleep and not of an earlier one.
    pub(crate) fn is_wanted(&self, app: &App) -> bool {
        let Some(asleep) = app.asleep else { return false };
        let meant = Some(Generation(asleep.position));
        self.with(|known| known.edges.values().any(|process| process.wanted.get(&app.id).copied() == meant))
    }

    /// The generation as of which no living edge has a request under way to an instance, for those of `ids` of which that is so.
    pub(crate) fn still(&self, ids: &[(Ordinal, InstanceId)]) -> BTreeMap<Ordinal, Generation> {
        self.with(|known| {
            let of = |id: &InstanceId| {
                let said = known.edges.values().map(|it| it.drained.get(id).max(it.still.get(id)).copied());
                said.collect::<Option<Vec<Generation>>>()?.into_iter().min()
            };
            ids.iter().filter_map(|(ordinal, id)| Some((*ordinal, of(id)?))).collect()
        })
    }
}
