//! Registries, by the distribution specification's pull: asked for what is named by a digest, believed in nothing.
//!
//! See <https://github.com/opencontainers/distribution-spec/blob/main/spec.md>. Every body has a bound before its first byte is read; a redirect
//! or a token service must not lead further inside than the registry itself stands, nor from TLS to plain text.

mod blob;
mod challenge;
mod credentials;
mod http;
mod reach;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION, RANGE, RETRY_AFTER, USER_AGENT,
    WWW_AUTHENTICATE,
};
use ::http::{Method, Request, StatusCode, Uri};
use bytes::Bytes;
use http_body_util::Full;
use secrecy::ExposeSecret as _;
use serde::Deserialize;

pub use self::credentials::Credentials;
pub use self::http::{Dialer, SystemDialer};

use self::challenge::Challenge;
use self::credentials::Credential;
use self::http::{Answer, Fault, Http, parts};
use self::reach::Reach;
use crate::digest::Digest;
use crate::error::{ImageError, shown};
use crate::manifest::{ACCEPT as MANIFESTS, MANIFEST_MAX};
use crate::reference::{DEFAULT_REGISTRY, Reference};

/// Where Docker Hub's registry really is.
const DOCKER_HUB: &str = "registry-1.docker.io";
/// How often one request is sent on.
const HOPS: usize = 6;
/// The longest answer of a token service, in bytes.
const TOKEN_MAX: u64 = 256 << 10;
/// The longest a registry is waited for when it says how long.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// How registries are reached.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who we say that we are.
    pub credentials: Credentials,
    /// Registries, as `host` or `host:port`, that are asked in place of another, in this order, before that one itself.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Registries, as `host` or `host:port`, that are spoken with over plain HTTP. Those on this machine are anyway.
    pub insecure: BTreeSet<String>,
    /// How often what failed in passing is tried.
    pub attempts: u32,
    /// How long is waited before the second attempt; twice as long before each further one.
    pub backoff: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            credentials: Credentials::default(),
            mirrors: BTreeMap::new(),
            insecure: BTreeSet::new(),
            attempts: 5,
            backoff: Duration::from_millis(400),
        }
    }
}

/// What a file of settings may say beside Docker's `config.json`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Settings {
    #[serde(default)]
    mirrors: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    insecure_registries: BTreeSet<String>,
}

impl Config {
    /// Reads a file of settings: Docker's `config.json` with the credentials, and beside them `mirrors`, a list for each registry, and
    /// `insecureRegistries`.
    ///
    /// # Errors
    /// When it is none: `registry_denied`, without a word of what is secret in it.
    pub fn from_file(text: &str) -> Result<Self, ImageError> {
        let credentials = Credentials::from_docker_config(text)?;
        let unreadable = |why: String| ImageError::Denied { registry: "registries.json".to_owned(), why };
        let settings: Settings = serde_json::from_str(text).map_err(|error| {
            unreadable(format!("line {}, column {} cannot be read", error.line(), error.column()))
        })?;
        let named = |key: &str, name: &str| match name.parse::<::http::uri::Authority>() {
            Ok(host) if !host.as_str().contains('@') => Ok(host.as_str().to_ascii_lowercase()),
            _ => Err(unreadable(format!("{key} has {name:?}, which is no host, and no host and port"))),
        };
        let mut config = Self { credentials, ..Self::default() };
        for (registry, mirrors) in &settings.mirrors {
            let mirrors = mirrors.iter().map(|mirror| named("mirrors", mirror));
            config.mirrors.insert(named("mirrors", registry)?, mirrors.collect::<Result<_, _>>()?);
        }
        for registry in &settings.insecure_registries {
            config.insecure.insert(named("insecureRegistries", registry)?);
        }
        Ok(config)
    }
}

/// Registries as this machine reaches them.
#[derive(Debug)]
pub struct Registries {
    config: Config,
    http: Http,
    /// The `Authorization` that was good for a repository of a registry the last time.
    said: Mutex<BTreeMap<(String, String), HeaderValue>>,
}

/// A repository at one of the places where it is looked for.
#[derive(Debug, Clone)]
struct Source {
    /// The name by which credentials are known.
    registry: String,
    /// Where it is.
    host: String,
    repository: String,
}

/// One request to a source.
struct Ask<'a> {
    path: String,
    accept: Option<&'static str>,
    range: Option<String>,
    what: &'a str,
}

/// A manifest or index as a registry gave it.
#[derive(Debug, Clone)]
pub(crate) struct Fetched {
    pub(crate) digest: Digest,
    pub(crate) bytes: Vec<u8>,
    pub(crate) content_type: Option<String>,
}

