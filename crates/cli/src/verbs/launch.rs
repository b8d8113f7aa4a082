//! `launch`: see, write berth.toml, make the app, set what it needs, deploy.

mod from;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use berth_clock::random_bytes;
use berth_contract::{Code, ConfigPatch, ExitStatus, SecretValue, SecretsPatch};
use berth_source::detect;
use berth_source::import::{Imported, Kind, Secret};
use berth_source::walk::{Packed, pack};
use berth_spec::manifest::FILE_NAME;
use berth_spec::{AppId, AppName, Command, EnvName, Manifest};
use serde::Serialize;

use super::seen::Seen;
use super::{Session, app_of_directory, read_file};
use crate::args::{DeployArgs, LaunchArgs, OfApp};
use crate::context::write_whole;
use crate::failure::Failure;
use crate::figures::{counted, size};
use crate::screen::Style;

/// Everything that a launch is going to do.
struct Launch {
    app: AppId,
    packed: Packed,
    seen: Seen,
    taken: Imported,
    /// The files that it was taken from.
    from: Vec<String>,
    /// The berth.toml to write; none when the one that is there stays.
    text: Option<String>,
    /// Whether one is there that would be replaced.
    replaces: bool,
}

/// The same for `--json`.
#[derive(Debug, Serialize)]
struct Told<'l> {
    app: &'l AppId,
    /// None where no platform answered.
    exists: Option<bool>,
    from: &'l [String],
    #[serde(flatten)]
    seen: &'l Seen,
    entries: usize,
    bytes: u64,
    manifest: Option<&'l str>,
    replaces_manifest: bool,
    config: Vec<&'l EnvName>,
    secrets: Vec<&'l EnvName>,
    missing: Vec<&'l EnvName>,
    notes: Vec<String>,
    not_taken_over: BTreeMap<&'l str, &'l str>,
    deployed: bool,
}

/// What of the app is on the platform already.
#[derive(Default)]
struct Known {
    /// None where no platform answered.
    exists: Option<bool>,
    names: BTreeSet<EnvName>,
}

