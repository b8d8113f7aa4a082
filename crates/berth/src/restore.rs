//! `berth restore`: a home of a backup.
//!
//! Everything is laid out in a folder of its own inside the directory that is to be the home, and moved into place once all of it is there and
//! every hash was compared. While that folder exists nothing starts there, and `platform.json`, which makes a home complete, is moved last. So a
//! restore that is killed at any step leaves nothing that runs, and the next one begins anew.
//!
//! The platform gets a new id: it may be restored beside the one that was saved, and nothing of that one may be taken for its own. As root
//! it claims a block of user ids on this machine, and artifacts are sealed to those.

use std::fs::{self, File};
use std::io::{self, BufReader, Read as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use berth_backup::{BackupError, Head, KeyFile, Reader};
use berth_cli::failure::Failure;
use berth_cli::{Code, Environment, Globals, Problem, RestoreArgs, Screen};
use berth_clock::{Clock, SystemClock, random_bytes};
use berth_server::config::{KeyEncryptionKey, UidPlan};
use berth_server::git::bundle::FOLDER as BUNDLES;
use berth_server::restore::{LaidOut, RestoreError, lay_out};
use berth_server::secrets::Vault;

use crate::home::{self, FORMAT, HomeError, PLATFORM_FILE, Platform, RESTORING, uid_block, write_atomically};
use crate::report;
use crate::supervisor::lock::{HomeLock, LockError};
use crate::supervisor::{self, UpError};

/// What is moved into the home, in this order, once it is whole. The description comes last.
const MOVED: [&str; 7] = ["keys", "journal", "chunks", "artifacts", "volumes", BUNDLES, PLATFORM_FILE];

/// Called between any two steps; a test halts there as a kill would.
type Halt<'a> = &'a mut dyn FnMut() -> Result<(), HomeError>;

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{} cannot be read", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error(transparent)]
    Restore(#[from] RestoreError),
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    Place(#[from] UpError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("{} holds a platform or something else: a backup is restored into an empty directory", path.display())]
    NotEmpty { path: PathBuf },
    #[error("the backup has no key, and its secrets are sealed under the key {key_id}: {}", secrets(.lost))]
    NoKey { key_id: String, lost: Vec<String> },
    #[error(
        "the key in {from} is {found}, and the secrets are sealed under {wanted}: it is the key of another platform, or of another time"
    )]
    OtherKey { from: String, found: String, wanted: String },
}

fn secrets(lost: &[String]) -> String {
    format!("without it the values of {} cannot be read", lost.join(", "))
}

impl Refused {
    fn problem(&self) -> Problem {
        let (code, next) = match self {
            Self::File { .. } => (Code::BackupInvalid, "give the path of a file that is there"),
            Self::Backup(_) | Self::Restore(_) => {
                (Code::BackupInvalid, "`berth backup verify FILE` looks at it; take the backup before it")
            }
            Self::NotEmpty { .. } => (Code::HomeUnusable, "give a new or an empty directory with --home"),
            Self::NoKey { .. } | Self::OtherKey { .. } => (
                Code::BackupKeyMissing,
                "give the right one with --key FILE; or, with --without-key, restore all but those values and set them again",
            ),
            Self::Place(error) => return error.problem(),
            Self::Lock(LockError::Held { .. }) => {
                (Code::HomeInUse, "`berth status` shows it, `berth down` ends it")
            }
            Self::Home(_) | Self::Lock(_) => (Code::HomeUnusable, "give another --home"),
        };
        Problem::new(code, report::chain(self)).next(next)
    }
}

/// What was restored.
#[derive(Debug)]
struct Restored {
    home: PathBuf,
    head: Head,
    laid: LaidOut,
    /// Secrets whose values are lost: `shop: TOKEN, DATABASE_URL`.
    lost: Vec<String>,
}

