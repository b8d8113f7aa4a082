//! Somebody's working tree, and the real `git` that pushes from it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::platform::{Answer, Platform, Running};

/// A repository with a working tree, in a directory of the platform's scratch space.
#[derive(Debug)]
pub struct Worktree {
    directory: PathBuf,
    home: PathBuf,
    url: String,
}

impl Worktree {
    /// A new repository in `name`, whose remote `berth` is the app `app` with the owner's token.
    #[must_use]
    pub fn new(platform: &Platform, name: &str, app: &str) -> Self {
        let tree = Self::without_remote(platform, name, app);
        tree.run(["remote", "add", "berth", &tree.url]);
        tree
    }

    /// The same without the remote.
    #[must_use]
    pub fn without_remote(platform: &Platform, name: &str, app: &str) -> Self {
        let directory = platform.scratch().join(name);
        fs::create_dir_all(&directory).expect("our directory");
        let token = fs::read_to_string(platform.home().join("keys/owner-token")).expect("there is a token");
        let url = format!("http://x:{}@{}/git/{app}.git", token.trim(), platform.api());
        let tree = Self { directory, home: platform.scratch().join("user"), url };
        tree.run(["init", "--quiet", "--initial-branch=main"]);
        tree
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The address of the app's repository, with the token in it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Writes a file.
    pub fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.directory.join(path);
        fs::create_dir_all(path.parent().expect("it is below the directory")).expect("our directory");
        fs::write(path, text).expect("our directory");
    }

    /// Commits all there is and gives the id of the commit.
    pub fn commit(&self, subject: &str) -> String {
        self.run(["add", "--all", "--force"]);
        self.run(["commit", "--quiet", "--allow-empty", "-m", subject]);
        self.git(["rev-parse", "HEAD"]).ok().stdout.trim().to_owned()
    }

    /// Runs git, which must succeed, and gives its output and its errors.
    pub fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> String {
        let answer = self.git(args).ok();
        answer.stdout + &answer.stderr
    }

    /// Runs git to its end.
    #[must_use]
    pub fn git<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Answer {
        self.begin(args).wait()
    }

    /// Starts git and leaves it running, in a process group of its own.
    #[must_use]
    pub fn begin<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Running {
        let mut git = self.command();
        git.args(args).process_group(0);
        Running::of(git.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("git is installed"))
    }

    /// Runs git with something to read.
    #[must_use]
    pub fn git_reading<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>, input: &[u8]) -> Answer {
        let path = self.home.join("input");
        fs::write(&path, input).expect("our directory");
        let mut git = self.command();
        git.args(args).stdin(fs::File::open(&path).expect("our file"));
        Running::of(git.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("git is installed"))
            .wait()
    }

    /// What the app's repository says its branches and tags are: `ID\tNAME` in each line.
    #[must_use]
    pub fn remote_refs(&self) -> String {
        self.git(["ls-remote", "--quiet", &self.url]).ok().stdout
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the harness stands outside of the platform and its allow-list"
    )]
    fn command(&self) -> Command {
        let mut git = Command::new("git");
        git.env_clear().current_dir(&self.directory).stdin(Stdio::null());
        for (name, value) in [
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_AUTHOR_NAME", "A"),
            ("GIT_AUTHOR_EMAIL", "a@example.com"),
            ("GIT_COMMITTER_NAME", "A"),
            ("GIT_COMMITTER_EMAIL", "a@example.com"),
            ("GIT_CONFIG_COUNT", "2"),
            ("GIT_CONFIG_KEY_0", "protocol.file.allow"),
            ("GIT_CONFIG_VALUE_0", "always"),
            // Ten thousand branches are ten thousand waits for the disk otherwise.
            ("GIT_CONFIG_KEY_1", "core.fsync"),
            ("GIT_CONFIG_VALUE_1", "none"),
        ] {
            git.env(name, value);
        }
        git.env("HOME", &self.home).env("PATH", std::env::var_os("PATH").unwrap_or_default());
        git
    }
}
