//! A request into an instance's own network beside one over the machine's loopback.
//!
//! The app is this program again: it answers each line with a line. Both kinds run under a real shim, and the rounds take turns, so that
//! what else the machine does falls on both alike. Prints one object of JSON: medians in microseconds.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use berth_clock::{Clock as _, SystemClock};
use berth_runtime::{Cursor, InstanceSpec, Mount, Network, Observed, Runtime as _, dial_folder};
use berth_shim::dial;

use crate::{Outcome, median};

/// Rounds, in each of which each kind gets so many requests on one connection and so many connections.
const ROUNDS: usize = 20;
const REQUESTS: usize = 500;
const CONNECTIONS: usize = 50;

/// One way to an instance.
struct Way {
    observed: Observed,
    /// The line to the shim and what it handed out, where the network is the instance's own.
    line: Option<UnixStream>,
    spare: Vec<std::os::fd::OwnedFd>,
    requests: Vec<f64>,
    connections: Vec<f64>,
}

/// The app: a line for a line.
pub(crate) fn serve(port: u16) -> Outcome<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    println!("ready");
    for stream in listener.incoming() {
        let mut stream = stream?;
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|length| length > 0) {
            stream.write_all(line.as_bytes())?;
            line.clear();
        }
    }
    Ok(())
}

pub(crate) async fn measure(home: &Path) -> Outcome<()> {
    let folder = dial_folder(&home.join("run"));
    let runtime = crate::open(home)?;
    if !runtime.capabilities().own_network {
        return Err("this user cannot make networks".into());
    }
    let exe = home.join("exe");
    std::fs::copy(std::env::current_exe()?, &exe)?;
    let mut ways = Vec::new();
    for (number, network) in [Network::Own, Network::Host].into_iter().enumerate() {
        let spec = spec(&exe, number, network)?;
        let observed = runtime.start(spec.clone()).await?;
        let mut log = runtime.log(&spec.id).follow(Cursor::default());
        while !log.next().await?.records.iter().any(|(_, record)| record.body == b"ready") {}
        let line = observed.dialer().map(|name| UnixStream::connect(folder.join(format!("{name}.sock"))));
        let line = line.transpose()?;
        ways.push(Way { observed, line, spare: Vec::new(), requests: Vec::new(), connections: Vec::new() });
    }
    for _ in 0..ROUNDS {
        ways.iter_mut().try_for_each(round)?;
    }
    for way in &ways {
        runtime.kill(&way.observed.id).await?;
        runtime.remove(&way.observed.id).await?;
    }
    let [own, host] = &mut ways[..] else { return Err("two ways were made".into()) };
    println!(
        "{{\"n\":{},\"own_us\":{:.2},\"host_us\":{:.2},\"connections\":{},\"own_connect_us\":{:.2},\"host_connect_us\":{:.2}}}",
        ROUNDS * REQUESTS,
        median(&mut own.requests),
        median(&mut host.requests),
        ROUNDS * CONNECTIONS,
        median(&mut own.connections),
        median(&mut host.connections),
    );
    Ok(())
}

fn spec(exe: &Path, number: usize, network: Network) -> Outcome<InstanceSpec> {
    let exe = exe.to_str().ok_or("the path is not UTF-8")?;
    let mut spec = crate::spec(number, &[exe])?;
    spec.mounts = vec![Mount { source: exe.into(), target: exe.into(), writable: false }];
    spec.network = network;
    Ok(spec)
}

fn round(way: &mut Way) -> Outcome<()> {
    let clock = SystemClock::new();
    let micros = |since: Duration| (clock.monotonic() - since).as_secs_f64() * 1e6;
    let mut stream = way.connect()?;
    for _ in 0..REQUESTS {
        let began = clock.monotonic();
        exchange(&mut stream)?;
        way.requests.push(micros(began));
    }
    // One at a time: the app serves a connection to its end before it takes the next.
    drop(stream);
    for _ in 0..CONNECTIONS {
        let began = clock.monotonic();
        let mut stream = way.connect()?;
        exchange(&mut stream)?;
        way.connections.push(micros(began));
    }
    Ok(())
}

impl Way {
    /// A connection as edge makes it: by a socket that was asked for with seven others, where it takes one.
    fn connect(&mut self) -> Outcome<TcpStream> {
        let port = self.observed.port.ok_or("it has a port")?;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let Some(line) = &mut self.line else {
            let stream = TcpStream::connect(addr)?;
            stream.set_nodelay(true)?;
            return Ok(stream);
        };
        if self.spare.is_empty() {
            line.write_all(&dial::request(8))?;
            self.spare = dial::receive(&*line)?;
        }
        let socket = self.spare.pop().ok_or("the shim gave none")?;
        rustix::io::ioctl_fionbio(&socket, false)?;
        rustix::net::connect(&socket, &addr)?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

fn exchange(stream: &mut TcpStream) -> Outcome<()> {
    const LINE: &[u8; 64] = b"GET /................................................ HTTP/1.1\r\n";
    let mut answer = [0; LINE.len()];
    stream.write_all(LINE)?;
    stream.read_exact(&mut answer)?;
    if answer == *LINE { Ok(()) } else { Err("another line came back".into()) }
}
