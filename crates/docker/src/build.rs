//! Dockerfiles, built by the daemon.

use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};
use std::path::Path;
use std::time::Duration;

use bollard::models::BuildInfo;
use bollard::query_parameters::BuildImageOptions;
use futures_util::StreamExt as _;

use crate::archive::{header, nameless};
use crate::engine::{Engine, pieces, wait};
use crate::error::{EngineError, asking, during};

/// The most memory that a command of a build may take: as much as this version of the API can be told.
const MEMORY: i32 = i32::MAX;
/// The share of the processors that a build has beside an app's 1,024, when both want them.
const CPU_SHARES: i32 = 512;
/// How often it is asked whether the build is to go on.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The files that a Dockerfile is built from.
pub struct Context {
    tar: tar::Builder<File>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("file", self.tar.get_ref()).finish()
    }
}

/// What is to be built.
#[derive(Debug)]
pub struct Dockerfile {
    /// Its path in the context.
    pub path: String,
    /// The name that the image gets.
    pub name: String,
    /// Its arguments, which the image's history shows.
    pub args: Vec<(String, String)>,
    /// Whether its commands are kept from every network.
    pub offline: bool,
}

impl Context {
    /// An empty one, in a file without a name in the folder `scratch`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn begin(scratch: &Path) -> Result<Self, EngineError> {
        let file = nameless(scratch).map_err(during("making a build's context"))?;
        Ok(Self { tar: tar::Builder::new(file) })
    }

    /// Adds a file of `size` bytes.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn file(&mut self, path: &str, exec: bool, size: u64, content: impl Read) -> Result<(), EngineError> {
        let mut header = header(tar::EntryType::Regular, if exec { 0o755 } else { 0o644 });
        header.set_size(size);
        self.tar.append_data(&mut header, path, content).map_err(during("writing a build's context"))
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn link(&mut self, path: &str, target: &str) -> Result<(), EngineError> {
        let mut header = header(tar::EntryType::Symlink, 0o777);
        self.tar.append_link(&mut header, path, target).map_err(during("writing a build's context"))
    }

    fn finish(self) -> io::Result<File> {
        let mut file = self.tar.into_inner()?;
        file.rewind()?;
        Ok(file)
    }
}

impl Engine {
    /// Builds an image, by the daemon's own builder. `say` gets each line that it says; `stop` is asked now and then whether to end it.
    /// Gives whether it was built and not ended.
    ///
    /// # Errors
    /// [`EngineError::Refused`] with what the daemon says when the build fails.
    pub fn build(
        &self,
        context: Context,
        what: &Dockerfile,
        say: &mut (dyn FnMut(&str) + Send),
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<bool, EngineError> {
        let context = context.finish().map_err(during("writing a build's context"))?;
        let options = BuildImageOptions {
            dockerfile: what.path.clone(),
            t: Some(what.name.clone()),
            buildargs: Some(what.args.iter().cloned().collect()),
            networkmode: what.offline.then(|| "none".to_owned()),
            memory: Some(MEMORY),
            cpushares: Some(CPU_SHARES),
            rm: true,
            forcerm: true,
            ..BuildImageOptions::default()
        };
        let building = async {
            let body = bollard::body_try_stream(pieces(context));
            let mut saying = std::pin::pin!(self.client().build_image(options, None, Some(body)));
            let mut looks = tokio::time::interval(LOOK_EVERY);
            loop {
                tokio::select! {
                    said = saying.next() => match said {
                        Some(said) => hear(said.map_err(asking("building"))?, say)?,
                        None => return Ok(true),
                    },
                    // To let go of the connection ends the build.
                    _ = looks.tick() => if stop() { return Ok(false) },
                }
            }
        };
        wait(building)?
    }

    /// The image `name` as an archive, in a file without a name in the folder `scratch`.
    ///
    /// # Errors
    /// When the daemon refuses, or the file cannot be written.
    pub fn save(&self, name: &str, scratch: &Path) -> Result<File, EngineError> {
        let mut file = nameless(scratch).map_err(during("making an archive"))?;
        let saving = async {
            let mut pieces = std::pin::pin!(self.client().export_image(name));
            while let Some(piece) = pieces.next().await {
                file.write_all(&piece.map_err(asking("saving an image"))?)
                    .map_err(during("writing an archive"))?;
            }
            Ok(())
        };
        wait(saving)??;
        file.rewind().map_err(during("reading an archive"))?;
        Ok(file)
    }
}

fn hear(said: BuildInfo, say: &mut (dyn FnMut(&str) + Send)) -> Result<(), EngineError> {
    if let Some(message) = said.error_detail.and_then(|detail| detail.message) {
        return Err(EngineError::Refused { what: "building", status: 500, message });
    }
    let text = said.stream.or(said.status).unwrap_or_default();
    text.lines().map(str::trim_end).filter(|line| !line.is_empty()).for_each(say);
    Ok(())
}
