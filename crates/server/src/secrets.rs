//! Secrets at rest: envelope encryption with AES-256-GCM (NIST SP 800-38D).
//!
//! Each value has a data key of its own, which is itself encrypted under the platform's key-encryption key; so a random 96-bit nonce is
//! used once per key, far below the limit of 2^32. What both are bound to (tenant, project, app, name, version) is authenticated, so that a sealed value
//! moved to another app, name or version does not open.
//!
//! Layout of the envelope, base64 in the journal: one byte of format (1), eight of the id of the key-encryption key, 12 of nonce and 48 of sealed
//! data key, 12 of nonce and the sealed value with its tag of 16.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use berth_clock::{Clock, random_bytes};
use berth_spec::{AppId, EnvName};

use crate::config::KeyEncryptionKey;

const FORMAT: u8 = 1;
const KEY_ID_LEN: usize = 8;
const KEY_LEN: usize = 32;
const TAG_LEN: usize = 16;
const HEAD_LEN: usize = 1 + KEY_ID_LEN;
const SEALED_KEY_LEN: usize = NONCE_LEN + KEY_LEN + TAG_LEN;

/// Which value a sealed one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label<'a> {
    /// The app whose secret it is.
    pub app: &'a AppId,
    /// Its name.
    pub name: &'a EnvName,
    /// Its version.
    pub version: u64,
}

impl Label<'_> {
    /// No two labels give the same bytes: names hold no `/`, and what comes first says what is sealed.
    fn bound(&self, what: &str) -> Vec<u8> {
        format!("berth/{what}/{}/{}/{}", self.app, self.name, self.version).into_bytes()
    }
}

/// Why a sealed value does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnsealError {
    /// It was sealed under another key-encryption key.
    #[error(
        "the secret was sealed under another key-encryption key; restore keys/kek from where it was exported to"
    )]
    OtherKey,
    /// It is not what was sealed under this label.
    #[error("the sealed secret was changed or belongs to something else")]
    NotAuthentic,
    /// It is no envelope of a known format.
    #[error("the sealed secret has a form that this version does not know")]
    Malformed,
}

/// Seals and opens secrets.
#[derive(Debug)]
pub struct Vault {
    key: KeyEncryptionKey,
    key_id: [u8; KEY_ID_LEN],
    fingerprints: hmac::Key,
}

impl Vault {
    /// A vault under `key`.
    #[must_use]
    pub fn new(key: KeyEncryptionKey) -> Self {
        let mut named = b"berth/kek-id/".to_vec();
        named.extend_from_slice(key.expose());
        let mut key_id = [0; KEY_ID_LEN];
        key_id.copy_from_slice(&digest(&SHA256, &named).as_ref()[..KEY_ID_LEN]);
        let mut apart = b"berth/fingerprints/".to_vec();
        apart.extend_from_slice(key.expose());
        let fingerprints = hmac::Key::new(hmac::HMAC_SHA256, digest(&SHA256, &apart).as_ref());
        Self { key, key_id, fingerprints }
    }

    /// The id of the key, in hex: what tells one key from another, and nothing of the key.
    #[must_use]
    pub fn key_id(&self) -> String {
        hex::encode(self.key_id)
    }

    /// The key, for the one way by which it leaves: a backup that its owner wants it in.
    #[must_use]
    pub(crate) fn key(&self) -> &KeyEncryptionKey {
        &self.key
    }

    /// A hash of `parts` that tells nothing of them to whoever has not the key: HMAC-SHA-256 (RFC 2104).
    #[must_use]
    pub fn fingerprint(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut hash = hmac::Context::with_key(&self.fingerprints);
        parts.iter().for_each(|part| hash.update(part));
        hash.sign().as_ref().try_into().expect("SHA-256 gives 32 bytes")
    }

    /// Seals `value` so that it opens under `label` alone.
    #[must_use]
    pub fn seal(&self, clock: &dyn Clock, label: Label<'_>, value: &str) -> String {
        self.seal_bound(clock, |what| label.bound(what), value)
    }

    fn seal_bound(&self, clock: &dyn Clock, bound: impl Fn(&str) -> Vec<u8>, value: &str) -> String {
        let data_key: [u8; KEY_LEN] = random_bytes(clock);
        let mut envelope = vec![FORMAT];
        envelope.extend_from_slice(&self.key_id);
        seal_into(&mut envelope, clock, self.key.expose(), &bound("key"), &data_key);
        seal_into(&mut envelope, clock, &data_key, &bound("value"), value.as_bytes());
        BASE64.encode(envelope)
    }

    /// Seals `value` so that it opens under `bound` alone, which no label gives: it has a colon where those have a name.
    #[must_use]
    pub fn seal_text(&self, clock: &dyn Clock, bound: &str, value: &str) -> String {
        self.seal_bound(clock, |what| format!("berth/{what}/{bound}").into_bytes(), value)
    }

    /// Opens what was sealed under `bound`.
    ///
    /// # Errors
    /// [`UnsealError`].
    pub fn open_text(&self, bound: &str, sealed: &str) -> Result<String, UnsealError> {
        self.open_bound(|what| format!("berth/{what}/{bound}").into_bytes(), sealed)
    }

