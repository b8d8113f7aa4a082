//! The app manifest, normalised: every default applied, as releases and events hold it.
//!
//! [`Manifest::read`] makes it from what people write. Defaults are written into it, so that a release keeps
//! the behaviour it was made with when a later version of Berth has other defaults.

mod build;
mod canary;
mod cron;
mod healthcheck;
mod http_cache;
mod http_protocol;
mod http_route;
mod image_args;
mod keys;
mod rate_limit;
mod read;
mod request_limits;
mod resources;
mod scale;
mod volumes;
mod write;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::build::{Build, Builder};
pub use self::canary::{Analysis, CANARY_STEPS_MAX, Canary};
pub use self::cron::{CRON_MAX, Concurrency, CronEntry, made_name};
pub use self::healthcheck::Healthcheck;
pub use self::http_cache::HttpCache;
pub use self::http_protocol::HttpProtocol;
pub use self::http_route::{HttpMethod, HttpRoute, InvalidHttpMethod};
pub use self::rate_limit::{InvalidPathPrefix, InvalidPrincipal, PathPrefix, Principal, RateLimit};
pub use self::request_limits::RequestConcurrency;
pub use self::resources::Resources;
pub use self::scale::Sleep;
pub use self::volumes::{InvalidMountPath, MountPath, VOLUMES_MAX, Volume};
use crate::command::Command;
pub use crate::host::HostName;
use crate::isolation::Isolation;
use crate::name::{AppName, CronName, EnvName, ProcessName, VolumeName};
use crate::problem::Problems;
use crate::procfile::Procfile;
use crate::unit::Millis;

/// The name of the file that people write.
pub const FILE_NAME: &str = "berth.toml";
/// The longest manifest that is read, in bytes; those people write have a few hundred.
pub const MANIFEST_MAX: usize = 256 * 1024;
/// The longest name of an image, in bytes: registry, repository, tag and digest.
pub const IMAGE_NAME_MAX: usize = 800;
/// The longest value of one environment variable, in bytes; the kernel ends at 128 KiB.
pub const ENV_VALUE_MAX: usize = 32 * 1024;

/// An app's manifest with every default applied.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of this form; a reader refuses those it does not know.
    pub format: Format,
    /// The app's name, when the manifest gives one.
    pub app: Option<AppName>,
    /// The stack that it is a service of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack: Option<AppName>,
    /// How the source becomes an artifact.
    pub build: Build,
    /// What runs, by process; empty when only the builder knows.
    pub processes: BTreeMap<ProcessName, Command>,
    /// What the entrypoint of the image is given in place of the image's own command, by process.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub args: BTreeMap<ProcessName, Vec<String>>,
    /// Environment of every process; configuration and secrets win over it.
    pub env: BTreeMap<EnvName, String>,
    /// How a release replaces the one before.
    pub deploy: Deploy,
    /// How the web process is reached and probed.
    pub http: Http,
    /// How an instance is stopped.
    pub shutdown: Shutdown,
    /// What runs by a schedule.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cron: BTreeMap<CronName, CronEntry>,
    /// What instances reach.
    #[serde(default, skip_serializing_if = "Network::is_default")]
    pub network: Network,
    /// How much of the machine an instance of a process may take; of those that are not named nothing is said.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: BTreeMap<ProcessName, Resources>,
    /// The least that has to stand between an instance and the rest of its machine: `[isolation] minimum`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// Directories that outlive releases and instances.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<VolumeName, Volume>,
    /// The processes that stand still while nobody asks for them: `[scale.web] min = 0`. Only web can.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scale: BTreeMap<ProcessName, Sleep>,
    /// The commands that say whether an instance of a process is well; of those that are not named the image says, if it has one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub healthcheck: BTreeMap<ProcessName, Healthcheck>,
}

impl Manifest {
    /// The manifest of an app from the texts of its berth.toml and its Procfile, where it has them.
    ///
    /// `[processes]` in berth.toml replaces the Procfile as a whole: two half lists would hide which one runs.
    /// Likewise its `deploy.release_command` wins over the Procfile's `release`.
    ///
    /// # Errors
    /// All [`Problems`] of both files at once.
    pub fn read(manifest: Option<&str>, procfile: Option<&str>) -> Result<Self, Problems> {
        let procfile = procfile.map(Procfile::parse);
        let none = BTreeMap::new();
        let elsewhere = procfile.as_ref().and_then(|it| it.as_ref().ok()).map_or(&none, |it| &it.processes);
        let (mut read, mut problems) = match manifest.map(|text| read::manifest(text, elsewhere)) {
            None => (Self::default(), Vec::new()),
            Some(Ok(read)) => (read, Vec::new()),
            Some(Err(Problems(problems))) => (Self::default(), problems),
        };
        match procfile {
            None => {}
            Some(Err(Problems(more))) => problems.extend(more),
            Some(Ok(procfile)) if read.processes.is_empty() => {
                read.processes = procfile.processes;
                read.deploy.release_command = read.deploy.release_command.or(procfile.release);
            }
            Some(Ok(_)) => {}
        }
        if problems.is_empty() { Ok(read) } else { Err(Problems(problems)) }
    }

