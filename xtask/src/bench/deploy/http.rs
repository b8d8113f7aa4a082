//! What is asked of the example and of the API while they are measured.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::http::{Answer, Connection};

/// A connection to an app, through edge.
pub(super) struct Client {
    connection: Connection,
    host: String,
}

impl Client {
    pub(super) fn connect(edge: SocketAddr, app: &str) -> Result<Self> {
        Ok(Self { connection: Connection::open(edge)?, host: format!("{app}.localhost") })
    }

    /// Which instance answers just now.
    pub(super) fn instance(&mut self) -> Result<String> {
        let request = format!("GET /version HTTP/1.1\r\nHost: {}\r\n\r\n", self.host);
        let Answer { status, body } = self.connection.exchange(&request)?;
        ensure!(status == 200, "the app answered {status}");
        let answer: Value = serde_json::from_str(&body)?;
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
        let Answer { status, body: answer } = connection.exchange(&request)?;
        if status != 200 {
            bail!("the API answered {status}: {}", answer);
        }
    }
    Ok(())
}