impl Session<'_> {
    pub(super) async fn launch(&mut self, args: LaunchArgs) -> Result<ExitStatus, Failure> {
        let path = self.source_directory(&args.path)?;
        self.screen.status("reading the source")?;
        let launch = self.plan_launch(&path, &args)?;
        let known = match self.known(&launch.app).await {
            // What is in the source can be said without one.
            Err(failure) if args.dry_run && failure.code() == Code::Unreachable => Known::default(),
            known => known?,
        };
        self.screen.clear_status()?;
        if args.dry_run {
            self.tell_launch(&launch, &known, false)?;
            self.hint("nothing was done")?;
            return Ok(if launch.seen.problem.is_none() { ExitStatus::Ok } else { ExitStatus::Refused });
        }
        if let Some(problem) = &launch.seen.problem {
            let next =
                "name what runs with `--from`, a Procfile or `[processes]` in berth.toml; nothing was done";
            return Err(Failure::local(Code::NothingToRun, problem.clone(), next));
        }
        if !self.json {
            self.tell_launch(&launch, &known, false)?;
        }
        self.agree_to(&launch, args.yes)?;
        self.carry_out(&path, args, launch, known).await
    }

    /// What the source, the files to take over and the words of the command line come to. Nothing is written.
    fn plan_launch(&mut self, path: &Path, args: &LaunchArgs) -> Result<Launch, Failure> {
        let (mut taken, from) = self.take_over(path, &args.from)?;
        if from.is_empty() {
            taken.notes.extend(files_of_others(path));
        }
        let there = read_file(path, FILE_NAME)?;
        let procfile = read_file(path, berth_spec::procfile::FILE_NAME)?;
        // Files of variables alone say nothing that belongs into berth.toml.
        let keeps = there.is_some() && taken.manifest == Manifest::default();
        let name = match (&args.name, &taken.manifest.app) {
            (Some(name), _) | (None, Some(name)) => name.clone(),
            (None, None) => app_of_directory(path)?,
        };
        let packed = pack(path)?;
        if keeps {
            let manifest =
                Manifest::read(there.as_deref(), procfile.as_deref()).map_err(Failure::Manifest)?;
            one_name(&name, manifest.app.as_ref())?;
            let seen = Seen::new(&detect(&packed, &manifest, &name), &manifest);
            return Ok(Launch {
                app: self.project.app(name),
                packed,
                seen,
                taken,
                from,
                text: None,
                replaces: false,
            });
        }
        taken.manifest.app = Some(name.clone());
        add_web(&packed, &name, &mut taken);
        let effective = Manifest::read(Some(&taken.manifest.write(&[], &[])), procfile.as_deref());
        let effective = effective.map_err(Failure::Manifest)?;
        let found = detect(&packed, &effective, &name);
        let foot =
            found.as_ref().map(|found| found_by_itself(&found.processes, &effective)).unwrap_or_default();
        let text = taken.manifest.write(&head(&from), &foot);
        let seen = Seen::new(&found, &effective);
        let replaces = found.is_ok() && there.as_ref().is_some_and(|there| *there != text);
        // Where nothing was found to run there is nothing to write yet.
        let text = (found.is_ok() && there.as_ref() != Some(&text)).then_some(text);
        Ok(Launch { app: self.project.app(name), packed, seen, taken, from, text, replaces })
    }

    async fn known(&mut self, app: &AppId) -> Result<Known, Failure> {
        if !self.is_there(app).await? {
            return Ok(Known { exists: Some(false), ..Known::default() });
        }
        let config = self.client.config(app).await?.config;
        let secrets = self.client.secrets(app).await?.secrets;
        Ok(Known { exists: Some(true), names: config.into_keys().chain(secrets.into_keys()).collect() })
    }

    fn tell_launch(&mut self, launch: &Launch, known: &Known, deployed: bool) -> Result<(), Failure> {
        let missing = launch.missing(known);
        let taken = &launch.taken;
        let tree = launch.packed.tree();
        let mut notes = taken.notes.clone();
        let packs_env = tree.node(berth_spec::dotenv::FILE_NAME).is_some();
        if packs_env {
            notes.push(
                "`.env` is sent with the source: name it in .berthignore, and give it with `--from .env`"
                    .to_owned(),
            );
        }
        let told = Told {
            app: &launch.app,
            exists: known.exists,
            from: &launch.from,
            seen: &launch.seen,
            entries: tree.entries().len(),
            bytes: tree.size(),
            manifest: launch.text.as_deref(),
            replaces_manifest: launch.replaces,
            config: taken.config.keys().collect(),
            secrets: taken
                .secrets
                .iter()
                .filter(|(_, it)| !matches!(it, Secret::Asked { .. }))
                .map(|(name, _)| name)
                .collect(),
            missing,
            notes,
            not_taken_over: taken.left.iter().map(|left| (left.what.as_str(), left.why.as_str())).collect(),
            deployed,
        };
        self.show(&told, |session| session.show_launch(&told, launch)).map(drop)
    }

    fn show_launch(&mut self, told: &Told<'_>, launch: &Launch) -> Result<(), Failure> {
        let there = match told.exists {
            Some(true) => "is there already",
            Some(false) => "to be made",
            None => "no platform answered that would know it",
        };
        let app = format!("{} ({there})", told.app.app);
        let entries = u64::try_from(told.entries).unwrap_or(u64::MAX);
        let mut facts =
            vec![("app", app), ("source", format!("{}, {}", counted(entries, "entry"), size(told.bytes)))];
        if !told.from.is_empty() {
            facts.push(("from", told.from.join(", ")));
        }
        facts.extend(told.seen.facts());
        let names =
            |names: &[&EnvName]| names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
        for (title, list) in [("config", &told.config), ("secrets", &told.secrets)] {
            if !list.is_empty() {
                facts.push((title, names(list)));
            }
        }
        for name in &told.missing {
            let what = match launch.taken.secrets.get(*name) {
                Some(Secret::Asked { what: Some(what) }) => format!("{name} ({what})"),
                _ => name.to_string(),
            };
            facts.push(("missing", what));
        }
        facts.extend(told.notes.iter().map(|note| ("note", note.clone())));
        self.facts(&facts)?;
        if !launch.taken.left.is_empty() {
            self.screen.line("\nnot taken over:")?;
            for left in &launch.taken.left {
                self.point(&format!("{}: {}", left.what, left.why))?;
            }
        }
        if let Some(text) = told.manifest {
            let what =
                if told.replaces_manifest { "to replace the one that is there" } else { "to be written" };
            self.screen.line(&format!("\nberth.toml, {what}:"))?;
            for line in text.lines() {
                self.screen.styled(format!("  {}", crate::screen::harmless(line)).trim_end(), Style::Dim)?;
            }
        }
        Ok(self.screen.line("")?)
    }

    /// Asks where somebody can be asked; where nobody can, only what would be lost has to be agreed to.
    fn agree_to(&mut self, launch: &Launch, yes: bool) -> Result<(), Failure> {
        let refused = |detail: &str| {
            Failure::local(Code::NotConfirmed, detail, "give --yes if you mean it; nothing was done")
        };
        if yes {
            return Ok(());
        }
        if !self.screen.asks {
            return if launch.replaces {
                Err(refused("there is a berth.toml that says otherwise"))
            } else {
                Ok(())
            };
        }
        let question = if launch.replaces { "Replace berth.toml and go on? [y/N]" } else { "Go on? [Y/n]" };
        let answer = self.screen.ask(question)?.trim().to_lowercase();
        let agreed = match answer.as_str() {
            "" => !launch.replaces,
            answer => matches!(answer, "y" | "yes"),
        };
        if agreed { Ok(()) } else { Err(refused("the answer was no")) }
    }

    async fn carry_out(
        &mut self,
        path: &Path,
        args: LaunchArgs,
        launch: Launch,
        known: Known,
    ) -> Result<ExitStatus, Failure> {
        if let Some(text) = &launch.text {
            write_whole(&path.join(FILE_NAME), text, 0o644).map_err(|problem| {
                let detail = format!("{FILE_NAME} cannot be written: {problem}");
                Failure::local(
                    Code::SourceUnreadable,
                    detail,
                    "correct the permissions of the source's directory",
                )
            })?;
            self.hint(&format!("wrote {FILE_NAME}"))?;
        }
        if known.exists != Some(true) {
            self.make(&launch.app).await?;
        }
        self.set_taken(&launch, &known).await?;
        let missing = launch.missing(&known);
        if args.no_deploy || !missing.is_empty() {
            return self.not_deployed(&launch, &known, &args);
        }
        let deploy = DeployArgs {
            image: None,
            path: args.path,
            of: OfApp { app: Some(launch.app.app) },
            strategy: None,
            dry_run: false,
            message: None,
            commit: None,
            waiting: args.waiting,
        };
        Box::pin(self.deploy(deploy)).await
    }

    /// Nothing was deployed yet, so these make no release. A secret that is there already is not made anew.
    async fn set_taken(&mut self, launch: &Launch, known: &Known) -> Result<(), Failure> {
        let set = launch.taken.config.clone();
        if !set.is_empty() {
            self.hint(&format!("set {}", counted(set.len() as u64, "variable")))?;
            self.client.patch_config(&launch.app, &ConfigPatch { set, unset: Vec::new() }).await?;
        }
        let mut set = BTreeMap::new();
        for (name, secret) in &launch.taken.secrets {
            let value = match secret {
                Secret::Given(value) => value.clone(),
                Secret::Generated if known.names.contains(name) => continue,
                Secret::Generated => hex(&random_bytes::<32>(self.clock)),
                Secret::Asked { .. } => continue,
            };
            set.insert(name.clone(), SecretValue::new(value));
        }
        if !set.is_empty() {
            self.hint(&format!("set {}", counted(set.len() as u64, "secret")))?;
            self.client.patch_secrets(&launch.app, &SecretsPatch { set, unset: Vec::new() }).await?;
        }
        Ok(())
    }

    fn not_deployed(
        &mut self,
        launch: &Launch,
        known: &Known,
        args: &LaunchArgs,
    ) -> Result<ExitStatus, Failure> {
        let missing = launch.missing(known);
        if self.json {
            self.tell_launch(launch, &Known { exists: Some(true), names: known.names.clone() }, false)?;
        } else if !missing.is_empty() {
            let text = format!("{} is made and not deployed: it has secrets without a value", launch.app.app);
            self.screen.marked_aside("note:", Style::Warning, &text)?;
            for name in &missing {
                self.screen.aside(&format!("  next: berth secrets set {name} --app {}", launch.app.app))?;
            }
            self.screen.aside(&format!("  then: berth deploy {}", args.path.display()))?;
        } else {
            self.screen.line(&format!(
                "{} is made; `berth deploy {}` deploys it",
                launch.app.app,
                args.path.display()
            ))?;
        }
        Ok(if missing.is_empty() || args.no_deploy { ExitStatus::Ok } else { ExitStatus::Refused })
    }
}

