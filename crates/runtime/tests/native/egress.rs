//! The way out of an instance's network. The machine is a network of the test's own, and so is the internet: a second one, behind a cable.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::Duration;

use berth_runtime::{
    InstanceSpec, Network, OWN_PORT, Observed, PlainRuntime, PortWish, Restart, Runtime as _,
};
use berth_spec::manifest::Egress;
use rustix::process::Signal;
use rustix::thread::UnshareFlags;

use crate::network::not_tested;
use crate::world::{World, line_with, records, stop_within};

/// The machine's address on the cable.
pub(crate) const MACHINE: &str = "192.0.2.1";
/// Where the API listens, in a manner of speaking.
pub(crate) const API: u16 = 7_070;
/// What the internet answers at, on port 80, and on port 81 with what it is sent: a server, a database in the private network, metadata services.
pub(crate) const SERVER: &str = "203.0.113.80";
pub(crate) const PRIVATE: &str = "10.9.8.7";
pub(crate) const METADATA: [&str; 3] = ["169.254.169.254", "100.100.100.200", "168.63.129.16"];
/// The metadata service of a cloud by IPv6.
pub(crate) const METADATA_6: &str = "fd00:ec2::254";

pub(crate) fn ip(line: &str) -> String {
    run("ip", line)
}

fn nft(line: &str) -> String {
    run("nft", line)
}

#[expect(clippy::disallowed_methods, reason = "the test lays cables, which nothing of ours does for it")]
fn run(program: &str, line: &str) -> String {
    let output = Command::new(program).args(line.split(' ')).output().unwrap();
    assert!(output.status.success(), "{program} {line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[expect(unsafe_code, reason = "only the calling thread moves, and the test is in it")]
fn new_network() {
    // SAFETY: neither files nor memory are unshared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
    ip("link set lo up");
}

/// Makes this thread's network the machine's, with the internet behind it. Whoever connects there is told his address.
pub(crate) fn machine() {
    new_network();
    let (tell, told) = channel();
    let (laid, cable) = channel::<()>();
    std::thread::spawn(move || {
        new_network();
        tell.send(rustix::thread::gettid().as_raw_nonzero()).unwrap();
        cable.recv().unwrap();
        ip("addr add 192.0.2.2/24 dev net0");
        ip("addr add 2001:db8::2/64 dev net0 nodad");
        ip("link set net0 up");
        for address in [SERVER, PRIVATE].iter().chain(&METADATA) {
            ip(&format!("addr add {address}/32 dev lo"));
        }
        ip(&format!("addr add {METADATA_6}/128 dev lo"));
        let listener = TcpListener::bind("[::]:80").unwrap();
        let (datagrams, echo) = (UdpSocket::bind("[::]:80").unwrap(), TcpListener::bind("[::]:81").unwrap());
        std::thread::spawn(move || {
            let mut datagram = [0; 64];
            while let Ok((length, peer)) = datagrams.recv_from(&mut datagram) {
                drop(datagrams.send_to(&datagram[..length], peer));
            }
        });
        std::thread::spawn(move || {
            for peer in echo.incoming().map(Result::unwrap) {
                std::thread::spawn(move || std::io::copy(&mut &peer, &mut &peer));
            }
        });
        tell.send(std::num::NonZero::<i32>::MIN).unwrap();
        for peer in listener.incoming() {
            let mut peer = peer.unwrap();
            let address = peer.peer_addr().unwrap().ip().to_canonical().to_string();
            // Whoever only looked whether it connects is gone.
            drop(peer.write_all(address.as_bytes()));
        }
    });
    let internet = told.recv().unwrap();
    ip(&format!("link add up0 type veth peer name net0 netns {internet}"));
    ip(&format!("addr add {MACHINE}/24 dev up0"));
    ip("addr add 2001:db8::1/64 dev up0 nodad");
    ip("link set up0 up");
    ip("route add default via 192.0.2.2");
    ip("-6 route add default via 2001:db8::2");
    laid.send(()).unwrap();
    told.recv().unwrap();
    let mut seen = String::new();
    TcpStream::connect((SERVER, 80)).unwrap().read_to_string(&mut seen).unwrap();
    assert_eq!(seen, MACHINE);
}

/// Runs `test` on a machine of its own; says aloud where that cannot be.
fn on_a_machine(test: impl AsyncFnOnce(World, PlainRuntime)) {
    if !rustix::process::geteuid().is_root() {
        return not_tested("only root can make a way out");
    }
    if let Some(why) = crate::absent() {
        return not_tested(why);
    }
    machine();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let world = World::new();
        let runtime = world.runtime();
        if let Some(why) = runtime.capabilities().no_egress {
            return not_tested(&why);
        }
        test(world, runtime).await;
    });
}

