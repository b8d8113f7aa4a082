//! `cron`.

use berth_contract::{CronEntry, CronPast, CronState, ExitStatus};
use berth_spec::{AppId, CronName, Timestamp};
use serde::Serialize;

use super::Session;
use crate::args::{CronAction, CronArgs, OfApp};
use crate::failure::Failure;
use crate::figures;
use crate::screen::Style;
use crate::table::{Cell, Table};

/// What became of one entry at one time.
#[derive(Debug, Serialize)]
struct Told {
    entry: CronName,
    #[serde(flatten)]
    past: CronPast,
}

impl Session<'_> {
    pub(super) async fn cron(&mut self, args: CronArgs) -> Result<ExitStatus, Failure> {
        match args.action {
            None => self.list_cron(&args.of).await,
            Some(CronAction::List(of)) => self.list_cron(&of.or(args.of)).await,
            Some(CronAction::Run { name, of }) => self.run_cron(&name, &of.or(args.of)).await,
            Some(CronAction::History { name, of }) => self.cron_history(name, &of.or(args.of)).await,
        }
    }

    async fn list_cron(&mut self, of: &OfApp) -> Result<ExitStatus, Failure> {
        let app = self.app_id(of)?;
        let list = self.client.cron(&app).await?;
        let now = self.clock.now();
        self.show(&list, |session| {
            if list.entries.is_empty() {
                return session.hint(&format!(
                    "{} runs nothing by a schedule; write [[cron]] into berth.toml and deploy",
                    app.app
                ));
            }
            let mut table = Table::new(&["NAME", "WHEN", "LAST", "NEXT", "COMMAND"]);
            for entry in &list.entries {
                table.row(vec![
                    entry.name.as_str().into(),
                    when(entry).as_str().into(),
                    last(entry.last.as_ref(), now),
                    next(entry.next, now),
                    entry.command.as_str().into(),
                ]);
            }
            session.print(&table)?;
            if list.stopped {
                session.hint("the app is scaled to nothing, so nothing runs by a schedule")?;
            }
            Ok(())
        })
    }

    async fn run_cron(&mut self, name: &CronName, of: &OfApp) -> Result<ExitStatus, Failure> {
        let app = self.app_id(of)?;
        let run = self.client.run_cron(&app, name).await?;
        self.show(&run, |session| {
            let short = run.id.short();
            session.screen.line(&format!("{name} of {} runs as {short}", app.app))?;
            session.hint(&format!(
                "`berth logs -f -i {short}` shows what it writes, `berth cron history {name}` how it ended"
            ))
        })
    }

    async fn cron_history(&mut self, name: Option<CronName>, of: &OfApp) -> Result<ExitStatus, Failure> {
        let app = self.app_id(of)?;
        let told = self.told(&app, name).await?;
        let now = self.clock.now();
        self.show(&told, |session| {
            if told.is_empty() {
                return session.hint("nothing ran by a schedule yet; `berth cron` shows what is due when");
            }
            let mut table = Table::new(&["ENTRY", "DUE", "RUN", "RESULT", "WHY"]);
            for Told { entry, past } in &told {
                table.row(vec![
                    entry.as_str().into(),
                    due(past).as_str().into(),
                    past.run.as_ref().map_or_else(|| "-".to_owned(), |run| run.short()).into(),
                    Cell::new(past.state.as_str(), style(past.state)),
                    why(past, now).into(),
                ]);
            }
            session.print(&table)?;
            session.hint("`berth logs -i run.N` shows what a run wrote, `berth why run.N` how it ended")
        })
    }

    /// What became of one entry or of all, the newest first.
    async fn told(&self, app: &AppId, name: Option<CronName>) -> Result<Vec<Told>, Failure> {
        let names = match name {
            Some(name) => vec![name],
            None => self.client.cron(app).await?.entries.into_iter().map(|entry| entry.name).collect(),
        };
        let mut told = Vec::new();
        for entry in names {
            let history = self.client.cron_history(app, &entry).await?;
            told.extend(history.past.into_iter().map(|past| Told { entry: entry.clone(), past }));
        }
        told.sort_by_key(|it| std::cmp::Reverse(it.past.at));
        Ok(told)
    }
}

fn when(entry: &CronEntry) -> String {
    // What comes every few minutes does so anywhere.
    let of_day = entry.in_words.contains(':');
    match entry.timezone.as_str() {
        _ if !of_day => entry.in_words.clone(),
        "UTC" => format!("{} UTC", entry.in_words),
        zone => format!("{} in {zone}", entry.in_words),
    }
}

fn last(past: Option<&CronPast>, now: Timestamp) -> Cell {
    match past {
        None => Cell::new("-", Style::Dim),
        Some(past) => {
            let text =
                format!("{} {}", past.state.as_str(), figures::ago(now, past.ended_at.unwrap_or(past.at)));
            Cell::new(text, style(past.state))
        }
    }
}

fn next(next: Option<Timestamp>, now: Timestamp) -> Cell {
    match next {
        None => Cell::new("-", Style::Dim),
        Some(next) => format!("in {}", figures::coarse(next - now)).into(),
    }
}

/// To the minute, in UTC.
fn due(past: &CronPast) -> String {
    match past.due {
        None => "asked for".to_owned(),
        Some(due) => figures::exact(due).chars().take(16).collect::<String>().replace('T', " "),
    }
}

fn why(past: &CronPast, now: Timestamp) -> String {
    let mut text = match &past.why {
        Some(why) => why.clone(),
        None => format!("since {}", figures::ago(now, past.at)),
    };
    if past.missed > 0 {
        text.push_str(&format!("; {} before it missed", past.missed));
    }
    text
}

fn style(state: CronState) -> Style {
    match state {
        CronState::Running => Style::Plain,
        CronState::Succeeded => Style::Good,
        CronState::Failed => Style::Bad,
        CronState::Skipped => Style::Dim,
    }
}