    /// The volumes that instances of `process` have.
    pub fn volumes_of<'a>(
        &'a self,
        process: &'a ProcessName,
    ) -> impl Iterator<Item = (&'a VolumeName, &'a Volume)> {
        self.volumes.iter().filter(move |(_, volume)| volume.is_of(process))
    }

    /// When the web process sleeps, if it does.
    #[must_use]
    pub fn sleep(&self) -> Option<&Sleep> {
        self.scale.iter().find(|(process, _)| process.is_web()).map(|(_, sleep)| sleep)
    }

    /// The manifest from the text of a berth.toml.
    ///
    /// # Errors
    /// All its [`Problems`] at once.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        read::manifest(text, &BTreeMap::new())
    }
}

/// The version of the normalised form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub enum Format {
    /// The first.
    #[default]
    One,
}

/// A version of the normalised form that this version of Berth does not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("manifest format {0} is newer than this version of Berth")]
pub struct UnknownFormat(u32);

impl TryFrom<u32> for Format {
    type Error = UnknownFormat;
    fn try_from(number: u32) -> Result<Self, UnknownFormat> {
        if number == 1 { Ok(Self::One) } else { Err(UnknownFormat(number)) }
    }
}

impl From<Format> for u32 {
    fn from(format: Format) -> Self {
        match format {
            Format::One => 1,
        }
    }
}

/// How a release replaces the one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deploy {
    /// Runs once from the new artifact before traffic moves; a failure fails the deploy.
    pub release_command: Option<Command>,
    /// The strategy; by process when not given: bluegreen for web, recreate for the others.
    pub strategy: Option<Strategy>,
    /// How long activation may take, the build apart.
    pub timeout: Millis,
    /// How long the previous release's instances stay able to take over at once; nought turns it off.
    pub warm: Millis,
    /// How the strategy canary goes about it.
    #[serde(default, skip_serializing_if = "Canary::is_default")]
    pub canary: Canary,
}

impl Default for Deploy {
    fn default() -> Self {
        Self {
            release_command: None,
            strategy: None,
            timeout: Millis::from_secs(600),
            warm: Millis::from_secs(600),
            canary: Canary::default(),
        }
    }
}

/// In which order new instances replace old ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// One instance at a time: a new one serves before an old one stops.
    Rolling,
    /// All new instances beside the old ones, then all traffic at once.
    BlueGreen,
    /// All new instances beside the old ones, then traffic in steps, as long as the new release does no worse.
    Canary,
    /// The old instances stop before the new ones start; for what must not run twice.
    Recreate,
}

impl Strategy {
    /// All of them, with their names.
    pub const NAMED: [(&'static str, Self); 4] = [
        ("rolling", Self::Rolling),
        ("bluegreen", Self::BlueGreen),
        ("canary", Self::Canary),
        ("recreate", Self::Recreate),
    ];

    /// The name that berth.toml has for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMED.iter().find(|(_, it)| *it == self).map_or("bluegreen", |(name, _)| name)
    }
}

/// How the web process is reached and probed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// The port the app listens on where it has a network of its own; elsewhere Berth chooses PORT.
    pub port: Option<u16>,
    /// Which version of HTTP it speaks there.
    #[serde(default, skip_serializing_if = "HttpProtocol::is_default")]
    pub protocol: HttpProtocol,
    /// Hosts whose requests go to the app, beside its default one; in the order written, none twice.
    pub hosts: Vec<HostName>,
    /// Whether no host leads to it, and other apps of its project alone call it: `public = false` as people write it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub internal: bool,
    /// Whether a request by plain HTTP for a host that has a certificate is sent to HTTPS; it is when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force_https: Option<bool>,
    /// For how long a browser that was here by HTTPS is to use nothing else (RFC 6797).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hsts: Option<Millis>,
    /// How long an instance may take to begin its answer to a request; without end when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_timeout: Option<Millis>,
    /// How many requests an instance gets at a time.
    #[serde(default, skip_serializing_if = "RequestConcurrency::is_unlimited")]
    pub concurrency: RequestConcurrency,
    /// How often somebody may ask; in the order written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rate_limits: Vec<RateLimit>,
    /// What holds for parts of the app alone; in the order written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<HttpRoute>,
    /// Where answers are stored; nowhere when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<HttpCache>,
    /// How readiness is probed.
    pub readiness: Readiness,
}

