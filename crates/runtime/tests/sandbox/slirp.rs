//! The way out of an ordinary user's instances. The machine and the internet are networks of the test's own, which root makes; the test itself is run
//! again in them as an ordinary user, and has root do what only root can.
#![expect(
    clippy::print_stdout,
    reason = "the two say to each other what is to be done, and to whoever reads it what was"
)]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use berth_runtime::{InstanceSpec, Network, PlainRuntime, Runtime as _};
use berth_spec::manifest::Egress;
use rustix::fs::{FileType, Mode, makedev, mknodat};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::process::{Pid, Signal};
use rustix::thread::UnshareFlags;

use crate::egress::{API, MACHINE, METADATA, METADATA_6, PRIVATE, SERVER, ip, machine};
use crate::errands::ERRANDS;
use crate::network::not_tested;
use crate::world::{World, descendants, is_running, line_with, records, stop_within, until};

/// Says that this is the test as an ordinary user.
const AGAIN: &str = "BERTH_TEST_AGAIN";
/// Nobody's number on any machine.
const USER: u32 = 61_235;
/// What root is asked to do begins with it.
const ROOT: &str = "root: ";
/// The first words of what the resolver at the machine answers.
const ANSWER: &str = "the machine's resolver";

/// Runs the test `name` as an ordinary user on a machine of its own; says aloud where that cannot be.
fn as_ordinary_user(name: &str, test: impl AsyncFnOnce(World, PlainRuntime)) {
    if std::env::var(AGAIN).is_ok() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            let runtime = world.runtime();
            assert_eq!(runtime.capabilities().no_egress, None);
            test(world, runtime).await;
        });
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return not_tested("only root can make a machine and an internet");
    }
    if berth_process::Program::Slirp.path().is_err() {
        return not_tested("slirp4netns is not installed");
    }
    machine();
    furnish();
    serve_names();
    let home = tempfile::tempdir().unwrap();
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let (built, here) = (std::env::current_exe().unwrap(), home.path().join("exe"));
    if std::fs::hard_link(&built, &here).is_err() {
        std::fs::copy(&built, &here).unwrap();
    }
    again(&here, name);
}

#[expect(clippy::disallowed_methods, reason = "the test is no program of the platform's")]
fn again(program: &std::path::Path, name: &str) {
    let mut command = Command::new(program);
    command.args(["--exact", &format!("slirp::{name}"), "--nocapture", "--test-threads=1"]);
    command.env_clear().env(AGAIN, "1").env("PATH", "/usr/bin:/bin").current_dir("/").uid(USER).gid(USER);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    for line in from.lines().map(Result::unwrap) {
        println!("{line}");
        if let Some(order) = line.strip_prefix(ROOT) {
            ip(order);
            to.write_all(b"done\n").unwrap();
        }
    }
    assert!(child.wait().unwrap().success());
}

/// Has root do something about the machine's network.
fn root(order: &str) {
    println!("\n{ROOT}{order}");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    assert_eq!(line, "done\n");
}

/// Gives this thread the driver of interfaces as most machines have it, and a resolver at the machine's own address.
#[expect(unsafe_code, reason = "only the calling thread moves, and the test is in it")]
fn furnish() {
    // SAFETY: files are unshared with what shares them, which is this thread's alone.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    std::fs::create_dir_all("/dev/net").unwrap();
    rustix::mount::mount("net", "/dev/net", "tmpfs", MountFlags::empty(), None).unwrap();
    let (cwd, mode) = (rustix::fs::CWD, Mode::from_raw_mode(0o666));
    mknodat(cwd, "/dev/net/tun", FileType::CharacterDevice, mode, makedev(10, 200)).unwrap();
    std::fs::set_permissions("/dev/net/tun", std::fs::Permissions::from_mode(0o666)).unwrap();
    std::fs::write("/dev/net/resolv.conf", format!("nameserver {MACHINE}\n")).unwrap();
    rustix::mount::mount_bind("/dev/net/resolv.conf", "/etc/resolv.conf").unwrap();
}

