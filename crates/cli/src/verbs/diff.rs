//! `releases diff` and `config diff`: what is different between two releases.

use berth_contract::{Code, Difference, ExitStatus, ReleaseDiff, ReleaseState};
use berth_spec::{AppId, ReleaseNumber};

use super::Session;
use super::releases::target;
use crate::args::DiffArgs;
use crate::failure::Failure;
use crate::screen::{Style, harmless, paint};

/// How much of it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// Everything that a release is made of.
    All,
    /// Configuration and versions of secrets.
    Settings,
}

impl Session<'_> {
    pub(super) async fn diff(&mut self, args: DiffArgs, shown: Shown) -> Result<ExitStatus, Failure> {
        let app = self.app_id(&args.of)?;
        let (since, number) = self.which(&app, args.since, args.release).await?;
        let mut diff = self.client.release_diff(&app, number, since).await?;
        if shown == Shown::Settings {
            diff.source.clear();
            diff.processes.clear();
            diff.manifest.clear();
        }
        self.show(&diff, |session| session.show_diff(&diff, shown))
    }

    /// Both releases: without words the one before the active one and that, with one word that one and the active one.
    async fn which(
        &mut self,
        app: &AppId,
        since: Option<ReleaseNumber>,
        number: Option<ReleaseNumber>,
    ) -> Result<(ReleaseNumber, ReleaseNumber), Failure> {
        if let (Some(since), Some(number)) = (since, number) {
            return Ok((since, number));
        }
        let releases = self.client.releases(app).await?.releases;
        let Some(active) = releases.iter().find(|release| release.state == ReleaseState::Active) else {
            let detail = format!("no release of {} is active", app.app);
            return Err(Failure::local(
                Code::NeverDeployed,
                detail,
                "name both releases; `berth releases` lists them",
            ));
        };
        let since = match since {
            Some(since) => since,
            None => target(&releases)?,
        };
        Ok((since, active.number))
    }

    fn show_diff(&mut self, diff: &ReleaseDiff, shown: Shown) -> Result<(), Failure> {
        let ReleaseDiff { since, number, source, processes, manifest, config, secrets } = diff;
        let parts = [
            ("source", source),
            ("processes", processes),
            ("berth.toml", manifest),
            ("config", config),
            ("secrets", secrets),
        ];
        if parts.iter().all(|(_, all)| all.is_empty()) {
            let what = if shown == Shown::All { "made of the same" } else { "configured alike" };
            return Ok(self.screen.line(&format!("{since} and {number} are {what}"))?);
        }
        self.screen.styled(&format!("from {since} to {number}"), Style::Bold)?;
        for (title, all) in parts.iter().filter(|(_, all)| !all.is_empty()) {
            self.screen.line(title)?;
            for it in *all {
                self.show_difference(it, *title == "secrets")?;
            }
        }
        Ok(())
    }

    fn show_difference(&mut self, it: &Difference, versions: bool) -> Result<(), Failure> {
        let sides = [("-", Style::Bad, &it.before), ("+", Style::Good, &it.after)];
        for (mark, style, value) in sides {
            let Some(value) = value else { continue };
            let value = if versions { format!("version {value}") } else { value.clone() };
            let line = harmless(&format!("{mark} {} = {value}", it.name));
            self.screen.line(&format!("  {}", paint(&line, style, self.screen.colour)))?;
        }
        Ok(())
    }
}
