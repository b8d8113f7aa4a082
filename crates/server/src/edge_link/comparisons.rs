//! What edge counted of releases between which requests are shared, as far as it can be compared.
//!
//! It is only seen, so none of it is kept: a control that is started anew begins to compare anew, and the step of the rollout begins anew with it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_control::state::App;
use berth_control::world::Compared;
use berth_rollout::{Comparison, Second, Slice};
use berth_routing::wire::{AppCounts, ReleaseCounts};
use berth_spec::{AppId, ReleaseNumber};

use crate::desk::Desk;

/// The comparisons of all apps whose requests are shared; bounded by their number, since each has the same size whatever comes.
#[derive(Debug, Default)]
pub(super) struct Comparisons(Mutex<BTreeMap<AppId, Watched>>);

#[derive(Debug)]
struct Watched {
    new: ReleaseNumber,
    old: ReleaseNumber,
    /// The share that the new one had when this was last brought up to date.
    percent: u8,
    comparison: Comparison,
}

impl Comparisons {
    /// Takes in what edge counted, if the app's requests are shared now, and has the app looked at again.
    pub(super) fn hear(&self, counts: &AppCounts, desk: &Desk) {
        if counts.releases.is_empty() {
            return;
        }
        let Some(app) = desk.read(|state| state.apps.get(&counts.app).cloned()) else { return };
        let mut all = self.lock();
        let Some(watched) = brought_up(&mut all, &app) else { return };
        let of =
            |release| counts.releases.iter().find(|it| it.release == release).map(slice).unwrap_or_default();
        watched.comparison.add(&Second { new: of(watched.new), old: of(watched.old) });
        drop(all);
        desk.changed().add(app.id.clone());
    }

    /// What was seen of the app's other release so far; nothing while its requests are not shared.
    pub(super) fn of(&self, app: &App) -> Option<Compared> {
        let mut all = self.lock();
        let watched = brought_up(&mut all, app)?;
        let analysis = &app.release(watched.new)?.manifest.deploy.canary.analysis;
        let evidence = watched.comparison.evidence(analysis);
        Some(Compared { release: watched.new, percent: watched.percent, evidence })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<AppId, Watched>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The app's comparison, brought to the releases and the share that it has now; none, and nothing kept, where it has none.
fn brought_up<'a>(all: &'a mut BTreeMap<AppId, Watched>, app: &App) -> Option<&'a mut Watched> {
    let Some((split, old)) = app.split.zip(app.serving) else {
        all.remove(&app.id);
        return None;
    };
    let (new, percent) = (split.release, split.percent);
    if all.get(&app.id).is_some_and(|it| (it.new, it.old) != (new, old)) {
        all.remove(&app.id);
    }
    let watched = all.entry(app.id.clone()).or_insert_with(|| {
        let steps = app.release(new).map_or(1, |release| release.manifest.deploy.canary.steps.len());
        Watched { new, old, percent, comparison: Comparison::new(steps) }
    });
    if watched.percent != percent {
        watched.percent = percent;
        watched.comparison.begin_step();
    }
    Some(watched)
}

fn slice(counts: &ReleaseCounts) -> Slice {
    Slice { requests: counts.requests, errors: counts.errors, latencies: counts.latencies.clone() }
}
