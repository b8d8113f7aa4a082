//! Names that people choose, checked once where they enter.
//!
//! A name becomes a path segment, a host label, a journal stream and part of the data that seals a
//! secret. Its alphabet is therefore the intersection of what those allow: a DNS label (RFC 1035
//! section 2.3.1), in lower case.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::unit::Timestamp;

/// Why a string is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} name {given:?} {problem}")]
pub struct InvalidName {
    kind: &'static str,
    given: String,
    problem: Problem,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Problem {
    #[error("is empty")]
    Empty,
    #[error("is longer than {0} characters")]
    TooLong(usize),
    #[error("must start with a letter")]
    Start,
    #[error("must end with a letter or a digit")]
    End,
    #[error("may hold only a-z, 0-9 and -")]
    LabelAlphabet,
    #[error("may hold only letters, digits and _, and must not start with a digit")]
    EnvAlphabet,
    #[error(
        "must be words of letters, digits, -, _ and . with / between them, none of which starts with - or ."
    )]
    BranchForm,
    #[error("must be a moment as in 20261127T171530Z")]
    MomentForm,
    #[error("is reserved: Berth sets it for every instance")]
    Reserved,
}

/// The longest label that still fits a DNS label beside a prefix of ours.
const LABEL_MAX: usize = 40;
/// The longest name of a branch; it becomes a path on the disk.
const BRANCH_MAX: usize = 100;
/// The longest environment variable name; glibc has no limit, a journal row wants one.
const ENV_MAX: usize = 128;
/// What Berth itself puts into an instance's environment; see docs/environment.md.
pub const RESERVED_ENV: [&str; 6] =
    ["PORT", "RELEASE_VERSION", "SOURCE_COMMIT", "APP_NAME", "INSTANCE_ID", "RELEASE_COMMAND"];

/// What one-off commands run as; no process of an app may have this name either.
pub const RUN_PROCESS: &str = "run";
/// What the release command runs as, beside the app's own processes: no process of an app may have this name.
pub const RELEASE_COMMAND_PROCESS: &str = "release-command";

fn check_label(text: &str) -> Result<(), Problem> {
    let (Some(first), Some(last)) = (text.bytes().next(), text.bytes().last()) else {
        return Err(Problem::Empty);
    };
    if text.len() > LABEL_MAX {
        return Err(Problem::TooLong(LABEL_MAX));
    }
    if !text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') {
        return Err(Problem::LabelAlphabet);
    }
    if !first.is_ascii_lowercase() {
        return Err(Problem::Start);
    }
    if last == b'-' {
        return Err(Problem::End);
    }
    Ok(())
}

/// What git takes (git-check-ref-format(1)) of plain characters, and nothing that a program could take for an option.
fn check_branch(text: &str) -> Result<(), Problem> {
    if text.is_empty() {
        return Err(Problem::Empty);
    }
    if text.len() > BRANCH_MAX {
        return Err(Problem::TooLong(BRANCH_MAX));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/');
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with(['-', '.'])
            && !part.ends_with('.')
            && !part.to_ascii_lowercase().ends_with(".lock")
            && !part.contains("..")
    };
    if text.bytes().all(plain) && text.split('/').all(part) { Ok(()) } else { Err(Problem::BranchForm) }
}

/// A moment in UTC, to the second, in the basic form of ISO 8601.
fn check_moment(text: &str) -> Result<(), Problem> {
    let digits = |part: Option<&str>| part.is_some_and(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
    let fits = text.len() == 16
        && digits(text.get(..8))
        && text.get(8..9) == Some("T")
        && digits(text.get(9..15))
        && text.ends_with('Z');
    if fits { Ok(()) } else { Err(Problem::MomentForm) }
}

fn check_env(text: &str) -> Result<(), Problem> {
    let Some(first) = text.bytes().next() else {
        return Err(Problem::Empty);
    };
    if text.len() > ENV_MAX {
        return Err(Problem::TooLong(ENV_MAX));
    }
    if first.is_ascii_digit() || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(Problem::EnvAlphabet);
    }
    if RESERVED_ENV.contains(&text) {
        return Err(Problem::Reserved);
    }
    Ok(())
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident($kind:literal, $check:ident);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// Checks `text` against the alphabet and the length of this kind of name.
            ///
            /// # Errors
            /// [`InvalidName`] says which rule it breaks.
            pub fn new(text: &str) -> Result<Self, InvalidName> {
                match $check(text) {
                    Ok(()) => Ok(Self(text.into())),
                    Err(problem) => {
                        Err(InvalidName { kind: $kind, given: text.chars().take(80).collect(), problem })
                    }
                }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.into()
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    )*};
}

