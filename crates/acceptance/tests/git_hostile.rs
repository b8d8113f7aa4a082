//! Hostile pushes through the real git and by hand: each is refused with a reason, deploys nothing, and leaves the platform as it was.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use berth_acceptance::{Api, Options, Platform, Worktree, exchange, wait_until};

const PATIENCE: Duration = Duration::from_secs(120);

/// The app `shop`, made and never deployed, and somebody who pushes to it.
fn shop(platform: &Platform) -> Worktree {
    let path = "/api/v1/tenants/default/projects/default/apps";
    assert_eq!(Api::of(platform).ask("POST", path, b"{\"name\":\"shop\"}").status, 201);
    let tree = Worktree::new(platform, "tree", "shop");
    tree.write("index.html", "one");
    tree.commit("One");
    tree
}

/// Pushes what is at `commit` and gives what was said; the push must be refused, and the app as it was.
fn refused(platform: &Platform, tree: &Worktree, commit: &str) -> String {
    let answer = tree.git(["push", "berth", &format!("+{commit}:refs/heads/main")]);
    assert_ne!(answer.status, 0, "{}", answer.stderr);
    assert_eq!(tree.remote_refs(), "", "{}", answer.stderr);
    let releases = platform.cli(["releases", "--json", "--app", "shop"]).ok().json();
    assert_eq!(releases["releases"].as_array().unwrap().len(), 0);
    answer.stderr
}

/// A commit of a tree that git itself would not make: `MODE TYPE ID\tNAME` for each entry.
fn commit_of(tree: &Worktree, entries: &str) -> String {
    let made = tree.git_reading(["mktree", "-z"], entries.as_bytes()).ok().stdout;
    tree.git(["commit-tree", "-m", "Made by hand", made.trim()]).ok().stdout.trim().to_owned()
}

fn blob(tree: &Worktree, text: &str) -> String {
    tree.git_reading(["hash-object", "-w", "--stdin"], text.as_bytes()).ok().stdout.trim().to_owned()
}

#[test]
fn a_tree_with_a_repository_in_it_is_refused() {
    let platform = Platform::start(Options::default());
    let tree = shop(&platform);
    let (config, inner) = (blob(&tree, "[core]\n\tfsmonitor = touch /tmp/bait\n"), blob(&tree, "x"));
    let below =
        tree.git_reading(["mktree", "-z"], format!("100644 blob {config}\tconfig\0").as_bytes()).ok().stdout;
    for name in [".git", ".GIT", "git~1"] {
        let commit = commit_of(
            &tree,
            &format!("040000 tree {}\t{name}\0100644 blob {inner}\tindex.html\0", below.trim()),
        );
        let said = refused(&platform, &tree, &commit);
        assert!(said.contains("hasDotgit") || said.contains("leads into a repository"), "{name}: {said}");
    }
    for name in ["..", "."] {
        let commit = commit_of(&tree, &format!("040000 tree {}\t{name}\0", below.trim()));
        let said = refused(&platform, &tree, &commit);
        assert!(said.contains("hasDot"), "{name}: {said}");
    }
}

#[test]
fn a_link_that_leads_out_is_refused() {
    let platform = Platform::start(Options::default());
    let tree = shop(&platform);
    for target in ["/etc/passwd", "../../../../etc/passwd", "a/../../x"] {
        let link = blob(&tree, target);
        let commit = commit_of(&tree, &format!("120000 blob {link}\tout\0"));
        let said = refused(&platform, &tree, &commit);
        assert!(said.contains("the link \"out\"") && said.contains("code: invalid_tree"), "{target}: {said}");
    }
}

#[test]
fn names_that_are_not_plain_are_refused() {
    let platform = Platform::start(Options::default());
    let tree = shop(&platform);
    let file = blob(&tree, "x");
    for name in ["a\nb", "a\u{1b}[2Jb", "a\\b", "\t"] {
        let commit = commit_of(&tree, &format!("100644 blob {file}\t{name}\0"));
        let said = refused(&platform, &tree, &commit);
        assert!(said.contains("code: invalid_tree"), "{name:?}: {said}");
        assert!(!said.contains('\u{1b}'), "{said:?}");
    }
    fs::write(tree.directory().join(std::ffi::OsStr::from_bytes(b"\xff")), "x").unwrap();
    let commit = tree.commit("Not UTF-8");
    assert!(refused(&platform, &tree, &commit).contains("not UTF-8"));
}

#[test]
fn submodules_are_named() {
    let platform = Platform::start(Options::default());
    let tree = shop(&platform);
    let commit = commit_of(&tree, &format!("160000 commit {}\tvendor\0", "1".repeat(40)));
    let said = refused(&platform, &tree, &commit);
    assert!(said.contains("the commit has submodules, which a push does not carry: vendor"), "{said}");
}

