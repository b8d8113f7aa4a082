//! A commit of a repository as source: what it says of itself, and its tree in the chunk store.

use std::io::{self, BufRead as _, BufReader, Read as _};
use std::time::Duration;

use berth_contract::{Code, Problem};
use berth_process::Stdio;
use berth_source::ChunkStore;
use berth_source::archive::{UnpackError, Unpacked, unpack};
use berth_source::tree::{ENTRIES_MAX, InvalidTree};
use berth_spec::{manifest, procfile};
use tokio::sync::Semaphore;

use super::repository::{ERRORS_MAX, GitError, Repository, Started, output, shown};
use crate::machine::in_full;

/// The longest text of a commit that is read, in bytes.
const COMMIT_MAX: u64 = 1 << 20;
/// The longest subject that is kept, in bytes.
const SUBJECT_MAX: usize = 200;
/// The longest list of a commit's files that is read, in bytes.
const LIST_MAX: u64 = 64 << 20;
/// How long reading the source may take.
const WITHIN: Duration = Duration::from_secs(600);
/// How many submodules an error names.
const NAMED: usize = 5;
/// How many sources are read at a time: each syncs what it writes, and more at once would not be faster. The others wait.
static READING: Semaphore = Semaphore::const_new(2);

/// The id of an object: 40 hex digits, or 64 in a repository of the newer kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ObjectId(String);

impl ObjectId {
    /// The id that is written `text`.
    pub(super) fn read(text: &str) -> Option<Self> {
        let is_hex = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        (is_hex && matches!(text.len(), 40 | 64)).then(|| Self(text.to_owned()))
    }

    /// The id that stands for nothing.
    pub(super) fn nothing() -> Self {
        Self("0".repeat(40))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it stands for nothing: a branch that is not there before a push, or after it.
    pub(super) fn is_nothing(&self) -> bool {
        self.0.bytes().all(|byte| byte == b'0')
    }

    /// The first digits, as people see it.
    pub(super) fn short(&self) -> &str {
        self.0.get(..7).unwrap_or(&self.0)
    }
}

/// Where a push keeps its objects until it is taken. It is named by the repository's user, so only the name of a folder is believed.
#[derive(Debug, Clone)]
pub(super) struct Quarantine(String);

impl Quarantine {
    /// Of the path that git gave to its hook.
    pub(super) fn of(path: &str) -> Option<Self> {
        let name = path.rsplit('/').next()?;
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        (plain && !name.is_empty()).then(|| Self(name.to_owned()))
    }
}

/// A commit that may or may not be taken yet.
#[derive(Debug)]
pub(super) struct Commit<'r> {
    repository: &'r Repository,
    quarantine: Option<Quarantine>,
    id: &'r ObjectId,
}

impl<'r> Commit<'r> {
    pub(super) fn new(repository: &'r Repository, quarantine: Option<Quarantine>, id: &'r ObjectId) -> Self {
        Self { repository, quarantine, id }
    }

    fn git(&self) -> berth_process::Launch {
        let git = self.repository.git();
        match &self.quarantine {
            None => git,
            Some(Quarantine(name)) => {
                let objects = self.repository.dir().join("objects");
                git.env("GIT_OBJECT_DIRECTORY", objects.join(name))
                    .env("GIT_ALTERNATE_OBJECT_DIRECTORIES", &objects)
            }
        }
    }

    /// The first paragraph of its message, in one line.
    ///
    /// # Errors
    /// When it is no commit.
    pub(super) async fn subject(&self) -> Result<String, GitError> {
        let args = ["commit", self.id.as_str()];
        let text = output(self.git(), WITHIN, "cat-file", &args, COMMIT_MAX).await?;
        Ok(subject(&String::from_utf8_lossy(&text)))
    }

    /// Puts its tree into `store`, with the limits of an upload.
    ///
    /// # Errors
    /// A problem for whoever pushes.
    pub(super) async fn import(&self, store: ChunkStore) -> Result<Unpacked, Problem> {
        let _turn = READING.acquire().await.expect("nobody closes the semaphore");
        self.refuse_submodules().await?;
        let texts = [manifest::FILE_NAME, procfile::FILE_NAME];
        let archive = move |mut stream: Stream| {
            let unpacked = unpack(&mut stream, &store, &texts)?;
            // What fills up the last block: git must not fail because nobody reads it.
            drop(io::copy(&mut stream.take(1 << 20), &mut io::sink()));
            Ok(unpacked)
        };
        self.read("archive", &["--format=tar", self.id.as_str()], archive).await?.map_err(refused)
    }

