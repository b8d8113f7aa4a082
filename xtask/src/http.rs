//! As much HTTP as measuring needs: one connection, one request at a time, each answer read to its end.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// How long an answer may keep us waiting.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to a server.
pub(crate) struct Connection {
    reader: BufReader<TcpStream>,
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub status: u16,
    /// The body as text; what is no UTF-8 is replaced.
    pub body: String,
}

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Length(usize),
    Chunks,
    /// It ends with the connection, as HTTP/1.0 has it.
    Connection,
}

impl Connection {
    pub(crate) fn open(addr: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(addr).with_context(|| format!("cannot connect to {addr}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    /// Sends `request` and gives the answer.
    ///
    /// # Errors
    /// The connection ends or is silent before the answer is over, or what comes is no HTTP.
    pub(crate) fn exchange(&mut self, request: &str) -> Result<Answer> {
        self.reader.get_mut().write_all(request.as_bytes())?;
        let status = self.line()?;
        let status = status.split(' ').nth(1).and_then(|word| word.parse().ok()).context("no status line")?;
        let mut end = End::Connection;
        loop {
            let header = self.line()?.to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                end = End::Length(value.trim().parse()?);
            } else if header.starts_with("transfer-encoding:") {
                ensure!(header.ends_with("chunked"), "an answer in another coding than chunks: {header}");
                end = End::Chunks;
            }
        }
        let mut body = Vec::new();
        match end {
            End::Length(length) => self.take(length, &mut body)?,
            End::Chunks => self.chunks(&mut body)?,
            End::Connection => drop(self.reader.read_to_end(&mut body)?),
        }
        Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> Result<()> {
        loop {
            let line = self.line()?;
            let length = line.split(';').next().unwrap_or_default();
            let length =
                usize::from_str_radix(length, 16).with_context(|| format!("`{line}` begins no chunk"))?;
            self.take(length, body)?;
            // After the last one come trailers, if any, and an empty line; after the others the empty line alone.
            while !self.line()?.is_empty() {}
            if length == 0 {
                return Ok(());
            }
        }
    }

    fn take(&mut self, length: usize, body: &mut Vec<u8>) -> Result<()> {
        let from = body.len();
        body.resize(from + length, 0);
        self.reader.read_exact(&mut body[from..]).context("the answer was cut")
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.reader.read_line(&mut line)? > 0, "the connection ended before the answer was over");
        line.truncate(line.trim_end().len());
        Ok(line)
    }
}

/// Gets `path` of `host` over a connection of its own.
///
/// # Errors
/// As [`Connection::exchange`].
pub(crate) fn get(addr: SocketAddr, host: &str, path: &str) -> Result<Answer> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    Connection::open(addr)?.exchange(&request)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn answered(answer: &'static str) -> Result<Answer> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream);
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap() > 2 {
                line.clear();
            }
            reader.get_mut().write_all(answer.as_bytes()).unwrap();
        });
        let got = get(addr, "app.localhost", "/");
        server.join().unwrap();
        got
    }

    #[test]
    fn a_body_ends_by_its_length_its_chunks_or_its_connection() {
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n",
            "HTTP/1.0 200 OK\r\nServer: old\r\n\r\nhello",
        ] {
            assert_eq!(answered(answer).unwrap(), Answer { status: 200, body: "hello".to_owned() });
        }
    }

    #[test]
    fn an_answer_that_was_cut_is_an_error() {
        for answer in [
            "",
            "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n",
        ] {
            answered(answer).unwrap_err();
        }
    }
}
