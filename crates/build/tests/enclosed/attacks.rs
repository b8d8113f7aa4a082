//! What a build tries to get out of its sandbox, each attempt by its name: a script within the build says what it gained, and a test fails
//! when that is anything.

use std::fs;
use std::io::Read as _;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::sync::Arc;

use berth_process::{Child, Launch, Program};
use berth_runtime::{Network, Runtime as _};
use berth_spec::Isolation;

use crate::enclosed;
use crate::place::{Place, as_root, is_running};

/// What a build of `place` that runs the script gained: what it says behind the word.
async fn gains(place: &Place, build: &str, script: &str) -> String {
    let manifest = format!("[build]\ncommand = \"sh attack.sh\"\n{build}\n[processes]\nweb = \"x\"");
    let (outcome, lines) = place.build(&[("attack.sh", script)], &manifest).await;
    let said = lines.text();
    outcome.unwrap_or_else(|error| panic!("{error:?}\n{said}"));
    assert!(said.lines().any(|line| line == "tried"), "{said}");
    said.lines().filter_map(|line| line.strip_prefix("gained ")).collect::<Vec<_>>().join("; ")
}

/// The attempts that need nothing prepared: their names, and scripts that say what they gained.
const ALONE: [(&str, &str); 3] = [
    (
        "rights",
        "grep -E '^Cap(Eff|Prm|Bnd|Amb)' /proc/self/status | grep -v 0000000000000000 | sed 's/^/gained /'
         grep -q 'NoNewPrivs:.*1' /proc/self/status || echo gained new privileges
         grep -q 'Seccomp:.*2' /proc/self/status || echo gained all system calls
         echo tried",
    ),
    (
        "the_kernels_doors",
        "unshare -Ur true 2>/dev/null && echo gained a user namespace
         mount -t tmpfs none /tmp 2>/dev/null && echo gained a mount
         mkdir -p $TMPDIR/root && chroot $TMPDIR/root / 2>/dev/null && echo gained a root
         [ \"$(uname -m)\" = x86_64 ] && perl -e '
            print \"gained ptrace\\n\" if syscall(101, 0, 0, 0, 0) == 0;
            print \"gained keys\\n\" if syscall(250, 0, -3, 1) >= 0;
            print \"gained io_uring\\n\" if syscall(425, 1, \"\\0\" x 120) >= 0;
            print \"gained a performance counter\\n\" if syscall(298, \"\\0\" x 128, 0, -1, -1, 0) >= 0;'
         echo tried",
    ),
    (
        "the_machines_files",
        "for path in /etc/shadow /etc/ssh /etc/machine-id /boot /var/lib/dpkg /var/log /sys/kernel /proc/kcore /dev/mem /dev/kmsg \\
             /proc/1/root/etc/shadow; do
           [ -s $path ] && echo gained $path
         done
         for path in /usr /etc /opt / /proc/sys/kernel/core_pattern; do [ -w $path ] && echo gained to write $path; done
         echo tried",
    ),
];

async fn gains_alone(name: &str) {
    let Some(place) = enclosed(|_| {}) else { return };
    let (_, script) = ALONE.iter().find(|(known, _)| *known == name).unwrap();
    assert_eq!(gains(&place, "", script).await, "");
}

#[tokio::test]
async fn a_build_gains_no_rights() {
    gains_alone("rights").await;
}

#[tokio::test]
async fn a_build_cannot_trace_mount_or_unshare() {
    gains_alone("the_kernels_doors").await;
}

#[tokio::test]
async fn a_build_sees_none_of_the_machines_files() {
    gains_alone("the_machines_files").await;
}

/// The attempts are real: with nothing around a build the same ones gain something.
#[tokio::test]
async fn attempts_gain_something_from_bare_builds() {
    let place = Place::with(|config| config.enclosure = None);
    for (name, expected) in [
        ("rights", "all system calls"),
        ("the_kernels_doors", "ptrace"),
        ("the_machines_files", "/var/lib/dpkg"),
    ] {
        let (_, script) = ALONE.iter().find(|(known, _)| *known == name).unwrap();
        let gained = gains(&place, "", script).await;
        assert!(gained.contains(expected), "{name}: {gained}");
    }
    prepare_secrets(&place);
    let gained = gains(&place, "", &secrets(&place)).await;
    assert!(gained.contains("/keys/kek") && gained.contains("precious"), "{gained}");
    let sleeper = Sleeper::start();
    let gained = gains(&place, "", &sleeper.look()).await;
    assert!(gained.contains("/proc/"), "{gained}");
}

/// A process of the machine's.
struct Sleeper {
    child: Child,
    word: String,
}

impl Sleeper {
    fn start() -> Self {
        let word = format!("98{}.25", std::process::id());
        let launch = Launch::new(Program::Tool("/usr/bin/sleep".into())).arg(&word);
        Self { child: launch.start().unwrap(), word }
    }

    /// A script that looks for it. Itself has another word in its command line.
    fn look(&self) -> String {
        let pattern = self.word.replacen("98", "9[8]", 1);
        format!(
            "for process in /proc/[0-9]*; do grep -aq '{pattern}' $process/cmdline 2>/dev/null && echo gained $process; done
             echo tried"
        )
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.child.signal_group(berth_process::Signal::KILL).unwrap();
        self.child.wait().unwrap();
    }
}

#[tokio::test]
async fn a_build_sees_no_other_process() {
    let Some(place) = enclosed(|_| {}) else { return };
    let sleeper = Sleeper::start();
    assert!(is_running(&sleeper.word));
    let script = sleeper.look()
        + "\nfor process in /proc/[0-9]*; do [ ${process#/proc/} -lt 300 ] || echo gained to count $process; done";
    assert_eq!(gains(&place, "", &script).await, "");
}

/// Secrets of the platform and of another app, with nothing in front of them but the sandbox.
fn prepare_secrets(place: &Place) {
    for file in SECRETS {
        let path = place.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        for above in path.parent().unwrap().ancestors().take_while(|above| *above != place.path("")) {
            fs::set_permissions(above, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(&path, "precious").unwrap();
    }
}

const SECRETS: [&str; 6] = [
    "keys/kek",
    "journal/journal.db",
    "builds/.cache/default/default/other/npm/token",
    "builds/default/default/other/0/src/main.c",
    "artifacts/default/default/other/1/config",
    "run/api.sock",
];

fn secrets(place: &Place) -> String {
    let paths: Vec<String> = SECRETS.iter().map(|path| place.path(path).display().to_string()).collect();
    format!(
        "for path in {}; do [ -e $path ] && echo gained $path: $(cat $path); done\necho tried",
        paths.join(" ")
    )
}

#[tokio::test]
async fn a_build_reads_nothing_of_another_app_or_the_platform() {
    let Some(place) = enclosed(|_| {}) else { return };
    prepare_secrets(&place);
    assert_eq!(gains(&place, "", &secrets(&place)).await, "");
}

/// What lies in the home among the machine's programs is covered, though those are shown.
#[tokio::test]
async fn a_platform_among_the_machines_programs_is_not_seen_either() {
    if !as_root() {
        println!("SKIPPED: only root writes to /opt");
        return;
    }
    let Some(_) = enclosed(|_| {}) else { return };
    let home = tempfile::tempdir_in("/opt").unwrap();
    let place = Place::at(home, |_| {});
    prepare_secrets(&place);
    assert_eq!(gains(&place, "", &secrets(&place)).await, "");
}

#[tokio::test]
async fn a_build_without_a_network_gets_to_no_port() {
    let Some(place) = enclosed(|_| {}) else { return };
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let script = to_ports(listener.local_addr().unwrap().port());
    assert_eq!(gains(&place, "network = false", &script).await, "");
}

/// Tries a port of the machine's, by its loopback and by the address that others know it by.
fn to_ports(port: u16) -> String {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // Nothing is sent: the address is that of whatever interface leads there.
    let outward = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr());
    let outward = outward.map_or_else(|_no_route| String::new(), |address| address.ip().to_string());
    format!(
        "for host in 127.0.0.1 127.0.1.1 {outward}; do
           bash -c \"exec 3<>/dev/tcp/$host/{port}\" 2>/dev/null && echo gained $host
         done
         echo tried"
    )
}

#[tokio::test]
async fn a_build_with_a_network_of_its_own_gets_out_and_not_to_this_machine() {
    let home = tempfile::tempdir().unwrap();
    let runtime = crate::runtime(home.path());
    if let Some(why) = runtime.capabilities().no_egress {
        println!("SKIPPED: {why}");
        return;
    }
    let Some(place) = enclosed(|config| {
        config.enclosure = Some(Arc::new(crate::sandbox(&runtime, home.path(), Network::Own)));
    }) else {
        return;
    };
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let out = "grep -q eth0: /proc/net/dev && echo gained a way out\n";
    let script = out.to_owned() + &to_ports(listener.local_addr().unwrap().port());
    assert_eq!(gains(&place, "", &script).await, "a way out");
    // Two commands at once are no obstacle to each other, nor is what one before left of its network.
    let scripts = ["one", "two"].map(|word| format!("{script}\n# {word}"));
    let (one, two) = tokio::join!(gains(&place, "", &scripts[0]), gains(&place, "", &scripts[1]));
    assert_eq!((one.as_str(), two.as_str()), ("a way out", "a way out"));
    assert_eq!(gains(&place, "network = false", &script).await, "");
    runtime.end_all().unwrap();
}

#[tokio::test]
async fn a_build_gets_to_no_socket_without_a_path() {
    let Some(place) = enclosed(|_| {}) else { return };
    let version = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = version.split('.').filter_map(|number| number.parse::<u32>().ok());
    if (numbers.next(), numbers.next()) < (Some(6), Some(12)) {
        println!("SKIPPED: Landlock keeps nobody from these before Linux 6.12");
        return;
    }
    let name = format!("berth-test-{}", std::process::id());
    let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let script = format!(
        "perl -MSocket -e 'socket(my $s, AF_UNIX, SOCK_STREAM, 0) or die;
           print \"gained the socket\\n\" if connect($s, pack(\"Sa*\", AF_UNIX, \"\\0{name}\"));'
         echo tried"
    );
    assert_eq!(gains(&place, "", &script).await, "");
    let bare = Place::with(|config| config.enclosure = None);
    assert_eq!(gains(&bare, "", &script).await, "the socket");
}

/// A build has its own folder for what it leaves in `/tmp`, on the disk and gone with it.
#[tokio::test]
async fn what_a_build_leaves_in_tmp_nobody_sees() {
    let Some(place) = enclosed(|_| {}) else { return };
    let name = format!("/tmp/berth-left-{}", std::process::id());
    let script = format!(
        "[ -e {name} ] && echo gained what another left; echo x > {name} && cp {name} made; echo tried"
    );
    assert_eq!(gains(&place, "", &script).await, "");
    assert!(!Path::new(&name).try_exists().unwrap());
    assert_eq!(gains(&place, "", &(script + "\n# again")).await, "");
    place.assert_clean();
}

/// What a build was given through its standard input or left open by us: nothing.
#[tokio::test]
async fn a_build_has_three_descriptors_and_no_more() {
    let Some(place) = enclosed(|_| {}) else { return };
    let mut secret = fs::File::open("/etc/passwd").unwrap();
    rustix::io::fcntl_setfd(&secret, rustix::io::FdFlags::empty()).unwrap();
    let script = "for fd in /proc/self/fd/*; do
           case $fd in */0|*/1|*/2|*/10) ;; *) [ -e $fd ] && echo gained $fd: $(readlink $fd);; esac
         done
         echo tried";
    // A shell has its script open as the tenth.
    assert_eq!(gains(&place, "", script).await, "");
    let mut text = String::new();
    secret.read_to_string(&mut text).unwrap();
}

/// Without namespaces, Landlock and the filter of system calls are what there is.
#[tokio::test]
async fn at_confined_a_build_has_its_own_files_alone() {
    // Not in /tmp, which builds have there.
    let home = tempfile::tempdir_in("/var/tmp").unwrap();
    let runtime = crate::runtime_at(home.path(), Some(Isolation::Confined));
    let place = Place::at(tempfile::tempdir_in("/var/tmp").unwrap(), |config| {
        let sandbox = crate::sandbox(&runtime, home.path(), Network::Host);
        assert_eq!(sandbox.level(), Isolation::Confined);
        config.enclosure = Some(Arc::new(sandbox));
    });
    prepare_secrets(&place);
    // That a file is there can be seen, and not what is in it.
    let gained = gains(&place, "", &secrets(&place)).await;
    assert!(!gained.contains("precious"), "{gained}");
    let (_, script) = ALONE.iter().find(|(known, _)| *known == "the_kernels_doors").unwrap();
    assert_eq!(gains(&place, "", script).await, "");
    let script = "set -e; mkdir one two; echo x > one/a; mv one/a two/b; ln two/b one/c; echo x > $TMPDIR/d; mv $TMPDIR/d .; echo tried";
    assert_eq!(gains(&place, "", script).await, "");
}
