//! Commands that run within an instance, beside its app.

use berth_runtime::{
    Attach, Attached, Ends, Exec, Executing, Exit, InstanceSpec, Observed, RuntimeError, Size, Step,
};

use super::{Bench, all};
use crate::world::{LONG, descendants};

/// What a process may do and where it is: the same for an app and for what runs beside it.
const SELF: &str = r#"
id -u; id -g; id -G; umask; pwd; ulimit -a; env | grep -v '^_=' | sort
for it in user mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$it; done
grep -E '^(Cap|NoNewPrivs|Seccomp|Groups|SigBlk|SigIgn|CoreDump|TracerPid)' /proc/self/status
cat /proc/self/cgroup; cat /proc/self/oom_score_adj
for it in / /root /home /etc/shadow /proc/1/environ /sys/kernel/debug; do ls "$it" >/dev/null 2>&1; echo "$it $?"; done
cat /proc/self/mountinfo | cut -d' ' -f 3-"#;

fn shell(script: &str) -> Exec {
    Exec { argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(), ..Exec::default() }
}

/// An app that is there, and nothing else.
async fn app(bench: &Bench) -> (InstanceSpec, Observed) {
    let spec = bench.service("echo ready; exec sleep 1000");
    let started = bench.start(&spec, "ready").await;
    (spec, started)
}

async fn begin(bench: &Bench, spec: &InstanceSpec, exec: Exec) -> (Ends, Executing) {
    let (attached, executing) = bench.runtime().exec(&spec.id, exec, Attach::Pipes).await.unwrap();
    (attached.into_ends().unwrap(), executing)
}

async fn over(executing: &mut Executing) -> Exit {
    tokio::time::timeout(LONG, executing.over()).await.unwrap().unwrap()
}

/// Runs it to its end: how it ended, and what it wrote to its output.
async fn run(bench: &Bench, spec: &InstanceSpec, exec: Exec) -> (Exit, String) {
    let (ends, mut executing) = begin(bench, spec, exec).await;
    drop(ends.input);
    let output = all(&ends.output).await;
    (over(&mut executing).await, String::from_utf8(output).unwrap())
}

