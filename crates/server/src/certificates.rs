//! Keeps every public host in a certificate: asks the ACME server when one is due, has edge or the operator's program prove the host, keeps what
//! comes.
//!
//! What was begun is in the journal, so that a control that was killed in the middle is followed by one that goes on with the same order. Nothing here
//! decides when a certificate is due: [`berth_control::certificate`] does.

pub(crate) mod hook;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use berth_certificate::acme::{self, AcmeError, Client, Issued, Server};
use berth_certificate::{Pair, RenewalName};
use berth_clock::Clock;
use berth_contract::Code;
use berth_control::certificate::{
    Acme, Certificate, CertificateChange, Challenge, DnsHook, DnsRecord, Order, Origin, Proof, Prover,
    record_name, wanted,
};
use berth_control::command::Command;
use berth_control::event::Failure;
use berth_spec::{HostName, Timestamp};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::certificates::hook::Deed;
use crate::desk::{Asker, Desk};
use crate::edge_link::EdgeLink;
use crate::events;
use crate::secrets::Vault;

/// So many orders are under way at a time: servers of the internet allow more, and nobody waits for the fifth app's certificate so long.
const AT_ONCE: usize = 4;
/// How long edge may take until it answers a challenge.
const EDGE_PATIENCE: Duration = Duration::from_secs(30);
/// The wall clock may be set: what is due is looked for at least so often.
const LOOK: Duration = Duration::from_secs(60);
/// How long what changes is let settle before all hosts are looked at.
const SETTLE: Duration = Duration::from_millis(200);
/// How often a server is asked when it would have a certificate renewed, unless it says how often.
const ASK_EVERY: Duration = Duration::from_secs(6 * 60 * 60);
/// What the account's credentials are sealed for.
pub(crate) const ACCOUNT_LABEL: &str = "acme:account";

/// What the key of a certificate is sealed for.
pub(crate) fn key_label(id: &str) -> String {
    format!("certificate:{id}")
}

/// A pair as the journal keeps it: had from an ACME server, or brought by somebody.
pub(crate) fn certificate_of(
    pair: &Pair,
    chain: &str,
    key: &str,
    server: Option<&str>,
    vault: &Vault,
    clock: &dyn Clock,
) -> Certificate {
    let at = |seconds: i64| Timestamp(u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000));
    Certificate {
        id: pair.id.clone(),
        // What is no host that an app could have is of no use here.
        hosts: pair.names.iter().filter_map(|name| name.parse().ok()).collect(),
        chain: chain.to_owned(),
        key: vault.seal_text(clock, &key_label(&pair.id), key),
        not_before: at(pair.not_before),
        not_after: at(pair.not_after),
        issuer: pair.issuer.clone(),
        origin: if server.is_some() { Origin::Acme } else { Origin::Uploaded },
        server: server.map(str::to_owned),
    }
}

/// The server of the settings.
pub(crate) fn server_of(acme: &Acme) -> Server {
    Server { directory: acme.directory.clone(), authorities: acme.authorities.clone() }
}

/// An ACME server's no as a failure with a code.
pub(crate) fn failure_of(error: &AcmeError, prover: Prover<'_>) -> Failure {
    let code = match error {
        AcmeError::Unreachable { .. } => Code::AcmeUnreachable,
        AcmeError::Refused { .. }
        | AcmeError::NoProof { .. }
        | AcmeError::Address(_)
        | AcmeError::Credentials
        | AcmeError::Authorities(_)
        | AcmeError::Make(_) => Code::AcmeRefused,
    };
    let next = match (error, prover) {
        (AcmeError::Refused { rate_limited: true, .. }, _) => {
            "the server asks to come more seldom: it is tried again later"
        }
        (AcmeError::Refused { .. }, Prover::Edge(Proof::Http01)) => {
            "the host's DNS record has to name this machine, and port 80 has to reach it"
        }
        (AcmeError::Refused { .. }, Prover::Edge(Proof::TlsAlpn01)) => {
            "the host's DNS record has to name this machine, and port 443 has to reach it"
        }
        (AcmeError::Refused { .. }, Prover::Hook(_)) => {
            "the DNS hook has to write the record that it is told, and `--dns-wait` to be as long as the zone's servers take"
        }
        _ => "`berth certs` shows when it is tried again; `berth certs renew HOST` tries at once",
    };
    Failure { next: Some(next.to_owned()), ..Failure::new(code.as_str(), error.to_string()) }
}

