//! Volumes: kept over deploys, crashes and rollbacks, written to by one release at a time, and gone when that is asked for.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use berth_acceptance::{Actor, Options, Platform, User, wait_until};

const PATIENCE: Duration = Duration::from_secs(90);
const KEEPER: &str = "[processes]\nweb = \"./actor keep\"\n[shutdown]\ndrain = \"2s\"\n[[volumes]]\nname = \"data\"\npath = \"/data\"\n";

fn place(platform: &Platform, app: &str) -> PathBuf {
    platform.home().join("volumes/default/default").join(app).join("data")
}

fn isolation(platform: &Platform) -> String {
    platform.cli(["status", "--json"]).ok().json()["isolation"].as_str().unwrap().to_owned()
}

/// The actor holds a lock on its volume: a second writer would end at once, and its release would fail.
#[test]
fn a_volume_is_kept_and_has_one_writer_over_deploys_crashes_and_rollbacks() {
    let platform = Platform::start(Options::default());
    let shop = Actor::new(&platform, "shop", KEEPER);
    let _first = shop.deploy().ok();
    assert_eq!(shop.ask("/visits"), (200, "1".to_owned()));
    let asking = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| {
            let mut asked = 0;
            while asking.load(Ordering::Relaxed) {
                // What comes in while nobody has the volume is held; on a machine that has much to do perhaps not for long enough.
                let (status, said) = shop.ask("/");
                assert!(
                    status == 200 || (status == 503 && said.contains("app_not_ready")),
                    "{status} {said}"
                );
                asked += 1;
            }
            asked
        });
        let _second = shop.verb(&["config", "set", "A=1"]).ok();
        let _third = shop.verb(&["rollback"]).ok();
        asking.store(false, Ordering::Relaxed);
        assert!(asked.join().unwrap() > 10);
    });
    assert_eq!(shop.ask("/visits").1, "2");
    // A crash: the shim starts it again, in the same place.
    let _crashed = shop.ask("/crash");
    assert!(wait_until(PATIENCE, || shop.ask("/visits") == (200, "3".to_owned())));
    let before = platform.role("control");
    before.iter().for_each(|pid| platform.kill(*pid));
    assert!(wait_until(PATIENCE, || platform.role("control").iter().any(|pid| !before.contains(pid))));
    let _fourth = shop.verb(&["config", "set", "A=2"]).ok();
    assert_eq!(shop.ask("/visits").1, "4");
    // It is in no artifact.
    let artifacts = platform.home().join("artifacts/default/default/shop");
    for artifact in fs::read_dir(artifacts).unwrap() {
        assert!(!artifact.unwrap().path().join("visits").try_exists().unwrap_or(false));
    }
    let run = platform.cli_in(shop.directory(), ["run", "--", "cat", "/data/visits"]);
    if isolation(&platform) == "plain" {
        assert_ne!(run.status, 0);
    } else {
        assert_eq!(run.ok().stdout.lines().count(), 4);
    }
    let shown = shop.verb(&["volumes"]).ok().json();
    let data = &shown["volumes"][0];
    assert_eq!((&data["name"], &data["path"]), (&"data".into(), &"/data".into()), "{shown}");
    assert_eq!(data["instances"].as_array().unwrap().len(), 1, "{shown}");
    assert_eq!(data["entries"], 2, "{shown}");
    let listed = platform.cli(["volumes", "-a", "shop"]).ok().stdout;
    assert!(listed.contains("/data") && listed.contains("web."), "{listed}");
}

#[test]
fn what_would_have_two_writers_is_refused() {
    let platform = Platform::start(Options::default());
    let shop = Actor::new(&platform, "shop", &format!("{KEEPER}[deploy]\nstrategy = \"bluegreen\"\n"));
    let refused = |answer: berth_acceptance::Answer| {
        let said = format!("{}{}", answer.stdout, answer.stderr);
        assert!(answer.status == 4 && said.contains("volume_exclusive"), "{:?} {said}", answer.status);
        said
    };
    let said = refused(shop.deploy());
    assert!(said.contains("recreate"), "{said}");
    shop.change(KEEPER);
    let _first = shop.deploy().ok();
    refused(shop.verb(&["scale", "web=2"]));
    let _none = shop.verb(&["scale", "web=0"]).ok();
    let _one = shop.verb(&["scale", "web=1"]).ok();
    assert!(wait_until(PATIENCE, || shop.ask("/visits").0 == 200));
}

