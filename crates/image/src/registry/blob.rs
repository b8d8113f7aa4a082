//! A blob, to its last byte: taken up where it broke off, compared with its digest and its length.

use std::path::Path;

use ::http::StatusCode;
use ::http::header::CONTENT_RANGE;
use sha2::{Digest as _, Sha256};
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufWriter};

use super::http::Fault;
use super::{Ask, Registries, Source, Tries};
use crate::digest::Digest;
use crate::disk;
use crate::error::{ImageError, failed};
use crate::manifest::Descriptor;
use crate::reference::Reference;

/// How much is written at a time: each write goes to another thread and back.
const WRITE: usize = 512 << 10;

/// A download: what is in the file, and the hash over it.
struct Part {
    file: BufWriter<File>,
    length: u64,
    hash: Sha256,
    /// How many bytes stay free on the disk, and at which length that is looked at next.
    reserve: u64,
    look_at: u64,
}

impl Registries {
    /// A short blob, in memory.
    pub(crate) async fn small_blob(
        &self,
        reference: &Reference,
        blob: &Descriptor,
    ) -> Result<Vec<u8>, ImageError> {
        let what = format!("blob {}", blob.digest);
        let mut last = None;
        for source in self.sources(reference) {
            let ask = Ask { path: format!("blobs/{}", blob.digest), accept: None, range: None, what: &what };
            let mut tries = Tries::new(&self.config);
            loop {
                let fault = match self.small_blob_of(&source, &ask, blob).await {
                    Ok(bytes) => return Ok(bytes),
                    Err(fault) => fault,
                };
                match tries.again(fault).await {
                    Ok(()) => {}
                    Err(error) => {
                        last = Some(error);
                        break;
                    }
                }
            }
        }
        Err(last.expect("a reference has a registry"))
    }

    async fn small_blob_of(
        &self,
        source: &Source,
        ask: &Ask<'_>,
        blob: &Descriptor,
    ) -> Result<Vec<u8>, Fault> {
        let bytes = self.ask(source, ask).await?.whole(blob.size, ask.what).await?;
        match Digest::of(&bytes) {
            digest if digest == blob.digest => Ok(bytes),
            digest => Err(ImageError::invalid(format!("{} is {digest}", ask.what)).into()),
        }
    }

    /// Gets a blob into the file at `path`; what is in it already counts as the blob's beginning. On success the file holds the blob, and
    /// what fails as not being the blob, or for want of a disk that has `reserve` bytes left, is removed.
    pub(crate) async fn blob(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        path: &Path,
        reserve: u64,
    ) -> Result<(), ImageError> {
        let mut part = Part::open(path, reserve).await?;
        let mut last = None;
        for source in self.sources(reference) {
            match self.all_of(&source, blob, &mut part, path).await {
                Ok(()) => return Ok(()),
                Err(error @ (ImageError::Invalid(_) | ImageError::TooLarge(_))) => {
                    part.restart(path).await?;
                    last = Some(error);
                }
                Err(error @ ImageError::DiskFull(_)) => {
                    // What others need more than who goes on with it later.
                    part.restart(path).await?;
                    return Err(error);
                }
                Err(error @ ImageError::Io { .. }) => return Err(error),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("a reference has a registry"))
    }

    /// Gets what is missing of a blob, as often as may be tried.
    async fn all_of(
        &self,
        source: &Source,
        blob: &Descriptor,
        part: &mut Part,
        path: &Path,
    ) -> Result<(), ImageError> {
        let mut tries = Tries::new(&self.config);
        loop {
            match self.some(source, blob, part, path).await {
                Ok(()) => return Ok(()),
                Err(fault) => tries.again(fault).await?,
            }
        }
    }

    /// Gets what is missing of a blob.
    async fn some(
        &self,
        source: &Source,
        blob: &Descriptor,
        part: &mut Part,
        path: &Path,
    ) -> Result<(), Fault> {
        let what = format!("blob {}", blob.digest);
        if part.length < blob.size || blob.size == 0 {
            let range = (part.length > 0).then(|| format!("bytes={}-", part.length));
            let ask = Ask { path: format!("blobs/{}", blob.digest), accept: None, range, what: &what };
            let mut answer = self.ask(source, &ask).await?;
            let goes_on = answer.response.status() == StatusCode::PARTIAL_CONTENT;
            if goes_on && !continues(answer.header(CONTENT_RANGE), part.length, blob.size) {
                return Err(ImageError::invalid(format!(
                    "{what} goes on at another place than was asked for"
                ))
                .into());
            }
            if !goes_on {
                part.restart(path).await?;
            }
            while let Some(piece) = answer.piece().await? {
                if part.length + piece.len() as u64 > blob.size {
                    let text =
                        format!("{what} is longer than the {} bytes that its manifest says", blob.size);
                    return Err(ImageError::Invalid(text).into());
                }
                part.add(&piece, path).await?;
            }
        }
        if part.length < blob.size {
            let why = format!("{what} broke off after {} of {} bytes", part.length, blob.size);
            return Err(Fault::Passing(
                ImageError::Unreachable { registry: source.registry.clone(), why },
                None,
            ));
        }
        part.file.flush().await.map_err(failed(path, "written"))?;
        match Digest::end(part.hash.clone()) {
            digest if digest == blob.digest && part.length == blob.size => Ok(()),
            digest => Err(ImageError::invalid(format!("{what} is {digest}")).into()),
        }
    }
}

/// Whether `Content-Range: bytes FROM-TO/SIZE` is the rest of what we have.
fn continues(header: Option<&str>, from: u64, size: u64) -> bool {
    let read = || {
        let (range, all) = header?.strip_prefix("bytes ")?.split_once('/')?;
        let (begin, end) = range.split_once('-')?;
        let number = |text: &str| text.parse::<u64>().ok();
        Some((number(begin)?, number(end)?, if all == "*" { size } else { number(all)? }))
    };
    read() == Some((from, size - 1, size))
}

impl Part {
    async fn open(path: &Path, reserve: u64) -> Result<Self, ImageError> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).await;
        let mut file = file.map_err(failed(path, "opened"))?;
        let (mut length, mut hash) = (0, Sha256::new());
        let mut buffer = vec![0; 128 << 10];
        loop {
            let read = file.read(&mut buffer).await.map_err(failed(path, "read"))?;
            if read == 0 {
                let file = BufWriter::with_capacity(WRITE, file);
                return Ok(Self { file, length, hash, reserve, look_at: length });
            }
            hash.update(buffer.get(..read).unwrap_or_default());
            length += read as u64;
        }
    }

    async fn restart(&mut self, path: &Path) -> Result<(), ImageError> {
        use tokio::io::AsyncSeekExt as _;
        self.file.rewind().await.map_err(failed(path, "written"))?;
        self.file.get_ref().set_len(0).await.map_err(failed(path, "written"))?;
        (self.length, self.hash, self.look_at) = (0, Sha256::new(), 0);
        Ok(())
    }

    async fn add(&mut self, piece: &[u8], path: &Path) -> Result<(), ImageError> {
        if self.length >= self.look_at {
            self.look_at = self.length + disk::LOOK;
            disk::leaves(self.file.get_ref(), self.reserve, disk::LOOK).map_err(failed(path, "written"))?;
        }
        self.file.write_all(piece).await.map_err(failed(path, "written"))?;
        self.hash.update(piece);
        self.length += piece.len() as u64;
        Ok(())
    }
}
