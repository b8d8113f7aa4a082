//! Python in a virtual environment, which is a part of the artifact.

use std::collections::BTreeMap;

use berth_spec::manifest::Builder;

use crate::detect::rule::{Framework, Language, Line, Manager, Serve, Server};
use crate::detect::sign::Sign::{self, All, Any, Depends, File, Known, Not, Root};
use crate::detect::view::{Facts, View, means};
use crate::detect::{NothingFits, unclear};
use crate::recipe::Tool;

pub(in crate::detect) const PYTHON: Language = Language {
    builder: Builder::Python,
    name: "a Python app",
    fits: Any(&[
        File("requirements.txt"),
        File("pyproject.toml"),
        File("Pipfile"),
        File("setup.py"),
        File("uv.lock"),
        File("manage.py"),
        File("main.py"),
        File("app.py"),
    ]),
    tool: Tool::Python,
    needed_to_run: true,
    programs: &[
        "python",
        "python3",
        "gunicorn",
        "uvicorn",
        "hypercorn",
        "daphne",
        "waitress-serve",
        "flask",
        "celery",
        "streamlit",
        "fastapi",
    ],
    read,
    managers: &MANAGERS,
    frameworks: &FRAMEWORKS,
    env: &[
        ("PYTHONUNBUFFERED", "1"),
        ("PYTHONDONTWRITEBYTECODE", "1"),
        ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
        ("PIP_NO_INPUT", "1"),
    ],
    caches: &[("PIP_CACHE_DIR", "pip")],
    path: &[".venv/bin"],
    hint: "name its module app.py or main.py, or write `[processes]` with `web = \"gunicorn --bind 127.0.0.1:$PORT MODULE:APP\"` into berth.toml",
};

const PIP: Manager = Manager {
    name: "pip",
    add: ".venv/bin/python -m pip install",
    makes: &[".venv"],
    relocated: &[".venv"],
    project: ".venv/bin/python -m pip install .",
    ..Manager::NONE
};

const MANAGERS: [Manager; 8] = [
    Manager {
        name: "uv",
        fits: Root("uv.lock"),
        tool: Some(Tool::Uv),
        lock: &["uv.lock"],
        locked: "uv sync --frozen --no-dev --no-install-project",
        add: "uv pip install",
        project: "uv pip install --no-deps .",
        reads: &["uv.toml", ".python-version"],
        // Links into the cache would be copied when the artifact is sealed; nothing can be compiled once it is.
        env: &[("UV_LINK_MODE", "copy"), ("UV_COMPILE_BYTECODE", "1"), ("UV_PYTHON_DOWNLOADS", "never")],
        caches: &[("UV_CACHE_DIR", "uv")],
        ..PIP
    },
    Manager {
        name: "poetry",
        fits: Any(&[Root("poetry.lock"), All(&[Known("poetry"), Not(&Root("requirements.txt"))])]),
        tool: Some(Tool::Poetry),
        lock: &["poetry.lock"],
        locked: "poetry install --only main --no-root --no-interaction",
        unlocked: "poetry install --only main --no-root --no-interaction",
        add: "poetry run pip install",
        project: "poetry run pip install --no-deps .",
        reads: &["poetry.toml"],
        env: &[("POETRY_VIRTUALENVS_CREATE", "true"), ("POETRY_VIRTUALENVS_IN_PROJECT", "true")],
        caches: &[("POETRY_CACHE_DIR", "poetry")],
        ..PIP
    },
    Manager {
        name: "pipenv",
        fits: Root("Pipfile"),
        tool: Some(Tool::Pipenv),
        lock: &["Pipfile.lock"],
        locked: "pipenv sync",
        unlocked: "pipenv install --skip-lock",
        add: "pipenv run pip install",
        project: "",
        reads: &["Pipfile"],
        env: &[("PIPENV_VENV_IN_PROJECT", "1"), ("PIPENV_NOSPIN", "1"), ("PIPENV_YES", "1")],
        caches: &[("PIPENV_CACHE_DIR", "pipenv")],
        ..PIP
    },
    Manager {
        fits: Root("requirements.txt"),
        lock: &["requirements.txt"],
        locked: "python3 -m venv .venv && .venv/bin/python -m pip install -r requirements.txt",
        reads: &["*requirements*.txt", "*constraints*.txt", "requirements/", "pip.conf"],
        project: "",
        ..PIP
    },
    Manager {
        fits: Root("requirements/production.txt"),
        lock: &["requirements/production.txt"],
        locked: "python3 -m venv .venv && .venv/bin/python -m pip install -r requirements/production.txt",
        reads: &["requirements/"],
        project: "",
        ..PIP
    },
    Manager {
        fits: Known("requirements"),
        unlocked: "python3 -m venv .venv && exec .venv/bin/python -m pip install -- \"$@\"",
        ..PIP
    },
    Manager {
        fits: Any(&[Root("setup.py"), Known("package")]),
        unlocked: "python3 -m venv .venv && .venv/bin/python -m pip install .",
        project: "",
        makes: &[],
        ..PIP
    },
    Manager { unlocked: "python3 -m venv .venv", project: "", ..PIP },
];