fn serve_names() {
    let socket = UdpSocket::bind((MACHINE, 53)).unwrap();
    std::thread::spawn(move || {
        while let Ok((_, peer)) = socket.recv_from(&mut [0; 64]) {
            drop(socket.send_to(ANSWER.as_bytes(), peer));
        }
    });
}

fn spec(world: &World, egress: Egress, errands: &[String]) -> InstanceSpec {
    let mut spec = InstanceSpec { network: Network::Own, egress, ..world.spec("errands") };
    let exe = spec.mounts[0].target.to_str().unwrap().to_owned();
    let words = [&exe, "--exact", "errands::role", "--nocapture", "--test-threads=1"].map(str::to_owned);
    spec.command = berth_spec::Command::Argv(words.to_vec());
    spec.env.insert(ERRANDS.to_owned(), errands.join(","));
    spec
}

/// Has an instance do errands, and gives what it says of each.
async fn sent(world: &World, runtime: &PlainRuntime, errands: &[String]) -> (InstanceSpec, Vec<String>) {
    let spec = spec(world, Egress::Internet, errands);
    runtime.start(spec.clone()).await.unwrap();
    line_with(runtime, &spec.id, "did all").await;
    let said = said(runtime, &spec);
    (spec, said)
}

fn said(runtime: &PlainRuntime, spec: &InstanceSpec) -> Vec<String> {
    let lines = records(runtime, &spec.id).into_iter();
    let lines = lines.map(|record| String::from_utf8_lossy(&record.body).into_owned());
    lines
        .filter(|line| line.starts_with("did ") || line.starts_with("could not "))
        .filter(|line| line != "did all")
        .collect()
}

/// The processes of an instance that are called so.
fn called(shim: u32, name: &str) -> BTreeSet<u32> {
    let is_it = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.starts_with(name))
    };
    descendants(shim).into_iter().filter(is_it).collect()
}

const KEEPER: &str = "berth-way-out";
const SLIRP: &str = "slirp4netns";

/// The only one of the instance's processes that is called so.
fn only(shim: u32, name: &str) -> u32 {
    let found = called(shim, name);
    assert_eq!(found.len(), 1, "{name} {found:?}");
    *found.first().unwrap()
}

fn kill(pid: u32) {
    rustix::process::kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
}

fn until_none(pids: &[u32]) {
    let lives = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    };
    while pids.iter().any(lives) {
        // wait: the kernel ends whose parent has ended in its own time
        std::thread::yield_now();
    }
}

#[test]
fn an_ordinary_users_app_gets_out_as_the_machine() {
    as_ordinary_user("an_ordinary_users_app_gets_out_as_the_machine", async |world, runtime| {
        let errands = [
            format!("hear {SERVER}:80"),
            format!("hear {PRIVATE}:80"),
            format!("ask {SERVER}:80"),
            format!("bulk {SERVER}:81"),
            "resolve".to_owned(),
            format!("connect {SERVER}:82"),
        ];
        let (spec, said) = sent(&world, &runtime, &errands).await;
        let answers = [MACHINE, MACHINE, "anybody", "intact", ANSWER];
        let mut expected: Vec<String> =
            errands.iter().zip(answers).map(|(errand, answer)| format!("did {errand}: {answer}")).collect();
        // What is refused out there is refused in here.
        expected.push(format!("could not {}: ConnectionRefused", errands[5]));
        assert_eq!(said, expected);
        let shim = runtime.observe(&spec.id).await.unwrap().shim.unwrap().pid;
        let program = only(shim, SLIRP);
        let status = std::fs::read_to_string(format!("/proc/{program}/status")).unwrap();
        assert!(status.contains("Seccomp:\t2") && status.contains(&format!("Uid:\t{USER}")), "{status}");
        runtime.end_all().unwrap();
    });
}

