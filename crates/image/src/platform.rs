//! What an image is made for, and which of several images is taken.

use std::fmt;

use serde::Deserialize;

/// A system and a processor, by the names that Go gives them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// The processor: `amd64`, `arm64`.
    pub architecture: String,
    /// The system: `linux`.
    pub os: String,
    /// The kind of processor: `v8` of `arm64`, `v3` of `amd64`.
    #[serde(default)]
    pub variant: Option<String>,
}

impl Platform {
    /// Linux on the processor that this program was made for.
    #[must_use]
    pub fn current() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { architecture: architecture.to_owned(), os: "linux".to_owned(), variant: None }
    }

    /// How well what is made for `self` runs on `machine`: the smaller the better, none when not at all.
    fn distance(&self, machine: &Self) -> Option<u8> {
        if self.architecture != machine.architecture || self.os != machine.os {
            return None;
        }
        let variant = self.variant.as_deref().filter(|it| !it.is_empty());
        match (machine.architecture.as_str(), variant) {
            // Every 64-bit ARM runs v8, every 64-bit Intel v1.
            (_, None) | ("arm64", Some("v8")) | ("amd64", Some("v1")) => Some(0),
            (_, variant) if variant == machine.variant.as_deref() => Some(0),
            // It may use instructions that the machine does not have.
            _ => None,
        }
    }

    /// The first of `offered` that fits `self`, the machine, best.
    pub(crate) fn choose<'a, T>(&self, offered: impl Iterator<Item = (&'a Self, T)>) -> Option<T> {
        offered
            .filter_map(|(platform, it)| Some((platform.distance(self)?, it)))
            .min_by_key(|(distance, _)| *distance)
            .map(|(_, it)| it)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) if !variant.is_empty() => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}
