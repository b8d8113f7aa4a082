//! Finding the tools that a recipe needs among those that are installed, without knowing any of them: what is known is a table.
//!
//! A tool is looked for in `PATH`, in the folders that installers use, and where version managers keep theirs. The stand-ins
//! of those managers are passed by: they choose a version by the directory and the home of whoever runs them, which in a build
//! are others. What the builds' user may not reach is mirrored; see docs/decisions/0005-builds.md.

mod known;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use berth_process::{Group, Launch, Limits, Program, Signal, Stdio};
use berth_source::recipe::{Recipe, Tool, ToolNeed, Wanted};
use sha2::{Digest as _, Sha256};

use crate::error::BuildError;
use crate::layout::{Layout, entries};
use crate::mirror::{self, Source};
use crate::toolchain::{self, Toolchain, ToolchainPlaces};
use known::{CHOOSERS, KNOWN, Known, Moves, STAND_INS};

pub(crate) use known::{FOLDERS, MANAGERS};

/// Where programs of the system are looked for by a build that runs as a user of its own; our own `PATH` may lead into
/// folders that it cannot read.
pub(crate) const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long a tool may take to tell its version; one on the Java machine takes a second.
const ASK_LIMIT: Duration = Duration::from_secs(30);
/// So much of its answer is read.
const ANSWER_MAX: u64 = 16 * 1024;

/// A tool that a build uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ToolUse {
    pub(crate) tool: Tool,
    /// Its name, version and place, as the id of an artifact has it.
    pub(crate) identity: String,
    /// Its version, as people read it: `Node 20.20.2`.
    pub(crate) shown: String,
    /// The folder of its programs.
    pub(crate) folder: PathBuf,
    /// The program that says which tool this is.
    pub(crate) program: &'static str,
    pub(crate) at_run: bool,
    /// The name and the source of the mirror that has to be made, where the folder cannot be reached by others.
    mirror: Option<(String, Source)>,
    /// What to say when it is not what was asked for.
    pub(crate) mismatch: Option<String>,
}

/// Finds tools, and remembers the versions that they told.
#[derive(Debug, Default)]
pub(crate) struct Toolbox {
    told: Mutex<BTreeMap<Asked, Result<String, String>>>,
}

/// A program as it was when it was asked: its path, size and time.
type Asked = (PathBuf, u64, i64, i64);

/// A place where a tool is installed.
struct Candidate {
    folder: PathBuf,
    program: PathBuf,
    /// The version that a manager's folder is named by.
    named: Option<String>,
}

impl Toolbox {
    /// The tools of `recipe`. `as_other` says that builds run as another user than ours. Nothing is made on disk.
    pub(crate) fn choose(
        &self,
        places: &ToolchainPlaces,
        recipe: &Recipe,
        as_other: bool,
    ) -> Result<Vec<ToolUse>, BuildError> {
        recipe.tools.iter().map(|need| self.choose_one(places, need, as_other)).collect()
    }

    fn choose_one(
        &self,
        places: &ToolchainPlaces,
        need: &ToolNeed,
        as_other: bool,
    ) -> Result<ToolUse, BuildError> {
        let Some(known) = KNOWN.iter().find(|known| known.tool == need.tool) else {
            return rust(places, need, as_other);
        };
        let mut problems = Vec::new();
        let mut usable = Vec::new();
        for candidate in candidates(places, known) {
            let mirror = match reach(places, known, &candidate, as_other) {
                Ok(mirror) => mirror,
                Err(problem) => {
                    problems.push(problem);
                    continue;
                }
            };
            match self.version(known, &candidate) {
                Ok(version) => usable.push((candidate, mirror, version)),
                Err(problem) => problems.push(problem),
            }
        }
        let versions: Vec<&str> = usable.iter().map(|(_, _, version)| version.as_str()).collect();
        let Some((chosen, fits)) = pick(need.tool, &versions, need.wanted.as_ref()) else {
            return Err(missing(known, need.wanted.as_ref(), &problems));
        };
        let (candidate, source, version) = usable.swap_remove(chosen);
        let shown = format!("{} {version}", known.name);
        let mismatch = need.wanted.as_ref().filter(|_| !fits).map(|wanted| {
            let Wanted { version: asked, by } = wanted;
            format!("{by} asks for {} {asked}; this machine has {version}: using it", known.name)
        });
        let identity = format!("{shown} at {}", candidate.folder.display());
        let mirror = source.map(|source| (mirror_name(known, &version, &candidate), source));
        Ok(ToolUse {
            tool: known.tool,
            identity,
            shown,
            folder: candidate.folder,
            program: known.program,
            at_run: need.at_run,
            mirror,
            mismatch,
        })
    }

