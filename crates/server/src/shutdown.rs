//! Going down: every instance is stopped as its app wants to be stopped, and that is written down.

use std::sync::Arc;
use std::time::Duration;

use berth_control::command::{Command, Fact};
use berth_control::event::{GoneCause, RunEnd, RunStop};
use berth_control::state::App;

use crate::desk::{Asker, Desk};
use crate::machine::Machine;

/// What an instance may take beyond its own time: the kill itself and its notice.
const MARGIN: Duration = Duration::from_secs(5);

/// Stops all instances at once and waits until they are gone.
pub(crate) async fn stop_everything(desk: &Desk, machine: &Arc<Machine>) {
    let runs_something = |app: &&Arc<App>| !app.instances.is_empty() || !app.runs.is_empty();
    let apps: Vec<Arc<App>> =
        desk.read(|state| state.apps.values().filter(runs_something).cloned().collect());
    let releases =
        apps.iter().flat_map(|app| app.instances.values().filter_map(|it| app.release(it.release)));
    let within = releases.map(|release| release.manifest.shutdown.kill_after).max().unwrap_or_default();
    machine.say_stopping(apps.len(), within);
    // A start that was under way would come up after its instance was told to stop, and then serve nobody until it is killed.
    machine.end_starts().await;
    machine.stop_jobs().await;
    for app in &apps {
        for &ordinal in app.instances.keys() {
            machine.stop(app, ordinal).await;
        }
        for &run in app.runs.keys() {
            machine.stop_run(app, run, RunStop::PlatformDown);
        }
    }
    let all_gone = machine.all_gone();
    if tokio::time::timeout(within.as_duration() + MARGIN, all_gone).await.is_err() {
        machine.kill_everything().await;
    }
    let gone = apps.iter().flat_map(|app| {
        app.instances.keys().map(|&ordinal| Command::Fact {
            app: app.id.clone(),
            fact: Fact::Gone { ordinal, cause: GoneCause::PlatformDown },
        })
    });
    let ended = apps.iter().flat_map(|app| {
        app.runs.keys().map(|&run| Command::Fact {
            app: app.id.clone(),
            fact: Fact::RunEnded { run, end: RunEnd::stopped(RunStop::PlatformDown) },
        })
    });
    let gone = gone.chain(ended);
    // Should the journal not take it, the next start finds them gone by itself.
    drop(desk.submit_all(gone.collect(), &Asker::platform("down")).await);
    machine.clear_everything().await;
}
