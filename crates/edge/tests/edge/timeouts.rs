//! How long an app may take to begin an answer, and that it may take as long as it likes to end one.

use std::sync::mpsc::channel;

use berth_routing::{Role, Snapshot};
use berth_spec::Millis;

use crate::world::{HANG, Instance, Options, World, shop};

const GET: &str = "GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n";

pub(crate) fn within(mut snapshot: Snapshot, millis: u64) -> Snapshot {
    for backend in snapshot.apps.values_mut().flat_map(|app| &mut app.backends) {
        backend.request_timeout = Some(Millis(millis));
    }
    snapshot
}

#[test]
fn an_app_that_does_not_begin_to_answer_is_given_up_and_hears_of_it() {
    let (told, heard) = channel();
    let told = std::sync::Mutex::new(told);
    let instance = Instance::scripted(move |mut call| {
        let rest = call.read_to_end();
        drop(told.lock().unwrap().send(rest));
    });
    let world = World::serving(&within(shop(1, &[(instance.addr, Role::Routed)]), 200));
    let mut client = world.client();
    let response = client.request(GET);
    assert_eq!(response.status, 504);
    assert!(response.body.contains("app_timed_out"), "{}", response.body);
    assert_eq!(heard.recv_timeout(HANG), Ok(Vec::new()), "its connection is closed");
    assert_eq!(client.request("GET / HTTP/1.1\r\nHost: nobody\r\n\r\n").status, 404, "the client's goes on");
}

#[test]
fn an_answer_that_has_begun_may_take_its_time() {
    let (go, gate) = channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let instance = Instance::scripted(move |mut call| {
        call.write("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n4\r\none\n\r\n");
        gate.lock().unwrap().recv_timeout(HANG).unwrap();
        call.write("4\r\ntwo\n\r\n0\r\n\r\n");
        call.read_to_end();
    });
    let silent = Instance::scripted(|mut call| drop(call.read_to_end()));
    let mut world = World::start(Options::default());
    let backends = [(instance.addr, Role::Routed)];
    world.apply(&within(shop(1, &backends), 150));
    let mut stream = world.client();
    stream.send(GET);
    let head = crate::world::read_until(&mut stream.stream, "one\n\r\n").unwrap();
    assert!(head.contains("200 OK"));
    // Meanwhile the time of another request, which began later, is up.
    world.apply(&within(shop(2, &[(silent.addr, Role::Routed)]), 150));
    assert_eq!(world.client().request(GET).status, 504);
    go.send(()).unwrap();
    assert!(crate::world::read_until(&mut stream.stream, "0\r\n\r\n").unwrap().contains("two"));
}

#[test]
fn an_upload_has_the_time_that_its_client_takes() {
    let (told, began) = channel();
    let told = std::sync::Mutex::new(told);
    let instance = Instance::scripted(move |mut call| {
        told.lock().unwrap().send(()).unwrap();
        call.read_until("end");
        call.respond_and_close("got it");
    });
    let silent = Instance::scripted(|mut call| drop(call.read_to_end()));
    let mut world = World::start(Options::default());
    world.apply(&within(shop(1, &[(instance.addr, Role::Routed)]), 150));
    let mut upload = world.client();
    upload.send("POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 6\r\n\r\nthe");
    began.recv_timeout(HANG).unwrap();
    world.apply(&within(shop(2, &[(silent.addr, Role::Routed)]), 150));
    assert_eq!(world.client().request(GET).status, 504);
    assert_eq!(world.client().request(GET).status, 504, "the time of the upload would be up twice by now");
    upload.send("end");
    assert_eq!(upload.response(true).unwrap().body, "got it");
}