    /// The version of the tool at a place: as its manager named it, as it told before, or as it tells now.
    fn version(&self, known: &Known, candidate: &Candidate) -> Result<String, String> {
        if let Some(named) = &candidate.named {
            return Ok(named.clone());
        }
        let at = candidate.program.display();
        let found =
            fs::metadata(&candidate.program).map_err(|error| format!("{at} cannot be read: {error}"))?;
        let asked = (candidate.program.clone(), found.len(), found.mtime(), found.mtime_nsec());
        let told = || self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(version) = told().get(&asked) {
            return version.clone();
        }
        let answer = ask(known, candidate);
        told().insert(asked, answer.clone());
        answer
    }
}

impl ToolUse {
    /// Makes the mirror of the tool, if it needs one; then its folder is the mirror's.
    pub(crate) fn reachable(mut self, layout: &Layout) -> Result<Self, BuildError> {
        if let Some((name, source)) = &self.mirror {
            let below = match source {
                Source::Parts(root, _) => {
                    self.folder.strip_prefix(root).unwrap_or(Path::new("bin")).to_owned()
                }
                Source::Program(_) => PathBuf::from("bin"),
            };
            self.folder = mirror::provide(layout, name, source)?.join(below);
        }
        Ok(self)
    }

    /// The name of the mirror that it lies in.
    pub(crate) fn mirror_name(&self) -> Option<&str> {
        self.mirror.as_ref().map(|(name, _)| name.as_str())
    }
}

/// The folders that have to come before `path` so that the tools are found first. A folder that `path` leads to anyway is
/// left out, since it would put all that lies beside the tool in front of everything else.
pub(crate) fn folders(tools: &[ToolUse], path: &str) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = Vec::new();
    for tool in tools {
        let first = find_in(tool.program, path.as_ref());
        let leads = first.is_some_and(|first| same_file(&first, &tool.folder.join(tool.program)));
        if !leads && !folders.contains(&tool.folder) {
            folders.push(tool.folder.clone());
        }
    }
    folders
}

/// What is not shown to a build though a tool lies in it: our home with all that is in it, and the builds of others.
pub(crate) struct Private<'a> {
    pub(crate) home: Option<&'a Path>,
    pub(crate) builds: &'a Path,
}

impl Private<'_> {
    /// Whether `folder` is around something private.
    fn is_in(&self, folder: &Path) -> bool {
        let of_home = |home: &Path| home.starts_with(folder) || folder == home.join(".local");
        self.home.is_some_and(of_home) || self.builds.starts_with(folder)
    }
}

/// What of the machine a build needs for its tools, beside what lies in the system's folders: the folders that they are installed in, of a
/// link and of what it leads to. Of what lies in a home itself, the programs alone.
pub(crate) fn places(
    tools: &[ToolUse],
    toolchain: Option<&Toolchain>,
    private: &Private<'_>,
) -> BTreeSet<PathBuf> {
    let linked = |tool: &ToolUse| {
        let real = fs::canonicalize(tool.folder.join(tool.program)).ok()?;
        real.parent().map(Path::to_owned)
    };
    let folders = tools.iter().flat_map(|tool| [Some(tool.folder.clone()), linked(tool)]).flatten();
    let of_toolchain = toolchain.map(|toolchain| toolchain.root.join("bin"));
    let place = |folder: PathBuf| {
        let whole = installation(&folder)?;
        Some(if private.is_in(&whole) { folder } else { whole }).filter(|place| !private.is_in(place))
    };
    folders.chain(of_toolchain).filter_map(place).collect()
}