#[test]
fn volumes_stay_when_an_app_goes_unless_they_are_to_go_too() {
    let platform = Platform::start(Options::default());
    let shop = Actor::new(&platform, "shop", KEEPER);
    let _first = shop.deploy().ok();
    assert_eq!(shop.ask("/visits").1, "1");
    let in_use = shop.verb(&["volumes", "remove", "data", "--yes"]);
    assert!(in_use.status == 4 && in_use.stderr.contains("volume_in_use"), "{}", in_use.stderr);
    let gone = platform.cli(["destroy", "--yes", "-a", "shop"]).ok();
    assert!(gone.stderr.contains("its volumes are still there: data ("), "{}", gone.stderr);
    let left = shop.verb(&["volumes"]).ok().json();
    assert_eq!(
        (&left["volumes"][0]["name"], &left["volumes"][0]["path"]),
        (&"data".into(), &serde_json::Value::Null)
    );

    let _again = shop.deploy().ok();
    assert_eq!(shop.ask("/visits").1, "2", "a new app of the name has them again");
    let _gone = shop.verb(&["destroy", "--yes", "--volumes"]).ok();
    assert!(!place(&platform, "shop").try_exists().unwrap());
    assert_eq!(shop.verb(&["volumes"]).ok().json()["volumes"], serde_json::json!([]));

    let _third = shop.deploy().ok();
    assert_eq!(shop.ask("/visits").1, "1");
    shop.change("[processes]\nweb = \"./actor serve\"\n");
    let _without = shop.deploy().ok();
    let nobodys = || shop.verb(&["volumes"]).ok().json()["volumes"][0]["instances"] == serde_json::json!([]);
    assert!(wait_until(PATIENCE, nobodys));
    let _removed = shop.verb(&["volumes", "remove", "data", "--yes"]).ok();
    let none = shop.verb(&["volumes", "remove", "data", "--yes"]);
    assert!(none.status == 3 && none.stderr.contains("volume_not_found"), "{}", none.stderr);
    let timeline = platform.cli(["timeline", "-a", "shop"]).ok().stdout;
    assert!(timeline.contains("removed the volume data"), "{timeline}");
}

/// The attack: links in a volume that lead out, absolute, relative, and in place of the volume's own files.
#[test]
fn links_in_volumes_lead_nowhere_outside() {
    let platform = Platform::start(Options::default());
    let shop = Actor::new(&platform, "shop", KEEPER);
    let _first = shop.deploy().ok();
    let outside = platform.scratch().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    let secret = outside.join("secret");
    let script = format!(
        "cd $VOLUME_DATA && ln -s {0} folder && ln -s {0}/secret file && ln -s /etc/shadow shadow && ln -s ../../../../../keys/kek key && ln -s / top",
        outside.display()
    );
    let _linked = platform.cli_in(shop.directory(), ["run", "--", "sh", "-c", &script]).ok();
    let level = isolation(&platform);
    if matches!(level.as_str(), "full" | "namespaces") {
        for path in ["/data/file", "/data/folder/secret", "/data/shadow", "/data/key"] {
            let (_, read) = shop.ask(&format!("/read{path}"));
            assert_ne!(read, "secret", "{path}");
            assert!(read.contains("not found") || read.contains("denied"), "{path}: {read}");
        }
        let (_, own) = shop.ask("/read/data/top/etc/hostname");
        assert!(own.starts_with("web-"), "a link leads into the app's own root: {own}");
    }
    // Neither counting, nor giving to a user anew, nor removing follows one.
    let shown = shop.verb(&["volumes"]).ok().json();
    assert!(shown["volumes"][0]["used"].as_u64().unwrap() < 1 << 20, "{shown}");
    assert_eq!(shown["volumes"][0]["entries"], 6, "{shown}");
    let before = fs::metadata(&secret).unwrap();
    let _again = shop.verb(&["config", "set", "A=1"]).ok();
    let _gone = shop.verb(&["destroy", "--yes", "--volumes"]).ok();
    let after = fs::metadata(&secret).unwrap();
    assert_eq!((before.uid(), before.mode()), (after.uid(), after.mode()));
    assert_eq!(fs::read(&secret).unwrap(), b"secret");
    // A link in place of the volume itself, by whoever may write to the home, is not followed either.
    let data = place(&platform, "shop");
    fs::create_dir_all(data.parent().unwrap()).unwrap();
    symlink(&outside, &data).unwrap();
    let refused = shop.deploy();
    assert_eq!(refused.status, 1, "{}", refused.stdout);
    assert!(
        format!("{}{}", refused.stdout, refused.stderr).contains("is not a directory"),
        "{}",
        refused.stdout
    );
    assert!(!outside.join("lock").try_exists().unwrap());
}

