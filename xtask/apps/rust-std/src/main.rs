//! Answers every connection with one line.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};

fn main() -> std::io::Result<()> {
    let port = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(8000);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    for stream in listener.incoming() {
        let mut stream = stream?;
        std::thread::spawn(move || -> std::io::Result<()> {
            let mut request = Vec::new();
            let mut part = [0; 1024];
            while !request.ends_with(b"\r\n\r\n") {
                let count = stream.read(&mut part)?;
                if count == 0 {
                    return Ok(());
                }
                request.extend_from_slice(&part[..count]);
            }
            let body = "This is the first release";
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
        });
    }
    Ok(())
}