    /// Opens what was sealed under `label`.
    ///
    /// # Errors
    /// [`UnsealError`].
    pub fn open(&self, label: Label<'_>, sealed: &str) -> Result<String, UnsealError> {
        self.open_bound(|what| label.bound(what), sealed)
    }

    fn open_bound(&self, bound: impl Fn(&str) -> Vec<u8>, sealed: &str) -> Result<String, UnsealError> {
        let envelope = BASE64.decode(sealed).map_err(|_not_base64| UnsealError::Malformed)?;
        let (head, rest) = envelope.split_at_checked(HEAD_LEN).ok_or(UnsealError::Malformed)?;
        if head.first() != Some(&FORMAT) {
            return Err(UnsealError::Malformed);
        }
        if head[1..] != self.key_id {
            return Err(UnsealError::OtherKey);
        }
        let (sealed_key, sealed_value) =
            rest.split_at_checked(SEALED_KEY_LEN).ok_or(UnsealError::Malformed)?;
        let data_key = open_from(self.key.expose(), &bound("key"), sealed_key)?;
        let data_key: [u8; KEY_LEN] = data_key.try_into().map_err(|_length| UnsealError::Malformed)?;
        let value = open_from(&data_key, &bound("value"), sealed_value)?;
        String::from_utf8(value).map_err(|_not_text| UnsealError::Malformed)
    }
}

fn cipher(key: &[u8; KEY_LEN]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("AES-256 takes 32 bytes"))
}

fn seal_into(envelope: &mut Vec<u8>, clock: &dyn Clock, key: &[u8; KEY_LEN], bound: &[u8], plain: &[u8]) {
    let nonce: [u8; NONCE_LEN] = random_bytes(clock);
    let mut sealed = plain.to_vec();
    cipher(key)
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(bound), &mut sealed)
        .expect("a secret is far shorter than the 64 GiB that AES-GCM seals");
    envelope.extend_from_slice(&nonce);
    envelope.extend_from_slice(&sealed);
}

fn open_from(key: &[u8; KEY_LEN], bound: &[u8], sealed: &[u8]) -> Result<Vec<u8>, UnsealError> {
    let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN).ok_or(UnsealError::Malformed)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_length| UnsealError::Malformed)?;
    let mut plain = sealed.to_vec();
    let opened = cipher(key).open_in_place(nonce, Aad::from(bound), &mut plain);
    let length = opened.map_err(|_unspecified| UnsealError::NotAuthentic)?.len();
    plain.truncate(length);
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_clock::SystemClock;

    fn app(text: &str) -> AppId {
        text.parse().unwrap()
    }

    #[test]
    fn a_secret_opens_under_its_own_label_alone() {
        let clock = SystemClock::new();
        let vault = Vault::new(KeyEncryptionKey::new([7; 32]));
        let (shop, other, name) = (app("a/b/shop"), app("a/c/shop"), EnvName::new("TOKEN").unwrap());
        let label = Label { app: &shop, name: &name, version: 3 };
        let sealed = vault.seal(&clock, label, "hunter2");
        assert_eq!(vault.open(label, &sealed).unwrap(), "hunter2");
        assert_ne!(sealed, vault.seal(&clock, label, "hunter2"), "no two sealed values are alike");
        let wrong_name = EnvName::new("TOKEM").unwrap();
        for wrong in [
            Label { app: &other, ..label },
            Label { name: &wrong_name, ..label },
            Label { version: 4, ..label },
        ] {
            assert_eq!(vault.open(wrong, &sealed), Err(UnsealError::NotAuthentic));
        }
        let stranger = Vault::new(KeyEncryptionKey::new([8; 32]));
        assert_eq!(stranger.open(label, &sealed), Err(UnsealError::OtherKey));
    }

    #[test]
    fn a_fingerprint_needs_the_key() {
        let print =
            |key: u8, parts: &[&[u8]]| Vault::new(KeyEncryptionKey::new([key; 32])).fingerprint(parts);
        assert_eq!(print(7, &[b"a", b"bc"]), print(7, &[b"ab", b"c"]));
        assert_ne!(print(7, &[b"abc"]), print(8, &[b"abc"]));
        assert_ne!(print(7, &[b"abc"]), print(7, &[b"abd"]));
        assert_ne!(print(7, &[b"abc"]).as_slice(), digest(&SHA256, b"abc").as_ref());
    }

    #[test]
    fn no_change_of_a_byte_goes_unnoticed() {
        let clock = SystemClock::new();
        let vault = Vault::new(KeyEncryptionKey::new([7; 32]));
        let (shop, name) = (app("a/b/shop"), EnvName::new("TOKEN").unwrap());
        let label = Label { app: &shop, name: &name, version: 1 };
        let bytes = BASE64.decode(vault.seal(&clock, label, "hunter2")).unwrap();
        for index in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[index] ^= 1;
            assert!(vault.open(label, &BASE64.encode(&changed)).is_err(), "byte {index}");
            assert!(vault.open(label, &BASE64.encode(&bytes[..index])).is_err(), "cut at {index}");
        }
        for nonsense in ["", "!", "AQ"] {
            assert_eq!(vault.open(label, nonsense), Err(UnsealError::Malformed));
        }
    }
}
