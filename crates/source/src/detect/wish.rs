//! The versions of tools that a source asks for, and the files in which it does.

use super::view::{Facts, View};
use crate::recipe::{Tool, Wanted};

/// Files whose first line is a version, in the order in which they count.
const FILES: [(Tool, &str); 13] = [
    (Tool::Node, ".nvmrc"),
    (Tool::Node, ".node-version"),
    (Tool::Python, ".python-version"),
    (Tool::Python, "runtime.txt"),
    (Tool::Ruby, ".ruby-version"),
    (Tool::Go, ".go-version"),
    (Tool::Java, ".java-version"),
    (Tool::Deno, ".dvmrc"),
    (Tool::Bun, ".bun-version"),
    (Tool::Php, ".php-version"),
    (Tool::Elixir, ".exenv-version"),
    (Tool::Rust, "rust-toolchain"),
    (Tool::Php, ".phpenv-version"),
];

/// What version managers call tools, in `.tool-versions` and `mise.toml`.
const NAMES: [(Tool, &str); 25] = [
    (Tool::Rust, "rust"),
    (Tool::Node, "nodejs"),
    (Tool::Node, "node"),
    (Tool::Pnpm, "pnpm"),
    (Tool::Yarn, "yarn"),
    (Tool::Bun, "bun"),
    (Tool::Deno, "deno"),
    (Tool::Python, "python"),
    (Tool::Uv, "uv"),
    (Tool::Poetry, "poetry"),
    (Tool::Pipenv, "pipenv"),
    (Tool::Go, "golang"),
    (Tool::Go, "go"),
    (Tool::Ruby, "ruby"),
    (Tool::Bundler, "bundler"),
    (Tool::Php, "php"),
    (Tool::Composer, "composer"),
    (Tool::Java, "java"),
    (Tool::Maven, "maven"),
    (Tool::Gradle, "gradle"),
    (Tool::Dotnet, "dotnet-core"),
    (Tool::Dotnet, "dotnet"),
    (Tool::Elixir, "elixir"),
    (Tool::Make, "make"),
    (Tool::Rust, "cargo"),
];
/// The longest version that is taken over.
const VERSION_MAX: usize = 200;

/// The version of `tool` that is asked for. A file that a version manager reads counts before what the app's manifest allows.
pub(super) fn wanted(view: &View<'_>, facts: &Facts, tool: Tool) -> Option<Wanted> {
    let found = pinned(facts, tool)
        .or_else(|| FILES.iter().filter(|(of, _)| *of == tool).find_map(|(_, file)| first_line(view, file)))
        .or_else(|| rust_channel(view).filter(|_| tool == Tool::Rust))
        .or_else(|| listed(view, tool))
        .or_else(|| mise(view, tool))
        .or_else(|| facts.versions.first().filter(|_| is_language(tool)).cloned());
    let (by, version) = found?;
    let printable =
        !version.is_empty() && version.len() <= VERSION_MAX && !version.contains(char::is_control);
    printable.then_some(Wanted { version, by })
}

/// The name of a tool for people.
pub(super) fn name(tool: Tool) -> &'static str {
    NAMES.iter().rev().find(|(of, _)| *of == tool).map_or("a tool", |(_, name)| name)
}

/// Whether a language's manifest speaks of it when it names a version.
fn is_language(tool: Tool) -> bool {
    !matches!(
        tool,
        Tool::Pnpm
            | Tool::Yarn
            | Tool::Bun
            | Tool::Uv
            | Tool::Poetry
            | Tool::Pipenv
            | Tool::Bundler
            | Tool::Composer
            | Tool::Maven
            | Tool::Gradle
            | Tool::Make
    )
}

fn pinned(facts: &Facts, tool: Tool) -> Option<(String, String)> {
    let (pinned, version) = facts.pin.as_ref()?;
    (matches!(tool, Tool::Pnpm | Tool::Yarn | Tool::Bun) && pinned == name(tool) && !version.is_empty())
        .then(|| ("packageManager of package.json".to_owned(), version.clone()))
}

fn text(view: &View<'_>, path: &str) -> Option<String> {
    view.text(path).ok().flatten()
}

fn first_line(view: &View<'_>, path: &str) -> Option<(String, String)> {
    let text = text(view, path)?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let line = lines.into_iter().find(|line| !line.is_empty())?;
    // runtime.txt belongs to any language.
    let fits = path != "runtime.txt"
        || line.starts_with("python-")
        || line.starts_with(|c: char| c.is_ascii_digit());
    (fits && !line.starts_with('[')).then(|| (path.to_owned(), line.to_owned()))
}

fn rust_channel(view: &View<'_>) -> Option<(String, String)> {
    ["rust-toolchain.toml", "rust-toolchain"].into_iter().find_map(|path| {
        let table: toml::Table = text(view, path)?.parse().ok()?;
        let channel = table.get("toolchain")?.get("channel")?.as_str()?;
        Some((path.to_owned(), channel.to_owned()))
    })
}

fn names_of(tool: Tool) -> impl Iterator<Item = &'static str> {
    NAMES.iter().filter(move |(of, _)| *of == tool).map(|(_, name)| *name)
}

fn listed(view: &View<'_>, tool: Tool) -> Option<(String, String)> {
    const FILE: &str = ".tool-versions";
    let text = text(view, FILE)?;
    text.lines().find_map(|line| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let name = words.next()?;
        names_of(tool).any(|known| known == name).then_some((FILE.to_owned(), words.next()?.to_owned()))
    })
}

fn mise(view: &View<'_>, tool: Tool) -> Option<(String, String)> {
    ["mise.toml", ".mise.toml"].into_iter().find_map(|path| {
        let table: toml::Table = text(view, path)?.parse().ok()?;
        let tools = table.get("tools")?;
        let mut value = names_of(tool).find_map(|name| tools.get(name))?;
        if let Some(list) = value.as_array() {
            value = list.first()?;
        }
        let version = value.as_str().or_else(|| value.get("version")?.as_str())?;
        Some((path.to_owned(), version.to_owned()))
    })
}
