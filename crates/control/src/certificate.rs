//! Certificates: which there are, which hosts are to have one, and when it is asked for.
//!
//! What an ACME server has to be told and shown is here as data, so that whoever answers for a host, and whoever goes on after a kill, finds it in
//! the journal: the account, the order that has begun, the answer to its challenge. Keys and credentials are sealed; only the server opens them.

use std::collections::{BTreeMap, BTreeSet};

use berth_routing::{CertificateRoute, ChallengeRoute, Host};
use berth_spec::{HostName, Millis, Timestamp};
use serde::{Deserialize, Serialize};

use crate::event::Failure;
use crate::route::serving_hosts;
use crate::state::{App, Life, State};

/// How long is waited after the first failure for a host; twice as long after each further one. Let's Encrypt allows five failures for a host
/// within an hour, of which this takes four.
const FIRST_PAUSE: Millis = Millis::from_secs(5 * 60);
/// No pause is longer.
const LONGEST_PAUSE: Millis = Millis::from_secs(12 * 60 * 60);
/// Names below these are no names of the internet (RFC 6761, 6762, 8375 and 9476; `internal` is ICANN's for private use).
const PRIVATE: [&str; 8] = ["localhost", "local", "internal", "test", "invalid", "alt", "onion", "arpa"];

/// What there is of certificates.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Certificates {
    /// The server that certificates are had from.
    pub acme: Option<Acme>,
    /// Those that there are, by their id.
    pub held: BTreeMap<String, Certificate>,
    /// What was begun for a host.
    pub orders: BTreeMap<HostName, Order>,
    /// What went wrong for a host the last time.
    pub setbacks: BTreeMap<HostName, Setback>,
    /// Hosts for which somebody asked for one now.
    pub asked: BTreeSet<HostName>,
}

/// An ACME server and the account there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acme {
    /// The address of its directory.
    pub directory: String,
    /// The authorities that it is believed by, as PEM, when they are not the machine's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorities: Option<String>,
    /// Whom it writes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// How hosts are proven by edge.
    #[serde(default)]
    pub proof: Proof,
    /// The program that proves hosts by DNS, wildcards at least. The version before does not know of it, and does without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsHook>,
    /// The account's credentials, sealed.
    pub account: String,
}

impl Acme {
    /// Who proves `host`; nobody where it is a wildcard and there is no hook.
    #[must_use]
    pub fn prover(&self, host: &HostName) -> Option<Prover<'_>> {
        match &self.dns {
            Some(hook) if hook.every_host || host.is_wildcard() => Some(Prover::Hook(hook)),
            _ if host.is_wildcard() => None,
            _ => Some(Prover::Edge(self.proof)),
        }
    }
}

/// A program of the operator's that puts records into DNS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsHook {
    /// Its absolute path.
    pub program: String,
    /// How long the servers of the zone may take to tell each other what it wrote.
    pub wait: Millis,
    /// How long it may run.
    pub limit: Millis,
    /// Whether it proves every host, and not wildcards alone. It is no kind of [`Proof`], so that the version before reads this.
    #[serde(default)]
    pub every_host: bool,
}

/// Who shows an ACME server that a host is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prover<'a> {
    /// Edge, where the server connects to the host.
    Edge(Proof),
    /// A program, where it looks the host up (RFC 8555, 8.4).
    Hook(&'a DnsHook),
}

/// How edge shows an ACME server that a host is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Proof {
    /// By an answer at port 80 (RFC 8555, 8.3).
    #[default]
    #[serde(rename = "http-01")]
    Http01,
    /// By a certificate at port 443 (RFC 8737).
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
}

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// SHA-256 of it, in hex.
    pub id: String,
    /// The hosts that it is for.
    pub hosts: BTreeSet<HostName>,
    /// It and those above it, as PEM.
    pub chain: String,
    /// Its key, sealed.
    pub key: String,
    /// From when it is valid.
    pub not_before: Timestamp,
    /// Until when.
    pub not_after: Timestamp,
    /// Who issued it.
    pub issuer: String,
    /// Where it comes from.
    pub origin: Origin,
    /// The directory of the server that gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
}

