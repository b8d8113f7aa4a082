//! Sizes of volumes: enforced where the file system of the home can do it, and said not to be where it cannot.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use berth_acceptance::{Actor, Answer, Options, Platform, User, wait_until};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(120);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// What a file system may take for itself of a volume: its folder, and where the blocks of a file are.
const OWN: u64 = 32 * KIB;

fn manifest(size: &str) -> String {
    format!(
        "[processes]\nweb = \"./actor keep\"\n[shutdown]\ndrain = \"2s\"\n[[http.checks]]\ntype = \"readiness\"\ngrace = \"60s\"\n\
         [[volumes]]\nname = \"data\"\npath = \"/data\"\nsize = \"{size}\"\n"
    )
}

fn run(platform: &Platform, app: &str, script: &str) -> Answer {
    platform.cli(["run", "-a", app, "--", "sh", "-c", script])
}

fn volume(app: &Actor<'_>) -> Value {
    app.verb(&["volumes"]).ok().json()["volumes"][0].clone()
}

fn until_visited(app: &Actor<'_>) {
    let mut last = None;
    assert!(wait_until(PATIENCE, || last.insert(app.ask("/visits")).0 == 200), "{last:?}");
}

/// Writes until nothing more is taken, after what `before` does, and gives how much the file has then, which stays, and all that was said.
fn fill(platform: &Platform, app: &str, before: &str) -> (u64, String) {
    let fill = "cd /data && rm -f fill && dd if=/dev/zero of=fill bs=4096; stat -c 'it has %s' fill";
    let said = run(platform, app, &format!("{before}{fill}"));
    let told = format!("{}{}", said.stdout, said.stderr);
    assert!(["No space left", "quota exceeded"].iter().any(|why| told.contains(why)), "{told}");
    let size = said.stdout.lines().find_map(|line| line.strip_prefix("it has ")).expect("the file is there");
    (size.trim().parse().expect("a number"), told)
}

/// The whole life of a limit: met to the block by bytes and by files, by nobody else and with no way around, raised, not lowered below what there is,
/// and still there when a snapshot was brought back.
#[test]
fn a_volume_is_kept_to_its_size_and_nobody_else_notices() {
    let platform = Platform::start(Options::default());
    let status = platform.cli(["status", "--json"]).ok().json();
    if status["volume_sizes"]["enforced"] != true {
        println!(
            "!! NOT TESTED: {}; `cargo xtask guest` boots a machine whose file system can",
            status["volume_sizes"]["why"]
        );
        return;
    }
    println!("{}", platform.cli(["status"]).ok().stdout);
    let shop = Actor::new(&platform, "shop", &manifest("4Mi"));
    let deployed = platform.cli([Path::new("deploy"), shop.directory()]).ok();
    assert!(!format!("{}{}", deployed.stdout, deployed.stderr).contains("not enforced"), "{deployed:?}");
    let other = Actor::new(&platform, "other", &manifest("4Mi"));
    let _neighbour = other.deploy().ok();
    until_visited(&shop);
    assert_eq!(
        (volume(&shop)["enforced"].clone(), volume(&shop)["size"].clone()),
        (true.into(), (4 * MIB).into())
    );

    // What the app is told of its disk is its volume.
    let (filled, told) = fill(&platform, "shop", "df -k --output=size /data; ");
    assert!(told.lines().any(|line| line.trim() == "4096"), "{told}");
    assert!((4 * MIB - OWN..=4 * MIB).contains(&filled), "{filled}");
    let shown = platform.cli(["volumes", "-a", "shop"]).ok();
    assert!(format!("{}{}", shown.stdout, shown.stderr).contains("% full"), "{shown:?}");
    // Nobody else is without room, and the app is where it was.
    assert_eq!(shop.ask("/").0, 200);
    until_visited(&other);
    let _room = run(&platform, "other", "head -c 1000000 /dev/zero > /data/own").ok();
    no_way_around(&platform, filled);

    shop.change(&manifest("8Mi"));
    let _grown = shop.deploy().ok();
    until_visited(&shop);
    let _kept = run(&platform, "shop", "rm /data/fill && head -c 5000000 /dev/zero > /data/much").ok();
    shop.change(&manifest("2Mi"));
    let refused = platform.cli([Path::new("deploy"), shop.directory()]);
    assert!(refused.status == 4 && refused.stderr.contains("volume_too_small"), "{refused:?}");
    assert!(refused.stderr.contains("the volume data") && refused.stderr.contains("2Mi"), "{refused:?}");
    assert_eq!(volume(&shop)["size"], 8 * MIB);

    brought_back(&platform, &shop);
    let _gone = shop.verb(&["destroy", "--yes", "--volumes"]).ok();
}

