//! `releases` and `rollback`.

use berth_contract::{Code, ExitStatus, Reason, Release, ReleaseState, RollBack};
use berth_spec::{ReleaseNumber, Timestamp};
use serde_json::json;

use super::Session;
use super::diff::Shown;
use crate::args::{DiffArgs, ReleasesAction, ReleasesArgs, RollbackArgs};
use crate::failure::Failure;
use crate::figures;
use crate::screen::Style;
use crate::table::{Cell, Table};

impl Session<'_> {
    pub(super) async fn releases(&mut self, args: ReleasesArgs) -> Result<ExitStatus, Failure> {
        if let Some(ReleasesAction::Diff(diff)) = args.action {
            return self.diff(DiffArgs { of: diff.of.clone().or(args.of), ..diff }, Shown::All).await;
        }
        let app = self.app_id(&args.of)?;
        let now = self.clock.now();
        if let Some(number) = args.release {
            let release = self.client.release(&app, number).await?;
            return self.show(&release, |session| {
                for line in description(&release, now) {
                    session.screen.line(&line)?;
                }
                Ok(())
            });
        }
        let mut list = self.client.releases(&app).await?;
        list.releases.truncate(args.count);
        self.show(&list, |session| {
            if list.releases.is_empty() {
                return session.hint("no releases yet: `berth deploy` makes one");
            }
            session.print(&releases_table(&list.releases, now))
        })
    }

    pub(super) async fn rollback(&mut self, args: RollbackArgs) -> Result<ExitStatus, Failure> {
        let app = self.app_id(&args.of)?;
        let to = match args.release {
            Some(number) => number,
            None => target(&self.client.releases(&app).await?.releases)?,
        };
        let rollback = RollBack { to: Some(to), keep_config: args.keep_config };
        let release = self.client.roll_back(&app, &rollback).await?;
        if release.state == ReleaseState::Active {
            self.hint(&format!("{to} of {} serves already: nothing was done", app.app))?;
            return self.show(&json!({ "release": release, "followed": false }), |_| Ok(()));
        }
        self.hint(&format!("{} brings {to} of {} back", release.number, app.app))?;
        self.follow(&app, release, args.waiting).await
    }
}

/// What `rollback` means without a number: the release that was active before the one that is.
pub(super) fn target(releases: &[Release]) -> Result<ReleaseNumber, Failure> {
    let none = |detail: &str| {
        Failure::local(
            Code::NoRollbackTarget,
            detail,
            "correct the source and deploy again; `berth releases` lists all",
        )
    };
    let Some(active) = releases.iter().find(|release| release.state == ReleaseState::Active) else {
        return Err(none("no release of the app is active, so none was active before it"));
    };
    let before = releases.iter().filter(|it| it.state == ReleaseState::Retired && it.number < active.number);
    match before.map(|release| release.number).max() {
        Some(number) => Ok(number),
        None => Err(none(&format!(
            "{} is the first release that served: there is nothing to go back to",
            active.number
        ))),
    }
}

pub(super) fn releases_table(releases: &[Release], now: Timestamp) -> Table {
    let mut table = Table::new(&[">RELEASE", "STATE", "MADE BY", "WHEN", ">TOOK", "WHO", "WHAT"]);
    for release in releases {
        let what = match (&release.failure, &release.description) {
            (Some(failure), _) => format!("{}: {}", failure.code, failure.summary),
            (None, Some(description)) => description.clone(),
            (None, None) => match (&release.image, &release.commit) {
                (Some(image), _) => short_image(image),
                (None, commit) => commit.as_deref().map(short_commit).unwrap_or_default(),
            },
        };
        table.row(vec![
            release.number.to_string().into(),
            Cell::new(release.state.as_str(), style(release.state)),
            reason(release).into(),
            figures::ago(now, release.created_at).into(),
            release.took_ms.map_or("-".to_owned(), figures::took).into(),
            release.created_by.as_str().into(),
            what.into(),
        ]);
    }
    table
}

fn reason(release: &Release) -> String {
    match (release.reason, release.rollback_of) {
        (Reason::Rollback, Some(of)) => format!("rollback to {of}"),
        (Reason::Rollback, None) => "rollback".to_owned(),
        (Reason::Deploy, _) => "deploy".to_owned(),
        (Reason::Config, _) => "config".to_owned(),
        (Reason::Secrets, _) => "secrets".to_owned(),
    }
}

/// An image with as much of its digest as people compare.
fn short_image(image: &str) -> String {
    match image.split_once("@sha256:") {
        Some((name, digest)) => format!("{name}@sha256:{}", digest.chars().take(12).collect::<String>()),
        None => image.to_owned(),
    }
}

fn short_commit(commit: &str) -> String {
    commit.chars().take(12).collect()
}

fn description(release: &Release, now: Timestamp) -> Vec<String> {
    let names: Vec<&str> = release.config_names.iter().map(berth_spec::EnvName::as_str).collect();
    let secrets: Vec<String> =
        release.secret_versions.iter().map(|(name, version)| format!("{name} (version {version})")).collect();
    let tree = release.tree.as_ref().map(ToString::to_string);
    let facts = [
        ("release", Some(format!("{} ({})", release.number, release.state.as_str()))),
        ("made by", Some(reason(release))),
        (
            "when",
            Some(format!(
                "{} ({})",
                figures::exact(release.created_at),
                figures::ago(now, release.created_at)
            )),
        ),
        ("who", Some(release.created_by.clone())),
        ("took", release.took_ms.map(figures::took)),
        ("what", release.description.clone()),
        ("commit", release.commit.clone()),
        ("source", tree),
        ("artifact", release.artifact.clone()),
        ("image", release.image.clone()),
        ("config", (!names.is_empty()).then(|| names.join(", "))),
        ("secrets", (!secrets.is_empty()).then(|| secrets.join(", "))),
    ];
    let mut lines: Vec<String> = facts
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name:<10}{}", crate::screen::harmless(&value?))))
        .collect();
    if let Some(failure) = &release.failure {
        lines.push(format!(
            "{:<10}{}: {} ({})",
            "failed",
            failure.code,
            failure.summary,
            failure.code.page()
        ));
        let report = failure.report();
        lines.extend(report.iter().map(|line| format!("{:<10}{}", "", crate::screen::harmless(line))));
    }
    lines
}

const fn style(state: ReleaseState) -> Style {
    match state {
        ReleaseState::Active => Style::Good,
        ReleaseState::Failed => Style::Bad,
        ReleaseState::Retired | ReleaseState::Superseded => Style::Dim,
        ReleaseState::Submitted
        | ReleaseState::Building
        | ReleaseState::Built
        | ReleaseState::Starting
        | ReleaseState::Activating => Style::Warning,
    }
}