/// Where a certificate comes from, the one that counts more last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// An ACME server gave it, and will again.
    Acme,
    /// Somebody brought it, and has to bring the next one.
    Uploaded,
}

/// An order at the ACME server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Where the server has it.
    pub address: String,
    /// What edge answers meanwhile; nothing when the host is proven already, or by DNS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<Challenge>,
    /// What stands in DNS meanwhile, to be taken away when the order ends. The version before leaves it there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<DnsRecord>,
}

/// A TXT record that a server looks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsRecord {
    /// Its whole name, with the dot at the end.
    pub name: String,
    /// Its value, as it stands in the record, without quotes.
    pub value: String,
}

/// The name under which a server looks for what proves `host`: the same for a domain and the wildcard below it.
#[must_use]
pub fn record_name(host: &HostName) -> String {
    let host = host.as_str();
    format!("_acme-challenge.{}.", host.strip_prefix("*.").unwrap_or(host))
}

/// What a server looks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// The last part of its path.
    pub token: String,
    /// The answer.
    pub answer: String,
}

/// A host for which there was no certificate to be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setback {
    /// Why.
    pub failure: Failure,
    /// How often in a row.
    pub times: u32,
    /// When.
    pub at: Timestamp,
    /// When it is tried again.
    pub again_at: Timestamp,
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum CertificateChange {
    /// Certificates are had from this server from here on.
    AcmeSet { acme: Acme },
    /// No more certificates are asked for.
    AcmeUnset,
    /// A certificate is there.
    Stored { certificate: Certificate },
    /// One is not any more.
    Removed { id: String },
    /// One is asked for now, whether it is time or not.
    Asked { host: HostName },
    /// An order has begun.
    Ordered { host: HostName, order: Order },
    /// Nobody wants one for the host any more.
    Dropped { host: HostName },
    /// It came to nothing.
    Failed {
        host: HostName,
        failure: Failure,
        at: Timestamp,
        /// Before when the server does not want to be asked again, where it said so. The version before asks sooner.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        not_before: Option<Timestamp>,
    },
}

impl Certificates {
    /// Folds in a change.
    pub(crate) fn apply(&mut self, change: &CertificateChange) {
        match change {
            CertificateChange::AcmeSet { acme } => {
                self.acme = Some(acme.clone());
                // What went wrong with another server, or another proof, says nothing of this one.
                self.setbacks.clear();
                self.orders.clear();
            }
            CertificateChange::AcmeUnset => {
                self.acme = None;
                self.setbacks.clear();
                self.orders.clear();
                self.asked.clear();
            }
            CertificateChange::Stored { certificate } => {
                for host in &certificate.hosts {
                    self.setbacks.remove(host);
                    self.orders.remove(host);
                    self.asked.remove(host);
                }
                let replaces =
                    |it: &Certificate| it.origin == certificate.origin && it.hosts == certificate.hosts;
                self.held.retain(|_, it| !replaces(it));
                self.held.insert(certificate.id.clone(), certificate.clone());
            }
            CertificateChange::Removed { id } => {
                self.held.remove(id);
            }
            CertificateChange::Asked { host } => {
                self.setbacks.remove(host);
                self.asked.insert(host.clone());
            }
            CertificateChange::Ordered { host, order } => {
                self.orders.insert(host.clone(), order.clone());
            }
            CertificateChange::Dropped { host } => {
                self.orders.remove(host);
                self.setbacks.remove(host);
                self.asked.remove(host);
            }
            CertificateChange::Failed { host, failure, at, not_before } => {
                self.orders.remove(host);
                self.asked.remove(host);
                let times = self.setbacks.get(host).map_or(0, |before| before.times).saturating_add(1);
                let again_at = after(*at, times).max(not_before.unwrap_or(*at));
                let setback = Setback { failure: failure.clone(), times, at: *at, again_at };
                self.setbacks.insert(host.clone(), setback);
            }
        }
    }

