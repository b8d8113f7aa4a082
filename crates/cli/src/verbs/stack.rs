//! `stack`: the services of a compose file as apps, each with a life of its own.

mod file;

use std::collections::BTreeSet;

use berth_contract::{AppState, AppsQuery, Code, DestroyQuery, ExitStatus, Scale};
use berth_source::stack::Service;
use berth_spec::{AppId, AppName};
use serde_json::json;

pub(super) use self::file::described_by;
use self::file::{Loaded, app_name};
use super::Session;
use super::deploy::Source;
use super::volumes::described as described_volume;
use crate::args::{OfStack, StackAction, StackArgs, Waiting};
use crate::failure::Failure;
use crate::screen::Style;
use crate::table::{Cell, Table};

/// Where services have no way to each other.
const NO_NAMES: &str =
    "services do not reach each other on this machine, which has no names of apps: see `berth status`";

impl Session<'_> {
    pub(super) async fn stack(&mut self, args: StackArgs) -> Result<ExitStatus, Failure> {
        match args.action {
            StackAction::Up { of, dry_run, adopt } => self.stack_up(&of, dry_run, adopt).await,
            StackAction::Ps(of) => self.stack_ps(&of).await,
            StackAction::Down { of, volumes, remove_orphans, yes } => {
                self.stack_down(&of, volumes, remove_orphans, yes).await
            }
        }
    }

    async fn stack_up(&mut self, of: &OfStack, dry_run: bool, adopt: bool) -> Result<ExitStatus, Failure> {
        let all = self.stacks(of)?;
        for loaded in &all {
            self.show_stack(loaded, dry_run)?;
            // A platform that does not answer is told of where something is done.
            let is_one_app = self.json || loaded.stack.services.len() < 2;
            if !is_one_app && self.client.platform().await.is_ok_and(|platform| !platform.names) {
                self.screen.marked_aside("warning:", Style::Warning, NO_NAMES)?;
            }
            if loaded.stack.is_refused() {
                let detail = format!("{} has what cannot be kept, and nothing of it was done", loaded.file);
                return Err(Failure::local(
                    Code::StackRefused,
                    detail,
                    "change the lines that are marked, or give what they ask for",
                ));
            }
            if dry_run {
                continue;
            }
            // All sources are read before the first service is changed, and nobody else's app is.
            let mut ready = Vec::new();
            for service in &loaded.stack.services {
                let app = self.app_of(loaded, service)?;
                if let Some(whose) = self.stranger(loaded, &app).await?.filter(|_| !adopt) {
                    return Err(Failure::local(
                        Code::StackRefused,
                        format!("the app {} is there already, and is of {whose}; nothing was done", app.app),
                        "give the stack another name, or make the app its service with --adopt",
                    ));
                }
                ready.push((app, self.source_of(loaded, service)?));
            }
            for (service, (app, source)) in loaded.stack.services.iter().zip(ready) {
                let status = self.up(service, &app, &source).await?;
                if status != ExitStatus::Ok {
                    self.hint(&format!(
                        "{} did not come up; what comes after it was left as it is",
                        app.app
                    ))?;
                    return Ok(status);
                }
            }
            for orphan in self.orphans(loaded, &all).await? {
                self.tell_of_orphan(loaded, &orphan).await?;
            }
        }
        if dry_run {
            self.hint("nothing was done")?;
        }
        Ok(ExitStatus::Ok)
    }

    /// Whose the app is, in words, where it is there and is not the stack's.
    async fn stranger(&self, loaded: &Loaded, app: &AppId) -> Result<Option<String>, Failure> {
        let known = match self.client.app(app).await {
            Ok(known) => known.summary,
            Err(problem) if problem.code() == Code::AppNotFound => return Ok(None),
            Err(problem) => return Err(problem.into()),
        };
        // One that never had a release may be of an `up` that did not come so far.
        let is_own = known.stack.as_ref() == Some(&loaded.name)
            || (known.stack.is_none() && known.state == AppState::Empty);
        let whose =
            || known.stack.map_or_else(|| "no stack".to_owned(), |other| format!("the stack {other}"));
        Ok((!is_own).then(whose))
    }

    /// The apps that are of the stack and of none of the files that are given for it.
    async fn orphans(&self, loaded: &Loaded, all: &[Loaded]) -> Result<Vec<AppId>, Failure> {
        let mut known: Vec<AppId> = Vec::new();
        let mut query = AppsQuery::default();
        loop {
            let page = self.client.apps_page(&self.project, &query).await?;
            let of_stack = page.apps.into_iter().filter(|app| app.stack.as_ref() == Some(&loaded.name));
            known.extend(of_stack.map(|app| app.id));
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
        let files = all.iter().filter(|other| other.name == loaded.name);
        let services: BTreeSet<String> = files
            .flat_map(|file| file.stack.services.iter().map(|service| app_name(file, service)))
            .collect();
        known.retain(|app| !services.contains(app.app.as_str()));
        Ok(known)
    }

    /// Tells of an app that the file no longer has, and of its volumes: a service that got another name begins with empty ones.
    async fn tell_of_orphan(&mut self, loaded: &Loaded, orphan: &AppId) -> Result<(), Failure> {
        let volumes = self.client.volumes(orphan).await?.volumes;
        let stays: Vec<String> = volumes.iter().map(described_volume).collect();
        let with = if stays.is_empty() { String::new() } else { format!(" with {}", stays.join(" and ")) };
        let app = &orphan.app;
        self.hint(&format!(
            "{app} is of this stack and no longer in {}, and stays{with}: `berth stack down --remove-orphans` or `berth destroy` removes it",
            loaded.file
        ))?;
        for volume in &volumes {
            let has = |service: &&Service| service.manifest.volumes.contains_key(&volume.name);
            let Some(heir) = loaded.stack.services.iter().find(has) else { continue };
            let (name, new) = (&volume.name, app_name(loaded, heir));
            self.hint(&format!(
                "{new} has a volume {name} of its own, and not that of {app}: if {} is a new name for that service, give it the old name again, or copy what is in it: `berth exec -a {app} -- tar -cC {} . | berth exec -a {new} -- tar -xC {}`",
                heir.name,
                volume.path.as_deref().unwrap_or("PATH"),
                heir.manifest.volumes.get(name).map_or("PATH", |it| it.path.as_str()),
            ))?;
        }
        Ok(())
    }

    async fn up(&mut self, service: &Service, app: &AppId, source: &Source) -> Result<ExitStatus, Failure> {
        let is_new = !self.is_there(app).await?;
        if is_new {
            self.make(app).await?;
        }
        let scale = service.replicas.clone().map(|wanted| Scale([wanted].into()));
        // Before there is a release any process may be scaled; later the one that runs has to have it.
        if let Some(scale) = scale.as_ref().filter(|_| is_new) {
            self.client.scale(app, scale).await?;
        }
        let status = self.deploy_source(app, source, None, Waiting { detach: false }).await?;
        if let Some(scale) = scale.filter(|_| !is_new && status == ExitStatus::Ok) {
            self.client.scale(app, &scale).await?;
        }
        Ok(status)
    }

    async fn stack_ps(&mut self, of: &OfStack) -> Result<ExitStatus, Failure> {
        let mut shown = Vec::new();
        for loaded in self.stacks(of)? {
            for service in &loaded.stack.services {
                let app = self.app_of(&loaded, service)?;
                let known = match self.client.app(&app).await {
                    Ok(known) => Some(known.summary),
                    Err(error) if error.code() == Code::AppNotFound => None,
                    Err(error) => return Err(error.into()),
                };
                shown.push((loaded.name.clone(), service.name.clone(), app.app, known));
            }
        }
        let document: Vec<_> = shown
            .iter()
            .map(|(stack, service, app, known)| json!({ "stack": stack, "service": service, "app": app, "is": known }))
            .collect();
        self.show(&document, |session| {
            let mut table = Table::new(&["SERVICE", "APP", "STATE", ">RELEASE", "ADDRESS"]);
            for (_, service, app, known) in &shown {
                let state = match known {
                    Some(known) => known.state.as_str().into(),
                    None => Cell::new("not there", Style::Dim),
                };
                let release = known.as_ref().and_then(|known| known.release);
                let url = known.as_ref().and_then(|known| known.urls.first().cloned());
                table.row(vec![
                    service.as_str().into(),
                    app.as_str().into(),
                    state,
                    release.map_or_else(|| "-".to_owned(), |release| release.to_string()).into(),
                    url.unwrap_or_default().into(),
                ]);
            }
            session.print(&table)
        })
    }

    async fn stack_down(
        &mut self,
        of: &OfStack,
        volumes: bool,
        remove_orphans: bool,
        yes: bool,
    ) -> Result<ExitStatus, Failure> {
        let mut gone = Vec::new();
        let all = self.stacks(of)?;
        for loaded in &all {
            let mut there = Vec::new();
            let orphans = self.orphans(loaded, &all).await?;
            if remove_orphans {
                there.extend(orphans.iter().cloned());
            }
            for service in loaded.stack.services.iter().rev() {
                let app = self.app_of(loaded, service)?;
                if !self.is_there(&app).await? {
                    continue;
                }
                match self.stranger(loaded, &app).await? {
                    None => there.push(app),
                    Some(whose) => self.hint(&format!("{} is of {whose}, and stays", app.app))?,
                }
            }
            for orphan in orphans.iter().filter(|_| !remove_orphans) {
                self.hint(&format!(
                    "{} is of this stack and no longer in {}; it stays without --remove-orphans",
                    orphan.app, loaded.file
                ))?;
            }
            if !yes && !there.is_empty() {
                let names: Vec<&str> = there.iter().map(|app| app.app.as_str()).collect();
                let stay = if volumes { "with their volumes" } else { "; their volumes stay" };
                let what = format!(
                    "This stops and removes {}{}{stay}.",
                    names.join(", "),
                    if volumes { " " } else { "" }
                );
                self.confirm(&format!("taking {} down", loaded.name), &what, loaded.name.as_str())?;
            }
            for app in there {
                self.client.destroy_app(&app, &DestroyQuery { volumes }).await?;
                self.until_gone(&app).await?;
                self.hint(&format!("{} is gone", app.app))?;
                gone.push(app);
            }
        }
        self.show(&json!({ "destroyed": gone }), |session| {
            let what = if gone.is_empty() { "nothing of it was there" } else { "the stack is down" };
            Ok(session.screen.line(what)?)
        })
    }

    /// Tells what becomes of each service, and what is not taken over.
    fn show_stack(&mut self, loaded: &Loaded, dry_run: bool) -> Result<(), Failure> {
        if self.json {
            if dry_run || loaded.stack.is_refused() {
                let told: Vec<_> = loaded.stack.told.iter().map(|told| json!({ "file": loaded.file, "line": told.line, "what": told.what, "why": told.why, "refused": told.refused })).collect();
                let services: Vec<_> = loaded.stack.services.iter().map(|service| json!({ "service": service.name, "app": format!("{}-{}", loaded.name, service.name), "after": service.after.keys().collect::<Vec<_>>() })).collect();
                self.screen
                    .json(&json!({ "stack": loaded.name, "services": services, "not_taken_over": told }))?;
            }
            return Ok(());
        }
        self.screen.line(&format!("{} is the stack {}", loaded.file, loaded.name))?;
        for service in &loaded.stack.services {
            self.point(&described(loaded, service))?;
        }
        if !loaded.stack.told.is_empty() {
            self.screen.line("not taken over:")?;
        }
        for told in &loaded.stack.told {
            let refused = if told.refused { "refused: " } else { "" };
            self.point(&format!("{}:{} {refused}{}: {}", loaded.file, told.line, told.what, told.why))?;
        }
        Ok(())
    }

    fn app_of(&self, loaded: &Loaded, service: &Service) -> Result<AppId, Failure> {
        let name = AppName::new(&app_name(loaded, service)).map_err(|bad| {
            Failure::local(
                Code::UsageInvalid,
                bad.to_string(),
                "give the stack a shorter name: `berth stack up NAME -f FILE`",
            )
        })?;
        Ok(self.project.app(name))
    }
}

fn described(loaded: &Loaded, service: &Service) -> String {
    let what = match (&service.context, &service.manifest.build.image) {
        (Some(context), _) => format!("built from {context}"),
        (None, Some(image)) => format!("the image {image}"),
        (None, None) => "nothing to run".to_owned(),
    };
    let mut text = format!("{} becomes the app {}-{}: {what}", service.name, loaded.name, service.name);
    if service.is_job {
        text.push_str(", run once to its end");
    }
    if let Some(port) = service.manifest.http.port {
        text.push_str(&format!(", HTTP at its port {port}"));
        if service.manifest.http.internal {
            text.push_str(" for the others alone");
        }
    }
    if let Some((_, count)) = service.replicas.as_ref().filter(|_| !service.is_job) {
        text.push_str(&format!(", {count} instances"));
    }
    let after: Vec<String> = service.after.keys().map(ToString::to_string).collect();
    if !after.is_empty() {
        text.push_str(&format!(", after {}", after.join(" and ")));
    }
    text
}
