//! The platform as a registry: pushed to by skopeo, deployed from, and closed to others.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use berth_acceptance::{Api, Options, Platform, exchange, wait_until};
use sha2::{Digest as _, Sha256};

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// An image as `skopeo copy dir:` takes it: a program, a page that says `text`, and nothing else.
fn image(folder: &Path, text: &str) -> PathBuf {
    let folder = folder.join(format!("image-{text}"));
    fs::create_dir_all(&folder).unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, mode: u32, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len().try_into().unwrap());
        header.set_mode(mode);
        tar.append_data(&mut header, path, bytes).unwrap();
    };
    add("bin/busybox", 0o755, &fs::read("/bin/busybox").unwrap());
    add("www/index.html", 0o644, text.as_bytes());
    let layer = tar.into_inner().unwrap();
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = format!(
        r#"{{"architecture":"{machine}","os":"linux","config":{{"Cmd":["/bin/busybox","httpd","-f","-p","80","-h","/www"],"ExposedPorts":{{"80/tcp":{{}}}}}},
        "rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        digest(&layer)
    );
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},
        "layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{}","size":{}}}]}}"#,
        digest(config.as_bytes()),
        config.len(),
        digest(&layer),
        layer.len()
    );
    let name = |bytes: &[u8]| digest(bytes).trim_start_matches("sha256:").to_owned();
    fs::write(folder.join(name(&layer)), &layer).unwrap();
    fs::write(folder.join(name(config.as_bytes())), &config).unwrap();
    fs::write(folder.join("manifest.json"), &manifest).unwrap();
    fs::write(folder.join("version"), "Directory Transport Version: 1.1\n").unwrap();
    folder
}

