//! An authority of this machine's own, for hosts below `localhost`, of which no public one gives certificates.
//!
//! Its root is bound to `localhost` by name constraints (RFC 5280, 4.2.1.10): who has their browser trust it trusts it with
//! nothing that leaves the machine, whoever may get hold of its key.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, NameConstraints,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::{MakeError, Pair, PairError, moment};

/// What its file is called, in the directory that edge reads.
pub const AUTHORITY: &str = "authority.pem";

const DAY: i64 = 24 * 60 * 60;
/// How long the root is valid. Whoever trusted it has to do so again after that.
const ROOT_DAYS: i64 = 3_650;
/// How long what it issues is valid. Nothing renews it but a new one in its place, which costs a tenth of a millisecond.
const LEAF_DAYS: i64 = 30;
/// Clocks differ: what is issued is valid from so long ago.
const SLACK: i64 = DAY;

/// The authority.
pub struct LocalAuthority {
    issuer: Issuer<'static, KeyPair>,
    root: String,
}

/// Without the key.
impl std::fmt::Debug for LocalAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalAuthority").finish_non_exhaustive()
    }
}

/// Why a text is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// There is no certificate in it.
    #[error("there is no certificate in it")]
    NoCertificate,
    /// The key or the certificate cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] rcgen::Error),
}

impl LocalAuthority {
    /// A new authority as PEM: its certificate, then its key. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// [`MakeError`].
    pub fn make(now: i64) -> Result<String, MakeError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Berth on this machine");
        params.distinguished_name.push(DnType::OrganizationName, "Berth");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let localhost = GeneralSubtree::DnsName("localhost".to_owned());
        params.name_constraints =
            Some(NameConstraints { permitted_subtrees: vec![localhost], excluded_subtrees: Vec::new() });
        params.not_before = moment(now - SLACK);
        params.not_after = moment(now + ROOT_DAYS * DAY);
        let certificate = params.self_signed(&key)?;
        Ok(format!("{}{}", certificate.pem(), key.serialize_pem()))
    }

    /// Reads what [`LocalAuthority::make`] made.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn read(pem: &str) -> Result<Self, AuthorityError> {
        let root =
            CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_pem| AuthorityError::NoCertificate)?;
        let end = pem.find("-----BEGIN PRIVATE KEY-----").ok_or(AuthorityError::NoCertificate)?;
        let (certificate, key) = pem.split_at(end);
        let key = KeyPair::from_pem(key)?;
        Ok(Self { issuer: Issuer::from_ca_cert_der(&root, key)?, root: certificate.to_owned() })
    }

    /// Its certificate, for who wants to trust it.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        &self.root
    }

    /// A certificate for `host`, with a key of its own, valid for thirty days from `now`.
    ///
    /// # Errors
    /// [`MakeError`] when `host` is no name.
    pub fn issue(&self, host: &str, now: i64) -> Result<Pair, MakeError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![host.to_owned()])?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, host);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = moment(now - SLACK);
        params.not_after = moment(now + LEAF_DAYS * DAY);
        let certificate = params.signed_by(&key, &self.issuer)?;
        let chain = format!("{}{}", certificate.pem(), self.root);
        Ok(Pair::read(&chain, &key.serialize_pem()).map_err(unreadable)?)
    }
}

/// What was made a line above is a pair, unless what makes it and what reads it disagree.
fn unreadable(_error: PairError) -> rcgen::Error {
    rcgen::Error::CouldNotParseCertificate
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls::pki_types::{ServerName, UnixTime};

    const NOW: i64 = 1_790_000_000;

    /// What a client says of a certificate for `host` issued by `authority`, so many days after.
    fn verify(authority: &LocalAuthority, host: &str, days: i64) -> Result<(), rustls::Error> {
        let issued = authority.issue(host, NOW).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.root_pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let (leaf, rest) = issued.certified.cert.split_first().unwrap();
        let at =
            UnixTime::since_unix_epoch(std::time::Duration::from_secs((NOW + days * DAY).cast_unsigned()));
        let name = ServerName::try_from(host.to_owned()).unwrap();
        verifier.verify_server_cert(leaf, rest, &name, &[], at).map(|_verified| ())
    }

    #[test]
    fn it_is_believed_below_localhost_and_nowhere_else() {
        let authority = LocalAuthority::read(&LocalAuthority::make(NOW).unwrap()).unwrap();
        verify(&authority, "shop.localhost", 0).unwrap();
        verify(&authority, "shop.prod.acme.localhost", 29).unwrap();
        verify(&authority, "shop.localhost", 31).unwrap_err();
        verify(&authority, "shop.example.com", 0).unwrap_err();
    }

    #[test]
    fn half_an_authority_is_none() {
        let pem = LocalAuthority::make(NOW).unwrap();
        let (first, rest) = pem.split_at(200);
        for part in ["", first, rest] {
            assert!(LocalAuthority::read(part).is_err());
        }
    }
}