/// The first is installed when the app brings none. gunicorn and uvicorn read WEB_CONCURRENCY themselves.
const WSGI: [Server; 5] = [
    Server {
        package: "gunicorn",
        within: &[],
        run: "gunicorn --bind 127.0.0.1:$PORT {module}",
        run_factory: "gunicorn --bind 127.0.0.1:$PORT {call}",
    },
    Server {
        package: "waitress",
        within: &[],
        run: "waitress-serve --listen=127.0.0.1:$PORT {module}",
        run_factory: "waitress-serve --listen=127.0.0.1:$PORT --call {module}",
    },
    Server {
        package: "granian",
        within: &[],
        run: "granian --interface wsgi --host 127.0.0.1 --port $PORT {module}",
        run_factory: "granian --interface wsgi --host 127.0.0.1 --port $PORT --factory {module}",
    },
    Server {
        package: "uwsgi",
        within: &[],
        run: "uwsgi --http-socket 127.0.0.1:$PORT --master --die-on-term --module {module}",
        run_factory: "uwsgi --http-socket 127.0.0.1:$PORT --master --die-on-term --module {call}",
    },
    Server {
        package: "cheroot",
        within: &[],
        run: "cheroot --bind 127.0.0.1:$PORT {module}",
        run_factory: "cheroot --bind 127.0.0.1:$PORT {call}",
    },
];

const ASGI: [Server; 4] = [
    Server {
        package: "uvicorn",
        within: &["fastapi[standard]", "fastapi[all]"],
        run: "uvicorn --host 127.0.0.1 --port $PORT {module}",
        run_factory: "uvicorn --host 127.0.0.1 --port $PORT --factory {module}",
    },
    Server {
        package: "hypercorn",
        within: &[],
        run: "hypercorn --bind 127.0.0.1:$PORT {module}",
        run_factory: "hypercorn --bind 127.0.0.1:$PORT {call}",
    },
    Server {
        package: "granian",
        within: &[],
        run: "granian --interface asgi --host 127.0.0.1 --port $PORT {module}",
        run_factory: "granian --interface asgi --host 127.0.0.1 --port $PORT --factory {module}",
    },
    Server {
        package: "daphne",
        within: &[],
        run: "daphne --bind 127.0.0.1 --port $PORT {module}",
        run_factory: "daphne --bind 127.0.0.1 --port $PORT {module}",
    },
];

/// Files by which a program that is no server of a framework starts.
const PROGRAMS: &[&str] =
    &["main.py", "app.py", "server.py", "run.py", "bot.py", "index.py", "src/main.py", "src/app.py"];
/// What is also a Node app with a start script is rather that.
const NO_NODE: Sign = Not(&File("package.json"));

const DJANGO: Framework = Framework {
    build: &[Line::when(Known("static_root"), "python manage.py collectstatic --noinput")],
    release: &[Line::when(Not(&Known("sqlite_inside")), "python manage.py migrate --noinput")],
    notes: &[Line::when(
        Known("sqlite_inside"),
        "the database is SQLite within the source, which is read-only here and not kept between releases; no migration runs",
    )],
    ..Framework::NONE
};

