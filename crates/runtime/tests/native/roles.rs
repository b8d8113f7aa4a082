//! The apps: tests that do nothing unless they were started in their role.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use berth_process::{Group, Launch, Program};

pub(crate) const ROLE: &str = "BERTH_TEST_ROLE";

fn plays(role: &str) -> bool {
    std::env::var(ROLE).is_ok_and(|played| played == role)
}

fn wait_for_ever() -> ! {
    loop {
        std::thread::park();
    }
}

#[test]
fn role_wait() {
    if plays("wait") {
        println!("\nready");
        wait_for_ever();
    }
}

#[test]
fn role_report() {
    if plays("report") {
        let mut fds: Vec<i32> = std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
            .collect();
        // Without that of the folder just read, which is closed by now.
        fds.retain(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok());
        fds.sort_unstable();
        println!("\nfds {fds:?}");
        std::env::vars().for_each(|(name, value)| println!("env {name}={value}"));
        println!("dir {}", std::env::current_dir().unwrap().display());
        print!("{}", std::fs::read_to_string("/proc/self/status").unwrap());
        std::fs::write(std::env::temp_dir().join("mine"), "x").unwrap();
    }
}

/// Takes SIGTERM as if it were nothing.
#[test]
fn role_stubborn() {
    if plays("stubborn") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let kind = tokio::signal::unix::SignalKind::terminate();
            let mut signals = tokio::signal::unix::signal(kind).unwrap();
            println!("\nready");
            while signals.recv().await.is_some() {
                println!("no");
            }
        });
    }
}

/// Starts one that leaves the session, and one that drops the environment as well; then waits.
#[test]
fn role_scatter() {
    if plays("scatter") {
        let child = |keep: bool| {
            let args = ["--exact", "roles::role_wait", "--nocapture", "--test-threads=1"];
            let launch = Launch::new(Program::Own).args(args).env(ROLE, "wait").group(Group::Session);
            let launch = if keep { launch.env_from_ours("BERTH_TOKEN") } else { launch };
            launch.start().unwrap().pid()
        };
        println!("\nmarked {} bare {} scattered", child(true), child(false));
        wait_for_ever();
    }
}

/// Answers every byte with itself, one connection at a time.
#[test]
fn role_echo() {
    use std::io::{Read as _, Write as _};
    if plays("echo") {
        let port: u16 = std::env::var("PORT").unwrap().parse().unwrap();
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        println!("\nlistening");
        for stream in listener.incoming() {
            let (mut stream, mut byte) = (stream.unwrap(), [0; 1]);
            while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
        }
    }
}

#[test]
fn role_crash() {
    if plays("crash") {
        std::process::abort();
    }
}

#[test]
fn role_flood() {
    if plays("flood") {
        let mut out = std::io::stdout().lock();
        let line = [b"x".repeat(99), b"\n".to_vec()].concat().repeat(1_000);
        for _ in 0..2_000 {
            out.write_all(&line).unwrap();
        }
        out.write_all(b"flooded\n").unwrap();
    }
}

#[test]
fn role_hostile() {
    if plays("hostile") {
        let mut out = std::io::stdout().lock();
        out.write_all(b"\n\xFF\xFE\0\x1B[2J\r\n\n").unwrap();
        out.write_all(&[b"y".repeat(200_000), b"\nlast without an end".to_vec()].concat()).unwrap();
        out.flush().unwrap();
        std::process::abort();
    }
}

#[test]
fn role_listen() {
    if plays("listen") {
        let port = match std::env::var("LISTEN_ELSEWHERE") {
            Ok(_) => 0,
            Err(_) => std::env::var("PORT").unwrap().parse().unwrap(),
        };
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        println!("\nat {} ready", listener.local_addr().unwrap().port());
        wait_for_ever();
    }
}

/// Answers whoever connects with its name.
#[test]
fn role_serve() {
    if plays("serve") {
        let port: u16 = std::env::var("PORT").unwrap().parse().unwrap();
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        println!("\nat {port} ready");
        for peer in listener.incoming() {
            // Whoever went away meanwhile is not served.
            drop(peer.unwrap().write_all(std::env::var("NAME").unwrap().as_bytes()));
        }
    }
}

/// Tries to connect to everything in `TARGETS` and says what came of it; a path is a Unix socket.
#[test]
fn role_attack() {
    if plays("attack") {
        println!();
        for target in std::env::var("TARGETS").unwrap().split(' ') {
            let outcome = if target.starts_with('/') {
                UnixStream::connect(target).map(drop)
            } else {
                TcpStream::connect_timeout(&target.parse().unwrap(), Duration::from_secs(5)).map(drop)
            };
            match outcome {
                Ok(()) => println!("tried {target}: reached"),
                Err(error) => println!("tried {target}: {:?}", error.kind()),
            }
        }
        println!("tried all");
        if std::env::var("STAYS").is_ok() {
            wait_for_ever();
        }
    }
}

/// Listens at all addresses and takes whoever comes.
#[test]
fn role_serve_all() {
    if plays("serve_all") {
        let port: u16 = std::env::var("PORT").unwrap().parse().unwrap();
        let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
        println!("\nready");
        listener.incoming().for_each(drop);
    }
}
