//! One-off commands: run to their end, or with somebody connected to them.

use std::time::Duration;

use berth_runtime::{Attach, Ends, Exit, InstanceSpec, RuntimeError, Size};

use super::{Bench, all};

pub(super) async fn a_run_gives_its_end_and_leaves_nothing(bench: Bench) {
    let spec = bench.shell("echo one; echo two; exit 3");
    let done = bench.runtime().run_once(spec.clone(), None).await.unwrap();
    assert_eq!((done.exit.unwrap().code, done.timed_out), (Some(3), false));
    let tail: Vec<&[u8]> = done.tail.iter().map(|record| &record.body[..]).collect();
    assert_eq!(tail, [b"one", b"two"]);
    assert!(!bench.world.folder(&spec.id).try_exists().unwrap());
    assert_eq!(bench.runtime().list(), []);
}

pub(super) async fn a_run_that_takes_too_long_is_killed(bench: Bench) {
    let spec = bench.shell("exec sleep 1000");
    let done = bench.runtime().run_once(spec, Some(Duration::from_millis(100))).await.unwrap();
    assert_eq!((done.timed_out, done.exit.unwrap().signal), (true, Some(9)));
}

async fn attached(bench: &Bench, spec: &InstanceSpec, how: Attach) -> Ends {
    let (_, attached) = bench.runtime().start_attached(spec.clone(), how).await.unwrap();
    attached.into_ends().unwrap()
}

async fn over(bench: &Bench, spec: &InstanceSpec) -> Exit {
    let over = bench.runtime().over(&spec.id).await.unwrap();
    bench.runtime().remove(&spec.id).await.unwrap();
    *over.exits.last().unwrap()
}

pub(super) async fn pipes_carry_every_byte(bench: Bench) {
    let spec = bench.shell("cat");
    let ends = attached(&bench, &spec, Attach::Pipes).await;
    let bytes: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let Ends { input, output, .. } = ends;
    let writes = async {
        input.write_all(&bytes).await.unwrap();
        drop(input);
    };
    let ((), back) = tokio::join!(writes, all(&output));
    assert!(back == bytes, "{} of {} bytes", back.len(), bytes.len());
    assert_eq!(over(&bench, &spec).await.code, Some(0));
    // It went to no log.
    assert_eq!(bench.lines(&spec.id, berth_runtime::Stream::Out), Vec::<String>::new());
}

pub(super) async fn output_and_errors_stay_apart(bench: Bench) {
    let spec = bench.shell("echo out; echo err >&2");
    let ends = attached(&bench, &spec, Attach::Pipes).await;
    let errors = ends.errors.unwrap();
    let (out, err) = tokio::join!(all(&ends.output), all(&errors));
    assert_eq!((&out[..], &err[..]), (&b"out\n"[..], &b"err\n"[..]));
    over(&bench, &spec).await;
}

pub(super) async fn the_end_of_the_input_arrives(bench: Bench) {
    let spec = bench.shell("wc -c");
    let Ends { input, output, .. } = attached(&bench, &spec, Attach::Pipes).await;
    input.write_all(b"12345").await.unwrap();
    drop(input);
    assert_eq!(String::from_utf8(all(&output).await).unwrap().trim(), "5");
    over(&bench, &spec).await;
}

pub(super) async fn the_status_of_an_attached_run_is_told(bench: Bench) {
    let spec = bench.shell("read line; exit $line");
    let Ends { input, output, .. } = attached(&bench, &spec, Attach::Pipes).await;
    input.write_all(b"42\n").await.unwrap();
    all(&output).await;
    assert_eq!(over(&bench, &spec).await.code, Some(42));
}

const SIZE: Size = Size { rows: 33, columns: 101 };

pub(super) async fn a_terminal_is_one(bench: Bench) {
    let spec = bench.shell("test -t 0 && test -t 1 && test -t 2 && : > /dev/tty && echo terminal");
    let ends = attached(&bench, &spec, Attach::Terminal(SIZE)).await;
    assert!(ends.terminal && ends.errors.is_none());
    assert_eq!(all(&ends.output).await, b"terminal\r\n");
    assert_eq!(over(&bench, &spec).await.code, Some(0));
}

pub(super) async fn a_terminal_has_its_size(bench: Bench) {
    let spec = bench.shell("stty size");
    let ends = attached(&bench, &spec, Attach::Terminal(SIZE)).await;
    assert_eq!(all(&ends.output).await, b"33 101\r\n");
    over(&bench, &spec).await;
}

pub(super) async fn an_interrupt_at_the_terminal_arrives(bench: Bench) {
    let spec = bench.shell("trap 'exit 21' INT; echo ready; while :; do sleep 0.05; done");
    let ends = attached(&bench, &spec, Attach::Terminal(SIZE)).await;
    let mut buffer = [0; 64];
    let read = ends.output.read(&mut buffer).await.unwrap();
    assert_eq!(&buffer[..read], b"ready\r\n");
    ends.input.write_all(&[3]).await.unwrap();
    all(&ends.output).await;
    assert_eq!(over(&bench, &spec).await.code, Some(21));
}

pub(super) async fn what_is_attached_is_not_started_twice(bench: Bench) {
    let spec = bench.shell("cat");
    let ends = attached(&bench, &spec, Attach::Pipes).await;
    let again = bench.runtime().start_attached(spec.clone(), Attach::Pipes).await;
    assert!(matches!(again, Err(RuntimeError::Occupied(_))));
    drop(ends);
    assert_eq!(over(&bench, &spec).await.code, Some(0));
}
