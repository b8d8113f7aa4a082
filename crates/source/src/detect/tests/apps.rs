//! What is said of small apps of every kind, compared with a recorded text that is read at every change.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::*;
use crate::recipe::Step;

/// An app: its name, its files, its berth.toml, its Procfile. In a path `*` at the end means executable.
struct App {
    name: &'static str,
    files: &'static [(&'static str, &'static str)],
    toml: &'static str,
    procfile: Option<&'static str>,
}

const fn app(name: &'static str, files: &'static [(&'static str, &'static str)]) -> App {
    App { name, files, toml: "", procfile: None }
}

const NODE: &[App] = &[
    app(
        "express with npm",
        &[
            (
                "package.json",
                r#"{"main":"index.js","scripts":{"start":"node index.js"},"dependencies":{"express":"^4"},"engines":{"node":">=18"}}"#,
            ),
            ("package-lock.json", "{}"),
            ("index.js", ""),
            (".npmrc", ""),
        ],
    ),
    app("a lone server.js", &[("package.json", r#"{"dependencies":{"fastify":"^5"}}"#), ("server.js", "")]),
    app("a main without dependencies", &[("package.json", r#"{"main":"./lib/app"}"#), ("lib/app.js", "")]),
    app(
        "start with hooks around it",
        &[(
            "package.json",
            r#"{"scripts":{"prestart":"node check.js","start":"node a.js","build":"tsc"},"dependencies":{"a":"1"}}"#,
        )],
    ),
    app(
        "vite with pnpm",
        &[
            (
                "package.json",
                r#"{"packageManager":"pnpm@9.1.0+sha256.abc","scripts":{"dev":"vite","build":"tsc -b && vite build","preview":"vite preview"},"devDependencies":{"vite":"^7.0.0"}}"#,
            ),
            ("pnpm-lock.yaml", ""),
            ("package-lock.json", ""),
            ("index.html", ""),
            (".nvmrc", "v20.11.0\n"),
        ],
    ),
    app(
        "a server that serves what vite built",
        &[
            (
                "package.json",
                r#"{"scripts":{"start":"NODE_ENV=production node server.js","build":"vite build"},"dependencies":{"express":"5","vite":"7"}}"#,
            ),
            ("yarn.lock", "# yarn lockfile v1\n"),
            ("index.html", ""),
        ],
    ),
    app(
        "vite whose start is its own server",
        &[
            (
                "package.json",
                r#"{"scripts":{"start":"npm run dev","dev":"vite --port 3000","build":"vite build"},"dependencies":{"vite":"7"}}"#,
            ),
            ("yarn.lock", "__metadata:\n  version: 8\n"),
            ("index.html", ""),
        ],
    ),
    app(
        "next",
        &[
            (
                "package.json",
                r#"{"scripts":{"dev":"next dev","build":"next build","start":"next start"},"dependencies":{"next":"15.0.0","react":"19"}}"#,
            ),
            ("package-lock.json", "{}"),
            ("next.config.ts", "export default {};"),
        ],
    ),
    app(
        "next as an export",
        &[
            (
                "package.json",
                r#"{"scripts":{"build":"next build","start":"next start"},"dependencies":{"next":"15"}}"#,
            ),
            ("bun.lock", ""),
            ("next.config.mjs", "const c = {\n  output: \"export\",\n};\nexport default c;"),
        ],
    ),
    app(
        "next standalone",
        &[
            (
                "package.json",
                r#"{"scripts":{"build":"next build","start":"next start"},"dependencies":{"next":"15"}}"#,
            ),
            ("package-lock.json", "{}"),
            ("next.config.js", "module.exports = { output: 'standalone' }"),
            ("public/a.svg", ""),
        ],
    ),
    app(
        "sveltekit with adapter-auto",
        &[(
            "package.json",
            r#"{"scripts":{"build":"vite build","prepare":"svelte-kit sync"},"devDependencies":{"@sveltejs/kit":"2","@sveltejs/adapter-auto":"6","vite":"7"}}"#,
        )],
    ),
    app(
        "sveltekit with adapter-node",
        &[(
            "package.json",
            r#"{"scripts":{"build":"vite build","prepare":"svelte-kit sync"},"devDependencies":{"@sveltejs/kit":"2","@sveltejs/adapter-node":"5","vite":"7"}}"#,
        )],
    ),
    app(
        "astro",
        &[(
            "package.json",
            r#"{"scripts":{"dev":"astro dev","start":"astro dev","build":"astro build"},"dependencies":{"astro":"5"}}"#,
        )],
    ),
    app(
        "astro with node",
        &[(
            "package.json",
            r#"{"scripts":{"build":"astro build"},"dependencies":{"astro":"5","@astrojs/node":"9"}}"#,
        )],
    ),
    app(
        "nuxt",
        &[(
            "package.json",
            r#"{"scripts":{"build":"nuxt build","postinstall":"nuxt prepare"},"dependencies":{"nuxt":"^4.0.0"}}"#,
        )],
    ),
    app(
        "angular",
        &[
            (
                "package.json",
                r#"{"scripts":{"ng":"ng","start":"ng serve","build":"ng build"},"dependencies":{"@angular/core":"20"}}"#,
            ),
            (
                "angular.json",
                r#"{"projects":{"demo":{"projectType":"application","architect":{"build":{"builder":"@angular/build:application","options":{}}}}}}"#,
            ),
        ],
    ),
    app(
        "create react app without a build script",
        &[(
            "package.json",
            r#"{"scripts":{"start":"react-scripts start"},"dependencies":{"react-scripts":"5"}}"#,
        )],
    ),
    app(
        "nest",
        &[(
            "package.json",
            r#"{"scripts":{"build":"nest build","start":"nest start","start:prod":"node dist/main"},"dependencies":{"@nestjs/core":"11"}}"#,
        )],
    ),
    app(
        "a workspace with one app",
        &[
            (
                "package.json",
                r#"{"workspaces":["apps/*","packages/*"],"scripts":{"build":"turbo run build"}}"#,
            ),
            ("package-lock.json", "{}"),
            (
                "apps/web/package.json",
                r#"{"name":"web","scripts":{"start":"node -r dotenv/config server.js && exit"},"dependencies":{"ui":"*"}}"#,
            ),
            ("packages/ui/package.json", r#"{"name":"ui","scripts":{"build":"tsc"}}"#),
        ],
    ),
    app(
        "a pnpm workspace with the app by name",
        &[
            ("package.json", r#"{"private":true}"#),
            ("pnpm-workspace.yaml", "packages:\n  - 'apps/*'\n  - packages/** # all\n"),
            ("pnpm-lock.yaml", ""),
            (
                "apps/api/package.json",
                r#"{"name":"@acme/api","scripts":{"start":"node a.js"},"dependencies":{"x":"1"}}"#,
            ),
            (
                "apps/shop/package.json",
                r#"{"name":"@acme/shop","scripts":{"build":"next build"},"dependencies":{"next":"15"}}"#,
            ),
        ],
    ),
    app(
        "a workspace in which it is unclear",
        &[
            ("package.json", r#"{"workspaces":{"packages":["apps/*"]}}"#),
            ("apps/api/package.json", r#"{"scripts":{"start":"node a.js"}}"#),
            ("apps/web/package.json", r#"{"scripts":{"start":"node b.js"}}"#),
        ],
    ),
    app("a library", &[("package.json", r#"{"scripts":{"build":"tsc"}}"#)]),
    app(
        "a page beside a package.json of tools",
        &[("package.json", r#"{"devDependencies":{"prettier":"3"}}"#), ("index.html", "")],
    ),
    App {
        name: "a build of one's own with its output",
        files: &[
            ("package.json", r#"{"scripts":{"build":"x"},"dependencies":{"x":"1"}}"#),
            ("package-lock.json", "{}"),
        ],
        toml: "[build]\ncommand = \"npm run docs\"\noutput = \"site\"",
        procfile: None,
    },
    App {
        name: "a Procfile over a site",
        files: &[
            ("package.json", r#"{"scripts":{"build":"vite build"},"dependencies":{"vite":"7"}}"#),
            ("index.html", ""),
        ],
        toml: "",
        procfile: Some("web: node serve.js\nworker: node w.js\nrelease: node migrate.js"),
    },
    app("a broken package.json", &[("package.json", "{")]),
];

const PYTHON: &[App] = &[
    app(
        "flask with gunicorn",
        &[
            ("requirements.txt", "Flask==3.0\ngunicorn>=22 # the server\n-r more-requirements.txt\n"),
            ("more-requirements.txt", "redis\n"),
            ("app.py", "from flask import Flask\napp = Flask(__name__)\n"),
            (".python-version", "3.12\n"),
        ],
    ),
    app(
        "flask without a server",
        &[
            ("requirements.txt", "flask\n"),
            ("shop/__init__.py", "def create_app():\n    app = Flask(__name__)\n    return app\n"),
        ],
    ),
    app(
        "fastapi with uv",
        &[
            (
                "pyproject.toml",
                "[project]\nname = \"demo\"\nrequires-python = \">=3.11\"\ndependencies = [\"fastapi[standard]>=0.115\"]\n",
            ),
            ("uv.lock", ""),
            ("app/__init__.py", ""),
            ("app/main.py", "from fastapi import FastAPI\n\napp: FastAPI = FastAPI()\n"),
        ],
    ),
    app(
        "fastapi in src with pip",
        &[
            ("requirements.txt", "fastapi\nuvicorn[standard]\n"),
            ("src/main.py", "import fastapi\napi = fastapi.FastAPI()\n"),
        ],
    ),
    app(
        "starlette with a bare pyproject",
        &[
            (
                "pyproject.toml",
                "[project]\nname = \"x\"\ndependencies = [\"starlette>=0.4; python_version>'3'\", \"--evil\"]\n",
            ),
            ("main.py", "app = Starlette(routes=[])\n"),
        ],
    ),
    app(
        "a package with poetry",
        &[
            (
                "pyproject.toml",
                "[tool.poetry]\nname = \"my-shop\"\n[tool.poetry.dependencies]\npython = \"^3.11\"\nquart = {version = \"*\", extras = [\"dotenv\"]}\nhypercorn = \"*\"\n[build-system]\nrequires = []\n",
            ),
            ("poetry.lock", ""),
            ("src/my_shop/__init__.py", ""),
            ("src/my_shop/app.py", "app = Quart(__name__)\n"),
        ],
    ),
    app(
        "django with pipenv",
        &[
            (
                "Pipfile",
                "[packages]\ndjango = \"*\"\ngunicorn = \"*\"\ndj-database-url = \"*\"\n[requires]\npython_version = \"3.11\"\n",
            ),
            ("Pipfile.lock", "{}"),
            ("manage.py", ""),
            (
                "mysite/settings.py",
                "STATIC_ROOT = BASE_DIR / 'static'\nDATABASES = {'default': dj_database_url.config()}\n",
            ),
            ("mysite/wsgi.py", "application = get_wsgi_application()\n"),
            ("mysite/asgi.py", "application = get_asgi_application()\n"),
        ],
    ),
    app(
        "django as startproject writes it",
        &[
            ("requirements.txt", "django\n"),
            ("backend/manage.py", ""),
            ("backend/mysite/__init__.py", ""),
            ("backend/mysite/settings.py", "DATABASES = {\n 'ENGINE': 'django.db.backends.sqlite3',\n}\n"),
            ("backend/mysite/wsgi.py", "application = get_wsgi_application()\n"),
        ],
    ),
    app("streamlit", &[("requirements.txt", "streamlit\n"), ("streamlit_app.py", "")]),
    app("gradio", &[("requirements.txt", "gradio\n"), ("app.py", "demo.launch()\n")]),
    app("a plain program", &[("main.py", "print(1)\n")]),
    app("a list of requirements alone", &[("requirements.txt", "requests\n-e ./lib\n")]),
    app(
        "django with browser files",
        &[
            ("requirements.txt", "django\ngunicorn\nuvicorn\n"),
            ("manage.py", ""),
            ("a/settings.py", "STATIC_ROOT = 'x'\nDATABASE_URL\n"),
            ("a/asgi.py", "application = get_asgi_application()\n"),
            ("package.json", r#"{"scripts":{"build":"tailwindcss"},"devDependencies":{"tailwindcss":"4"}}"#),
            ("package-lock.json", "{}"),
        ],
    ),
    App {
        name: "a Procfile over flask",
        files: &[("requirements.txt", "flask\n"), ("app.py", "app = Flask()\n")],
        toml: "",
        procfile: Some("web: flask run -p $PORT"),
    },
];

const OTHERS: &[App] = &[
    app(
        "a rust workspace with a program like the app",
        &[
            ("Cargo.toml", "[workspace]\nmembers = [\"crates/*\"]\nexclude = [\"crates/old\"]\n"),
            ("crates/shop/Cargo.toml", "[package]\nname = \"shop\"\n"),
            ("crates/shop/src/main.rs", ""),
            ("crates/worker/Cargo.toml", "[package]\nname = \"worker\"\n"),
            ("crates/worker/src/main.rs", ""),
            ("crates/old/Cargo.toml", "[package]\nname = \"old\"\n"),
            ("crates/old/src/main.rs", ""),
            ("rust-toolchain.toml", "[toolchain]\nchannel = \"1.90\"\n"),
        ],
    ),
    app(
        "a rust workspace whose members are no app",
        &[
            ("Cargo.toml", "[workspace]\nmembers = [\"a\", \"b\"]\n"),
            ("a/Cargo.toml", "[package]\nname = \"a\"\n"),
            ("a/src/main.rs", ""),
            ("b/Cargo.toml", "[package]\nname = \"b\"\n"),
            ("b/src/main.rs", ""),
        ],
    ),
    app(
        "go at the root",
        &[
            ("go.mod", "module example.com/x/hello/v2\n\ngo 1.22\n"),
            ("main.go", "package main\n"),
            ("main_test.go", "package main\n"),
        ],
    ),
    app(
        "go below cmd",
        &[
            ("go.mod", "module \"example.com/x\"\n"),
            ("x.go", "package x\n"),
            ("cmd/server/main.go", "// x\npackage main\n"),
            ("cmd/tool/main.go", "package main\n"),
        ],
    ),
    app(
        "go below cmd, unclear",
        &[("go.mod", "module x\n"), ("cmd/a/main.go", "package main\n"), ("cmd/b/main.go", "package main\n")],
    ),
    app(
        "rails",
        &[
            (
                "Gemfile",
                "source 'https://rubygems.org'\nruby \"3.2.2\"\ngem 'rails', '~> 8.0'\ngem \"puma\"\ngem \"pg\"\ngem \"propshaft\"\n",
            ),
            ("Gemfile.lock", "GEM\n  specs:\n    rack (3.0)\n      x (1)\n"),
            ("config.ru", ""),
            ("config/database.yml", "production:\n  url: x\n"),
        ],
    ),
    app("sinatra", &[("Gemfile", "gem 'sinatra'\n"), ("app.rb", "")]),
    app("rack", &[("Gemfile", "gem 'rackup'\ngem 'x', path: 'lib'\n"), ("config.ru", "")]),
    app("plain php", &[("index.php", "")]),
    app(
        "laravel with vite",
        &[
            ("composer.json", r#"{"require":{"php":"^8.2","laravel/framework":"^12.0"}}"#),
            ("composer.lock", "{}"),
            ("artisan", ""),
            ("public/index.php", ""),
            ("config/database.php", "'default' => env('DB_CONNECTION', 'sqlite'),"),
            (
                "package.json",
                r#"{"scripts":{"build":"vite build"},"devDependencies":{"vite":"7","laravel-vite-plugin":"2"}}"#,
            ),
        ],
    ),
    app(
        "symfony",
        &[
            (
                "composer.json",
                r#"{"require":{"symfony/framework-bundle":"7.*"},"repositories":[{"type":"path","url":"x"}]}"#,
            ),
            ("public/index.php", ""),
            ("bin/console", ""),
        ],
    ),
    app(
        "spring with maven",
        &[
            (
                "pom.xml",
                "<project><properties><java.version>17</java.version></properties>org.springframework.boot</project>",
            ),
            ("mvnw*", ""),
        ],
    ),
    app("spring with gradle", &[("build.gradle.kts", "id(\"org.springframework.boot\")"), ("gradlew", "")]),
    app(
        "a gradle application",
        &[
            ("build.gradle", ""),
            ("settings.gradle", "rootProject.name = 'my app'\n"),
            ("system.properties", "java.runtime.version=21\n"),
        ],
    ),
    app(
        "a java source",
        &[("Main.java", "package a.b;\nclass Main { public static void main(String[] a) {} }")],
    ),
    app(
        "deno with a task",
        &[
            ("deno.jsonc", "{\n // tasks\n \"tasks\": {\"start\": \"deno run -A main.ts\", /* x */ },\n}"),
            ("deno.lock", "{}"),
            ("main.ts", ""),
        ],
    ),
    app("deno serve", &[("main.ts", "export default { fetch(r) {} }")]),
    app(
        "asp.net",
        &[
            ("Shop.sln", ""),
            (
                "src/Shop Web/Shop Web.csproj",
                "<Project Sdk=\"Microsoft.NET.Sdk.Web\"><TargetFramework>net8.0</TargetFramework></Project>",
            ),
            ("src/Lib/Lib.csproj", "<Project Sdk=\"Microsoft.NET.Sdk\"/>"),
            ("global.json", r#"{"sdk":{"version":"8.0.100"}}"#),
        ],
    ),
    app(
        "phoenix",
        &[
            (
                "mix.exs",
                "defmodule Hello.MixProject do\n app: :hello,\n elixir: \"~> 1.14\",\n \"assets.deploy\": []\n  defp deps do\n  [{:phoenix, \"~> 1.7\"}, # {:x, \"1\"}\n  ]\n  end\n",
            ),
            ("mix.lock", ""),
            ("lib/hello/release.ex", ""),
        ],
    ),
    app(
        "elixir without dependencies",
        &[("mix.exs", "app: :hello\n  defp deps do\n    [\n      # {:x, \"~> 1\"}\n    ]\n  end\n")],
    ),
    app("rack by the machine's puma", &[("config.ru", "run app\n")]),
    App {
        name: "a Procfile alone",
        files: &[("web.py", ""), (".python-version", "3.11\n")],
        toml: "",
        procfile: Some("web: python3 web.py\nother: ./x"),
    },
    app("a makefile", &[("Makefile", "X := a:b\nall: x\nbuild run: x\n\tcc x.c\n"), ("x.c", "")]),
    app("a makefile without a way to run", &[("Makefile", "all:\n\tcc x.c\n")]),
    app("a start script", &[("start.sh", "#!/usr/bin/env bash\n")]),
    app("an executable start script", &[("bin/start*", "#!/bin/sh\n")]),
    app("a dockerfile alone", &[("Dockerfile", "FROM x\n")]),
    app("a dockerfile beside a site", &[("Dockerfile", "FROM x\n"), ("index.html", "")]),
    App {
        name: "a Procfile in the language of one of two",
        files: &[("package.json", r#"{"dependencies":{"x":"1"}}"#), ("requirements.txt", "x\n")],
        toml: "",
        procfile: Some("web: node a.js"),
    },
    App {
        name: "a builder by name",
        files: &[("package.json", r#"{"scripts":{"start":"node a.js"}}"#), ("main.py", "")],
        toml: "[build]\nbuilder = \"python\"",
        procfile: None,
    },
    App {
        name: "a builder by name that does not fit",
        files: &[("main.py", "")],
        toml: "[build]\nbuilder = \"go\"",
        procfile: None,
    },
];

fn told(case: &App) -> String {
    let files: Vec<(&str, &[u8])> = case.files.iter().map(|(path, text)| (*path, text.as_bytes())).collect();
    let manifest = manifest(case.toml, case.procfile).unwrap();
    let mut text = format!("# {}\n", case.name);
    let found = match detect(&table(&files), &manifest, &"shop".parse().unwrap()) {
        Ok(found) => found,
        Err(problem) => return format!("{text}  {problem}\n"),
    };
    for why in &found.why {
        writeln!(text, "  {why}").unwrap();
    }
    let recipe = &found.recipe;
    let tools: Vec<String> = recipe
        .tools
        .iter()
        .map(|need| {
            let wanted = need.wanted.as_ref().map_or(String::new(), |wanted| format!(" {}", wanted.version));
            format!("{:?}{wanted}{}", need.tool, if need.at_run { " to run" } else { "" })
        })
        .collect();
    writeln!(text, "  -> {} [{}]", found.builder.name(), tools.join(", ")).unwrap();
    for Step { does, command, env, layer } in &recipe.steps {
        writeln!(text, "  step: {does}: {command} {env:?}").unwrap();
        if let Some(layer) = layer {
            writeln!(text, "    layer: {:?} of {:?}", layer.makes, layer.inputs).unwrap();
        }
    }
    for (name, command) in &found.processes {
        writeln!(text, "  {name}: {command}").unwrap();
    }
    if let Some(command) = &found.release_command {
        writeln!(text, "  release: {command}").unwrap();
    }
    if let Some(output) = &recipe.output {
        writeln!(text, "  output: {output}").unwrap();
    }
    writeln!(text, "  env: {:?} path: {:?}", recipe.env.keys().collect::<Vec<_>>(), recipe.path).unwrap();
    writeln!(text, "  caches: {:?} kept: {:?} relocated: {:?}", recipe.caches, recipe.kept, recipe.relocated)
        .unwrap();
    text
}

pub(super) fn repository_file(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(path)
}

pub(super) fn check_golden(path: &str, text: &str) {
    let path = repository_file(path);
    if std::env::var_os("BERTH_UPDATE_GOLDENS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let recorded = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(recorded == text, "{} differs; run the tests with BERTH_UPDATE_GOLDENS=1", path.display());
}

#[test]
fn what_is_said_of_every_kind_of_app_is_its_golden() {
    let text: Vec<String> = [NODE, PYTHON, OTHERS].into_iter().flatten().map(told).collect();
    check_golden("contracts/detection.txt", &text.join("\n"));
}

#[test]
fn every_builder_has_a_rule() {
    for (name, builder) in Builder::NAMED {
        let known = matches!(builder, Builder::Cargo | Builder::Copy | Builder::Static)
            || languages::LANGUAGES.iter().any(|language| language.builder == builder);
        assert!(known, "{name}");
    }
}

#[test]
fn no_line_with_a_value_in_it_needs_a_shell() {
    let mut lines: Vec<&str> = Vec::new();
    for language in languages::LANGUAGES {
        for manager in language.managers {
            lines.extend([
                manager.locked,
                manager.unlocked,
                manager.project,
                manager.script,
                manager.script_below,
            ]);
        }
        for framework in language.frameworks {
            lines.extend(
                framework.build.iter().chain(framework.finish).chain(framework.release).map(|line| line.text),
            );
            match &framework.serve {
                rule::Serve::Run(line) => lines.push(line),
                rule::Serve::Servers(servers) => {
                    lines.extend(servers.iter().flat_map(|server| [server.run, server.run_factory]))
                }
                _ => {}
            }
        }
    }
    for line in lines.into_iter().filter(|line| !line.is_empty()) {
        let command = Command::parse(&line.replace(['{', '}'], "")).unwrap();
        assert!(!line.contains('{') || matches!(command, Command::Line(_)), "{line}");
    }
}

#[test]
fn the_page_has_the_rules_golden() {
    const MARKS: (&str, &str) =
        ("<!-- The rules, written from the code. -->\n", "<!-- The end of the rules. -->\n");
    let page = std::fs::read_to_string(repository_file("docs/detection.md")).unwrap();
    let (before, rest) = page.split_once(MARKS.0).unwrap();
    let (_, after) = rest.split_once(MARKS.1).unwrap();
    let text = format!("{before}{}\n{}\n{}{after}", MARKS.0, super::super::document::tables(), MARKS.1);
    check_golden("docs/detection.md", &text);
}