    /// Whether it would change anything.
    #[must_use]
    pub fn changes(&self, change: &CertificateChange) -> bool {
        match change {
            CertificateChange::AcmeSet { acme } => self.acme.as_ref() != Some(acme),
            CertificateChange::AcmeUnset => self.acme.is_some(),
            CertificateChange::Stored { certificate } => !self.held.contains_key(&certificate.id),
            CertificateChange::Removed { id } => self.held.contains_key(id),
            CertificateChange::Asked { host } => !self.asked.contains(host),
            CertificateChange::Ordered { host, order } => self.orders.get(host) != Some(order),
            CertificateChange::Dropped { host } => {
                self.orders.contains_key(host)
                    || self.setbacks.contains_key(host)
                    || self.asked.contains(host)
            }
            CertificateChange::Failed { .. } => true,
        }
    }

    /// Whether the server that is set could give one for `host`.
    #[must_use]
    pub fn can_ask_for(&self, host: &HostName) -> bool {
        is_public(host) && self.acme.as_ref().is_some_and(|acme| acme.prover(host).is_some())
    }

    /// The certificates by the names that they are for.
    #[must_use]
    pub fn by_name(&self) -> ByName<'_> {
        let mut names: BTreeMap<&str, &Certificate> = BTreeMap::new();
        for certificate in self.held.values() {
            for host in &certificate.hosts {
                let best = names.entry(host.as_str()).or_insert(certificate);
                if rank(best) < rank(certificate) {
                    *best = certificate;
                }
            }
        }
        ByName(names)
    }

    /// When a certificate for `host` is to be asked for: at once when there is none or another server gave it, and when two thirds of the time of the one that there is are
    /// over (as Let's Encrypt advises), or five sixths where it is a wildcard that the host only shares; never when somebody brought it. A failure puts it off.
    #[must_use]
    pub fn due(&self, host: &HostName, by_name: &ByName<'_>) -> Option<Timestamp> {
        let acme = self.acme.as_ref()?;
        if self.asked.contains(host) || self.orders.contains_key(host) {
            return Some(Timestamp(0));
        }
        let wanted = match by_name.of(host) {
            None => Timestamp(0),
            // One of a server for trying out is what no browser takes.
            Some(it) if it.server.as_ref().is_some_and(|server| *server != acme.directory) => Timestamp(0),
            // Who is covered by a wildcard waits for that to be renewed, and asks for one of their own when nobody does.
            Some(it) if it.origin == Origin::Acme && !it.hosts.contains(host) => part(it, 5, 6),
            Some(it) if it.origin == Origin::Acme => renewal(it),
            Some(_) => return None,
        };
        Some(self.setbacks.get(host).map_or(wanted, |setback| wanted.max(setback.again_at)))
    }
}

/// Of two for one name the greater is shown: one that somebody brought rather than one of the server's, then the one that is valid for longer.
fn rank(certificate: &Certificate) -> (Origin, Timestamp, &str) {
    (certificate.origin, certificate.not_after, &certificate.id)
}

/// The certificate that is shown for each name.
#[derive(Debug)]
pub struct ByName<'a>(BTreeMap<&'a str, &'a Certificate>);

impl<'a> ByName<'a> {
    /// The certificate that is shown to who asks for `host`: one for exactly it rather than a wildcard.
    #[must_use]
    pub fn of(&self, host: &HostName) -> Option<&'a Certificate> {
        let exact = self.0.get(host.as_str());
        let wild = || self.0.get(format!("*.{}", host.as_str().split_once('.')?.1).as_str());
        exact.or_else(wild).copied()
    }
}

/// When two thirds of the time of a certificate are over.
#[must_use]
pub fn renewal(certificate: &Certificate) -> Timestamp {
    part(certificate, 2, 3)
}

