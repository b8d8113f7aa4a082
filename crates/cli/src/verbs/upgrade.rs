//! `upgrade`.

use std::path::Path;
use std::time::Duration;

use berth_contract::{Code, ExitStatus, Platform, Upgrade};

use super::Session;
use crate::args::{UpgradeAction, UpgradeArgs};
use crate::failure::Failure;

/// Between two looks whether the other program runs.
const LOOK: Duration = Duration::from_millis(100);
/// How often to look: control gets two seconds to end, and a platform of ten thousand apps ten to start; three attempts of each role.
const LOOKS: u32 = 1_200;

impl Session<'_> {
    pub(super) async fn upgrade(&mut self, args: &UpgradeArgs) -> Result<ExitStatus, Failure> {
        match (args.action, &args.from) {
            (Some(UpgradeAction::Commit), _) => self.commit_upgrade().await,
            (None, Some(from)) => self.upgrade_from(from).await,
            (None, None) => {
                let platform = self.client.platform().await?;
                let state = uncommitted(&platform).unwrap_or_else(|| {
                    format!("nothing to commit: the journal has format {}", platform.journal_format)
                });
                self.show(&platform, |session| {
                    Ok(session.screen.line(&format!("berth {} runs; {state}", platform.version))?)
                })
            }
        }
    }

    async fn commit_upgrade(&mut self) -> Result<ExitStatus, Failure> {
        let committed = self.client.commit_upgrade().await?;
        self.show(&committed, |session| {
            let format = committed.format;
            if committed.before == format {
                let text = format!("nothing to commit: the journal has format {format} already");
                return Ok(session.screen.line(&text)?);
            }
            session.screen.line(&format!("committed: the journal has format {format} from here on"))?;
            session
                .hint("versions that do not read it cannot take over any more, and do not start in this home")
        })
    }

    async fn upgrade_from(&mut self, from: &Path) -> Result<ExitStatus, Failure> {
        let path = self.environment.directory.join(from);
        let before = self.client.platform().await?;
        let begun = self.client.upgrade(&Upgrade { from: path.to_string_lossy().into_owned() }).await?;
        if begun.runs {
            return self.show(&begun, |session| {
                Ok(session
                    .screen
                    .line(&format!("berth {} runs already: it is the same program", begun.version))?)
            });
        }
        self.screen.status("the other program takes over")?;
        let now = self.taken_over(&before).await;
        self.screen.clear_status()?;
        match now {
            Some(now) if now.program.ends_with(&begun.program) => self.show(&begun, |session| {
                session.screen.line(&format!("berth {} runs in place of {}", begun.version, begun.before))?;
                session.hint(&format!(
                    "put {} where the platform is started from, or the next start is the old one's",
                    path.display()
                ))?;
                uncommitted(&now).map_or(Ok(()), |state| session.hint(&state))
            }),
            Some(_) => Err(Failure::local(
                Code::UpgradeFailed,
                format!(
                    "berth {} did not bring the platform up; the program before it runs again",
                    begun.version
                ),
                "logs/platform/supervisor.log in the home says why",
            )),
            None => Err(Failure::local(
                Code::UpgradeFailed,
                "the platform was not heard of again",
                "`berth status` asks for it; logs/platform/supervisor.log in its home says what happened",
            )),
        }
    }

    /// The platform under another control than before; `None` when none is heard of for long.
    async fn taken_over(&self, before: &Platform) -> Option<Platform> {
        for _ in 0..LOOKS {
            // wait: for the platform, which nobody else can tell of while no control runs.
            tokio::time::sleep(LOOK).await;
            let Ok(now) = self.client.platform().await else { continue };
            // Both are new once the platform is up: control, and an edge beside the one that drains.
            let is_new =
                |name: &str| now.roles.iter().any(|it| it.name == name && !before.roles.contains(it));
            if is_new("control") && is_new("edge") {
                return Some(now);
            }
        }
        None
    }
}

/// That an upgrade is not committed, in words, if it is not.
pub(super) fn uncommitted(platform: &Platform) -> Option<String> {
    let Platform { journal_format, newest_format, .. } = platform;
    (newest_format > journal_format).then(|| {
        format!(
            "not committed: the journal keeps format {journal_format} for the version before; `berth upgrade commit` gives it format {newest_format}"
        )
    })
}
