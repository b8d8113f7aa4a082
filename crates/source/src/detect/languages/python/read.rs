//! What the files of a Python app say: requirements, pyproject.toml, Pipfile, modules with known names, Django's settings.

use std::collections::BTreeMap;

use super::object::{READ_MAX, modules};
use crate::detect::view::{Facts, View, means};
use crate::detect::{NothingFits, unclear};

pub(super) fn read(view: &View<'_>) -> Result<Option<Facts>, NothingFits> {
    let mut facts = Facts::default();
    if !view.has("manage.py")
        && let Some(path) = view.find("*/manage.py")
    {
        path.trim_end_matches("/manage.py").clone_into(&mut facts.dir);
    }
    for path in view
        .paths()
        .filter(|path| means("*requirements*.txt", path) || means("requirements/*.txt", path))
        .take(READ_MAX)
    {
        for line in view.text(path)?.unwrap_or_default().lines() {
            let line = line.trim();
            depend(&mut facts.dependencies, line);
            let local = line.starts_with('.')
                || line.contains("file:")
                || line
                    .strip_prefix("-e")
                    .or_else(|| line.strip_prefix("--editable"))
                    .is_some_and(|what| !what.contains("://"));
            if local && !line.starts_with("...") {
                facts.unlayered = Some(format!("{path} installs from a folder of the source"));
            }
        }
    }
    pyproject(view, &mut facts)?;
    pipfile(view, &mut facts)?;
    if view.has("setup.py") && !view.has("requirements.txt") {
        facts.is_package = true;
        facts.unlayered = Some("setup.py may read the whole source".to_owned());
    }
    modules_by_name(view, &mut facts)?;
    settings(view, &mut facts)?;
    Ok(Some(facts))
}

/// Notes the requirement `line`, and each of its extras as `name[extra]`.
fn depend(dependencies: &mut BTreeMap<String, String>, line: &str) {
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c))).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return;
    }
    let name = name.to_ascii_lowercase().replace(['_', '.'], "-");
    if let Some((extras, _)) = rest.trim_start().strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        for extra in extras.split(',') {
            dependencies.insert(format!("{name}[{}]", extra.trim()), String::new());
        }
    }
    dependencies.insert(name, rest.split(';').next().unwrap_or_default().trim().to_owned());
}

fn toml_file(view: &View<'_>, path: &str) -> Result<Option<toml::Table>, NothingFits> {
    let Some(text) = view.text(path)? else {
        return Ok(None);
    };
    let read = text.parse::<toml::Table>();
    read.map(Some).map_err(|bad| unclear(format!("{path} cannot be read: {}", bad.message())))
}

fn pyproject(view: &View<'_>, facts: &mut Facts) -> Result<(), NothingFits> {
    const FILE: &str = "pyproject.toml";
    let Some(table) = toml_file(view, FILE)? else {
        return Ok(());
    };
    facts.inputs.insert(FILE.to_owned());
    let project = table.get("project").and_then(toml::Value::as_table);
    let listed = project.and_then(|project| project.get("dependencies")).and_then(toml::Value::as_array);
    for line in listed.into_iter().flatten().filter_map(toml::Value::as_str) {
        depend(&mut facts.dependencies, line.trim());
        facts.requirements.push(line.trim().to_owned());
    }
    if let Some(version) =
        project.and_then(|project| project.get("requires-python")).and_then(toml::Value::as_str)
    {
        facts.versions.push((format!("requires-python of {FILE}"), version.to_owned()));
    }
    let poetry = table.get("tool").and_then(|tool| tool.get("poetry")).and_then(toml::Value::as_table);
    if let Some(poetry) = poetry {
        facts.know("poetry", "", "tool.poetry in pyproject.toml");
        for (name, version) in
            poetry.get("dependencies").and_then(toml::Value::as_table).into_iter().flatten()
        {
            let extras = version.get("extras").and_then(toml::Value::as_array).into_iter().flatten();
            let extras: Vec<&str> = extras.filter_map(toml::Value::as_str).collect();
            depend(&mut facts.dependencies, &format!("{name}[{}]", extras.join(",")));
            if name == "python"
                && let Some(version) = version.as_str()
            {
                facts
                    .versions
                    .push((format!("tool.poetry.dependencies.python of {FILE}"), version.to_owned()));
            }
        }
    }
    // A package is what says how it is built and is there to be built; scripts beside a list of dependencies are none.
    let name = project
        .or(poetry)
        .and_then(|table| table.get("name"))
        .and_then(toml::Value::as_str)
        .unwrap_or_default();
    let folder = name.to_ascii_lowercase().replace(['-', '.'], "_");
    let there = !folder.is_empty()
        && [folder.clone(), format!("src/{folder}")]
            .iter()
            .any(|folder| view.has(&format!("{folder}/__init__.py")));
    facts.is_package = there && table.contains_key("build-system");
    if facts.is_package {
        facts.know("package", "", "build-system in pyproject.toml");
    }
    let lists_elsewhere = project.and_then(|project| project.get("dynamic")).is_some();
    if !facts.requirements.is_empty() || (project.is_some() && !facts.is_package && !lists_elsewhere) {
        facts.know("requirements", "", "dependencies of pyproject.toml");
    }
    if !view.has("uv.lock") && !view.has("poetry.lock") {
        facts.requirements.retain(|line| !line.starts_with('-'));
    }
    Ok(())
}