async fn try_all(world: &World, runtime: &PlainRuntime, egress: Egress, targets: &[String]) -> Vec<String> {
    let mut spec = InstanceSpec {
        network: Network::Own,
        egress,
        restart: Restart::Never,
        port: PortWish::None,
        ..world.spec("attack")
    };
    spec.env.insert("TARGETS".to_owned(), targets.join(" "));
    runtime.start(spec.clone()).await.unwrap();
    line_with(runtime, &spec.id, "tried all").await;
    let lines = records(runtime, &spec.id);
    let lines = lines.iter().map(|record| String::from_utf8_lossy(&record.body).into_owned());
    let tried: Vec<String> = lines
        .filter_map(|line| Some(line.strip_prefix("tried ")?.to_owned()))
        .filter(|line| line != "all")
        .collect();
    assert_eq!(tried.len(), targets.len(), "{tried:?}");
    tried
}

async fn serve(world: &World, runtime: &PlainRuntime) -> Observed {
    let mut spec =
        InstanceSpec { network: Network::Own, egress: Egress::Internet, ..world.spec("serve_all") };
    spec.env.insert("NAME".to_owned(), "neighbour".to_owned());
    let started = runtime.start(spec.clone()).await.unwrap();
    line_with(runtime, &spec.id, "ready").await;
    started
}

/// The interface here of the instance's pair, and the instance's address, as the machine's routes have them.
fn link_of(observed: &Observed) -> (String, String) {
    let link = format!("bv{}", observed.dialer().unwrap());
    let routes = ip("-o route show");
    let route = routes.lines().find(|line| line.contains(&link)).expect("there is a route to it");
    (link.clone(), route.split(' ').next().unwrap().to_owned())
}

fn until_gone(link: &str) {
    while ip("-o link show").contains(link) {
        // wait: the kernel takes a network down in its own time, once nobody is in it
        std::thread::yield_now();
    }
}

fn reached(tried: &[String]) -> Vec<&str> {
    tried.iter().filter_map(|line| line.strip_suffix(": reached")).collect()
}

#[test]
fn an_app_reaches_the_internet_and_the_private_network_as_the_machine() {
    on_a_machine(async |world, runtime| {
        let targets = [format!("{SERVER}:80"), format!("{PRIVATE}:80")];
        let tried = try_all(&world, &runtime, Egress::Internet, &targets).await;
        assert_eq!(reached(&tried), targets);
        // Nobody out there has a route to the instance's address, so that an answer came to the machine's.
        assert!(!ip("-o route show").contains("198.18.0.0/15"));
        runtime.end_all().unwrap();
    });
}

#[test]
fn attack_on_metadata_addresses_from_a_network_with_a_way_out() {
    on_a_machine(async |world, runtime| {
        let mut targets = METADATA.map(|address| format!("{address}:80")).to_vec();
        targets.push(format!("[{METADATA_6}]:80"));
        for target in &targets {
            TcpStream::connect(target).expect("the machine itself reaches it");
        }
        assert_eq!(reached(&try_all(&world, &runtime, Egress::Internet, &targets).await), [""; 0]);
        runtime.end_all().unwrap();
    });
}

#[test]
fn attack_on_the_machine_from_a_network_with_a_way_out() {
    on_a_machine(async |world, runtime| {
        let _api = TcpListener::bind(("0.0.0.0", API)).unwrap();
        // The gateway's address is nobody's; should it ever be the machine's, this is asked.
        let targets = [MACHINE, "127.0.0.1", "198.19.255.254"].map(|address| format!("{address}:{API}"));
        TcpStream::connect((MACHINE, API)).expect("it listens");
        assert_eq!(reached(&try_all(&world, &runtime, Egress::Internet, &targets).await), [""; 0]);
        runtime.end_all().unwrap();
    });
}

#[test]
fn attack_on_a_neighbour_from_a_network_with_a_way_out() {
    on_a_machine(async |world, runtime| {
        let neighbour = serve(&world, &runtime).await;
        let (_, address) = link_of(&neighbour);
        let targets = [format!("{address}:{OWN_PORT}")];
        assert_eq!(reached(&try_all(&world, &runtime, Egress::Internet, &targets).await), [""; 0]);
        runtime.end_all().unwrap();
    });
}

#[test]
fn an_app_without_egress_reaches_nothing() {
    on_a_machine(async |world, runtime| {
        let targets = [format!("{SERVER}:80"), format!("{PRIVATE}:80"), format!("{MACHINE}:22")];
        let tried = try_all(&world, &runtime, Egress::None, &targets).await;
        assert!(tried.iter().all(|line| line.ends_with("NetworkUnreachable")), "{tried:?}");
        runtime.end_all().unwrap();
    });
}

/// Waits until `is_so`.
async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        // wait: for a thread of the runtime, which hears of it from the kernel
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

fn rules_are_there() -> bool {
    nft("list tables").contains("table inet berth_")
}

