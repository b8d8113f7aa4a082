//! What is done now and then: old idempotency keys, artifacts and logs that nothing needs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use berth_clock::Clock;
use berth_control::command::Command;
use berth_control::invariant::{Invariant, kept_artifacts};
use berth_control::state::Life;
use berth_journal::Journal;
use berth_spec::{Millis, Timestamp};

use crate::desk::{Asker, Desk, breach_report};
use crate::events::{self, BREACHES};
use crate::machine::Machine;

/// How often.
const EVERY: Duration = Duration::from_secs(600);
/// How long a repeated request is recognised: longer than any client repeats one.
const KEYS_FOR: Millis = Millis::from_secs(7 * 24 * 3_600);

/// Works until the task is dropped.
pub(crate) async fn run(journal: Arc<Journal>, desk: Desk, machine: Arc<Machine>, clock: Arc<dyn Clock>) {
    let mut reported: BTreeMap<Invariant, u64> = BTreeMap::new();
    loop {
        tokio::time::sleep(EVERY).await;
        let before = Timestamp(clock.now().0.saturating_sub(KEYS_FOR.0));
        if let Err(error) = journal.purge_idempotency(before).await {
            events::could_not("delete old idempotency keys", &error);
        }
        let kept: Vec<_> =
            desk.read(|state| state.apps.values().map(|app| (app.id.clone(), kept_artifacts(app))).collect());
        machine.collect_garbage(kept).await;
        let apps: Vec<_> = desk
            .read(|state| state.apps.values().filter(|app| app.life != Life::Destroyed).cloned().collect());
        if let Err(error) = machine.repositories().keep_tidy(&apps).await {
            events::could_not("tidy the repositories", &error);
        }
        for (invariant, count) in BREACHES.counts() {
            if reported.get(&invariant) != Some(&count) {
                let detail = format!("found broken {count} times since control started");
                let breach = berth_control::invariant::Breach { invariant, detail };
                let report: Command = breach_report(&breach);
                match desk.submit(report, Asker::platform("housekeeping"), None, None).await {
                    Ok(_) => drop(reported.insert(invariant, count)),
                    // Next time, then.
                    Err(error) => events::could_not("write down a broken invariant", &error),
                }
            }
        }
    }
}