/// Restores, and tells how it went.
pub(crate) fn run(args: &RestoreArgs, globals: &Globals) -> ExitCode {
    let environment = Environment::of_process();
    let mut screen = Screen::standard(globals.color, environment.variable("NO_COLOR").is_some());
    let named = globals.home.clone().or_else(|| environment.variable("BERTH_HOME").map(PathBuf::from));
    let ranges = Path::new(supervisor::RANGES);
    let restored = supervisor::home_path(named.as_deref())
        .map_err(Refused::from)
        .and_then(|home| restore(args, &home, ranges, &SystemClock::new(), &mut || Ok(())));
    let told = match restored {
        Ok(restored) => tell(&restored, globals.json, &mut screen).map_err(Failure::Output),
        Err(refused) => Err(Failure::Local(Box::new(refused.problem()))),
    };
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => berth_cli::failure::tell(&failure, globals.json, &mut screen).into(),
    }
}

fn restore(
    args: &RestoreArgs,
    home: &Path,
    ranges: &Path,
    clock: &dyn Clock,
    halt: Halt<'_>,
) -> Result<Restored, Refused> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| Refused::File { path, source }
    };
    let file = File::open(&args.file).map_err(unreadable(&args.file))?;
    let reader = Reader::begin(BufReader::new(file))?;
    let head = reader.head().clone();
    let _lock = prepare(home)?;
    halt()?;
    let at = home.join(RESTORING);
    make(&at)?;
    halt()?;
    let root = rustix::process::geteuid().is_root();
    let uid_base = if root { Some(uid_block::claim(ranges, home)?) } else { None };
    halt()?;
    let laid = lay_out(reader, &at, home, uid_base.map(UidPlan::new))?;
    halt()?;
    let given = match &args.key {
        Some(path) => {
            let mut text = Vec::new();
            let read = File::open(path).and_then(|file| file.take(KeyFile::MAX).read_to_end(&mut text));
            read.map_err(unreadable(path))?;
            Some((path.display().to_string(), KeyFile::decode(&text)?))
        }
        None => laid.key.clone().map(|key| ("the backup".to_owned(), key)),
    };
    let lost = keys(&at, given, &head, args.without_key, clock)?;
    halt()?;
    for folder in ["chunks", "artifacts", "volumes", BUNDLES] {
        if !at.join(folder).try_exists().map_err(|error| io_error("examine", &at, error))? {
            make(&at.join(folder))?;
        }
    }
    let platform = Platform {
        format: FORMAT,
        platform: hex::encode(random_bytes::<8>(clock)),
        uid_base,
        edge: head.edge.as_ref().and_then(|text| text.parse().ok()),
        api: head.api.as_ref().and_then(|text| text.parse().ok()),
        https: None,
        proxies: berth_spec::Proxies::default(),
    };
    home::write_platform(&at, &platform)?;
    halt()?;
    for name in MOVED {
        fs::rename(at.join(name), home.join(name))
            .map_err(|error| io_error("move", &at.join(name), error))?;
        home::sync(home)?;
        halt()?;
    }
    remove(&at)?;
    Ok(Restored { home: home.to_owned(), head, laid, lost })
}

/// Takes the lock of an empty directory, made if need be; of one in which a restore was cut off, emptied.
fn prepare(home: &Path) -> Result<HomeLock, Refused> {
    let restoring = home.join(RESTORING);
    let examine = |error| io_error("examine", &restoring, error);
    if restoring.try_exists().map_err(examine)? {
        home::check_directory(home, rustix::process::geteuid().as_raw())?;
        let lock = HomeLock::take(home, false)?;
        // A complete home is not half restored: only the empty folder could not be removed any more.
        let ours: Vec<&str> = [RESTORING, "lock"].into_iter().chain(MOVED).collect();
        if home.join(PLATFORM_FILE).try_exists().map_err(examine)? || !home::is_empty_but(home, &ours)? {
            return Err(Refused::NotEmpty { path: home.to_owned() });
        }
        // The folder that keeps it from starting goes last.
        for name in MOVED.into_iter().chain([RESTORING]) {
            remove(&home.join(name))?;
        }
        return Ok(lock);
    }
    match home::prepare_directory(home) {
        Err(HomeError::Foreign { path }) => return Err(Refused::NotEmpty { path }),
        other => other?,
    }
    let lock = HomeLock::take(home, false)?;
    if !home::is_empty_but(home, &["lock"])? {
        return Err(Refused::NotEmpty { path: home.to_owned() });
    }
    Ok(lock)
}

