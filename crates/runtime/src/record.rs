//! `start.json`: what is known of an instance when nobody is left to ask.
//!
//! It is written before anything of the instance is made, so that nothing that was made can be forgotten. The names of
//! the socket and the control group follow from the token. It holds no environment: that has secrets.
//!
//! Nothing waits for the disk: whoever is killed has written what he has written, and a power cut that takes a record with it takes the
//! instance too. What it leaves of it is no record, or an empty one.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use berth_process::{BootId, Identity, Mark};
use berth_shim::config::Network;
use berth_spec::manifest::Alias;
use berth_spec::{AppName, InstanceId};
use serde::{Deserialize, Serialize};

/// The greatest format that this version reads. It writes the least one that has what it says, so that a version before it adopts what it
/// can and replaces what it would not know how to reach.
const FORMAT: u32 = 2;
const NAME: &str = "start.json";

/// The record of a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StartRecord {
    pub(crate) id: InstanceId,
    pub(crate) token: Mark,
    pub(crate) boot: BootId,
    pub(crate) port: Option<u16>,
    pub(crate) network: Network,
    /// What it also calls other apps of its project.
    pub(crate) aliases: BTreeMap<Alias, AppName>,
    /// The shim, once it has been started; a hint that saves a search.
    pub(crate) shim: Option<Identity>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    id: InstanceId,
    token: String,
    boot: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    /// Since format 2.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    own_network: bool,
    /// A version that does not know of it changes no names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    aliases: BTreeMap<Alias, AppName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shim: Option<StoredProcess>,
}

#[derive(Serialize, Deserialize)]
struct StoredProcess {
    pid: u32,
    starttime: u64,
}

impl StartRecord {
    /// Writes the record into `folder`, in one step for whoever reads it.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        let stored = Stored {
            format: if self.network == Network::Own { 2 } else { 1 },
            id: self.id.clone(),
            token: self.token.to_string(),
            boot: self.boot.to_string(),
            port: self.port,
            own_network: self.network == Network::Own,
            aliases: self.aliases.clone(),
            shim: self.shim.as_ref().map(|shim| StoredProcess { pid: shim.pid, starttime: shim.starttime }),
        };
        let temporary = folder.join("start.json.new");
        fs::write(&temporary, serde_json::to_vec(&stored)?)?;
        fs::rename(&temporary, folder.join(NAME))
    }

    /// The record in `folder`, `None` when there is none, or what a power cut left of one: no bytes, or none but zeros.
    pub(crate) fn read(folder: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read(folder.join(NAME)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        if text.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        Self::parse(&text).map(Some)
    }

    fn parse(text: &[u8]) -> io::Result<Self> {
        let stored: Stored = serde_json::from_slice(text)?;
        let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        if stored.format > FORMAT {
            return Err(wrong("start.json was written by a later version"));
        }
        let token =
            parse_token(&stored.token).ok_or_else(|| wrong("the token is not 32 hexadecimal digits"))?;
        let boot: BootId = stored.boot.parse().unwrap_or_else(|never| match never {});
        let shim =
            stored.shim.map(|shim| Identity { boot: boot.clone(), pid: shim.pid, starttime: shim.starttime });
        let network = if stored.own_network { Network::Own } else { Network::Host };
        let aliases = stored.aliases;
        Ok(Self { id: stored.id, token, boot, port: stored.port, network, aliases, shim })
    }
}

fn parse_token(text: &str) -> Option<Mark> {
    let digits: Vec<u8> = text
        .bytes()
        .map(|byte| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> =
        digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
    (text.len() == 32).then(|| bytes.try_into().ok().map(Mark))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_and_a_later_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(StartRecord::read(dir.path()).unwrap(), None);
        let boot = BootId::current().unwrap();
        let record = StartRecord {
            id: "default/default/shop/web.7".parse().unwrap(),
            token: Mark([0x5A; 16]),
            boot: boot.clone(),
            port: Some(20_001),
            network: Network::Own,
            aliases: [("db".parse().unwrap(), AppName::new("shop-db").unwrap())].into(),
            shim: Some(Identity { boot, pid: 7, starttime: 9 }),
        };
        record.write(dir.path()).unwrap();
        assert_eq!(StartRecord::read(dir.path()).unwrap(), Some(record));
        let path = dir.path().join(NAME);
        let later = fs::read_to_string(&path).unwrap().replace("\"format\":2", "\"format\":3");
        fs::write(&path, later).unwrap();
        assert!(StartRecord::read(dir.path()).is_err());
        for left in [vec![], vec![0; 200]] {
            fs::write(&path, left).unwrap();
            assert_eq!(StartRecord::read(dir.path()).unwrap(), None);
        }
    }

    #[test]
    fn a_torn_or_foreign_record_is_an_error() {
        for bad in ["", "{", "{}", r#"{"format":1,"id":"a/b/c/web.1","token":"zz","boot":""}"#] {
            assert!(StartRecord::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(parse_token("ä"), None);
    }

    /// A record as the first version wrote it.
    #[test]
    fn the_first_format_is_read() {
        let first = r#"{"format":1,"id":"t/p/a/web.1","token":"000102030405060708090a0b0c0d0e0f","boot":"b","port":20000,"shim":{"pid":1,"starttime":2}}"#;
        let record = StartRecord::parse(first.as_bytes()).unwrap();
        assert_eq!((record.port, record.token.0[15]), (Some(20_000), 15));
        assert_eq!((record.network, record.shim.unwrap().pid), (Network::Host, 1));
    }
}
