//! Which platform is meant, and how to reach it.
//!
//! In this order: `--home` or `--context`; `BERTH_API` with `BERTH_TOKEN`; `BERTH_HOME`; the platform that last came up, as
//! `berth up` noted it in `contexts.toml`; the default home. What is written on the command line is thus never overruled by
//! what was set earlier.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use berth_contract::client::{Endpoint, InvalidEndpoint};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::args::Globals;

/// What the process was started with, read once.
#[derive(Debug, Clone)]
pub struct Environment {
    variables: BTreeMap<String, OsString>,
    /// The effective user.
    pub uid: u32,
    /// The current directory.
    pub directory: PathBuf,
}

impl Environment {
    /// That of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        Self {
            variables: variables.collect(),
            uid: rustix::process::geteuid().as_raw(),
            // Without a current directory relative paths fail where they are used.
            directory: std::env::current_dir().unwrap_or_default(),
        }
    }

    /// The variable's value; one that is empty counts as not set.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&OsString> {
        self.variables.get(name).filter(|value| !value.is_empty())
    }

    /// A variable that holds an absolute path; the XDG specification tells to ignore relative ones.
    fn directory_variable(&self, name: &str) -> Option<PathBuf> {
        self.variable(name).map(PathBuf::from).filter(|path| path.is_absolute())
    }

    /// Where the home lies when nobody says.
    #[must_use]
    pub fn default_home(&self) -> Option<PathBuf> {
        if self.uid == 0 {
            return Some(PathBuf::from("/var/lib/berth"));
        }
        let data = self.directory_variable("XDG_DATA_HOME");
        let data = data.or_else(|| Some(self.directory_variable("HOME")?.join(".local/share")));
        data.map(|data| data.join("berth"))
    }

    fn contexts_file(&self) -> Option<PathBuf> {
        let config = self.directory_variable("XDG_CONFIG_HOME");
        let config = config.or_else(|| Some(self.directory_variable("HOME")?.join(".config")));
        config.map(|config| config.join("berth/contexts.toml"))
    }

    /// Where the sockets of a platform lie. `platform` is its id, 16 hex digits.
    #[must_use]
    pub fn run_directory(&self, platform: &str) -> PathBuf {
        let short: String = platform.chars().take(8).collect();
        if self.uid == 0 {
            return PathBuf::from(format!("/run/berth-{short}"));
        }
        // The path of a Unix socket ends at 108 bytes, and instances have longer names than the API.
        match self.directory_variable("XDG_RUNTIME_DIR").filter(|path| path.as_os_str().len() <= 60) {
            Some(runtime) => runtime.join(format!("berth-{short}")),
            None => PathBuf::from(format!("/tmp/berth-{}-{short}", self.uid)),
        }
    }
}

/// How to reach the platform that is meant.
#[derive(Debug)]
pub struct Target {
    /// Where it takes calls.
    pub endpoint: Endpoint,
    /// What to show there; none over a Unix socket.
    pub token: Option<SecretString>,
    /// Its home, when it is known.
    pub home: Option<PathBuf>,
}

impl Target {
    /// The platform of a home in which there is none: nobody answers there.
    pub(crate) fn nobody(home: &Path) -> Self {
        Self { endpoint: Endpoint::Unix(home.join("api.sock")), token: None, home: Some(home.to_owned()) }
    }
}

/// A platform that `berth up` noted down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// `default` for the default home, else the first 8 digits of the platform's id.
    pub name: String,
    /// The platform's home.
    pub home: PathBuf,
    /// The Unix socket of its API.
    pub socket: PathBuf,
    /// The address of its API: `http://127.0.0.1:7070`.
    pub api: String,
}

/// The file that lists them.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Contexts {
    /// The one that is meant when nobody says.
    current: Option<String>,
    #[serde(default, rename = "context")]
    contexts: Vec<Context>,
}

/// The part of `platform.json` that is read here.
#[derive(Debug, Deserialize)]
struct PlatformFile {
    platform: String,
}

