//! Passes: what lets git in for a quarter of an hour, for one app, in the name of whoever asked for it.
//!
//! Over the platform's Unix socket people need no token, and git speaks over TCP alone, as those who push images do. A pass says who, for
//! which app and until when, under a key that is made from the platform's; so nothing is kept of it, and it outlives control. It opens the app's
//! repositories, that of its source and that of its images, and nothing else.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use berth_spec::{AppId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::secrets::Vault;

/// What a pass starts with: that of a token, and a dot that no token has.
const PREFIX: &str = "berth_git.";
/// How long a pass opens something, in milliseconds: a push must begin within it, not end.
pub(crate) const FOR_MS: u64 = 15 * 60 * 1_000;

/// What a pass says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pass {
    /// In whose name.
    pub(crate) name: String,
    /// For which app.
    pub(crate) app: AppId,
    /// Until when.
    pub(crate) until: Timestamp,
}

impl Pass {
    /// The pass as text, for git's password.
    pub(crate) fn write(&self, vault: &Vault) -> String {
        let said = BASE64.encode(serde_json::to_vec(self).expect("names and a number have a JSON"));
        let seal = BASE64.encode(vault.fingerprint(&[b"git-pass/", said.as_bytes()]));
        format!("{PREFIX}{said}.{seal}")
    }

    /// Whether a text has the form of a pass.
    pub(crate) fn is_like(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    /// Reads a pass that was written under the same key and still holds `now`.
    pub(crate) fn read(text: &str, vault: &Vault, now: Timestamp) -> Option<Self> {
        let (said, seal) = text.strip_prefix(PREFIX)?.split_once('.')?;
        let seal = BASE64.decode(seal).ok()?;
        let right = vault.fingerprint(&[b"git-pass/", said.as_bytes()]);
        aws_lc_rs::constant_time::verify_slices_are_equal(&seal, &right).ok()?;
        let pass: Self = serde_json::from_slice(&BASE64.decode(said).ok()?).ok()?;
        (now < pass.until).then_some(pass)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KeyEncryptionKey;

    #[test]
    fn a_pass_opens_until_it_ends_and_only_as_it_was_written() {
        let vault = Vault::new(KeyEncryptionKey::new([7; 32]));
        let app = "a/b/shop".parse().unwrap();
        let pass = Pass { name: "uid:7".into(), app, until: Timestamp(1_000) };
        let text = pass.write(&vault);
        assert_eq!(Pass::read(&text, &vault, Timestamp(999)), Some(pass));
        assert_eq!(Pass::read(&text, &vault, Timestamp(1_000)), None);
        let other = Vault::new(KeyEncryptionKey::new([8; 32]));
        assert_eq!(Pass::read(&text, &other, Timestamp(0)), None);
        for at in PREFIX.len()..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            // The last digit of each part has bits that mean nothing; base64 refuses those that are set.
            assert_eq!(
                Pass::read(&String::from_utf8(changed).unwrap(), &vault, Timestamp(0)),
                None,
                "byte {at}"
            );
        }
        for text in ["", PREFIX, "berth_git..", "berth_git.e30.e30"] {
            assert_eq!(Pass::read(text, &vault, Timestamp(0)), None);
        }
    }
}
