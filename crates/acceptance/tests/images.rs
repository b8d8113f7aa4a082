//! Releases of images: pinned, pulled, sealed and run, and refused by a backend that cannot run them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use berth_acceptance::{ImageRegistry as Registry, Options, Platform, User};

/// Where apps have roots and networks of their own an image is an app like any other.
#[test]
fn an_image_is_run_as_it_says() {
    let registry = Registry::start();
    let platform = Platform::start(Options::default());
    let status = platform.cli(["status", "--json"]).ok().json();
    if status["isolation"] != "full" {
        println!(
            "!! NOT TESTED: images are run as root alone here, and this platform is {}",
            status["isolation"]
        );
        return;
    }
    let empty = platform.scratch().join("nothing");
    fs::create_dir(&empty).unwrap();
    let name = format!("{}/team/shop:1", registry.address);
    let _first = platform.cli_in(&empty, ["deploy", "--app", "shop", "--image", &name]).ok();
    let get = |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: shop.localhost\r\nConnection: close\r\n\r\n");
        berth_acceptance::exchange(platform.edge(), request.as_bytes()).unwrap()
    };
    let reply = get("/index.html");
    assert_eq!((reply.status, String::from_utf8_lossy(&reply.body).as_ref()), (200, "from the image\n"));

    let run = |command: &[&str]| {
        let words = ["run", "--app", "shop", "--", "/bin/busybox"].iter().chain(command).copied();
        platform.cli_in(&empty, words).ok().stdout
    };
    assert_eq!(run(&["id"]).trim(), "uid=1000(guest) gid=1000(guest)");
    assert_eq!(run(&["pwd"]).trim(), "/srv");
    assert_eq!(run(&["sh", "-c", "echo $COLOUR $HOME"]).trim(), "blue /srv");
    // What it writes is its own, and gone with it.
    assert_eq!(run(&["sh", "-c", "echo x > /dev/shm/x && cat /dev/shm/x"]).trim(), "x");
    assert_eq!(run(&["sh", "-c", "test -e /dev/shm/x || echo none"]).trim(), "none");
    // Nothing of the machine is there.
    assert_eq!(
        run(&["ls", "/"]).split_whitespace().collect::<Vec<_>>(),
        ["bin", "dev", "etc", "proc", "srv", "sys"]
    );
    let again = platform.cli_in(&empty, ["config", "set", "--app", "shop", "COLOUR=red"]).ok();
    assert!(again.stdout.contains("is active"), "{}", again.stdout);
    assert_eq!(run(&["sh", "-c", "echo $COLOUR"]).trim(), "red");
    assert_eq!(get("/up").status, 200);
}

/// An image that runs as a user of its own can write to its volume, which is kept and is neither its layers' nor the machine's.
#[test]
fn an_image_writes_to_its_volume_as_the_user_that_it_names() {
    for user in [User::Own, User::Ordinary] {
        let registry = Registry::start();
        let platform = Platform::start(Options { user, ..Options::default() });
        let status = platform.cli(["status", "--json"]).ok().json();
        if !["full", "namespaces"].iter().any(|level| status["isolation"] == *level) {
            println!("!! NOT TESTED: this platform is {}", status["isolation"]);
            continue;
        }
        let source = platform.scratch().join("source");
        fs::create_dir(&source).unwrap();
        let manifest = format!(
            "app = \"shop\"\n[build]\nimage = \"{}/team/shop:1\"\n[[volumes]]\nname = \"data\"\npath = \"/var/lib/shop\"\n",
            registry.address
        );
        fs::write(source.join("berth.toml"), manifest).unwrap();
        let _first = platform.cli_in(&source, ["deploy"]).ok();
        let run = |line: &str| {
            platform.cli_in(&source, ["run", "--", "/bin/busybox", "sh", "-c", line]).ok().stdout
        };
        assert_eq!(run("echo $VOLUME_DATA && echo kept > $VOLUME_DATA/a").trim(), "/var/lib/shop");
        let _second = platform.cli_in(&source, ["config", "set", "A=1"]).ok();
        assert_eq!(run("/bin/busybox cat /var/lib/shop/a").trim(), "kept");
        let file = platform.home().join("volumes/default/default/shop/data/a");
        assert_eq!(fs::read(&file).unwrap(), b"kept\n");
        let owner = fs::metadata(&file).unwrap();
        assert!(owner.uid() != 0 && owner.uid() != 1_000, "{} is a user of the machine", owner.uid());
        let _gone = platform.cli_in(&source, ["destroy", "--yes", "--volumes"]).ok();
        assert!(!file.try_exists().unwrap());
    }
}

