//! What an instance finds in its environment; the contract is in docs/environment.md.

use std::collections::BTreeMap;

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

/// The environment that all instances of `release` share: the manifest's, then the configuration, then the secrets, which win; then
/// what Berth says itself, which nothing overrides.
///
/// # Errors
/// [`SecretError`] when a secret does not open.
pub(super) fn shared(
    app: &App,
    release: &Release,
    vault: &Vault,
) -> Result<BTreeMap<String, String>, SecretError> {
    let mut env: BTreeMap<String, String> =
        [("PATH", PATH), ("LANG", "C.UTF-8")].map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let plain = release.manifest.env.iter().chain(&release.config);
    env.extend(plain.map(|(name, value)| (name.to_string(), value.clone())));
    for (name, value) in secrets(app, release, vault)? {
        env.insert(name, value);
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
