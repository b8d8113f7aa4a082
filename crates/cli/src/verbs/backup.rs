//! `backup`: the platform into a file, and what is in one.

use std::fs::File;
use std::io::{self, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use berth_backup::{BackupError, Foot, Head, KeyFile, verify};
use berth_contract::{BackupQuery, Code, ExitStatus};
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use serde_json::json;

use super::Session;
use crate::args::{BackupAction, BackupArgs, Globals};
use crate::context::{self, Environment};
use crate::failure::Failure;
use crate::figures::{self, counted, size};
use crate::screen::Screen;
use crate::table::Table;

impl Session<'_> {
    pub(super) async fn backup(&mut self, args: BackupArgs) -> Result<ExitStatus, Failure> {
        let path = self.target(args.path).await?;
        let mut file = NewFile::create(&path)?;
        let mut download =
            self.client.backup(&BackupQuery { key: args.with_key, volumes: !args.without_volumes }).await?;
        let mut bytes: u64 = 0;
        while let Some(piece) = download.next().await? {
            file.write(&piece)?;
            bytes += piece.len() as u64;
            if self.screen.live && !self.json {
                self.screen.status(&format!("{} saved", size(bytes)))?;
            }
        }
        self.screen.clear_status()?;
        // A backup counts once it was read back.
        let (head, foot) = file.read_back()?;
        file.finish()?;
        let json = json!({ "file": path, "bytes": bytes, "backup": head, "missing": foot.missing });
        self.show(&json, |session| {
            session.screen.line(&format!("saved {} as {}, {}", contents(&head, &foot), path.display(), size(bytes)))?;
            tell_missing(&foot, session.screen)?;
            if !args.with_key && !head.secrets.is_empty() {
                session.hint("its secrets need the key: `berth backup key FILE` writes it, to be kept apart from the backups")?;
            }
            Ok(())
        })
    }

    /// The file to make: in a directory one with a name of its own.
    async fn target(&self, path: Option<PathBuf>) -> Result<PathBuf, Failure> {
        let path = self.environment.directory.join(path.unwrap_or_default());
        if !std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
            return Ok(path);
        }
        let platform = self.client.platform().await?.platform;
        let short: String = platform.chars().take(8).collect();
        let when: String =
            figures::exact(self.clock.now()).chars().filter(char::is_ascii_alphanumeric).collect();
        Ok(path.join(format!("berth-{short}-{when}.tar")))
    }
}

/// What needs no platform that runs.
pub(super) fn local(
    action: &BackupAction,
    globals: &Globals,
    environment: &Environment,
    screen: &mut Screen,
) -> Result<ExitStatus, Failure> {
    let at = |file: &Path| environment.directory.join(file);
    match action {
        BackupAction::List(args) => show(&at(&args.file), true, globals.json, screen),
        BackupAction::Verify(args) => show(&at(&args.file), false, globals.json, screen),
        BackupAction::Key(args) => export_key(&at(&args.file), globals, environment, screen),
    }
}

fn show(path: &Path, list: bool, json: bool, screen: &mut Screen) -> Result<ExitStatus, Failure> {
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    let (head, foot) = verify(BufReader::new(file)).map_err(|error| invalid(path, &error))?;
    if json {
        screen.json(&json!({ "backup": head, "contents": foot }))?;
        return Ok(ExitStatus::Ok);
    }
    if list {
        screen.line(&format!("platform  {} (berth {})", head.platform, head.version))?;
        screen.line(&format!("made      {}", figures::exact(head.created_at)))?;
        screen.line(&format!("home      {}", head.home))?;
        let key = foot.sections.iter().any(|section| section.name == "key.json");
        screen.line(&format!("key       {} ({})", head.key_id, if key { "in it" } else { "not in it" }))?;
        for (app, names) in &head.secrets {
            let names: Vec<&str> = names.iter().map(berth_spec::EnvName::as_str).collect();
            screen.line(&format!("secrets   {}: {}", app.app, names.join(", ")))?;
        }
        screen.line("")?;
        let mut table = Table::new(&["PART", ">FILES", ">SIZE"]);
        for section in &foot.sections {
            table.row(vec![
                section.name.as_str().into(),
                section.entries.to_string().into(),
                size(section.bytes).into(),
            ]);
        }
        for line in table.render(screen.width, screen.colour) {
            screen.line(&line)?;
        }
    } else {
        screen.line(&format!("{} is whole: {}", path.display(), contents(&head, &foot)))?;
    }
    tell_missing(&foot, screen)?;
    Ok(ExitStatus::Ok)
}

