//! As much HTTP as measuring needs: one connection, one request at a time.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// A connection to an app, through edge.
pub(super) struct Client {
    connection: Connection,
    host: String,
}

struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    fn open(addr: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(addr).with_context(|| format!("cannot connect to {addr}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    /// Sends `request` and gives the status and the body of the answer.
    fn exchange(&mut self, request: &str) -> Result<(u16, Vec<u8>)> {
        self.reader.get_mut().write_all(request.as_bytes())?;
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok()).context("no status line")?;
        let mut length = 0;
        loop {
            let mut header = String::new();
            self.reader.read_line(&mut header)?;
            let header = header.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            ensure!(!header.starts_with("transfer-encoding:"), "answers are expected to have a length");
        }
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body)?;
        Ok((status, body))
    }
}

impl Client {
    pub(super) fn connect(edge: SocketAddr, app: &str) -> Result<Self> {
        Ok(Self { connection: Connection::open(edge)?, host: format!("{app}.localhost") })
    }

    /// Which instance answers just now.
    pub(super) fn instance(&mut self) -> Result<String> {
        let request = format!("GET /version HTTP/1.1\r\nHost: {}\r\n\r\n", self.host);
        let (status, body) = self.connection.exchange(&request)?;
        ensure!(status == 200, "the app answered {status}");
        let answer: Value = serde_json::from_slice(&body)?;
        let instance = answer.get("instance").and_then(Value::as_str).context("no instance in the answer")?;
        Ok(instance.to_owned())
    }
}

/// Changes the configuration of an app of `client`'s own, `count` times.
pub(super) fn change_config(api: SocketAddr, token: &str, client: u64, count: u64) -> Result<()> {
    let mut connection = Connection::open(api)?;
    let path = format!("/api/v1/tenants/default/projects/default/apps/measured-{client}/config");
    for number in 0..count {
        let body = format!("{{\"set\":{{\"NUMBER\":\"{number}\"}}}}");
        let request = format!(
            "PATCH {path} HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {token}\r\nIdempotency-Key: {client}-{number}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let (status, answer) = connection.exchange(&request)?;
        if status != 200 {
            bail!("the API answered {status}: {}", String::from_utf8_lossy(&answer));
        }
    }
    Ok(())
}
