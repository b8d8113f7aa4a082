//! The object in a Python file that is the app, and the name of the module that it is in.

use crate::detect::NothingFits;
use crate::detect::view::{Facts, View};

/// The most Python files that are read.
pub(super) const READ_MAX: usize = 80;
/// Folders in which no app is looked for.
const NO_APP: [&str; 8] =
    ["tests", "test", "docs", "examples", "migrations", "node_modules", "scripts", "venv"];
/// File names by which apps usually go, the likeliest first.
const LIKELY: [&str; 11] = [
    "main.py",
    "app.py",
    "server.py",
    "api.py",
    "asgi.py",
    "wsgi.py",
    "application.py",
    "run.py",
    "web.py",
    "index.py",
    "__init__.py",
];

/// An object that is an app, or a function that makes one.
pub(in crate::detect) struct Object {
    module: String,
    name: String,
    is_function: bool,
    /// The folder that its module's name starts from, when that is not the root.
    base: String,
    pub(in crate::detect) seen: String,
}

impl Object {
    /// Makes it known for the lines of servers.
    pub(in crate::detect) fn tell(&self, facts: &mut Facts) {
        let Self { module, name, is_function, base, seen } = self;
        facts.know("module", format!("{module}:{name}"), seen);
        if *is_function {
            facts.know("call", format!("{module}:{name}()"), seen);
        }
        if !base.is_empty() {
            facts.know("python_path", base, seen);
        }
    }
}

/// The app that calls the class `class`, by which a framework is known: `app = Flask(...)`.
pub(in crate::detect) fn object(
    view: &View<'_>,
    facts: &Facts,
    class: &str,
) -> Result<Option<Object>, NothingFits> {
    let mut function = None;
    for path in modules(view, &facts.dir) {
        let text = view.text(path)?.unwrap_or_default();
        if !text.contains(class) {
            continue;
        }
        if let Some(name) = text.lines().find_map(|line| assigned(line, class)) {
            return Ok(Some(in_file(view, path, name, false, format!("`{name} = {class}(...)` in {path}"))));
        }
        let makes = |name: &&&str| {
            text.contains(&format!("\ndef {name}(")) || text.starts_with(&format!("def {name}("))
        };
        if let (None, Some(name)) = (&function, ["create_app", "make_app", "get_app"].iter().find(makes)) {
            function = Some(in_file(view, path, name, true, format!("`def {name}` in {path}")));
        }
    }
    Ok(function)
}

/// The Python files in which an app may be, the likeliest first.
pub(super) fn modules<'a>(view: &View<'a>, dir: &str) -> Vec<&'a str> {
    let fits = |path: &&str| {
        let below = path.strip_prefix(dir).unwrap_or(path).trim_start_matches('/');
        path.starts_with(dir)
            && below.split('/').count() <= 4
            && !below.split('/').any(|name| NO_APP.contains(&name) || name.starts_with('.'))
    };
    let mut found: Vec<&str> = view.paths().filter(|path| path.ends_with(".py")).filter(fits).collect();
    let rank = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or(path);
        let likely = LIKELY.iter().position(|known| *known == name).unwrap_or(LIKELY.len());
        (likely == LIKELY.len(), path.matches('/').count(), likely)
    };
    found.sort_by_key(|path| rank(path));
    found.truncate(READ_MAX);
    found
}

/// The name to which a line at the top level of a file assigns what `class` makes.
fn assigned<'l>(line: &'l str, class: &str) -> Option<&'l str> {
    let (target, value) = line.split_once('=')?;
    let name = target.split(':').next()?.trim_end();
    let is_name = !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    let called = value.trim_start().split('(').next()?.trim_end();
    let makes = called == class || called.strip_suffix(class).is_some_and(|before| before.ends_with('.'));
    (is_name && makes && value.contains('(')).then_some(name)
}

/// The object `name` of the file at `path`. A module's name starts below the deepest folder that is no package, as an import finds it.
fn in_file(view: &View<'_>, path: &str, name: &str, is_function: bool, seen: String) -> Object {
    let stem = path.strip_suffix(".py").unwrap_or(path);
    let mut names: Vec<&str> = stem.split('/').collect();
    let mut base = names.len() - 1;
    while base > 0
        && view
            .has(&format!("{}/__init__.py", names.iter().take(base).copied().collect::<Vec<_>>().join("/")))
    {
        base -= 1;
    }
    let module = names.split_off(base);
    let module = match module.as_slice() {
        [package @ .., "__init__"] if !package.is_empty() => package.join("."),
        whole => whole.join("."),
    };
    Object { module, name: name.to_owned(), is_function, base: names.join("/"), seen }
}