/// As an ordinary user its processes are ours, whoever it names; the rest is the same.
#[test]
fn an_image_of_an_ordinary_user_is_run_as_that_user() {
    let registry = Registry::start();
    let platform = Platform::start(Options { user: User::Ordinary, ..Options::default() });
    let status = platform.cli(["status", "--json"]).ok().json();
    if status["isolation"] != "namespaces" {
        println!(
            "!! NOT TESTED: ordinary users have no namespaces here, and this platform is {}",
            status["isolation"]
        );
        return;
    }
    let empty = platform.scratch().join("nothing");
    fs::create_dir(&empty).unwrap();
    let name = format!("{}/team/shop:1", registry.address);
    let _first = platform.cli_in(&empty, ["deploy", "--app", "shop", "--image", &name]).ok();
    let request = "GET /index.html HTTP/1.1\r\nHost: shop.localhost\r\nConnection: close\r\n\r\n";
    let reply = berth_acceptance::exchange(platform.edge(), request.as_bytes()).unwrap();
    assert_eq!((reply.status, reply.text().as_str()), (200, "from the image\n"));
    let run = |line: &str| {
        let words = ["run", "--app", "shop", "--", "/bin/busybox", "sh", "-c", line];
        platform.cli_in(&empty, words).ok().stdout
    };
    let uid = run("/bin/busybox id -u");
    assert!(uid.trim().parse::<u32>().is_ok_and(|uid| uid != 0), "{uid}");
    // Its files are its own, and what it makes of them is gone with the instance.
    assert_eq!(run("echo x > /srv/x && cat /srv/x").trim(), "x");
    assert_eq!(run("test -e /srv/x || echo none").trim(), "none");
}

#[test]
fn an_image_is_pinned_pulled_and_sealed_and_not_started_without_a_sandbox() {
    let registry = Registry::start();
    let platform = Platform::start(Options { isolation: Some("plain"), ..Options::default() });
    let empty = platform.scratch().join("nothing");
    fs::create_dir(&empty).unwrap();
    let name = format!("{}/team/shop:1", registry.address);
    let deploy = |image: &str| platform.cli_in(&empty, ["deploy", "--app", "shop", "--image", image]);

    let planned =
        platform.cli_in(&empty, ["deploy", "--app", "shop", "--image", &name, "--dry-run"]).ok().stdout;
    assert!(planned.contains("is pulled"), "{planned}");
    let first = deploy(&name);
    assert_eq!(first.status, 1, "{} {}", first.stdout, first.stderr);
    let said = format!("{}{}", first.stdout, first.stderr);
    assert!(said.contains("images_unsupported") && said.contains("is unpacked"), "{said}");

    let release = |number: &str| platform.cli(["releases", number, "--app", "shop", "--json"]).ok().json();
    let one = release("v1");
    let pinned = format!("{name}@{}", registry.digest());
    assert_eq!(
        (&one["image"], &one["failure"]["code"]),
        (&pinned.as_str().into(), &"images_unsupported".into()),
        "{one}"
    );
    let shown = platform.cli(["releases", "v1", "--app", "shop"]).ok().stdout;
    assert!(shown.contains(&pinned), "{shown}");
    let layers = fs::read_dir(platform.home().join("images/layers")).unwrap().count();
    assert_eq!(layers, 1);

    // What is named by its digest and stands needs no registry.
    registry.open(false);
    assert_eq!(deploy(&pinned).status, 1);
    let two = release("v2");
    assert_eq!((&two["artifact"], &two["image"]), (&one["artifact"], &one["image"]), "{two}");
    assert!(one["artifact"].is_string());
    registry.open(true);

    for (image, code, status) in [
        (format!("{}/team/other:1", registry.address).replace(":1", ":2"), "image_not_found", 3),
        ("Not An Image".to_owned(), "image_reference_invalid", 2),
    ] {
        let refused = deploy(&image);
        let said = format!("{}{}", refused.stdout, refused.stderr);
        assert!(refused.status == status && said.contains(code), "{image}: {:?} {said}", refused.status);
    }
    // The same by the manifest.
    fs::write(empty.join("berth.toml"), format!("app = \"by-file\"\n[build]\nimage = \"{name}\"\n")).unwrap();
    let by_file = platform.cli_in(&empty, ["deploy"]);
    assert!(format!("{}{}", by_file.stdout, by_file.stderr).contains("images_unsupported"));
}
