//! Certificates by ACME (RFC 8555), with the library `instant-acme`: an account, an order for one host, its proof, the chain.
//!
//! Whoever uses this keeps what has to outlive a restart: the account's credentials, and the address of an order that has begun. An order that
//! was begun by another process goes on from wherever the server says that it is.

mod connection;

use std::fmt;
use std::io;
use std::time::Duration;

use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error,
    ExternalAccountKey, Identifier, NewAccount, NewOrder, OrderStatus, Problem, RetryPolicy,
};

use crate::acme::connection::{Connection, Pause};
use crate::{MakeError, RenewalName, request};

/// How long the server may take over a proof, and over a certificate.
const PATIENCE: Duration = Duration::from_secs(90);
/// The kind of problem by which a server asks to come more seldom (RFC 8555, 6.6).
const RATE_LIMITED: &str = "rateLimited";

/// An ACME server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The address of its directory, of HTTPS.
    pub directory: String,
    /// The authorities, as PEM, that its own certificate is believed by, when they are not the machine's.
    pub authorities: Option<String>,
}

/// A key by which a server knows whom an account belongs to (RFC 8555, 7.3.4).
#[derive(Clone)]
pub struct ExternalAccount {
    /// Its id.
    pub id: String,
    /// The key, as many bytes as the server gave.
    pub key: Vec<u8>,
}

/// How a host is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// By an answer at a path of port 80.
    Http,
    /// By a certificate at port 443.
    TlsAlpn,
    /// By a TXT record, whose value the answer is.
    Dns,
}

/// What has to be answered so that a host is proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The last part of the path.
    pub token: String,
    /// The answer.
    pub answer: String,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    /// The server refused; its own words.
    #[error("{server} refused: {detail}")]
    Refused {
        /// Its host.
        server: String,
        /// What it said, with the kind of problem that it is.
        detail: String,
        /// Whether it asks to come more seldom.
        rate_limited: bool,
        /// For how long it does not want to be asked again, where it says so.
        again_in: Option<Duration>,
    },
    /// It could not be reached, or what came was no answer.
    #[error("{server} cannot be asked: {why}")]
    Unreachable {
        /// Its host.
        server: String,
        /// Why.
        why: String,
    },
    /// It offers no proof of the wanted kind.
    #[error("{server} does not offer to have {host} proven that way")]
    NoProof {
        /// Its host.
        server: String,
        /// The host that is to be proven.
        host: String,
    },
    /// Its directory is not at an address of HTTPS.
    #[error("{0:?} is not the address of a directory: it begins with https://")]
    Address(String),
    /// The credentials that were kept are none.
    #[error("the account's credentials cannot be read")]
    Credentials,
    /// The authorities are none.
    #[error("the authorities of the server cannot be read: {0}")]
    Authorities(String),
    /// The request could not be made.
    #[error(transparent)]
    Make(#[from] MakeError),
}

/// An account at a server.
pub struct Client {
    account: Account,
    voice: Voice,
}

/// Without the key.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("server", &self.voice.server).finish_non_exhaustive()
    }
}

/// An order for one host.
pub struct Order {
    order: instant_acme::Order,
    host: String,
    voice: Voice,
}

/// What becomes of a server's words.
#[derive(Clone)]
struct Voice {
    /// Its host, by which people know it.
    server: String,
    /// What it said last of when to come again.
    pause: Pause,
}

/// A chain and its key, as PEM.
pub struct Issued {
    /// The server's own certificate, and those above it.
    pub chain: String,
    /// The key.
    pub key: String,
}