const FRAMEWORKS: [Framework; 17] = [
    Framework {
        name: "Django, ASGI",
        fits: All(&[
            Depends("django"),
            Known("asgi"),
            File("manage.py"),
            Any(&[Depends("uvicorn"), Depends("daphne"), Depends("hypercorn"), Depends("channels")]),
        ]),
        module: "asgi",
        serve: Serve::Servers(&ASGI),
        ..DJANGO
    },
    Framework {
        name: "Django",
        fits: All(&[Depends("django"), Known("wsgi"), File("manage.py")]),
        module: "wsgi",
        serve: Serve::Servers(&WSGI),
        ..DJANGO
    },
    Framework {
        name: "Streamlit",
        fits: Depends("streamlit"),
        files: &["streamlit_app.py", "app.py", "main.py", "Home.py", "src/streamlit_app.py", "src/app.py"],
        serve: Serve::Run(
            "streamlit run {file} --server.port $PORT --server.address 127.0.0.1 --server.headless true --browser.gatherUsageStats false",
        ),
        ..Framework::NONE
    },
    Framework {
        name: "Chainlit",
        fits: Depends("chainlit"),
        files: &["app.py", "main.py"],
        serve: Serve::Run("chainlit run {file} --headless --host 127.0.0.1 --port $PORT"),
        ..Framework::NONE
    },
    Framework {
        name: "FastAPI",
        fits: Depends("fastapi"),
        object: "FastAPI",
        serve: Serve::Servers(&ASGI),
        ..Framework::NONE
    },
    Framework {
        name: "Starlette",
        fits: Depends("starlette"),
        object: "Starlette",
        serve: Serve::Servers(&ASGI),
        ..Framework::NONE
    },
    Framework {
        name: "Litestar",
        fits: Depends("litestar"),
        object: "Litestar",
        serve: Serve::Servers(&ASGI),
        ..Framework::NONE
    },
    Framework {
        name: "Quart",
        fits: Depends("quart"),
        object: "Quart",
        serve: Serve::Servers(&ASGI),
        ..Framework::NONE
    },
    Framework {
        name: "Flask",
        fits: Depends("flask"),
        object: "Flask",
        serve: Serve::Servers(&WSGI),
        ..Framework::NONE
    },
    Framework {
        name: "Dash",
        fits: All(&[Depends("dash"), Known("dash")]),
        module: "dash",
        serve: Serve::Servers(&WSGI),
        ..Framework::NONE
    },
    Framework {
        name: "Falcon",
        fits: Depends("falcon"),
        object: "falcon.App",
        serve: Serve::Servers(&WSGI),
        ..Framework::NONE
    },
    Framework {
        name: "Bottle",
        fits: Depends("bottle"),
        object: "Bottle",
        serve: Serve::Servers(&WSGI),
        ..Framework::NONE
    },
    Framework {
        name: "Gradio",
        fits: Depends("gradio"),
        files: &["app.py", "main.py", "demo.py", "run.py", "src/app.py"],
        serve: Serve::Run("env GRADIO_SERVER_PORT=$PORT python {file}"),
        env: &[("GRADIO_SERVER_NAME", "127.0.0.1"), ("GRADIO_ANALYTICS_ENABLED", "False")],
        ..Framework::NONE
    },
    Framework {
        name: "an ASGI module",
        fits: Known("asgi"),
        module: "asgi",
        serve: Serve::Servers(&ASGI),
        ..Framework::NONE
    },
    Framework {
        name: "a WSGI module",
        fits: Known("wsgi"),
        module: "wsgi",
        serve: Serve::Servers(&WSGI),
        ..Framework::NONE
    },
    Framework {
        name: "MkDocs",
        fits: All(&[Depends("mkdocs"), File("mkdocs.yml")]),
        build: &[Line::always("mkdocs build")],
        serve: Serve::Site("site"),
        ..Framework::NONE
    },
    Framework {
        name: "a Python program",
        fits: NO_NODE,
        files: PROGRAMS,
        serve: Serve::Run("python {file}"),
        ..Framework::NONE
    },
];

/// The most Python files that are read.
const READ_MAX: usize = 80;
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
fn modules<'a>(view: &View<'a>, dir: &str) -> Vec<&'a str> {
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

fn read(view: &View<'_>) -> Result<Option<Facts>, NothingFits> {
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
