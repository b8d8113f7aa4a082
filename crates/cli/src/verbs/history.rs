//! `why` and `timeline`.

use berth_contract::{ExitStatus, TimelineEntry, TimelineQuery, WhyQuery};
use berth_spec::Timestamp;

use super::Session;
use crate::args::{TimelineArgs, WhyArgs};
use crate::failure::Failure;
use crate::figures;
use crate::screen::{Style, harmless, paint};
use crate::table::{Cell, Table};

impl Session<'_> {
    pub(super) async fn why(&mut self, args: WhyArgs) -> Result<ExitStatus, Failure> {
        let app = self.app_id(&args.of)?;
        let why = self.client.why(&app, &WhyQuery { subject: args.subject }).await?;
        let now = self.clock.now();
        self.show(&why, |session| {
            session.screen.styled(&harmless(&why.question), Style::Bold)?;
            for line in why.answer.lines() {
                session.screen.line(&harmless(line))?;
            }
            for evidence in &why.because {
                let position = paint(&format!("#{}", evidence.position), Style::Dim, session.screen.colour);
                let when = figures::ago(now, evidence.at);
                session.screen.line(&format!("  {position} {when}: {}", harmless(&evidence.text)))?;
            }
            Ok(())
        })
    }

    pub(super) async fn timeline(&mut self, args: TimelineArgs) -> Result<ExitStatus, Failure> {
        let app = if args.all { None } else { Some(self.app_id(&args.of)?) };
        let query = TimelineQuery { after: args.after, limit: Some(args.count) };
        let page = self.client.timeline(app.as_ref(), &query).await?;
        let now = self.clock.now();
        self.show(&page, |session| {
            if page.entries.is_empty() {
                return session.hint("nothing happened");
            }
            session.print(&timeline_table(&page.entries, now, args.all))
        })
    }
}

pub(super) fn timeline_table(entries: &[TimelineEntry], now: Timestamp, all: bool) -> Table {
    let head: &[&str] = if all {
        &[">POSITION", "WHEN", "APP", "WHO", "WHAT"]
    } else {
        &[">POSITION", "WHEN", "WHO", "WHAT"]
    };
    let mut table = Table::new(head);
    for entry in entries {
        let mut row = vec![
            Cell::new(entry.position.to_string(), Style::Dim),
            figures::ago(now, entry.at).into(),
            entry.actor.as_str().into(),
            entry.text.as_str().into(),
        ];
        if all {
            let app = entry.app.as_ref().map_or("-".to_owned(), |app| app.app.to_string());
            row.insert(2, app.into());
        }
        table.row(row);
    }
    table
}