/// Lays out the keys; gives the secrets whose values are lost.
fn keys(
    at: &Path,
    given: Option<(String, KeyFile)>,
    head: &Head,
    without: bool,
    clock: &dyn Clock,
) -> Result<Vec<String>, Refused> {
    let names = |names: &Vec<berth_spec::EnvName>| {
        names.iter().map(berth_spec::EnvName::as_str).collect::<Vec<_>>().join(", ")
    };
    let sealed: Vec<String> =
        head.secrets.iter().map(|(app, secrets)| format!("{}: {}", app.app, names(secrets))).collect();
    let folder = at.join("keys");
    make(&folder)?;
    let write = |name: &str, bytes: &[u8]| write_atomically(&folder, name, bytes, 0o600);
    let key = given.as_ref().and_then(|(from, file)| Some((from, file, file.key()?)));
    let Some((from, file, kek)) = key else {
        if !sealed.is_empty() && !without {
            return Err(Refused::NoKey { key_id: head.key_id.clone(), lost: sealed });
        }
        write("kek", &random_bytes::<32>(clock))?;
        return Ok(sealed);
    };
    let found = Vault::new(KeyEncryptionKey::new(kek)).key_id();
    if found != head.key_id {
        return Err(Refused::OtherKey { from: from.clone(), found, wanted: head.key_id.clone() });
    }
    write("kek", &kek)?;
    if let Some(token) = &file.owner_token {
        write("owner-token", token.as_bytes())?;
    }
    Ok(Vec::new())
}

fn io_error(attempt: &'static str, path: &Path, source: io::Error) -> HomeError {
    HomeError::Io { attempt, path: path.to_owned(), source }
}

fn make(path: &Path) -> Result<(), HomeError> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().mode(0o700).create(path).map_err(|error| io_error("create", path, error))
}

/// Removes a file or a directory of ours, if it is there.
fn remove(path: &Path) -> Result<(), HomeError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    removed.map_err(|error| io_error("remove", path, error))
}

fn tell(restored: &Restored, json: bool, screen: &mut Screen) -> io::Result<()> {
    let Restored { home, head, laid, lost } = restored;
    let taken = |address: &Option<String>| {
        address.clone().filter(|address| {
            TcpListener::bind(address.as_str()).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
        })
    };
    let elsewhere: Vec<String> = laid.elsewhere.iter().map(|app| app.app.to_string()).collect();
    let (edge, api) = (taken(&head.edge), taken(&head.api));
    if json {
        let missing = &laid.missing;
        return screen.json(&serde_json::json!({
            "home": home, "from": head.platform, "apps": head.apps, "position": head.position, "lost_secrets": lost,
            "missing": missing, "built_for_another_place": elsewhere, "taken": [&edge, &api],
        }));
    }
    let apps = berth_cli::figures::counted(head.apps, "app");
    screen.line(&format!("restored {apps} of {} into {}", head.platform, home.display()))?;
    for lost in lost {
        screen.line(&format!(
            "  lost      the values of secrets of {lost}: set each again with `berth secrets set`"
        ))?;
    }
    if let Some(first) = laid.missing.first() {
        let count = laid.missing.len();
        screen.line(&format!(
            "  missing   {count} parts that were not there when the backup was made, {first} the first: `berth backup list` names them"
        ))?;
    }
    for app in &elsewhere {
        screen.line(&format!(
            "  moved     programs of {app} hold paths of {} that lead nowhere here: `berth deploy --app {app} DIRECTORY` with its source builds them anew",
            head.home
        ))?;
    }
    let mut up = format!("berth up --home {}", home.display());
    for (option, address) in [("edge", edge), ("api", api)] {
        if let Some(address) = address {
            screen.line(&format!("  taken     {address} is in use here: choose another with --{option}"))?;
            up.push_str(&format!(" --{option} 127.0.0.1:0"));
        }
    }
    screen.line(&format!("`{up}` starts it, and its apps"))
}

#[cfg(test)]
mod tests;