#[test]
fn a_tree_that_unfolds_to_a_hundred_million_files_is_refused() {
    let platform = Platform::start(Options::default());
    let tree = shop(&platform);
    let file = blob(&tree, "x");
    let entries = |kind: &str, id: &str| -> String {
        (0..100).fold(String::new(), |mut all, number| {
            write!(all, "{kind} {id}\tn{number:02}\0").unwrap();
            all
        })
    };
    let mut level = entries("100644 blob", &file);
    for _ in 0..3 {
        let id = tree.git_reading(["mktree", "-z"], level.as_bytes()).ok().stdout;
        level = entries("040000 tree", id.trim());
    }
    let commit = commit_of(&tree, &level);
    let said = refused(&platform, &tree, &commit);
    assert!(said.contains("more than 50000 files"), "{said}");
}

#[test]
fn names_of_branches_are_no_options() {
    let platform = Platform::start(Options::default());
    let tree = shop(&platform);
    for name in [
        "refs/heads/--upload-pack=x",
        "refs/heads/a/-rf",
        "refs/tags/-x",
        "refs/pull/1/head",
        "refs/replace/x",
    ] {
        let answer = tree.git(["push", "berth", &format!("HEAD:{name}")]);
        assert_ne!(answer.status, 0, "{name}");
        assert!(
            answer.stderr.contains("code: push_refused") || answer.stderr.contains("invalid refspec"),
            "{name}: {}",
            answer.stderr
        );
    }
    assert_eq!(tree.remote_refs(), "");
}

#[test]
fn ten_thousand_branches_at_once_are_refused() {
    let platform = Platform::start(Options::default());
    let tree = shop(&platform);
    let head = tree.git(["rev-parse", "HEAD"]).ok().stdout;
    let updates: String = (0..10_000).fold(String::new(), |mut all, number| {
        writeln!(all, "create refs/heads/n/{number} {}", head.trim()).unwrap();
        all
    });
    let _made = tree.git_reading(["update-ref", "--stdin"], updates.as_bytes()).ok();
    let answer = tree.git(["push", "--quiet", "berth", "refs/heads/n/*:refs/heads/n/*"]);
    assert_ne!(answer.status, 0);
    assert!(
        answer.stderr.contains("more than 1000 branches and tags"),
        "{}",
        answer.stderr.chars().take(500).collect::<String>()
    );
    assert_eq!(tree.remote_refs(), "");
}

#[test]
fn a_client_that_dribbles_holds_nobody_up() {
    let platform = Platform::start(Options::default());
    let tree = shop(&platform);
    let token = fs::read_to_string(platform.home().join("keys/owner-token")).unwrap();
    let head = format!(
        "POST /git/shop.git/git-receive-pack HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
         content-type: application/x-git-receive-pack-request\r\ncontent-length: 100000\r\n\r\n00",
        token.trim()
    );
    let slow: Vec<TcpStream> = (0..8)
        .map(|_| {
            let mut stream = TcpStream::connect(platform.api()).unwrap();
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    tree.run(["push", "--quiet", "berth", "main"]);
    assert!(tree.remote_refs().contains("refs/heads/main"));
    drop(slow);
    // What git was started for them ends with them.
    let home = platform.home();
    assert!(wait_until(PATIENCE, || gits(&home).is_empty()), "{:?}", gits(&home));
}

#[test]
fn a_push_that_is_longer_than_it_may_be_is_refused() {
    let env = vec![("BERTH_PUSH_MAX_MIB".to_owned(), "2".to_owned())];
    let platform = Platform::start(Options { env, ..Options::default() });
    let tree = shop(&platform);
    let small = tree.git(["rev-parse", "HEAD"]).ok().stdout;
    // What cannot be packed smaller.
    let mut noise = vec![0; 4 << 20];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    tree.write("noise", noise);
    let large = tree.commit("Too long");
    let said = refused(&platform, &tree, &large);
    assert!(said.contains("pack exceeds maximum allowed size (2.00 MiB)"), "{said}");
    // Nothing of it is left in the way.
    tree.run(["push", "--quiet", "berth", &format!("{}:refs/heads/main", small.trim())]);
    assert!(tree.remote_refs().contains("refs/heads/main"));
}

#[test]
fn a_client_that_falls_silent_is_given_up() {
    let env = vec![("BERTH_PUSH_SILENCE_S".to_owned(), "1".to_owned())];
    let platform = Platform::start(Options { env, ..Options::default() });
    let tree = shop(&platform);
    let token = fs::read_to_string(platform.home().join("keys/owner-token")).unwrap();
    let mut stream = TcpStream::connect(platform.api()).unwrap();
    let head = format!(
        "POST /git/shop.git/git-receive-pack HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
         content-type: application/x-git-receive-pack-request\r\ncontent-length: 100000\r\n\r\n00",
        token.trim()
    );
    stream.write_all(head.as_bytes()).unwrap();
    // It ends, though the client has not gone.
    drop(stream.read_to_end(&mut Vec::new()));
    let home = platform.home();
    assert!(wait_until(PATIENCE, || gits(&home).is_empty()), "{:?}", gits(&home));
    let log = || platform.log("control");
    assert!(wait_until(PATIENCE, || log().contains("nothing was sent for 1 s")), "{}", log());
    tree.run(["push", "--quiet", "berth", "main"]);
}

/// The user and group ids of the processes of git that work on this platform's repositories.
fn gits(home: &Path) -> Vec<(String, String)> {
    let mark = format!("core.hooksPath={}", home.display());
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| {
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            String::from_utf8_lossy(&line).contains(&mark).then_some(())?;
            let status = fs::read_to_string(entry.path().join("status")).ok()?;
            let ids = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            Some((ids("Uid:\t")?, ids("Gid:\t")?))
        })
        .collect()
}

#[test]
fn git_runs_as_a_user_of_the_apps_and_in_a_group_of_its_own() {
    // The deployment is held back by a file of the machine, which an app in a root of its own would not see.
    let platform = Platform::start(Options { isolation: Some("plain"), ..Options::default() });
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: only a platform of root's has users of its own");
        return;
    }
    let tree = shop(&platform);
    let gate = platform.scratch().join("gate");
    let wait = format!("while ! test -e {}; do sleep 0.05; done", gate.display());
    tree.write("berth.toml", format!("[deploy]\nrelease_command = \"{wait}\"\n"));
    tree.commit("Held");
    let pushing = tree.begin(["push", "berth", "main"]);
    let mut seen = Vec::new();
    assert!(wait_until(PATIENCE, || {
        seen = gits(&platform.home());
        !seen.is_empty()
    }));
    fs::write(gate, "").unwrap();
    let _taken = pushing.wait().ok();
    for (user, group) in seen {
        assert!(
            !user.split('\t').any(|id| id == "0") && !group.split('\t').any(|id| id == "0"),
            "{user} {group}"
        );
        assert_ne!(user, group, "the group is not that of the builds");
    }
}