struct Keeper {
    /// Where no hook may lie.
    home: PathBuf,
    desk: Desk,
    edge: Arc<EdgeLink>,
    vault: Arc<Vault>,
    clock: Arc<dyn Clock>,
    /// The account that was opened last, with the sealed credentials that it was opened by.
    client: Mutex<Option<(String, Arc<Client>)>>,
}

/// Why there is no certificate, and before when the server does not want to be asked again.
struct Miss {
    failure: Box<Failure>,
    not_before: Option<Timestamp>,
}

impl From<Failure> for Miss {
    fn from(failure: Failure) -> Self {
        Self { failure: Box::new(failure), not_before: None }
    }
}

/// When a server would have a certificate renewed, and when it wants to be asked again.
#[derive(Debug, Clone, Copy)]
struct Window {
    renew_at: Timestamp,
    ask_at: Timestamp,
}

impl Window {
    /// What is known once the server was asked: what it `said`, or what it said `before` where it could not be asked this time.
    fn heard(said: Option<(i64, i64, Duration)>, before: Option<Self>, id: &str, now: Timestamp) -> Self {
        let unsaid = before.map_or(Timestamp(u64::MAX), |window| window.renew_at);
        let (renew_at, again) =
            said.map_or((unsaid, ASK_EVERY), |(from, to, again)| (within(from, to, id), again.max(LOOK)));
        let again = u64::try_from(again.as_millis()).unwrap_or(u64::MAX);
        Self { renew_at, ask_at: Timestamp(now.0.saturating_add(again)) }
    }

    /// When a certificate is asked for that by its age is due at `due`: sooner where the server wants that, but not before `again_at` after a failure.
    fn due(self, due: Timestamp, again_at: Option<Timestamp>) -> Timestamp {
        due.min(again_at.map_or(self.renew_at, |again_at| self.renew_at.max(again_at)))
    }
}

/// Something that was begun has ended.
enum Ended {
    /// An order for a host.
    Order(HostName),
    /// A question when a certificate is to be renewed.
    Window(String, Window),
}

/// Works until the task is dropped.
pub(crate) async fn keep(
    desk: Desk,
    edge: Arc<EdgeLink>,
    vault: Arc<Vault>,
    clock: Arc<dyn Clock>,
    home: PathBuf,
) {
    let keeper = Arc::new(Keeper { home, desk, edge, vault, clock, client: Mutex::default() });
    let mut durable = keeper.desk.durable();
    let mut working: JoinSet<Ended> = JoinSet::new();
    let mut under_way: BTreeSet<HostName> = BTreeSet::new();
    let mut windows: BTreeMap<String, Window> = BTreeMap::new();
    let mut asking = false;
    loop {
        durable.borrow_and_update();
        keeper.drop_unwanted(&mut under_way, &mut working);
        if !asking {
            asking = keeper.ask_for_a_window(&mut windows, &mut working);
        }
        let next = keeper.begin_what_is_due(&windows, &mut under_way, &mut working);
        tokio::select! {
            changed = durable.changed() => {
                if changed.is_err() {
                    return;
                }
                // Much may change at once, and all hosts are looked at for it.
                tokio::time::sleep(SETTLE).await;
            }
            Some(ended) = working.join_next() => match ended {
                Ok(Ended::Order(host)) => drop(under_way.remove(&host)),
                Ok(Ended::Window(id, window)) => {
                    asking = false;
                    windows.insert(id, window);
                }
                Err(error) => {
                    tracing::error!(%error, "an order for a certificate has panicked");
                    std::process::abort();
                }
            },
            () = tokio::time::sleep(next) => {}
        }
    }
}

impl Keeper {
    /// Begins orders for hosts that are due, as many as may be under way, and says for how long nothing else is due.
    fn begin_what_is_due(
        self: &Arc<Self>,
        windows: &BTreeMap<String, Window>,
        under_way: &mut BTreeSet<HostName>,
        working: &mut JoinSet<Ended>,
    ) -> Duration {
        let now = self.clock.now();
        let (by_dns, due) = self.desk.read(|state| {
            let certificates = &state.platform.certificates;
            let by_dns = certificates.acme.as_ref().is_some_and(|acme| acme.dns.is_some());
            let by_name = certificates.by_name();
            let of = |host: HostName| {
                let due = certificates.due(&host, &by_name)?;
                let own = by_name.of(&host).filter(|it| it.hosts.contains(&host));
                let window = own.and_then(|it| windows.get(&it.id));
                let again_at = certificates.setbacks.get(&host).map(|setback| setback.again_at);
                Some((window.map_or(due, |window| window.due(due, again_at)), host))
            };
            (by_dns, wanted(state).into_iter().filter_map(of).collect::<Vec<(Timestamp, HostName)>>())
        });
        let mut next = LOOK;
        for (at, host) in due {
            // A domain and the wildcard below it have their records under one name, which a simple hook may take for one record.
            let name_taken = || by_dns && under_way.iter().any(|it| record_name(it) == record_name(&host));
            if at > now {
                next = next.min(Duration::from_millis(at.0 - now.0));
            } else if name_taken() {
                // The end of what is under way is another look.
            } else if under_way.len() < AT_ONCE && under_way.insert(host.clone()) {
                let keeper = Arc::clone(self);
                working.spawn(async move {
                    keeper.have(&host).await;
                    Ended::Order(host)
                });
            }
        }
        next
    }