/// Somebody empties the packet filter, as a firewall's restart does, and resets whether packets are passed on, as `sysctl --system` does. What runs
/// keeps its way out, and gets no further; nothing has to be started for that.
#[test]
fn rules_that_somebody_removed_are_put_back_while_an_instance_runs() {
    on_a_machine(async |world, runtime| {
        runtime.adopt_all().await.unwrap();
        let served = serve(&world, &runtime).await;
        let before = nft("-s list ruleset");
        nft("flush ruleset");
        until(rules_are_there).await;
        assert_eq!(nft("-s list ruleset"), before);
        std::fs::write(FORWARD, "0").unwrap();
        until(|| std::fs::read_to_string(FORWARD).unwrap().trim() == "1").await;
        // Whoever should have noticed may be away: the next one looks.
        drop(runtime);
        nft("flush ruleset");
        let runtime = world.runtime();
        assert!(!rules_are_there());
        runtime.adopt_all().await.unwrap();
        assert_eq!(nft("-s list ruleset"), before);
        runtime.stop(&served.id, stop_within(100)).await.unwrap();
        runtime.end_all().unwrap();
        assert!(!rules_are_there());
    });
}

/// As ufw, firewalld and Docker have it: another table drops or refuses what is passed on. Ours cannot let it pass, so that it is told.
#[test]
fn a_firewall_that_drops_what_instances_send_is_told_with_what_helps() {
    on_a_machine(async |world, runtime| {
        let target = [format!("{SERVER}:80")];
        let chain = "add chain ip fw FORWARD { type filter hook forward priority 0 ; policy";
        for (policy, rule) in [("drop", None), ("accept", Some("add rule ip fw FORWARD reject"))] {
            nft("add table ip fw");
            nft(&format!("{chain} {policy} ; }}"));
            rule.map(nft);
            let told = |runtime: &PlainRuntime| runtime.capabilities().no_egress;
            // A platform that starts now knows it at once, without any instance, and leaves nothing of its try.
            let another = World::new();
            let why = told(&another.runtime()).expect("it is told");
            assert!(why.starts_with("the packet filter's ip fw FORWARD drop"), "{why}");
            assert!(!nft("list tables").contains("_try"));
            let tried = try_all(&world, &runtime, Egress::Internet, &target).await;
            assert_eq!(reached(&tried), [""; 0]);
            until(|| told(&runtime).as_ref() == Some(&why)).await;
            // Somebody mends it; nothing has to be started anew.
            nft("delete table ip fw");
            until(|| told(&runtime).is_none()).await;
            let tried = try_all(&world, &runtime, Egress::Internet, &target).await;
            assert_eq!(reached(&tried), target);
        }
        runtime.end_all().unwrap();
    });
}

/// Somebody changes the packet filter: the next start makes the rules anew. While nobody does they are left alone.
#[test]
fn rules_that_somebody_removed_are_there_again_at_the_next_start() {
    on_a_machine(async |world, runtime| {
        let targets = [SERVER, METADATA[0]].map(|address| format!("{address}:80"));
        let mut tables = Vec::new();
        for changes in ["", "", "flush ruleset", "add table inet another", ""] {
            if !changes.is_empty() {
                nft(changes);
            }
            let tried = try_all(&world, &runtime, Egress::Internet, &targets).await;
            // Without rules nothing would come back from the server, and everything go to the metadata service.
            assert_eq!(reached(&tried), targets[..1], "after {changes:?}");
            let listed = nft("-a list ruleset");
            let ours = listed.lines().find(|line| line.contains("table inet berth_")).unwrap().to_owned();
            tables.push(ours);
        }
        // A table that is made anew has another number.
        let anew: Vec<bool> = tables.windows(2).map(|pair| pair[0] != pair[1]).collect();
        assert_eq!(anew, [false, true, true, false], "{tables:?}");
        runtime.end_all().unwrap();
        assert!(!nft("list tables").contains("berth_"));
    });
}

#[test]
fn nothing_of_a_way_out_outlives_its_instance() {
    on_a_machine(async |world, runtime| {
        let stopped = serve(&world, &runtime).await;
        let (link, _) = link_of(&stopped);
        runtime.stop(&stopped.id, stop_within(100)).await.unwrap();
        runtime.remove(&stopped.id).await.unwrap();
        until_gone(&link);
        // Killed with everything that could have cleaned up.
        let killed = serve(&world, &runtime).await;
        let (link, _) = link_of(&killed);
        let id = killed.id.clone();
        let shim = killed.shim.clone().unwrap();
        drop(runtime);
        let pid = rustix::process::Pid::from_raw(i32::try_from(shim.pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
        let runtime = world.runtime();
        runtime.adopt_all().await.unwrap();
        until_gone(&link);
        runtime.remove(&id).await.unwrap();
        runtime.end_all().unwrap();
    });
}
