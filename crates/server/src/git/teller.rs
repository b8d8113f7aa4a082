//! What whoever pushes is told: lines that git shows behind `remote:`.

use berth_contract::{Failure, Problem, ProgressEvent};
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::OwnedWriteHalf;

use super::{FRAME_END, FRAME_TEXT};

/// The longest line, in bytes.
const LINE_MAX: usize = 2_000;

/// The way to the hook, which prints what it is told. That it is gone is noticed by nobody here: the deployment does not depend on it.
#[derive(Debug)]
pub(super) struct Teller(OwnedWriteHalf);

impl Teller {
    pub(super) fn new(hook: OwnedWriteHalf) -> Self {
        Self(hook)
    }

    /// One line. What a terminal would take for a command is made harmless.
    pub(super) async fn line(&mut self, text: &str) {
        let end = text.floor_char_boundary(LINE_MAX);
        let mut line: String = text.get(..end).unwrap_or_default().chars().map(harmless).collect();
        line.push('\n');
        self.frame(FRAME_TEXT, line.as_bytes()).await;
    }

    /// A step of the deployment.
    pub(super) async fn step(&mut self, event: &ProgressEvent) {
        match &event.log {
            Some(output) => self.line(&format!("  | {}", output.text)).await,
            None => self.line(&format!("* {}", event.text)).await,
        }
    }

    /// Why the push is refused.
    pub(super) async fn problem(&mut self, problem: &Problem) {
        self.line(&format!("error: {}", problem.detail)).await;
        for error in &problem.errors {
            let file = error.file.as_deref().unwrap_or_default();
            self.line(&format!("  {file}:{}:{}: {}", error.line, error.column, error.message)).await;
        }
        if let Some(next) = &problem.next {
            self.line(&format!("  next: {next}")).await;
        }
        self.line(&format!("  code: {} ({})", problem.code, problem.page)).await;
    }

    /// Why the release failed.
    pub(super) async fn failure(&mut self, number: berth_spec::ReleaseNumber, failure: &Failure) {
        self.line(&format!("error: {number} failed: {}", failure.summary)).await;
        for detail in &failure.details {
            self.line(&format!("  why:  {detail}")).await;
        }
        for line in &failure.log {
            self.line(&format!("  | {line}")).await;
        }
        let next =
            failure.next.as_deref().unwrap_or("correct it and push again; what served before still serves");
        self.line(&format!("  next: {next}")).await;
        self.line(&format!("  code: {} ({})", failure.code, failure.code.page())).await;
    }

    /// The last word: whether the push is taken.
    pub(super) async fn end(mut self, taken: bool) {
        self.frame(FRAME_END, &[u8::from(!taken)]).await;
    }

    async fn frame(&mut self, kind: u8, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).expect("lines are short");
        let frame = [&[kind], length.to_be_bytes().as_slice(), bytes].concat();
        drop(self.0.write_all(&frame).await);
    }
}

fn harmless(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}
