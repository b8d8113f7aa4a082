//! Which certificate is shown to whom: those of the snapshot, and for hosts below `localhost` one of this machine's own authority.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use berth_certificate::{AUTHORITY, LocalAuthority, Pair, challenge_key};
use berth_clock::Clock;
use berth_routing::{CertificateRoute, ChallengeRoute, Snapshot};
use rustix::fs::{Mode, OFlags, openat};
use rustls::sign::CertifiedKey;

use crate::events;

/// A chain with its key is some kilobytes.
const FILE_MAX: u64 = 256 << 10;
/// So many certificates of the machine's own are kept; beyond it all are made anew, which takes a tenth of a millisecond for each.
const ISSUED_MAX: usize = 4_096;
/// Certificates of the machine's own are made anew when so many seconds of their time are left.
const RENEW_BEFORE: i64 = 7 * 24 * 60 * 60;

/// The certificates of one snapshot, by host.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    /// Looked up by name and never walked, as the table of hosts is.
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By what comes after the asterisk and its dot.
    wild: HashMap<String, Arc<CertifiedKey>>,
    proofs: HashMap<String, Arc<CertifiedKey>>,
    answers: HashMap<String, String>,
}

impl Shown {
    /// The certificate for `host`, in lower case.
    pub(crate) fn of(&self, host: &str) -> Option<&Arc<CertifiedKey>> {
        self.exact.get(host).or_else(|| self.wild.get(host.split_once('.')?.1))
    }

    /// The certificate that proves `host` to an ACME server.
    pub(crate) fn proof(&self, host: &str) -> Option<&Arc<CertifiedKey>> {
        self.proofs.get(host)
    }

    /// What an ACME server is answered that asks for `token`.
    pub(crate) fn answer(&self, token: &str) -> Option<&str> {
        self.answers.get(token).map(String::as_str)
    }

    /// Whether there are none, which spares those who look for one the look.
    pub(crate) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wild.is_empty()
    }
}

/// What was read of the routing directory, over snapshots.
pub(crate) struct Shelf {
    routing: OwnedFd,
    read: BTreeMap<String, Arc<CertifiedKey>>,
    proofs: BTreeMap<String, (String, Arc<CertifiedKey>)>,
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf").field("read", &self.read.keys()).finish_non_exhaustive()
    }
}

impl Shelf {
    pub(crate) fn new(routing: OwnedFd) -> Self {
        Self { routing, read: BTreeMap::new(), proofs: BTreeMap::new() }
    }

    pub(crate) fn routing(&self) -> BorrowedFd<'_> {
        self.routing.as_fd()
    }

    /// Reads what `snapshot` names and was not read yet, and forgets what it does not name. One that cannot be read is left out: its hosts
    /// have no HTTPS then, and everything else goes on.
    pub(crate) fn show(&mut self, snapshot: &Snapshot) -> Shown {
        let mut shown = Shown::default();
        let mut read = BTreeMap::new();
        for route in &snapshot.certificates {
            let known = self.read.remove(&route.id).map_or_else(|| self.read_pair(&route.id), Ok);
            let key = match known {
                Ok(key) => key,
                Err(error) => {
                    events::certificate_unreadable(&route.id, &error);
                    continue;
                }
            };
            for host in &route.hosts {
                let (hosts, name) = match host.0.strip_prefix("*.") {
                    Some(below) => (&mut shown.wild, below),
                    None => (&mut shown.exact, host.0.as_str()),
                };
                hosts.insert(name.to_owned(), Arc::clone(&key));
            }
            read.insert(route.id.clone(), key);
        }
        self.read = read;
        self.prove(&snapshot.challenges, &mut shown);
        shown
    }

    fn prove(&mut self, challenges: &[ChallengeRoute], shown: &mut Shown) {
        let mut proofs = BTreeMap::new();
        for challenge in challenges {
            shown.answers.insert(challenge.token.clone(), challenge.answer.clone());
            let host = &challenge.host.0;
            let made = self.proofs.remove(host).filter(|(answer, _)| *answer == challenge.answer);
            let made = made.map(|(_, key)| Ok(key));
            let made = made.unwrap_or_else(|| challenge_key(host, &challenge.answer).map(Arc::new));
            match made {
                Ok(key) => {
                    shown.proofs.insert(host.clone(), Arc::clone(&key));
                    proofs.insert(host.clone(), (challenge.answer.clone(), key));
                }
                Err(error) => events::certificate_unreadable(host, &io::Error::other(error)),
            }
        }
        self.proofs = proofs;
    }

    fn read_pair(&self, id: &str) -> io::Result<Arc<CertifiedKey>> {
        // A snapshot that was tampered with leads nowhere else.
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "that is the name of no certificate"));
        }
        let text = read(self.routing(), &CertificateRoute::file(id))?;
        let pair = Pair::read(&text, &text).map_err(io::Error::other)?;
        Ok(Arc::new(pair.certified))
    }

    /// The machine's own authority, if control left one.
    pub(crate) fn authority(&self) -> Option<LocalAuthority> {
        match read(self.routing(), AUTHORITY) {
            Ok(text) => LocalAuthority::read(&text)
                .map_err(|error| events::certificate_unreadable(AUTHORITY, &io::Error::other(error)))
                .ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                events::certificate_unreadable(AUTHORITY, &error);
                None
            }
        }
    }
}

