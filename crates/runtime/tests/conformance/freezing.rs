//! Instances that stand still.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use berth_runtime::{Frozen, InstanceSpec};

use super::Bench;
use crate::world::{LONG, stop_within};

async fn echo(bench: &Bench) -> (InstanceSpec, TcpStream) {
    let spec = bench.world.spec("echo");
    let started = bench.start(&spec, "listening").await;
    let mut stream = TcpStream::connect(("127.0.0.1", started.port.unwrap())).unwrap();
    assert!(answers(&mut stream, LONG));
    (spec, stream)
}

fn answers(stream: &mut TcpStream, limit: Duration) -> bool {
    stream.write_all(b"x").unwrap();
    answered(stream, limit)
}

fn answered(stream: &mut TcpStream, limit: Duration) -> bool {
    stream.set_read_timeout(Some(limit)).unwrap();
    stream.read_exact(&mut [0; 1]).is_ok()
}

async fn stands_still(bench: Bench, how: Frozen) {
    let (spec, mut stream) = echo(&bench).await;
    bench.runtime().freeze(&spec.id, how).await.unwrap();
    assert!(!answers(&mut stream, Duration::from_millis(50)));
    bench.runtime().thaw(&spec.id).await.unwrap();
    assert!(answered(&mut stream, LONG) && answers(&mut stream, LONG));
    bench.end(&spec.id).await;
}

pub(super) async fn it_stands_still_and_goes_on(bench: Bench) {
    stands_still(bench, Frozen::Resident).await;
}

pub(super) async fn it_goes_on_with_its_memory_paged_out(bench: Bench) {
    stands_still(bench, Frozen::PagedOut).await;
}

pub(super) async fn it_can_be_stopped_as_it_stands(bench: Bench) {
    for kill in [false, true] {
        let (spec, _stream) = echo(&bench).await;
        bench.runtime().freeze(&spec.id, Frozen::Resident).await.unwrap();
        let ended = if kill {
            bench.runtime().kill(&spec.id).await.unwrap()
        } else {
            bench.runtime().stop(&spec.id, stop_within(60_000)).await.unwrap()
        };
        assert_eq!(ended.exits.last().unwrap().signal, Some(if kill { 9 } else { 15 }));
        bench.runtime().remove(&spec.id).await.unwrap();
    }
}

pub(super) async fn twice_is_as_once(bench: Bench) {
    let (spec, mut stream) = echo(&bench).await;
    let runtime = bench.runtime();
    runtime.thaw(&spec.id).await.unwrap();
    for _ in 0..2 {
        runtime.freeze(&spec.id, Frozen::Resident).await.unwrap();
    }
    for _ in 0..2 {
        runtime.thaw(&spec.id).await.unwrap();
    }
    assert!(answers(&mut stream, LONG));
    bench.end(&spec.id).await;
}
