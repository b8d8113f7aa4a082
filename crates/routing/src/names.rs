//! Names within a project: at which addresses its apps are in the networks of its instances.
//!
//! Each app has one address, for ever, which leads to it from instances of its own project alone. So it is the socket at which a connection
//! is accepted that says who calls and whom, and nothing that is sent on it: a `Host` that is passed on from elsewhere does no harm.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use berth_spec::{AppId, AppName, ProjectId};

use crate::snapshot::{Endpoint, Snapshot};

/// What the name of every app ends with: `shop` is called `shop.internal`.
pub const DOMAIN: &str = "internal";
/// The port at which edge takes HTTP for every app. At all others it passes on bytes, to the app that has that port.
pub const HTTP_PORT: u16 = 80;
/// The network of the addresses of apps, within the networks of instances alone: half of a quarter of a range for the measurement of routers
/// (RFC 2544), which no network uses for anything. The rest of it is for what the machine gives instances.
pub const NETWORK: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 0);
/// How many bits of it all of them have.
pub const NETWORK_BITS: u8 = 17;
/// The address that every instance has towards them.
pub const OWN: Ipv4Addr = Ipv4Addr::new(198, 19, 128, 1);
/// What leads to them.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 19, 128, 2);

/// The address of the app in `slot`, a number that no other app ever has; `None` beyond the network.
#[must_use]
pub fn address(slot: u32) -> Option<Ipv4Addr> {
    let offset = slot.checked_add(1)?;
    // The last one means all of them.
    let last = (1 << (32 - u32::from(NETWORK_BITS))) - 1;
    (offset < last).then(|| Ipv4Addr::from_bits(NETWORK.to_bits() + offset))
}

/// The apps of each project that have an address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names(BTreeMap<ProjectId, Project>);

/// The apps of one project.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Project {
    /// Where each is.
    pub apps: BTreeMap<AppName, Ipv4Addr>,
    /// The ports at which some of them listen, and that of HTTP.
    pub ports: BTreeSet<u16>,
}

impl Names {
    /// The names as of `snapshot`.
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Self {
        let mut names = Self::default();
        for (id, route) in &snapshot.apps {
            let Some(address) = route.address else { continue };
            let project = names.0.entry(id.project_id()).or_default();
            project.apps.insert(id.app.clone(), address);
            project.ports.insert(HTTP_PORT);
            project.ports.extend(route.backends.iter().map(|backend| match &backend.endpoint {
                Endpoint::Tcp { addr } => addr.port(),
                Endpoint::Dialer { port, .. } => *port,
            }));
        }
        names
    }

    /// The apps that are in the project of `app`.
    #[must_use]
    pub fn beside(&self, app: &AppId) -> Option<&Project> {
        self.0.get(&app.project_id())
    }

    /// All of them, by project.
    pub fn projects(&self) -> impl Iterator<Item = (&ProjectId, &Project)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{AppRoute, Backend, Generation, Probe, ProbePath, Role};
    use berth_spec::Millis;

    #[test]
    fn every_slot_has_an_address_of_its_own_within_the_network() {
        assert_eq!(address(0), Some(Ipv4Addr::new(198, 19, 0, 1)));
        assert_eq!(address(255), Some(Ipv4Addr::new(198, 19, 1, 0)));
        // The most slots that a platform has.
        let last = address(32_759).unwrap();
        assert_eq!(last, Ipv4Addr::new(198, 19, 127, 248));
        let network = |address: Ipv4Addr| address.to_bits() >> (32 - u32::from(NETWORK_BITS));
        assert_eq!(network(last), network(NETWORK));
        for other in [OWN, GATEWAY] {
            assert_ne!(network(other), network(NETWORK), "what leads there is not there");
        }
        assert_eq!([32_766, u32::MAX].map(address), [None, None]);
    }

    #[test]
    fn names_stay_within_their_project() {
        let route = |id: &str, slot: u32, port: u16| {
            let app: AppId = id.parse().unwrap();
            let backend = Backend {
                instance: app.instance("web".parse().unwrap(), 1),
                endpoint: Endpoint::Dialer { name: "0123456789ab".to_owned(), port },
                role: Role::Routed,
                probe: Probe { path: ProbePath::Guess, interval: Millis(1), timeout: Millis(1) },
                concurrency: berth_spec::RequestConcurrency::default(),
                request_timeout: None,
                protocol: berth_spec::HttpProtocol::default(),
            };
            let route = AppRoute {
                gate: berth_spec::Gate::Open,
                hosts: Vec::new(),
                backends: vec![backend],
                rate_limits: Vec::new(),
                hold: Millis(0),
                address: address(slot),
                ..AppRoute::default()
            };
            (app, route)
        };
        let apps = [
            route("acme/prod/web", 0, 8080),
            route("acme/prod/db", 1, 5432),
            route("acme/test/db", 2, 3306),
            route("other/prod/db", 3, 6379),
        ];
        let names = Names::of(&Snapshot::new(Generation(1), apps.into()));
        let beside = names.beside(&"acme/prod/worker".parse().unwrap()).unwrap();
        assert_eq!(beside.apps.keys().map(AppName::as_str).collect::<Vec<_>>(), ["db", "web"]);
        assert_eq!(beside.ports, [80, 5432, 8080].into());
        assert_eq!(names.beside(&"other/test/web".parse().unwrap()), None);
        assert_eq!(names.projects().count(), 3);
    }

    #[test]
    fn a_route_without_an_address_is_read_and_has_no_name() {
        let before = r#"{"format":1,"generation":3,"apps":{"default/default/shop":{"hosts":["shop.*"],"backends":[],"hold":5000}}}"#;
        let snapshot: Snapshot = serde_json::from_str(before).unwrap();
        assert_eq!(Names::of(&snapshot), Names::default());
        assert_eq!(serde_json::to_string(&snapshot).unwrap(), before, "what has none is written as before");
    }
}