fn read(routing: BorrowedFd<'_>, name: &str) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = File::from(openat(routing, name, flags, Mode::empty())?);
    let mut text = String::new();
    file.take(FILE_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Certificates of the machine's own authority, made when the first client asks for one.
#[derive(Debug)]
pub(crate) struct Local {
    authority: LocalAuthority,
    clock: Arc<dyn Clock>,
    /// With the second at which each is made anew.
    issued: Mutex<BTreeMap<String, (i64, Arc<CertifiedKey>)>>,
}

impl Local {
    pub(crate) fn new(authority: LocalAuthority, clock: Arc<dyn Clock>) -> Self {
        Self { authority, clock, issued: Mutex::default() }
    }

    /// The certificate for `host`, of which the caller knows that an app is there.
    pub(crate) fn of(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        let now = i64::try_from(self.clock.now().0 / 1_000).unwrap_or(i64::MAX);
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((until, key)) = issued.get(host)
            && now < *until
        {
            return Some(Arc::clone(key));
        }
        let pair = match self.authority.issue(host, now) {
            Ok(pair) => pair,
            Err(error) => {
                events::certificate_unreadable(host, &io::Error::other(error));
                return None;
            }
        };
        if issued.len() >= ISSUED_MAX {
            issued.clear();
        }
        let key = Arc::new(pair.certified);
        issued.insert(host.to_owned(), (pair.not_after - RENEW_BEFORE, Arc::clone(&key)));
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_routing::{Generation, Host};

    #[test]
    fn what_the_snapshot_names_is_read_once_and_what_cannot_be_read_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("certificates")).unwrap();
        let pair = |names: &[&str]| {
            let key = own(names);
            let id = Pair::read(&key, &key).unwrap().id;
            std::fs::write(folder.path().join(format!("certificates/{id}.pem")), key).unwrap();
            id
        };
        let (own, wild) = (pair(&["shop.com"]), pair(&["*.shop.com"]));
        let route = |id: &str, hosts: &[&str]| CertificateRoute {
            id: id.to_owned(),
            hosts: hosts.iter().map(|host| Host((*host).to_owned())).collect(),
        };
        let snapshot = Snapshot {
            certificates: vec![
                route(&own, &["shop.com"]),
                route(&wild, &["*.shop.com", "www.shop.com"]),
                route("00", &["lost.com"]),
                route("../../etc/passwd", &["evil.com"]),
            ],
            ..Snapshot::new(Generation(1), BTreeMap::new())
        };
        let mut shelf = Shelf::new(File::open(folder.path()).unwrap().into());
        let shown = shelf.show(&snapshot);
        let first = Arc::clone(shown.of("shop.com").unwrap());
        assert!(Arc::ptr_eq(shown.of("a.shop.com").unwrap(), shown.of("www.shop.com").unwrap()));
        for host in ["a.b.shop.com", "lost.com", "evil.com", "com"] {
            assert!(shown.of(host).is_none(), "{host}");
        }
        std::fs::remove_dir_all(folder.path().join("certificates")).unwrap();
        assert!(Arc::ptr_eq(shelf.show(&snapshot).of("shop.com").unwrap(), &first));
        let none = Snapshot::new(Generation(2), BTreeMap::new());
        assert!(shelf.show(&none).is_empty());
        assert!(shelf.show(&snapshot).is_empty(), "it was forgotten");
    }

    fn own(names: &[&str]) -> String {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        format!("{}{}", certificate.pem(), key.serialize_pem())
    }
}
