//! Releases of images: pinned, pulled, sealed and run, and refused by a backend that cannot run them.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex};

use berth_acceptance::{Options, Platform, User};
use sha2::{Digest as _, Sha256};

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// A registry with one image, which goes out of order when it is told to.
struct Registry {
    address: SocketAddr,
    manifest: Vec<u8>,
    is_open: Arc<Mutex<bool>>,
}

impl Registry {
    fn start() -> Self {
        let mut tar = tar::Builder::new(Vec::new());
        let mut add = |path: &str, mode: u32, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len().try_into().unwrap());
            header.set_mode(mode);
            tar.append_data(&mut header, path, bytes).unwrap();
        };
        // A program that needs nothing else: the image has no other file to run.
        add("bin/busybox", 0o755, &fs::read("/bin/busybox").unwrap());
        add("etc/passwd", 0o644, b"root:x:0:0::/:/bin/false\nguest:x:1000:1000::/srv:/bin/false\n");
        add("etc/group", 0o644, b"root:x:0:\nguest:x:1000:\n");
        add("srv/www/index.html", 0o644, b"from the image\n");
        add("srv/www/up", 0o644, b"up\n");
        let layer = tar.into_inner().unwrap();
        let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = format!(
            r#"{{"architecture":"{machine}","os":"linux","config":{{"Entrypoint":["/bin/busybox","httpd","-f"],"Cmd":["-p","80","-h","www"],"Env":["COLOUR=blue"],"ExposedPorts":{{"80/tcp":{{}}}},"User":"guest","WorkingDir":"/srv","StopSignal":"SIGKILL"}},
            "rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
            digest(&layer)
        );
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},
            "layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{}","size":{}}}]}}"#,
            digest(config.as_bytes()),
            config.len(),
            digest(&layer),
            layer.len()
        );
        let blobs = [manifest.clone().into_bytes(), config.into_bytes(), layer];
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (address, is_open) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(true)));
        let open = Arc::clone(&is_open);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let path = lines.next().unwrap_or_default();
                lines.by_ref().take_while(|line| !line.is_empty()).for_each(drop);
                let path = path.split(' ').nth(1).unwrap_or_default();
                let named = blobs.iter().find(|blob| path.ends_with(&digest(blob)));
                let body = named.or_else(|| path.ends_with("/manifests/1").then_some(&blobs[0]));
                let status = if !*open.lock().unwrap() {
                    410
                } else if body.is_some() {
                    200
                } else {
                    404
                };
                let body = body.map(Vec::as_slice).unwrap_or_default();
                let head = format!(
                    "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                drop(stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)));
            }
        });
        Self { address, manifest: manifest.into_bytes(), is_open }
    }
}

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
    let pinned = format!("{name}@{}", digest(&registry.manifest));
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
    *registry.is_open.lock().unwrap() = false;
    assert_eq!(deploy(&pinned).status, 1);
    let two = release("v2");
    assert_eq!((&two["artifact"], &two["image"]), (&one["artifact"], &one["image"]), "{two}");
    assert!(one["artifact"].is_string());
    *registry.is_open.lock().unwrap() = true;

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