/// The folders of our own `PATH`, in which a build that runs as ourselves finds programs.
pub(crate) fn own_folders(places: &ToolchainPlaces, private: &Private<'_>) -> BTreeSet<PathBuf> {
    let folders = std::env::split_paths(&places.path).filter(|folder| folder.is_absolute());
    folders.filter(|folder| !is_systems(folder) && !private.is_in(folder)).collect()
}

/// The folder that a tool is installed in, by that of its programs: they need its libraries too. None for those of the system, which
/// everybody has.
#[must_use]
pub fn installation(programs: &Path) -> Option<PathBuf> {
    if is_systems(programs) || programs == Path::new("/") {
        return None;
    }
    let whole = match programs.parent() {
        Some(parent) if programs.ends_with("bin") && parent.parent().is_some() => parent,
        _ => programs,
    };
    Some(whole.to_owned())
}

fn is_systems(folder: &Path) -> bool {
    ["/usr", "/bin", "/sbin", "/opt", "/nix"].iter().any(|systems| folder.starts_with(systems))
}

fn same_file(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| fs::canonicalize(path).ok();
    real(one).is_some_and(|one| Some(one) == real(other))
}

/// The first program called `name` in the absolute folders of `path`.
fn find_in(name: &str, path: &OsStr) -> Option<PathBuf> {
    let folders = std::env::split_paths(path).filter(|folder| folder.is_absolute());
    folders.map(|folder| folder.join(name)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0)
}

/// Where the tool is installed: first what `PATH` has, in its order, then what managers keep, each once.
fn candidates(places: &ToolchainPlaces, known: &Known) -> Vec<Candidate> {
    let in_path = std::env::split_paths(&places.path).chain(places.folders.iter().cloned());
    let in_path = in_path.filter(|folder| folder.is_absolute());
    let mut found: Vec<Candidate> =
        in_path.map(|folder| candidate(folder, known, None)).filter(|it| !is_stand_in(it)).collect();
    for (manager, pattern) in known.installs {
        if let Some(folder) = places.managers.get(manager) {
            found.extend(expand(folder, pattern).into_iter().map(|(at, named)| candidate(at, known, named)));
        }
    }
    let mut seen = BTreeSet::new();
    found.retain(|it| {
        is_program(&it.program) && fs::canonicalize(&it.program).is_ok_and(|real| seen.insert(real))
    });
    found
}

fn candidate(folder: PathBuf, known: &Known, named: Option<String>) -> Candidate {
    let program = folder.join(known.program);
    // Such a link fetches what the project names when it is run; asked here it would fetch for nobody.
    let fetched = fs::canonicalize(&program).is_ok_and(|real| real.iter().any(|name| name == "corepack"));
    Candidate { folder, program, named: named.or_else(|| fetched.then(|| "from corepack".to_owned())) }
}

fn is_stand_in(candidate: &Candidate) -> bool {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let chooser = fs::canonicalize(&candidate.program).is_ok_and(|real| CHOOSERS.contains(&&*name(&real)));
    chooser || STAND_INS.contains(&&*name(&candidate.folder))
}

/// The folders that `pattern` stands for below `folder`, with the version that each is named by.
fn expand(folder: &Path, pattern: &str) -> Vec<(PathBuf, Option<String>)> {
    let Some((before, after)) = pattern.split_once('*') else {
        return vec![(folder.join(pattern), None)];
    };
    let folders = entries(&folder.join(before)).into_iter();
    // Links beside the versions are names for them: `latest`, `22`.
    let real = folders.filter(|path| !path.is_symlink());
    real.map(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let version =
            name.find(|c: char| c.is_ascii_digit()).and_then(|at| name.get(at..)).map(str::to_owned);
        (path.join(after.trim_start_matches('/')), version)
    })
    .collect()
}

