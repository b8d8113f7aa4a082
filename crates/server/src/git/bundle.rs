//! Repositories in a backup: each a bundle, which git itself clones from, and unpacked again when its app is first pushed to or cloned after
//! a restore.
//!
//! A bundle does not say where a history was cut off, as that of a shallow clone is; beside it lies a list of the commits where it was. Neither
//! is trusted: git reads the pack as the app's own user, and what the first lines say is checked here.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_control::state::App;
use berth_process::{Launch, Stdio};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::commit::ObjectId;
use super::repository::{ERRORS_MAX, GitError, Repositories, Repository, Started, folder, shown};

/// The folder of bundles in a restored home.
pub const FOLDER: &str = "bundles";
/// The longest list of branches and tags in a bundle, in bytes.
const REFS_MAX: u64 = 64 << 20;
/// The longest list of commits at which a history is cut off.
pub(crate) const SHALLOW_MAX: u64 = 16 << 20;
/// How long git may take to write or read a bundle.
const WITHIN: Duration = Duration::from_secs(900);

/// A repository as a backup has it.
#[derive(Debug)]
pub(crate) struct Saved {
    /// The bundle, to be read from its beginning.
    pub(crate) bundle: File,
    /// The commits without their parents, a line each.
    pub(crate) shallow: Vec<u8>,
}

/// Where the bundle of `app` waits in a restored home, and the list beside it. The time at which the app was made is part of it, as of its
/// repository.
#[must_use]
pub fn waiting(home: &Path, app: &App) -> [PathBuf; 2] {
    let dir = home.join(FOLDER).join(app.id.tenant.as_str()).join(app.id.project.as_str());
    ["bundle", "shallow"].map(|kind| dir.join(format!("{}.{}.{kind}", app.id.app, app.created_at.0)))
}

impl Repositories {
    /// The repository of `app` as a backup has it, with `scratch` as the place of a file that is gone when this returns. Nothing when nothing was
    /// ever pushed.
    ///
    /// # Errors
    /// When git fails.
    pub(crate) async fn save(&self, app: &App, scratch: &Path) -> Result<Option<Saved>, GitError> {
        let [bundle, shallow] = waiting(self.home(), app);
        if let Ok(bundle) = File::open(bundle) {
            return Ok(Some(Saved { bundle, shallow: fs::read(shallow).map_err(folder("saved"))? }));
        }
        let Some(repository) = self.there(app)? else { return Ok(None) };
        if repository.run("for-each-ref", &["--count=1", "--format=%(refname)"], 4_096).await?.is_empty() {
            return Ok(None);
        }
        drop(fs::remove_file(scratch));
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(scratch);
        let mut bundle = file.map_err(folder("saved"))?;
        fs::remove_file(scratch).map_err(folder("saved"))?;
        let out = bundle.try_clone().map_err(folder("saved"))?;
        let git = repository.git_for_all().args(["bundle", "create", "--quiet", "-", "--all"]);
        complete(git.stdout(Stdio::Fd(out.into())), "bundle", &[]).await?;
        bundle.rewind().map_err(folder("saved"))?;
        let cut = repository.run("rev-parse", &["--is-shallow-repository"], 64).await?;
        // Of a history that is cut off git says the commits without parents that it knows of: first ones among them, which lose nothing by it.
        let shallow = match cut.starts_with(b"true") {
            true => repository.run("rev-list", &["--all", "--max-parents=0"], SHALLOW_MAX).await?,
            false => Vec::new(),
        };
        Ok(Some(Saved { bundle, shallow }))
    }

    /// Unpacks what waits of `app` into its new repository.
    ///
    /// # Errors
    /// When it is no bundle, or git does not take it.
    pub(super) async fn unpack(&self, app: &App, repository: &Repository) -> Result<(), GitError> {
        let [bundle, shallow] = waiting(self.home(), app);
        let file = match File::open(&bundle) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened.map_err(folder("restored"))?,
        };
        let (refs, pack) = opened(file).map_err(folder("restored"))?;
        let git = repository.git_for_all().args(["index-pack", "--stdin"]);
        complete(git.stdin(Stdio::Fd(pack.into())), "index-pack", &[]).await?;
        let cut = fs::read(shallow).map_err(folder("restored"))?;
        if !cut.is_empty() {
            self.write_shallow(repository, app, &cut).map_err(folder("restored"))?;
        }
        let git = repository.git_for_all().args(["update-ref", "--stdin"]).stdin(Stdio::Piped);
        complete(git, "update-ref", refs.as_bytes()).await
    }

    /// Removes what waits of apps that have a repository by now, or are gone.
    pub(super) fn forget_unpacked(&self, apps: &[Arc<App>]) -> io::Result<()> {
        let wanted = |app: &&Arc<App>| self.there(app).is_ok_and(|there| there.is_none());
        let kept: Vec<PathBuf> =
            apps.iter().filter(wanted).flat_map(|app| waiting(self.home(), app)).collect();
        let below = |dir: &PathBuf| -> Vec<PathBuf> {
            fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
        };
        let projects = below(&self.home().join(FOLDER)).into_iter().flat_map(|tenant| below(&tenant));
        let files = projects.flat_map(|project| below(&project));
        files.filter(|file| !kept.contains(file)).try_for_each(fs::remove_file)
    }

    /// The folder is the user's that git runs as: nothing in it is followed or replaced.
    fn write_shallow(&self, repository: &Repository, app: &App, commits: &[u8]) -> io::Result<()> {
        let lines = commits.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        if !lines.into_iter().all(|line| ObjectId::read(&String::from_utf8_lossy(line)).is_some()) {
            return Err(foreign("where its history ends"));
        }
        let mut options = File::options();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(repository.dir().join("shallow"))?;
        if let Some(user) = self.user(app) {
            fchown(&file, Some(user.uid), Some(user.gid))?;
        }
        file.write_all(commits)
    }
}

