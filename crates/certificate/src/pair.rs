//! A certificate with the chain above it and its key, read from PEM and checked before anything is done with it.

use std::collections::BTreeSet;
use std::fmt;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// More certificates than this are no chain that a client would follow.
const CHAIN_MAX: usize = 10;

/// A certificate and its key, of which all is true that the fields say.
pub struct Pair {
    /// SHA-256 of the certificate, in hex: its name.
    pub id: String,
    /// The DNS names that it is for, in lower case; `*.example.com` is one.
    pub names: BTreeSet<String>,
    /// From when it is valid, in seconds since 1970.
    pub not_before: i64,
    /// The last second in which it is.
    pub not_after: i64,
    /// Who issued it, as a person would call them.
    pub issuer: String,
    /// What a server needs to prove that it is who the certificate names.
    pub certified: CertifiedKey,
}

/// Without the key.
impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").field("id", &self.id).field("names", &self.names).finish_non_exhaustive()
    }
}

/// The bytes by which an issuer knows one certificate among its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewalName(pub(crate) CertificateDer<'static>);

impl RenewalName {
    /// That of the first certificate of a chain.
    #[must_use]
    pub fn of_chain(chain: &str) -> Option<Self> {
        CertificateDer::from_pem_slice(chain.as_bytes()).ok().map(Self)
    }
}

/// Why a chain and a key are no pair that can be served with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PairError {
    /// There is no PEM block of that kind in the text.
    #[error("there is no {0} in it")]
    Missing(&'static str),
    /// A block cannot be read.
    #[error("the {0} cannot be read")]
    Malformed(&'static str),
    /// There are more certificates than any chain has.
    #[error("there are more than {CHAIN_MAX} certificates in it")]
    TooMany,
    /// A certificate is not by the one that follows it.
    #[error(
        "certificate {at} of the chain was not issued by the one after it; the order is the app's own first, then upwards"
    )]
    Order {
        /// Which, from 1.
        at: usize,
    },
    /// The key belongs to another certificate.
    #[error("the key is not that of the certificate; with a chain the app's own certificate comes first")]
    OtherKey,
    /// It names no host.
    #[error(
        "the certificate names no host: without a DNS name among its alternative names no client takes it"
    )]
    NoNames,
}

impl Pair {
    /// Reads a chain, the server's own certificate first, and its key.
    ///
    /// # Errors
    /// [`PairError`]. Nothing of the key is in it.
    pub fn read(chain: &str, key: &str) -> Result<Self, PairError> {
        let malformed = PairError::Malformed("certificate");
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain.as_bytes())
            .take(CHAIN_MAX + 1)
            .collect::<Result<_, _>>()
            .map_err(|_pem| malformed.clone())?;
        if chain.len() > CHAIN_MAX {
            return Err(PairError::TooMany);
        }
        let leaf = chain.first().ok_or(PairError::Missing("certificate"))?.clone();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| match error {
            rustls::pki_types::pem::Error::NoItemsFound => PairError::Missing("private key"),
            _ => PairError::Malformed("private key"),
        })?;
        let read = chain.iter().map(|der| X509Certificate::from_der(der).map(|(_rest, read)| read));
        let read: Vec<_> = read.collect::<Result<_, _>>().map_err(|_der| malformed.clone())?;
        if let Some(at) = read.windows(2).position(|pair| pair[0].issuer() != pair[1].subject()) {
            return Err(PairError::Order { at: at + 1 });
        }
        let own = read.first().ok_or(PairError::Missing("certificate"))?;
        let names = names(own);
        if names.is_empty() {
            return Err(PairError::NoNames);
        }
        let validity = own.validity();
        let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        let issuer = issuer(own);
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => PairError::OtherKey,
            _ => PairError::Malformed("private key"),
        })?;
        let id = hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &leaf));
        Ok(Self { id, names, not_before, not_after, issuer, certified })
    }
}

/// The DNS names of a certificate. Addresses are none: no app is at one.
fn names(certificate: &X509Certificate<'_>) -> BTreeSet<String> {
    let Ok(Some(alternatives)) = certificate.subject_alternative_name() else { return BTreeSet::new() };
    let names = alternatives.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    names.collect()
}

/// The issuer's common name with its organisation, or the whole of its name.
fn issuer(certificate: &X509Certificate<'_>) -> String {
    let issuer = certificate.issuer();
    let organisation = issuer.iter_organization().next().and_then(|it| it.as_str().ok());
    let name = issuer.iter_common_name().next().and_then(|it| it.as_str().ok());
    match (organisation, name) {
        (Some(organisation), Some(name)) if !name.contains(organisation) => format!("{organisation} {name}"),
        (_, Some(name)) => name.to_owned(),
        (Some(organisation), None) => organisation.to_owned(),
        (None, None) => issuer.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LocalAuthority;
    use rcgen::{CertificateParams, KeyPair};

    fn own(names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        (CertificateParams::new(names).unwrap().self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn a_pair_says_what_it_is_for() {
        let (chain, key) = own(&["Shop.example.com", "*.shop.example.com"]);
        let pair = Pair::read(&chain, &key).unwrap();
        let names: Vec<&str> = pair.names.iter().map(String::as_str).collect();
        assert_eq!(names, ["*.shop.example.com", "shop.example.com"]);
        assert!(pair.not_before < pair.not_after);
        assert_eq!(pair.id.len(), 64);
        assert!(!format!("{pair:?}").contains("certified"));
    }

    #[test]
    fn what_is_no_pair_is_refused_with_the_reason() {
        let (chain, key) = own(&["a.example.com"]);
        let (other, _) = own(&["b.example.com"]);
        let (nameless, its_key) = own(&[]);
        let read = |chain: &str, key: &str| Pair::read(chain, key).unwrap_err();
        assert_eq!(read(&other, &key), PairError::OtherKey);
        assert_eq!(read("", &key), PairError::Missing("certificate"));
        assert_eq!(read(&chain, "nonsense"), PairError::Missing("private key"));
        assert_eq!(read(&chain, &chain), PairError::Missing("private key"));
        assert_eq!(read(&nameless, &its_key), PairError::NoNames);
        let cut = chain.replacen("MII", "MI", 1);
        assert!(matches!(read(&cut, &key), PairError::Malformed("certificate")));
        assert_eq!(read(&chain.repeat(11), &key), PairError::TooMany);
    }

    #[test]
    fn a_chain_in_the_wrong_order_is_refused_at_its_place() {
        let authority = LocalAuthority::read(&LocalAuthority::make(1_000_000).unwrap()).unwrap();
        let issued = authority.issue("shop.localhost", 1_000_000).unwrap();
        let leaf = pem(&issued.certified.cert[0]);
        let (stranger, _) = own(&["x.example.com"]);
        let key = KeyPair::generate().unwrap().serialize_pem();
        let upside_down = format!("{}{leaf}", authority.root_pem());
        for chain in [format!("{leaf}{stranger}"), upside_down] {
            assert_eq!(Pair::read(&chain, &key).unwrap_err(), PairError::Order { at: 1 });
        }
        let right = format!("{leaf}{}", authority.root_pem());
        assert_eq!(Pair::read(&right, &key).unwrap_err(), PairError::OtherKey);
    }

    fn pem(der: &[u8]) -> String {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    }
}