impl Client {
    /// Opens an account, agreeing to the server's terms. Gives it with its credentials, which are secret.
    ///
    /// # Errors
    /// [`AcmeError`].
    pub async fn register(
        server: &Server,
        email: Option<&str>,
        external: Option<&ExternalAccount>,
    ) -> Result<(Self, String), AcmeError> {
        let (voice, connection) = reach(server)?;
        let email = email.map(mailto);
        let contact = email.as_deref();
        let account = NewAccount {
            contact: contact.as_slice(),
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let external = external.map(|it| ExternalAccountKey::new(it.id.clone(), &it.key));
        let builder = Account::builder_with_http(Box::new(connection));
        let made = builder.create(&account, server.directory.clone(), external.as_ref()).await;
        let (account, credentials) = made.map_err(|error| voice.said(error))?;
        let credentials = serde_json::to_string(&credentials).map_err(|_json| AcmeError::Credentials)?;
        Ok((Self { account, voice }, credentials))
    }

    /// Goes on with the account that has these credentials.
    ///
    /// # Errors
    /// [`AcmeError`].
    pub async fn open(server: &Server, credentials: &str) -> Result<Self, AcmeError> {
        let (voice, connection) = reach(server)?;
        let credentials: AccountCredentials =
            serde_json::from_str(credentials).map_err(|_json| AcmeError::Credentials)?;
        let builder = Account::builder_with_http(Box::new(connection));
        let account = builder.from_credentials(credentials).await.map_err(|error| voice.said(error))?;
        Ok(Self { account, voice })
    }

    /// Has the server write to `email` from here on, to nobody where there is none. It fails where the server does not know the account any more.
    ///
    /// # Errors
    /// [`AcmeError`].
    pub async fn write_to(&self, email: Option<&str>) -> Result<(), AcmeError> {
        let email = email.map(mailto);
        let contact = email.as_deref();
        self.account.update_contacts(contact.as_slice()).await.map_err(|error| self.voice.said(error))
    }

    /// Orders a certificate for `host`, in place of `replaced` if it renews one of this server's.
    ///
    /// # Errors
    /// [`AcmeError`].
    pub async fn order(&self, host: &str, replaced: Option<&RenewalName>) -> Result<Order, AcmeError> {
        let identifiers = [Identifier::Dns(host.to_owned())];
        let order = NewOrder::new(&identifiers);
        let replaced = replaced.and_then(|name| CertificateIdentifier::try_from(&name.0).ok());
        let ordered = match replaced {
            None => self.account.new_order(&order).await,
            Some(replaced) => {
                match self.account.new_order(&NewOrder::new(&identifiers).replaces(replaced)).await {
                    // What it replaces is for the server to know, and no reason to have none: it is an order like any other then.
                    Err(error) if is_about_replacing(&error) => self.account.new_order(&order).await,
                    ordered => ordered,
                }
            }
        };
        let order = ordered.map_err(|error| self.voice.said(error))?;
        Ok(Order { order, host: host.to_owned(), voice: self.voice.clone() })
    }

    /// Goes on with an order that was begun before.
    ///
    /// # Errors
    /// [`AcmeError`].
    pub async fn resume(&self, host: &str, address: &str) -> Result<Order, AcmeError> {
        let order = self.account.order(address.to_owned()).await.map_err(|error| self.voice.said(error))?;
        Ok(Order { order, host: host.to_owned(), voice: self.voice.clone() })
    }

    /// Between which two moments, in seconds since 1970, the server would have a certificate of its renewed (RFC 9773), and after how many
    /// seconds it wants to be asked again; nothing when it does not say.
    pub async fn renewal(&self, name: &RenewalName) -> Option<(i64, i64, Duration)> {
        let name = CertificateIdentifier::try_from(&name.0).ok()?;
        let (info, again) = self.account.renewal_info(&name).await.ok()?;
        let window = info.suggested_window;
        Some((window.start.unix_timestamp(), window.end.unix_timestamp(), again))
    }
}

impl Order {
    /// By which it is found again.
    #[must_use]
    pub fn address(&self) -> &str {
        self.order.url()
    }

    /// Whether it can still be gone on with. One for which a certificate was asked already is over: its key was that of who asked.
    #[must_use]
    pub fn is_open(&mut self) -> bool {
        matches!(self.order.state().status, OrderStatus::Pending | OrderStatus::Ready)
    }

    /// What has to be answered, by `proof`; nothing when the host is proven already.
    ///
    /// # Errors
    /// [`AcmeError`].
    pub async fn challenge(&mut self, proof: Proof) -> Result<Option<Challenge>, AcmeError> {
        if self.order.state().status != OrderStatus::Pending {
            return Ok(None);
        }
        let mut authorizations = self.order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(|error| self.voice.said(error))?;
            if authorization.status != AuthorizationStatus::Pending {
                continue;
            }
            let Some(challenge) = authorization.challenge(kind(proof)) else {
                return Err(AcmeError::NoProof {
                    server: self.voice.server.clone(),
                    host: self.host.clone(),
                });
            };
            let answer = match proof {
                Proof::Http | Proof::TlsAlpn => challenge.key_authorization().as_str().to_owned(),
                Proof::Dns => challenge.key_authorization().dns_value(),
            };
            return Ok(Some(Challenge { token: challenge.token.clone(), answer }));
        }
        Ok(None)
    }

    /// Has the server look for the answer, which has to be there, and gives the certificate.
    ///
    /// # Errors
    /// [`AcmeError`].
    pub async fn finish(&mut self, proof: Proof) -> Result<Issued, AcmeError> {
        let retries = RetryPolicy::new().timeout(PATIENCE).backoff(1.5);
        self.ready(proof).await?;
        let status = self.order.state().status;
        if status == OrderStatus::Pending {
            let polled = self.order.poll_ready(&retries).await;
            if self.order.state().status == OrderStatus::Invalid {
                return Err(self.why_invalid().await);
            }
            polled.map_err(|error| self.voice.said(error))?;
        }
        let (request, key) = request(std::slice::from_ref(&self.host))?;
        self.order.finalize_csr(&request).await.map_err(|error| self.voice.said(error))?;
        let chain = self.order.poll_certificate(&retries).await.map_err(|error| self.voice.said(error))?;
        Ok(Issued { chain, key })
    }

