//! The body of a request, handed to git as it comes: unpacked when it was packed, never whole in memory, never waited for too long.

use std::io::Write as _;
use std::time::Duration;

use axum::body::{Body, Bytes};
use flate2::write::MultiGzDecoder;
use futures_util::StreamExt as _;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use crate::config::PushBounds;

/// So much of a packed body is unpacked at a time; deflate gives at most some 1,032 times as much.
const SLICE: usize = 4096;

/// Why a body did not get to git.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    /// The client is gone, or sent something that is no HTTP.
    #[error("the request broke off")]
    Broken,
    /// Nothing came for long.
    #[error("nothing was sent for {} s", .0.as_secs())]
    Silent(Duration),
    /// It is longer than it may be.
    #[error("the request is longer than {0} bytes")]
    TooLong(u64),
    /// It says that it is packed and is not.
    #[error("the request is not the gzip that it says it is")]
    NotGzip,
}

/// Writes `body` to `git`, unpacked, within `bounds`, and ends git's input. When git no longer reads the rest is thrown away: a
/// client looks at the answer, which says why, only once it has sent all.
///
/// # Errors
/// [`BodyError`]; git has read the beginning then, and must not go on with it.
pub(super) async fn feed(
    body: Body,
    gzip: bool,
    git: impl AsyncWrite + Unpin,
    bounds: PushBounds,
) -> Result<(), BodyError> {
    let PushBounds { bytes: max, silence } = bounds;
    let mut parts = body.into_data_stream();
    let mut unpack = gzip.then(|| MultiGzDecoder::new(Vec::new()));
    let mut sink = Sink { git: Some(git), left: max, max };
    while let Some(part) =
        tokio::time::timeout(silence, parts.next()).await.map_err(|_late| BodyError::Silent(silence))?
    {
        let part: Bytes = part.map_err(|_broken| BodyError::Broken)?;
        let Some(unpack) = &mut unpack else {
            sink.write(&part).await?;
            continue;
        };
        for slice in part.chunks(SLICE) {
            unpack.write_all(slice).map_err(|_not_gzip| BodyError::NotGzip)?;
            sink.write(&std::mem::take(unpack.get_mut())).await?;
        }
    }
    if let Some(unpack) = unpack {
        sink.write(&unpack.finish().map_err(|_not_gzip| BodyError::NotGzip)?).await?;
    }
    if let Some(mut git) = sink.git {
        drop(git.shutdown().await);
    }
    Ok(())
}

/// Git's input, as long as it reads it.
struct Sink<W> {
    git: Option<W>,
    left: u64,
    max: u64,
}

impl<W: AsyncWrite + Unpin> Sink<W> {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), BodyError> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or(BodyError::TooLong(self.max))?;
        if let Some(git) = &mut self.git
            && git.write_all(bytes).await.is_err()
        {
            self.git = None;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut packer = GzEncoder::new(Vec::new(), Compression::default());
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap()
    }

    async fn fed(parts: Vec<Vec<u8>>, gzip: bool, max: u64) -> Result<Vec<u8>, BodyError> {
        let parts = parts.into_iter().map(|part| Ok::<_, std::io::Error>(Bytes::from(part)));
        let mut git = Vec::new();
        let bounds = PushBounds { bytes: max, ..PushBounds::default() };
        feed(Body::from_stream(futures_util::stream::iter(parts)), gzip, &mut git, bounds).await.map(|()| git)
    }

    #[tokio::test]
    async fn a_body_arrives_packed_or_not() {
        let text: Vec<u8> = (0..100_000_u32).flat_map(u32::to_be_bytes).collect();
        assert_eq!(fed(vec![text[..7].to_vec(), text[7..].to_vec()], false, 1 << 20).await.unwrap(), text);
        let whole = packed(&text);
        let parts = whole.chunks(1000).map(<[u8]>::to_vec).collect();
        assert_eq!(fed(parts, true, 1 << 20).await.unwrap(), text);
    }

    #[tokio::test]
    async fn a_bomb_is_stopped_at_its_limit() {
        let bomb = packed(&vec![0; 64 << 20]);
        assert!(bomb.len() < 100_000);
        assert!(matches!(fed(vec![bomb], true, 1 << 20).await, Err(BodyError::TooLong(_))));
        assert!(matches!(fed(vec![vec![0; 11]], false, 10).await, Err(BodyError::TooLong(10))));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_body_and_slowness_does_not() {
        let bounds = PushBounds { bytes: 100, silence: Duration::from_secs(60) };
        let every = |seconds: u64, parts: usize| {
            let parts = futures_util::stream::iter(0..parts).then(move |_| async move {
                // wait: for no time at all, since the clock stands still and jumps
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                Ok::<_, std::io::Error>(Bytes::from_static(b"x"))
            });
            Body::from_stream(parts)
        };
        let mut git = Vec::new();
        feed(every(59, 10), false, &mut git, bounds).await.unwrap();
        assert_eq!(git, b"xxxxxxxxxx");
        let silent = feed(every(61, 10), false, &mut Vec::new(), bounds).await.unwrap_err();
        assert_eq!(silent.to_string(), "nothing was sent for 60 s");
    }

    #[tokio::test]
    async fn what_is_no_gzip_or_only_half_of_it_is_refused() {
        assert!(matches!(fed(vec![b"hello".to_vec()], true, 100).await, Err(BodyError::NotGzip)));
        let half = packed(&[7; 1000]);
        assert!(matches!(
            fed(vec![half[..half.len() - 4].to_vec()], true, 10_000).await,
            Err(BodyError::NotGzip)
        ));
    }
}