    /// Has a certificate for `host`, or writes down why not.
    async fn have(&self, host: &HostName) {
        let settings = self.desk.read(|state| {
            let certificates = &state.platform.certificates;
            let acme = certificates.acme.clone()?;
            let own =
                |it: &&Certificate| it.server.as_ref() == Some(&acme.directory) && it.hosts.contains(host);
            let replaced = certificates.by_name().of(host).filter(own);
            Some((acme, certificates.orders.get(host).cloned(), replaced.map(|it| it.chain.clone())))
        });
        let Some((acme, order, replaced)) = settings else { return };
        let replaced = replaced.and_then(|chain| RenewalName::of_chain(&chain));
        let change = match self.order(host, &acme, order, replaced.as_ref()).await {
            Ok(Some(certificate)) => CertificateChange::Stored { certificate },
            // Another account was set meanwhile; the next round goes by that.
            Ok(None) => return,
            Err(Miss { failure, not_before }) => {
                let (host, failure) = (host.clone(), *failure);
                CertificateChange::Failed { host, failure, at: self.clock.now(), not_before }
            }
        };
        self.write(change).await;
    }

    async fn order(
        &self,
        host: &HostName,
        acme: &Acme,
        begun: Option<Order>,
        replaced: Option<&RenewalName>,
    ) -> Result<Option<Certificate>, Miss> {
        // A change of the settings drops the orders with them.
        let Some(prover) = acme.prover(host) else { return Ok(None) };
        let missed = |error: AcmeError| self.miss(&error, prover);
        let proof = match prover {
            Prover::Edge(Proof::Http01) => acme::Proof::Http,
            Prover::Edge(Proof::TlsAlpn01) => acme::Proof::TlsAlpn,
            Prover::Hook(_) => acme::Proof::Dns,
        };
        let client = self.client(acme).await.map_err(missed)?;
        let mut resumed = match &begun {
            // An order that the server has forgotten is begun anew.
            Some(order) => client.resume(host.as_str(), &order.address).await.ok(),
            None => None,
        };
        if resumed.as_mut().is_some_and(|order| !order.is_open()) {
            resumed = None;
        }
        let left = begun.and_then(|order| order.record);
        if let (None, Some(record), Prover::Hook(hook)) = (&resumed, &left, prover) {
            self.clean_up(hook, record).await;
        }
        let mut order = match resumed {
            Some(order) => order,
            None => client.order(host.as_str(), replaced).await.map_err(missed)?,
        };
        let challenge = order.challenge(proof).await.map_err(missed)?;
        let address = order.address().to_owned();
        let issued = match prover {
            Prover::Edge(_) => {
                let challenge = challenge.map(|it| Challenge { token: it.token, answer: it.answer });
                self.have_edge_answer(host, Order { address, challenge, record: None }).await?;
                order.finish(proof).await.map_err(missed)
            }
            Prover::Hook(hook) => {
                let record = challenge.map(|it| DnsRecord { name: record_name(host), value: it.answer });
                // An order that is gone on with may be proven already, with its record still there.
                let record = record.or(left);
                let ordered = Order { address, challenge: None, record: record.clone() };
                self.write(CertificateChange::Ordered { host: host.clone(), order: ordered }).await;
                let issued = match &record {
                    Some(record) => self.finish_by_dns(&mut order, hook, record).await,
                    None => order.finish(proof).await.map_err(missed),
                };
                if let Some(record) = &record {
                    self.clean_up(hook, record).await;
                }
                issued
            }
        };
        self.taken(host, acme, issued?)
    }

    fn miss(&self, error: &AcmeError, prover: Prover<'_>) -> Miss {
        let again_in = match error {
            AcmeError::Refused { again_in, .. } => *again_in,
            _ => None,
        };
        let until = |pause: Duration| {
            let pause = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
            Timestamp(self.clock.now().0.saturating_add(pause))
        };
        let failure = Box::new(failure_of(error, prover));
        Miss { failure, not_before: again_in.map(until) }
    }

