//! What tests put control on: a home, sockets that nobody else knows, and a supervisor that only listens.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use berth_clock::Clock;

use crate::config::{BuildBounds, ControlConfig, KeyEncryptionKey, PushBounds};

/// The user who owns the home.
pub(crate) const OWNER: u32 = 4_242;

/// A home in `dir`, sockets, and the far ends of what control is connected to: leash, ready, supervisor.
pub(crate) fn config(dir: &Path, clock: Arc<dyn Clock>) -> (ControlConfig, Vec<UnixStream>) {
    for below in ["journal", "routing", "chunks", "artifacts", "builds", "instances", "logs", "run/i"] {
        std::fs::create_dir_all(dir.join(below)).unwrap();
    }
    let listen = |name: &str| UnixListener::bind(dir.join("run").join(name)).unwrap();
    let [leash, ready, supervisor] = [(); 3].map(|()| UnixStream::pair().unwrap());
    let address = "127.0.0.1:8080".parse().unwrap();
    let config = ControlConfig {
        home: dir.to_owned(),
        run_dir: dir.join("run"),
        platform: "0123456789abcdef".to_owned(),
        key_encryption_key: KeyEncryptionKey::new([7; 32]),
        api_tcp: std::net::TcpListener::bind("127.0.0.1:0").unwrap(),
        api_unix: listen("api.sock"),
        edge_unix: listen("edge.sock"),
        leash: leash.0.into(),
        ready: ready.0.into(),
        supervisor: supervisor.0,
        owner_uid: OWNER,
        uid_plan: None,
        exe: "/proc/self/exe".into(),
        edge_addr: address,
        https_addr: None,
        api_addr: address,
        isolation: Some(berth_spec::Isolation::Plain),
        backend: berth_spec::Backend::Native,
        push_bounds: PushBounds::default(),
        build_bounds: BuildBounds::default(),
        clock,
    };
    (config, vec![leash.1, ready.1, supervisor.1])
}
