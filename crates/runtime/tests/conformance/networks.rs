//! Who reaches an instance, and whom it reaches.

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};

use berth_routing::{AppRoute, Generation, Names, Snapshot, names};
use berth_runtime::{InstanceSpec, Listener, Network, OWN_PORT, Observed, PORTS, PortWish, RuntimeError};

use berth_spec::manifest::Egress;
use berth_spec::{AppId, Millis};

use super::Bench;
use crate::world::{connect, dial_path, is_running, name_behind, number_after};

fn own(bench: &Bench, role: &str, name: &str) -> InstanceSpec {
    let mut spec = InstanceSpec { network: Network::Own, ..bench.world.spec(role) };
    spec.env.insert("NAME".to_owned(), name.to_owned());
    spec
}

async fn serve(bench: &Bench, name: &str) -> Observed {
    let spec = own(bench, "serve", name);
    let started = bench.start(&spec, "ready").await;
    assert_eq!((started.network, started.port), (Network::Own, Some(OWN_PORT)));
    started
}

/// What an app in a network of its own made of `targets`.
async fn tries(bench: &Bench, targets: &[String]) -> Vec<String> {
    let mut spec = InstanceSpec { port: PortWish::None, ..own(bench, "attack", "attacker") };
    spec.env.insert("TARGETS".to_owned(), targets.join(" "));
    spec.restart = berth_runtime::Restart::Never;
    let said = bench.run(&spec).await.1;
    let tried: Vec<String> = said.iter().filter_map(|line| line.strip_prefix("tried ")).map(str::to_owned).collect();
    assert_eq!(tried.len(), targets.len() + 1, "{said:?}");
    tried
}

fn reached(tried: &[String]) -> Vec<&str> {
    tried.iter().filter_map(|line| line.strip_suffix(": reached")).collect()
}

pub(super) async fn edge_gets_in(bench: Bench) {
    let started = serve(&bench, "named").await;
    for _ in 0..3 {
        assert_eq!(name_behind(&bench.world, &started), "named");
    }
    bench.end(&started.id).await;
}

pub(super) async fn two_listen_on_the_same_port(bench: Bench) {
    let both = [("first", serve(&bench, "first").await), ("second", serve(&bench, "second").await)];
    for (name, observed) in &both {
        assert_eq!(name_behind(&bench.world, observed), *name);
        assert_eq!(bench.runtime().observe(&observed.id).await.unwrap().listener, Listener::Expected);
    }
    for (_, observed) in &both {
        bench.end(&observed.id).await;
    }
}

pub(super) async fn low_ports_are_to_be_had(bench: Bench) {
    let spec = InstanceSpec { port: PortWish::Exactly(80), ..own(&bench, "serve", "low") };
    let started = bench.start(&spec, "at 80 ready").await;
    assert_eq!(name_behind(&bench.world, &started), "low");
    bench.end(&spec.id).await;
}

pub(super) async fn a_neighbour_is_not_reached(bench: Bench) {
    let neighbour = serve(&bench, "neighbour").await;
    let tried = tries(&bench, &[format!("127.0.0.1:{OWN_PORT}"), format!("[::1]:{OWN_PORT}")]).await;
    assert_eq!(reached(&tried), [""; 0]);
    assert_eq!(name_behind(&bench.world, &neighbour), "neighbour");
    bench.end(&neighbour.id).await;
}

pub(super) async fn the_machine_is_not_reached(bench: Bench) {
    let listeners = ["127.0.0.1:0", "0.0.0.0:0"].map(|at| TcpListener::bind(at).unwrap());
    let mut targets: Vec<String> =
        listeners.iter().map(|it| format!("127.0.0.1:{}", it.local_addr().unwrap().port())).collect();
    for target in &targets {
        TcpStream::connect(target).expect("the machine itself reaches it");
    }
    let port = listeners[1].local_addr().unwrap().port();
    let outward = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    if outward.connect("192.0.2.1:9").is_ok() {
        targets.push(format!("{}:{port}", outward.local_addr().unwrap().ip()));
    }
    assert_eq!(reached(&tries(&bench, &targets).await), [""; 0]);
}

pub(super) async fn metadata_is_not_reached(bench: Bench) {
    let targets = ["169.254.169.254:80", "100.100.100.200:80", "[fd00:ec2::254]:80"].map(str::to_owned);
    assert_eq!(reached(&tries(&bench, &targets).await), [""; 0]);
}

pub(super) async fn the_way_in_outlives_control(mut bench: Bench) {
    let started = serve(&bench, "lasting").await;
    bench.reopen();
    let adopted = bench.runtime().adopt_all().await.unwrap();
    assert_eq!((adopted[0].network, adopted[0].dialer()), (Network::Own, started.dialer()));
    assert_eq!(name_behind(&bench.world, &started), "lasting");
    bench.end(&started.id).await;
}

pub(super) async fn the_way_in_ends_with_the_instance(bench: Bench) {
    let started = serve(&bench, "mortal").await;
    bench.runtime().kill(&started.id).await.unwrap();
    let refused = connect(&bench.world, &started).unwrap_err().kind();
    assert_eq!(refused, std::io::ErrorKind::ConnectionRefused);
    bench.runtime().remove(&started.id).await.unwrap();
    assert!(!dial_path(&bench.world, &started).try_exists().unwrap());
}

