//! Following a deployment to its end.

use std::pin::pin;
use std::time::Duration;

use berth_contract::{Code, ExitStatus, Failure as Reported, ProgressEvent, Release, Stage};
use berth_spec::{AppId, Millis, ReleaseNumber};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::Session;
use crate::args::Waiting;
use crate::failure::Failure;
use crate::figures;
use crate::screen::{Style, harmless, paint};

/// How often the status line is drawn again.
const REDRAW: Duration = Duration::from_millis(100);
const SPINNER: [char; 4] = ['-', '\\', '|', '/'];

/// What is on the status line.
struct Shown {
    stage: String,
    since: Duration,
    frame: usize,
}

impl Session<'_> {
    /// Shows how a release gets on, unless it is not to be waited for, and ends as it ends.
    pub(super) async fn follow(
        &mut self,
        app: &AppId,
        release: Release,
        waiting: Waiting,
    ) -> Result<ExitStatus, Failure> {
        if waiting.detach {
            let number = release.number;
            return self.show(&json!({ "release": release, "followed": false }), |session| {
                session.screen.line(&format!(
                    "{number} is under way; `berth releases {number}` shows how it gets on"
                ))?;
                Ok(())
            });
        }
        let number = release.number;
        let submitted = release.created_at;
        let last = match self.watch(app, number).await? {
            Some(last) => last,
            None => return self.detached(app, number),
        };
        match last.stage {
            Stage::Active => self.serving(app, number, last.at - submitted).await,
            Stage::Superseded => self.superseded(app, &last).await,
            _ => self.failed(app, &last).await,
        }
    }

    /// The last event, or none after Ctrl-C.
    async fn watch(&mut self, app: &AppId, number: ReleaseNumber) -> Result<Option<ProgressEvent>, Failure> {
        let mut events = self.client.progress(app, number);
        let mut shown = Shown { stage: "submitted".to_owned(), since: self.clock.monotonic(), frame: 0 };
        let mut ticker = tokio::time::interval(REDRAW);
        // One over all events: a Ctrl-C between two of them, where nobody listened, would be lost.
        let mut interrupt = signal(SignalKind::interrupt())?;
        loop {
            let event = {
                // One future over all ticks: a new one at each would start connecting anew each time.
                let mut next = pin!(events.next());
                loop {
                    tokio::select! {
                        event = &mut next => break event,
                        _ = ticker.tick() => self.redraw(&mut shown)?,
                        _ = interrupt.recv() => return Ok(None),
                    }
                }
            };
            let Some(event) = event else {
                let detail = format!("the platform ended the progress of {number} before its end");
                return Err(Failure::local(Code::Internal, detail, "`berth releases` shows how it gets on"));
            };
            let event = event.inspect_err(|_| drop(self.screen.clear_status()))?;
            self.show_event(&event, &mut shown)?;
            if event.log.is_none() && event.stage.is_end() {
                self.screen.clear_status()?;
                return Ok(Some(event));
            }
        }
    }

    fn show_event(&mut self, event: &ProgressEvent, shown: &mut Shown) -> Result<(), Failure> {
        if self.json {
            return Ok(());
        }
        match &event.log {
            // On a terminal the latest line of output is enough: all of them come with a failure.
            Some(output) if self.screen.live => {
                shown.stage = format!("{}: {}", event.stage, output.text.trim())
            }
            Some(output) => self.screen.line(&format!("  | {}", harmless(&output.text)))?,
            None if event.stage.is_end() => {}
            None => {
                let mark = paint("*", Style::Dim, self.screen.colour);
                self.screen.line(&format!("{mark} {}", harmless(&event.text)))?;
                shown.stage = event.stage.to_string().replace('_', " ");
            }
        }
        Ok(())
    }

    fn redraw(&mut self, shown: &mut Shown) -> Result<(), Failure> {
        if self.json || !self.screen.live {
            return Ok(());
        }
        shown.frame = (shown.frame + 1) % SPINNER.len();
        let elapsed = self.clock.monotonic().saturating_sub(shown.since);
        let text = format!("{} {:.1}s {}", SPINNER[shown.frame], elapsed.as_secs_f64(), shown.stage);
        Ok(self.screen.status(&text)?)
    }

    fn detached(&mut self, app: &AppId, number: ReleaseNumber) -> Result<ExitStatus, Failure> {
        self.screen.clear_status()?;
        if self.json {
            self.screen.json(&json!({ "release": { "number": number }, "followed": false }))?;
        }
        let again = format!("`berth releases {number} --app {}` shows how it gets on", app.app);
        self.hint(&format!("\nthe deployment of {number} goes on without you; {again}"))?;
        Ok(ExitStatus::Interrupted)
    }

    async fn serving(
        &mut self,
        app: &AppId,
        number: ReleaseNumber,
        took: Millis,
    ) -> Result<ExitStatus, Failure> {
        let (summary, release) =
            (self.client.app(app).await?.summary, self.client.release(app, number).await?);
        let edge = self.client.platform().await.map(|platform| platform.edge).ok();
        self.show(&json!({ "release": release, "followed": true, "urls": summary.urls }), |session| {
            let took = figures::took(release.took_ms.unwrap_or(took));
            let mark = paint("ok", Style::Good, session.screen.colour);
            session.screen.line(&format!("{mark} {number} of {} is active after {took}", app.app))?;
            for url in &summary.urls {
                let shown = paint(url, Style::Bold, session.screen.colour);
                session.screen.line(&format!("   {shown}"))?;
            }
            if let Some(hint) = summary.urls.first().and_then(|url| curl_hint(url, edge.as_deref()?)) {
                session.screen.line(&format!("   {hint}"))?;
            }
            Ok(())
        })
    }

    async fn superseded(&mut self, app: &AppId, last: &ProgressEvent) -> Result<ExitStatus, Failure> {
        if self.json {
            let release = self.client.release(app, last.release).await?;
            self.screen.json(&json!({ "release": release, "followed": true }))?;
        } else {
            let text = format!("{} was superseded: {}", last.release, harmless(&last.text));
            self.screen.marked_aside("note:", Style::Warning, &text)?;
        }
        Ok(ExitStatus::Superseded)
    }

    async fn failed(&mut self, app: &AppId, last: &ProgressEvent) -> Result<ExitStatus, Failure> {
        // The event usually carries the reason; the release always does, and what changed with it.
        let release = self.client.release(app, last.release).await?;
        let reported = release.failure.as_ref().or(last.failure.as_ref());
        let code = reported.map_or(Code::Internal, |reported| reported.code);
        if self.json {
            self.screen.json(&json!({ "release": release, "followed": true }))?;
        } else {
            self.tell_failure(last.release, &last.text, reported, code)?;
        }
        Ok(match code.exit_status() {
            // A deployment that failed has failed, whatever it failed with.
            ExitStatus::Superseded => ExitStatus::Superseded,
            _ => ExitStatus::Failed,
        })
    }

    fn tell_failure(
        &mut self,
        number: ReleaseNumber,
        text: &str,
        reported: Option<&Reported>,
        code: Code,
    ) -> Result<(), Failure> {
        let summary = reported.map_or(text, |reported| &reported.summary);
        self.screen.marked_aside("error:", Style::Bad, &format!("{number} failed: {}", harmless(summary)))?;
        for line in reported.map(Reported::report).unwrap_or_default() {
            self.screen.aside(&format!("  {}", harmless(&line)))?;
        }
        if reported.is_none_or(|reported| reported.next.is_none()) {
            self.screen.aside("  next: correct it and deploy again; what served before still serves")?;
        }
        Ok(self.screen.aside(&format!("  code: {code} ({})", code.page()))?)
    }
}

/// How to ask the app where its name does not resolve, which is so for many programs.
pub(super) fn curl_hint(url: &str, edge: &str) -> Option<String> {
    let host = url.strip_prefix("http://")?.split(['/', ':']).next()?;
    let edge = edge.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:");
    Some(format!("curl -H 'Host: {host}' http://{edge}/"))
}
