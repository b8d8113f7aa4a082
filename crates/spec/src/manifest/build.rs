//! `[build]`: how the source becomes an artifact.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use toml::de::DeValue;

use super::IMAGE_NAME_MAX;
use super::read::{Section, array, command, env_value, one_of, text, truth};
use crate::command::{Command, RelativeDir};
use crate::name::EnvName;
use crate::problem::Wrong;

/// The longest name of a stage, in bytes.
const STAGE_MAX: usize = 128;

/// How the source becomes an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// Which builder; found from the source when not given.
    pub builder: Option<Builder>,
    /// What to run in the source before the builder takes over.
    pub command: Option<Command>,
    /// The directory below the source that becomes the artifact; the whole tree when not given.
    pub output: Option<RelativeDir>,
    /// Whether its commands are kept from every network: `network = false` as people write it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub offline: bool,
    /// Which of the app's configuration and secrets its commands see. They are part of what the artifact is made from.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub env: BTreeSet<EnvName>,
    /// The image that is run in place of anything that is built, as people name it; in a release held to its digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The Dockerfile that makes the image, relative to the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dockerfile: Option<String>,
    /// The stage of the Dockerfile that is the image; the last one when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Arguments of the Dockerfile (`ARG`), which its image's history shows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub args: BTreeMap<EnvName, String>,
}

/// What turns source into an artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Builder {
    /// `cargo build --release`; the binaries are the artifact.
    Cargo,
    /// The tree as it is, after `build.command` if there is one.
    Copy,
    /// A directory of files that Berth serves itself.
    Static,
    /// JavaScript by Node or Bun: npm, pnpm, yarn, bun.
    Node,
    /// Python in a virtual environment: pip, uv, poetry, pipenv.
    Python,
    /// `go build`.
    Go,
    /// Ruby with Bundler.
    Ruby,
    /// PHP, with Composer where there is a composer.json.
    Php,
    /// Java with Maven, with Gradle, or a source file by itself.
    Java,
    /// Deno.
    Deno,
    /// `dotnet publish`.
    Dotnet,
    /// Elixir with mix.
    Elixir,
    /// `make build`.
    Make,
}

impl Builder {
    /// All of them, with the names that berth.toml has for them.
    pub const NAMED: [(&'static str, Self); 13] = [
        ("cargo", Self::Cargo),
        ("copy", Self::Copy),
        ("static", Self::Static),
        ("node", Self::Node),
        ("python", Self::Python),
        ("go", Self::Go),
        ("ruby", Self::Ruby),
        ("php", Self::Php),
        ("java", Self::Java),
        ("deno", Self::Deno),
        ("dotnet", Self::Dotnet),
        ("elixir", Self::Elixir),
        ("make", Self::Make),
    ];

    /// The name that berth.toml has for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMED.iter().find(|(_, builder)| *builder == self).map_or("copy", |(name, _)| name)
    }
}

pub(super) fn read(section: &mut Section<'_, '_, '_>) -> Build {
    let build = Build {
        builder: section.get("builder", |value| {
            if value.as_str() == Some("dockerfile") {
                let wrong = Wrong::new("a Dockerfile is no builder");
                return Err(wrong.instead("write `dockerfile = \"Dockerfile\"`"));
            }
            if let Some(later @ "buildpack") = value.as_str() {
                return Err(Wrong::new(format!(
                    "builder `{later}` is not available in this version of Berth"
                ))
                .instead("build with `command` and `builder = \"copy\"`"));
            }
            one_of(&Builder::NAMED)(value)
        }),
        command: section.get("command", command),
        output: section.get("output", |value| {
            RelativeDir::new(text(value)?)
                .map_err(|bad| Wrong::new(bad).instead("write a directory like `dist`"))
        }),
        offline: section.get("network", truth) == Some(false),
        env: array(section, "env", "an array of names")
            .iter()
            .filter_map(|value| {
                let name = text(value.get_ref()).and_then(|name| EnvName::new(name).map_err(Wrong::new));
                section.note(value.span(), name)
            })
            .collect(),
        image: section.get("image", image),
        dockerfile: section.get("dockerfile", dockerfile),
        target: section.get("target", target),
        args: args(section),
    };
    if build.dockerfile.is_some() {
        let why = ("does not go with `dockerfile`", "leave it out: the Dockerfile says how to build");
        exclude(section, &["builder", "command", "output", "image"], why);
    } else if build.image.is_some() {
        let why = ("does not go with `image`", "leave it out: an image is built already");
        exclude(section, &["builder", "command", "output", "network", "env"], why);
    }
    if build.dockerfile.is_none() {
        exclude(
            section,
            &["target", "args"],
            ("takes a Dockerfile", "write `dockerfile = \"Dockerfile\"` beside it"),
        );
    }
    if build.builder == Some(Builder::Cargo) {
        let instead = "run `cargo build` in it and use `builder = \"copy\"`";
        exclude(section, &["command", "output"], ("does not go with `builder = \"cargo\"`", instead));
    }
    build
}

