//! The shape of a rule. To teach detection a framework is to add a row to a table in `languages`; no code follows.
//!
//! Lines in rules are split at white space. `{name}` in a line stands for what is known of the app by that name and is one word,
//! whatever it holds; a line with `{` in it never needs a shell, which a test checks. `$PORT` is expanded when the process starts.

use berth_spec::manifest::Builder;

use super::NothingFits;
use super::sign::Sign;
use super::view::{Facts, View};
use crate::recipe::Tool;

/// Names and values, as environment and caches have them.
pub(super) type Pairs = &'static [(&'static str, &'static str)];

/// A language: how its trees are known, read, installed and run.
pub(super) struct Language {
    pub(super) builder: Builder,
    /// As people call it.
    pub(super) name: &'static str,
    pub(super) fits: Sign,
    /// What builds and runs it.
    pub(super) tool: Tool,
    /// Whether its programs need the tool when they run.
    pub(super) needed_to_run: bool,
    /// How commands in this language begin; of several languages in a tree the one comes first that the given processes speak.
    pub(super) programs: &'static [&'static str],
    /// Reads what its files say; nothing when they are not those of an app.
    pub(super) read: fn(&View<'_>) -> Result<Option<Facts>, NothingFits>,
    /// By what dependencies are installed; the first that fits.
    pub(super) managers: &'static [Manager],
    /// What is built and run; the first that fits.
    pub(super) frameworks: &'static [Framework],
    pub(super) env: Pairs,
    pub(super) caches: Pairs,
    /// Folders whose programs come first.
    pub(super) path: &'static [&'static str],
    /// What to write when nothing says what to run.
    pub(super) hint: &'static str,
}

/// A way to install dependencies.
pub(super) struct Manager {
    pub(super) name: &'static str,
    pub(super) fits: Sign,
    /// Beside the language's own tool.
    pub(super) tool: Option<Tool>,
    /// The files that fix every version; any of them.
    pub(super) lock: &'static [&'static str],
    /// Installs what the lock file says; empty when there is nothing to do.
    pub(super) locked: &'static str,
    /// Installs when there is no lock file.
    pub(super) unlocked: &'static str,
    /// Installs one more package, whose name follows.
    pub(super) add: &'static str,
    /// Installs the source itself, when it is a package.
    pub(super) project: &'static str,
    /// Runs `{script}` of the app.
    pub(super) script: &'static str,
    /// Runs `{script}` of the app in the folder `{dir}`.
    pub(super) script_below: &'static str,
    /// The files that decide what is installed, beside those that the language's reader names.
    pub(super) reads: &'static [&'static str],
    /// The folders that installing makes; when there are none, it makes no layer.
    pub(super) makes: &'static [&'static str],
    /// The folders in which absolute paths stand.
    pub(super) relocated: &'static [&'static str],
    pub(super) env: Pairs,
    /// Environment of the installing step alone.
    pub(super) install_env: Pairs,
    pub(super) caches: Pairs,
}

impl Manager {
    /// A manager that does nothing; rows say what differs.
    pub(super) const NONE: Self = Self {
        name: "",
        fits: Sign::Always,
        tool: None,
        lock: &[],
        locked: "",
        unlocked: "",
        add: "",
        project: "",
        script: "",
        script_below: "",
        reads: &[],
        makes: &[],
        relocated: &[],
        env: &[],
        install_env: &[],
        caches: &[],
    };
}

/// A framework, or a plain way to write an app.
pub(super) struct Framework {
    pub(super) name: &'static str,
    pub(super) fits: Sign,
    /// The name under which the module is known that is `{module}`.
    pub(super) module: &'static str,
    /// The Python class whose object is the app; known as `{module}` and, when a function makes it, `{call}`.
    pub(super) object: &'static str,
    /// Files of which the first that is there is `{file}`; when none is, the rule does not fit.
    pub(super) files: &'static [&'static str],
    /// What builds it when the app has no script `build`.
    pub(super) build: &'static [Line],
    /// What the script `build` does not do: runs after it, too.
    pub(super) finish: &'static [Line],
    /// How a script `start` begins that is no way to run it for users: a development server, or what `serve` does better.
    pub(super) own: &'static [&'static str],
    pub(super) serve: Serve,
    /// What runs once before traffic.
    pub(super) release: &'static [Line],
    pub(super) env: Pairs,
    /// What it keeps for its next build.
    pub(super) kept: &'static [&'static str],
    /// What a person should know.
    pub(super) notes: &'static [Line],
}

impl Framework {
    /// A framework of which nothing is known; rows say what differs.
    pub(super) const NONE: Self = Self {
        name: "",
        fits: Sign::Always,
        module: "",
        object: "",
        files: &[],
        build: &[],
        finish: &[],
        own: &[],
        serve: Serve::Script,
        release: &[],
        env: &[],
        kept: &[],
        notes: &[],
    };
}

/// A line that counts when a sign is seen.
pub(super) struct Line {
    pub(super) when: Sign,
    pub(super) text: &'static str,
    /// What it does, where the line itself is no good answer.
    pub(super) does: &'static str,
}

impl Line {
    /// A line that always counts.
    pub(super) const fn always(text: &'static str) -> Self {
        Self { when: Sign::Always, text, does: "" }
    }

    /// A line that counts when `when` is seen.
    pub(super) const fn when(when: Sign, text: &'static str) -> Self {
        Self { when, text, does: "" }
    }
}

/// How an app serves.
pub(super) enum Serve {
    /// Berth serves the files of this folder, which becomes the artifact.
    Site(&'static str),
    /// Like `Site`, and paths that are no files are the app's own: they get its `index.html`.
    SinglePage(&'static str),
    /// This runs.
    Run(&'static str),
    /// The first of these servers that is among the dependencies; else the first is installed.
    Servers(&'static [Server]),
    /// The app's script `start`, and nothing else would do.
    Script,
    /// It cannot be known; the sentence says what to write.
    Unclear(&'static str),
}

/// A program that serves an app object.
pub(super) struct Server {
    pub(super) package: &'static str,
    /// Dependencies that bring it along.
    pub(super) within: &'static [&'static str],
    /// Serves `{module}`.
    pub(super) run: &'static str,
    /// Serves what the function `{module}`, or the call `{call}`, makes.
    pub(super) run_factory: &'static str,
}
