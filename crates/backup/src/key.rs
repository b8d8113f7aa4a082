//! The key-encryption key on its way from one home to another.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::BackupError;

/// What opens the secrets of a platform, and the token of its owner. It never prints.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyFile {
    format: u32,
    /// The id of the platform.
    pub platform: String,
    kek: String,
    /// The text of the owner's token, if the home had it.
    pub owner_token: Option<String>,
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyFile({})", self.platform)
    }
}

impl KeyFile {
    /// The longest key file.
    pub const MAX: u64 = 4_096;

    /// The file of a platform.
    #[must_use]
    pub fn new(platform: &str, kek: &[u8; 32], owner_token: Option<String>) -> Self {
        Self { format: 1, platform: platform.to_owned(), kek: hex::encode(kek), owner_token }
    }

    /// The text of the file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("it is plain data");
        text.push(b'\n');
        text
    }

    /// Reads what [`KeyFile::encode`] wrote; also the 32 bytes of a home's own `keys/kek`.
    ///
    /// # Errors
    /// When it is neither.
    pub fn decode(text: &[u8]) -> Result<Self, BackupError> {
        if let Ok(kek) = <[u8; 32]>::try_from(text) {
            return Ok(Self::new("", &kek, None));
        }
        let refuse = || BackupError::Foreign("the key file holds no key".to_owned());
        let read: Self = serde_json::from_slice(text).map_err(|_no_key| refuse())?;
        if read.format > 1 {
            return Err(BackupError::Newer { found: read.format });
        }
        read.key().map(|_| read.clone()).ok_or_else(refuse)
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> Option<[u8; 32]> {
        let mut key = [0; 32];
        hex::decode_to_slice(&self.kek, &mut key).ok().map(|()| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_and_does_not_print() {
        let file = KeyFile::new("0123456789abcdef", &[7; 32], Some("berth_x".to_owned()));
        assert_eq!(KeyFile::decode(&file.encode()).unwrap(), file);
        assert_eq!(KeyFile::decode(&[7; 32]).unwrap().key(), Some([7; 32]));
        assert!(!format!("{file:?}").contains("07"));
        for bad in [&b""[..], b"{}", &[7; 31], br#"{"format":1,"platform":"","kek":"zz","owner_token":null}"#]
        {
            KeyFile::decode(bad).unwrap_err();
        }
    }
}
