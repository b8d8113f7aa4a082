//! Go.

use berth_spec::manifest::Builder;

use crate::detect::NothingFits;
use crate::detect::rule::{Framework, Language, Line, Serve};
use crate::detect::sign::Sign::{File, Known};
use crate::detect::view::{Facts, View, means};
use crate::recipe::Tool;

pub(in crate::detect) const GO: Language = Language {
    builder: Builder::Go,
    name: "a Go program",
    fits: File("go.mod"),
    tool: Tool::Go,
    needed_to_run: false,
    programs: &[],
    read,
    managers: &[],
    frameworks: &FRAMEWORKS,
    // There is no .git to take a version from, and a cache that cannot be written to could not be removed.
    env: &[("GOFLAGS", "-buildvcs=false -modcacherw")],
    caches: &[("GOCACHE", "go-build"), ("GOMODCACHE", "go-mod")],
    path: &[],
    hint: "put its `package main` at the root or below cmd/, or write `build.command` and `[processes]` into berth.toml",
};

const FRAMEWORKS: [Framework; 3] = [
    Framework {
        name: "a program at the root",
        fits: Known("go_main"),
        build: &[
            Line::always("go build -trimpath -o bin/{go_main} ."),
            Line::when(Known("go_programs"), "go build -trimpath -o bin/ ./cmd/..."),
        ],
        serve: Serve::Run("bin/{go_main}"),
        ..Framework::NONE
    },
    Framework {
        name: "a program below cmd",
        fits: Known("go_program"),
        build: &[Line::always("go build -trimpath -o bin/ ./cmd/...")],
        serve: Serve::Run("bin/{go_program}"),
        ..Framework::NONE
    },
    Framework {
        name: "several programs below cmd",
        fits: Known("go_programs"),
        build: &[Line::always("go build -trimpath -o bin/ ./cmd/...")],
        serve: Serve::Unclear(
            "there are several programs below cmd/ and none is called like the app: write `[processes]` with `web = \"bin/NAME\"` into berth.toml",
        ),
        ..Framework::NONE
    },
];

/// The most Go files that are read.
const READ_MAX: usize = 200;

fn read(view: &View<'_>) -> Result<Option<Facts>, NothingFits> {
    let mut facts = Facts::default();
    let text = view.text("go.mod")?.unwrap_or_default();
    let word =
        |key: &str| text.lines().find_map(|line| line.trim().strip_prefix(key)?.split_whitespace().next());
    if let Some(version) = word("go ") {
        facts.versions.push(("the go line of go.mod".to_owned(), format!(">={version}")));
    }
    if has_main(view, "*.go")?.is_some() {
        let module = word("module ").unwrap_or_default().trim_matches('"');
        let is_version = |name: &&str| name.strip_prefix('v').is_some_and(|rest| rest.parse::<u32>().is_ok());
        let name =
            module.rsplit('/').find(|name| !is_version(name)).filter(|name| is_name(name)).unwrap_or("app");
        facts.know("go_main", name, "`package main` at the root");
    }
    let mut programs: Vec<&str> = Vec::new();
    for path in view.paths().filter(|path| means("cmd/*/*.go", path)) {
        let folder = path.split('/').nth(1).unwrap_or_default();
        if !programs.contains(&folder)
            && is_name(folder)
            && has_main(view, &format!("cmd/{folder}/*.go"))?.is_some()
        {
            programs.push(folder);
        }
    }
    let chosen = match programs.as_slice() {
        [only] => Some(*only),
        several => [view.app.as_str(), "web", "server"].into_iter().find(|name| several.contains(name)),
    };
    if let Some(name) = chosen {
        facts.know("go_program", name, format!("`package main` in cmd/{name}"));
    }
    if !programs.is_empty() {
        facts.know("go_programs", "", format!("`package main` in cmd/{}", programs.join(", cmd/")));
    }
    Ok(Some(facts))
}

/// Whether a name is one that a folder of programs may have: it becomes an argument after a `/`.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains('/')
}

fn has_main<'v>(view: &View<'v>, pattern: &str) -> Result<Option<&'v str>, NothingFits> {
    let fits = |path: &&str| means(pattern, path) && !path.ends_with("_test.go");
    for path in view.paths().filter(fits).take(READ_MAX) {
        let text = view.text(path)?.unwrap_or_default();
        if text.lines().any(|line| line.split_whitespace().take(2).eq(["package", "main"])) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
