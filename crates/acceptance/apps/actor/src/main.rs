//! Plays apps on their bad days. The first argument is the part: see `main`.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, exit};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{env, thread};

const SIGTERM: i32 = 15;
const SIG_IGN: usize = 1;

// std links the C library anyway; these two have no form of their own in it.
unsafe extern "C" {
    fn signal(number: i32, handler: usize) -> usize;
    fn setsid() -> i32;
}

/// How many bytes of noise were written.
static WRITTEN: AtomicU64 = AtomicU64::new(0);

/// Which of the requests fail, none where it is nought; and how many there were.
static FAILS_EACH: AtomicU64 = AtomicU64::new(0);
static ASKED: AtomicU64 = AtomicU64::new(0);

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] | ["serve"] => serve(port(), "200 OK"),
        // Answers everything, also the health check, with this status.
        ["status", status] => serve(port(), status),
        // Answers each so-many-th request with 500, health checks apart.
        ["flaky", each] => {
            FAILS_EACH.store(each.parse().expect("a number"), Ordering::Relaxed);
            serve(port(), "200 OK");
        }
        ["silent"] => idle(),
        // Listens at all addresses, those too at which other apps are called.
        ["everywhere"] => serve_at(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port())), "200 OK"),
        // Speaks first, and then says again what it hears, line by line, until it hears `bye`.
        ["echo"] => echo(),
        // Calls an app for ever.
        ["call", target] => call_for_ever(target),
        // Listens, but not where it was told to.
        ["elsewhere"] => serve(0, "200 OK"),
        ["stubborn"] => {
            // SAFETY: SIG_IGN runs no code of ours.
            unsafe { signal(SIGTERM, SIG_IGN) };
            serve(port(), "200 OK");
        }
        ["scattered"] => {
            scatter();
            serve(port(), "200 OK");
        }
        ["noisy", bytes] => {
            let bytes = bytes.parse().expect("a number of bytes");
            thread::spawn(move || make_noise(bytes));
            serve(port(), "200 OK");
        }
        // Has the directory for itself, or ends.
        ["keep"] => {
            let place = env::var("VOLUME_DATA").expect("it has a volume");
            let lock = File::create(format!("{place}/lock")).expect("the volume can be written to");
            if lock.try_lock().is_err() {
                eprintln!("somebody else writes here");
                exit(9);
            }
            serve(port(), "200 OK");
            drop(lock);
        }
        ["count"] => count(),
        ["exit", status] => {
            println!("about to exit with {status}");
            eprintln!("on purpose");
            exit(status.parse().expect("an exit status"));
        }
        ["say", text] => println!("{text}"),
        _ => {
            eprintln!("no such part: {arguments:?}");
            exit(64);
        }
    }
}

fn port() -> u16 {
    env::var("PORT").ok().and_then(|text| text.parse().ok()).expect("PORT is given")
}

/// Writes down a visit, and says how many there were.
fn visit(place: &str) -> io::Result<String> {
    let visits = format!("{place}/visits");
    writeln!(File::options().append(true).create(true).open(&visits)?, "a visit")?;
    Ok(fs::read_to_string(visits)?.lines().count().to_string())
}

fn idle() -> ! {
    loop {
        // wait: for the signal that ends it.
        thread::sleep(Duration::from_secs(3_600));
    }
}

/// Prints one number after another.
fn count() {
    for number in 0_u64.. {
        println!("number {number}.");
        // wait: for nothing; this is its pace, slow enough to be killed between two lines.
        thread::sleep(Duration::from_millis(5));
    }
}

/// Leaves a process behind in a session of its own that ignores SIGTERM, and says which.
fn scatter() {
    let mut command = Command::new("/bin/sleep");
    command.arg("100000");
    // SAFETY: both calls are allowed between fork and exec.
    unsafe {
        command.pre_exec(|| {
            setsid();
            signal(SIGTERM, SIG_IGN);
            Ok(())
        });
    }
    let child = command.spawn().expect("sleep starts");
    println!("scattered {}", child.id());
}

fn make_noise(bytes: u64) {
    let line = [b"noise ".repeat(20).as_slice(), b"\n"].concat();
    let block = line.repeat(1 + 65_536 / line.len());
    let mut out = io::stdout().lock();
    while WRITTEN.load(Ordering::Relaxed) < bytes {
        out.write_all(&block).expect("somebody reads");
        WRITTEN.fetch_add(block.len() as u64, Ordering::Relaxed);
    }
    writeln!(out, "that was all of it").expect("somebody reads");
}

fn serve(port: u16, status: &str) {
    serve_at(TcpListener::bind((Ipv4Addr::LOCALHOST, port)), status);
}

