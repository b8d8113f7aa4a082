//! Python in a virtual environment, which is a part of the artifact.

mod object;
mod read;

use berth_spec::manifest::Builder;

use crate::detect::rule::{Framework, Language, Line, Manager, Serve, Server};
use crate::detect::sign::Sign::{self, All, Any, Depends, File, Known, Not, Root};
use crate::recipe::Tool;

pub(in crate::detect) use self::object::object;

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
    read: read::read,
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
    install_env: &[("PIP_PROGRESS_BAR", "off")],
    ..Manager::NONE
};

/// The environment is made first: poetry would make one of copies, and where its Python is a mirror not find what to copy.
const POETRY: &str = "python3 -m venv .venv && poetry install --only main --no-root --no-interaction";

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
        locked: POETRY,
        unlocked: POETRY,
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
