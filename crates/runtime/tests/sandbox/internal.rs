//! The way from an instance to other apps of its project, the test being edge.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixStream;

use berth_routing::{
    AppRoute, Backend, Endpoint, Generation, Names, Probe, ProbePath, Role, Snapshot, names,
};
use berth_runtime::{InstanceSpec, Network, PlainRuntime, PortWish, Restart, Runtime as _};
use berth_shim::dial;
use berth_spec::manifest::Egress;
use berth_spec::{AppId, AppName, Millis};

use crate::network::not_tested;
use crate::world::{World, line_with, records, stop_within};

/// The default project with these apps: the name, the slot, and the port at which one listens.
fn project(apps: &[(&str, u32, Option<u16>)]) -> Names {
    let route = |&(name, slot, port): &(&str, u32, Option<u16>)| {
        let app: AppId = format!("default/default/{name}").parse().unwrap();
        let backend = |port| Backend {
            instance: app.instance("web".parse().unwrap(), 1),
            endpoint: Endpoint::Dialer { name: "0123456789ab".to_owned(), port },
            role: Role::Routed,
            probe: Probe { path: ProbePath::Guess, interval: Millis(1), timeout: Millis(1) },
            concurrency: berth_spec::RequestConcurrency::default(),
            request_timeout: None,
            protocol: berth_spec::HttpProtocol::default(),
        };
        let backends = port.map(backend).into_iter().collect();
        let route = AppRoute {
            hosts: Vec::new(),
            backends,
            hold: Millis(0),
            rate_limits: Vec::new(),
            gate: berth_spec::Gate::Open,
            address: names::address(slot),
            ..berth_routing::AppRoute::default()
        };
        (app.clone(), route)
    };
    Names::of(&Snapshot::new(Generation(1), apps.iter().map(route).collect()))
}

async fn world_with_names(apps: &[(&str, u32, Option<u16>)]) -> Option<(World, PlainRuntime)> {
    let world = World::new();
    let runtime = world.runtime();
    if !runtime.capabilities().names {
        not_tested("instances have no names of other apps here");
        return None;
    }
    runtime.tell_names(project(apps)).await.unwrap();
    Some((world, runtime))
}

fn spec(world: &World, role: &str, egress: Egress) -> InstanceSpec {
    InstanceSpec { network: Network::Own, egress, ..world.spec(role) }
}

/// What an app made of `targets`.
async fn attack(
    world: &World,
    runtime: &PlainRuntime,
    egress: Egress,
    targets: &[&str],
) -> (InstanceSpec, Vec<String>) {
    let mut spec =
        InstanceSpec { restart: Restart::Never, port: PortWish::None, ..spec(world, "attack", egress) };
    spec.env.insert("TARGETS".to_owned(), targets.join(" "));
    spec.env.insert("STAYS".to_owned(), "1".to_owned());
    runtime.start(spec.clone()).await.unwrap();
    line_with(runtime, &spec.id, "tried all").await;
    let lines = records(runtime, &spec.id);
    let lines = lines.iter().map(|record| String::from_utf8_lossy(&record.body).into_owned());
    let tried = lines.filter_map(|line| Some(line.strip_prefix("tried ")?.to_owned()));
    (spec, tried.filter(|line| line != "all").collect())
}

/// Asks the shim of an instance as edge does.
fn ask(world: &World, spec: &InstanceSpec, port: u16) -> (String, Option<TcpListener>) {
    let mut name = spec.token.to_string();
    name.truncate(12);
    let path = berth_runtime::dial_folder(&world.layout().run).join(format!("{name}.sock"));
    let mut line = UnixStream::connect(path).unwrap();
    line.write_all(&dial::listener_request(port)).unwrap();
    let (id, listener) = dial::receive_listener(&line).unwrap();
    let listener = listener.map(TcpListener::from);
    listener.iter().for_each(|listener| listener.set_nonblocking(true).unwrap());
    (id, listener)
}

/// Where those wanted to that wait at a listening socket.
fn waiting(listener: &TcpListener) -> Vec<String> {
    let accepted = std::iter::from_fn(|| listener.accept().ok());
    accepted.map(|(socket, _)| socket.local_addr().unwrap().to_string()).collect()
}

