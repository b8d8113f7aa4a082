//! `up --detach`: a supervisor in the background, and the wait for its word.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

use berth_process::{Group, Launch, Program};
use rustix::pipe::PipeFlags;

use super::UpError;
use super::voice::Outcome;
use crate::args::UpArgs;

/// Of our environment the supervisor in the background gets all: it is the same person's program as we are, and hands on
/// to its roles only what they need.
pub(super) fn start(args: &UpArgs, home: &Path) -> Result<(), UpError> {
    let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)
        .map_err(|error| UpError::System { attempt: "make a pipe", source: error.into() })?;
    let mut launch = Launch::new(Program::Own)
        .arg0("berth")
        .args(["__supervisor", "--home"])
        .arg(home)
        .envs(std::env::vars_os())
        .dir("/")
        // A session of its own: the terminal's end is not its end.
        .group(Group::Session);
    let starter = launch.inherit(&theirs).map_err(UpError::system("hand on a pipe"))?;
    launch = launch.arg("--starter").arg(starter.to_string());
    let mut supervisor = launch.args(options(args)).start()?;
    // Ours must go, or we would wait for a word from ourselves.
    drop(theirs);
    let mut text = Vec::new();
    // One line, not all until the end: a supervisor that is up keeps its end of the pipe.
    BufReader::new(File::from(ours))
        .read_until(b'\n', &mut text)
        .map_err(UpError::system("wait for the supervisor"))?;
    let Ok(outcome) = serde_json::from_slice::<Outcome>(&text) else {
        supervisor.wait().map_err(UpError::system("wait for the supervisor"))?;
        return Err(UpError::Silent { log: home.join("logs/platform/supervisor.log") });
    };
    match outcome {
        Outcome::Up(message) => writeln!(io::stdout(), "{message}").map_err(UpError::system("print")),
        Outcome::Failed(problem) => Err(UpError::Told(problem)),
    }
}

/// What `up` was asked for, but the home, as arguments again.
pub(super) fn options(args: &UpArgs) -> Vec<OsString> {
    let given = [
        ("--edge", args.edge.map(|address| address.to_string())),
        ("--https", args.https.map(|address| address.to_string())),
        ("--api", args.api.map(|address| address.to_string())),
        ("--proxy-protocol", args.proxy_protocol.as_ref().map(ToString::to_string)),
        ("--isolation", args.isolation.map(|level| level.name().to_owned())),
        ("--backend", args.backend.map(|backend| backend.name().to_owned())),
    ];
    let given = given.into_iter().filter_map(|(option, value)| Some([option.into(), value?.into()]));
    given.flatten().chain(args.json.then(|| "--json".into())).collect()
}