/// Notes those of `keys` that are there: what is wrong with each, and what to do instead.
fn exclude(section: &mut Section<'_, '_, '_>, keys: &[&str], (what, instead): (&str, &str)) {
    for key in keys {
        if let Some((key, _)) = section.table.get_key_value(*key) {
            let wrong = Wrong::new(format!("`build.{}` {what}", key.get_ref()));
            section.problems.note(&key.span(), wrong.instead(instead));
        }
    }
}

/// A file of the source.
fn dockerfile(value: &DeValue<'_>) -> Result<String, Wrong> {
    let path = text(value)?;
    let is_file = !path.is_empty()
        && path.len() <= IMAGE_NAME_MAX
        && !path.chars().any(char::is_control)
        && path.split('/').all(|step| !step.is_empty() && step != "." && step != "..");
    if is_file {
        Ok(path.to_owned())
    } else {
        Err(Wrong::new("that is no file of the source")
            .instead("write a path like \"Dockerfile\" or \"docker/Dockerfile\""))
    }
}

/// The name of a stage, as `FROM ... AS NAME` gives it, or its number.
fn target(value: &DeValue<'_>) -> Result<String, Wrong> {
    let stage = text(value)?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if stage.is_empty() || stage.len() > STAGE_MAX || !stage.bytes().all(fits) || stage.starts_with('-') {
        return Err(Wrong::new("that is no stage of a Dockerfile")
            .instead("write the NAME of its `FROM ... AS NAME`"));
    }
    Ok(stage.to_owned())
}

fn args(section: &mut Section<'_, '_, '_>) -> BTreeMap<EnvName, String> {
    let mut args = BTreeMap::new();
    for (key, value) in section.table_at("args").into_iter().flatten() {
        let name = section.note(key.span(), EnvName::new(key.get_ref()).map_err(Wrong::new));
        let text = section.note(value.span(), env_value(value.get_ref()));
        args.extend(name.zip(text));
    }
    args
}

/// The name of an image. Whether it is one is found out where it is pulled; here it is only something that can be shown.
fn image(value: &DeValue<'_>) -> Result<String, Wrong> {
    let name = text(value)?;
    let hint = "write it as `docker pull` takes it, like \"registry.example.com/shop:1.4\"";
    if name.is_empty() || name.len() > IMAGE_NAME_MAX || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Wrong::new("that does not name an image").instead(hint));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::Manifest;

    #[test]
    fn a_dockerfile_has_a_stage_and_arguments() {
        let text = "[build]\ndockerfile = \"Dockerfile\"\ntarget = \"runtime\"\n[build.args]\nVERSION = \"1.2\"\nnode_env = \"production\"\n";
        let manifest = Manifest::parse(text).unwrap();
        assert_eq!(manifest.build.target.as_deref(), Some("runtime"));
        assert_eq!(manifest.build.args.len(), 2);
        let written = manifest.write(&[], &[]);
        assert_eq!(Manifest::parse(&written).unwrap(), manifest, "{written}");
        for (wrong, what) in [
            ("[build]\ntarget = \"a\"\n", "`build.target` takes a Dockerfile"),
            ("[build.args]\nA = \"a\"\n", "`build.args` takes a Dockerfile"),
            ("[build]\ndockerfile = \"D\"\ntarget = \"--pull\"\n", "that is no stage of a Dockerfile"),
            ("[build]\ndockerfile = \"D\"\n[build.args]\nA = 1\n", "expected a string, found integer"),
        ] {
            let problems = Manifest::parse(wrong).unwrap_err().0;
            assert!(problems.iter().any(|it| it.what == what), "{wrong}: {problems:?}");
        }
    }
}
