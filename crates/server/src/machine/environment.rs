//! What an instance finds in its environment; the contract is in docs/environment.md.

use std::collections::BTreeMap;
use std::path::Path;

use berth_control::state::{App, Release};
use berth_spec::EnvName;

use crate::secrets::{Label, UnsealError, Vault};

/// Where programs are looked for when an app does not say otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A secret of a release cannot be given to its instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the secret {name} in version {version} cannot be opened: {source}")]
pub(super) struct SecretError {
    name: EnvName,
    version: u64,
    #[source]
    source: UnsealError,
}

/// The environment that all instances of `release`, whose artifact lies at `dir`, share: what the artifact's programs need, then the
/// manifest's, then the configuration, then the secrets, which win; then what Berth says itself, which nothing overrides. Programs of the
/// artifact and of the tools that it was built for come before those of any `PATH`.
///
/// # Errors
/// [`SecretError`] when a secret does not open.
pub(super) fn shared(
    app: &App,
    release: &Release,
    dir: &Path,
    vault: &Vault,
) -> Result<BTreeMap<String, String>, SecretError> {
    let mut env: BTreeMap<String, String> =
        [("PATH", PATH), ("LANG", "C.UTF-8")].map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let place = dir.to_string_lossy();
    let built = release.artifact.iter().flat_map(|artifact| &artifact.env);
    env.extend(built.map(|(name, value)| (name.clone(), value.replace("$ARTIFACT", &place))));
    let plain = release.manifest.env.iter().chain(&release.config);
    env.extend(plain.map(|(name, value)| (name.to_string(), value.clone())));
    for (name, value) in secrets(app, release, vault)? {
        env.insert(name, value);
    }
    if let (Some(artifact), Some(path)) = (&release.artifact, env.get_mut("PATH")) {
        let own = artifact.path.iter().map(|it| dir.join(it.as_str()).to_string_lossy().into_owned());
        let folders: Vec<String> = own.chain(artifact.tools.iter().cloned()).chain([path.clone()]).collect();
        *path = folders.join(":");
    }
    env.insert("APP_NAME".to_owned(), app.id.app.to_string());
    env.insert("RELEASE_VERSION".to_owned(), release.number.to_string());
    env.insert("SOURCE_COMMIT".to_owned(), release.commit.clone().unwrap_or_default());
    Ok(env)
}

/// The secrets of a release, opened.
///
/// # Errors
/// [`SecretError`] when one does not open.
pub(super) fn secrets(
    app: &App,
    release: &Release,
    vault: &Vault,
) -> Result<BTreeMap<String, String>, SecretError> {
    let mut opened = BTreeMap::new();
    for (name, &version) in &release.secrets {
        let fail = |source| SecretError { name: name.clone(), version, source };
        let sealed = app.secrets.get(name).and_then(|secret| secret.values.get(&version));
        let sealed = sealed.ok_or_else(|| fail(UnsealError::NotAuthentic))?;
        let value = vault.open(Label { app: &app.id, name, version }, sealed).map_err(fail)?;
        opened.insert(name.to_string(), value);
    }
    Ok(opened)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KeyEncryptionKey;
    use berth_control::event::{Artifact, Event, Reason, ReleaseSubmitted, Stream};
    use berth_control::fold::Stamp;
    use berth_control::state::State;
    use berth_spec::{AppId, Manifest, RelativeDir, ReleaseNumber, Timestamp};

    #[test]
    fn what_the_artifact_needs_comes_before_what_the_app_says() {
        let manifest = Manifest::parse("[env]\nNODE_ENV = \"staging\"\n[processes]\nweb = \"x\"").unwrap();
        let artifact = Artifact {
            env: [("VIRTUAL_ENV", "$ARTIFACT/.venv"), ("NODE_ENV", "production")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            path: vec![RelativeDir::new(".venv/bin").unwrap()],
            tools: vec!["/tools/python/bin".to_owned()],
            ..Artifact::default()
        };
        let submitted = ReleaseSubmitted {
            number: ReleaseNumber(1),
            reason: Reason::Deploy,
            tree: "t".to_owned(),
            manifest,
            artifact: Some(artifact),
            config: [("PATH".parse().unwrap(), "/mine".to_owned())].into(),
            secrets: BTreeMap::new(),
            description: None,
            commit: None,
        };
        let vault = Vault::new(KeyEncryptionKey::new([1; 32]));
        let stamp = Stamp { position: 1, at: Timestamp(1), actor: "test".to_owned() };
        let (mut state, id): (State, AppId) = (State::default(), "default/default/shop".parse().unwrap());
        let stream = Stream::App(id.clone());
        state.apply(&stream, &Event::ReleaseSubmitted(Box::new(submitted)), &stamp);
        let app = &state.apps[&id];
        let release = app.release(ReleaseNumber(1)).unwrap();
        let env = shared(app, release, Path::new("/a"), &vault).unwrap();
        let value = |name: &str| env[name].as_str();
        assert_eq!(value("PATH"), "/a/.venv/bin:/tools/python/bin:/mine");
        assert_eq!((value("VIRTUAL_ENV"), value("NODE_ENV")), ("/a/.venv", "staging"));
    }
}
