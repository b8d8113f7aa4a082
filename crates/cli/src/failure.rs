//! What went wrong, told so that one knows what to do next.

use std::error::Error;
use std::io;

use berth_contract::client::ClientError;
use berth_contract::{Code, ExitStatus, Problem, SourceError};
use berth_source::walk::PackError;
use berth_spec::Problems;

use crate::context::ContextError;
use crate::screen::{Screen, Style};

/// Why a verb was not done.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The platform refused, or could not be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It is not known which platform is meant.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// The source cannot be packed.
    #[error(transparent)]
    Source(#[from] PackError),
    /// The source's files that a person wrote have errors.
    #[error("{} not valid", files(.0))]
    Manifest(Problems),
    /// Found here, without the platform.
    #[error(transparent)]
    Local(Box<Problem>),
    /// The output could not be written.
    #[error("cannot write the output")]
    Output(#[source] io::Error),
}

impl From<io::Error> for Failure {
    fn from(problem: io::Error) -> Self {
        Self::Output(problem)
    }
}

impl Failure {
    /// A failure found without the platform.
    pub(crate) fn local(code: Code, detail: impl Into<String>, next: impl Into<String>) -> Self {
        Self::Local(Box::new(Problem::new(code, detail).next(next)))
    }

    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Client(problem) => problem.code(),
            Self::Context(ContextError::NoPlatform { .. }) => Code::Unreachable,
            Self::Context(ContextError::Foreign { .. }) => Code::Forbidden,
            Self::Context(
                ContextError::NoHome | ContextError::Api(_) | ContextError::NoSuchContext { .. },
            ) => Code::UsageInvalid,
            Self::Context(ContextError::File { .. }) => Code::ContextInvalid,
            Self::Source(PackError::Tree(_)) => Code::InvalidTree,
            Self::Source(_) => Code::SourceUnreadable,
            Self::Manifest(_) => Code::ManifestInvalid,
            Self::Local(problem) => problem.code,
            Self::Output(_) => Code::Internal,
        }
    }

    /// The failure as one document.
    fn problem(&self) -> Problem {
        match self {
            Self::Client(ClientError::Problem(problem)) | Self::Local(problem) => (**problem).clone(),
            other => {
                let mut problem = Problem::new(other.code(), other.to_string());
                problem.next = next_step(problem.code).map(str::to_owned);
                if let Self::Manifest(problems) = other {
                    problem.errors = problems.0.iter().map(source_error).collect();
                }
                problem
            }
        }
    }
}

/// `berth.toml is`, `Procfile and berth.toml are`.
fn files(problems: &Problems) -> String {
    let mut names: Vec<&str> = problems.0.iter().map(|problem| problem.file.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    format!("{} {}", names.join(" and "), if names.len() == 1 { "is" } else { "are" })
}

fn source_error(problem: &berth_spec::Problem) -> SourceError {
    SourceError {
        file: Some(problem.file.clone()),
        line: problem.line,
        column: problem.column,
        message: problem.what.clone(),
        context: Some(problem.context.clone()),
        instead: problem.instead.clone(),
    }
}

/// What usually helps, where the platform does not say.
fn next_step(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::Unreachable => "start it with `berth up`, or see what is wrong with `berth doctor`",
        Code::ContextInvalid => "correct or delete the file, or give --home",
        Code::UsageInvalid => "give --home DIR, or set BERTH_HOME, or BERTH_API and BERTH_TOKEN",
        Code::Forbidden => "use the platform's own machine, or forward its API port through ssh",
        Code::SourceUnreadable | Code::InvalidTree => "name what does not belong to the app in .berthignore",
        Code::ManifestInvalid => "correct the places above; nothing was deployed",
        _ => return None,
    })
}

/// Tells the failure on standard error, and what to end with.
#[must_use]
pub fn tell(failure: &Failure, json: bool, screen: &mut Screen) -> ExitStatus {
    if let Failure::Output(problem) = failure
        && problem.kind() == io::ErrorKind::BrokenPipe
    {
        // `berth logs | head`: the reader has what it wanted.
        return ExitStatus::Ok;
    }
    let problem = failure.problem();
    let whys = causes(failure);
    // When standard error cannot be written either, the exit status has to do.
    drop(if json { tell_json(problem.clone(), &whys, screen) } else { tell_text(&problem, &whys, screen) });
    problem.code.exit_status()
}

