//! `config` and `secrets`.

use std::collections::BTreeMap;

use berth_contract::{Code, ConfigPatch, ExitStatus, SecretValue, SecretsPatch};
use berth_spec::{AppId, EnvName, ReleaseNumber};
use serde::Serialize;

use super::Session;
use crate::args::{ConfigAction, ConfigArgs, OfApp, SecretsAction, SecretsArgs, SetArgs, UnsetArgs, Waiting};
use crate::failure::Failure;
use crate::screen::Style;
use crate::table::{Cell, Table};

/// The longest value that is read from standard input; the platform has the same bound.
const VALUE_MAX: u64 = berth_spec::manifest::ENV_VALUE_MAX as u64;

impl Session<'_> {
    pub(super) async fn config(&mut self, args: ConfigArgs) -> Result<ExitStatus, Failure> {
        let outer = args.of;
        match args.action {
            None => self.list_config(&outer).await,
            Some(ConfigAction::List(list)) => self.list_config(&list.of.or(outer)).await,
            Some(ConfigAction::Set(SetArgs { settings, of, waiting })) => {
                let set = self.read_settings(settings, false)?;
                self.change_config(&of.or(outer), ConfigPatch { set, unset: Vec::new() }, waiting).await
            }
            Some(ConfigAction::Unset(UnsetArgs { names, of, waiting })) => {
                let patch = ConfigPatch { set: BTreeMap::new(), unset: names };
                self.change_config(&of.or(outer), patch, waiting).await
            }
        }
    }

    pub(super) async fn secrets(&mut self, args: SecretsArgs) -> Result<ExitStatus, Failure> {
        let outer = args.of;
        match args.action {
            None => self.list_secrets(&outer).await,
            Some(SecretsAction::List(list)) => self.list_secrets(&list.of.or(outer)).await,
            Some(SecretsAction::Set(SetArgs { settings, of, waiting })) => {
                let set = sealed(self.read_settings(settings, true)?);
                self.change_secrets(&of.or(outer), SecretsPatch { set, unset: Vec::new() }, waiting).await
            }
            Some(SecretsAction::Unset(UnsetArgs { names, of, waiting })) => {
                let patch = SecretsPatch { set: BTreeMap::new(), unset: names };
                self.change_secrets(&of.or(outer), patch, waiting).await
            }
        }
    }

    async fn change_config(
        &mut self,
        of: &OfApp,
        patch: ConfigPatch,
        waiting: Waiting,
    ) -> Result<ExitStatus, Failure> {
        let app = self.app_id(of)?;
        let changed = self.client.patch_config(&app, &patch).await?;
        self.changed(&app, &changed, changed.release, waiting).await
    }

    async fn change_secrets(
        &mut self,
        of: &OfApp,
        patch: SecretsPatch,
        waiting: Waiting,
    ) -> Result<ExitStatus, Failure> {
        let app = self.app_id(of)?;
        let changed = self.client.patch_secrets(&app, &patch).await?;
        self.changed(&app, &changed, changed.release, waiting).await
    }

    async fn list_config(&mut self, of: &OfApp) -> Result<ExitStatus, Failure> {
        let config = self.client.config(&self.app_id(of)?).await?;
        self.show(&config, |session| {
            if config.config.is_empty() {
                return session.hint("nothing is set: `berth config set NAME=VALUE`");
            }
            let mut table = Table::new(&["NAME", "VALUE"]);
            for (name, value) in &config.config {
                table.row(vec![name.as_str().into(), value.as_str().into()]);
            }
            session.print(&table)
        })
    }

    async fn list_secrets(&mut self, of: &OfApp) -> Result<ExitStatus, Failure> {
        let secrets = self.client.secrets(&self.app_id(of)?).await?;
        self.show(&secrets, |session| {
            if secrets.secrets.is_empty() {
                return session.hint("no secrets: `berth secrets set NAME` reads one from standard input");
            }
            let mut table = Table::new(&["NAME", ">VERSION"]);
            for (name, version) in &secrets.secrets {
                table.row(vec![name.as_str().into(), Cell::new(version.to_string(), Style::Dim)]);
            }
            session.print(&table)
        })
    }

    /// Follows the release that a change made, or says that it made none.
    async fn changed(
        &mut self,
        app: &AppId,
        changed: &impl Serialize,
        release: Option<ReleaseNumber>,
        waiting: Waiting,
    ) -> Result<ExitStatus, Failure> {
        match release {
            Some(number) => {
                let release = self.client.release(app, number).await?;
                self.follow(app, release, waiting).await
            }
            None => self.show(changed, |session| {
                session
                    .screen
                    .line("saved; no release was needed: nothing changed, or nothing was deployed yet")?;
                Ok(())
            }),
        }
    }

    /// Reads `NAME=VALUE`, `NAME=-` and, for secrets, `NAME`. Standard input can give one value only.
    fn read_settings(
        &mut self,
        settings: Vec<String>,
        secret: bool,
    ) -> Result<BTreeMap<EnvName, String>, Failure> {
        let mut values = BTreeMap::new();
        let mut input_used = false;
        let mut visible = false;
        for setting in settings {
            let (name, value) = match setting.split_once('=') {
                Some((name, "-")) => (name, None),
                Some((name, value)) => (name, Some(value.to_owned())),
                None if secret => (setting.as_str(), None),
                None => return Err(usage(format!("{setting:?} is not NAME=VALUE"))),
            };
            let name: EnvName = name.parse().map_err(|problem| usage(format!("{problem}")))?;
            visible |= value.is_some();
            let value = match value {
                Some(value) => value,
                None if std::mem::replace(&mut input_used, true) => {
                    return Err(usage("only one value can come from standard input".to_owned()));
                }
                None => self.read_value(&name)?,
            };
            if values.insert(name.clone(), value).is_some() {
                return Err(usage(format!("{name} is given twice")));
            }
        }
        if secret && visible {
            let text = "a value on the command line stays in the shell's history; `berth secrets set NAME` reads it from \
                        standard input";
            self.hint(&format!("warning: {text}"))?;
        }
        Ok(values)
    }

    fn read_value(&mut self, name: &EnvName) -> Result<String, Failure> {
        if self.screen.asks {
            self.hint(&format!("value of {name}, ended by Ctrl-D:"))?;
        }
        let value = self.screen.read_input(VALUE_MAX);
        let value =
            value.map_err(|problem| usage(format!("the value of {name} cannot be read: {problem}")))?;
        if value.is_empty() {
            // A command before it that failed, most likely; who means it writes `NAME=`.
            return Err(usage(format!("standard input is empty: there is no value for {name}")));
        }
        Ok(value)
    }
}

fn usage(detail: String) -> Failure {
    Failure::local(
        Code::UsageInvalid,
        detail,
        "`berth config set --help` and `berth secrets set --help` show the forms",
    )
}

fn sealed(values: BTreeMap<EnvName, String>) -> BTreeMap<EnvName, SecretValue> {
    values.into_iter().map(|(name, value)| (name, SecretValue::new(value))).collect()
}
