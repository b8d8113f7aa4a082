//! What builds may not take: the disk that releases need, a network that the manifest forbids, and a look at the platform.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![expect(clippy::print_stdout, reason = "a test says what it could not look at")]

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;

use berth_acceptance::{Answer, Options, Platform, User, exchange};

/// A site that a script of the app's own makes.
struct Site<'a> {
    platform: &'a Platform,
    name: String,
    dir: PathBuf,
}

impl<'a> Site<'a> {
    /// The app `name`, whose `build.sh` is `script`. `build` is more of the manifest's section.
    fn new(platform: &'a Platform, name: &str, build: &str, script: &str) -> Self {
        let dir = platform.scratch().join(name);
        fs::create_dir(&dir).unwrap();
        let manifest = format!("[build]\ncommand = \"sh build.sh\"\noutput = \"public\"\n{build}");
        fs::write(dir.join("berth.toml"), manifest).unwrap();
        fs::write(dir.join("package.json"), "{\"private\": true}").unwrap();
        fs::write(dir.join("build.sh"), format!("set -eu\nmkdir public\n{script}\n")).unwrap();
        Self { platform, name: name.to_owned(), dir }
    }

    fn deploy(&self) -> Answer {
        let path = self.dir.to_str().unwrap();
        self.platform.cli(["deploy", "--app", &self.name, path])
    }

    fn ask(&self) -> String {
        let request = format!("GET / HTTP/1.1\r\nhost: {}.localhost\r\nconnection: close\r\n\r\n", self.name);
        exchange(self.platform.edge(), request.as_bytes()).expect("edge answers").text()
    }
}

#[test]
fn what_builds_keep_goes_before_the_disk_is_full_and_no_release_does() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: only root can mount a small disk");
        return;
    }
    let platform = Platform::start(Options { home_size: Some(600 << 20), ..Options::default() });
    // Each build leaves 100 MB in what npm would keep between builds; seven of them are more than the disk has.
    let site = |name: &str| {
        let script = format!(
            "head -c 100000000 /dev/zero > \"$npm_config_cache/ballast\"\necho {name} one > public/index.html"
        );
        Site::new(&platform, name, "builder = \"node\"\n", &script)
    };
    let shop = site("shop");
    let first = shop.deploy();
    if first.stdout.contains("toolchain_missing") || first.stderr.contains("toolchain_missing") {
        println!("SKIPPED: Node.js is not installed");
        return;
    }
    let _first = first.ok();
    let script = fs::read_to_string(shop.dir.join("build.sh")).unwrap();
    fs::write(shop.dir.join("build.sh"), script.replace("shop one", "shop two")).unwrap();
    let mut said = vec![shop.deploy().ok().stdout];
    let others: Vec<Site<'_>> = ["a", "b", "c", "d", "e", "f"].map(site).into();
    for other in &others {
        said.push(other.deploy().ok().stdout);
    }
    let collected = |text: &&String| text.contains("the disk runs short: removed");
    let first = said.iter().position(|text| collected(&text)).expect("something had to go");
    assert!(first > 1, "the first builds had room: {said:?}");
    // What serves, and what may be rolled back to, is all there.
    for other in &others {
        assert_eq!(other.ask(), format!("{} one\n", other.name));
    }
    assert_eq!(shop.ask(), "shop two\n");
    let _rolled_back = platform.cli(["rollback", "--app", "shop"]).ok();
    assert_eq!(shop.ask(), "shop one\n");

    // Once nothing is left to go a build is refused, and nothing that a release needs is given for it.
    let plain = Site::new(&platform, "plain", "builder = \"static\"\n", "echo plain > public/index.html");
    let mut last = None;
    // A collection frees what is needed and no more; each round parts with two of the seven caches.
    for round in ["1", "2", "3", "4", "5"] {
        fill(&platform, round);
        fs::write(plain.dir.join("round"), round).unwrap();
        let answer = plain.deploy();
        if answer.status != 0 {
            last = Some(answer.stdout + &answer.stderr);
            break;
        }
        assert!(answer.stdout.contains("the disk runs short: removed"), "{}", answer.stdout);
    }
    let text = last.expect("the last of the caches is gone");
    assert!(
        text.contains("nothing that builds keep could be removed") && text.contains("disk_full"),
        "{text}"
    );
    let _there_again = platform.cli(["rollback", "--app", "shop"]).ok();
    assert_eq!(shop.ask(), "shop two\n");
    for other in &others {
        assert_eq!(other.ask(), format!("{} one\n", other.name));
    }
}