/// The chain of causes below what is said already.
fn causes(failure: &Failure) -> Vec<String> {
    let mut whys: Vec<String> = Vec::new();
    let mut cause = failure.source();
    while let Some(problem) = cause {
        let text = problem.to_string();
        if whys.last() != Some(&text) {
            whys.push(text);
        }
        cause = problem.source();
    }
    whys
}

fn tell_json(mut problem: Problem, whys: &[String], screen: &mut Screen) -> io::Result<()> {
    for why in whys {
        problem.detail.push_str(": ");
        problem.detail.push_str(why);
    }
    screen.aside(&serde_json::to_string(&problem).map_err(io::Error::other)?)
}

fn tell_text(problem: &Problem, whys: &[String], screen: &mut Screen) -> io::Result<()> {
    screen.marked_aside("error:", Style::Bad, &problem.detail)?;
    for error in &problem.errors {
        screen.aside(&format!("  {error}"))?;
        if let Some(context) = error.context.as_ref().filter(|context| !context.trim().is_empty()) {
            let number = error.line.to_string();
            let before = usize::try_from(error.column).unwrap_or(usize::MAX).saturating_sub(1);
            let blank: String =
                context.chars().take(before).map(|c| if c == '\t' { c } else { ' ' }).collect();
            screen.aside(&format!("    {number} | {context}"))?;
            screen.aside(&format!("    {} | {blank}^", " ".repeat(number.len())))?;
        }
        if let Some(instead) = &error.instead {
            screen.aside(&format!("    {instead}"))?;
        }
    }
    for why in whys {
        screen.aside(&format!("  why:  {why}"))?;
    }
    if let Some(next) = &problem.next {
        screen.aside(&format!("  next: {next}"))?;
    }
    if let Some(instance) = &problem.instance {
        screen.aside(&format!("  id:   {instance}"))?;
    }
    screen.aside(&format!("  code: {} ({})", problem.code, problem.code.page()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::tests::Written;

    fn told(failure: &Failure, json: bool) -> (ExitStatus, String) {
        let err = Written::default();
        let status = tell(failure, json, &mut Screen::plain(io::sink(), err.clone(), io::empty()));
        (status, err.text())
    }

    fn unreachable() -> Failure {
        let source = io::Error::other("connection refused");
        Failure::Client(ClientError::Unreachable { endpoint: "/run/berth/api.sock".into(), source })
    }

    #[test]
    fn a_failure_says_what_why_and_what_next() {
        assert_eq!(
            told(&unreachable(), false),
            (
                ExitStatus::Unreachable,
                "error: cannot connect to /run/berth/api.sock\n  why:  connection refused\n  \
                 next: start it with `berth up`, or see what is wrong with `berth doctor`\n  \
                 code: unreachable (docs/errors/unreachable.md)\n"
                    .to_owned()
            )
        );
    }

    #[test]
    fn in_json_it_is_one_problem_document() {
        let (_, text) = told(&unreachable(), true);
        let problem: Problem = serde_json::from_str(&text).unwrap();
        assert_eq!(problem.code, Code::Unreachable);
        assert_eq!(problem.detail, "cannot connect to /run/berth/api.sock: connection refused");
    }

    #[test]
    fn errors_of_a_manifest_show_their_place() {
        let problems = berth_spec::Manifest::read(Some("app = \"shop\"\n[deploi]\n"), None).unwrap_err();
        let (status, text) = told(&Failure::Manifest(problems), false);
        assert_eq!(status, ExitStatus::Refused);
        assert!(text.starts_with("error: berth.toml is not valid\n  berth.toml:2:"), "{text}");
        assert!(text.contains("\n    2 | [deploi]\n"), "{text}");
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        let gone = Failure::Output(io::ErrorKind::BrokenPipe.into());
        assert_eq!(told(&gone, false), (ExitStatus::Ok, String::new()));
    }
}