/// Why it is not known which platform is meant.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// There is no platform in that home.
    #[error("there is no platform in {}", home.display())]
    NoPlatform {
        /// The home.
        home: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No context has that name.
    #[error("there is no context {name}; known are: {known}")]
    NoSuchContext {
        /// The name.
        name: String,
        /// Those that exist.
        known: String,
    },
    /// Neither a home nor `HOME` is known.
    #[error("neither --home nor BERTH_HOME nor HOME says where the platform is")]
    NoHome,
    /// `BERTH_API` is not an address.
    #[error("BERTH_API is not an address")]
    Api(#[source] InvalidEndpoint),
    /// The file of contexts, or `platform.json`, cannot be used.
    #[error("{} cannot be used", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Somebody else owns the socket's directory, and would be told secrets.
    #[error("{} belongs to user {owner}, not to the owner of {}", directory.display(), home.display())]
    Foreign {
        /// The directory of the socket.
        directory: PathBuf,
        /// Its owner.
        owner: u32,
        /// The home.
        home: PathBuf,
    },
}

/// Finds the platform that is meant.
///
/// # Errors
/// [`ContextError`] when nothing says which, or when what says so is wrong. Whether it answers is not tried.
pub fn find(globals: &Globals, environment: &Environment) -> Result<Target, ContextError> {
    if let Some(home) = &globals.home {
        return in_home(&environment.directory.join(home), environment);
    }
    if let Some(name) = &globals.context {
        let known = read_contexts(environment)?;
        return match known.contexts.iter().find(|context| context.name == *name) {
            Some(context) => by_context(context, environment),
            None => Err(ContextError::NoSuchContext { name: name.clone(), known: names(&known) }),
        };
    }
    if let Some(api) = environment.variable("BERTH_API") {
        let endpoint = api.to_string_lossy().parse().map_err(ContextError::Api)?;
        let token = environment.variable("BERTH_TOKEN").map(|token| token.to_string_lossy().into_owned());
        return Ok(Target { endpoint, token: token.map(SecretString::from), home: None });
    }
    if let Some(home) = environment.variable("BERTH_HOME") {
        return in_home(&environment.directory.join(home), environment);
    }
    let known = read_contexts(environment)?;
    let current = known.current.as_ref().and_then(|name| known.contexts.iter().find(|it| it.name == *name));
    match (current, environment.default_home()) {
        (Some(context), _) => by_context(context, environment),
        (None, Some(home)) => in_home(&home, environment),
        (None, None) => Err(ContextError::NoHome),
    }
}

/// Notes down the platform that came up, so that other terminals find it. The last one that came up is the one that is meant
/// when nobody says.
///
/// # Errors
/// When the file cannot be read or written.
pub fn remember(
    home: &Path,
    platform: &str,
    socket: &Path,
    api: &str,
    environment: &Environment,
) -> Result<(), ContextError> {
    let Some(path) = environment.contexts_file() else { return Ok(()) };
    let name = if environment.default_home().is_some_and(|default| default == home) {
        "default".to_owned()
    } else {
        platform.chars().take(8).collect()
    };
    let mut contexts = read_contexts(environment)?;
    // A home that is gone cannot come back under its name; `try_exists` fails on what another user's mode hides.
    contexts.contexts.retain(|it| it.name != name && it.home != home && it.home.try_exists().unwrap_or(true));
    contexts.contexts.push(Context {
        name: name.clone(),
        home: home.to_owned(),
        socket: socket.to_owned(),
        api: api.to_owned(),
    });
    contexts.contexts.sort_by(|one, other| one.name.cmp(&other.name));
    contexts.current = Some(name);
    let text = toml::to_string(&contexts)
        .map_err(|problem| ContextError::File { path: path.clone(), source: io::Error::other(problem) })?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.and_then(|()| write_whole(&path, &text, 0o600)).map_err(|source| ContextError::File { path, source })
}

/// Writes beside the file and renames, so that a reader never sees half of it. `mode` is what a new file gets, less the umask.
pub(crate) fn write_whole(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let beside = path.with_extension(format!("toml.{}", std::process::id()));
    // What lies there is of a run that was killed, or a link that somebody else put there; it is not written through.
    match std::fs::remove_file(&beside) {
        Err(problem) if problem.kind() != io::ErrorKind::NotFound => return Err(problem),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
    file.write_all(text.as_bytes())?;
    std::fs::rename(&beside, path)
}

fn read_contexts(environment: &Environment) -> Result<Contexts, ContextError> {
    let Some(path) = environment.contexts_file() else { return Ok(Contexts::default()) };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => return Ok(Contexts::default()),
        Err(source) => return Err(ContextError::File { path, source }),
    };
    toml::from_str(&text).map_err(|problem| ContextError::File {
        path,
        source: io::Error::new(io::ErrorKind::InvalidData, problem),
    })
}

fn names(contexts: &Contexts) -> String {
    let names: Vec<&str> = contexts.contexts.iter().map(|context| context.name.as_str()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn in_home(home: &Path, environment: &Environment) -> Result<Target, ContextError> {
    let path = home.join("platform.json");
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        // A member of the group `berth` may call a platform of root's without reading its home.
        Err(problem) if problem.kind() == io::ErrorKind::PermissionDenied => {
            let known = read_contexts(environment)?;
            return match known.contexts.iter().find(|context| context.home == home) {
                Some(context) => by_context(context, environment),
                None => Err(ContextError::File { path, source: problem }),
            };
        }
        Err(source) => return Err(ContextError::NoPlatform { home: home.to_owned(), source }),
    };
    let file: PlatformFile = serde_json::from_slice(&text)
        .map_err(|problem| ContextError::File { path: path.clone(), source: problem.into() })?;
    if file.platform.len() != 16 || !file.platform.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let source = io::Error::new(io::ErrorKind::InvalidData, "the platform's id is not 16 hex digits");
        return Err(ContextError::File { path, source });
    }
    at_socket(home, environment.run_directory(&file.platform).join("api.sock"), environment)
}

fn by_context(context: &Context, environment: &Environment) -> Result<Target, ContextError> {
    at_socket(&context.home, context.socket.clone(), environment)
}

/// `/tmp` is everybody's: a directory that somebody else made there in the platform's name is not spoken to.
fn at_socket(home: &Path, socket: PathBuf, environment: &Environment) -> Result<Target, ContextError> {
    let directory = socket.parent().unwrap_or(Path::new("/"));
    if let Ok(metadata) = std::fs::symlink_metadata(directory) {
        let owner = metadata.uid();
        let expected = std::fs::metadata(home).map_or(environment.uid, |home| home.uid());
        if owner != 0 && owner != expected {
            return Err(ContextError::Foreign {
                directory: directory.to_owned(),
                owner,
                home: home.to_owned(),
            });
        }
    }
    Ok(Target { endpoint: Endpoint::Unix(socket), token: None, home: Some(home.to_owned()) })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn environment(directory: &Path, variables: &[(&str, &str)]) -> Environment {
        let mut all: BTreeMap<String, OsString> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect();
        all.entry("HOME".to_owned()).or_insert_with(|| directory.into());
        // Not root, wherever the tests run, so that every default lies below the directory.
        Environment { variables: all, uid: 4_242, directory: directory.to_owned() }
    }

    fn socket(target: &Target) -> String {
        target.endpoint.to_string()
    }

    fn home(directory: &Path, name: &str, platform: &str) -> PathBuf {
        let home = directory.join(name);
        std::fs::create_dir_all(&home).unwrap();
        std::fs::write(home.join("platform.json"), format!(r#"{{"format":1,"platform":"{platform}"}}"#))
            .unwrap();
        home
    }

    #[test]
    fn what_is_written_wins_over_what_was_set() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        home(at, "one", "1111111111111111");
        home(at, "two", "2222222222222222");
        let set = environment(at, &[("BERTH_HOME", "two"), ("BERTH_API", "http://127.0.0.1:1")]);
        let given = Globals { home: Some("one".into()), ..Globals::default() };
        assert_eq!(socket(&find(&given, &set).unwrap()), "/tmp/berth-4242-11111111/api.sock");
        assert_eq!(socket(&find(&Globals::default(), &set).unwrap()), "http://127.0.0.1:1");
        let set = environment(at, &[("BERTH_HOME", "two"), ("XDG_RUNTIME_DIR", "/run/user/4242")]);
        let found = find(&Globals::default(), &set).unwrap();
        assert_eq!(socket(&found), "/run/user/4242/berth-22222222/api.sock");
    }

    #[test]
    fn the_platform_that_came_up_last_is_meant() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let set = environment(at, &[]);
        assert!(matches!(find(&Globals::default(), &set), Err(ContextError::NoPlatform { .. })));
        let default = home(at, ".local/share/berth", "1111111111111111");
        let other = home(at, "other", "2222222222222222");
        let up =
            |home: &Path, id: &str| remember(home, id, &at.join(id), "http://127.0.0.1:7070", &set).unwrap();
        up(&default, "1111111111111111");
        up(&other, "2222222222222222");
        up(&other, "2222222222222222");
        let chosen = find(&Globals::default(), &set).unwrap();
        assert_eq!(chosen.home.as_deref(), Some(other.as_path()));
        let named = Globals { context: Some("default".into()), ..Globals::default() };
        assert_eq!(find(&named, &set).unwrap().home.as_deref(), Some(default.as_path()));
        let wrong = Globals { context: Some("nope".into()), ..Globals::default() };
        let problem = find(&wrong, &set).unwrap_err().to_string();
        assert_eq!(problem, "there is no context nope; known are: 22222222, default");
        assert_eq!(read_contexts(&set).unwrap().contexts.len(), 2);
    }

    #[test]
    fn a_directory_of_somebody_else_is_not_spoken_to() {
        let directory = tempfile::tempdir().unwrap();
        let home = home(directory.path(), "home", "1111111111111111");
        let mut set = environment(directory.path(), &[]);
        set.uid = std::fs::metadata(&home).unwrap().uid();
        let own = at_socket(&home, directory.path().join("api.sock"), &set);
        assert!(own.is_ok());
        let proc_of_root = at_socket(&home, "/proc/api.sock".into(), &set);
        assert!(proc_of_root.is_ok(), "root may own it");
    }

    #[test]
    fn a_platform_file_that_is_not_one_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let set = environment(directory.path(), &[]);
        for id in ["", "../../../../x", "zzzzzzzzzzzzzzzz"] {
            let home = home(directory.path(), "bad", id);
            assert!(matches!(in_home(&home, &set), Err(ContextError::File { .. })), "{id}");
        }
    }
}
