//! Which variables of the platform's own environment builds find in theirs: those that say how a network is reached from this machine.

use std::collections::BTreeMap;

/// The variables; docs/environment.md lists them. They name proxies, mirrors and certificates, and hold no password unless somebody wrote
/// one into an address.
pub const HANDED_ON: [&str; 24] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "npm_config_registry",
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_CERT",
    "UV_INDEX_URL",
    "GOPROXY",
    "GOSUMDB",
    "CARGO_HTTP_CAINFO",
    "BUNDLE_MIRROR__ALL",
    "COMPOSER_REPO_PACKAGIST",
    "MAVEN_OPTS",
];

/// Those of them that are set here.
#[must_use]
pub fn handed_on() -> BTreeMap<String, String> {
    let set = HANDED_ON.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
    set.filter(|(_, value)| !value.is_empty()).collect()
}