/// How often something was tried, and how long is waited before the next time.
struct Tries {
    left: u32,
    wait: Duration,
}

impl Tries {
    fn new(config: &Config) -> Self {
        Self { left: config.attempts.saturating_sub(1), wait: config.backoff }
    }

    /// Waits, when what failed did so in passing and may be tried again.
    async fn again(&mut self, fault: Fault) -> Result<(), ImageError> {
        let told = match fault {
            Fault::Passing(_, told) if self.left > 0 => told,
            fault => return Err(fault.into()),
        };
        // wait: for the registry to be well again.
        tokio::time::sleep(told.unwrap_or(self.wait).min(WAIT_MAX)).await;
        self.wait = self.wait.saturating_mul(2).min(WAIT_MAX);
        self.left -= 1;
        Ok(())
    }
}

impl Registries {
    /// Registries over the machine's own network.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self::over(config, Arc::new(SystemDialer))
    }

    /// Registries over another network.
    #[must_use]
    pub fn over(config: Config, dialer: Arc<dyn Dialer>) -> Self {
        Self { config, http: Http::new(dialer), said: Mutex::default() }
    }

    /// The digest of what the registry has under this name now; the name's own, where it has one.
    ///
    /// # Errors
    /// When the registry does not give it.
    pub async fn resolve(&self, reference: &Reference) -> Result<Digest, ImageError> {
        match reference.digest() {
            Some(digest) => Ok(*digest),
            None => self.manifest(reference).await.map(|fetched| fetched.digest),
        }
    }

    /// The manifest or index of this name, with the digest that the name has, where it has one.
    pub(crate) async fn manifest(&self, reference: &Reference) -> Result<Fetched, ImageError> {
        let what = format!("{}:{}", reference.repository(), reference.wanted());
        let mut last = None;
        for source in self.sources(reference) {
            let ask = Ask {
                path: format!("manifests/{}", reference.wanted()),
                accept: Some(MANIFESTS),
                range: None,
                what: &what,
            };
            let mut tries = Tries::new(&self.config);
            loop {
                match self.manifest_of(&source, &ask, reference).await {
                    Ok(fetched) => return Ok(fetched),
                    Err(fault) => match tries.again(fault).await {
                        Ok(()) => {}
                        Err(error) => {
                            last = Some(error);
                            break;
                        }
                    },
                }
            }
        }
        Err(last.expect("a reference has a registry"))
    }

    /// Whether everybody may have what is pulled by this name: nobody is told who we are for it.
    pub(crate) fn is_for_all(&self, reference: &Reference) -> bool {
        self.sources(reference).iter().all(|source| self.config.credentials.of(&source.registry).is_none())
    }

    /// Where it is looked for: mirrors first, the registry itself last, whose word counts when none has it.
    fn sources(&self, reference: &Reference) -> Vec<Source> {
        let own = reference.registry();
        let mirrors = self.config.mirrors.get(own).into_iter().flatten().map(String::as_str);
        let source = |registry: &str| Source {
            registry: registry.to_owned(),
            host: if registry == DEFAULT_REGISTRY { DOCKER_HUB } else { registry }.to_owned(),
            repository: reference.repository().to_owned(),
        };
        mirrors.chain([own]).map(source).collect()
    }

    async fn manifest_of(
        &self,
        source: &Source,
        ask: &Ask<'_>,
        reference: &Reference,
    ) -> Result<Fetched, Fault> {
        let mut answer = self.ask(source, ask).await?;
        let bytes = answer.whole(MANIFEST_MAX, "its manifest").await?;
        let digest = Digest::of(&bytes);
        let told = answer.response.headers().get("docker-content-digest");
        let told = told.and_then(|it| it.to_str().ok()?.parse().ok());
        if let Some(meant) = reference.digest().copied().or(told)
            && meant != digest
        {
            return Err(ImageError::invalid(format!("its manifest is {digest}, not {meant}")).into());
        }
        let content_type = answer.header(CONTENT_TYPE).map(str::to_owned);
        Ok(Fetched { digest, bytes, content_type })
    }

    /// Asks until there is an answer that has what was asked for: says who we are when the registry wants to know, follows it to where
    /// it sends us.
    async fn ask(&self, source: &Source, ask: &Ask<'_>) -> Result<Answer, Fault> {
        let scheme = if self.is_plain(&source.host) { "http" } else { "https" };
        let start = format!("{scheme}://{}/v2/{}/{}", source.host, source.repository, ask.path);
        let start: Uri =
            start.parse().map_err(|_invalid| ImageError::invalid("the registry's name makes no address"))?;
        let key = (source.host.clone(), source.repository.clone());
        let known = || self.said.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let (mut uri, mut said, mut asked) = (start.clone(), known(), false);
        let mut ceiling = Reach::Loopback;
        for _hop in 0..HOPS {
            let at_home = uri.authority() == start.authority() && uri.scheme() == start.scheme();
            let answer =
                self.http.send(request(&uri, ask, said.as_ref().filter(|_| at_home))?, ceiling).await?;
            if at_home {
                ceiling = ceiling.min(answer.reach);
            }
            let status = answer.response.status();
            if status == StatusCode::UNAUTHORIZED && at_home && !asked {
                asked = true;
                let fresh = self.introduce(source, &answer, ceiling).await?;
                self.said.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), fresh.clone());
                said = Some(fresh);
            } else if status.is_redirection() {
                uri = self.next(&uri, &answer)?;
            } else {
                return judged(answer, source, ask.what).await;
            }
        }
        Err(ImageError::invalid(format!("{} sends us on and on", source.host)).into())
    }

    /// Where a redirect leads.
    fn next(&self, from: &Uri, answer: &Answer) -> Result<Uri, ImageError> {
        let invalid = || ImageError::invalid(format!("{} sends us nowhere", answer.host));
        let to = answer.header(LOCATION).ok_or_else(invalid)?;
        let to: Uri = match to.strip_prefix('/') {
            Some(path) if !path.starts_with('/') => {
                let (scheme, authority) =
                    (from.scheme_str().unwrap_or_default(), from.authority().ok_or_else(invalid)?);
                format!("{scheme}://{authority}{to}")
                    .parse()
                    .map_err(|_invalid: ::http::uri::InvalidUri| invalid())?
            }
            _ => to.parse().map_err(|_invalid: ::http::uri::InvalidUri| invalid())?,
        };
        self.check(&to)?;
        Ok(to)
    }

    /// Whether we go to such an address at all.
    fn check(&self, uri: &Uri) -> Result<(), ImageError> {
        let (host, _, secure) = parts(uri)?;
        let authority = uri.authority().map(|it| it.as_str().to_ascii_lowercase()).unwrap_or_default();
        if secure || self.is_plain(&authority) {
            return Ok(());
        }
        Err(ImageError::invalid(format!("we are sent to {:?} without TLS", shown(host.as_bytes()))))
    }

    /// Whether the registry is spoken with over plain HTTP.
    fn is_plain(&self, authority: &str) -> bool {
        let bracketed = |host: &str| host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if !authority.ends_with(']') && port.bytes().all(|it| it.is_ascii_digit()) => {
                bracketed(host)
            }
            _ => bracketed(authority),
        };
        let here =
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|it| Reach::of(it) == Reach::Loopback);
        here || self.config.insecure.contains(authority) || self.config.insecure.contains(&host)
    }

    /// What answers a registry's question for who we are.
    async fn introduce(
        &self,
        source: &Source,
        answer: &Answer,
        ceiling: Reach,
    ) -> Result<HeaderValue, Fault> {
        let denied =
            |why: &str| ImageError::Denied { registry: source.registry.clone(), why: why.to_owned() };
        let credential = self.config.credentials.of(&source.registry);
        if let Some(Credential::Helper(helper)) = credential {
            return Err(
                denied(&format!("its credentials are in the helper {helper:?}, which is not asked")).into()
            );
        }
        let said = match answer.header(WWW_AUTHENTICATE).and_then(Challenge::read) {
            None => return Err(denied("it asks who we are in a way that is not known").into()),
            Some(Challenge::Basic) => credential
                .and_then(Credential::basic)
                .ok_or_else(|| denied("it wants a name and a password, and none are known"))?,
            Some(Challenge::Bearer { realm, service, scope }) => {
                let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", source.repository));
                let token =
                    self.token(source, &realm, service.as_deref(), &scope, credential, ceiling).await?;
                format!("Bearer {token}")
            }
        };
        let mut said =
            HeaderValue::from_str(&said).map_err(|_invalid| denied("its token service gave no token"))?;
        said.set_sensitive(true);
        Ok(said)
    }

    /// Asks the token service at `realm`.
    async fn token(
        &self,
        source: &Source,
        realm: &str,
        service: Option<&str>,
        scope: &str,
        credential: Option<&Credential>,
        ceiling: Reach,
    ) -> Result<String, Fault> {
        #[derive(Deserialize)]
        struct Given {
            token: Option<String>,
            access_token: Option<String>,
        }
        let realm: Uri =
            realm.parse().map_err(|_invalid| ImageError::invalid("its token service is no address"))?;
        self.check(&realm)?;
        let mut query = format!("scope={}", encoded(scope));
        if let Some(service) = service {
            query = format!("service={}&{query}", encoded(service));
        }
        let request = match credential {
            Some(Credential::Identity(token)) => {
                let form = format!(
                    "grant_type=refresh_token&client_id=berth&refresh_token={}&{query}",
                    encoded(token.expose_secret())
                );
                Request::post(realm)
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(Full::new(Bytes::from(form)))
            }
            credential => {
                let separator = if realm.query().is_some() { '&' } else { '?' };
                let mut request = Request::get(format!("{realm}{separator}{query}"));
                if let Some(basic) = credential.and_then(Credential::basic) {
                    request = request.header(AUTHORIZATION, basic);
                }
                request.body(Full::default())
            }
        };
        let request = request.map_err(|_invalid| ImageError::invalid("its token service is no address"))?;
        // It is not followed further: what we say there is for it alone.
        let answer = self.http.send(request, ceiling).await?;
        let mut answer = judged(answer, source, "a token").await?;
        let given = answer.whole(TOKEN_MAX, "the answer of its token service").await?;
        let given: Option<Given> = serde_json::from_slice(&given).ok();
        let token = given.and_then(|given| given.token.or(given.access_token));
        token.ok_or_else(|| ImageError::invalid("its token service gave no token").into())
    }
}