    /// Writes the order down, and waits until edge answers for it.
    async fn have_edge_answer(&self, host: &HostName, order: Order) -> Result<(), Failure> {
        let token = order.challenge.as_ref().map(|challenge| challenge.token.clone());
        self.write(CertificateChange::Ordered { host: host.clone(), order }).await;
        // A host that the server remembers has nothing to be answered.
        if let Some(token) = token
            && !self.edge.answers(&token, EDGE_PATIENCE).await
        {
            let summary = "edge did not take the challenge over in time";
            return Err(Failure::new(Code::EdgeUnresponsive.as_str(), summary));
        }
        Ok(())
    }

    /// Has the record written, waits as long as its way may take, and has the server look.
    async fn finish_by_dns(
        &self,
        order: &mut acme::Order,
        hook: &DnsHook,
        record: &DnsRecord,
    ) -> Result<Issued, Miss> {
        hook::run(hook, Deed::Present, record, &self.home, &self.clock)
            .await
            .map_err(|error| error.failure(hook))?;
        tokio::time::sleep(hook.wait.as_duration()).await;
        order.finish(acme::Proof::Dns).await.map_err(|error| self.miss(&error, Prover::Hook(hook)))
    }

    /// Has the record taken away. One that stays is no harm: nobody looks for its value again.
    async fn clean_up(&self, hook: &DnsHook, record: &DnsRecord) {
        if let Err(error) = hook::run(hook, Deed::Cleanup, record, &self.home, &self.clock).await {
            events::dns_record_left(&record.name, &error.failure(hook));
        }
    }

    /// What came as a certificate, if the account is still the one that it was asked of.
    fn taken(&self, host: &HostName, acme: &Acme, issued: Issued) -> Result<Option<Certificate>, Miss> {
        let Issued { chain, key } = issued;
        let still = self.desk.read(|state| state.platform.certificates.acme.as_ref() == Some(acme));
        if !still {
            return Ok(None);
        }
        let unusable = |why: String| Failure::new(Code::CertificateInvalid.as_str(), why);
        let pair = Pair::read(&chain, &key).map_err(|error| unusable(error.to_string()))?;
        if !pair.names.contains(host.as_str()) {
            return Err(unusable(format!("the server gave a certificate that is not for {host}")).into());
        }
        Ok(Some(certificate_of(&pair, &chain, &key, Some(&acme.directory), &self.vault, &*self.clock)))
    }

    /// The client of the account that is set.
    async fn client(&self, acme: &Acme) -> Result<Arc<Client>, AcmeError> {
        let mut held = self.client.lock().await;
        if let Some((account, client)) = &*held
            && *account == acme.account
        {
            return Ok(Arc::clone(client));
        }
        let credentials =
            self.vault.open_text(ACCOUNT_LABEL, &acme.account).map_err(|_unsealed| AcmeError::Credentials)?;
        let client = Arc::new(Client::open(&server_of(acme), &credentials).await?);
        *held = Some((acme.account.clone(), Arc::clone(&client)));
        Ok(client)
    }

    /// Asks the server when it would have one of its certificates renewed, where it is time to ask; gives whether it does.
    fn ask_for_a_window(
        self: &Arc<Self>,
        windows: &mut BTreeMap<String, Window>,
        working: &mut JoinSet<Ended>,
    ) -> bool {
        let now = self.clock.now();
        let asked = self.desk.read(|state| {
            let certificates = &state.platform.certificates;
            windows.retain(|id, _| certificates.held.contains_key(id));
            let acme = certificates.acme.as_ref()?;
            let mut held =
                certificates.held.values().filter(|it| it.server.as_ref() == Some(&acme.directory));
            let due = held.find(|it| windows.get(&it.id).is_none_or(|window| window.ask_at <= now))?;
            Some((acme.clone(), due.id.clone(), due.chain.clone()))
        });
        let Some((acme, id, chain)) = asked else { return false };
        let (keeper, before) = (Arc::clone(self), windows.get(&id).copied());
        working.spawn(async move {
            let said = keeper.window(&acme, &chain).await;
            let window = Window::heard(said, before, &id, keeper.clock.now());
            Ended::Window(id, window)
        });
        true
    }

    /// What [`Client::renewal`] says of a certificate; nothing where the server cannot be asked, either.
    async fn window(&self, acme: &Acme, chain: &str) -> Option<(i64, i64, Duration)> {
        let name = RenewalName::of_chain(chain)?;
        self.client(acme).await.ok()?.renewal(&name).await
    }