    /// A push carries no submodules, and a build without them fails where nobody looks for the reason.
    async fn refuse_submodules(&self) -> Result<(), Problem> {
        let list = ["-r", "-z", "--full-tree", self.id.as_str()];
        let found = self.read("ls-tree", &list, submodules).await?.map_err(refused)?;
        if found.is_empty() {
            return Ok(());
        }
        let more = if found.len() > NAMED { " and others" } else { "" };
        let names = found.get(..NAMED.min(found.len())).unwrap_or_default().join(", ");
        let detail = format!("the commit has submodules, which a push does not carry: {names}{more}");
        Err(Problem::new(Code::InvalidTree, detail)
            .next("add their files to the repository itself (`git subtree add`), or deploy a checkout with `berth deploy`"))
    }

    /// Runs git and has what it prints read on a thread of its own. What `read` says comes before what git says: git fails when nobody reads on.
    async fn read<T: Send + 'static>(
        &self,
        what: &'static str,
        args: &[&str],
        read: impl FnOnce(Stream) -> Result<T, UnpackError> + Send + 'static,
    ) -> Result<Result<T, UnpackError>, GitError> {
        let launch = self.git().arg(what).args(args).stdout(Stdio::Piped).stderr(Stdio::Piped);
        let mut started = Started(launch.start()?);
        let stdout = started.0.stdout.take().expect("it is piped");
        let stderr = started.0.stderr.take().expect("it is piped");
        let reading = tokio::task::spawn_blocking(move || read(BufReader::with_capacity(128 << 10, stdout)));
        let errors = tokio::task::spawn_blocking(move || {
            let mut errors = Vec::new();
            drop(stderr.take(ERRORS_MAX).read_to_end(&mut errors));
            errors
        });
        let Ok(read) = tokio::time::timeout(WITHIN, reading).await else {
            started.end().await;
            return Err(GitError::TimedOut(what));
        };
        let read = read.expect("reading does not panic");
        let status = started.0.ended().await;
        let errors = errors.await.expect("reading does not panic");
        match (&read, status) {
            (Ok(_), Ok(status)) if !status.success() => {
                Err(GitError::Failed { what, errors: shown(&errors) })
            }
            _ => Ok(read),
        }
    }
}

type Stream = BufReader<std::process::ChildStdout>;

/// The first paragraph after the head.
fn subject(text: &str) -> String {
    let message = text.split_once("\n\n").map_or("", |(_, message)| message).trim_start();
    let paragraph: Vec<&str> = message.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let mut line: String =
        paragraph.join(" ").chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.truncate(line.floor_char_boundary(SUBJECT_MAX));
    line
}

/// The places of submodules in what `git ls-tree -r -z` prints: `160000 commit ID\tPATH` and a nought for each.
fn submodules(stream: Stream) -> Result<Vec<String>, UnpackError> {
    let mut found = Vec::new();
    for (count, entry) in stream.take(LIST_MAX).split(0).enumerate() {
        let entry = entry?;
        if count == ENTRIES_MAX {
            return Err(InvalidTree::TooMany.into());
        }
        if entry.starts_with(b"160000 ") && found.len() <= NAMED {
            let path = entry.split(|byte| *byte == b'\t').next_back().unwrap_or_default();
            found.push(String::from_utf8_lossy(path).into_owned());
        }
    }
    Ok(found)
}

fn refused(error: UnpackError) -> Problem {
    let text = in_full(&error);
    match error {
        UnpackError::Store(error) => {
            Problem::new(Code::from_text(error.code()).unwrap_or(Code::Internal), text)
        }
        UnpackError::Read(_) => Problem::new(Code::Internal, text),
        _ => Problem::new(Code::InvalidTree, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_the_first_paragraph_in_one_line() {
        let head = "tree 1\nauthor a <a@b> 0 +0000\ngpgsig -----BEGIN\n \n x\n";
        assert_eq!(subject(&format!("{head}\nFirst line\nand more\n\nBody\n")), "First line and more");
        assert_eq!(subject(head), "");
        assert_eq!(subject(&format!("{head}\n\u{1b}[2Jboo")), " [2Jboo");
        assert!(subject(&format!("{head}\n{}", "\u{e4}".repeat(500))).len() <= SUBJECT_MAX);
    }

    #[test]
    fn ids_and_quarantines_are_plain() {
        assert!(ObjectId::read(&"a".repeat(40)).is_some());
        assert!(ObjectId::read(&"0".repeat(64)).unwrap().is_nothing());
        for text in ["", "main", "--help", &"A".repeat(40), &"a".repeat(41)] {
            assert_eq!(ObjectId::read(text), None, "{text}");
        }
        assert!(Quarantine::of("/x/objects/tmp_objdir-incoming-Ab12").is_some());
        for text in ["", "/x/..", "/x/.", "x/", "/x/a b", "/x/a\nb", "/x/a.b"] {
            assert!(Quarantine::of(text).is_none(), "{text}");
        }
    }
}
