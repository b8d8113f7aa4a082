//! Instances in networks of their own, the test being the shim: what it hands out are sockets of the test's network, which is all the same
//! to edge.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};

use berth_routing::wire::{FromEdge, Health, ToEdge};
use berth_routing::{Endpoint, Role, Snapshot};
use berth_shim::dial;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::world::{HANG, Instance, Options, World, shop};

/// What a shim was asked, and how it went on.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    For(usize),
    Closed,
}

const NAME: &str = "0123456789ab";

/// A shim that hands out what is asked for and tells of it.
fn shim(folder: &Path) -> Receiver<Asked> {
    let listener = UnixListener::bind(folder.join(format!("{NAME}.sock"))).unwrap();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for line in listener.incoming() {
            let (line, tell) = (line.unwrap(), tell.clone());
            std::thread::spawn(move || answer(line, &tell));
        }
    });
    told
}

fn answer(mut line: UnixStream, tell: &Sender<Asked>) {
    let mut question = [0];
    while line.read_exact(&mut question).is_ok() {
        // What edge asks of the way to other apps is another test's.
        let Some(count) = dial::asked(&question) else { return };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let make = |_| socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
        let sockets: Vec<OwnedFd> = (0..count).map(make).collect();
        // The test may be over.
        drop(tell.send(Asked::For(count)));
        drop(dial::answer(&line, &sockets));
    }
    drop(tell.send(Asked::Closed));
}

fn dialed(generation: u64, addr: SocketAddr, role: Role) -> Snapshot {
    let mut snapshot = shop(generation, &[(addr, role)]);
    for backend in snapshot.apps.values_mut().flat_map(|route| &mut route.backends) {
        backend.endpoint = Endpoint::Dialer { name: NAME.to_owned(), port: addr.port() };
    }
    snapshot
}

/// What workers asked for; a probe asks for one and is gone again.
fn by_workers(told: &Receiver<Asked>) -> usize {
    std::iter::from_fn(|| told.try_recv().ok()).filter(|it| matches!(it, Asked::For(2..))).count()
}

#[test]
fn requests_and_probes_go_by_sockets_of_the_instances_network() {
    let (mirror, _seen) = Instance::mirror();
    let mut world = World::start(Options { threads: 1, ..Options::default() });
    let told = shim(world.dial_folder());
    world.control.send(&ToEdge::Snapshot(dialed(1, mirror.addr, Role::Candidate)));
    let wanted = |message: &FromEdge| matches!(message, FromEdge::Health { health: Health::Ready, .. });
    world.control.wait(wanted);
    assert_eq!(told.recv_timeout(HANG).unwrap(), Asked::For(1));
    world.apply(&dialed(2, mirror.addr, Role::Routed));
    // Each on a connection of its own to edge, of which some find a pooled one to the instance and some do not.
    let clients: Vec<TcpStream> = (0..4)
        .map(|_| {
            let mut client = TcpStream::connect(world.addr).unwrap();
            client
                .write_all(b"GET /x HTTP/1.1\r\nHost: shop.localhost\r\nConnection: close\r\n\r\n")
                .unwrap();
            client
        })
        .collect();
    for mut client in clients {
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert_eq!(by_workers(&told), 1, "one batch is enough for four connections");
}

#[test]
fn what_is_spare_holds_up_no_drain_and_goes_with_the_route() {
    let (mirror, _seen) = Instance::mirror();
    let mut world = World::start(Options { threads: 1, ..Options::default() });
    let told = shim(world.dial_folder());
    world.apply(&dialed(1, mirror.addr, Role::Routed));
    assert_eq!(world.get("shop.localhost", "/").status, 200);
    world.apply(&dialed(2, mirror.addr, Role::Parked));
    world.control.wait_drained(1);
    // A probe's line is closed after its question, a worker's only now.
    let mut open = 0_i32;
    let mut batches = 0;
    while batches == 0 || open > 0 {
        match told.recv_timeout(HANG).expect("the lines are closed") {
            Asked::For(count) => {
                open += 1;
                batches += i32::from(count > 1);
            }
            Asked::Closed => open -= 1,
        }
    }
    assert_eq!(batches, 1);
}

#[test]
fn a_shim_that_is_gone_is_an_instance_that_refuses() {
    let (mirror, _seen) = Instance::mirror();
    let mut world = World::start(Options::default());
    // Not by `apply`: the first health may be told before a thread says that it uses the snapshot.
    world.control.send(&ToEdge::Snapshot(dialed(1, mirror.addr, Role::Candidate)));
    let unready = |message: &FromEdge| matches!(message, FromEdge::Health { health: Health::Unready, .. });
    let (FromEdge::Health { evidence, .. }, _) = world.control.wait(unready) else { unreachable!() };
    assert!(evidence.iter().any(|line| line.contains("connection refused")), "{evidence:?}");
    // Beside one that answers it is passed over; alone it is waited for.
    let mut both = shop(2, &[(mirror.addr, Role::Routed), (mirror.addr, Role::Routed)]);
    let backends = both.apps.values_mut().flat_map(|route| &mut route.backends);
    backends.take(1).for_each(|backend| {
        backend.endpoint = Endpoint::Dialer { name: NAME.to_owned(), port: mirror.addr.port() };
    });
    world.apply(&both);
    for _ in 0..10 {
        assert_eq!(world.get("shop.localhost", "/").status, 200);
    }
    world.apply(&dialed(3, mirror.addr, Role::Routed));
    let mut client = world.client();
    client.send("GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n");
    let _told = shim(world.dial_folder());
    assert_eq!(client.response(true).unwrap().status, 200);
}

#[test]
fn a_line_that_the_shim_has_closed_is_opened_anew() {
    let (mirror, _seen) = Instance::mirror();
    let mut world = World::start(Options { threads: 1, ..Options::default() });
    let listener = UnixListener::bind(world.dial_folder().join(format!("{NAME}.sock"))).unwrap();
    // Answers once on each line and hangs up.
    std::thread::spawn(move || {
        for line in listener.incoming() {
            let mut line = line.unwrap();
            let mut question = [0];
            if line.read_exact(&mut question).is_ok() {
                let flags = SocketFlags::NONBLOCK;
                let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
                drop(dial::answer(&line, &[socket]));
            }
        }
    });
    world.apply(&dialed(1, mirror.addr, Role::Routed));
    for _ in 0..3 {
        let close = "GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n";
        // Both are busy at once, so that the second needs a connection of its own to the instance.
        let (mut first, mut second) = (world.client(), world.client());
        first.send(close);
        second.send(close);
        assert_eq!(first.response(true).unwrap().status, 200);
        assert_eq!(second.response(true).unwrap().status, 200);
    }
}

#[test]
fn a_name_that_leads_out_of_the_folder_leads_nowhere() {
    let (mirror, _seen) = Instance::mirror();
    let mut world = World::start(Options::default());
    std::fs::create_dir(world.dial_folder().join("below")).unwrap();
    let _told = shim(world.dial_folder());
    let mut snapshot = crate::world::with_hold(dialed(1, mirror.addr, Role::Routed), 1);
    for backend in snapshot.apps.values_mut().flat_map(|route| &mut route.backends) {
        backend.endpoint = Endpoint::Dialer { name: format!("below/../{NAME}"), port: mirror.addr.port() };
    }
    world.apply(&snapshot);
    assert_eq!(world.get("shop.localhost", "/").status, 503);
}