#[test]
fn attack_on_the_machine_and_metadata_from_an_ordinary_users_network() {
    let name = "attack_on_the_machine_and_metadata_from_an_ordinary_users_network";
    as_ordinary_user(name, async |world, runtime| {
        let _api = TcpListener::bind(("0.0.0.0", API)).unwrap();
        let datagrams = UdpSocket::bind(("0.0.0.0", API)).unwrap();
        let group = Ipv4Addr::new(224, 0, 0, 251);
        datagrams.join_multicast_v4(&group, &MACHINE.parse().unwrap()).unwrap();
        datagrams.set_nonblocking(true).unwrap();
        let mut targets = METADATA.map(|address| format!("{address}:80")).to_vec();
        for target in &targets {
            std::net::TcpStream::connect(target).expect("the machine itself reaches it");
        }
        let machine =
            [MACHINE, "127.0.0.1", "127.0.0.2", "0.0.0.0", "198.18.0.2", "198.18.0.3", "198.18.0.100"];
        targets.extend(machine.map(|address| format!("{address}:{API}")));
        let connects = targets.iter().flat_map(|target| {
            let bound = ["eth0", "lo", "berth0"].map(|interface| format!("connect {target} {interface}"));
            [format!("connect {target}")].into_iter().chain(bound)
        });
        let mut errands: Vec<String> = connects.collect();
        errands.push(format!("connect [{METADATA_6}]:80"));
        let all = ["255.255.255.255".to_owned(), "192.0.2.255".to_owned(), group.to_string()];
        let one = [MACHINE, "127.0.0.1"].map(str::to_owned);
        for address in all.into_iter().chain(one) {
            errands.push(format!("ask {address}:{API}"));
            errands.push(format!("ask {address}:{API} eth0"));
        }
        errands.extend(METADATA.map(|address| format!("ask {address}:80 eth0")));
        // That there is a way out at all, or the rest would say nothing.
        errands.push(format!("hear {SERVER}:80"));
        let (_, said) = sent(&world, &runtime, &[errands.join("+")]).await;
        assert_eq!(said.len(), errands.len(), "{said:#?}");
        let did: Vec<&String> = said.iter().filter(|line| line.starts_with("did ")).collect();
        assert_eq!(did, [&format!("did hear {SERVER}:80: {MACHINE}")], "{said:#?}");
        let came = datagrams.recv_from(&mut [0; 64]);
        assert!(came.is_err(), "{came:?}");
        runtime.end_all().unwrap();
    });
}

/// The machine gets another address while an instance runs, and loses it again.
#[test]
fn attack_on_an_address_that_the_machine_gets_later() {
    as_ordinary_user("attack_on_an_address_that_the_machine_gets_later", async |world, runtime| {
        let _api = TcpListener::bind(("0.0.0.0", API)).unwrap();
        let later = format!("203.0.113.99:{API}");
        let errands =
            [format!("hear {SERVER}:80"), format!("connect {later}"), format!("connect {later} eth0")];
        root("addr add 203.0.113.99/32 dev lo");
        let (_, said) = sent(&world, &runtime, &errands).await;
        let did: Vec<&String> = said.iter().filter(|line| line.starts_with("did ")).collect();
        assert_eq!(did, [&format!("did hear {SERVER}:80: {MACHINE}")], "{said:?}");
        root("addr del 203.0.113.99/32 dev lo");
        // The server's own address becomes the machine's, and is refused where it was just reached; then the other way round.
        let both = [errands[0].clone(), format!("until-not {SERVER}:80"), format!("until {SERVER}:80")];
        let watches = spec(&world, Egress::Internet, &both);
        runtime.start(watches.clone()).await.unwrap();
        line_with(&runtime, &watches.id, "did hear").await;
        root(&format!("addr add {SERVER}/32 dev lo"));
        line_with(&runtime, &watches.id, "did until-not").await;
        root(&format!("addr del {SERVER}/32 dev lo"));
        line_with(&runtime, &watches.id, "did all").await;
        runtime.end_all().unwrap();
    });
}

