//! The routing snapshot: everything that edge needs to serve, made by control and replaced as a whole.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use berth_spec::{
    AppId, Bytes, Gate, HttpProtocol, HttpRoute, InstanceId, Millis, RateLimit, ReleaseNumber,
    RequestConcurrency,
};
use serde::{Deserialize, Serialize};

use crate::split::Share;

/// Which snapshot: the journal position that it was derived from. A newer snapshot has a greater generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g{}", self.0)
    }
}

/// All routes at one generation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// The format of this document; see [`Snapshot::FORMAT`].
    pub format: u32,
    /// Where in the journal it was derived from.
    pub generation: Generation,
    /// The apps, by id; an app without hosts is probed but receives nothing.
    pub apps: BTreeMap<AppId, AppRoute>,
    /// The certificates of hosts; each host once. A version that does not know of them serves no HTTPS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateRoute>,
    /// What is answered to who wants a host proven. A version that does not know of them proves nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub challenges: Vec<ChallengeRoute>,
}

/// A certificate, which lies beside the snapshot in `certificates/` as `ID.pem`: the chain, and then the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRoute {
    /// SHA-256 of it, in hex: another certificate has another name, so what was read once need not be read again.
    pub id: String,
    /// The hosts to whose clients it is shown; never one with `.*`.
    pub hosts: Vec<Host>,
}

impl CertificateRoute {
    /// The directory of certificates, beside the snapshot.
    pub const DIRECTORY: &str = "certificates";

    /// Where the certificate with this id lies, from the snapshot's directory on.
    #[must_use]
    pub fn file(id: &str) -> String {
        format!("{}/{id}.pem", Self::DIRECTORY)
    }
}

/// What an ACME server looks for to see that a host is ours: at a path of HTTP (RFC 8555, 8.3), or in a handshake (RFC 8737).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChallengeRoute {
    /// The host that is to be proven.
    pub host: Host,
    /// The last part of the path.
    pub token: String,
    /// What is answered there; SHA-256 of it is in the certificate that is shown in the handshake.
    pub answer: String,
}

/// What is said to clients that could use HTTPS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Https {
    /// Whether a request by plain HTTP for a host that has a certificate is sent there.
    pub force: bool,
    /// For how many seconds a browser is to use nothing else (RFC 6797); not said when nought.
    #[serde(default, skip_serializing_if = "is_nought")]
    pub hsts: u32,
}

impl Default for Https {
    fn default() -> Self {
        Self { force: true, hsts: 0 }
    }
}

impl Https {
    /// Whether it is what an app has that says nothing of it.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_nought(number: &u32) -> bool {
    *number == 0
}

impl Snapshot {
    /// The greatest format that this version reads and writes. A reader refuses a greater one and reads all smaller ones.
    ///
    /// 2 has endpoints that are reached by a dialer.
    pub const FORMAT: u32 = 2;

    /// The snapshot of `apps` at `generation`, in the least format that can say it: a version before this one reads it as long as nothing in
    /// it is new to that version, and else refuses it rather than send requests to the wrong place.
    #[must_use]
    pub fn new(generation: Generation, apps: BTreeMap<AppId, AppRoute>) -> Self {
        let backends = apps.values().flat_map(|route| &route.backends);
        let dials = backends.into_iter().any(|it| matches!(it.endpoint, Endpoint::Dialer { .. }));
        let format = if dials { Self::FORMAT } else { 1 };
        Self { format, generation, apps, ..Self::default() }
    }
}

/// How one app is reached.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AppRoute {
    /// The hosts whose requests go to this app.
    pub hosts: Vec<Host>,
    /// The instances that edge knows of: routed ones get requests, the others are probed or drained.
    pub backends: Vec<Backend>,
    /// How long a request may be held while no routed backend accepts a connection; nought when the app was
    /// scaled to nothing on purpose.
    pub hold: Millis,
    /// How often somebody may ask. A version that does not know it lets everybody ask as often as he likes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rate_limits: Vec<RateLimit>,
    /// What holds for parts of it alone. A version that does not know it has what holds for the app hold for all of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<HttpRoute>,
    /// Where answers are stored, while one release alone gets requests. A version that does not know it stores nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheRoute>,
    /// Whether requests go to them at all. A version that does not know it lets them through.
    #[serde(default, skip_serializing_if = "Gate::is_open")]
    pub gate: Gate,
    /// Where it is within the networks of its project's instances; see [`crate::names`]. A version that does not know of it serves no names,
    /// and everything else as this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// What is said to clients that could use HTTPS. A version that does not know of it has no HTTPS.
    #[serde(default, skip_serializing_if = "Https::is_default")]
    pub https: Https,
    /// How requests are shared between releases, a hundred percent in all; nothing while one release has all of them. A version that does not
    /// know it spreads them over all routed instances alike.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<Share>,
    /// Where in the journal the app fell asleep, while it sleeps: a request for it is held and control is told that it is wanted; what is
    /// parked stands still and is not probed. A version that does not know of it holds the request and tells nobody, so that such an app
    /// wakes once control has heard that a request was not served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asleep: Option<Generation>,
}

/// What the answers of one release are stored in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheRoute {
    /// The release: what is stored of one is never given for another.
    pub release: ReleaseNumber,
    /// How much memory they take.
    pub size: Bytes,
    /// A longer body is not stored.
    pub max_body: Bytes,
}

/// A host name in lower case without a port: `shop.example.com`; or `*.example.com`, which matches every name with one label
/// in place of the asterisk that no app has by itself; or `shop.*`, which matches any name whose first label is `shop` under
/// `localhost`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Host(pub String);

/// One instance as edge sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Which instance.
    pub instance: InstanceId,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// What edge does with it.
    pub role: Role,
    /// How its health is probed; two releases of one app may differ in it.
    pub probe: Probe,
    /// How many requests it gets at a time. A version that does not know it sends it as many as come.
    #[serde(default, skip_serializing_if = "RequestConcurrency::is_unlimited")]
    pub concurrency: RequestConcurrency,
    /// How long it may take to begin an answer. A version that does not know it waits as long as the client does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_timeout: Option<Millis>,
    /// Which version of HTTP it speaks. A version that does not know it speaks HTTP/1.1 to every instance, so that those that do not are not
    /// ready for it, and what is sent to them is not answered, until control is of this version again.
    #[serde(default, skip_serializing_if = "HttpProtocol::is_default")]
    pub protocol: HttpProtocol,
}

/// Where an instance listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Endpoint {
    /// A TCP address that edge can connect to itself.
    Tcp {
        /// The address.
        addr: SocketAddr,
    },
    /// A port in a network that edge is not in. It is given sockets of that network to connect.
    Dialer {
        /// The name of the Unix socket at which it asks for them.
        name: String,
        /// The port on that network's loopback.
        port: u16,
    },
}

/// What edge does with a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Probed every 10 to 200 ms until ready; receives no requests yet.
    Candidate,
    /// Receives requests; probed at the configured interval.
    Routed,
    /// Receives no new requests: drains, and is probed at the configured interval so that a rollback to it is safe.
    Parked,
}

/// How the health of an instance is probed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// What is asked.
    pub path: ProbePath,
    /// Time between probes of an instance that is ready.
    pub interval: Millis,
    /// How long one probe may take.
    pub timeout: Millis,
}

/// What a probe asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "path")]
pub enum ProbePath {
    /// Only a 2xx on this path counts.
    Strict(String),
    /// `/healthz`, then `/up`: a 2xx counts, 404 and 405 fall through, anything else is reported and TCP decides.
    Guess,
}
