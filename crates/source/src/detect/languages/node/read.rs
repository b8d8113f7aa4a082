//! What package.json and angular.json say.

use serde_json::Value as Json;

use super::super::workspace;
use crate::detect::view::{Facts, View, join};
use crate::detect::{NothingFits, unclear};

/// The scripts that run while dependencies are installed and may read anything of the tree.
const AT_INSTALL: [&str; 5] = ["preinstall", "install", "postinstall", "prepare", "prepublish"];

/// Commands of such scripts that change nothing which is installed by what they read of the source: they make what the build makes again,
/// or set up a repository that is not there.
const HARMLESS: [&str; 12] = [
    "svelte-kit sync",
    "nuxt prepare",
    "nuxi prepare",
    "react-router typegen",
    "husky",
    "lefthook install",
    "simple-git-hooks",
    "is-ci",
    "patch-package",
    "echo",
    "true",
    "exit 0",
];

fn is_harmless(script: &str) -> bool {
    script.split(['&', '|', ';']).map(str::trim).filter(|part| !part.is_empty()).all(|part| {
        HARMLESS.iter().any(|known| {
            part.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        })
    })
}

pub(super) fn read(view: &View<'_>) -> Result<Option<Facts>, NothingFits> {
    let Some(root) = package(view, "")? else {
        return Ok(None);
    };
    let mut facts = Facts::default();
    pinned(&root, &mut facts);
    let members = workspace::members(view, &root)?;
    let mut app = &root;
    if !members.is_empty() {
        facts.know("workspace", "", "workspaces of package.json");
        if let Some(member) = workspace::app(view, &root, &members)? {
            facts.dir.clone_from(&member.dir);
            app = &member.package;
        }
    }
    facts.inputs.insert("package.json".to_owned());
    for (dir, package) in
        [("", &root)].into_iter().chain(members.iter().map(|member| (member.dir.as_str(), &member.package)))
    {
        facts.inputs.insert(join(dir, "package.json"));
        if !dir.is_empty() {
            facts.makes.insert(join(dir, "node_modules"));
        }
        if facts.unlayered.is_none() {
            facts.unlayered = reads_more(package, &join(dir, "package.json"));
        }
    }
    facts.scripts = texts(app, "scripts");
    if !facts.dir.is_empty() && root.pointer("/scripts/build").is_some() {
        facts.know("root_build", "", "");
        facts.scripts.insert("build".to_owned(), String::new());
    }
    for kind in ["optionalDependencies", "devDependencies", "dependencies"] {
        facts.dependencies.extend(texts(app, kind));
    }
    if !facts.dependencies.is_empty() {
        facts.know("dependencies", "", "");
    }
    if view.has("bun.lock")
        || view.has("bun.lockb")
        || facts.pin.as_ref().is_some_and(|(name, _)| name == "bun")
    {
        facts.know("bun", "", "");
    }
    if let Some(main) = app.get("main").and_then(Json::as_str).map(|main| main.trim_start_matches("./")) {
        let found = [main.to_owned(), format!("{main}.js"), format!("{main}/index.js")];
        let program = |path: &String| {
            ["js", "mjs", "cjs"].iter().any(|end| path.rsplit_once('.').is_some_and(|(_, has)| has == *end))
        };
        if let Some(path) = found.into_iter().find(|path| program(path) && view.has(&facts.at(path))) {
            facts.know("main", path, "main of package.json");
        }
    }
    angular(view, &mut facts)?;
    Ok(Some(facts))
}

/// The package.json in the folder `dir`; nothing when there is none.
pub(in crate::detect::languages) fn package(view: &View<'_>, dir: &str) -> Result<Option<Json>, NothingFits> {
    let path = join(dir, "package.json");
    let Some(text) = view.text(&path)? else {
        return Ok(None);
    };
    match serde_json::from_str::<Json>(text.trim_start_matches('\u{feff}')) {
        Ok(package) if package.is_object() => Ok(Some(package)),
        Ok(_) => Err(unclear(format!("{path} is no JSON object"))),
        Err(bad) => Err(unclear(format!("{path} cannot be read: {bad}"))),
    }
}

