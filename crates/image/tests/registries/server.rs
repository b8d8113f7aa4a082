//! A registry that says what a test wants, and a network that has it at whatever address.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use berth_image::Digest;
use berth_image::registry::Dialer;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What the registry is called, and where it says that it stands.
pub(crate) const HOST: &str = "registry.test";
const PUBLIC: Ipv4Addr = Ipv4Addr::new(93, 184, 216, 34);

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
}

/// What is answered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Sent after `body`, again and again, until the reader goes.
    pub(crate) endless: bool,
    /// What the head says of the body's length, where that is not true.
    pub(crate) length: Option<u64>,
}

impl Reply {
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, body: body.into(), ..Self::default() }
    }

    pub(crate) fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

type Answers = dyn Fn(&Asked) -> Reply + Send + Sync;

/// A network with one server, which stands at every address of it.
#[derive(Debug)]
pub(crate) struct Network {
    server: SocketAddr,
    /// What was asked, in order.
    pub(crate) asked: Arc<Mutex<Vec<Asked>>>,
    /// The addresses that somebody connected to.
    pub(crate) gone_to: Mutex<BTreeSet<IpAddr>>,
}

impl Network {
    pub(crate) async fn new(answers: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Arc<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (server, asked) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<Asked>>>::default());
        let (log, answers) = (Arc::clone(&asked), Arc::new(answers));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, answers) = (Arc::clone(&log), Arc::<_>::clone(&answers));
                tokio::spawn(async move { drop(serve(stream, &log, &*answers).await) });
            }
        });
        Arc::new(Self { server, asked, gone_to: Mutex::default() })
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|asked| asked.path.clone()).collect()
    }
}

async fn serve(mut stream: TcpStream, log: &Mutex<Vec<Asked>>, answers: &Answers) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head);
    let mut lines = head.lines();
    let path = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let asked = Asked { host: headers.get("host").cloned().unwrap_or_default(), path, headers };
    log.lock().unwrap().push(asked.clone());
    let Reply { status, headers, body, endless, length } = answers(&asked);
    let mut text = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !endless {
        text.push_str(&format!("Content-Length: {}\r\n", length.unwrap_or(body.len() as u64)));
    }
    text.push_str("\r\n");
    stream.write_all(text.as_bytes()).await?;
    stream.write_all(&body).await?;
    if endless {
        // Until the reader goes.
        loop {
            stream.write_all(&[b'x'; 64 << 10]).await?;
        }
    }
    stream.shutdown().await
}

impl Dialer for Network {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        let address = match host {
            "gone.test" => return Box::pin(async { Err(io::Error::other("there is no such host")) }),
            "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            "internal.test" => IpAddr::V4(Ipv4Addr::new(10, 0, 0, 5)),
            "metadata.test" => IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
            _ => host.parse().unwrap_or(IpAddr::V4(PUBLIC)),
        };
        Box::pin(async move { Ok(vec![SocketAddr::new(address, port)]) })
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        self.gone_to.lock().unwrap().insert(address.ip());
        Box::pin(TcpStream::connect(self.server))
    }
}

/// An image of one layer, and the blobs that it consists of.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) manifest: Vec<u8>,
    pub(crate) config: Vec<u8>,
    pub(crate) layer: Vec<u8>,
}

impl Sample {
    pub(crate) fn new() -> Self {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(100_000);
        header.set_mode(0o644);
        tar.append_data(&mut header, "hello", &vec![b'h'; 100_000][..]).unwrap();
        Self::of(tar.into_inner().unwrap())
    }

    pub(crate) fn of(layer: Vec<u8>) -> Self {
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["/hello"]}},"rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
            Digest::of(&layer)
        )
        .into_bytes();
        let mut sample = Self { manifest: Vec::new(), config, layer };
        sample.manifest = sample.manifest_of(1, sample.layer.len() as u64);
        sample
    }

    pub(crate) fn manifest_of(&self, layers: usize, size: u64) -> Vec<u8> {
        let layer = format!(
            r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{}","size":{size}}}"#,
            Digest::of(&self.layer)
        );
        let (config, length) = (Digest::of(&self.config), self.config.len());
        let kind = "application/vnd.oci.image.config.v1+json";
        let layers = vec![layer; layers].join(",");
        format!(r#"{{"schemaVersion":2,"config":{{"mediaType":"{kind}","digest":"{config}","size":{length}}},"layers":[{layers}]}}"#)
            .into_bytes()
    }

    /// What an honest registry answers.
    pub(crate) fn answer(&self, asked: &Asked) -> Reply {
        let path = asked.path.split('?').next().unwrap_or_default();
        for bytes in [&self.manifest, &self.config, &self.layer] {
            if path.ends_with(&Digest::of(bytes).to_string()) {
                return Reply::ok(bytes.clone());
            }
        }
        if path.contains("/manifests/") { Reply::ok(self.manifest.clone()) } else { Reply::status(404) }
    }
}