/// The processes of an instance, once they are as many as they were.
async fn until_alone(started: &Observed, before: &[u32]) {
    let shim = started.shim.as_ref().unwrap().pid;
    let alone = async {
        while descendants(shim) != before {
            // wait: until the kernel has ended what is being killed.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let ended = tokio::time::timeout(LONG, alone).await;
    assert!(ended.is_ok(), "{:?} instead of {before:?}", descendants(shim));
}

pub(super) async fn it_says_what_it_does(bench: Bench) {
    let (spec, _) = app(&bench).await;
    let (ends, mut executing) = begin(&bench, &spec, shell("cat; echo wrong >&2; exit 3")).await;
    ends.input.write_all(b"read and written\n").await.unwrap();
    drop(ends.input);
    let errors = ends.errors.unwrap();
    let (output, errors) = tokio::join!(all(&ends.output), all(&errors));
    assert_eq!((&output[..], &errors[..]), (&b"read and written\n"[..], &b"wrong\n"[..]));
    let exit = over(&mut executing).await;
    assert_eq!((exit.code, exit.signal, exit.failure), (Some(3), None, None));
    let (exit, _) = run(&bench, &spec, shell("kill -9 $$")).await;
    assert_eq!((exit.code, exit.signal), (None, Some(9)));
    bench.end(&spec.id).await;
}

pub(super) async fn it_is_what_the_app_is(bench: Bench) {
    let spec = bench.service(&format!("{SELF}\necho ready; exec sleep 1000"));
    bench.start(&spec, "ready").await;
    let app = bench.lines(&spec.id, berth_runtime::Stream::Out);
    let (exit, beside) = run(&bench, &spec, shell(&format!("{SELF}\necho ready"))).await;
    assert_eq!(exit.code, Some(0));
    assert_eq!(beside.lines().collect::<Vec<_>>(), app);
    bench.end(&spec.id).await;
}

pub(super) async fn it_has_what_was_handed_to_it_and_nothing_else(bench: Bench) {
    let (spec, _) = app(&bench).await;
    let (_, listed) = run(&bench, &spec, shell("ls /proc/self/fd | tr '\\n' ' '")).await;
    // That of the folder is the one that lists it.
    assert_eq!(listed, "0 1 2 3 ");
    let env = ["HOME=/elsewhere", "MORE=a=b"].map(str::to_owned).to_vec();
    let exec = Exec { env, ..shell("echo $HOME $MORE $PORT") };
    let (_, said) = run(&bench, &spec, exec).await;
    assert!(said.starts_with("/elsewhere a=b"), "{said}");
    bench.end(&spec.id).await;
}

/// It shares what the app has, its processes and files among them.
pub(super) async fn it_meets_the_app(bench: Bench) {
    let spec = bench.service(r#"echo $$ >"$TMPDIR/pid"; echo ready; exec sleep 1000"#);
    bench.start(&spec, "ready").await;
    let look = r#"tr '\0' ' ' <"/proc/$(cat "$TMPDIR/pid")/cmdline""#;
    let (_, said) = run(&bench, &spec, shell(look)).await;
    assert_eq!(said, "sleep 1000 ");
    bench.end(&spec.id).await;
}

pub(super) async fn it_signals_the_app(bench: Bench) {
    let spec = bench.service(
        r#"trap 'echo heard' TERM; echo $$ >"$TMPDIR/pid"; echo ready
        while true; do sleep 0.05; done"#,
    );
    bench.start(&spec, "ready").await;
    let (exit, said) = run(&bench, &spec, shell(r#"kill "$(cat "$TMPDIR/pid")" && echo sent"#)).await;
    assert_eq!((exit.code, said.as_str()), (Some(0), "sent\n"));
    bench.line(&spec.id, "heard").await;
    bench.end(&spec.id).await;
}

pub(super) async fn a_terminal_is_one(bench: Bench) {
    let (spec, _) = app(&bench).await;
    let exec = Exec { terminal: true, ..shell("test -t 0 && test -t 2 && stty size && echo hello >/dev/tty") };
    let size = Size { rows: 7, columns: 77 };
    let begun = bench.runtime().exec(&spec.id, exec, Attach::Terminal(size)).await.unwrap();
    let (attached, mut executing): (Attached, Executing) = begun;
    let ends = attached.into_ends().unwrap();
    let written = all(&ends.output).await;
    assert_eq!(String::from_utf8(written).unwrap(), "7 77\r\nhello\r\n");
    assert_eq!(over(&mut executing).await.code, Some(0));
    bench.end(&spec.id).await;
}

pub(super) async fn what_it_leaves_behind_ends_with_it(bench: Bench) {
    let (spec, started) = app(&bench).await;
    let before = descendants(started.shim.as_ref().unwrap().pid);
    let scatter = "for i in 1 2 3 4 5; do (setsid sh -c 'trap \"\" HUP TERM; (sleep 1000 & sleep 1000)' >/dev/null 2>&1 &); done; echo done";
    let (exit, said) = run(&bench, &spec, shell(scatter)).await;
    assert_eq!((exit.code, said.as_str()), (Some(0), "done\n"));
    assert_eq!(descendants(started.shim.as_ref().unwrap().pid), before);
    bench.end(&spec.id).await;
}

pub(super) async fn whoever_hangs_up_ends_it(bench: Bench) {
    let (spec, started) = app(&bench).await;
    let before = descendants(started.shim.as_ref().unwrap().pid);
    let script = "trap '' HUP TERM INT; (setsid sleep 1000 &); echo begun; while true; do sleep 1; done";
    let (ends, executing) = begin(&bench, &spec, shell(script)).await;
    let mut buffer = [0; 16];
    assert_eq!(ends.output.read(&mut buffer).await.unwrap(), 6);
    drop((ends, executing));
    until_alone(&started, &before).await;
    bench.end(&spec.id).await;
}

pub(super) async fn it_ends_with_the_app(bench: Bench) {
    let (spec, _) = app(&bench).await;
    let (ends, mut executing) = begin(&bench, &spec, shell("trap '' TERM; echo begun; exec sleep 1000")).await;
    let mut buffer = [0; 16];
    assert_eq!(ends.output.read(&mut buffer).await.unwrap(), 6);
    bench.end(&spec.id).await;
    // Its end is told, unless the shim was gone before it was heard.
    let exit = tokio::time::timeout(LONG, executing.over()).await.unwrap();
    assert!(exit.is_none_or(|exit| exit.signal == Some(9)), "{exit:?}");
}

pub(super) async fn many_run_at_once(bench: Bench) {
    let (spec, started) = app(&bench).await;
    let before = descendants(started.shim.as_ref().unwrap().pid);
    let mut begun = Vec::new();
    for number in 0..8 {
        begun.push(begin(&bench, &spec, shell(&format!("read it; echo {number} $it"))).await);
    }
    for (number, (ends, executing)) in begun.iter_mut().enumerate() {
        ends.input.write_all(b"x\n").await.unwrap();
        assert_eq!(all(&ends.output).await, format!("{number} x\n").into_bytes());
        assert_eq!(over(executing).await.code, Some(0));
    }
    until_alone(&started, &before).await;
    bench.end(&spec.id).await;
}

pub(super) async fn it_works_for_the_next_control_and_the_next_life(mut bench: Bench) {
    let spec = bench.service("echo ready; read it </dev/null; exec sleep 1000");
    bench.start(&spec, "ready").await;
    bench.reopen();
    bench.runtime().adopt_all().await.unwrap();
    let (exit, _) = run(&bench, &spec, shell("true")).await;
    assert_eq!(exit.code, Some(0));
    bench.runtime().signal(&spec.id, 9).await.unwrap();
    bench.until(&spec.id, |it| it.restarts == 1 && crate::world::is_running(it)).await;
    let (exit, said) = run(&bench, &spec, shell("echo again")).await;
    assert_eq!((exit.code, said.as_str()), (Some(0), "again\n"));
    bench.end(&spec.id).await;
}

pub(super) async fn what_cannot_be_run_is_told(bench: Bench) {
    let (spec, _) = app(&bench).await;
    let exec = Exec { argv: vec!["/no/such/program".to_owned()], ..Exec::default() };
    let (exit, _) = run(&bench, &spec, exec.clone()).await;
    let failure = exit.failure.unwrap();
    assert_eq!((exit.code, failure.step, failure.errno), (Some(127), Step::Exec, libc::ENOENT));
    let long = Exec { argv: vec!["x".repeat(1 << 20)], ..Exec::default() };
    let refused = bench.runtime().exec(&spec.id, long, Attach::Pipes).await;
    assert!(matches!(refused, Err(RuntimeError::TooLong)), "{refused:?}");
    bench.runtime().stop(&spec.id, crate::world::stop_within(100)).await.unwrap();
    let refused = bench.runtime().exec(&spec.id, exec.clone(), Attach::Pipes).await;
    assert!(matches!(refused, Err(RuntimeError::NotRunning(_))), "{refused:?}");
    bench.runtime().remove(&spec.id).await.unwrap();
    let refused = bench.runtime().exec(&spec.id, exec, Attach::Pipes).await;
    assert!(matches!(refused, Err(RuntimeError::NotFound(_))), "{refused:?}");
}