/// Leaves 8 MiB of the platform's disk.
fn fill(platform: &Platform, name: &str) {
    let stat = rustix::fs::statvfs(platform.home()).unwrap();
    let file = fs::File::create(platform.home().join(format!("filler-{name}"))).unwrap();
    let bytes = stat.f_bavail * stat.f_frsize - (8 << 20);
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes).unwrap();
}

/// Builds with and without a network, and looks at what each reached.
fn network(user: User) {
    let platform = Platform::start(Options { user, ..Options::default() });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!(
        "cat /proc/net/dev > public/index.html\n\
         if bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}'; then echo reached >> public/index.html; fi"
    );
    let open = Site::new(&platform, "open", "builder = \"static\"\n", &script);
    let _built = open.deploy().ok();
    // From a network of its own with a way out a build gets anywhere but here.
    let own = platform.cli(["status"]).ok().stdout.contains("their network: one of their own");
    assert_eq!(open.ask().contains("reached"), !own, "{}", open.ask());
    let closed = Site::new(&platform, "closed", "builder = \"static\"\nnetwork = false\n", &script);
    let answer = closed.deploy();
    let may = user == User::Own && rustix::process::geteuid().is_root() || user_namespaces();
    if !may {
        let text = answer.stdout + &answer.stderr;
        assert!(answer.status != 0 && text.contains("cannot be kept on this machine"), "{text}");
        return;
    }
    let _built = answer.ok();
    let seen = closed.ask();
    let interfaces = seen.lines().filter(|line| line.contains(':')).count();
    assert!(seen.contains("lo:") && interfaces == 1 && !seen.contains("reached"), "{seen}");
}

/// Whether an ordinary user may have a user namespace here: some systems forbid it by one of these.
fn user_namespaces() -> bool {
    let setting = |name: &str| fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default();
    setting("user/max_user_namespaces").trim() != "0"
        && setting("kernel/unprivileged_userns_clone").trim() != "0"
        && setting("kernel/apparmor_restrict_unprivileged_userns").trim() != "1"
}

#[test]
fn a_build_that_may_not_has_no_network() {
    network(User::Own);
}

#[test]
fn nor_has_that_of_an_ordinary_user_in_a_namespace_of_its_own() {
    network(User::Ordinary);
}

/// Builds with a script that says what it sees of the platform, of another app's build and of the machine's processes.
fn sight(user: User) {
    let platform = Platform::start(Options { user, ..Options::default() });
    let status = platform.cli(["status"]).ok().stdout;
    if !status.contains("a root, processes") {
        println!("!! NOT TESTED: instances and builds have no namespaces here: {status}");
        return;
    }
    let _other =
        Site::new(&platform, "other", "builder = \"static\"\n", "echo > public/index.html").deploy().ok();
    let (home, run) = (platform.home().display().to_string(), platform.run_dir().display().to_string());
    let ours =
        ["keys/kek", "platform.json", "journal/journal.db", "chunks", "artifacts/default/default/other"];
    let ours = ours.map(|path| format!("{home}/{path}")).join(" ");
    let (api, edge) = (platform.api().port(), platform.edge().port());
    // In the machine's network, where builds are as an ordinary user, ports are there.
    let ports = if status.contains("their network: one of their own") {
        format!("{api} {edge}")
    } else {
        String::new()
    };
    let script = format!(
        "set +e\nout=public/index.html\n\
         for path in {ours} {home}/builds/default/default/other {run}/api.sock; do [ -e $path ] && echo sees $path >> $out; done\n\
         for port in {ports}; do bash -c \"exec 3<>/dev/tcp/127.0.0.1/$port\" && echo reaches $port >> $out; done\n\
         for process in /proc/[0-9]*; do [ ${{process#/proc/}} -lt 100 ] || echo sees $process >> $out; done\n\
         kill -0 {} 2>/dev/null && echo signals >> $out\n\
         echo looked >> $out",
        platform.supervisor()
    );
    let curious = Site::new(&platform, "curious", "builder = \"static\"\n", &script);
    let _built = curious.deploy().ok();
    assert_eq!(curious.ask(), "looked\n");
}

#[test]
fn a_build_sees_nothing_of_the_platform_and_reaches_none_of_its_ports() {
    sight(User::Own);
}

#[test]
fn nor_sees_that_of_an_ordinary_user_anything_of_it() {
    sight(User::Ordinary);
}