fn request(uri: &Uri, ask: &Ask<'_>, said: Option<&HeaderValue>) -> Result<Request<Full<Bytes>>, ImageError> {
    let mut request = Request::builder().method(Method::GET).uri(uri.clone()).header(USER_AGENT, "berth");
    if let Some(accept) = ask.accept {
        request = request.header(ACCEPT, accept);
    }
    if let Some(range) = &ask.range {
        request = request.header(RANGE, range);
    }
    if let Some(said) = said {
        request = request.header(AUTHORIZATION, said.clone());
    }
    request
        .body(Full::default())
        .map_err(|_invalid| ImageError::invalid("a registry gave an address that is none"))
}

/// An answer that has what was asked for; else what it means.
async fn judged(mut answer: Answer, source: &Source, what: &str) -> Result<Answer, Fault> {
    let status = answer.response.status();
    let registry = source.registry.clone();
    match status {
        StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(answer),
        StatusCode::NOT_FOUND => Err(ImageError::NotFound { registry, what: what.to_owned() }.into()),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let said = answer.whole(16 << 10, "an error").await.unwrap_or_default();
            let why = message(&said).unwrap_or_else(|| format!("it answered {} for {what}", status.as_u16()));
            Err(ImageError::Denied { registry, why }.into())
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Err(passing(&answer, registry)),
        status if status.is_server_error() => Err(passing(&answer, registry)),
        _ => {
            let status = status.as_u16();
            Err(ImageError::invalid(format!("{} answered {status} for {what}", answer.host)).into())
        }
    }
}

