//! A web app of one file: shows who it is, and echoes what it is sent.
//!
//! It needs nothing but Rust's standard library, so that the first deploy on a new machine downloads nothing. Berth gives it
//! `PORT`, `APP_NAME`, `RELEASE_VERSION` and `INSTANCE_ID`. It has no handler for SIGTERM and needs none: Berth takes the
//! traffic away and lets requests end before it stops an instance.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use std::{env, thread};

/// The longest request head; a longer one ends the connection.
const HEAD_MAX: u64 = 16 * 1024;
/// How much of a body is held at once while it is echoed.
const COPY: usize = 16 * 1024;
/// A connection without a request for this long is closed.
const IDLE: Duration = Duration::from_secs(60);

/// Who this instance is.
struct Identity {
    app: String,
    release: String,
    instance: String,
}

/// What is needed of a request's head.
struct Head {
    method: String,
    path: String,
    body: BodyLength,
    close: bool,
    expects_continue: bool,
}

enum BodyLength {
    Exactly(u64),
    Chunked,
}

fn main() -> io::Result<()> {
    let port = env::var("PORT").ok().and_then(|text| text.parse().ok()).unwrap_or(3000);
    let or_unknown = |name| env::var(name).unwrap_or_else(|_| "unknown".to_owned());
    let identity = Arc::new(Identity {
        app: or_unknown("APP_NAME"),
        release: or_unknown("RELEASE_VERSION"),
        instance: or_unknown("INSTANCE_ID"),
    });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    println!("{} {} listens on port {port}", identity.app, identity.release);
    loop {
        // A connection that failed before it was accepted is the client's affair; running out of descriptors is not, and
        // ends the app so that it is started afresh.
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error),
        };
        let identity = Arc::clone(&identity);
        thread::Builder::new().stack_size(256 * 1024).spawn(move || {
            // A client that goes away in the middle is no fault of the app's.
            let _ = serve_connection(&stream, &identity);
        })?;
    }
}

fn serve_connection(stream: &TcpStream, identity: &Identity) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(IDLE))?;
    let mut reader = BufReader::with_capacity(COPY, stream);
    while let Some(head) = read_head(&mut reader)? {
        if head.method == "POST" && head.path == "/echo" {
            echo(&head, &mut reader, stream, identity)?;
        } else {
            discard_body(&head, &mut reader)?;
            answer(&head, stream, identity)?;
        }
        if head.close {
            break;
        }
    }
    Ok(())
}

/// The next request's head, or `None` where the client ended the connection between two requests.
fn read_head(reader: &mut impl BufRead) -> io::Result<Option<Head>> {
    let mut limited = reader.take(HEAD_MAX);
    let Some(request_line) = read_line(&mut limited)? else { return Ok(None) };
    let mut words = request_line.split(' ');
    let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next()) else {
        return Err(malformed("request line"));
    };
    let path = target.split('?').next().unwrap_or_default().to_owned();
    let mut head = Head {
        method: method.to_owned(),
        path,
        body: BodyLength::Exactly(0),
        close: version != "HTTP/1.1",
        expects_continue: false,
    };
    loop {
        let line = read_line(&mut limited)?.ok_or_else(|| malformed("end within the head"))?;
        if line.is_empty() {
            return Ok(Some(head));
        }
        let (name, value) = line.split_once(':').ok_or_else(|| malformed("header"))?;
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => {
                head.body = BodyLength::Exactly(value.parse().map_err(|_| malformed("content-length"))?);
            }
            "transfer-encoding" => head.body = BodyLength::Chunked,
            "connection" => head.close |= value.eq_ignore_ascii_case("close"),
            "expect" => head.expects_continue = value.eq_ignore_ascii_case("100-continue"),
            _ => {}
        }
    }
}

fn answer(head: &Head, mut stream: &TcpStream, identity: &Identity) -> io::Result<()> {
    let (status, kind, body) = match head.path.as_str() {
        "/" => ("200 OK", "text/html; charset=utf-8", page(identity)),
        "/healthz" => ("200 OK", "text/plain", "ok\n".to_owned()),
        "/version" => (
            "200 OK",
            "application/json",
            format!(
                "{{\"release\":\"{}\",\"instance\":\"{}\"}}\n",
                escape_json(&identity.release),
                escape_json(&identity.instance)
            ),
        ),
        _ => ("404 Not Found", "text/plain", "There is nothing at this path.\n".to_owned()),
    };
    let mut response = response_head(head, identity, status, kind);
    response.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    if head.method != "HEAD" {
        response.push_str(&body);
    }
    stream.write_all(response.as_bytes())
}

