//! `traffic`, `promote` and `abort`.

use berth_contract::{ExitStatus, Traffic, TrafficSet};
use berth_spec::{AppId, Millis};

use super::Session;
use crate::args::{OfApp, PromoteArgs, TrafficAction, TrafficArgs};
use crate::failure::Failure;
use crate::figures;
use crate::table::Table;

impl Session<'_> {
    pub(super) async fn traffic(&mut self, args: TrafficArgs) -> Result<ExitStatus, Failure> {
        match args.action {
            None => self.show_traffic(&args.of).await,
            Some(TrafficAction::Show(of)) => self.show_traffic(&of.or(args.of)).await,
            Some(TrafficAction::Set { share, of }) => {
                let app = self.app_id(&of.or(args.of))?;
                let set = TrafficSet { release: share.release, percent: share.percent };
                let changed = self.client.set_traffic(&app, &set).await?;
                self.show(&changed, |session| {
                    session.tell_traffic(&app, &changed.traffic)?;
                    session.tell_applied(changed.applied)
                })
            }
        }
    }

    async fn show_traffic(&mut self, of: &OfApp) -> Result<ExitStatus, Failure> {
        let app = self.app_id(of)?;
        let traffic = self.client.traffic(&app).await?;
        self.show(&traffic, |session| session.tell_traffic(&app, &traffic))
    }

    pub(super) async fn promote(&mut self, args: PromoteArgs) -> Result<ExitStatus, Failure> {
        let app = self.app_id(&args.of)?;
        let changed = self.client.promote(&app).await?;
        let Some(rollout) = changed.traffic.rollout.clone() else {
            // It took over between the decision and this answer.
            return self.show(&changed, |session| session.tell_traffic(&app, &changed.traffic));
        };
        let release = self.client.release(&app, rollout.release).await?;
        self.follow(&app, release, args.waiting).await
    }

    pub(super) async fn abort(&mut self, of: &OfApp) -> Result<ExitStatus, Failure> {
        let app = self.app_id(of)?;
        let changed = self.client.abort(&app).await?;
        self.show(&changed, |session| {
            session.tell_traffic(&app, &changed.traffic)?;
            session.tell_applied(changed.applied)
        })
    }

    fn tell_applied(&mut self, applied: bool) -> Result<(), Failure> {
        if !applied {
            self.hint("edge was not heard to have taken it over yet; `berth status` shows whether it runs")?;
        }
        Ok(())
    }

    fn tell_traffic(&mut self, app: &AppId, traffic: &Traffic) -> Result<(), Failure> {
        if traffic.shares.is_empty() {
            return self.hint(&format!("{} has no release that serves; `berth deploy` makes one", app.app));
        }
        let mut table = Table::new(&["RELEASE", ">SHARE", ">INSTANCES"]);
        for share in &traffic.shares {
            table.row(vec![
                share.release.to_string().into(),
                format!("{} %", share.percent).into(),
                share.instances.to_string().into(),
            ]);
        }
        self.print(&table)?;
        for sentence in &traffic.evidence {
            self.screen.line(sentence)?;
        }
        match &traffic.rollout {
            Some(rollout) if rollout.held => self.hint(
                "its share stays as it is; `berth promote` has it take over, `berth abort` takes it back",
            ),
            Some(rollout) => {
                let steps: Vec<String> = rollout.steps.iter().map(ToString::to_string).collect();
                let interval = figures::took(Millis(rollout.interval_ms));
                self.hint(&format!(
                    "{} gets {} % in steps of {interval} each; `berth promote` has it take over at once, `berth abort` takes it back",
                    rollout.release,
                    steps.join(", ")
                ))
            }
            None if traffic.shares.len() > 1 => {
                self.hint("`berth abort` has all requests go to the release that serves again")
            }
            None => Ok(()),
        }
    }
}