impl Launch {
    /// Secrets that nobody gave a value.
    fn missing(&self, known: &Known) -> Vec<&EnvName> {
        let asked = self.taken.secrets.iter().filter(|(_, it)| matches!(it, Secret::Asked { .. }));
        asked.map(|(name, _)| name).filter(|name| !known.names.contains(*name)).collect()
    }
}

/// Files that `--from` could take over and that Berth does not read by itself.
fn files_of_others(path: &Path) -> impl Iterator<Item = String> {
    let unread = Kind::NAMED.iter().filter(|(kind, ..)| !matches!(kind, Kind::Procfile | Kind::Env));
    let there = unread.filter(move |(_, _, file)| path.join(file).is_file());
    there.map(|(_, word, file)| {
        format!("there is {file}: `berth launch --from {word}` takes over what it says")
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The name that was asked for and the one in a berth.toml that stays have to be the same.
fn one_name(name: &AppName, there: Option<&AppName>) -> Result<(), Failure> {
    match there.filter(|there| *there != name) {
        None => Ok(()),
        Some(there) => {
            let detail = format!("berth.toml is of the app {there}, not of {name}");
            Err(Failure::local(Code::UsageInvalid, detail, "leave out --name, or change `app` in berth.toml"))
        }
    }
}

/// Processes in berth.toml stand for all: without web among them the app would get no requests, so what was found runs as web.
fn add_web(packed: &Packed, app: &AppName, taken: &mut Imported) {
    let processes = &taken.manifest.processes;
    if processes.is_empty() || processes.keys().any(berth_spec::ProcessName::is_web) {
        return;
    }
    let without = Manifest { processes: BTreeMap::new(), ..taken.manifest.clone() };
    let Ok(found) = detect(packed, &without, app) else { return };
    let web = found
        .processes
        .into_iter()
        .find(|(name, it)| name.is_web() && !matches!(it, Command::StaticSite { .. }));
    if let Some((name, command)) = web {
        taken.notes.push(format!("nothing said what web runs: found {command}"));
        taken.manifest.processes.insert(name, command);
    }
}

fn head(from: &[String]) -> Vec<String> {
    // Variables that came beside do not stand in berth.toml.
    let from: Vec<&str> = from
        .iter()
        .map(String::as_str)
        .filter(|name| Kind::of_file(name).is_some_and(|kind| kind != Kind::Env))
        .collect();
    let from = if from.is_empty() { String::new() } else { format!(" from {}", from.join(", ")) };
    vec![
        format!("Written by `berth launch`{from}. What is not here is as by default"),
        "or found in the source; `berth deploy --dry-run` shows what Berth makes of it.".to_owned(),
    ]
}

/// What detection found, for those who want to change it.
fn found_by_itself(found: &BTreeMap<berth_spec::ProcessName, Command>, manifest: &Manifest) -> Vec<String> {
    let runs: BTreeMap<_, _> = found
        .iter()
        .filter(|(_, it)| !matches!(it, Command::StaticSite { .. }))
        .map(|(name, it)| (name.clone(), it.clone()))
        .collect();
    if !manifest.processes.is_empty() || runs.is_empty() {
        return Vec::new();
    }
    let shown = Manifest { processes: runs, ..Manifest::default() }.write(&[], &[]);
    let keys = shown.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(str::to_owned);
    std::iter::once("Found in the source. Write it here to change it:".to_owned()).chain(keys).collect()
}
