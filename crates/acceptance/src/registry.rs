//! A registry of the tests' own, with one small image.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use sha2::{Digest as _, Sha256};

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// A registry with one image, `team/shop:1`, whose one program serves a page on port 80. It goes out of order when it is told to.
#[derive(Debug)]
pub struct ImageRegistry {
    /// Where it listens.
    pub address: SocketAddr,
    manifest: Vec<u8>,
    is_open: Arc<Mutex<bool>>,
}

impl ImageRegistry {
    /// Starts it.
    #[must_use]
    pub fn start() -> Self {
        Self::with("")
    }

    /// Starts it, with an image whose configuration says more, as `"Healthcheck":{...}`.
    #[must_use]
    pub fn with(more: &str) -> Self {
        let more = if more.is_empty() { String::new() } else { format!(",{more}") };
        let mut tar = tar::Builder::new(Vec::new());
        let mut add = |path: &str, mode: u32, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len().try_into().expect("the test has what it needs"));
            header.set_mode(mode);
            tar.append_data(&mut header, path, bytes).expect("the test has what it needs");
        };
        // A program that needs nothing else: the image has no other file to run.
        add("bin/busybox", 0o755, &fs::read("/bin/busybox").expect("the test has what it needs"));
        add("etc/passwd", 0o644, b"root:x:0:0::/:/bin/false\nguest:x:1000:1000::/srv:/bin/false\n");
        add("etc/group", 0o644, b"root:x:0:\nguest:x:1000:\n");
        add("srv/www/index.html", 0o644, b"from the image\n");
        add("srv/www/up", 0o644, b"up\n");
        let layer = tar.into_inner().expect("the test has what it needs");
        let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = format!(
            r#"{{"architecture":"{machine}","os":"linux","config":{{"Entrypoint":["/bin/busybox","httpd","-f"],"Cmd":["-p","80","-h","www"],"Env":["COLOUR=blue"],"ExposedPorts":{{"80/tcp":{{}}}},"User":"guest","WorkingDir":"/srv","StopSignal":"SIGKILL"{more}}},
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
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("the test has what it needs");
        let (address, is_open) =
            (listener.local_addr().expect("the test has what it needs"), Arc::new(Mutex::new(true)));
        let open = Arc::clone(&is_open);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut lines = BufReader::new(stream.try_clone().expect("the test has what it needs"))
                    .lines()
                    .map_while(Result::ok);
                let path = lines.next().unwrap_or_default();
                lines.by_ref().take_while(|line| !line.is_empty()).for_each(drop);
                let path = path.split(' ').nth(1).unwrap_or_default();
                let named = blobs.iter().find(|blob| path.ends_with(&digest(blob)));
                let body = named.or_else(|| path.ends_with("/manifests/1").then_some(&blobs[0]));
                let status = if !*open.lock().expect("the test has what it needs") {
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
    /// The digest of its image.
    #[must_use]
    pub fn digest(&self) -> String {
        digest(&self.manifest)
    }

    /// Has it answer, or be out of order.
    pub fn open(&self, is_open: bool) {
        *self.is_open.lock().expect("the test has what it needs") = is_open;
    }
}