/// Sends the body back while it still arrives, in the way in which it arrives.
fn echo(
    head: &Head,
    reader: &mut impl BufRead,
    mut stream: &TcpStream,
    identity: &Identity,
) -> io::Result<()> {
    if head.expects_continue {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let mut response = response_head(head, identity, "200 OK", "application/octet-stream");
    match head.body {
        BodyLength::Exactly(length) => {
            response.push_str(&format!("Content-Length: {length}\r\n\r\n"));
            stream.write_all(response.as_bytes())?;
            copy_exactly(reader, &mut stream, length)
        }
        BodyLength::Chunked => {
            response.push_str("Transfer-Encoding: chunked\r\n\r\n");
            stream.write_all(response.as_bytes())?;
            while let Some(length) = read_chunk_length(reader)? {
                write!(stream, "{length:x}\r\n")?;
                copy_exactly(reader, &mut stream, length)?;
                read_line(reader)?;
                stream.write_all(b"\r\n")?;
            }
            stream.write_all(b"0\r\n\r\n")
        }
    }
}

/// Reads past a body that nobody asked for, so that the next request on the connection starts where it should.
fn discard_body(head: &Head, reader: &mut impl BufRead) -> io::Result<()> {
    match head.body {
        BodyLength::Exactly(length) => copy_exactly(reader, &mut io::sink(), length),
        BodyLength::Chunked => {
            while let Some(length) = read_chunk_length(reader)? {
                copy_exactly(reader, &mut io::sink(), length)?;
                read_line(reader)?;
            }
            Ok(())
        }
    }
}

/// The length of the next chunk, or `None` after the last one and its trailers.
fn read_chunk_length(reader: &mut impl BufRead) -> io::Result<Option<u64>> {
    let mut limited = reader.take(HEAD_MAX);
    let line = read_line(&mut limited)?.ok_or_else(|| malformed("end within a body"))?;
    let digits = line.split(';').next().unwrap_or_default().trim();
    match u64::from_str_radix(digits, 16).map_err(|_| malformed("chunk length"))? {
        0 => {
            while read_line(&mut limited)?.is_some_and(|trailer| !trailer.is_empty()) {}
            Ok(None)
        }
        length => Ok(Some(length)),
    }
}

fn copy_exactly(reader: &mut impl BufRead, writer: &mut impl Write, length: u64) -> io::Result<()> {
    let mut left = length;
    while left > 0 {
        let available = reader.fill_buf()?;
        if available.is_empty() {
            return Err(malformed("end within a body"));
        }
        let part = available.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        writer.write_all(&available[..part])?;
        reader.consume(part);
        left -= part as u64;
    }
    Ok(())
}

/// A line without its end, or `None` where there is nothing more.
fn read_line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    match line.strip_suffix('\n') {
        Some(whole) => Ok(Some(whole.strip_suffix('\r').unwrap_or(whole).to_owned())),
        None => Err(malformed("line")),
    }
}

/// Everything of a response's head but its length.
fn response_head(head: &Head, identity: &Identity, status: &str, kind: &str) -> String {
    let connection = if head.close { "close" } else { "keep-alive" };
    let (release, instance) = (&identity.release, &identity.instance);
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nConnection: {connection}\r\n\
         Release-Version: {release}\r\nInstance-Id: {instance}\r\n"
    )
}

fn page(identity: &Identity) -> String {
    let [app, release, instance] =
        [&identity.app, &identity.release, &identity.instance].map(|text| escape_html(text));
    format!(
        r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{app}</title>
<style>
  :root {{ color-scheme: light dark; font: 17px/1.6 system-ui, sans-serif; }}
  body {{ max-width: 34rem; margin: 18vh auto; padding: 0 1.5rem; }}
  h1 {{ font-size: 2rem; margin-bottom: .25rem; }}
  dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.5rem; margin-top: 2rem; }}
  dt {{ opacity: .65; }}
  dd {{ margin: 0; font-family: ui-monospace, monospace; }}
</style>
<h1>{app} is running.</h1>
<p>Change a line, deploy again, and reload this page.</p>
<dl>
  <dt>Release</dt><dd>{release}</dd>
  <dt>Instance</dt><dd>{instance}</dd>
</dl>
</html>
"#
    )
}

fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn escape_json(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed {what}"))
}
