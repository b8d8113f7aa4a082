//! A failed release with all that helps to understand it: also what it changed since the last one that served.

use berth_contract::{Failure, Release};
use berth_control::report;
use berth_control::state::{App, Phase, Release as KnownRelease};

use super::{Api, views};

/// A release as it is shown by itself.
pub(super) async fn release(api: &Api, app: &App, release: &KnownRelease) -> Release {
    let failure = failure(api, app, release).await;
    Release { failure, ..views::release(api, app, release) }
}

/// Why a release failed, if it did, and what it changed. What changed is worked out when it is asked for, and not kept with the failure: it
/// is there as long as both releases and their sources are.
pub(super) async fn failure(api: &Api, app: &App, release: &KnownRelease) -> Option<Failure> {
    let shown = views::failure(release.failure.as_ref()?);
    let before = app.releases.range(..release.number).map(|(_, it)| it);
    let Some(good) = before.rev().find(|it| it.phase == Phase::Activated) else {
        return Some(shown);
    };
    let differ = good.tree != release.tree;
    let source =
        if differ { api.machine.source_diff(&app.id.tenant, &good.tree, &release.tree).await } else { None };
    Some(Failure {
        changed: report::changed(good, release, source.as_ref()),
        changed_since: Some(good.number),
        ..shown
    })
}