/// When so many parts of the time of a certificate are over.
fn part(certificate: &Certificate, parts: u64, of: u64) -> Timestamp {
    let (from, to) = (certificate.not_before.0, certificate.not_after.0);
    Timestamp(from + to.saturating_sub(from) / of * parts)
}

/// When a host is tried again that failed so often in a row.
fn after(at: Timestamp, times: u32) -> Timestamp {
    let factor = 1_u64.checked_shl(times.saturating_sub(1)).unwrap_or(u64::MAX);
    let pause = FIRST_PAUSE.0.saturating_mul(factor).min(LONGEST_PAUSE.0);
    Timestamp(at.0.saturating_add(pause))
}

/// Whether an ACME server of the internet could give a certificate for it.
#[must_use]
pub fn is_public(host: &HostName) -> bool {
    let last = host.as_str().rsplit('.').next().unwrap_or_default();
    host.as_str().contains('.') && !PRIVATE.contains(&last)
}

/// The hosts of an app that are to have a certificate.
fn hosts_of(app: &App) -> impl Iterator<Item = HostName> {
    serving_hosts(app).into_iter().filter_map(|host| host.parse().ok())
}

/// The public hosts of all apps that can be proven: nobody else's name is ever asked for.
#[must_use]
pub fn wanted(state: &State) -> BTreeSet<HostName> {
    let certificates = &state.platform.certificates;
    let alive = state.apps.values().filter(|app| app.life == Life::Alive);
    alive.flat_map(|app| hosts_of(app)).filter(|host| certificates.can_ask_for(host)).collect()
}

/// The certificates as edge is told of them: which is shown for which host. A host of no app has none.
#[must_use]
pub fn routes(state: &State) -> Vec<CertificateRoute> {
    let certificates = &state.platform.certificates;
    if certificates.held.is_empty() {
        return Vec::new();
    }
    let by_name = certificates.by_name();
    let mut shown: BTreeMap<&str, Vec<Host>> = BTreeMap::new();
    let alive = state.apps.values().filter(|app| app.life == Life::Alive);
    for host in alive.flat_map(|app| hosts_of(app)).collect::<BTreeSet<HostName>>() {
        if let Some(certificate) = by_name.of(&host) {
            shown.entry(&certificate.id).or_default().push(Host(host.as_str().to_owned()));
        }
    }
    shown.into_iter().map(|(id, hosts)| CertificateRoute { id: id.to_owned(), hosts }).collect()
}