#[tokio::test]
async fn what_is_sent_to_an_app_waits_at_its_address_for_whoever_asks() {
    let Some((world, runtime)) = world_with_names(&[("shop", 0, None), ("db", 6, Some(5_432))]).await else {
        return;
    };
    // A port at which no app is refuses, and every address is one that edge has a word on.
    let targets = ["198.19.0.7:80", "198.19.0.7:5432", "198.19.99.99:80", "198.19.0.7:81", "198.19.128.2:80"];
    let (spec, tried) = attack(&world, &runtime, Egress::Internal, &targets).await;
    let outcomes: Vec<&str> = tried.iter().map(|line| line.split(": ").nth(1).unwrap()).collect();
    assert_eq!(outcomes[..4], ["reached", "reached", "reached", "ConnectionRefused"], "{tried:?}");
    assert_eq!(outcomes[4], "NetworkUnreachable", "what leads there is nobody");
    // Nobody had asked yet, and it was not lost; nor is it when whoever asked first is gone.
    let (id, first) = ask(&world, &spec, 80);
    assert_eq!(id, spec.id.to_string());
    drop(first);
    let (_, second) = ask(&world, &spec, 80);
    let mut arrived = waiting(&second.unwrap());
    arrived.sort_unstable();
    assert_eq!(arrived, ["198.19.0.7:80", "198.19.99.99:80"]);
    assert_eq!(waiting(&ask(&world, &spec, 5_432).1.unwrap()), ["198.19.0.7:5432"]);
    // There is room for so many ports and no more; what is there stays.
    let more = (6_000..6_100).map_while(|port| ask(&world, &spec, port).1).count();
    assert_eq!(more, 14);
    assert!(ask(&world, &spec, 80).1.is_some());
}

#[tokio::test]
async fn an_app_that_listens_at_all_addresses_has_none_of_another_apps() {
    let Some((world, runtime)) = world_with_names(&[("shop", 0, Some(8_080))]).await else { return };
    let mut spec = spec(&world, "serve_all", Egress::Internal);
    spec.env.insert("NAME".to_owned(), "shop".to_owned());
    let started = runtime.start(spec.clone()).await.unwrap();
    line_with(&runtime, &spec.id, "ready").await;
    let (_, listener) = ask(&world, &spec, started.port.unwrap());
    assert_eq!(waiting(&listener.unwrap()), [""; 0]);
    runtime.stop(&spec.id, stop_within(100)).await.unwrap();
}

#[tokio::test]
async fn attack_on_apps_by_one_that_may_reach_nobody() {
    let Some((world, runtime)) = world_with_names(&[("shop", 0, None), ("db", 6, Some(5_432))]).await else {
        return;
    };
    let (spec, tried) = attack(&world, &runtime, Egress::None, &["198.19.0.7:80", "198.19.0.7:5432"]).await;
    assert!(tried.iter().all(|line| line.ends_with("NetworkUnreachable")), "{tried:?}");
    assert!(!world.folder(&spec.id).join("hosts").try_exists().unwrap());
    // Without a port there is nothing that edge could ask at all.
    let mut name = spec.token.to_string();
    name.truncate(12);
    let socket = berth_runtime::dial_folder(&world.layout().run).join(format!("{name}.sock"));
    assert!(!socket.try_exists().unwrap());
    // With one it is told that there is no way to others.
    let spec = InstanceSpec { network: Network::Own, egress: Egress::None, ..world.spec("listen") };
    runtime.start(spec.clone()).await.unwrap();
    line_with(&runtime, &spec.id, "ready").await;
    assert!(matches!(ask(&world, &spec, 80), (id, None) if id == spec.id.to_string()));
    runtime.stop(&spec.id, stop_within(100)).await.unwrap();
}

#[tokio::test]
async fn names_come_and_go_while_an_instance_lives_and_after_control_was_killed() {
    let Some((world, runtime)) = world_with_names(&[("shop", 0, None)]).await else { return };
    let mut spec = spec(&world, "wait", Egress::Internal);
    spec.aliases = [("db".parse().unwrap(), AppName::new("shop-db").unwrap())].into();
    runtime.start(spec.clone()).await.unwrap();
    let hosts = || std::fs::read_to_string(world.folder(&spec.id).join("hosts")).unwrap();
    assert!(hosts().ends_with("198.19.0.1\tshop.internal\n"), "{}", hosts());
    runtime.tell_names(project(&[("shop", 0, None), ("shop-db", 1, None)])).await.unwrap();
    assert!(hosts().ends_with("198.19.0.1\tshop.internal\n198.19.0.2\tshop-db.internal db\n"), "{}", hosts());
    // Another control finds the instance, and knows what it calls others.
    drop(runtime);
    let runtime = world.runtime();
    runtime.adopt_all().await.unwrap();
    runtime.tell_names(project(&[("shop", 0, None), ("api", 2, None)])).await.unwrap();
    assert!(hosts().contains("\n#98.19.0.2\tshop-db.internal db\n198.19.0.3\tapi.internal\n"), "{}", hosts());
    runtime.tell_names(project(&[("shop", 0, None), ("shop-db", 1, None), ("api", 2, None)])).await.unwrap();
    assert!(hosts().contains("\n198.19.0.2\tshop-db.internal db\n"), "{}", hosts());
    assert_eq!(names::address(1), Some(Ipv4Addr::new(198, 19, 0, 2)));
    runtime.kill(&spec.id).await.unwrap();
    runtime.remove(&spec.id).await.unwrap();
}
