//! What edge makes of an instance's health, and how it says so.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};

use berth_routing::wire::{FromEdge, Health, ToEdge};
use berth_routing::{ProbePath, Role};

use crate::world::{Options, World, instance, listen, nobody, read_until, with_probe};

/// An instance that answers probes by path: `status` and further headers, or nothing for a path that it lacks.
fn answering(answers: &'static [(&'static str, &'static str)]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let Some(head) = read_until(&mut stream, "\r\n\r\n") else { continue };
            let path = head.split(' ').nth(1).unwrap();
            assert!(head.contains("host: shop.localhost\r\n"), "an app may insist on its host: {head}");
            let answer = answers
                .iter()
                .find(|(wanted, _)| *wanted == path)
                .map_or("404 Not Found", |(_, answer)| answer);
            drop(write!(stream, "HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n"));
        }
    });
    addr
}

/// An edge with a candidate at `addr`, none of whose messages was read yet.
fn probing(addr: SocketAddr, path: ProbePath) -> World {
    let mut world = World::start(Options::default());
    world.control.send(&ToEdge::Snapshot(with_probe(1, &[(addr, Role::Candidate)], path)));
    world
}

/// The first health of a candidate at `addr`, with the last of its evidence.
fn first_health(addr: SocketAddr, path: ProbePath) -> (Health, String) {
    let mut world = probing(addr, path);
    let (message, _) = world.control.wait(|message| matches!(message, FromEdge::Health { .. }));
    let FromEdge::Health { instance: whose, health, evidence } = message else { unreachable!() };
    assert_eq!(whose, instance(1));
    (health, evidence.last().unwrap().clone())
}

#[test]
fn a_strict_path_must_answer_itself() {
    let strict = |path: &str| ProbePath::Strict(path.to_owned());
    let addr = answering(&[
        ("/ok", "204 No Content"),
        ("/moved", "302 Found\r\nlocation: /login"),
        ("/bad", "500 No"),
    ]);
    assert_eq!(first_health(addr, strict("/ok")), (Health::Ready, "GET /ok answered 204".to_owned()));
    let moved = "GET /moved answered 302, redirected to /login; a health check must answer 2xx itself";
    assert_eq!(first_health(addr, strict("/moved")), (Health::Unready, moved.to_owned()));
    assert_eq!(first_health(addr, strict("/bad")), (Health::Unready, "GET /bad answered 500".to_owned()));
    assert_eq!(first_health(addr, strict("/none")), (Health::Unready, "GET /none answered 404".to_owned()));
}

#[test]
fn a_guess_tries_the_usual_paths_and_then_the_connection() {
    let up = answering(&[("/up", "200 OK")]);
    assert_eq!(first_health(up, ProbePath::Guess), (Health::Ready, "GET /up answered 200".to_owned()));
    let none = answering(&[]);
    assert_eq!(first_health(none, ProbePath::Guess), (Health::Ready, "accepts connections".to_owned()));
    let (health, evidence) = first_health(answering(&[("/healthz", "401 No")]), ProbePath::Guess);
    assert_eq!(health, Health::Ready);
    assert!(evidence.starts_with("GET /healthz answered 401"), "{evidence}");
}

#[test]
fn an_instance_that_comes_up_late_is_found_ready() {
    let (addr, fd) = nobody();
    let mut world = probing(addr, ProbePath::Guess);
    let (first, _) = world.control.wait(|message| matches!(message, FromEdge::Health { .. }));
    let refused = vec!["takes no connection: connection refused".to_owned()];
    assert_eq!(first, FromEdge::Health { instance: instance(1), health: Health::Unready, evidence: refused });
    let listener = listen(fd);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            read_until(&mut stream, "\r\n\r\n");
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
        }
    });
    world.control.wait(|message| matches!(message, FromEdge::Health { health: Health::Ready, .. }));
}
