//! `apps`, `ps`, `scale` and `destroy`.

use std::time::Duration;

use berth_contract::{
    AppList, AppState, AppSummary, AppsQuery, Code, DestroyQuery, Exit, ExitStatus, Instance, InstanceList,
    InstanceState, ProcessCount, Scale, Volume,
};
use berth_spec::{AppId, Gate, Timestamp};
use serde_json::json;

use super::Session;
use super::volumes::described;
use crate::args::{AppOrder, AppsArgs, DestroyArgs, OfApp, ScaleArgs};
use crate::failure::Failure;
use crate::figures::{self, counted};
use crate::screen::Style;
use crate::table::{Cell, Table};

/// Between two looks whether an app is gone.
const LOOK: Duration = Duration::from_millis(100);

impl Session<'_> {
    pub(super) async fn apps(&mut self, args: AppsArgs) -> Result<ExitStatus, Failure> {
        let searched = args.text.is_some() || args.state.is_some();
        let mut list = self.apps_asked(&args).await?;
        let found = list.apps.len();
        list.apps.truncate(args.count.unwrap_or(usize::MAX));
        self.show(&list, |session| {
            if found == 0 {
                let none = if searched {
                    "no app is like that"
                } else {
                    "no apps yet: `berth launch` in a directory makes one"
                };
                return session.hint(none);
            }
            session.print(&apps_table(&list.apps))?;
            match found - list.apps.len() {
                0 => Ok(()),
                more => session.hint(&format!("and {}", counted(more as u64, "more app"))),
            }
        })
    }

    /// The apps that were asked for, in their order. What the platform need not send is not asked of it.
    async fn apps_asked(&self, args: &AppsArgs) -> Result<AppList, Failure> {
        let mut list = AppList { apps: Vec::new(), next: None };
        let mut query = AppsQuery { q: args.text.clone(), ..AppsQuery::default() };
        loop {
            let page = self.client.apps_page(&self.project, &query).await?;
            let asked = page.apps.into_iter().filter(|app| args.state.is_none_or(|state| app.state == state));
            list.apps.extend(asked);
            query.after = page.next;
            // One more than is listed, so that it can be said whether there are more.
            let enough =
                args.sort == AppOrder::Name && args.count.is_some_and(|count| list.apps.len() > count);
            if query.after.is_none() || enough {
                break;
            }
        }
        match args.sort {
            AppOrder::Name => {}
            AppOrder::State => {
                list.apps.sort_by_key(|app| AppState::ALL.iter().position(|state| *state == app.state))
            }
            AppOrder::Release => list.apps.sort_by_key(|app| std::cmp::Reverse(app.release)),
        }
        Ok(list)
    }

    pub(super) async fn ps(&mut self, of: OfApp) -> Result<ExitStatus, Failure> {
        let list = self.client.instances(&self.app_id(&of)?).await?;
        let now = self.clock.now();
        self.show(&list, |session| {
            if list.instances.is_empty() && list.asleep.is_none() {
                return session.hint("no instances: nothing was deployed, or everything is scaled to 0");
            }
            if !list.instances.is_empty() {
                session.print(&instances_table(&list, now))?;
            }
            let Some(asleep) = list.asleep else { return Ok(()) };
            session.hint(&format!(
                "asleep ({}) since {}: a request wakes it",
                asleep.depth.as_str(),
                figures::ago(now, asleep.since)
            ))
        })
    }

    pub(super) async fn scale(&mut self, args: ScaleArgs) -> Result<ExitStatus, Failure> {
        let app = self.app_id(&args.of)?;
        if args.counts.is_empty() {
            let processes = self.client.app(&app).await?.summary.processes;
            let wanted = Scale(processes.iter().map(|(name, count)| (name.clone(), count.wanted)).collect());
            return self.show(&wanted, |session| {
                let mut table = Table::new(&["PROCESS", ">WANTED", ">RUNNING"]);
                for (name, count) in &processes {
                    let running = Cell::new(count.running.to_string(), style_of_count(*count));
                    table.row(vec![name.as_str().into(), count.wanted.to_string().into(), running]);
                }
                session.print(&table)
            });
        }
        let mut wanted = Scale(Default::default());
        for (process, count) in args.counts {
            if wanted.0.insert(process.clone(), count).is_some() {
                let detail = format!("{process} is given twice");
                return Err(Failure::local(Code::UsageInvalid, detail, "give each process once"));
            }
        }
        let now_wanted = self.client.scale(&app, &wanted).await?;
        self.show(&now_wanted, |session| {
            let all: Vec<String> =
                now_wanted.0.iter().map(|(name, count)| format!("{name}={count}")).collect();
            session.screen.line(&format!("{} wants {}", app.app, all.join(" ")))?;
            session.hint("`berth ps` shows how they get on")
        })
    }

    pub(super) async fn destroy(&mut self, args: DestroyArgs) -> Result<ExitStatus, Failure> {
        let app = self.app_id(&args.of)?;
        // Of an app that is not there, which is told as that below, there is nothing to tell.
        let volumes = self.client.volumes(&app).await.map(|list| list.volumes).unwrap_or_default();
        if !args.yes {
            // The app is looked up first: nobody should type the name of one that is not there.
            self.client.app(&app).await?;
            let name = &app.app;
            let what =
                format!("This stops {name} and removes its releases, configuration, secrets and logs.");
            let what = match (volumes.is_empty(), args.volumes) {
                (true, _) => what,
                (false, true) => format!("{what}\nIts volumes go too: {}.", named(&volumes)),
                (false, false) => format!("{what}\nIts volumes stay: {}.", named(&volumes)),
            };
            self.confirm(&format!("destroying {name}"), &what, name.as_str())?;
        }
        self.client.destroy_app(&app, &DestroyQuery { volumes: args.volumes }).await?;
        self.hint(&format!("stopping and removing {}", app.app))?;
        self.until_gone(&app).await?;
        let kept: Vec<&Volume> =
            volumes.iter().filter(|volume| !args.volumes && volume.used.is_some()).collect();
        let names: Vec<&str> = kept.iter().map(|volume| volume.name.as_str()).collect();
        self.show(&json!({ "destroyed": app, "kept_volumes": names }), |session| {
            session.screen.line(&format!("{} is gone", app.app))?;
            let Some(first) = kept.first() else { return Ok(()) };
            session.hint(&format!(
                "its volumes are still there: {}; a new app of this name has them again, `berth volumes remove {} -a {}` removes one",
                named(kept.iter().copied()),
                first.name,
                app.app
            ))
        })
    }

    /// Waits until the platform knows nothing of the app any more. It ends by itself: what does not stop is killed.
    pub(super) async fn until_gone(&self, app: &AppId) -> Result<(), Failure> {
        loop {
            match self.client.app(app).await {
                Ok(_) => tokio::time::sleep(LOOK).await,
                Err(error) if error.code() == Code::AppNotFound => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Has whoever asked for `doing` type the name of what it is done to.
    pub(super) fn confirm(&mut self, doing: &str, what: &str, name: &str) -> Result<(), Failure> {
        let refused =
            |detail: String| Failure::local(Code::NotConfirmed, detail, "give --yes if you mean it");
        if !self.screen.asks {
            return Err(refused(format!("{doing} needs to be confirmed, and there is no terminal")));
        }
        if self.screen.ask(&format!("{what}\nType its name:"))? == name {
            Ok(())
        } else {
            Err(refused(format!("that is not {name}; nothing was done")))
        }
    }
}

fn named<'a>(volumes: impl IntoIterator<Item = &'a Volume>) -> String {
    let all: Vec<String> = volumes.into_iter().map(described).collect();
    all.join(", ")
}

pub(super) fn apps_table(apps: &[AppSummary]) -> Table {
    let mut table = Table::new(&["APP", "STATE", ">RELEASE", "PROCESSES", "ADDRESS"]);
    for app in apps {
        let processes: Vec<String> = app
            .processes
            .iter()
            .map(|(name, count)| format!("{name} {}/{}", count.running, count.wanted))
            .collect();
        table.row(vec![
            app.name.as_str().into(),
            state_of(app),
            app.release.map_or("-".to_owned(), |release| release.to_string()).into(),
            processes.join(", ").into(),
            app.urls.first().cloned().unwrap_or_default().into(),
        ]);
    }
    table
}

fn state_of(app: &AppSummary) -> Cell {
    let state = match app.asleep {
        Some(asleep) if app.state == AppState::Asleep => format!("asleep ({})", asleep.depth.as_str()),
        _ => app.state.as_str().to_owned(),
    };
    match app.gate {
        Gate::Open => Cell::new(state, style_of_app(app.state)),
        closed => Cell::new(format!("{state}, {}", closed.as_str()), Style::Warning),
    }
}

pub(super) fn instances_table(list: &InstanceList, now: Timestamp) -> Table {
    let mut table =
        Table::new(&["INSTANCE", "STATE", ">RELEASE", ">PID", ">PORT", ">STARTED", ">RESTARTS", "LAST EXIT"]);
    for instance in &list.instances {
        let number = |value: Option<u32>| value.map_or("-".to_owned(), |value| value.to_string());
        table.row(vec![
            instance.id.short().into(),
            Cell::new(instance.state.as_str(), style_of_instance(instance)),
            instance.release.to_string().into(),
            number(instance.pid).into(),
            number(instance.port.map(u32::from)).into(),
            instance.started_at.map_or("-".to_owned(), |at| figures::ago(now, at)).into(),
            instance.restarts.to_string().into(),
            last_exit(instance, now).into(),
        ]);
    }
    table
}

/// How its program last ended, and that processes of it were killed for want of memory where that says nothing of it.
fn last_exit(instance: &Instance, now: Timestamp) -> String {
    let exit = instance.exit.map(|exit| ended(exit, now));
    let is_told = instance.exit.is_some_and(|exit| exit.oom);
    let killed = (instance.oom_kills > 0 && !is_told).then(|| match instance.oom_kills {
        1 => "1 child out of memory".to_owned(),
        count => format!("{count} children out of memory"),
    });
    exit.into_iter().chain(killed).collect::<Vec<_>>().join("; ")
}

fn ended(exit: Exit, now: Timestamp) -> String {
    let how = match (exit.status, exit.signal) {
        _ if exit.unhealthy => "unhealthy".to_owned(),
        (Some(status), _) if exit.oom => format!("status {status}, out of memory"),
        (None, Some(_)) if exit.oom => "out of memory".to_owned(),
        (Some(status), _) => format!("status {status}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown".to_owned(),
    };
    format!("{how}, {}", figures::ago(now, exit.at))
}

const fn style_of_app(state: AppState) -> Style {
    match state {
        AppState::Running => Style::Good,
        AppState::Degraded => Style::Warning,
        AppState::Down => Style::Bad,
        AppState::Empty | AppState::Asleep | AppState::Stopped | AppState::Destroying => Style::Dim,
    }
}

const fn style_of_count(count: ProcessCount) -> Style {
    if count.running >= count.wanted { Style::Good } else { Style::Warning }
}

const fn style_of_instance(instance: &Instance) -> Style {
    match instance.state {
        InstanceState::Ready => Style::Good,
        InstanceState::Starting | InstanceState::Draining | InstanceState::Stopping => Style::Warning,
        InstanceState::Unhealthy | InstanceState::Backoff => Style::Bad,
        InstanceState::Warm | InstanceState::Frozen | InstanceState::Exited => Style::Dim,
    }
}
