//! A file that the platform sends piece by piece.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::connection::{Call, Connection};
use super::{Client, ClientError, refusal};

/// How much longer than for an answer the next piece is waited for: the platform may copy a large file before it sends any of it.
const PATIENCE: u32 = 30;

/// A file on its way. It is not asked for again when the connection breaks: what was made anew is another file.
#[derive(Debug)]
pub struct Download {
    connection: Connection,
    body: Incoming,
    patience: std::time::Duration,
}

impl Download {
    pub(super) async fn begin(client: &Client, path: String) -> Result<Self, ClientError> {
        let patience = client.inside.patience.answer;
        let mut connection = client.connect().await?;
        let response = connection.send(&Call::get(path), &client.inside, patience).await?;
        if !response.status().is_success() {
            return Err(refusal(&connection.read(response, patience).await?));
        }
        Ok(Self { connection, body: response.into_body(), patience: patience * PATIENCE })
    }

    /// The next piece; none at the end.
    ///
    /// # Errors
    /// When the connection breaks, or nothing comes for long.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            return match timeout(self.patience, self.body.frame()).await {
                Err(_) => Err(self.connection.timed_out(self.patience)),
                Ok(None) => Ok(None),
                Ok(Some(Err(source))) => Err(self.connection.lost(source)),
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => Ok(Some(data)),
                    Err(_trailers) => continue,
                },
            };
        }
    }
}
