//! An app that goes where it is told to, by whatever means an app has, and says what became of it.
#![expect(unsafe_code, reason = "to have a socket leave by an interface has no safe form here")]

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType};

/// The errands, with a comma between those that are done one after the other, and a plus between those that are done at once.
pub(crate) const ERRANDS: &str = "BERTH_TEST_ERRANDS";
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How much is sent both ways at once.
const BULK: usize = 32 << 20;

#[test]
fn role() {
    let Ok(errands) = std::env::var(ERRANDS) else { return };
    println!();
    let go = |errand: &str| match go(&errand.split(' ').collect::<Vec<_>>()) {
        Ok(text) => println!("did {errand}: {text}"),
        Err(error) => println!("could not {errand}: {:?}", error.kind()),
    };
    for at_once in errands.split(',') {
        std::thread::scope(|scope| {
            at_once.split('+').for_each(|errand| drop(scope.spawn(move || go(errand))))
        });
    }
    println!("did all");
    loop {
        std::thread::park();
    }
}

fn go(words: &[&str]) -> io::Result<String> {
    match *words {
        ["hear", to] => hear(to),
        ["ask", to] => ask(to, None),
        ["ask", to, interface] => ask(to, Some(interface)),
        ["connect", to] => connect(to, None).map(|_| "reached".to_owned()),
        ["connect", to, interface] => connect(to, Some(interface)).map(|_| "reached".to_owned()),
        ["bulk", to] => bulk(to),
        ["resolve"] => ask(&format!("{}:53", resolver()), None),
        ["until", to] => Ok(until(|| hear(to).is_ok())),
        ["until-not", to] => Ok(until(|| connect(to, None).is_err())),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn until(holds: impl Fn() -> bool) -> String {
    while !holds() {
        // wait: nothing tells an app that it may be reached or not; it can but try
        std::thread::yield_now();
    }
    "at last".to_owned()
}

fn hear(to: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to.parse().unwrap(), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// A socket that leaves by `interface`, whatever the routes say.
fn socket(kind: SocketType, interface: Option<&str>) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket(AddressFamily::INET, kind, None)?;
    let timeout = Some(PATIENCE);
    rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Send, timeout)?;
    rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, timeout)?;
    rustix::net::sockopt::set_socket_broadcast(&socket, kind == SocketType::DGRAM)?;
    let Some(name) = interface else { return Ok(socket) };
    let length = libc::socklen_t::try_from(name.len()).unwrap();
    let (fd, option) = (socket.as_raw_fd(), libc::SO_BINDTODEVICE);
    // SAFETY: the name is as long as is said.
    let bound = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, option, name.as_ptr().cast(), length) };
    if bound == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}

fn connect(to: &str, interface: Option<&str>) -> io::Result<OwnedFd> {
    let socket = socket(SocketType::STREAM, interface)?;
    rustix::net::connect(&socket, &to.parse::<SocketAddr>().unwrap())?;
    Ok(socket)
}

/// Sends datagrams and waits for an answer. Two, since somebody may have to find out first where he is.
fn ask(to: &str, interface: Option<&str>) -> io::Result<String> {
    let socket: UdpSocket = socket(SocketType::DGRAM, interface)?.into();
    let to: SocketAddr = to.parse().unwrap();
    socket.send_to(b"anybody", to)?;
    socket.send_to(b"anybody", to)?;
    let mut answer = [0; 64];
    let (length, _) = socket.recv_from(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// The resolver that this app finds.
fn resolver() -> Ipv4Addr {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap();
    text.lines().find_map(|line| line.strip_prefix("nameserver ")).unwrap().trim().parse().unwrap()
}

/// Sends much to somebody who sends it back, and compares.
fn bulk(to: &str) -> io::Result<String> {
    let stream = TcpStream::connect_timeout(&to.parse().unwrap(), PATIENCE)?;
    let sent: Vec<u8> = (0..BULK / 4)
        .flat_map(|at| u32::try_from(at).unwrap().wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let mut came = Vec::with_capacity(BULK);
    std::thread::scope(|scope| {
        let sending =
            scope.spawn(|| (&stream).write_all(&sent).and_then(|()| stream.shutdown(Shutdown::Write)));
        (&stream).read_to_end(&mut came)?;
        sending.join().unwrap()
    })?;
    Ok(if came == sent { "intact".to_owned() } else { format!("{} bytes of {}", came.len(), sent.len()) })
}
