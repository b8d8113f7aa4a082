//! What is made on the way to a certificate: the request for it, and the one that stands in while a host is being proven.

use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;

use crate::{MakeError, moment};

/// The protocol that an ACME server names in its handshake when it looks for the proof (RFC 8737, 3).
pub const ALPN_PROTOCOL: &[u8] = b"acme-tls/1";

/// A new key on the curve P-256, as PEM, and the request (PKCS #10) in DER for a certificate for `names` with it.
///
/// # Errors
/// [`MakeError`] when a name is none.
pub fn request(names: &[String]) -> Result<(Vec<u8>, String), MakeError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names)?;
    // Issuers take the names from the alternative ones; a subject would only have to be agreed upon.
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key)?;
    Ok((request.der().to_vec(), key.serialize_pem()))
}

/// The certificate that proves `host` in a handshake (RFC 8737): signed by itself, with SHA-256 of the proof `answer` in it.
///
/// # Errors
/// [`MakeError`] when `host` is no name.
pub fn challenge_key(host: &str, answer: &str) -> Result<CertifiedKey, MakeError> {
    const FOREVER: i64 = 4_000_000_000;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![host.to_owned()])?;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, answer.as_bytes());
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest.as_ref())];
    params.not_before = moment(0);
    params.not_after = moment(FOREVER);
    let certificate = params.self_signed(&key)?;
    let secret = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let secret = any_supported_type(&secret).map_err(|_key| rcgen::Error::CouldNotParseKeyPair)?;
    // Not compared with its key, as others are: what does that refuses the extension, which it does not know and which has to be critical.
    Ok(CertifiedKey::new(vec![certificate.der().clone()], secret))
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::prelude::FromDer as _;

    #[test]
    fn a_request_names_its_hosts() {
        let (der, key) = request(&["a.example.com".to_owned()]).unwrap();
        let (_, read) = X509CertificationRequest::from_der(&der).unwrap();
        assert!(key.starts_with("-----BEGIN PRIVATE KEY-----"));
        assert!(
            format!("{:?}", read.requested_extensions().unwrap().collect::<Vec<_>>())
                .contains("a.example.com")
        );
    }

    #[test]
    fn the_proof_is_in_the_certificate() {
        let key = challenge_key("a.example.com", "token.thumbprint").unwrap();
        let der = key.cert.first().unwrap();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"token.thumbprint");
        assert!(der.windows(32).any(|window| window == digest.as_ref()));
    }
}