#[test]
fn requests_that_are_not_gits_are_refused() {
    let platform = Platform::start(Options::default());
    let _tree = shop(&platform);
    let token = fs::read_to_string(platform.home().join("keys/owner-token")).unwrap();
    let ask = |first: &str, headers: &str, body: &[u8]| {
        let head = format!(
            "{first} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
            token.trim(),
            body.len()
        );
        let reply = exchange(platform.api(), &[head.as_bytes(), body].concat()).unwrap();
        assert!(!reply.head.contains("x-injected"), "{}", reply.head);
        reply.status
    };
    for path in [
        "/git/../shop.git/info/refs",
        "/git/shop.git/HEAD",
        "/git/shop.git/objects/info/packs",
        "/git/%2e%2e/info/refs",
        "/git/shop%0a.git/info/refs",
        "/git/shop.git/config",
    ] {
        assert_eq!(ask(&format!("GET {path}?service=git-upload-pack"), "", b""), 404, "{path}");
    }
    assert_eq!(ask("GET /git/shop.git/info/refs", "", b""), 400);
    assert_eq!(ask("GET /git/shop.git/info/refs?service=git-shell", "", b""), 400);
    let kind = "content-type: application/x-git-receive-pack-request\r\n";
    assert_eq!(ask("POST /git/shop.git/git-receive-pack", "", b"0000"), 400);
    assert_eq!(
        ask("POST /git/shop.git/git-receive-pack", &format!("{kind}content-encoding: br\r\n"), b"0000"),
        400
    );
    assert_eq!(ask("POST /git/shop.git/git-receive-pack", kind, b"0000"), 200);
    // What is no protocol ends git, which says so or nothing; the platform lives on.
    let line = format!("{} {} refs/heads/main\0report-status", "0".repeat(40), "1".repeat(40));
    let bodies = [
        b"zzzz".to_vec(),
        b"ffff".to_vec(),
        format!("{:04x}{line}0000PACKnonsense", line.len() + 4).into_bytes(),
        vec![0; 5_000],
    ];
    for body in bodies {
        assert_eq!(ask("POST /git/shop.git/git-receive-pack", kind, &body), 200);
        let gzip = format!("{kind}content-encoding: gzip\r\n");
        let mut stream = TcpStream::connect(platform.api()).unwrap();
        let head = format!(
            "POST /git/shop.git/git-receive-pack HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nconnection: close\r\n{gzip}content-length: {}\r\n\r\n",
            token.trim(),
            body.len()
        );
        stream.write_all(&[head.as_bytes(), &body].concat()).unwrap();
        // The answer breaks off.
        drop(stream.read_to_end(&mut Vec::new()));
    }
    assert_eq!(Api::of(&platform).ask("GET", "/api/v1/platform", b"").status, 200);
}
