//! `domains`.

use berth_contract::{Domain, DomainSource, DomainsPatch, ExitStatus};

use super::Session;
use crate::args::{DomainsAction, DomainsArgs, OfApp};
use crate::failure::Failure;
use crate::screen::Style;
use crate::table::{Cell, Table};

impl Session<'_> {
    pub(super) async fn domains(&mut self, args: DomainsArgs) -> Result<ExitStatus, Failure> {
        let (patch, of) = match args.action {
            None => return self.list_domains(&args.of).await,
            Some(DomainsAction::List(of)) => return self.list_domains(&of.or(args.of)).await,
            Some(DomainsAction::Add { hosts, of }) => {
                (DomainsPatch { add: hosts, remove: Vec::new() }, of.or(args.of))
            }
            Some(DomainsAction::Remove { hosts, of }) => {
                (DomainsPatch { add: Vec::new(), remove: hosts }, of.or(args.of))
            }
        };
        let app = self.app_id(&of)?;
        let changed = self.client.patch_domains(&app, &patch).await?;
        self.show(&changed, |session| {
            for host in &patch.add {
                session.screen.line(&format!("{host} leads to {}", app.app))?;
            }
            for host in &patch.remove {
                session.screen.line(&format!("{host} no longer leads to {}", app.app))?;
            }
            if !changed.applied {
                session.hint(
                    "edge was not heard to have taken it over yet; `berth status` shows whether it runs",
                )?;
            }
            let is_localhost = |host: &berth_spec::HostName| host.as_str() == "localhost";
            if patch.add.iter().any(is_localhost) {
                session.hint(
                    "localhost is whatever machine it is asked at: it leads here from this machine alone",
                )?;
            }
            if patch.add.iter().any(|host| !host.as_str().ends_with(".localhost") && !is_localhost(host)) {
                session.hint("for visitors its DNS record has to name this machine")?;
            }
            Ok(())
        })
    }

    async fn list_domains(&mut self, of: &OfApp) -> Result<ExitStatus, Failure> {
        let list = self.client.domains(&self.app_id(of)?).await?;
        self.show(&list, |session| {
            let mut table = Table::new(&["HOST", "BECAUSE"]);
            for Domain { host, source } in &list.domains {
                let because = match source {
                    DomainSource::Default => Cell::new("every app has it", Style::Dim),
                    DomainSource::Manifest => "berth.toml names it".into(),
                    DomainSource::Added => "it was added".into(),
                };
                table.row(vec![host.as_str().into(), because]);
            }
            session.print(&table)
        })
    }
}
