//! A snapshot made ready for look-ups: which app has a host.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use berth_spec::{AppId, InstanceId};
use thiserror::Error;

use crate::host::{local_label, normalise};
use crate::snapshot::{Generation, Host, Snapshot};

/// A snapshot that cannot be served by.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidSnapshot {
    /// A newer version wrote it.
    #[error("the snapshot has format {found}, and this version reads up to {}", Snapshot::FORMAT)]
    Format {
        /// Its format.
        found: u32,
    },
    /// It is older than the one in use, so traffic could go back to instances that were told to stop.
    #[error("the snapshot is of {offered}, and {applied} is in use already")]
    Older {
        /// Its generation.
        offered: Generation,
        /// The one in use.
        applied: Generation,
    },
}

/// A part of a snapshot that is left out, the rest being served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flaw {
    /// Two apps claim a host. The one whose id sorts first has it.
    HostTaken {
        /// The host.
        host: Host,
        /// The app that has it.
        winner: AppId,
        /// The app that does not.
        loser: AppId,
    },
    /// A host that no request can name.
    HostInvalid {
        /// The host.
        host: Host,
        /// The app that claims it.
        app: AppId,
    },
    /// An instance that is listed twice, or below an app that is not its own. Only its first place counts.
    InstanceMisplaced {
        /// The instance.
        instance: InstanceId,
        /// The app below which it is left out.
        app: AppId,
    },
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostTaken { host, winner, loser } => {
                write!(f, "{loser} claims the host {}, which {winner} has", host.0)
            }
            Self::HostInvalid { host, app } => write!(f, "{app} claims {:?}, which is not a host", host.0),
            Self::InstanceMisplaced { instance, app } => write!(f, "{instance} is misplaced below {app}"),
        }
    }
}

/// Which app has a host. An app is named by its place in the snapshot's order.
#[derive(Debug, Default)]
pub struct Table {
    generation: Generation,
    /// Hash maps in a pure crate: they are looked up by name alone and never walked, so their order is invisible.
    /// The standard library's keyed hash keeps a tenant from choosing hosts that collide.
    exact: HashMap<Box<str>, usize>,
    /// By what follows the asterisk and its dot.
    wild: HashMap<Box<str>, usize>,
    local: HashMap<Box<str>, usize>,
}

impl Table {
    /// Makes `snapshot` ready for look-ups when it may follow `applied`, and says what had to be left out.
    ///
    /// # Errors
    /// [`InvalidSnapshot`] when its format is unknown or it is older than `applied`.
    pub fn compile(snapshot: &Snapshot, applied: Generation) -> Result<(Self, Vec<Flaw>), InvalidSnapshot> {
        if snapshot.format > Snapshot::FORMAT {
            return Err(InvalidSnapshot::Format { found: snapshot.format });
        }
        if snapshot.generation < applied {
            return Err(InvalidSnapshot::Older { offered: snapshot.generation, applied });
        }
        let mut table = Self { generation: snapshot.generation, ..Self::default() };
        let mut flaws = Vec::new();
        let mut owners: BTreeMap<&Host, &AppId> = BTreeMap::new();
        let mut seen: BTreeSet<&InstanceId> = BTreeSet::new();
        for (place, (id, app)) in snapshot.apps.iter().enumerate() {
            for host in &app.hosts {
                if let Some(winner) = owners.get(host) {
                    if *winner != id {
                        let (winner, loser) = ((*winner).clone(), id.clone());
                        flaws.push(Flaw::HostTaken { host: host.clone(), winner, loser });
                    }
                    continue;
                }
                if table.insert(host, place) {
                    owners.insert(host, id);
                } else {
                    flaws.push(Flaw::HostInvalid { host: host.clone(), app: id.clone() });
                }
            }
            for backend in &app.backends {
                if backend.instance.app != *id || !seen.insert(&backend.instance) {
                    let (instance, app) = (backend.instance.clone(), id.clone());
                    flaws.push(Flaw::InstanceMisplaced { instance, app });
                }
            }
        }
        Ok((table, flaws))
    }

    /// The generation of the snapshot that this was made from.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The place of the app that has `host`, which must be as [`normalise`] gives it: by the name itself, else by a wildcard for
    /// its first label. Constant time.
    #[must_use]
    pub fn app_at(&self, host: &str) -> Option<usize> {
        let wild = || self.wild.get(host.split_once('.')?.1);
        self.exact.get(host).or_else(wild).or_else(|| self.local.get(local_label(host)?)).copied()
    }

    /// False when no request could ever name `host`.
    fn insert(&mut self, host: &Host, place: usize) -> bool {
        match (host.0.strip_prefix("*."), host.0.strip_suffix(".*")) {
            (Some(below), None) if is_normal(below) => self.wild.insert(below.into(), place),
            (None, Some(label)) if !label.contains('.') && is_normal(label) => {
                self.local.insert(label.into(), place)
            }
            (None, None) if is_normal(&host.0) => self.exact.insert(host.0.as_str().into(), place),
            _ => return false,
        };
        true
    }
}