fn echo() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port())).expect("the port is free");
    for mut stream in listener.incoming().flatten() {
        thread::spawn(move || {
            let release = env::var("RELEASE_VERSION").unwrap_or_default();
            writeln!(stream, "hello from {release}")?;
            for line in BufReader::new(stream.try_clone()?).lines() {
                let line = line?;
                writeln!(stream, "{line}")?;
                if line == "bye" {
                    break;
                }
            }
            Ok::<(), io::Error>(())
        });
    }
}

fn call_for_ever(target: &str) {
    loop {
        println!("called: {}", call(target));
        // wait: for nothing; this is its pace.
        thread::sleep(Duration::from_millis(50));
    }
}

/// Asks `host:port/path`, and gives the status and the body, or what went wrong.
fn call(target: &str) -> String {
    let (host, path) = target.split_once('/').unwrap_or((target, ""));
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let answer = send(host, request.as_bytes());
    let status = answer.split(' ').nth(1).unwrap_or_default();
    match answer.split_once("\r\n\r\n") {
        Some((_, body)) => format!("{status} {body}"),
        None => answer,
    }
}

/// Sends `bytes` to `host:port` and gives all that comes back, or what went wrong.
fn send(host: &str, bytes: &[u8]) -> String {
    let exchanged = || {
        let mut stream = if host.contains(':') { TcpStream::connect(host) } else { TcpStream::connect((host, 80)) }?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.write_all(bytes)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok::<_, io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    exchanged().unwrap_or_else(|problem| format!("failed: {problem}"))
}

fn from_hex(text: &str) -> Vec<u8> {
    let digit = |at: usize| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (0..text.len()).step_by(2).filter_map(digit).collect()
}

fn serve_at(listener: io::Result<TcpListener>, status: &str) {
    let listener = listener.expect("the port is free");
    println!("listens on {}", listener.local_addr().expect("it listens").port());
    let status = status.to_owned();
    for stream in listener.incoming().flatten() {
        let status = status.clone();
        thread::spawn(move || drop(answer(stream, &status)));
    }
}

fn switch(mut stream: TcpStream, mut reader: BufReader<TcpStream>) -> io::Result<()> {
    stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")?;
    io::copy(&mut reader, &mut stream).map(drop)
}

fn take(head: &str, reader: &mut impl Read) -> io::Result<String> {
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let taken = io::copy(&mut reader.take(length.unwrap_or(0)), &mut io::sink())?;
    Ok(format!("took {taken}"))
}

fn tell_events(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")?;
    loop {
        stream.write_all(b"data: tick\n\n")?;
        // wait: for nothing; this is its pace.
        thread::sleep(Duration::from_millis(50));
    }
}

fn answer(mut stream: TcpStream, status: &str) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut head = first.clone();
    while reader.read_line(&mut head)? > 2 {}
    let path = first.split(' ').nth(1).unwrap_or("/");
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| "unset".to_owned());
    let body = match path {
        // Switches to another protocol, which is to say again what it hears.
        "/switch" => return switch(stream, reader),
        // Takes a body as long as its head says, however slowly it comes.
        "/upload" => take(&head, &mut reader)?,
        // Says something for ever, as a page that is kept up to date hears it.
        "/events" => return tell_events(stream),
        "/crash" => {
            eprintln!("asked to crash");
            exit(7);
        }
        // Answers nobody: it waits for its client to leave.
        "/hold" => {
            io::copy(&mut reader, &mut io::sink())?;
            return Ok(());
        }
        // Good for everybody for ten minutes.
        "/release" | "/fresh" => variable("RELEASE_VERSION"),
        "/instance" => variable("INSTANCE_ID"),
        "/visits" => visit(&variable("VOLUME_DATA"))?,
        "/written" => WRITTEN.load(Ordering::Relaxed).to_string(),
        "/head" => head,
        _ => match path.strip_prefix("/env/") {
            Some(name) => variable(name),
            None if path.starts_with("/call/") => call(&path["/call/".len()..]),
            None if path.starts_with("/send/") => {
                let (host, bytes) = path["/send/".len()..].split_once('/').unwrap_or_default();
                send(host, &from_hex(bytes))
            }
            None => match path.strip_prefix("/read") {
                Some(path) => fs::read_to_string(path).unwrap_or_else(|problem| problem.kind().to_string()),
                None => "here".to_owned(),
            },
        },
    };
    let each = FAILS_EACH.load(Ordering::Relaxed);
    let probed = matches!(path, "/healthz" | "/up");
    let fails = each > 0 && !probed && ASKED.fetch_add(1, Ordering::Relaxed) % each == 0;
    let status = if fails { "500 Internal Server Error" } else { status };
    let location = if status.starts_with('3') { "location: /login\r\n" } else { "" };
    let fresh = if path == "/fresh" { "cache-control: public, max-age=600\r\n" } else { "" };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\n{location}{fresh}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}