#[test]
fn where_nothing_can_be_mounted_the_variable_says_where_a_volume_is() {
    for user in [User::Own, User::Ordinary] {
        let platform = Platform::start(Options { isolation: Some("plain"), user, ..Options::default() });
        let shop = Actor::new(&platform, "shop", KEEPER);
        let _first = shop.deploy().ok();
        assert_eq!(shop.ask("/visits").1, "1");
        let told = shop.ask("/env/VOLUME_DATA").1;
        assert_eq!(Path::new(&told), place(&platform, "shop"));
        let other = Actor::new(&platform, "other", "[processes]\nweb = \"./actor serve\"\n");
        let _other = other.deploy().ok();
        let (_, read) = other.ask(&format!("/read{told}/visits"));
        if fs::metadata(platform.home()).unwrap().uid() == 0 {
            assert_eq!(read, "permission denied", "as root each app's are its own");
        }
    }
}

fn snapshot(shop: &Actor<'_>) -> String {
    shop.verb(&["volumes", "snapshot", "data"]).ok().json()["snapshot"].as_str().unwrap().to_owned()
}

/// As root what has the volume stands still; an ordinary user's instances have no control groups here, and are stopped.
#[test]
fn a_snapshot_is_taken_and_brought_back() {
    for user in [User::Own, User::Ordinary] {
        let platform = Platform::start(Options { user, ..Options::default() });
        let shop = Actor::new(&platform, "shop", KEEPER);
        let _first = shop.deploy().ok();
        assert_eq!(shop.ask("/visits").1, "1");
        let before = shop.ask("/instance").1;
        let name = snapshot(&shop);
        assert!(wait_until(PATIENCE, || shop.ask("/").0 == 200));
        let stood_still = shop.ask("/instance").1 == before;
        assert_eq!((shop.ask("/visits").1, shop.ask("/visits").1), ("2".to_owned(), "3".to_owned()));
        let listed = shop.verb(&["volumes", "snapshots"]).ok().json();
        assert_eq!(listed["snapshots"][0]["name"], name.as_str(), "{listed}");
        let _restored = shop.verb(&["volumes", "restore", "data", &name, "--yes"]).ok();
        assert!(wait_until(PATIENCE, || shop.ask("/").0 == 200));
        assert_eq!(shop.ask("/visits").1, "2", "the snapshot had one");
        let told = platform.cli(["timeline", "-a", "shop"]).ok().stdout;
        assert!(told.contains(&format!("bring the snapshot {name} of the volume data back")), "{told}");
        assert!(told.contains("a volume of its is worked on"), "{told}");
        println!("{user:?}: stood still: {stood_still}");
        let none = shop.verb(&["volumes", "restore", "data", "20200101T000000Z", "--yes"]);
        assert!(none.status == 3 && none.stderr.contains("snapshot_not_found"), "{}", none.stderr);
        let _gone = shop.verb(&["volumes", "remove", "data", &name, "--yes"]).ok();
        assert_eq!(shop.verb(&["volumes", "snapshots"]).ok().json()["snapshots"], serde_json::json!([]));
    }
}

