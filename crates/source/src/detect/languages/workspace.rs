//! Workspaces of several packages: which packages there are, and which of them is the app.

use serde_json::Value as Json;

use super::node::read::package;
use crate::detect::view::{View, means};
use crate::detect::{NothingFits, unclear};

/// The most packages that are read.
const MEMBERS_MAX: usize = 500;
/// How deep `**` in a pattern leads.
const DEPTH_MAX: usize = 5;

/// A package of a workspace.
pub(super) struct Member {
    pub(super) dir: String,
    pub(super) package: Json,
}

/// The packages of the workspace whose root has the package.json `root`; none when it is no workspace.
pub(super) fn members(view: &View<'_>, root: &Json) -> Result<Vec<Member>, NothingFits> {
    let list = root
        .get("workspaces")
        .and_then(|spaces| spaces.as_array().or_else(|| spaces.get("packages")?.as_array()));
    let mut patterns: Vec<String> =
        list.into_iter().flatten().filter_map(Json::as_str).map(str::to_owned).collect();
    if let Some(text) = view.text("pnpm-workspace.yaml")? {
        patterns.extend(listed(&text));
    }
    let (without, with): (Vec<String>, Vec<String>) =
        patterns.into_iter().partition(|pattern| pattern.starts_with('!'));
    let matches = |patterns: &[String], dir: &str| patterns.iter().any(|pattern| names(pattern, dir));
    let mut found = Vec::new();
    for path in view.paths() {
        let Some(dir) = path.strip_suffix("/package.json").filter(|dir| !dir.contains("node_modules")) else {
            continue;
        };
        if matches(&with, dir) && !matches(&without, dir) && found.len() < MEMBERS_MAX {
            found.extend(package(view, dir)?.map(|package| Member { dir: dir.to_owned(), package }));
        }
    }
    Ok(found)
}

fn names(pattern: &str, dir: &str) -> bool {
    let pattern = pattern.trim_start_matches('!').trim_start_matches("./").trim_end_matches('/');
    match pattern.split_once("**") {
        None => means(pattern, dir),
        Some((before, after)) => (0..DEPTH_MAX).any(|depth| {
            let middle = vec!["*"; depth].join("/");
            let whole = format!("{before}{middle}{after}");
            means(whole.replace("//", "/").trim_matches('/'), dir)
        }),
    }
}

/// The list below `packages:` of a pnpm-workspace.yaml, without a parser for all of YAML.
fn listed(text: &str) -> Vec<String> {
    let after = text.lines().skip_while(|line| !line.starts_with("packages:")).skip(1);
    let items = after.take_while(|line| line.is_empty() || line.starts_with([' ', '-', '#', '\t']));
    items
        .filter_map(|line| line.trim().strip_prefix('-'))
        .map(|item| item.split(" #").next().unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned())
        .filter(|item| !item.is_empty())
        .collect()
}

/// The package that is the app; none for the root itself.
pub(super) fn app<'m>(
    view: &View<'_>,
    root: &Json,
    members: &'m [Member],
) -> Result<Option<&'m Member>, NothingFits> {
    let name = view.app.as_str();
    let called = |member: &&Member| {
        let package = member.package.get("name").and_then(Json::as_str).unwrap_or_default();
        package.rsplit('/').next() == Some(name) || member.dir.rsplit('/').next() == Some(name)
    };
    let starts = |package: &Json| package.pointer("/scripts/start").is_some();
    if let Some(member) = members.iter().find(called) {
        return Ok(Some(member));
    }
    // Whoever says what to run has chosen, and may mean any of them.
    if starts(root) || !view.manifest.processes.is_empty() {
        return Ok(None);
    }
    let is_app = |member: &&Member| starts(&member.package);
    let is_below_apps = |member: &&Member| member.dir.starts_with("apps/");
    let is_built = |member: &&Member| member.package.pointer("/scripts/build").is_some();
    for choice in [&is_app as &dyn Fn(&&Member) -> bool, &is_below_apps, &is_built] {
        let mut fitting = members.iter().filter(choice);
        if let (Some(only), None) = (fitting.next(), fitting.next()) {
            return Ok(Some(only));
        }
    }
    let dirs: Vec<&str> = members.iter().map(|member| member.dir.as_str()).take(8).collect();
    let first = dirs.first().and_then(|dir| dir.rsplit('/').next()).unwrap_or("web");
    Err(unclear(format!(
        "the workspace has several packages ({}) and none is called {name}: name the app like the one to run (`app = \"{first}\"` in berth.toml), give only that one a script `start`, or write `[processes]`",
        dirs.join(", "),
    )))
}
