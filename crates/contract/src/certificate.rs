//! Certificates, and the ACME server that they are had from.

use berth_spec::{AppId, HostName, Millis, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::release::Failure;
use crate::settings::SecretValue;

/// All certificates, and how each host that wants one stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CertificateList {
    /// The server that certificates are had from.
    pub acme: Option<Acme>,
    /// The certificates that there are.
    pub certificates: Vec<Certificate>,
    /// The public hosts of all apps, in the order of the alphabet.
    pub hosts: Vec<CertificateHost>,
}

/// An ACME server and how it is shown that a host is ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Acme {
    /// The address of its directory.
    pub directory: String,
    /// Whom it writes to.
    pub email: Option<String>,
    /// How hosts are proven.
    pub proof: Proof,
    /// The program that proves them by DNS: all, or only wildcards where the proof is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsHook>,
}

/// A program on the platform's machine that puts records into DNS. It is called as `PROGRAM present NAME VALUE` and `PROGRAM cleanup NAME VALUE`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DnsHook {
    /// Its absolute path. Nobody but root and the platform's user may be able to change it.
    #[schema(example = "/etc/berth/dns")]
    pub program: String,
    /// How long the server is not had look after it ended well: the servers of the zone have to tell each other.
    #[serde(default = "DnsHook::usual_wait")]
    #[schema(value_type = u64)]
    pub wait_ms: Millis,
    /// How long it may run.
    #[serde(default = "DnsHook::usual_timeout")]
    #[schema(value_type = u64)]
    pub timeout_ms: Millis,
}

impl DnsHook {
    /// Half a minute, within which most providers have a record at all their servers.
    #[must_use]
    pub const fn usual_wait() -> Millis {
        Millis::from_secs(30)
    }

    /// Two minutes.
    #[must_use]
    pub const fn usual_timeout() -> Millis {
        Millis::from_secs(120)
    }
}

/// How an ACME server is shown that a host is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub enum Proof {
    /// By an answer at port 80.
    #[default]
    #[serde(rename = "http-01")]
    Http01,
    /// By a certificate at port 443.
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
    /// By a record in DNS, which a program writes.
    #[serde(rename = "dns-01")]
    Dns01,
}

impl Proof {
    /// The proof as it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Dns01 => "dns-01",
        }
    }
}

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Certificate {
    /// SHA-256 of it, in hex.
    pub id: String,
    /// The hosts that it is for.
    #[schema(value_type = Vec<String>)]
    pub hosts: Vec<HostName>,
    /// Who issued it.
    pub issuer: String,
    /// Where it comes from.
    pub origin: CertificateOrigin,
    /// From when it is valid, in milliseconds since 1970.
    #[schema(value_type = u64)]
    pub not_before: Timestamp,
    /// Until when.
    #[schema(value_type = u64)]
    pub not_after: Timestamp,
    /// When the next one is asked for at the latest; nothing for one that was brought.
    #[schema(value_type = Option<u64>)]
    pub renews_at: Option<Timestamp>,
}

/// Where a certificate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CertificateOrigin {
    /// An ACME server gave it, and will again.
    Acme,
    /// Somebody brought it, and has to bring the next one.
    Uploaded,
}

/// How a host stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CertificateHost {
    /// The host.
    #[schema(value_type = String, example = "shop.example.com")]
    pub host: HostName,
    /// The app that has it.
    #[schema(value_type = String)]
    pub app: AppId,
    /// The certificate that its clients are shown.
    pub certificate: Option<String>,
    /// What is going on.
    pub state: CertificateState,
    /// What went wrong the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// When it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub again_at: Option<Timestamp>,
    /// Why none is asked for, and what to do about it, where it has none and none can be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unasked: Option<String>,
}

/// What is going on for a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CertificateState {
    /// It has a certificate.
    Valid,
    /// It has one whose time is over.
    Expired,
    /// One is being asked for, and there is none.
    Ordered,
    /// There was none to be had; it is tried again.
    Failed,
    /// There is none, and nobody is asked for one.
    None,
}

/// Which ACME server certificates are had from. With it its terms are agreed to.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AcmeSettings {
    /// The address of its directory.
    #[schema(example = "https://acme-v02.api.letsencrypt.org/directory")]
    pub directory: String,
    /// Whom it writes to when something is about to go wrong.
    #[serde(default)]
    pub email: Option<String>,
    /// How hosts are proven.
    #[serde(default)]
    pub proof: Proof,
    /// The program that proves them by DNS: wildcards always, all with the proof `dns-01`.
    #[serde(default)]
    pub dns: Option<DnsHook>,
    /// The authorities that the server itself is believed by, as PEM, when they are not the machine's.
    #[serde(default)]
    pub authorities: Option<String>,
    /// The key by which it knows whom the account belongs to, for servers that want one.
    #[serde(default)]
    pub external_account: Option<ExternalAccount>,
}

/// An external account (RFC 8555, 7.3.4).
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExternalAccount {
    /// Its id.
    pub id: String,
    /// The key in base64, in either alphabet.
    #[schema(value_type = String)]
    pub key: SecretValue,
}

/// A certificate that somebody brings.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateUpload {
    /// The chain as PEM: its own certificate first, then those above it.
    pub chain: String,
    /// The key as PEM.
    #[schema(value_type = String)]
    pub key: SecretValue,
}

/// A host whose certificate is to be had now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateRenewal {
    /// The host.
    #[schema(value_type = String, example = "shop.example.com")]
    pub host: HostName,
}

/// The machine's own authority, which issues for hosts below `localhost`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Authority {
    /// Its certificate as PEM.
    pub certificate: String,
}