names! {
    /// An app, unique within its project, and the first label of its default host.
    AppName("app", check_label);
    /// A branch of a git repository.
    BranchName("branch", check_branch);
    /// A command that an app runs by a schedule.
    CronName("cron entry", check_label);
    /// The name of an environment variable or a secret.
    EnvName("environment variable", check_env);
    /// A process type of an app, the word left of the colon in a Procfile: `web`, `worker`.
    ProcessName("process", check_label);
    /// A project within a tenant.
    ProjectName("project", check_label);
    /// A snapshot of a volume, by the moment at which it was taken: `20261127T171530Z`.
    SnapshotName("snapshot", check_moment);
    /// A tenant: the widest wall there is.
    TenantName("tenant", check_label);
    /// A directory of an app that outlives its releases, unique within the app.
    VolumeName("volume", check_label);
}

impl SnapshotName {
    /// The name of a snapshot that is taken at this moment.
    #[must_use]
    pub fn at(moment: Timestamp) -> Self {
        let moment = i64::try_from(moment.0).ok().and_then(|it| jiff::Timestamp::from_millisecond(it).ok());
        let text = moment.unwrap_or_default().strftime("%Y%m%dT%H%M%SZ").to_string();
        Self::new(&text).expect("it is a moment of a year with four digits")
    }
}

impl ProcessName {
    /// The process that receives HTTP.
    pub const WEB: &'static str = "web";

    /// Whether edge routes requests to this process.
    #[must_use]
    pub fn is_web(&self) -> bool {
        self.as_str() == Self::WEB
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_are_plain_and_no_options() {
        for good in ["main", "release/2.x", "feature/A_b-c", "v1.0"] {
            assert!(BranchName::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "-x",
            "--upload-pack=x",
            "a/-b",
            "/a",
            "a/",
            "a//b",
            "..",
            "a..b",
            ".a",
            "a.",
            "a.lock",
            "a b",
            "a\nb",
            "a~1",
            "a^",
            "a:b",
            "a\\b",
            "@{x",
            "\u{e4}",
            &"a".repeat(101),
        ] {
            assert!(BranchName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_snapshot_is_named_by_its_moment() {
        assert_eq!(SnapshotName::at(Timestamp(1_795_233_785_042)).as_str(), "20261121T040305Z");
        for bad in [
            "",
            "20261121T040305",
            "2026112T0040305Z",
            "20261121t040305Z",
            "../../../../etc/x",
            "20261121T04030\u{e9}Z",
        ] {
            assert!(SnapshotName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn labels_are_dns_labels() {
        for good in ["a", "shop", "simple-web-app", "a1"] {
            assert!(AppName::new(good).is_ok(), "{good}");
        }
        for bad in
            ["", "-a", "a-", "1a", "A", "a b", "a/b", "..", "a.b", "ä", "a\0b", "$(id)", &"a".repeat(41)]
        {
            assert!(AppName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn reserved_variables_are_refused() {
        assert!(EnvName::new("DATABASE_URL").is_ok());
        let refused = EnvName::new("PORT").unwrap_err().to_string();
        assert_eq!(
            refused,
            "environment variable name \"PORT\" is reserved: Berth sets it for every instance"
        );
        for bad in ["", "1A", "A-B", "A=B", "A\nB"] {
            assert!(EnvName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_name_from_json_is_checked() {
        assert!(serde_json::from_str::<AppName>("\"../etc\"").is_err());
        assert_eq!(serde_json::from_str::<AppName>("\"shop\"").unwrap().as_str(), "shop");
    }
}
