//! `maintenance`, `pause` and `resume`.

use berth_contract::{ExitStatus, GateChange};
use berth_spec::Gate;
use serde_json::json;

use super::Session;
use crate::args::{MaintenanceArgs, OfApp, Switch};
use crate::failure::Failure;

impl Session<'_> {
    pub(super) async fn maintenance(&mut self, args: MaintenanceArgs) -> Result<ExitStatus, Failure> {
        match args.switch {
            Some(Switch::On) => self.gate(&args.of, Gate::Maintenance).await,
            Some(Switch::Off) => self.gate(&args.of, Gate::Open).await,
            None => {
                let app = self.app_id(&args.of)?;
                let gate = self.client.app(&app).await?.summary.gate;
                self.show(&json!({ "gate": gate }), |session| {
                    Ok(session.screen.line(&format!("{}: {}", app.app, in_words(gate)))?)
                })
            }
        }
    }

    pub(super) async fn gate(&mut self, of: &OfApp, gate: Gate) -> Result<ExitStatus, Failure> {
        let app = self.app_id(of)?;
        let changed = self.client.change_gate(&app, &GateChange { gate }).await?;
        self.show(&changed, |session| {
            session.screen.line(&format!("{}: {}", app.app, in_words(gate)))?;
            if !changed.applied {
                session.hint(
                    "edge was not heard to have taken it over yet; `berth status` shows whether it runs",
                )?;
            }
            match gate {
                Gate::Open => Ok(()),
                Gate::Paused => session.hint("`berth resume` lets them through"),
                Gate::Maintenance => session.hint("`berth maintenance off` lets requests through again"),
            }
        })
    }
}

fn in_words(gate: Gate) -> &'static str {
    match gate {
        Gate::Open => "requests go to the app",
        Gate::Paused => "requests wait, each for 30 seconds at most",
        Gate::Maintenance => "requests are answered with 503: under maintenance",
    }
}