fn pipfile(view: &View<'_>, facts: &mut Facts) -> Result<(), NothingFits> {
    let Some(table) = toml_file(view, "Pipfile")? else {
        return Ok(());
    };
    facts.inputs.insert("Pipfile".to_owned());
    for name in
        table.get("packages").and_then(toml::Value::as_table).into_iter().flatten().map(|(name, _)| name)
    {
        depend(&mut facts.dependencies, name);
    }
    for key in ["python_full_version", "python_version"] {
        let version =
            table.get("requires").and_then(|requires| requires.get(key)).and_then(toml::Value::as_str);
        facts
            .versions
            .extend(version.map(|version| (format!("requires.{key} of Pipfile"), version.to_owned())));
    }
    Ok(())
}

/// Modules that are apps by their names: Django's, and those by which servers are usually given apps.
fn modules_by_name(view: &View<'_>, facts: &mut Facts) -> Result<(), NothingFits> {
    for (name, file) in [("asgi", "asgi.py"), ("wsgi", "wsgi.py")] {
        for path in modules(view, &facts.dir).into_iter().filter(|path| path.rsplit('/').next() == Some(file))
        {
            let text = view.text(path)?.unwrap_or_default();
            let object = ["application", "app"].into_iter().find(|object| {
                text.lines().any(|line| {
                    line.strip_prefix(object).is_some_and(|rest| rest.trim_start().starts_with('='))
                        || imports(line, object)
                })
            });
            let Some(object) = object else {
                continue;
            };
            let inside = path.strip_prefix(&facts.dir).unwrap_or(path).trim_start_matches('/');
            let module = inside.trim_end_matches(".py").replace('/', ".");
            facts.know(name, format!("{module}:{object}"), path);
            break;
        }
    }
    for path in modules(view, &facts.dir) {
        let text = view.text(path)?.unwrap_or_default();
        if text.lines().any(|line| {
            line.split('#').next().unwrap_or_default().split_whitespace().eq(["server", "=", "app.server"])
        }) {
            let module = path.trim_end_matches(".py").replace('/', ".");
            facts.know("dash", format!("{module}:server"), path);
        }
    }
    Ok(())
}

fn imports(line: &str, object: &str) -> bool {
    line.starts_with("from ")
        && line.split_once(" import ").is_some_and(|(_, names)| {
            names.split(',').any(|name| name.split(" as ").last().is_some_and(|name| name.trim() == object))
        })
}

/// What Django's settings say: where static files are collected, and whether the database is a file of the source.
fn settings(view: &View<'_>, facts: &mut Facts) -> Result<(), NothingFits> {
    let is_settings = |path: &&&str| path.ends_with("/settings.py") || path.contains("/settings/");
    let files = modules(view, &facts.dir);
    let mut sqlite = None;
    let mut elsewhere = false;
    for path in files.iter().filter(is_settings) {
        let text = view.text(path)?.unwrap_or_default();
        let code = || text.lines().map(|line| line.split('#').next().unwrap_or_default());
        if code().any(|line| line.trim_start().starts_with("STATIC_ROOT")) {
            facts.know("static_root", "", format!("STATIC_ROOT in {path}"));
        }
        if code().any(|line| line.contains("django.db.backends.sqlite3")) {
            sqlite.get_or_insert(*path);
        }
        elsewhere |= ["DATABASE_URL", "dj_database_url", "env.db(", "backends.postgresql", "backends.mysql"]
            .iter()
            .any(|known| text.contains(known));
    }
    if let (Some(path), false) = (sqlite, elsewhere) {
        facts.know("sqlite_inside", "", path);
    }
    Ok(())
}