    async fn ready(&mut self, proof: Proof) -> Result<(), AcmeError> {
        let mut authorizations = self.order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(|error| self.voice.said(error))?;
            if authorization.status != AuthorizationStatus::Pending {
                continue;
            }
            if let Some(mut challenge) = authorization.challenge(kind(proof)) {
                challenge.set_ready().await.map_err(|error| self.voice.said(error))?;
            }
        }
        Ok(())
    }

    /// What the server has against the proofs. It stands with the authorizations, not with the order.
    async fn why_invalid(&mut self) -> AcmeError {
        let mut authorizations = self.order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            let Ok(state) = authorization.refresh().await else { continue };
            if let Some(problem) = state.challenges.iter().find_map(|challenge| challenge.error.as_ref()) {
                return self.voice.said(Error::Api(problem.clone()));
            }
        }
        let detail = "the order is invalid, and no proof of it says why".to_owned();
        AcmeError::Refused { server: self.voice.server.clone(), detail, rate_limited: false, again_in: None }
    }
}

/// Whether an order may fare better that does not say what it replaces. Servers have no renewal information; have that certificate replaced already; do not
/// know it; know it of another account, as that of whoever had none before, and refuse then (Let's Encrypt does); or leave it out of their answer, which the library
/// takes for an error. They say so by whatever kind of problem, but for the one that another order would make worse.
fn is_about_replacing(error: &Error) -> bool {
    match error {
        Error::Unsupported(_) | Error::Json(_) => true,
        Error::Api(problem) => kind_of(problem) != RATE_LIMITED,
        // Of a connection it is an error of this machine's.
        Error::Other(error) => !error.is::<io::Error>(),
        _ => false,
    }
}

/// The last part of a problem's kind, by which people know it.
fn kind_of(problem: &Problem) -> &str {
    problem.r#type.as_deref().and_then(|kind| kind.rsplit(':').next()).unwrap_or_default()
}

fn mailto(email: &str) -> String {
    format!("mailto:{email}")
}

const fn kind(proof: Proof) -> ChallengeType {
    match proof {
        Proof::Http => ChallengeType::Http01,
        Proof::TlsAlpn => ChallengeType::TlsAlpn01,
        Proof::Dns => ChallengeType::Dns01,
    }
}

/// The server's host, by which people know it, with its port where it is not the usual one.
fn name_of(server: &Server) -> Result<String, AcmeError> {
    let address = || AcmeError::Address(server.directory.clone());
    let uri: http::Uri = server.directory.parse().map_err(|_uri| address())?;
    let host = uri.host().filter(|_| uri.scheme() == Some(&http::uri::Scheme::HTTPS)).ok_or_else(address)?;
    Ok(match uri.port_u16() {
        None | Some(443) => host.to_owned(),
        Some(port) => format!("{host}:{port}"),
    })
}

/// The way to a server.
fn reach(server: &Server) -> Result<(Voice, Connection), AcmeError> {
    let pause = Pause::default();
    let voice = Voice { server: name_of(server)?, pause: pause.clone() };
    Ok((voice, Connection::new(server, pause)?))
}

impl Voice {
    fn said(&self, error: Error) -> AcmeError {
        let server = self.server.clone();
        match error {
            Error::Api(problem) => {
                let kind = kind_of(&problem);
                let words = problem.detail.as_deref().unwrap_or("it does not say why");
                let detail = if kind.is_empty() { words.to_owned() } else { format!("{words} ({kind})") };
                let rate_limited = kind == RATE_LIMITED;
                let again_in = self.pause.take().filter(|_| rate_limited);
                AcmeError::Refused { server, detail, rate_limited, again_in }
            }
            Error::Timeout(_) => {
                AcmeError::Unreachable { server, why: "it did not come to an end in time".to_owned() }
            }
            other => AcmeError::Unreachable { server, why: other.to_string() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_known_by_its_host_and_by_a_port_that_is_not_the_usual_one() {
        let name = |directory: &str| name_of(&Server { directory: directory.to_owned(), authorities: None });
        for (directory, expected) in [
            ("https://acme.example.com/dir", "acme.example.com"),
            ("https://acme.example.com:443/dir", "acme.example.com"),
            ("https://127.0.0.1:14000/dir", "127.0.0.1:14000"),
        ] {
            assert_eq!(name(directory).unwrap(), expected);
        }
        assert!(name("http://acme.example.com/dir").is_err());
    }

    #[test]
    fn an_order_is_tried_without_what_it_replaces_unless_another_one_makes_it_worse() {
        let problem = |kind: &str| {
            let kind = format!("urn:ietf:params:acme:error:{kind}");
            Error::Api(Problem {
                r#type: Some(kind),
                detail: None,
                status: Some(403),
                subproblems: Vec::new(),
            })
        };
        // Let's Encrypt's for a certificate of another account, one that is unknown, and one that is replaced.
        for kind in ["unauthorized", "malformed", "alreadyReplaced", "serverInternal"] {
            assert!(is_about_replacing(&problem(kind)), "{kind}");
        }
        assert!(is_about_replacing(&Error::Unsupported("renewal information")));
        assert!(is_about_replacing(&Error::Other("replaces field mismatch".into())), "it was not said again");
        assert!(!is_about_replacing(&problem(RATE_LIMITED)));
        let away = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert!(!is_about_replacing(&Error::Other(Box::new(away))), "nobody was reached");
    }
}
