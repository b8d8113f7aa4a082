//! Dockerfiles, built by the daemon.
//!
//! Docker has the builder of its API 1.41, Podman one of its own behind the same address. What differs with Podman 4.3: it has secrets for `RUN --mount`,
//! whose files it takes out of the context; it has commands in the machine's network unless it is told otherwise in words of its own; it starts
//! them in a control group that it is told, and deletes that after each; and it goes on with a build that nobody listens to any more, so that one is
//! ended by ending its commands.

use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};
use std::path::Path;
use std::time::Duration;

use bollard::models::BuildInfo;
use bollard::query_parameters::BuildImageOptions;
use futures_util::StreamExt as _;

use crate::archive::{header, nameless};
use crate::engine::{Engine, Product, pieces, wait};
use crate::error::{EngineError, asking, during};

/// The most memory that a command of a build may take: as much as this version of the API can be told.
const MEMORY: i32 = i32::MAX;
/// The share of the processors that a build has beside an app's 1,024, when both want them.
const CPU_SHARES: i32 = 512;
/// How often it is asked whether the build is to go on.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// After how many bytes of an archive it is asked whether there is room for more.
const ASK_AFTER: usize = 64 << 20;
/// Says to Podman that commands have a network of their own, where Docker has them in one anyway, and that nothing leads out of it.
const OWN_NETWORK: &str = r#"[{"Name":"network","Host":false}]"#;
const PODMANS_NONE: &str = "1";
/// How many looks Podman has for noticing that the commands of a build were ended.
const LOOKS_AT_END: u32 = 50;
/// How the file of a secret in a context begins. It must be in no folder: Podman moves it to one where no other is.
const SECRET: &str = ".berth-build-secret-";

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
    /// The stage that is the image; the last one when not given.
    pub target: Option<String>,
    /// Its arguments, which the image's history shows.
    pub args: Vec<(String, String)>,
    /// Its secrets, by the names that `RUN --mount=type=secret,id=NAME` has; none of the image's layers holds them. Podman alone has them.
    pub secrets: Vec<(String, String)>,
    /// Whether its commands are kept from every network.
    pub offline: bool,
    /// The control group that Podman starts its commands in, from the top of the hierarchies: `/builds/7/run`. Who names one limits the group
    /// above it. Docker has limits of its own.
    pub cgroup: Option<String>,
}

/// What a build is watched with.
pub struct Watched<'a> {
    /// Gets each line that the builder says.
    pub say: &'a mut (dyn FnMut(&str) + Send),
    /// Is asked now and then whether to end the build.
    pub stop: &'a (dyn Fn() -> bool + Sync),
    /// Ends the commands of the build that run in its control group.
    pub end_commands: &'a (dyn Fn() + Sync),
}

impl std::fmt::Debug for Watched<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watched")
    }
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

    /// Adds secrets, where Podman looks for them. It moves them away before any instruction sees them.
    fn secrets(&mut self, secrets: &[(String, String)]) -> Result<(), EngineError> {
        secrets.iter().try_for_each(|(name, value)| {
            self.file(&secret_path(name), false, value.len() as u64, value.as_bytes())
        })
    }

    /// The whole of it, from its beginning, as a tar file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn into_tar(self) -> Result<File, EngineError> {
        self.finish().map_err(during("writing a build's context"))
    }

    fn finish(self) -> io::Result<File> {
        let mut file = self.tar.into_inner()?;
        file.rewind()?;
        Ok(file)
    }
}