fn is_normal(host: &str) -> bool {
    normalise(host.as_bytes()).is_ok_and(|normal| normal == host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::AppRoute;
    use berth_spec::{Gate, Millis};
    use proptest::prelude::*;

    fn snapshot(generation: u64, apps: &[(&str, &[&str])]) -> Snapshot {
        let apps = apps.iter().map(|(app, hosts)| {
            let hosts = hosts.iter().map(|host| Host((*host).to_owned())).collect();
            let hold = Millis::from_secs(5);
            (
                app_id(app),
                AppRoute { hosts, backends: Vec::new(), hold, gate: Gate::Open, address: None, asleep: None },
            )
        });
        Snapshot { format: Snapshot::FORMAT, generation: Generation(generation), apps: apps.collect() }
    }

    fn app_id(app: &str) -> AppId {
        format!("default/default/{app}").parse().unwrap()
    }

    #[test]
    fn an_exact_host_wins_over_a_label() {
        let apps = [("blog", &["shop.localhost"][..]), ("shop", &["shop.*", "shop.example.com"][..])];
        let (table, flaws) = Table::compile(&snapshot(3, &apps), Generation(3)).unwrap();
        assert_eq!(flaws, []);
        assert_eq!(table.app_at("shop.localhost"), Some(0));
        assert_eq!(table.app_at("shop.two.localhost"), Some(1));
        assert_eq!(table.app_at("shop.example.com"), Some(1));
        assert_eq!(table.app_at("shop.example.org"), None);
        assert_eq!(table.app_at("localhost"), None);
    }

    #[test]
    fn a_wildcard_answers_for_one_label_and_only_where_no_name_does() {
        let apps = [("all", &["*.example.com"][..]), ("shop", &["shop.example.com", "*.localhost"][..])];
        let (table, flaws) = Table::compile(&snapshot(1, &apps), Generation(0)).unwrap();
        assert_eq!(flaws, []);
        let found = [
            "shop.example.com",
            "blog.example.com",
            "example.com",
            "a.blog.example.com",
            "x.localhost",
            "com",
        ];
        assert_eq!(found.map(|host| table.app_at(host)), [Some(1), Some(0), None, None, Some(1), None]);
    }

    #[test]
    fn the_first_app_keeps_a_host_that_two_claim() {
        let apps = [("b", &["x.com"][..]), ("a", &["x.com", "x.com"][..])];
        let (table, flaws) = Table::compile(&snapshot(1, &apps), Generation(0)).unwrap();
        assert_eq!(table.app_at("x.com"), Some(0));
        let taken =
            Flaw::HostTaken { host: Host("x.com".to_owned()), winner: app_id("a"), loser: app_id("b") };
        assert_eq!(flaws, [taken]);
    }

    #[test]
    fn a_host_that_no_request_can_name_is_reported() {
        let apps = [("a", &["UPPER.com", "*.*.com", "a.b.*", "x.com:80", "ok.com"][..])];
        let (table, flaws) = Table::compile(&snapshot(1, &apps), Generation(0)).unwrap();
        assert_eq!(flaws.len(), 4, "{flaws:?}");
        assert_eq!(table.app_at("ok.com"), Some(0));
    }

    #[test]
    fn older_and_unknown_snapshots_are_refused() {
        let older = Table::compile(&snapshot(4, &[]), Generation(5)).unwrap_err();
        assert_eq!(older, InvalidSnapshot::Older { offered: Generation(4), applied: Generation(5) });
        let newer = Snapshot { format: Snapshot::FORMAT + 1, ..snapshot(9, &[]) };
        assert!(matches!(Table::compile(&newer, Generation(0)), Err(InvalidSnapshot::Format { .. })));
    }

    proptest! {
        /// The table agrees with the plain reading of the rules, whatever hosts the apps claim.
        #[test]
        fn it_finds_what_a_walk_finds(
            claims in proptest::collection::vec(proptest::collection::vec("[ab*]\\.(c|localhost)|[ab]\\.\\*", 0..4), 0..6),
            asked in "[ab]\\.(c|localhost|c\\.localhost)",
        ) {
            let names: Vec<String> = (0..claims.len()).map(|place| format!("app{place}")).collect();
            let hosts: Vec<Vec<&str>> =
                claims.iter().map(|hosts| hosts.iter().map(String::as_str).collect()).collect();
            let apps: Vec<(&str, &[&str])> =
                names.iter().zip(&hosts).map(|(name, hosts)| (name.as_str(), hosts.as_slice())).collect();
            let (table, _) = Table::compile(&snapshot(1, &apps), Generation(0)).unwrap();
            let label = asked.ends_with("localhost").then(|| format!("{}.*", asked.split('.').next().unwrap()));
            let walk = |wanted: &str| hosts.iter().position(|hosts| hosts.contains(&wanted));
            let wild = asked.split_once('.').map(|(_, below)| format!("*.{below}"));
            let expected = walk(&asked).or_else(|| walk(&wild?)).or_else(|| walk(&label?));
            prop_assert_eq!(table.app_at(&asked), expected);
        }
    }
}