    /// Ends orders for hosts that no app has any more: edge stops to answer for them, and what stands in DNS goes.
    fn drop_unwanted(self: &Arc<Self>, under_way: &mut BTreeSet<HostName>, working: &mut JoinSet<Ended>) {
        let unwanted: Vec<(HostName, Option<(DnsHook, DnsRecord)>)> = self.desk.read(|state| {
            let certificates = &state.platform.certificates;
            let known =
                certificates.orders.keys().chain(certificates.setbacks.keys()).chain(&certificates.asked);
            let known: BTreeSet<&HostName> = known.filter(|host| !under_way.contains(*host)).collect();
            if known.is_empty() {
                return Vec::new();
            }
            let wanted = wanted(state);
            let hook = certificates.acme.as_ref().and_then(|acme| acme.dns.as_ref());
            let left = |host| hook.cloned().zip(certificates.orders.get(host)?.record.clone());
            let unwanted = known.into_iter().filter(|host| !wanted.contains(*host));
            unwanted.map(|host| (host.clone(), left(host))).collect()
        });
        for (host, left) in unwanted {
            under_way.insert(host.clone());
            let keeper = Arc::clone(self);
            working.spawn(async move {
                if let Some((hook, record)) = left {
                    keeper.clean_up(&hook, &record).await;
                }
                keeper.write(CertificateChange::Dropped { host: host.clone() }).await;
                Ended::Order(host)
            });
        }
    }

    /// Writes a change down.
    async fn write(&self, change: CertificateChange) {
        let command = Command::ChangeCertificates { change: Box::new(change) };
        if let Err(error) = self.desk.submit(command, Asker::platform("certificates"), None, None).await {
            // The same is found to be due again, and tried again then.
            events::could_not("write down what became of a certificate", &error);
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// A moment between two, in seconds since 1970, that is always the same for one certificate and another for the next: servers ask for it to be by
/// chance (RFC 9773, 4.2), so that not everybody comes at once.
fn within(from: i64, to: i64, id: &str) -> Timestamp {
    let chance = u64::from_str_radix(id.get(..8).unwrap_or("0"), 16).unwrap_or(0);
    let span = u64::try_from(to.saturating_sub(from)).unwrap_or(0);
    let from = u64::try_from(from).unwrap_or(0);
    Timestamp((from + span * chance / (1 << 32)).saturating_mul(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_moment_of_a_renewal_lies_in_its_window() {
        assert_eq!(within(100, 200, "00000000"), Timestamp(100_000));
        assert_eq!(within(100, 200, "80000000ab"), Timestamp(150_000));
        assert!(within(100, 200, "ffffffff") < Timestamp(200_000));
        assert_eq!(within(200, 100, "80000000"), Timestamp(200_000));
    }

    #[test]
    fn what_a_server_wants_renewed_is_tried_again_after_a_failure() {
        let window = Window { renew_at: Timestamp(100), ask_at: Timestamp(0) };
        let by_age = Timestamp(60_000);
        assert_eq!(window.due(by_age, None), Timestamp(100));
        assert_eq!(window.due(by_age, Some(Timestamp(400))), Timestamp(400), "when it was said to be");
        assert_eq!(window.due(by_age, Some(Timestamp(40))), Timestamp(100));
        // By its age it is not put off.
        assert_eq!(window.due(Timestamp(7), Some(Timestamp(3))), Timestamp(7));
    }

    #[test]
    fn what_a_server_said_holds_until_it_says_something_else() {
        let (id, hour) = ("00000000", Duration::from_secs(3_600));
        let unsaid = Window::heard(None, None, id, Timestamp(5));
        assert_eq!((unsaid.renew_at, unsaid.ask_at), (Timestamp(u64::MAX), Timestamp(5 + 6 * 3_600_000)));
        let said = Window::heard(Some((100, 200, hour)), Some(unsaid), id, Timestamp(5));
        assert_eq!((said.renew_at, said.ask_at), (Timestamp(100_000), Timestamp(5 + 3_600_000)));
        let away = Window::heard(None, Some(said), id, Timestamp(9));
        assert_eq!((away.renew_at, away.ask_at), (Timestamp(100_000), Timestamp(9 + 6 * 3_600_000)));
        let later = Window::heard(Some((300, 400, hour)), Some(away), id, Timestamp(9));
        assert_eq!(later.renew_at, Timestamp(300_000));
    }
}