/// How the readiness of a web instance is probed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Readiness {
    /// Must answer 2xx when given; else `/healthz` and `/up` are tried and then TCP decides.
    pub path: Option<CheckPath>,
    /// Time between probes once ready.
    pub interval: Millis,
    /// How long one probe may take.
    pub timeout: Millis,
    /// How long a new instance may take to become ready before it counts as failed.
    pub grace: Millis,
}

impl Default for Readiness {
    fn default() -> Self {
        Self {
            path: None,
            interval: Millis::from_secs(1),
            timeout: Millis::from_secs(5),
            grace: Millis::from_secs(10),
        }
    }
}

/// How an instance is stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shutdown {
    /// What the whole process group gets first.
    pub signal: Signal,
    /// How long requests in flight may take to end before the signal.
    pub drain: Millis,
    /// How long after the signal SIGKILL follows.
    pub kill_after: Millis,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { signal: Signal::Term, drain: Millis::from_secs(30), kill_after: Millis::from_secs(30) }
    }
}

/// What instances reach, where each has a network of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// What they may connect to.
    pub egress: Egress,
    /// What the app also calls other apps of its project, beside `NAME.internal`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub names: BTreeMap<Alias, AppName>,
}

impl Network {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What an instance may connect to. The platform itself, this machine's addresses, other instances and the metadata services of clouds are
/// nothing that any of these allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Egress {
    /// Nothing.
    None,
    /// Other apps of its project, by their names.
    Internal,
    /// These, and everything else.
    #[default]
    Internet,
}

impl Egress {
    /// All of them, with the names that berth.toml has for them.
    pub const NAMED: [(&'static str, Self); 3] =
        [("internet", Self::Internet), ("internal", Self::Internal), ("none", Self::None)];
}

/// The signals that ask a process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Signal {
    /// SIGTERM
    #[serde(rename = "SIGTERM")]
    Term,
    /// SIGINT
    #[serde(rename = "SIGINT")]
    Int,
    /// SIGQUIT
    #[serde(rename = "SIGQUIT")]
    Quit,
    /// SIGHUP
    #[serde(rename = "SIGHUP")]
    Hup,
    /// SIGUSR1
    #[serde(rename = "SIGUSR1")]
    Usr1,
    /// SIGUSR2
    #[serde(rename = "SIGUSR2")]
    Usr2,
}

impl Signal {
    /// All of them, with their names.
    pub const NAMED: [(&'static str, Self); 6] = [
        ("SIGTERM", Self::Term),
        ("SIGINT", Self::Int),
        ("SIGQUIT", Self::Quit),
        ("SIGHUP", Self::Hup),
        ("SIGUSR1", Self::Usr1),
        ("SIGUSR2", Self::Usr2),
    ];

    /// The kernel's number for it, the same on x86, ARM and RISC-V.
    #[must_use]
    pub fn number(self) -> i32 {
        match self {
            Self::Hup => 1,
            Self::Int => 2,
            Self::Quit => 3,
            Self::Usr1 => 10,
            Self::Usr2 => 12,
            Self::Term => 15,
        }
    }
}

macro_rules! checked_text {
    ($($(#[$doc:meta])* $name:ident, $check:ident, $error:ident($message:literal);)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        #[doc = concat!("Why a text is not a ", stringify!($name), ".")]
        #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
        #[error($message)]
        pub struct $error(String);

        impl $name {
            /// The text of it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = $error;
            fn from_str(text: &str) -> Result<Self, $error> {
                $check(text).map(Self).ok_or_else(|| $error(text.chars().take(80).collect()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = $error;
            fn try_from(text: String) -> Result<Self, $error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> Self {
                text.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

pub(crate) use checked_text;

checked_text! {
    /// The path of a health check: begins with `/`, visible ASCII, no fragment.
    CheckPath, check_path, InvalidPath("{0:?} is not the path of a check");
    /// What an app calls another one: a word of `/etc/hosts` without a dot, so that it stands for no name of elsewhere.
    Alias, check_alias, InvalidAlias("{0:?} is no name to call an app by");
}

fn check_alias(text: &str) -> Option<String> {
    let is_end =
        |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let inner = |byte: u8| is_end(Some(byte)) || matches!(byte, b'-' | b'_');
    let fits = is_end(text.bytes().next())
        && is_end(text.bytes().last())
        && text.len() <= 63
        && text.bytes().all(inner)
        // One that is a number would be an address.
        && !text.bytes().all(|byte| byte.is_ascii_digit())
        && text != "localhost";
    fits.then(|| text.to_owned())
}

fn check_path(text: &str) -> Option<String> {
    let fits = text.starts_with('/')
        && text.len() <= 1024
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    fits.then(|| text.to_owned())
}

#[cfg(test)]
mod tests;