fn contents(head: &Head, foot: &Foot) -> String {
    let below = |folder: &str| foot.sections.iter().filter(|it| it.name.starts_with(folder)).count() as u64;
    let volumes = match below("volumes/") {
        0 => String::new(),
        some => format!("{}, ", counted(some, "volume")),
    };
    format!(
        "{}, {}, {volumes}the journal up to {}",
        counted(head.apps, "app"),
        counted(below("artifacts/"), "artifact"),
        head.position
    )
}

/// So many names of what is missing are told; a program reads all of them with `--json`.
const MISSING_TOLD: usize = 5;

fn tell_missing(foot: &Foot, screen: &mut Screen) -> io::Result<()> {
    for name in foot.missing.iter().take(MISSING_TOLD) {
        screen.aside(&format!("not in it, since it was not there or not to be had: {name}"))?;
    }
    match foot.missing.len().saturating_sub(MISSING_TOLD) {
        0 => Ok(()),
        more => screen.aside(&format!("and {more} more, which `berth backup list --json FILE` names")),
    }
}

/// Reads the key in the home and writes it with the platform's name.
fn export_key(
    path: &Path,
    globals: &Globals,
    environment: &Environment,
    screen: &mut Screen,
) -> Result<ExitStatus, Failure> {
    let target = context::find(globals, environment)?;
    let home = target.home.ok_or_else(|| {
        let next = "give --home DIR on the platform's own machine";
        Failure::local(
            Code::UsageInvalid,
            "the key is read in the platform's home, and only its address is known",
            next,
        )
    })?;
    let description = home.join("platform.json");
    let text = std::fs::read(&description).map_err(|error| unreadable(&description, &error))?;
    let platform: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    let kek_path = home.join("keys/kek");
    let kek = std::fs::read(&kek_path).map_err(|error| unreadable(&kek_path, &error))?;
    let token = std::fs::read_to_string(home.join("keys/owner-token")).ok();
    let kek = <[u8; 32]>::try_from(kek).map_err(|_length| {
        Failure::local(
            Code::HomeUnusable,
            format!("{} is no key", kek_path.display()),
            "`berth doctor` looks at the home",
        )
    })?;
    let key =
        KeyFile::new(platform.get("platform").and_then(|it| it.as_str()).unwrap_or_default(), &kek, token);
    let mut file = NewFile::create(path)?;
    file.write(&key.encode())?;
    file.finish()?;
    if globals.json {
        screen.json(&json!({ "file": path, "platform": key.platform }))?;
    } else {
        screen.line(&format!("wrote the key of {} to {}", key.platform, path.display()))?;
        screen.aside("whoever has it and a backup can read every secret: keep the two apart")?;
    }
    Ok(ExitStatus::Ok)
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::local(
        Code::BackupInvalid,
        format!("{} cannot be read: {error}", path.display()),
        "give the path of a file that is there",
    )
}

fn invalid(path: &Path, error: &BackupError) -> Failure {
    let mut detail = format!("{}: {error}", path.display());
    if let Some(source) = std::error::Error::source(error) {
        detail = format!("{detail}: {source}");
    }
    Failure::local(
        Code::BackupInvalid,
        detail,
        "take the backup before it, or copy this one again from where it was made",
    )
}

/// A file that is made under another name and has its own once it is whole, synced, and nothing else has that name: for its owner alone, never
/// through a link, never over another file.
struct NewFile {
    directory: OwnedFd,
    name: String,
    temporary: String,
    file: File,
    path: PathBuf,
    whole: bool,
}