fn passing(answer: &Answer, registry: String) -> Fault {
    let wait = answer.header(RETRY_AFTER).and_then(|it| it.parse().ok()).map(Duration::from_secs);
    let why = format!("it answered {}", answer.response.status().as_u16());
    Fault::Passing(ImageError::Unreachable { registry, why }, wait)
}

/// What the registry says in its own words.
fn message(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        message: String,
    }
    let errors: Errors = serde_json::from_slice(body).ok()?;
    errors.errors.first().map(|one| shown(one.message.as_bytes()))
}

/// Encodes a value for a query.
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte))
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_and_registries_without_tls_stand_beside_the_credentials() {
        let text = r#"{"auths":{"ghcr.io":{"username":"a","password":"b"}},
            "mirrors":{"docker.io":["Mirror.example:5000","10.0.0.5"]},"insecureRegistries":["10.0.0.5"]}"#;
        let config = Config::from_file(text).unwrap();
        assert_eq!(config.mirrors["docker.io"], ["mirror.example:5000", "10.0.0.5"]);
        assert_eq!(config.insecure, BTreeSet::from(["10.0.0.5".to_owned()]));
        assert!(config.credentials.of("ghcr.io").is_some());
        let plain = Config::from_file(r#"{"auths":{}}"#).unwrap();
        assert!(plain.mirrors.is_empty() && plain.insecure.is_empty());
        for bad in [
            r#"{"mirrors":{"docker.io":["https://mirror.example"]}}"#,
            r#"{"mirrors":{"docker.io":"mirror.example"}}"#,
            r#"{"mirrors":{"docker.io":["me:secret@mirror.example"]}}"#,
            r#"{"insecureRegistries":["a/b"]}"#,
        ] {
            assert!(Config::from_file(bad).is_err(), "{bad}");
        }
    }
}
