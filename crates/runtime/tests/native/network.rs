//! Instances in networks of their own: who reaches them, and what they reach.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use berth_runtime::{
    InstanceSpec, Network, OWN_PORT, Observed, PlainRuntime, PortWish, Restart, Runtime as _,
};
use berth_shim::dial;

use crate::world::{LONG, World, connect, dial_path, is_running, line_with, name_behind, stop_within, until};

#[expect(clippy::print_stderr, reason = "what was not tested must not look as if it had been")]
pub(crate) fn not_tested(why: &str) {
    eprintln!("NOT TESTED: {why}");
}

/// `None`, said aloud, where no instance can have a network of its own.
fn world_with_networks() -> Option<(World, PlainRuntime)> {
    if let Some(why) = crate::absent() {
        not_tested(why);
        return None;
    }
    let world = World::new();
    let runtime = world.runtime();
    if !runtime.capabilities().own_network {
        not_tested("this user cannot make networks");
        return None;
    }
    Some((world, runtime))
}

fn own(world: &World, role: &str, name: &str) -> InstanceSpec {
    let mut spec = InstanceSpec { network: Network::Own, ..world.spec(role) };
    spec.env.insert("NAME".to_owned(), name.to_owned());
    spec
}

/// What an app in a network of its own made of `targets`, and how many of them it tried.
async fn attack(world: &World, runtime: &PlainRuntime, targets: &[String]) -> Vec<String> {
    let mut spec =
        InstanceSpec { restart: Restart::Never, port: PortWish::None, ..own(world, "attack", "attacker") };
    spec.env.insert("TARGETS".to_owned(), targets.join(" "));
    runtime.start(spec.clone()).await.unwrap();
    line_with(runtime, &spec.id, "tried all").await;
    let records = crate::world::records(runtime, &spec.id);
    let lines = records.iter().map(|record| String::from_utf8_lossy(&record.body).into_owned());
    let tried: Vec<String> = lines
        .filter_map(|line| line.strip_prefix("tried ").map(str::to_owned))
        .filter(|it| it != "all")
        .collect();
    assert_eq!(tried.len(), targets.len(), "{tried:?}");
    tried
}

async fn serve(world: &World, runtime: &PlainRuntime, spec: InstanceSpec) -> Observed {
    let started = runtime.start(spec.clone()).await.unwrap();
    line_with(runtime, &spec.id, "ready").await;
    assert_eq!((started.network, started.port), (Network::Own, Some(OWN_PORT)));
    assert!(dial_path(world, &started).try_exists().unwrap());
    started
}

async fn end(world: &World, runtime: &PlainRuntime, observed: &Observed) {
    runtime.stop(&observed.id, stop_within(100)).await.unwrap();
    runtime.remove(&observed.id).await.unwrap();
    assert!(!dial_path(world, observed).try_exists().unwrap());
}

#[tokio::test]
async fn a_shim_that_is_gone_refuses_and_what_was_handed_out_connects_to_nobody() {
    let Some((world, runtime)) = world_with_networks() else { return };
    let started = serve(&world, &runtime, own(&world, "serve", "mortal")).await;
    let mut line = UnixStream::connect(dial_path(&world, &started)).unwrap();
    line.write_all(&dial::request(2)).unwrap();
    let spare = dial::receive(&line).unwrap().pop().unwrap();
    runtime.kill(&started.id).await.unwrap();
    assert_eq!(dial::receive(&line).unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    assert_eq!(connect(&world, &started).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    rustix::io::ioctl_fionbio(&spare, false).unwrap();
    let refused = rustix::net::connect(&spare, &std::net::SocketAddr::from(([127, 0, 0, 1], OWN_PORT)));
    assert_eq!(refused.unwrap_err(), rustix::io::Errno::CONNREFUSED);
    runtime.remove(&started.id).await.unwrap();
}

#[tokio::test]
async fn attack_on_a_neighbours_port() {
    let Some((world, runtime)) = world_with_networks() else { return };
    let neighbour = serve(&world, &runtime, own(&world, "serve", "neighbour")).await;
    let tried =
        attack(&world, &runtime, &[format!("127.0.0.1:{OWN_PORT}"), format!("[::1]:{OWN_PORT}")]).await;
    assert!(tried.iter().all(|line| line.ends_with(": ConnectionRefused")), "{tried:?}");
    assert_eq!(name_behind(&world, &neighbour), "neighbour");
    end(&world, &runtime, &neighbour).await;
}

#[tokio::test]
async fn attack_on_the_machines_loopback_and_its_addresses() {
    let Some((world, runtime)) = world_with_networks() else { return };
    let listeners = ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"].map(|at| TcpListener::bind(at).unwrap());
    let ports = listeners.each_ref().map(|listener| listener.local_addr().unwrap().port());
    // Each is reached from this machine's network, or that it is not from the app's would say nothing.
    for port in ports {
        TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), LONG).unwrap();
    }
    let mut targets: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    targets.extend(own_address().map(|address| format!("{address}:{}", ports[1])));
    let tried = attack(&world, &runtime, &targets).await;
    assert!(!tried.iter().any(|line| line.ends_with(": reached")), "{tried:?}");
}