/// Runs skopeo, and says whether it was let.
#[expect(clippy::disallowed_methods, reason = "skopeo is what people push with")]
fn skopeo(args: &[&str]) -> (bool, String) {
    let mut command = std::process::Command::new("skopeo");
    command.args(["--insecure-policy", "--registries.d", "/nonexistent"]).args(args);
    let output = command.output().expect("skopeo is installed");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// Pushes an image under a name of the platform's registry.
fn push(from: &Path, to: &str, password: &str) -> (bool, String) {
    let (from, to) = (format!("dir:{}", from.display()), format!("docker://{to}"));
    skopeo(&[
        "copy",
        "--preserve-digests",
        "--dest-tls-verify=false",
        "--dest-creds",
        &format!("berth:{password}"),
        &from,
        &to,
    ])
}

#[test]
fn what_is_pushed_is_listed_pulled_and_deployed() {
    let platform = Platform::start(Options::default());
    let registry = platform.api();
    let password = platform.cli(["registry", "password", "--app", "shop"]).ok().stdout;
    let password = password.trim();
    let first = image(platform.scratch(), "first");
    let (pushed, said) = push(&first, &format!("{registry}/shop:v1"), password);
    assert!(pushed, "{said}");

    let shown = platform.cli(["registry", "--app", "shop", "--json"]).ok().json();
    let manifest = digest(&fs::read(first.join("manifest.json")).unwrap());
    assert_eq!(shown["repository"], format!("{registry}/shop"));
    assert_eq!(
        (&shown["tags"][0]["tag"], &shown["tags"][0]["digest"]),
        (&"v1".into(), &manifest.as_str().into())
    );
    // A second push of the same sends nothing and changes nothing; the long name is the same repository.
    let (pushed, said) = push(&first, &format!("{registry}/default/default/shop:v1"), password);
    assert!(pushed, "{said}");

    // Pulled back it is the same to the last byte.
    let back = platform.scratch().join("back");
    let source = format!("docker://{registry}/shop@{manifest}");
    let creds = format!("any:{password}");
    let args = ["copy", "--preserve-digests", "--src-tls-verify=false", "--src-creds", &creds, &source];
    let (pulled, said) = skopeo(&[&args[..], &[&format!("dir:{}", back.display())]].concat());
    assert!(pulled, "{said}");
    for entry in fs::read_dir(&first).unwrap() {
        let name = entry.unwrap().file_name();
        assert_eq!(fs::read(first.join(&name)).unwrap(), fs::read(back.join(&name)).unwrap(), "{name:?}");
    }

    let status = platform.cli(["status", "--json"]).ok().json();
    let empty = platform.scratch().join("nothing");
    fs::create_dir(&empty).unwrap();
    let deploy = |tag: &str| {
        platform.cli_in(
            &empty,
            ["deploy", "--app", "shop", "--image", &format!("{registry}/shop:{tag}"), "--json"],
        )
    };
    if status["isolation"] != "full" && status["isolation"] != "namespaces" {
        println!("!! NOT TESTED: this platform runs no images, it is {}", status["isolation"]);
        return;
    }
    let _serves = deploy("v1").ok();
    let page = || {
        let request = "GET /index.html HTTP/1.1\r\nHost: shop.localhost\r\nConnection: close\r\n\r\n";
        exchange(platform.edge(), request.as_bytes()).unwrap().text()
    };
    assert_eq!(page(), "first");
    let (pushed, said) = push(&image(platform.scratch(), "second"), &format!("{registry}/shop:v1"), password);
    assert!(pushed, "{said}");
    // The release that serves is what the tag meant; the tag means another one now.
    let _again = platform.cli_in(&empty, ["config", "set", "--app", "shop", "A=1"]).ok();
    assert_eq!(page(), "first");
    let _second = deploy("v1").ok();
    assert_eq!(page(), "second");
    let _back = platform.cli_in(&empty, ["rollback", "v1", "--app", "shop"]).ok();
    assert_eq!(page(), "first");
}

#[test]
fn others_neither_push_nor_pull_nor_learn_what_is_there() {
    let platform = Platform::start(Options::default());
    let registry = platform.api();
    let password =
        |app: &str| platform.cli(["registry", "password", "--app", app]).ok().stdout.trim().to_owned();
    let (shop, blog) = (password("shop"), password("blog"));
    let first = image(platform.scratch(), "first");
    let (pushed, said) = push(&first, &format!("{registry}/shop:v1"), &shop);
    assert!(pushed, "{said}");
    for (to, password) in
        [("shop:v2", blog.as_str()), ("shop:v2", "wrong"), ("shop:v2", ""), ("nobody:v1", &shop)]
    {
        let (pushed, said) = push(&first, &format!("{registry}/{to}"), password);
        assert!(!pushed, "{to}: {said}");
    }

    let basic = |password: &str| base64::engine::general_purpose::STANDARD.encode(format!("x:{password}"));
    let ask = |line: &str, password: &str| {
        let head = format!("{line} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n");
        let request = format!("{head}Authorization: Basic {}\r\n\r\n", basic(password));
        exchange(registry, request.as_bytes()).unwrap()
    };
    let layer = fs::read_dir(&first).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
    let layer = layer
        .filter(|name| name.len() == 64)
        .max_by_key(|name| fs::metadata(first.join(name)).unwrap().len());
    let layer = format!("sha256:{}", layer.unwrap());
    let unknown = format!("sha256:{}", "0".repeat(64));
    assert_eq!(ask(&format!("GET /v2/shop/blobs/{layer}"), &shop).status, 200);
    // What is there and what is not look the same to who may not see it.
    let texts = [&layer, &unknown].map(|digest| {
        let reply = ask(&format!("GET /v2/shop/blobs/{digest}"), &blog);
        (reply.status, reply.text())
    });
    assert_eq!(texts[0], texts[1]);
    assert_eq!(texts[0].0, 404, "{texts:?}");
    // A mount from there begins an upload, as one of nothing does.
    for digest in [&layer, &unknown] {
        let line = format!("POST /v2/blog/blobs/uploads/?mount={digest}&from=shop");
        assert_eq!(ask(&line, &blog).status, 202);
    }
    assert_eq!(ask("GET /v2/_catalog", &blog).text(), r#"{"repositories":["default/default/blog"]}"#);
    // A pass is for the registry and for git, and for nothing of the API.
    assert_eq!(ask("GET /api/v1/platform", &shop).status, 401);
    let nobody = exchange(registry, b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    assert_eq!((nobody.status, nobody.text().contains("UNAUTHORIZED")), (401, true));
    let owner = Api::of(&platform);
    assert_eq!(owner.ask("GET", "/v2/", b"").status, 200);
}

#[test]
fn an_upload_goes_on_where_it_broke_off() {
    let platform = Platform::start(Options::default());
    let _made = platform.cli(["registry", "password", "--app", "shop"]).ok();
    let owner = Api::of(&platform);
    let begin = || {
        let begun = owner.ask("POST", "/v2/shop/blobs/uploads/", b"");
        let location = begun.head.lines().find_map(|line| line.strip_prefix("location: ").map(str::to_owned));
        location.expect("where it goes on")
    };
    let location = begin();
    assert_eq!(owner.ask("PATCH", &location, b"hello ").status, 202);
    // Of the next piece only a part arrives.
    let whole = owner.request("PATCH", location.as_bytes(), b"world");
    let mut stream = TcpStream::connect(owner.address()).unwrap();
    stream.write_all(&whole[..whole.len() - 3]).unwrap();
    drop(stream);
    platform.role("control").iter().for_each(|pid| platform.kill(*pid));
    let progress = owner.request("GET", location.as_bytes(), b"");
    let asked = || exchange(owner.address(), &progress).ok().filter(|reply| reply.status == 204);
    assert!(wait_until(Duration::from_secs(60), || asked().is_some()));
    let has = asked().unwrap().head;
    let range = has.lines().find_map(|line| line.strip_prefix("range: 0-")).expect("how far it is");
    let length = range.parse::<usize>().unwrap() + 1;
    assert!((6..=8).contains(&length), "{has}");
    let digest_of_all = digest(b"hello world");
    let rest = &b"hello world"[length..];
    let put = owner.ask("PUT", &format!("{location}?digest={digest_of_all}"), rest);
    assert_eq!(put.status, 201, "{}", put.text());
    let blob = owner.ask("GET", &format!("/v2/shop/blobs/{digest_of_all}"), b"");
    assert_eq!((blob.status, blob.body.as_slice()), (200, &b"hello world"[..]));

    let location = begin();
    assert_eq!(owner.ask("PATCH", &location, b"hello").status, 202);
    let wrong = owner.ask("PUT", &format!("{location}?digest={}", digest(b"other")), b"");
    assert_eq!((wrong.status, wrong.text().contains("DIGEST_INVALID")), (400, true));
    assert_eq!(owner.ask("GET", &location, b"").status, 404, "what is wrong is thrown away");
}
