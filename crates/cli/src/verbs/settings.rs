//! `config` and `secrets`.

use std::collections::BTreeMap;
use std::io::Read as _;

use berth_contract::{Code, ConfigPatch, ExitStatus, SecretValue, SecretsPatch};
use berth_source::import::looks_secret;
use berth_spec::dotenv::{self, Dotenv};
use berth_spec::{AppId, EnvName, ReleaseNumber};
use serde::Serialize;
use serde_json::json;

use super::Session;
use super::diff::Shown;
use crate::args::{
    ConfigAction, ConfigArgs, DiffArgs, GetArgs, ImportArgs, ListArgs, OfApp, SecretsAction, SecretsArgs,
    SetArgs, UnsetArgs, Waiting,
};
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
            Some(ConfigAction::List(ListArgs { shell: true, of })) => {
                self.list_for_shells(&of.or(outer)).await
            }
            Some(ConfigAction::List(ListArgs { shell: false, of })) => self.list_config(&of.or(outer)).await,
            Some(ConfigAction::Get(GetArgs { name, of })) => self.get_config(&of.or(outer), &name).await,
            Some(ConfigAction::Diff(args)) => {
                let of = args.of.clone().or(outer);
                self.diff(DiffArgs { of, ..args }, Shown::Settings).await
            }
            Some(ConfigAction::Import(ImportArgs { file, of, waiting })) => {
                let set = self.read_variables(&file)?;
                for (name, _) in set.iter().filter(|(name, value)| looks_secret(name.as_str(), value)) {
                    self.hint(&format!("warning: {name} looks like a secret; `berth secrets import` keeps its value to itself"))?;
                }
                self.change_config(&of.or(outer), ConfigPatch { set, unset: Vec::new() }, waiting).await
            }
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
            Some(SecretsAction::List(of)) => self.list_secrets(&of.or(outer)).await,
            Some(SecretsAction::Import(ImportArgs { file, of, waiting })) => {
                let set = sealed(self.read_variables(&file)?);
                self.change_secrets(&of.or(outer), SecretsPatch { set, unset: Vec::new() }, waiting).await
            }
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
                session.hint("nothing is set: `berth config set NAME=VALUE`")?;
            } else {
                let mut table = Table::new(&["NAME", "VALUE"]);
                for (name, value) in &config.config {
                    table.row(vec![name.as_str().into(), value.as_str().into()]);
                }
                session.print(&table)?;
            }
            let names: Vec<&str> = config.unreleased.iter().map(EnvName::as_str).collect();
            let Some(serving) = config.release.filter(|_| !names.is_empty()) else { return Ok(()) };
            session.hint(&format!(
                "{serving}, which serves, has {} otherwise: that was changed with a release that is on its way or did not take over, and the next one has it so",
                names.join(", ")
            ))
        })
    }

    /// Lines that a shell reads back, and `config import`.
    async fn list_for_shells(&mut self, of: &OfApp) -> Result<ExitStatus, Failure> {
        let config = self.client.config(&self.app_id(of)?).await?;
        self.show(&config, |session| {
            for (name, value) in &config.config {
                session.screen.line(&dotenv::line(name, value))?;
            }
            Ok(())
        })
    }

    /// The value as it is, for a script that wants it.
    async fn get_config(&mut self, of: &OfApp, name: &EnvName) -> Result<ExitStatus, Failure> {
        let app = self.app_id(of)?;
        let config = self.client.config(&app).await?.config;
        if let Some(value) = config.get(name) {
            return self
                .show(&json!({ "name": name, "value": value }), |session| Ok(session.screen.line(value)?));
        }
        let secret = self.client.secrets(&app).await?.secrets.contains_key(name);
        let (detail, next) = if secret {
            (
                format!("{name} is a secret of {}: its value never comes out", app.app),
                "`berth secrets` lists the names",
            )
        } else {
            let next = "`berth config` lists what is set; `[env]` of berth.toml stands in the source";
            (format!("the configuration of {} has no {name}", app.app), next)
        };
        Err(Failure::local(Code::VariableNotFound, detail, next))
    }

    /// What a file of variables says; what Berth sets itself is left out, and told.
    fn read_variables(&mut self, file: &str) -> Result<BTreeMap<EnvName, String>, Failure> {
        let unreadable = |problem: std::io::Error| {
            let detail = format!("{file} cannot be read: {problem}");
            let next = "name a file of lines like NAME=VALUE, or `-` for standard input";
            Failure::local(Code::SourceUnreadable, detail, next)
        };
        let (name, text) = if file == "-" {
            ("standard input", self.screen.read_input(dotenv::DOTENV_MAX as u64).map_err(unreadable)?)
        } else {
            let opened = std::fs::File::open(self.environment.directory.join(file)).map_err(unreadable)?;
            let mut text = String::new();
            opened.take(dotenv::DOTENV_MAX as u64 + 1).read_to_string(&mut text).map_err(unreadable)?;
            (file, text)
        };
        let read = Dotenv::parse(name, &text).map_err(Failure::Manifest)?;
        for name in &read.reserved {
            self.hint(&format!("{name} is left out: Berth sets it for every instance"))?;
        }
        if read.variables.is_empty() {
            return Err(usage(format!("{name} sets nothing")));
        }
        Ok(read.variables)
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