/// Reads the first lines of a bundle, and gives what git's `update-ref` is told and the file at the place where its pack begins.
fn opened(mut file: File) -> io::Result<(String, File)> {
    let mut reader = BufReader::new(file.try_clone()?.take(REFS_MAX));
    let (mut line, mut refs, mut read) = (String::new(), String::new(), 0_u64);
    loop {
        line.clear();
        let is_first = read == 0;
        read += reader.read_line(&mut line)? as u64;
        match &*line {
            "# v2 git bundle\n" if is_first => continue,
            _ if is_first => return Err(foreign("another beginning")),
            "\n" => break,
            cut if !cut.ends_with('\n') => return Err(foreign("no list of branches")),
            _ => {}
        }
        let (id, name) = line.trim_end().split_once(' ').ok_or_else(|| foreign("no list of branches"))?;
        let id = ObjectId::read(id).ok_or_else(|| foreign("no list of branches"))?;
        // What HEAD names is a branch's.
        if name != "HEAD" {
            if !name.starts_with("refs/") || name.contains(|it: char| it.is_whitespace() || it.is_control()) {
                return Err(foreign("a branch of no name"));
            }
            refs.push_str(&format!("create {name} {}\n", id.as_str()));
        }
    }
    file.seek(SeekFrom::Start(read))?;
    Ok((refs, file))
}

fn foreign(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the bundle has {what}"))
}

/// Runs git to its end, with `input` to read where its standard input is piped.
async fn complete(git: Launch, what: &'static str, input: &[u8]) -> Result<(), GitError> {
    let mut started = Started(git.stderr(Stdio::Piped).start()?);
    let pipes = started.0.take_pipes().map_err(folder("worked on"))?;
    let mut errors = Vec::new();
    let work = async {
        let write = async {
            if let Some(mut stdin) = pipes.stdin {
                // One that does not read to the end says why.
                drop(stdin.write_all(input).await);
            }
        };
        let mut stderr = pipes.stderr.expect("it is piped").take(ERRORS_MAX);
        let (_written, _read) = tokio::join!(write, stderr.read_to_end(&mut errors));
        drop(stderr);
        started.0.ended().await
    };
    let Ok(status) = tokio::time::timeout(WITHIN, work).await else {
        started.end().await;
        return Err(GitError::TimedOut(what));
    };
    match status.map_err(folder("worked on"))?.success() {
        true => Ok(()),
        false => Err(GitError::Failed { what, errors: shown(&errors) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(text: &str) -> io::Result<(String, String)> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.rewind().unwrap();
        let (refs, mut rest) = opened(file)?;
        let mut pack = String::new();
        rest.read_to_string(&mut pack).unwrap();
        Ok((refs, pack))
    }

    #[test]
    fn the_first_lines_of_a_bundle_are_read_and_no_more() {
        let id = "1".repeat(40);
        let text = format!("# v2 git bundle\n{id} refs/heads/main\n{id} HEAD\n\nPACK\n\n");
        let (refs, pack) = bundle(&text).unwrap();
        assert_eq!((refs, pack), (format!("create refs/heads/main {id}\n"), "PACK\n\n".to_owned()));
        for bad in [
            String::new(),
            "# v3 git bundle\n\nPACK".to_owned(),
            "# v2 git bundle\nPACK".to_owned(),
            format!("# v2 git bundle\n-{id} a commit\n\nPACK"),
            format!("# v2 git bundle\n{id} refs/heads/a b\n\nPACK"),
            format!("# v2 git bundle\n{id} config\n\nPACK"),
        ] {
            assert_eq!(bundle(&bad).unwrap_err().kind(), io::ErrorKind::InvalidData, "{bad:?}");
        }
    }
}