impl NewFile {
    fn create(path: &Path) -> Result<Self, Failure> {
        let failed = |error: io::Error| cannot_write(path, &error);
        let name = path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        let name =
            name.ok_or_else(|| failed(io::Error::new(io::ErrorKind::InvalidInput, "it has no name")))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::open(parent, flags, Mode::empty()).map_err(|error| match error {
            rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR => {
                let detail = format!("{} is a link or no directory", parent.display());
                Failure::local(Code::FileExists, detail, "give the directory's own path")
            }
            other => failed(other.into()),
        })?;
        if rustix::fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            return Err(exists(path));
        }
        let temporary = format!(".{name}.{}.unfinished", std::process::id());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&directory, &temporary, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| failed(error.into()))?;
        Ok(Self { directory, name, temporary, file: file.into(), path: path.to_owned(), whole: false })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(|error| cannot_write(&self.path, &error))
    }

    fn read_back(&mut self) -> Result<(Head, Foot), Failure> {
        let mut again = self.file.try_clone().map_err(|error| cannot_write(&self.path, &error))?;
        io::Seek::rewind(&mut again).map_err(|error| cannot_write(&self.path, &error))?;
        verify(BufReader::new(again)).map_err(|error| invalid(&self.path, &error))
    }

    fn finish(mut self) -> Result<(), Failure> {
        self.file.sync_all().map_err(|error| cannot_write(&self.path, &error))?;
        let (directory, name) = (&self.directory, self.name.as_str());
        match rustix::fs::renameat_with(directory, &self.temporary, directory, name, RenameFlags::NOREPLACE) {
            Ok(()) => self.whole = true,
            Err(rustix::io::Errno::EXIST) => return Err(exists(&self.path)),
            // A file system that cannot promise it (NFS): a link is as good, and the other name goes with us.
            Err(rustix::io::Errno::INVAL) => {
                rustix::fs::linkat(directory, &self.temporary, directory, name, AtFlags::empty()).map_err(
                    |error| match error {
                        rustix::io::Errno::EXIST => exists(&self.path),
                        other => cannot_write(&self.path, &other.into()),
                    },
                )?;
            }
            Err(error) => return Err(cannot_write(&self.path, &error.into())),
        }
        rustix::fs::fsync(&self.directory).map_err(|error| cannot_write(&self.path, &error.into()))
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.whole {
            // What is half written is of no use; that it cannot be removed changes nothing.
            let _left: Result<(), _> =
                rustix::fs::unlinkat(&self.directory, &self.temporary, AtFlags::empty());
        }
    }
}

fn exists(path: &Path) -> Failure {
    let detail = format!("{} is there already", path.display());
    Failure::local(Code::FileExists, detail, "give another name, or a directory")
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let code = if full { Code::DiskFull } else { Code::StorageFailed };
    Failure::local(code, format!("{} cannot be written: {error}", path.display()), "choose another place")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn a_new_file_is_whole_or_not_there_and_replaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        let mut file = NewFile::create(&path).unwrap();
        file.write(b"abc").unwrap();
        assert!(!path.try_exists().unwrap());
        drop(file);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let mut file = NewFile::create(&path).unwrap();
        file.write(b"abc").unwrap();
        let rival = NewFile::create(&dir.path().join("b.tar")).unwrap();
        file.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"abc");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(dir.path().join("b.tar"), "other").unwrap();
        assert!(rival.finish().is_err(), "somebody was quicker");
        assert!(NewFile::create(&path).is_err());
        symlink("/nowhere", dir.path().join("link")).unwrap();
        symlink(dir.path(), dir.path().join("folder")).unwrap();
        assert!(NewFile::create(&dir.path().join("link")).is_err());
        assert!(NewFile::create(&dir.path().join("folder/x")).is_err());
        assert_eq!(std::fs::read_to_string(dir.path().join("b.tar")).unwrap(), "other");
    }
}
