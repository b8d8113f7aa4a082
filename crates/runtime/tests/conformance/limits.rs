//! How much of the machine an instance may take. The bombs are small, and each has a bound of its own below what would hurt the machine,
//! should a limit not hold.

use berth_runtime::{InstanceSpec, InstanceState, Resources};

use super::Bench;

const MIB: u64 = 1 << 20;
/// Takes 300 MiB, if it is let.
const BOMB: &str = r#"exec perl -e '$x = "x" x 314572800; print length $x'"#;

fn limited(bench: &Bench, script: &str, resources: Resources) -> InstanceSpec {
    InstanceSpec { resources, ..bench.shell(script) }
}

pub(super) async fn processes_are_limited(bench: Bench) {
    let script = "for i in $(seq 200); do sleep 1000 & echo started; done 2>/dev/null; echo all";
    let spec = limited(&bench, script, Resources { processes: Some(32), ..Resources::default() });
    let (_, said) = bench.run(&spec).await;
    let started = said.iter().filter(|line| *line == "started").count();
    assert!((20..32).contains(&started), "{started}");
}

pub(super) async fn memory_is_limited_and_running_out_is_told(bench: Bench) {
    let memory = Resources { memory: Some(64 * MIB), ..Resources::default() };
    let spec = limited(&bench, BOMB, memory);
    let exit = bench.run(&spec).await.0;
    assert_eq!((exit.signal, exit.oom), (Some(9), Some(true)), "{exit:?}");
    let modest = bench.run(&limited(&bench, "exit 1", memory)).await.0;
    assert_eq!((modest.code, modest.oom), (Some(1), Some(false)), "{modest:?}");
}

pub(super) async fn one_that_ran_out_is_started_again(bench: Bench) {
    let memory = Resources { memory: Some(64 * MIB), ..Resources::default() };
    let spec = InstanceSpec { resources: memory, ..bench.service(BOMB) };
    bench.runtime().start(spec.clone()).await.unwrap();
    let observed = bench.until(&spec.id, |observed| observed.exit_count >= 2).await;
    assert!(observed.exits.iter().all(|exit| exit.oom == Some(true)), "{observed:?}");
    bench.end(&spec.id).await;
}

pub(super) async fn a_child_that_ran_out_is_told_while_its_program_lives(bench: Bench) {
    let memory = Resources { memory: Some(64 * MIB), ..Resources::default() };
    // Nothing is printed after it, which would have the shim look anyway.
    let script = format!("({BOMB}); while :; do sleep 1000; done");
    let spec = InstanceSpec { resources: memory, ..bench.service(&script) };
    bench.runtime().start(spec.clone()).await.unwrap();
    let observed = bench.until(&spec.id, |observed| observed.oom_kills > 0).await;
    assert_eq!((observed.oom_kills, observed.exit_count), (1, 0), "{observed:?}");
    assert!(matches!(observed.state, InstanceState::Running { .. }), "{observed:?}");
    let told = bench.line(&spec.id, "memory ran out").await;
    assert_eq!(told, "[memory ran out: the kernel ended a process of this instance]");
    bench.end(&spec.id).await;
}

/// Where language runtimes look for what they adapt to, in either version of control groups.
pub(super) async fn runtimes_find_their_limits(bench: Bench) {
    let script = "cd /sys/fs/cgroup; cat memory.max memory/memory.limit_in_bytes 2>/dev/null; cat cpu.max 2>/dev/null || for it in cpu cpu,cpuacct; do
        test -e $it/cpu.cfs_quota_us && echo $(cat $it/cpu.cfs_quota_us $it/cpu.cfs_period_us) && break; done";
    let resources = Resources { memory: Some(64 * MIB), cpu_millis: Some(500), ..Resources::default() };
    let said = bench.run(&limited(&bench, script, resources)).await.1;
    assert_eq!(said[0], (64 * MIB).to_string(), "{said:?}");
    let (quota, period) = said[1].split_once(' ').unwrap();
    assert_eq!(quota.parse::<u64>().unwrap() * 2, period.parse::<u64>().unwrap());
}

pub(super) async fn room_is_limited(bench: Bench) {
    let resources = Resources { tmp: Some(8 * MIB), ..Resources::default() };
    let script = "head -c 33554432 /dev/zero > $TMPDIR/full; wc -c < $TMPDIR/full; rm $TMPDIR/full; for i in $(seq 3000); do touch $TMPDIR/$i 2>/dev/null || break; done; ls $TMPDIR | wc -l";
    let said = bench.run(&limited(&bench, script, resources)).await.1;
    let numbers: Vec<u64> = said.iter().map(|line| line.trim().parse().unwrap()).collect();
    assert!(numbers[0] <= 8 * MIB && numbers[0] > 7 * MIB, "{numbers:?}");
    assert!(numbers[1] <= 1_024, "{numbers:?}");
}