/// What has to be mirrored so that others reach the tool; an error says why that would not work.
fn reach(
    places: &ToolchainPlaces,
    known: &Known,
    candidate: &Candidate,
    as_other: bool,
) -> Result<Option<Source>, String> {
    let real = fs::canonicalize(&candidate.program).map_err(|error| error.to_string())?;
    if !as_other || mirror::everybody_runs(&real) && mirror::everybody_runs(&candidate.program) {
        return Ok(None);
    }
    let folder = &candidate.folder;
    let root = if folder.ends_with("bin") { folder.parent().unwrap_or(folder) } else { folder };
    let home = places.managers.get("home");
    let is_home = home.is_some_and(|home| root == home || root == home.join(".local"));
    match known.moves {
        Moves::Alone => Ok(Some(Source::Program(real))),
        Moves::Whole if !is_home && root.parent().is_some() => {
            let names = entries(root).into_iter();
            let parts = names.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
            Ok(Some(Source::Parts(root.to_owned(), parts.collect())))
        }
        _ => Err(format!(
            "{} is for the user alone in whose home it lies, and {} does not work from elsewhere",
            candidate.program.display(),
            known.name
        )),
    }
}

/// Runs the tool to have it tell its version.
fn ask(known: &Known, candidate: &Candidate) -> Result<String, String> {
    let at = candidate.program.display();
    let started = Launch::new(Program::Tool(candidate.program.clone()))
        .args(known.ask)
        .env("PATH", format!("{}:{SYSTEM_PATH}", candidate.folder.display()))
        .env("HOME", "/nonexistent")
        .env("LANG", "C.UTF-8")
        .dir("/")
        .group(Group::Session)
        .limits(Limits { core: Some(0), ..Limits::default() })
        .no_new_privs()
        .stdout(Stdio::Piped)
        .stderr(Stdio::Piped)
        .start();
    let mut child = started.map_err(|error| format!("{at} does not start: {error}"))?;
    let unheard = |error: std::io::Error| format!("{at} could not be asked for its version: {error}");
    let status = match child.wait_for(ASK_LIMIT).map_err(unheard)? {
        Some(status) => status,
        None => {
            child.signal_group(Signal::KILL).and_then(|()| child.wait()).map_err(unheard)?;
            return Err(format!("{at} does not tell its version"));
        }
    };
    let mut answer = String::new();
    let out = child.stdout.take().map(|pipe| pipe.take(ANSWER_MAX).read_to_string(&mut answer));
    let err = child.stderr.take().map(|pipe| pipe.take(ANSWER_MAX).read_to_string(&mut answer));
    out.transpose().and(err.transpose()).map_err(unheard)?;
    if !status.success() {
        let last = answer.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
        return Err(format!("{at} cannot be used: {}", last.trim()));
    }
    read_version(known.before, &answer).ok_or_else(|| format!("{at} does not tell its version"))
}

/// The version in what a tool says: what begins with a digit after `before`.
fn read_version(before: &str, answer: &str) -> Option<String> {
    answer.match_indices(before).find_map(|(at, _)| {
        let rest = answer.get(at + before.len()..)?;
        let end =
            rest.find(|c: char| !c.is_ascii_alphanumeric() && !".-+_".contains(c)).unwrap_or(rest.len());
        rest.get(..end).filter(|text| text.starts_with(|c: char| c.is_ascii_digit())).map(str::to_owned)
    })
}

/// Which of `versions` to take, and whether it is what is wanted. Without a wish it is the first, which is what `PATH` has.
fn pick(tool: Tool, versions: &[&str], wanted: Option<&Wanted>) -> Option<(usize, bool)> {
    let Some(wanted) = wanted else {
        return (!versions.is_empty()).then_some((0, true));
    };
    let choice = wanted.choose(tool, versions.iter().copied())?;
    let index = versions.iter().position(|version| *version == choice.version)?;
    Some((index, choice.fits))
}

fn missing(known: &Known, wanted: Option<&Wanted>, problems: &[String]) -> BuildError {
    let asked =
        wanted.map(|wanted| format!(" ({} asks for {})", wanted.by, wanted.version)).unwrap_or_default();
    let missing = if problems.is_empty() {
        format!("{} is not installed{asked}: `{}` is in no folder of PATH", known.name, known.program)
    } else {
        format!("{} is not there for the build{asked}: {}", known.name, problems.join("; "))
    };
    BuildError::ToolchainMissing { missing, install: format!("install {}", known.install) }
}

/// A name for the mirror of a tool, another one once the tool is another.
fn mirror_name(known: &Known, version: &str, candidate: &Candidate) -> String {
    let stamp =
        fs::metadata(&candidate.program).map(|it| (it.ino(), it.len(), it.mtime())).unwrap_or_default();
    let hash = hex::encode(Sha256::digest(format!("{} {stamp:?}", candidate.program.display())));
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    let version: String = version.chars().take(40).map(safe).collect();
    format!("{}-{version}-{}", known.program, hash.chars().take(16).collect::<String>())
}

