//! What an image says of how it is run.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use crate::digest::Digest;
use crate::error::{ImageError, shown};
use crate::platform::Platform;

/// An image's configuration; see <https://github.com/opencontainers/image-spec/blob/main/config.md>. Nothing in it was checked but its form.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageConfig {
    /// What is run, with [`ImageConfig::cmd`] after it.
    pub entrypoint: Vec<String>,
    /// What is run, or the arguments of the entrypoint.
    pub cmd: Vec<String>,
    /// As whom: `user`, `uid`, `user:group`, or nothing for root. [`crate::user::resolve`] looks it up.
    pub user: String,
    /// Where: nothing for `/`.
    pub workdir: String,
    /// With which environment, each `NAME=value`.
    pub env: Vec<String>,
    /// On what it listens.
    pub ports: Vec<Port>,
    /// How to find out whether it is well.
    pub healthcheck: Option<Healthcheck>,
    /// The signal that asks it to stop, where it is not SIGTERM.
    pub stop_signal: Option<i32>,
    /// Paths that are to be writable and kept.
    pub volumes: Vec<String>,
    /// What its author noted.
    pub labels: BTreeMap<String, String>,
}

/// A port that the image declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Its number.
    pub number: u16,
    /// Whether it is one of UDP, not of TCP.
    pub udp: bool,
}

/// A check that the image brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healthcheck {
    /// The command, by argument vector: that of a shell is `/bin/sh -c`.
    pub command: Vec<String>,
    /// Nanoseconds between two checks; 0 for the default.
    pub interval: u64,
    /// Nanoseconds that one may take; 0 for the default.
    pub timeout: u64,
    /// Nanoseconds from the start in which a failure does not count.
    pub start_period: u64,
    /// Nanoseconds between two checks in that time; 0 for the default.
    pub start_interval: u64,
    /// How many must fail in a row; 0 for the default.
    pub retries: u32,
}

/// What takes the place of the image's own command.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Overrides {
    /// In place of the entrypoint. The image's `cmd` does not count then, as it was written for the other one. An empty one takes the
    /// entrypoint away.
    pub entrypoint: Option<Vec<String>>,
    /// In place of `cmd`.
    pub cmd: Option<Vec<String>>,
}

impl ImageConfig {
    /// What is run, as Docker puts it together. Empty when the image names nothing to run.
    #[must_use]
    pub fn command(&self, overrides: &Overrides) -> Vec<String> {
        let (entrypoint, cmd) = match (&overrides.entrypoint, &overrides.cmd) {
            (Some(entrypoint), cmd) => (entrypoint, cmd.as_deref().unwrap_or_default()),
            (None, Some(cmd)) => (&self.entrypoint, cmd.as_slice()),
            (None, None) => (&self.entrypoint, self.cmd.as_slice()),
        };
        entrypoint.iter().chain(cmd).cloned().collect()
    }

    /// The directory that it runs in.
    #[must_use]
    pub fn workdir(&self) -> &str {
        if self.workdir.is_empty() { "/" } else { &self.workdir }
    }
}

/// A configuration and the digests of the layers that belong to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Document {
    pub(crate) config: ImageConfig,
    pub(crate) platform: Platform,
    /// Of the uncompressed layers, the lowest first.
    pub(crate) diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct Raw {
    architecture: String,
    os: String,
    #[serde(default)]
    variant: Option<String>,
    #[serde(default, deserialize_with = "nothing_is_empty")]
    config: RawConfig,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default, deserialize_with = "nothing_is_empty")]
    diff_ids: Vec<Digest>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RawConfig {
    #[serde(deserialize_with = "nothing_is_empty")]
    entrypoint: Vec<String>,
    #[serde(deserialize_with = "nothing_is_empty")]
    cmd: Vec<String>,
    #[serde(deserialize_with = "nothing_is_empty")]
    user: String,
    #[serde(deserialize_with = "nothing_is_empty")]
    working_dir: String,
    #[serde(deserialize_with = "nothing_is_empty")]
    env: Vec<String>,
    #[serde(deserialize_with = "nothing_is_empty")]
    exposed_ports: BTreeMap<String, serde_json::Value>,
    healthcheck: Option<RawHealthcheck>,
    stop_signal: Option<String>,
    #[serde(deserialize_with = "nothing_is_empty")]
    volumes: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "nothing_is_empty")]
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RawHealthcheck {
    #[serde(deserialize_with = "nothing_is_empty")]
    test: Vec<String>,
    interval: u64,
    timeout: u64,
    start_period: u64,
    start_interval: u64,
    retries: u32,
}

/// Builders write `null` for what is empty.
fn nothing_is_empty<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

impl Document {
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, ImageError> {
        let raw: Raw = serde_json::from_slice(bytes)
            .map_err(|error| ImageError::invalid(format!("its configuration cannot be read: {error}")))?;
        let config = raw.config.checked()?;
        let platform = Platform { architecture: raw.architecture, os: raw.os, variant: raw.variant };
        Ok(Self { config, platform, diff_ids: raw.rootfs.diff_ids })
    }
}

impl RawConfig {
    fn checked(self) -> Result<ImageConfig, ImageError> {
        let ports: Result<Vec<Port>, ImageError> = self.exposed_ports.keys().map(|it| port(it)).collect();
        let stop_signal = match self.stop_signal.as_deref() {
            None | Some("") => None,
            Some(name) => Some(signal(name)?),
        };
        let test = self.healthcheck.iter().flat_map(|check| &check.test);
        let mut parts = self.entrypoint.iter().chain(&self.cmd).chain(&self.env).chain(test);
        if parts.any(|part| part.contains('\0')) {
            return Err(ImageError::invalid("its configuration has a NUL where a program is started"));
        }
        Ok(ImageConfig {
            entrypoint: self.entrypoint,
            cmd: self.cmd,
            user: self.user,
            workdir: self.working_dir,
            env: self.env,
            ports: ports?,
            healthcheck: self.healthcheck.and_then(RawHealthcheck::checked),
            stop_signal,
            volumes: self.volumes.into_keys().collect(),
            labels: self.labels,
        })
    }
}