/// What edge answers to an ACME server.
#[must_use]
pub fn challenges(state: &State) -> Vec<ChallengeRoute> {
    let orders = &state.platform.certificates.orders;
    let open = orders.iter().filter_map(|(host, order)| Some((host, order.challenge.as_ref()?)));
    let route = |(host, challenge): (&HostName, &Challenge)| ChallengeRoute {
        host: Host(host.as_str().to_owned()),
        token: challenge.token.clone(),
        answer: challenge.answer.clone(),
    };
    open.map(route).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scene::Scene;

    const DAY: u64 = 24 * 60 * 60 * 1_000;

    fn host(text: &str) -> HostName {
        text.parse().unwrap()
    }

    fn certificate(id: &str, hosts: &[&str], origin: Origin, days: u64) -> Certificate {
        Certificate {
            id: id.to_owned(),
            hosts: hosts.iter().map(|text| host(text)).collect(),
            chain: "PEM".to_owned(),
            key: "sealed".to_owned(),
            not_before: Timestamp(0),
            not_after: Timestamp(days * DAY),
            issuer: "Tests".to_owned(),
            origin,
            server: (origin == Origin::Acme).then(|| SERVER.to_owned()),
        }
    }

    const SERVER: &str = "https://acme.example/directory";

    fn acme() -> CertificateChange {
        let directory = SERVER.to_owned();
        let acme = Acme {
            directory,
            authorities: None,
            email: None,
            proof: Proof::Http01,
            dns: None,
            account: "sealed".to_owned(),
        };
        CertificateChange::AcmeSet { acme }
    }

    fn hook(every_host: bool) -> DnsHook {
        let program = "/etc/berth/dns".to_owned();
        DnsHook { program, wait: Millis(0), limit: Millis(1_000), every_host }
    }

    fn failed(at: u64) -> CertificateChange {
        let failure = Failure::new("certificate_refused", "the server refused");
        CertificateChange::Failed { host: host("shop.com"), failure, at: Timestamp(at), not_before: None }
    }

    fn due(certificates: &Certificates, host: &HostName) -> Option<Timestamp> {
        certificates.due(host, &certificates.by_name())
    }

    fn after_all(changes: &[CertificateChange]) -> Certificates {
        let mut certificates = Certificates::default();
        for change in changes {
            assert!(certificates.changes(change), "{change:?}");
            certificates.apply(change);
        }
        certificates
    }

    fn stored(certificate: Certificate) -> CertificateChange {
        CertificateChange::Stored { certificate }
    }

    #[test]
    fn the_nearest_certificate_is_shown_and_the_one_that_somebody_brought_wins() {
        let held = after_all(&[
            stored(certificate("wild", &["*.shop.com"], Origin::Uploaded, 900)),
            stored(certificate("acme", &["www.shop.com"], Origin::Acme, 90)),
        ]);
        let shown = |certificates: &Certificates, name: &str| {
            certificates.by_name().of(&host(name)).map(|it| it.id.clone())
        };
        assert_eq!(shown(&held, "www.shop.com").as_deref(), Some("acme"));
        assert_eq!(shown(&held, "api.shop.com").as_deref(), Some("wild"));
        assert_eq!(shown(&held, "shop.com"), None);
        let mut held = held;
        held.apply(&stored(certificate("own", &["www.shop.com"], Origin::Uploaded, 10)));
        assert_eq!(shown(&held, "www.shop.com").as_deref(), Some("own"));
        held.apply(&stored(certificate("newer", &["www.shop.com"], Origin::Uploaded, 20)));
        assert_eq!(shown(&held, "www.shop.com").as_deref(), Some("newer"));
        assert!(!held.held.contains_key("own"), "it was replaced");
    }

    #[test]
    fn a_certificate_is_due_at_once_then_after_two_thirds_of_its_time() {
        let shop = host("shop.com");
        assert_eq!(due(&Certificates::default(), &shop), None, "there is no server");
        let mut held = after_all(&[acme()]);
        assert_eq!(due(&held, &shop), Some(Timestamp(0)));
        held.apply(&stored(certificate("a", &["shop.com"], Origin::Acme, 90)));
        assert_eq!(due(&held, &shop), Some(Timestamp(60 * DAY)));
        let mut elsewhere = held.clone();
        elsewhere.acme.as_mut().unwrap().directory = "https://other.example/directory".to_owned();
        assert_eq!(due(&elsewhere, &shop), Some(Timestamp(0)), "another server is asked at once");
        held.apply(&CertificateChange::Asked { host: shop.clone() });
        assert_eq!(due(&held, &shop), Some(Timestamp(0)));
        held.apply(&stored(certificate("b", &["shop.com"], Origin::Uploaded, 9)));
        assert_eq!(due(&held, &shop), None, "whoever brought it has to bring the next");
    }

    #[test]
    fn failures_put_it_off_for_longer_and_longer_until_it_is_asked_for() {
        let shop = host("shop.com");
        let mut held = after_all(&[acme()]);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            held.apply(&failed(1_000));
            pauses.push((due(&held, &shop).unwrap().0 - 1_000) / 60_000);
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 720, 720]);
        held.apply(&CertificateChange::Asked { host: shop.clone() });
        assert_eq!(due(&held, &shop), Some(Timestamp(0)));
        held.apply(&failed(0));
        assert_eq!(held.setbacks[&shop].times, 1);
        held.apply(&acme());
        assert!(held.setbacks.is_empty(), "another account is another try");
    }

    #[test]
    fn an_order_is_gone_on_with_until_it_ends() {
        let (shop, address) = (host("shop.com"), "https://acme.example/order/1".to_owned());
        let challenge = Some(Challenge { token: "t".to_owned(), answer: "t.k".to_owned() });
        let order = Order { address, challenge, record: None };
        let order = CertificateChange::Ordered { host: shop.clone(), order };
        let mut held = after_all(&[acme(), order.clone()]);
        assert!(!held.changes(&order));
        assert_eq!(due(&held, &shop), Some(Timestamp(0)));
        held.apply(&failed(7));
        assert!(held.orders.is_empty());
    }

    #[test]
    fn names_of_no_network_are_asked_of_nobody() {
        for name in ["shop.localhost", "printer.local", "api.internal", "*.shop.test", "shop.test", "host"] {
            assert!(!is_public(&host(name)), "{name}");
        }
        assert!(is_public(&host("shop.com")) && is_public(&host("xn--bcher-kva.example")));
    }

    #[test]
    fn a_wildcard_is_asked_for_where_a_program_writes_to_dns() {
        let (shop, wild) = (host("shop.com"), host("*.shop.com"));
        assert!(!Certificates::default().can_ask_for(&shop), "there is no server");
        let mut held = after_all(&[acme()]);
        assert!(held.can_ask_for(&shop) && !held.can_ask_for(&wild));
        let prover = |held: &Certificates, host: &HostName| {
            matches!(held.acme.as_ref().unwrap().prover(host), Some(Prover::Hook(_)))
        };
        held.acme.as_mut().unwrap().dns = Some(hook(false));
        assert!(held.can_ask_for(&wild) && !held.can_ask_for(&host("*.shop.test")));
        assert!(prover(&held, &wild) && !prover(&held, &shop));
        held.acme.as_mut().unwrap().dns = Some(hook(true));
        assert!(prover(&held, &wild) && prover(&held, &shop));
        assert_eq!(record_name(&wild), "_acme-challenge.shop.com.");
        assert_eq!(record_name(&wild), record_name(&shop));
    }

    #[test]
    fn who_shares_a_wildcard_waits_for_it_to_be_renewed() {
        let held = after_all(&[acme(), stored(certificate("wild", &["*.shop.com"], Origin::Acme, 90))]);
        assert_eq!(due(&held, &host("*.shop.com")), Some(Timestamp(60 * DAY)));
        assert_eq!(due(&held, &host("www.shop.com")), Some(Timestamp(75 * DAY)));
    }

    #[test]
    fn a_server_that_says_when_is_not_asked_before() {
        let shop = host("shop.com");
        let mut held = after_all(&[acme()]);
        let CertificateChange::Failed { host, failure, at, .. } = failed(1_000) else { unreachable!() };
        let not_before = Some(Timestamp(DAY));
        held.apply(&CertificateChange::Failed { host, failure, at, not_before });
        assert_eq!(due(&held, &shop), Some(Timestamp(DAY)));
        // One that is over already shortens nothing.
        held.apply(&failed(2 * DAY));
        assert_eq!(due(&held, &shop), Some(Timestamp(2 * DAY + 10 * 60_000)));
    }

    #[test]
    fn a_host_that_no_app_has_is_neither_wanted_nor_shown() {
        let scene = Scene::serving(&["web"], 1, None);
        let mut state = scene.state.clone();
        let platform = std::sync::Arc::make_mut(&mut state.platform);
        platform.certificates.apply(&stored(certificate(
            "a",
            &["shop.com", "shop.localhost"],
            Origin::Uploaded,
            9,
        )));
        let hosts =
            |route: &CertificateRoute| route.hosts.iter().map(|host| host.0.clone()).collect::<Vec<_>>();
        assert_eq!(routes(&state).iter().map(hosts).collect::<Vec<_>>(), [["shop.localhost"]]);
        assert!(wanted(&state).is_empty());
    }
}