/// The Rust toolchain as a tool of a recipe: a Python package may have a part in Rust.
fn rust(places: &ToolchainPlaces, need: &ToolNeed, as_other: bool) -> Result<ToolUse, BuildError> {
    let channel = need.wanted.as_ref().map(|wanted| wanted.version.as_str());
    let toolchain = toolchain::find(places, channel)?;
    let folder = toolchain.root.join("bin");
    let hidden = as_other && !mirror::everybody_runs(&folder.join("rustc"));
    let parts = || Source::Parts(toolchain.root.clone(), toolchain::PARTS.map(str::to_owned).to_vec());
    Ok(ToolUse {
        tool: Tool::Rust,
        identity: format!("Rust {} at {}", toolchain.version, folder.display()),
        shown: format!("Rust {}", toolchain.version),
        program: "cargo",
        at_run: need.at_run,
        mirror: hidden.then(|| (toolchain.version.clone(), parts())),
        mismatch: None,
        folder,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    struct Machine {
        dir: tempfile::TempDir,
        places: ToolchainPlaces,
    }

    impl Machine {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
            let managers = MANAGERS.map(|(name, _, below)| (name, dir.path().join("home").join(below)));
            let places = ToolchainPlaces {
                path: dir.path().join("bin").into(),
                managers: managers.into(),
                ..ToolchainPlaces::default()
            };
            Self { dir, places }
        }

        fn install(&self, path: &str, says: &str) {
            let path = self.dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, format!("#!/bin/sh\n{says}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }

        fn choose(&self, tool: Tool, wanted: Option<&str>, as_other: bool) -> Result<ToolUse, BuildError> {
            let wanted = wanted.map(|it| Wanted { version: it.to_owned(), by: ".nvmrc".to_owned() });
            let recipe = Recipe { tools: vec![ToolNeed { tool, wanted, at_run: true }], ..Recipe::default() };
            Toolbox::default().choose(&self.places, &recipe, as_other).map(|mut tools| tools.remove(0))
        }
    }

    #[test]
    fn the_version_that_fits_is_taken_wherever_it_is() {
        let machine = Machine::new();
        machine.install("bin/node", "echo v18.1.0");
        machine.install("home/.nvm/versions/node/v20.20.2/bin/node", "exit 1");
        machine.install("home/.nvm/versions/node/v20.9.0/bin/node", "exit 1");
        machine.install("home/.asdf/installs/nodejs/22.4.1/bin/node", "exit 1");
        let shown = |wanted| machine.choose(Tool::Node, wanted, false).unwrap().shown;
        assert_eq!(shown(None), "Node 18.1.0");
        assert_eq!(shown(Some("20")), "Node 20.20.2");
        assert_eq!(shown(Some(">=21")), "Node 22.4.1");
        let other = machine.choose(Tool::Node, Some("16"), false).unwrap();
        let said = other.mismatch.unwrap();
        assert!(said.starts_with(".nvmrc asks for Node 16; this machine has "), "{said}");
    }

    #[test]
    fn stand_ins_are_passed_by_and_what_does_not_work_is_told() {
        let machine = Machine::new();
        machine.install("shims/deno", "echo deno 9.9.9");
        let shims = machine.dir.path().join("shims");
        let bin = machine.dir.path().join("bin");
        let path = std::env::join_paths([&shims, &bin]).unwrap();
        let machine = Machine { places: ToolchainPlaces { path, ..machine.places.clone() }, ..machine };
        let missing = |machine: &Machine| machine.choose(Tool::Deno, None, false).unwrap_err().to_string();
        assert!(
            missing(&machine).starts_with("Deno is not installed: `deno` is in no folder of PATH; install ")
        );
        machine.install("bin/deno", "echo no such module >&2; exit 1");
        assert!(missing(&machine).contains("bin/deno cannot be used: no such module; install "));
    }

    #[test]
    fn what_others_cannot_reach_is_mirrored_or_refused() {
        let machine = Machine::new();
        machine.install("home/.nvm/versions/node/v20.20.2/bin/node", "exit 1");
        machine.install("home/.rbenv/versions/9.3.0/bin/ruby", "echo ruby 9.3.0");
        let home = machine.dir.path().join("home");
        fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
        symlink("v20.20.2", home.join(".nvm/versions/node/default")).unwrap();
        let builds = machine.dir.path().join("builds");
        let layout = Layout { artifacts: machine.dir.path().join("a"), builds, passage: None };
        let wanted = Some("20.20.2");
        let node = machine.choose(Tool::Node, wanted, true).unwrap();
        let name = node.mirror_name().unwrap().to_owned();
        let node = node.reachable(&layout).unwrap();
        assert_eq!(node.folder, layout.toolchains().join(name).join("bin"));
        assert!(is_program(&node.folder.join("node")));
        assert!(machine.choose(Tool::Node, wanted, false).unwrap().mirror.is_none());
        let refused = machine.choose(Tool::Ruby, None, true).unwrap_err().to_string();
        assert!(refused.contains("Ruby does not work from elsewhere"), "{refused}");
    }

    #[test]
    fn a_tool_is_had_with_its_libraries_and_nothing_around_it() {
        let of = |programs: &str| {
            installation(Path::new(programs)).map(|place| place.to_string_lossy().into_owned())
        };
        assert_eq!(
            of("/home/a/.nvm/versions/node/v20/bin").as_deref(),
            Some("/home/a/.nvm/versions/node/v20")
        );
        assert_eq!(of("/srv/tools/deno").as_deref(), Some("/srv/tools/deno"));
        assert_eq!(of("/usr/local/bin"), None);
        // The top of the machine is no installation.
        assert_eq!(of("/bin"), None);
        assert_eq!(of("/tools/bin").as_deref(), Some("/tools"));
    }

    #[test]
    fn a_build_finds_where_tools_are_and_what_they_are_links_to() {
        let machine = Machine::new();
        machine.install("srv/deno/bin/deno", "echo deno 2.0.0");
        let (bin, real) = (machine.dir.path().join("bin"), machine.dir.path().join("srv/deno"));
        fs::create_dir_all(&bin).unwrap();
        symlink(real.join("bin/deno"), bin.join("deno")).unwrap();
        let tool = machine.choose(Tool::Deno, None, false).unwrap();
        assert_eq!(tool.folder, bin);
        let rust = Toolchain { root: "/home/a/.rustup/toolchains/stable".into(), version: "1".to_owned() };
        let home = machine.dir.path().join("home");
        let private = Private { home: Some(&home), builds: Path::new("/builds") };
        // The folder around `bin` is around the home, too.
        assert_eq!(places(&[tool], Some(&rust), &private), [bin, real, rust.root].into());
    }

    #[test]
    fn folders_around_a_home_or_builds_are_no_folders_of_programs() {
        let path = "/home:/home/a:/home/a/bin:/usr/bin:relative:/var/berth:/var/berth/bin".into();
        let places = ToolchainPlaces { path, ..ToolchainPlaces::default() };
        let private = Private { home: Some(Path::new("/home/a")), builds: Path::new("/var/berth/builds") };
        let found = own_folders(&places, &private);
        assert_eq!(found, [PathBuf::from("/home/a/bin"), "/var/berth/bin".into()].into());
    }

    #[test]
    fn versions_are_read_out_of_what_tools_say() {
        let table = [
            ("v", "v20.20.2\n", Some("20.20.2")),
            ("go version go", "go version go1.22.2 linux/amd64", Some("1.22.2")),
            ("version \"", "openjdk version \"17.0.9\" 2023-10-17", Some("17.0.9")),
            (
                "Elixir ",
                "Erlang/OTP 25 [erts-13]\n\nElixir 1.14.0 (compiled with Erlang/OTP 25)",
                Some("1.14.0"),
            ),
            ("version ", "Composer version 2.5.5 2023-03-21", Some("2.5.5")),
            ("", "8.6.1", Some("8.6.1")),
            ("v", "command not found", None),
        ];
        for (before, answer, expected) in table {
            assert_eq!(read_version(before, answer).as_deref(), expected, "{answer}");
        }
    }
}