impl RawHealthcheck {
    /// None when it is switched off, or of a form that Docker does not run either.
    fn checked(self) -> Option<Healthcheck> {
        let mut test = self.test.into_iter();
        let command = match test.next()?.as_str() {
            "CMD" => test.collect::<Vec<_>>(),
            "CMD-SHELL" => vec!["/bin/sh".to_owned(), "-c".to_owned(), test.next()?],
            _ => return None,
        };
        let Self { interval, timeout, start_period, start_interval, retries, .. } = self;
        let names_one = command.first().is_some_and(|program| !program.is_empty());
        names_one.then_some(Healthcheck { command, interval, timeout, start_period, start_interval, retries })
    }
}

fn port(text: &str) -> Result<Port, ImageError> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let udp = protocol.eq_ignore_ascii_case("udp");
    match number.parse() {
        Ok(number) if number != 0 && (udp || protocol.eq_ignore_ascii_case("tcp")) => {
            Ok(Port { number, udp })
        }
        _ => Err(ImageError::invalid(format!("it exposes {:?}, which is no port", shown(text.as_bytes())))),
    }
}

/// The number of a signal on Linux. `SIGTERM`, `TERM` and `15` are the same.
fn signal(text: &str) -> Result<i32, ImageError> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    const RTMIN: i32 = 34;
    let unknown =
        || ImageError::invalid(format!("it is stopped by {:?}, which is no signal", shown(text.as_bytes())));
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = match name.parse::<i32>() {
        Ok(number) => Some(number),
        Err(_) => match name.strip_prefix("RTMIN") {
            Some("") => Some(RTMIN),
            Some(above) => {
                above.strip_prefix('+').and_then(|it| it.parse::<u8>().ok()).map(|it| RTMIN + i32::from(it))
            }
            None => NAMES.iter().zip(1..).find_map(|(known, number)| (*known == name).then_some(number)),
        },
    };
    number.filter(|number| (1..=64).contains(number)).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(config: &str) -> Result<ImageConfig, ImageError> {
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{config},"rootfs":{{"type":"layers","diff_ids":null}}}}"#
        );
        Document::read(text.as_bytes()).map(|it| it.config)
    }

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_whole_configuration_is_read() {
        let config = read(
            r#"{"Entrypoint":["/e"],"Cmd":["a","b"],"User":"app:web","WorkingDir":"/srv","Env":["PATH=/bin"],
            "ExposedPorts":{"8080/tcp":{},"53/udp":{},"90":{}},"StopSignal":"SIGQUIT","Volumes":{"/data":{}},"Labels":{"a":"b"},
            "Healthcheck":{"Test":["CMD-SHELL","curl x"],"Interval":5,"Retries":2}}"#,
        )
        .unwrap();
        assert_eq!(
            (config.user.as_str(), config.workdir(), config.stop_signal),
            ("app:web", "/srv", Some(3))
        );
        let numbers: Vec<(u16, bool)> = config.ports.iter().map(|port| (port.number, port.udp)).collect();
        assert_eq!(numbers, [(53, true), (8080, false), (90, false)]);
        assert_eq!(config.healthcheck.unwrap().command, ["/bin/sh", "-c", "curl x"]);
        assert_eq!(config.volumes, ["/data"]);
        assert_eq!(read("null").unwrap(), ImageConfig::default());
        assert_eq!(
            read(r#"{"Cmd":null,"Env":null,"Healthcheck":{"Test":["NONE"]}}"#).unwrap(),
            ImageConfig::default()
        );
    }

    #[test]
    fn a_command_is_put_together_as_docker_does() {
        let image = ImageConfig { entrypoint: words("/e x"), cmd: words("a b"), ..ImageConfig::default() };
        let command = |entrypoint: Option<&str>, cmd: Option<&str>| {
            image.command(&Overrides { entrypoint: entrypoint.map(words), cmd: cmd.map(words) })
        };
        assert_eq!(command(None, None), words("/e x a b"));
        assert_eq!(command(None, Some("c")), words("/e x c"));
        assert_eq!(command(Some("/f"), None), words("/f"));
        assert_eq!(command(Some("/f"), Some("c")), words("/f c"));
        assert_eq!(command(Some(""), Some("c")), words("c"));
        assert!(ImageConfig::default().command(&Overrides::default()).is_empty());
    }

    #[test]
    fn signals_go_by_name_and_by_number() {
        for (text, number) in
            [("SIGTERM", 15), ("term", 15), ("15", 15), ("SIGRTMIN+3", 37), ("RTMIN", 34), ("SIGSYS", 31)]
        {
            assert_eq!(signal(text).unwrap(), number, "{text}");
        }
        for bad in ["0", "65", "-1", "SIGX", "RTMIN+99", "SIG"] {
            assert!(signal(bad).is_err(), "{bad}");
        }
        for bad in
            [r#"{"ExposedPorts":{"x":{}}}"#, r#"{"ExposedPorts":{"0/tcp":{}}}"#, r#"{"Cmd":["a\u0000b"]}"#]
        {
            assert_eq!(read(bad).unwrap_err().code(), "image_invalid", "{bad}");
        }
    }
}