/// The attack: an app says that its files are not counted where they are; then by files without number, which have no bytes.
fn no_way_around(platform: &Platform, filled: u64) {
    let script = "cd /data && rm -f fill && mkdir folder && touch file; \
        for it in '-p 0 file' '-p 0 folder' '-p 0 .' '-P folder' '-P .'; do chattr $it && echo did $it; done; rm -r file folder; \
        i=0; while true > empty$i; do i=$((i+1)); done 2> /dev/null; echo made $i; rm -f empty*; ";
    let (again, told) = fill(platform, "shop", script);
    assert!(!told.contains("did ") && told.matches("not permitted").count() >= 5, "{told}");
    let made = told.lines().find_map(|line| line.strip_prefix("made ")).expect("it says how many");
    assert!((1_000..1_024).contains(&made.trim().parse::<u64>().expect("a number")), "{told}");
    // What the directory took for the names of the files is not given back.
    assert!((filled - 64 * KIB..=filled).contains(&again), "{filled} {again}");
    // Who is root in a user namespace is refused by the kernel itself, who is root of the machine is not.
    let file = platform.scratch().join("owned");
    fs::write(&file, "").expect("our directory");
    let chattr = |before: &[&str]| {
        let words: Vec<&str> = before.iter().copied().chain(["chattr", "-p", "7"]).collect();
        #[expect(
            clippy::disallowed_methods,
            reason = "the harness stands outside of the platform and its allow-list"
        )]
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg(&file).output().expect("e2fsprogs is installed").status.success()
    };
    assert!(!chattr(&["unshare", "--user", "--map-root-user"]));
    assert!(chattr(&["env"]));
}

/// A snapshot takes nothing of the volume's size; what it brings back is kept to it.
fn brought_back(platform: &Platform, shop: &Actor<'_>) {
    let taken = shop.verb(&["volumes", "snapshot", "data"]).ok().json();
    let name = taken["snapshot"].as_str().expect("a name").to_owned();
    let before = volume(shop)["used"].as_u64().expect("it is measured");
    let _changed = run(platform, "shop", "rm /data/much").ok();
    let _restored = shop.verb(&["volumes", "restore", "data", &name, "--yes"]).ok();
    until_visited(shop);
    let after = volume(shop);
    assert_eq!((&after["enforced"], &after["size"]), (&true.into(), &(8 * MIB).into()), "{after}");
    assert!(after["used"].as_u64().expect("it is measured").abs_diff(before) <= 64 * KIB, "{before} {after}");
    let much = 5_000_000_u64.next_multiple_of(4 * KIB);
    let (filled, _told) = fill(platform, "shop", "");
    assert!((8 * MIB - much - 64 * KIB - OWN..=8 * MIB - much).contains(&filled), "{filled}");
}

/// Never silently: the platform, whoever looks for what is wrong, the deploy and the list of volumes say it.
#[test]
fn where_sizes_are_not_enforced_that_is_said() {
    // No file system in memory counts projects; as an ordinary user none does.
    let in_memory = rustix::process::geteuid().is_root().then_some(256 << 20);
    for (user, home_size, reason) in [
        (User::Own, in_memory, if in_memory.is_some() { "quotas of projects" } else { "only root" }),
        (User::Ordinary, None, "only root"),
    ] {
        let platform = Platform::start(Options { user, home_size, ..Options::default() });
        let said = |answer: Answer| format!("{}{}", answer.stdout, answer.stderr);
        let status = said(platform.cli(["status"]).ok());
        assert!(status.contains("their sizes are not enforced") && status.contains(reason), "{status}");
        let doctor = said(platform.cli(["doctor"]));
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let doctor = lines(&doctor);
        let at = doctor
            .iter()
            .position(|line| line.contains("their sizes are not enforced"))
            .expect("doctor says it");
        assert!(doctor[at].starts_with("warn") && doctor[at + 1].contains("next: "), "{doctor:?}");

        let shop = Actor::new(&platform, "shop", &manifest("4Mi"));
        let deployed = said(platform.cli([Path::new("deploy"), shop.directory()]).ok());
        assert!(
            deployed.contains("the size of data is not enforced") && deployed.contains(reason),
            "{deployed}"
        );
        assert_eq!(volume(&shop)["enforced"], false);
        let listed = said(platform.cli(["volumes", "-a", "shop"]).ok());
        assert!(listed.contains("4 MiB") && listed.contains("their sizes are not enforced"), "{listed}");
        println!("{status}\n{}\n{}\n{deployed}\n{listed}", doctor[at], doctor[at + 1]);
        // A release that says no size is told nothing.
        shop.change(&manifest("4Mi").replace("size = \"4Mi\"\n", ""));
        let without = said(platform.cli([Path::new("deploy"), shop.directory()]).ok());
        assert!(!without.contains("not enforced"), "{without}");
    }
}
