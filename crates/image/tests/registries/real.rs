//! Debian's own registry, skopeo and umoci: what they make is pulled, and what is unpacked is what umoci unpacks.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_image::registry::{Config, Dialer};
use berth_image::{Image, Limits, Registries, Store};
use futures_util::future::BoxFuture;
use tokio::process::{Child, Command};

use crate::{quick, wanted};

fn program(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.args(arguments).kill_on_drop(true);
    command
}

async fn run(name: &str, arguments: &[&str]) {
    let done = program(name, arguments).output().await.unwrap();
    assert!(done.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

fn are_installed(names: &[&str]) -> bool {
    let missing = names.iter().find(|name| !Path::new("/usr/bin").join(name).try_exists().unwrap());
    if let Some(missing) = missing {
        eprintln!("!! NOT TESTED: {missing} is not installed");
    }
    missing.is_none() && std::env::consts::ARCH == "x86_64"
}

/// Debian's registry, for as long as this lives.
struct Registry {
    address: SocketAddr,
    _child: Child,
    dir: tempfile::TempDir,
}

impl Registry {
    async fn start() -> Self {
        Self::start_with("").await
    }

    /// With more lines of its configuration, below `http`.
    async fn start_with(http: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n{http}",
            dir.path().join("data").display()
        );
        let path = dir.path().join("config.yml");
        fs::write(&path, config).unwrap();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let mut serve = program("docker-registry", &["serve", path.to_str().unwrap()]);
        let child = serve.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        while TcpStream::connect(address).is_err() {
            // wait: for the registry to listen.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { address, _child: child, dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// Makes an image of two layers, the second of which removes and replaces things of the first.
    async fn make(&self) {
        let rootless: &[&str] = if rustix::process::geteuid().is_root() { &[] } else { &["--rootless"] };
        let umoci = async |arguments: &[&str], rest: &[&str]| run("umoci", &[arguments, rest].concat()).await;
        let (layout, bundle) = (self.path("layout"), self.path("bundle"));
        let image = format!("{layout}:app");
        umoci(&["init", "--layout", &layout], &[]).await;
        umoci(&["new", "--image", &image], &[]).await;
        umoci(&["unpack"], &[rootless, &["--image", &image, &bundle]].concat()).await;
        let root = PathBuf::from(&bundle).join("rootfs");
        for folder in ["etc", "bin", "opaque/inner", "gone", "tmp"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/:/bin/sh\n")
            .unwrap();
        fs::write(root.join("bin/tool"), vec![7; 300_000]).unwrap();
        fs::set_permissions(root.join("bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        fs::hard_link(root.join("bin/tool"), root.join("bin/same")).unwrap();
        symlink("../etc/passwd", root.join("bin/link")).unwrap();
        for file in ["gone/file", "opaque/old", "opaque/inner/old", "removed"] {
            fs::write(root.join(file), "first").unwrap();
        }
        fs::write(root.join("etc").join("n".repeat(180)), "a long name").unwrap();
        umoci(&["repack", "--refresh-bundle", "--image", &image, &bundle], &[]).await;
        fs::remove_file(root.join("removed")).unwrap();
        fs::remove_dir_all(root.join("gone")).unwrap();
        fs::remove_dir_all(root.join("opaque")).unwrap();
        fs::create_dir(root.join("opaque")).unwrap();
        fs::write(root.join("opaque/new"), "second").unwrap();
        fs::remove_file(root.join("bin/link")).unwrap();
        fs::create_dir(root.join("bin/link")).unwrap();
        umoci(&["repack", "--image", &image, &bundle], &[]).await;
        let config =
            ["--config.entrypoint", "/bin/tool", "--config.user", "app", "--config.exposedports", "8080/tcp"];
        umoci(&["config", "--image", &image], &config).await;
        fs::remove_dir_all(&bundle).unwrap();
        umoci(&["unpack"], &[rootless, &["--image", &image, &bundle]].concat()).await;
    }

    async fn push(&self, format: &str, compression: &str) -> String {
        let name = format!("{}/team/app:{format}-{compression}", self.address);
        let (from, to) = (format!("oci:{}:app", self.path("layout")), format!("docker://{name}"));
        // By its address it is anybody's word over TLS, and plain text without.
        let how =
            ["copy", "--dest-tls-verify=false", "--format", format, "--dest-compress-format", compression];
        run("skopeo", &[&how[..], &["--dest-compress", &from, &to]].concat()).await;
        name
    }
}

/// What a tree is, file by file, but for what an overlay or an unpacker may choose.
fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    let (mut found, mut todo) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(at) = todo.pop() {
        let stat = fs::symlink_metadata(&at).unwrap();
        let what = if stat.is_file() {
            format!(
                "{} {:?}",
                stat.mtime(),
                fs::read(&at)
                    .unwrap()
                    .iter()
                    .fold(0_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(*byte))
            )
        } else if stat.is_symlink() {
            format!("{:?}", fs::read_link(&at).unwrap())
        } else {
            todo.extend(fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().path()));
            String::new()
        };
        let links = if stat.is_dir() { 0 } else { stat.nlink() };
        let name = at.strip_prefix(root).unwrap().to_owned();
        found.insert(name, format!("{:o} {}:{} {links} {what}", stat.mode(), stat.uid(), stat.gid()));
    }
    found
}

/// The layers as the kernel shows them together.
fn overlaid<T>(image: &Image, dir: &Path, look: impl FnOnce(&Path) -> T) -> T {
    let at = dir.join("overlay");
    fs::create_dir_all(&at).unwrap();
    let layers: Vec<String> = image.layers.iter().map(|layer| layer.display().to_string()).collect();
    let options = std::ffi::CString::new(format!("lowerdir={}", layers.join(":"))).unwrap();
    rustix::mount::mount(
        "overlay",
        &at,
        "overlay",
        rustix::mount::MountFlags::RDONLY,
        Some(options.as_c_str()),
    )
    .unwrap();
    let seen = look(&at);
    rustix::mount::unmount(&at, rustix::mount::UnmountFlags::DETACH).unwrap();
    seen
}

#[tokio::test]
async fn what_skopeo_pushed_is_pulled_and_is_what_umoci_unpacks() {
    if !are_installed(&["docker-registry", "skopeo", "umoci"]) {
        return;
    }
    let registry = Registry::start().await;
    registry.make().await;
    let store_dir = tempfile::tempdir().unwrap();
    let store = Store::open(store_dir.path(), Limits::default()).unwrap();
    let registries = Registries::new(quick());
    let mut images = Vec::new();
    for (format, compression) in [("oci", "gzip"), ("v2s2", "gzip"), ("oci", "zstd")] {
        let name = registry.push(format, compression).await;
        let pulled = store.pull(&registries, &wanted(&name), &|_| ()).await.unwrap();
        let told = program(
            "skopeo",
            &["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &format!("docker://{name}")],
        );
        let told = { told }.output().await.unwrap();
        assert_eq!(String::from_utf8_lossy(&told.stdout).trim(), pulled.digest.to_string());
        images.push(pulled.image);
    }
    // The same layers whatever they were sent in.
    assert!(images.iter().all(|image| image.layers == images[0].layers && image.config == images[0].config));
    let image = &images[0];
    assert_eq!(
        (image.config.entrypoint.as_slice(), image.config.user.as_str()),
        (&["/bin/tool".to_owned()][..], "app")
    );
    assert_eq!(berth_image::user::resolve(&image.layers, "app").unwrap().uid, 1000);
    if !rustix::process::geteuid().is_root() {
        eprintln!("!! NOT COMPARED with umoci: only root mounts an overlay here");
        return;
    }
    let ours = overlaid(image, store_dir.path(), tree);
    let theirs = tree(&PathBuf::from(registry.path("bundle")).join("rootfs"));
    assert_eq!(ours, theirs);
    assert!(ours.contains_key(Path::new("opaque/new")) && !ours.contains_key(Path::new("opaque/old")));
}

/// The name of the registry in its certificate.
const NAMED: &str = "secure.test";
/// The address of the registry, for the program that pulls.
const ADDRESS: &str = "BERTH_TEST_REGISTRY";

/// A network in which every host is at one address.
#[derive(Debug)]
struct At(SocketAddr);

impl Dialer for At {
    fn resolve<'a>(&'a self, _host: &'a str, _port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async { Ok(vec![self.0]) })
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<tokio::net::TcpStream>> {
        Box::pin(tokio::net::TcpStream::connect(address))
    }
}

/// Pulls from the registry that is named in the environment, and says how that went. Whom a machine trusts is told by its environment too, so
/// that this is a program of its own.
#[tokio::test]
async fn role_pull_by_name() {
    let Ok(address) = std::env::var(ADDRESS) else { return };
    let address: SocketAddr = address.parse().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Limits::default()).unwrap();
    let registries = Registries::over(Config { attempts: 1, ..quick() }, Arc::new(At(address)));
    let name = format!("{NAMED}:{}/team/app:oci-gzip", address.port());
    match store.pull(&registries, &wanted(&name), &|_| ()).await {
        Ok(pulled) => println!("pulled {}", pulled.digest),
        Err(error) => println!("refused {error}"),
    }
}

#[tokio::test]
async fn a_registry_with_tls_is_believed_when_its_authority_is_trusted() {
    if !are_installed(&["docker-registry", "skopeo", "umoci", "openssl"]) {
        return;
    }
    let keys = tempfile::tempdir().unwrap();
    let at = |name: &str| keys.path().join(name).to_str().unwrap().to_owned();
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let (authority, authority_key) = (at("authority.pem"), at("authority.key"));
    let made = [
        "req",
        "-x509",
        "-days",
        "2",
        "-subj",
        "/CN=authority",
        "-out",
        &authority,
        "-keyout",
        &authority_key,
    ];
    run("openssl", &[&made[..], &key].concat()).await;
    let (certificate, own_key, wish, names) = (at("own.pem"), at("own.key"), at("own.csr"), at("names"));
    let asked = ["req", "-subj", "/CN=registry", "-out", &wish, "-keyout", &own_key];
    run("openssl", &[&asked[..], &key].concat()).await;
    fs::write(&names, format!("subjectAltName=DNS:{NAMED},IP:127.0.0.1\n")).unwrap();
    let signed = [
        "x509",
        "-req",
        "-days",
        "2",
        "-in",
        &wish,
        "-CA",
        &authority,
        "-CAkey",
        &authority_key,
        "-CAcreateserial",
    ];
    run("openssl", &[&signed[..], &["-extfile", &names, "-out", &certificate]].concat()).await;
    let registry =
        Registry::start_with(&format!("  tls:\n    certificate: {certificate}\n    key: {own_key}\n")).await;
    registry.make().await;
    let pushed = registry.push("oci", "gzip").await;
    let pull = async |trusted: Option<&str>| {
        let own = std::env::current_exe().unwrap();
        let mut pull = program(own.to_str().unwrap(), &["--exact", "real::role_pull_by_name", "--nocapture"]);
        pull.env(ADDRESS, registry.address.to_string());
        trusted.map(|file| pull.env("SSL_CERT_FILE", file));
        String::from_utf8(pull.output().await.unwrap().stdout).unwrap()
    };
    let told = program(
        "skopeo",
        &["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &format!("docker://{pushed}")],
    );
    let told = { told }.output().await.unwrap();
    let digest = String::from_utf8(told.stdout).unwrap();
    let trusting = pull(Some(&authority)).await;
    assert!(trusting.contains(&format!("pulled {}", digest.trim())), "{trusting}");
    // Without a word, and with that of somebody else.
    for wary in [pull(None).await, pull(Some(&certificate)).await] {
        assert!(wary.contains("refused ") && !wary.contains("pulled "), "{wary}");
    }
}