/// An address of this machine's that is not its loopback: the one that it would send from.
fn own_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().unwrap().ip())
}

#[tokio::test]
async fn attack_on_metadata_addresses() {
    let Some((world, runtime)) = world_with_networks() else { return };
    let targets = ["169.254.169.254:80", "100.100.100.200:80", "[fd00:ec2::254]:80"].map(str::to_owned);
    let tried = attack(&world, &runtime, &targets).await;
    assert!(tried.iter().all(|line| line.ends_with("NetworkUnreachable")), "{tried:?}");
}

/// As an ordinary user everything is that user's; what keeps apps away from it then is their view of the files.
#[tokio::test]
async fn attack_on_anothers_dial_socket() {
    let Some((world, runtime)) = world_with_networks() else { return };
    if !rustix::process::geteuid().is_root() {
        not_tested("without root all apps are of one user");
        return;
    }
    let victim = serve(&world, &runtime, own(&world, "serve", "victim")).await;
    let path = dial_path(&world, &victim);
    let control = world.layout().run.join("i").join(path.file_name().unwrap());
    let targets = [&path, &control].map(|path| path.to_str().unwrap().to_owned());
    let tried = attack(&world, &runtime, &targets).await;
    // In a root of its own there is nothing of the kind.
    let kept_out = |line: &String| line.ends_with("PermissionDenied") || line.ends_with("NotFound");
    assert!(tried.iter().all(kept_out), "{tried:?}");
    let mode = |path: &std::path::Path| {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = std::fs::metadata(path).unwrap();
        (metadata.mode() & 0o777, metadata.uid(), metadata.gid())
    };
    assert_eq!(mode(&path), (0o660, 0, world.edge()));
    assert_eq!(mode(path.parent().unwrap()), (0o750, 0, world.edge()));
    end(&world, &runtime, &victim).await;
}

/// Whoever asks for more than there is, asks without reading, or says nothing at all, harms nobody but himself.
#[tokio::test]
async fn attack_on_a_shim_by_a_hostile_dialer() {
    let Some((world, runtime)) = world_with_networks() else { return };
    let started = serve(&world, &runtime, own(&world, "serve", "patient")).await;
    let path = dial_path(&world, &started);
    let open = || UnixStream::connect(&path).unwrap();
    // More who say nothing than there is room for.
    let silent: Vec<UnixStream> = (0..200).map(|_| open()).collect();
    for wrong in [&[0][..], &[17], &[255], &[1, 1], &[16; 4_096]] {
        let mut line = open();
        line.write_all(wrong).unwrap();
        let end = dial::receive(&line).unwrap_err().kind();
        assert!(
            matches!(end, std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset),
            "{end}"
        );
    }
    // Asks until the shim ends it, and reads nothing: a hundred times it does not take that.
    let mut greedy = open();
    greedy.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
    let taken = (0..100_000).take_while(|_| greedy.write_all(&dial::request(dial::MOST)).is_ok()).count();
    assert!(taken < 100_000);
    assert_eq!(name_behind(&world, &started), "patient");
    assert!(is_running(&until(&runtime, &started.id, is_running).await));
    drop(silent);
    end(&world, &runtime, &started).await;
}