pub(super) async fn where_it_listens_in_its_own_network_is_seen(bench: Bench) {
    let mut spec = own(&bench, "listen", "elsewhere");
    spec.env.insert("LISTEN_ELSEWHERE".to_owned(), "1".to_owned());
    bench.start(&spec, "ready").await;
    let port = u16::try_from(number_after(&bench.line(&spec.id, "ready").await, "at ")).unwrap();
    let looked = bench.runtime().observe(&spec.id).await.unwrap().listener;
    assert_eq!(looked, Listener::Elsewhere { ports: vec![port] });
    bench.end(&spec.id).await;
}

pub(super) async fn other_apps_are_found_by_name(bench: Bench) {
    let app: AppId = "default/default/shop-db".parse().unwrap();
    let route = AppRoute { hosts: Vec::new(), backends: Vec::new(), hold: Millis(0), gate: berth_spec::Gate::Open, address: names::address(6), asleep: None };
    let snapshot = Snapshot::new(Generation(1), [(app.clone(), route)].into());
    bench.runtime().tell_names(Names::of(&snapshot)).await.unwrap();
    let look = "for name in shop-db.internal db localhost; do getent ahostsv4 $name | head -n 1; done; cat /proc/net/dev";
    let spec = InstanceSpec {
        network: Network::Own,
        egress: Egress::Internal,
        aliases: [("db".parse().unwrap(), app.app)].into(),
        ..bench.shell(look)
    };
    let said = bench.run(&spec).await.1;
    let starts = said.iter().take(3).map(|line| line.split_whitespace().next().unwrap());
    assert_eq!(starts.collect::<Vec<_>>(), ["198.19.0.7", "198.19.0.7", "127.0.0.1"], "{said:?}");
    assert!(said.iter().any(|line| line.trim_start().starts_with("berth0:")), "{said:?}");
}

pub(super) async fn the_machines_network_is_to_be_had(bench: Bench) {
    let mut spec = bench.world.spec("serve");
    spec.env.insert("NAME".to_owned(), "beside".to_owned());
    let started = bench.start(&spec, "ready").await;
    let (port, mut said) = (started.port.unwrap(), String::new());
    assert!(PORTS.contains(&port) && started.dialer().is_none());
    TcpStream::connect(("127.0.0.1", port)).unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "beside");
    bench.end(&spec.id).await;
}

pub(super) async fn ports_of_the_machine_are_given_once(bench: Bench) {
    let (first, mut second) = (bench.service("exec sleep 1000"), bench.service("exec sleep 1000"));
    let port = bench.runtime().start(first.clone()).await.unwrap().port.unwrap();
    second.port = PortWish::Exactly(port);
    // The lease is the shim's now.
    assert!(matches!(bench.runtime().start(second.clone()).await, Err(RuntimeError::PortTaken(_))));
    second.port = PortWish::Any { exclude: PORTS.filter(|other| other % 100 != 7).collect() };
    let other = bench.runtime().start(second.clone()).await.unwrap().port.unwrap();
    assert!(other != port && other % 100 == 7);
    for spec in [&first, &second] {
        bench.end(&spec.id).await;
    }
    let again = InstanceSpec { port: PortWish::Exactly(port), ..bench.service("exec sleep 1000") };
    assert_eq!(bench.runtime().start(again.clone()).await.unwrap().port, Some(port));
    bench.end(&again.id).await;
}

pub(super) async fn a_port_that_is_taken_is_refused(bench: Bench) {
    let foreign = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = PortWish::Exactly(foreign.local_addr().unwrap().port());
    let spec = InstanceSpec { port, ..bench.service("exec sleep 1000") };
    assert!(matches!(bench.runtime().start(spec.clone()).await, Err(RuntimeError::PortTaken(_))));
    assert!(!bench.world.folder(&spec.id).try_exists().unwrap());
}

pub(super) async fn a_worker_has_no_port(bench: Bench) {
    let spec = InstanceSpec { port: PortWish::None, ..bench.shell("echo port ${PORT-none}") };
    assert_eq!(bench.run(&spec).await.1, ["port none"]);
}

pub(super) async fn a_listener_elsewhere_is_told(bench: Bench) {
    let mut elsewhere = bench.world.spec("listen");
    elsewhere.env.insert("LISTEN_ELSEWHERE".to_owned(), String::new());
    for (spec, right) in [(bench.world.spec("listen"), true), (elsewhere, false)] {
        bench.start(&spec, "ready").await;
        bench.until(&spec.id, is_running).await;
        let port = u16::try_from(number_after(&bench.line(&spec.id, "ready").await, "at")).unwrap();
        let expected = if right { Listener::Expected } else { Listener::Elsewhere { ports: vec![port] } };
        assert_eq!(bench.runtime().observe(&spec.id).await.unwrap().listener, expected);
        bench.end(&spec.id).await;
    }
}

pub(super) async fn its_own_name_leads_to_itself(bench: Bench) {
    let spec = InstanceSpec { network: Network::Host, ..bench.shell("getent ahostsv4 localhost | head -n 1; getent ahostsv4 $(cat /etc/hostname) | head -n 1") };
    let said = bench.run(&spec).await.1;
    assert!(said.len() == 2 && said.iter().all(|line| line.starts_with("127.0.0.1 ")), "{said:?}");
}

pub(super) async fn its_host_has_a_name_of_its_own(bench: Bench) {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let spec = InstanceSpec { network: own_if_possible(&bench), ..bench.shell("cat /proc/sys/kernel/hostname /etc/hostname") };
    let said = bench.run(&spec).await.1;
    assert_eq!(said[0], said[1]);
    assert_eq!(said[0], spec.id.short().replace('.', "-"));
    assert_ne!(said[0], name);
}

fn own_if_possible(bench: &Bench) -> Network {
    if bench.runtime().capabilities().own_network { Network::Own } else { Network::Host }
}