/// The texts of the table `key`; what is no text is left out.
fn texts(package: &Json, key: &str) -> std::collections::BTreeMap<String, String> {
    let table = package.get(key).and_then(Json::as_object).into_iter().flatten();
    table.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

fn pinned(package: &Json, facts: &mut Facts) {
    let text = |pointer: &str| package.pointer(pointer).and_then(Json::as_str);
    if let Some((name, version)) = text("/packageManager").map(|pin| pin.split_once('@').unwrap_or((pin, "")))
    {
        let version = version.split('+').next().unwrap_or_default();
        facts.pin = Some((name.to_owned(), version.to_owned()));
        if ["npm", "pnpm", "yarn", "bun"].contains(&name) {
            facts.know("package_manager", name, "packageManager of package.json");
        }
    }
    for (pointer, by) in
        [("/volta/node", "volta.node of package.json"), ("/engines/node", "engines.node of package.json")]
    {
        facts.versions.extend(text(pointer).map(|version| (by.to_owned(), version.to_owned())));
    }
}

/// Why installing what `package` asks for reads more than manifests and lock files.
fn reads_more(package: &Json, path: &str) -> Option<String> {
    let scripts = texts(package, "scripts");
    let reads = |name: &&&str| scripts.get(**name).is_some_and(|text| !is_harmless(text));
    if let Some(script) = AT_INSTALL.iter().find(reads) {
        return Some(format!("{path} has a script {script}, which may read the whole source"));
    }
    ["dependencies", "devDependencies", "optionalDependencies"].iter().find_map(|kind| {
        let local = texts(package, kind).into_iter().find(|(_, version)| {
            ["file:", "link:", "portal:", "./", "../"].iter().any(|start| version.starts_with(start))
        });
        local.map(|(name, _)| format!("{path} takes {name} from a folder of the source"))
    })
}

/// Where Angular puts what it builds.
fn angular(view: &View<'_>, facts: &mut Facts) -> Result<(), NothingFits> {
    let Some(text) = view.text(&facts.at("angular.json"))? else {
        return Ok(());
    };
    let workspace: Json =
        serde_json::from_str(&text).map_err(|bad| unclear(format!("angular.json cannot be read: {bad}")))?;
    let projects = workspace.get("projects").and_then(Json::as_object);
    let wanted = workspace.get("defaultProject").and_then(Json::as_str).unwrap_or(view.app.as_str());
    let application = |project: &Json| project.get("projectType").and_then(Json::as_str) != Some("library");
    let named = projects.and_then(|projects| projects.get_key_value(wanted));
    let first = || projects.into_iter().flatten().find(|(_, project)| application(project));
    let Some((name, project)) = named.or_else(first) else {
        return Ok(());
    };
    let build = project.pointer("/architect/build").or_else(|| project.pointer("/targets/build"));
    let builder = build.and_then(|build| build.get("builder")).and_then(Json::as_str).unwrap_or_default();
    let option = |pointer: &str| build.and_then(|build| build.pointer(&format!("/options{pointer}")));
    let base = option("/outputPath").and_then(Json::as_str).or_else(|| option("/outputPath/base")?.as_str());
    let base = base.map_or_else(|| format!("dist/{name}"), |base| base.trim_matches('/').to_owned());
    let apart = builder.ends_with(":application");
    if apart && option("/outputMode").and_then(Json::as_str) == Some("server") {
        facts.know("angular_server", format!("{base}/server/server.mjs"), "angular.json");
    }
    let below =
        option("/outputPath/browser").and_then(Json::as_str).unwrap_or(if apart { "browser" } else { "" });
    let output = if below.is_empty() { base } else { format!("{base}/{below}") };
    facts.know("angular_output", output, "angular.json");
    Ok(())
}