#[test]
fn an_ordinary_users_app_without_egress_reaches_nothing() {
    as_ordinary_user("an_ordinary_users_app_without_egress_reaches_nothing", async |world, runtime| {
        for egress in [Egress::None, Egress::Internal] {
            let spec = spec(&world, egress, &[format!("connect {SERVER}:80"), format!("ask {SERVER}:80")]);
            let started = runtime.start(spec.clone()).await.unwrap();
            line_with(&runtime, &spec.id, "did all").await;
            let said = said(&runtime, &spec);
            assert!(said.iter().all(|line| line.ends_with("NetworkUnreachable")), "{said:?}");
            assert_eq!(called(started.shim.unwrap().pid, KEEPER), BTreeSet::new());
        }
        runtime.end_all().unwrap();
    });
}

/// slirp4netns is killed: the instance goes on, and has another. Its keeper is killed: the instance ends, since nothing else can start one there, and
/// nothing of it is left. The shim is killed: nothing is left either.
#[test]
fn a_way_out_ends_with_its_instance_and_is_made_again_before() {
    as_ordinary_user("a_way_out_ends_with_its_instance_and_is_made_again_before", async |world, runtime| {
        let errands = [format!("hear {SERVER}:80")];
        let (first, _) = sent(&world, &runtime, &errands).await;
        let shim = runtime.observe(&first.id).await.unwrap().shim.unwrap().pid;
        let (keeper, killed) = (only(shim, KEEPER), only(shim, SLIRP));
        for killed in [killed].into_iter().chain(std::iter::once_with(|| only(shim, SLIRP)).take(1)) {
            kill(killed);
            while called(shim, SLIRP).iter().all(|pid| *pid == killed) {
                // wait: the keeper starts another in its own time
                std::thread::yield_now();
            }
        }
        // The app is the same one: it is told to go again by being started anew within its network.
        let app = runtime.observe(&first.id).await.unwrap();
        assert!(is_running(&app));
        restart_app(&runtime, &first, "did all").await;
        let again = only(shim, SLIRP);
        assert_eq!(only(shim, KEEPER), keeper, "the app's end is not its keeper's");

        // Control goes away, and another finds the instance and all of it.
        drop(runtime);
        let runtime = world.runtime();
        runtime.adopt_all().await.unwrap();
        assert_eq!((only(shim, KEEPER), only(shim, SLIRP)), (keeper, again));
        restart_app(&runtime, &first, "did all").await;

        kill(keeper);
        until(&runtime, &first.id, |observed| observed.state.is_over()).await;
        until_none(&[shim, keeper, again]);
        runtime.remove(&first.id).await.unwrap();

        let (second, _) = sent(&world, &runtime, &errands).await;
        let shim = runtime.observe(&second.id).await.unwrap().shim.unwrap().pid;
        let left = [only(shim, KEEPER), only(shim, SLIRP)];
        kill(shim);
        until_none(&left);
        until(&runtime, &second.id, |observed| observed.state.is_over()).await;
        runtime.remove(&second.id).await.unwrap();

        let (third, _) = sent(&world, &runtime, &errands).await;
        let shim = runtime.observe(&third.id).await.unwrap().shim.unwrap().pid;
        let left = [only(shim, KEEPER), only(shim, SLIRP)];
        runtime.stop(&third.id, stop_within(100)).await.unwrap();
        runtime.remove(&third.id).await.unwrap();
        until_none(&left);
        runtime.end_all().unwrap();
    });
}

/// Has the app of an instance be started again by its shim, and waits until it has done its errands and says `word` once more.
async fn restart_app(runtime: &PlainRuntime, spec: &InstanceSpec, word: &str) {
    let count = || {
        let lines = records(runtime, &spec.id).into_iter();
        lines.filter(|record| String::from_utf8_lossy(&record.body).contains(word)).count()
    };
    let before = count();
    runtime.signal(&spec.id, 9).await.unwrap();
    while count() == before {
        // wait: the log is read anew until the app has written to it
        tokio::task::yield_now().await;
    }
    assert!(said(runtime, spec).iter().all(|line| line.starts_with("did ")));
}
