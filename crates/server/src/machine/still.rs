//! Instances of apps that sleep: having them stand still, and go on.

use berth_control::event::Ordinal;
use berth_control::state::App;
use berth_runtime::{Frozen, RuntimeError};
use berth_spec::InstanceId;

use super::Machine;
use crate::events;

impl Machine {
    /// Has an instance stand still. Where that cannot be done its app is stopped in its sleep instead, as the next look shows.
    pub async fn freeze(&self, app: &App, ordinal: Ordinal) {
        let Some(id) = app.instance_id(ordinal) else { return };
        match self.runtime.freeze(&id, Frozen::Resident).await {
            Ok(()) => self.note_still(&id, true),
            Err(RuntimeError::NotFound(_)) => {}
            Err(error) => {
                events::could_not("have an instance stand still", &error);
                // It may stand still in part.
                self.notes().frozen.remove(&id);
                self.notes().not_frozen.insert(id);
            }
        }
        self.desk.changed().add(app.id.clone());
    }

    /// Has an instance go on. Should that fail, the next look tries again.
    pub async fn thaw(&self, app: &App, ordinal: Ordinal) {
        let Some(id) = app.instance_id(ordinal) else { return };
        match self.runtime.thaw(&id).await {
            // One that has no control group never stood still.
            Ok(()) | Err(RuntimeError::NotFound(_) | RuntimeError::Invalid(_)) => {
                self.note_still(&id, false);
                self.desk.changed().add(app.id.clone());
            }
            Err(error) => events::could_not("have an instance go on", &error),
        }
    }

    pub(super) fn note_still(&self, id: &InstanceId, still: bool) {
        self.notes().frozen.insert(id.clone(), still);
    }

    /// Which instances of an app stand still and which go on, as far as this process had them do so.
    pub(super) fn frozen(&self, app: &App) -> std::collections::BTreeMap<Ordinal, bool> {
        let notes = self.notes();
        let of_app = notes.frozen.iter().filter(|(id, _)| id.app == app.id);
        of_app.map(|(id, still)| (id.ordinal, *still)).collect()
    }

    /// Whether instances of an app can be had stand still, as far as that was tried.
    pub(super) fn can_freeze(&self, app: &App) -> bool {
        self.freezes() && !self.notes().not_frozen.iter().any(|id| id.app == app.id)
    }

    /// Whether an instance stands still, for those who show it.
    #[must_use]
    pub fn stands_still(&self, id: &InstanceId) -> bool {
        self.notes().frozen.get(id) == Some(&true)
    }

    /// Has everything go on that an earlier control left standing still, but what sleeps.
    pub(super) async fn thaw_all(&self) {
        for observed in self.runtime.list().into_iter().filter(|it| !it.state.is_over()) {
            let app = &observed.id.app;
            if self.desk.app(app).is_some_and(|app| app.asleep.is_some()) {
                continue;
            }
            // One that has no control group never stood still.
            drop(self.runtime.thaw(&observed.id).await);
        }
    }
}