/// The fault test on the real binary: control is killed while a snapshot is brought back, again and again; the volume is whole, and in
/// the end what was asked for is done.
#[test]
fn a_restore_survives_kills_of_control() {
    let platform = Platform::start(Options::default());
    let shop = Actor::new(&platform, "shop", KEEPER);
    let _first = shop.deploy().ok();
    assert_eq!(shop.ask("/visits").1, "1");
    let many = "cd /data && for i in $(seq 1 300); do echo $i > file$i; done";
    let _filled = platform.cli_in(shop.directory(), ["run", "--", "sh", "-c", many]).ok();
    let name = snapshot(&shop);
    let replaced = "cd /data && rm file* && echo other > other";
    let _changed = platform.cli_in(shop.directory(), ["run", "--", "sh", "-c", replaced]).ok();
    let restore = platform.begin(["volumes", "restore", "data", &name, "--yes", "-a", "shop"]);
    let count = || fs::read_dir(place(&platform, "shop")).map(Iterator::count).unwrap_or_default();
    for _ in 0..3 {
        let before = platform.role("control");
        before.iter().for_each(|pid| platform.kill(*pid));
        // Whole at every look: 300 files, the lock and the visits, or the other file with these.
        assert!([302, 3].contains(&count()), "{}", count());
        assert!(wait_until(PATIENCE, || platform.role("control").iter().any(|pid| !before.contains(pid))));
    }
    let _done = restore.wait().ok();
    assert!(wait_until(PATIENCE, || shop.ask("/").0 == 200));
    assert_eq!((count(), shop.ask("/visits").1), (302, "2".to_owned()));
    assert!(!place(&platform, "shop").join("other").try_exists().unwrap());
    // Nothing of it is left beside the volume.
    let beside = fs::read_dir(place(&platform, "shop").parent().unwrap()).unwrap();
    let mut beside: Vec<String> = beside.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    beside.sort();
    assert_eq!(beside, [".snapshots", "data"]);
}

/// Saved while its app serves, with the whole home lost, and restored: on a platform of other user ids too, where it is the new ones'.
#[test]
fn a_volume_is_in_a_backup_and_comes_back() {
    for user in [User::Own, User::Ordinary] {
        let mut platform = Platform::start(Options { user, ..Options::default() });
        let backup = {
            let shop = Actor::new(&platform, "shop", KEEPER);
            let _first = shop.deploy().ok();
            assert_eq!(shop.ask("/visits").1, "1");
            let script = "cd $VOLUME_DATA && mkdir -p deep/er && echo found > deep/er/file && ln deep/er/file again && ln -s /etc/shadow out";
            let _filled = platform.cli_in(shop.directory(), ["run", "--", "sh", "-c", script]).ok();
            let saved = platform.home().parent().unwrap().join("user");
            let told = platform.cli(["backup", saved.to_str().unwrap(), "--json"]).ok().json();
            assert_eq!(told["missing"], serde_json::json!([]), "{told}");
            let listed = shop.verb(&["volumes", "snapshots"]).ok().json();
            assert_eq!(listed["snapshots"], serde_json::json!([]), "what was taken to be saved is gone");
            assert!(wait_until(PATIENCE, || shop.ask("/visits") == (200, "2".to_owned())));
            told["file"].as_str().unwrap().to_owned()
        };
        let listed = platform.cli(["backup", "list", &backup]).ok().stdout;
        assert!(listed.contains("volumes/default/default/shop/data.tar"), "{listed}");
        let verified = platform.cli(["backup", "verify", &backup]).ok().stdout;
        assert!(verified.contains("1 volume, "), "{verified}");
        let without = platform.scratch().join("without.tar").to_str().unwrap().to_owned();
        let told = platform.cli(["backup", &without, "--without-volumes"]).ok().stdout;
        assert!(!told.contains("volume"), "{told}");

        let _down = platform.cli(["down"]).ok();
        assert_eq!(platform.wait(), Some(0));
        let owner = |platform: &Platform| fs::metadata(place(platform, "shop")).unwrap().uid();
        let before = owner(&platform);
        fs::remove_dir_all(platform.home()).unwrap();
        let _restored = platform.cli(["restore", &backup]).ok();
        platform.start_again();
        let shop = Actor::new(&platform, "shop", KEEPER);
        assert!(
            wait_until(PATIENCE, || shop.ask("/visits") == (200, "2".to_owned())),
            "it had one when it was saved"
        );
        let data = place(&platform, "shop");
        let file = fs::metadata(data.join("deep/er/file")).unwrap();
        assert_eq!(file.ino(), fs::metadata(data.join("again")).unwrap().ino());
        assert_eq!(fs::read_to_string(data.join("again")).unwrap(), "found\n");
        assert_eq!(fs::read_link(data.join("out")).unwrap(), Path::new("/etc/shadow"));
        assert_eq!(file.uid(), owner(&platform));
        println!("{user:?}: user {before}, then {}", owner(&platform));
    }
}