impl Engine {
    /// Builds an image, by the daemon's own builder. Gives whether it was built and not ended.
    ///
    /// # Errors
    /// [`EngineError::Refused`] with what the daemon says when the build fails.
    pub fn build(
        &self,
        mut context: Context,
        what: &Dockerfile,
        watched: Watched<'_>,
    ) -> Result<bool, EngineError> {
        let Watched { say, stop, end_commands } = watched;
        let is_podman = self.product() == Product::Podman;
        if is_podman && !what.secrets.is_empty() {
            context.secrets(&what.secrets)?;
        }
        let context = context.into_tar()?;
        let limited_by_group = is_podman && what.cgroup.is_some();
        let options = BuildImageOptions {
            dockerfile: what.path.clone(),
            t: Some(what.name.clone()),
            target: what.target.clone().unwrap_or_default(),
            buildargs: Some(what.args.iter().cloned().collect()),
            networkmode: what.offline.then(|| if is_podman { PODMANS_NONE } else { "none" }.to_owned()),
            memory: (!limited_by_group).then_some(MEMORY),
            cpushares: (!limited_by_group).then_some(CPU_SHARES),
            rm: true,
            forcerm: true,
            ..BuildImageOptions::default()
        };
        let mut client = self.client().clone();
        if is_podman {
            let more = podmans_own(what);
            client = client.with_request_modifier(move |mut request| {
                if let Ok(address) = format!("{}{more}", request.uri()).parse() {
                    *request.uri_mut() = address;
                }
                request
            });
        }
        let building = async {
            let body = bollard::body_try_stream(pieces(context));
            let mut saying = std::pin::pin!(client.build_image(options, None, Some(body)));
            let mut looks = tokio::time::interval(LOOK_EVERY);
            let mut looks_left = None;
            loop {
                tokio::select! {
                    said = saying.next() => match (said, looks_left) {
                        (Some(said), None) => hear(said.map_err(asking("building"))?, say)?,
                        (None, None) => return Ok(true),
                        (Some(Ok(_)), Some(_)) => {}
                        // The builder has noticed that its command was ended, and has cleared away after itself.
                        (Some(Err(_)) | None, Some(_)) => return Ok(false),
                    },
                    _ = looks.tick() => {
                        if looks_left.is_none() && !stop() {
                            continue;
                        }
                        let left: u32 = looks_left.unwrap_or(LOOKS_AT_END);
                        // To let go of the connection ends a build of Docker's.
                        if !is_podman || left == 0 {
                            return Ok(false);
                        }
                        end_commands();
                        looks_left = Some(left - 1);
                    }
                }
            }
        };
        wait(building)?
    }

    /// The image `name` as an archive, in a file without a name in the folder `scratch`; nothing when there is no room for all of it: `has_room` is asked
    /// after each 64 MiB.
    ///
    /// # Errors
    /// When the daemon refuses, or the file cannot be written.
    pub fn save(
        &self,
        name: &str,
        scratch: &Path,
        has_room: &(dyn Fn() -> bool + Sync),
    ) -> Result<Option<File>, EngineError> {
        let mut file = nameless(scratch).map_err(during("making an archive"))?;
        let saving = async {
            let mut pieces = std::pin::pin!(self.client().export_image(name));
            let mut unasked = 0;
            while let Some(piece) = pieces.next().await {
                let piece = piece.map_err(asking("saving an image"))?;
                unasked += piece.len();
                if unasked >= ASK_AFTER {
                    unasked = 0;
                    if !has_room() {
                        return Ok(false);
                    }
                }
                file.write_all(&piece).map_err(during("writing an archive"))?;
            }
            Ok(true)
        };
        if !wait(saving)?? {
            return Ok(None);
        }
        file.rewind().map_err(during("reading an archive"))?;
        Ok(Some(file))
    }
}

fn secret_path(name: &str) -> String {
    format!("{SECRET}{name}")
}

/// What Podman's address of a build takes beside Docker's.
fn podmans_own(what: &Dockerfile) -> String {
    let mut more = format!("&nsoptions={}", encoded(OWN_NETWORK));
    if let Some(group) = &what.cgroup {
        more += &format!("&cgroupparent={}", encoded(group));
    }
    if !what.secrets.is_empty() {
        let named = |(name, _): &(String, String)| format!("id={name},src={}", secret_path(name));
        let secrets = serde_json::json!(what.secrets.iter().map(named).collect::<Vec<_>>());
        more += &format!("&secrets={}", encoded(&secrets.to_string()));
    }
    more
}

/// As a value in a query: every byte that could mean something there by its number.
fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("a string takes everything");
        }
        encoded
    })
}

fn hear(said: BuildInfo, say: &mut (dyn FnMut(&str) + Send)) -> Result<(), EngineError> {
    if let Some(message) = said.error_detail.and_then(|detail| detail.message) {
        return Err(EngineError::Refused { what: "building", status: 500, message });
    }
    let text = said.stream.or(said.status).unwrap_or_default();
    text.lines().map(str::trim_end).filter(|line| !line.is_empty()).for_each(say);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_podman_is_told_beside_docker_means_itself_alone() {
        let mut what = Dockerfile {
            path: "Dockerfile".to_owned(),
            name: "a".to_owned(),
            target: None,
            args: Vec::new(),
            secrets: Vec::new(),
            offline: false,
            cgroup: None,
        };
        assert_eq!(
            podmans_own(&what),
            "&nsoptions=%5B%7B%22Name%22%3A%22network%22%2C%22Host%22%3Afalse%7D%5D"
        );
        what.cgroup = Some("/a&b".to_owned());
        what.secrets = vec![("TOKEN".to_owned(), "hush".to_owned())];
        let told = podmans_own(&what);
        assert!(told.contains("&cgroupparent=%2Fa%26b&secrets=%5B%22id%3DTOKEN%2Csrc%3D%2Eberth"), "{told}");
        assert!(!told.contains("hush"));
    }
}
