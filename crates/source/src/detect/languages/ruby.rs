//! Ruby with Bundler.

use berth_spec::manifest::Builder;

use crate::detect::NothingFits;
use crate::detect::rule::{Framework, Language, Line, Manager, Serve};
use crate::detect::sign::Sign::{All, Any, Depends, File, Known, Not};
use crate::detect::view::{Facts, View};
use crate::recipe::Tool;

pub(in crate::detect) const RUBY: Language = Language {
    builder: Builder::Ruby,
    name: "a Ruby app",
    fits: Any(&[File("Gemfile"), File("config.ru")]),
    tool: Tool::Ruby,
    needed_to_run: true,
    programs: &["bundle", "ruby", "rails", "rake", "puma", "rackup", "bin/rails"],
    read,
    managers: &MANAGERS,
    frameworks: &FRAMEWORKS,
    env: &[("RACK_ENV", "production")],
    caches: &[],
    path: &[],
    hint: "give it a config.ru, or write `[processes]` with `web = \"bundle exec ruby FILE\"` into berth.toml",
};

const MANAGERS: [Manager; 1] = [Manager {
    name: "bundler",
    fits: File("Gemfile"),
    tool: Some(Tool::Bundler),
    lock: &["Gemfile.lock"],
    locked: "env BUNDLE_FROZEN=true bundle install",
    unlocked: "bundle install",
    reads: &["Gemfile", ".ruby-version", ".tool-versions", "*.gemspec", "vendor/cache/", ".bundle/config"],
    makes: &["vendor/bundle"],
    env: &[
        ("BUNDLE_PATH", "$ARTIFACT/vendor/bundle"),
        ("BUNDLE_WITHOUT", "development:test"),
        ("BUNDLE_GLOBAL_GEM_CACHE", "true"),
    ],
    caches: &[("BUNDLE_USER_CACHE", "bundle")],
    ..Manager::NONE
}];

const RAILS: Framework = Framework {
    build: &[Line::when(
        Any(&[Depends("sprockets-rails"), Depends("propshaft")]),
        "env SECRET_KEY_BASE_DUMMY=1 bundle exec rails assets:precompile",
    )],
    release: &[Line::when(
        All(&[Not(&Known("sqlite_inside")), File("config/database.yml")]),
        "bundle exec rails db:migrate",
    )],
    env: &[
        ("RAILS_ENV", "production"),
        ("RAILS_LOG_TO_STDOUT", "1"),
        ("RAILS_SERVE_STATIC_FILES", "1"),
        // The artifact is read-only.
        ("BOOTSNAP_READONLY", "true"),
    ],
    notes: &[
        Line::always("it needs a secret: `berth secrets set SECRET_KEY_BASE=...` or RAILS_MASTER_KEY"),
        Line::when(
            Known("sqlite_inside"),
            "the database is SQLite within the source, which is read-only here and not kept between releases; no migration runs",
        ),
    ],
    ..Framework::NONE
};

const FRAMEWORKS: [Framework; 9] = [
    Framework {
        name: "Rack without a Gemfile",
        fits: All(&[File("config.ru"), Not(&File("Gemfile"))]),
        serve: Serve::Run("puma -b tcp://127.0.0.1:$PORT -e production"),
        notes: &[Line::always("it runs by the machine's own puma and gems, since no Gemfile names others")],
        ..Framework::NONE
    },
    Framework {
        name: "Rails",
        fits: All(&[Depends("rails"), Depends("puma")]),
        serve: Serve::Run("bundle exec puma -b tcp://127.0.0.1:$PORT -e production"),
        ..RAILS
    },
    Framework {
        name: "Rails",
        fits: All(&[Depends("rails"), File("config.ru")]),
        serve: Serve::Run("bundle exec rackup --host 127.0.0.1 --port $PORT --env production"),
        ..RAILS
    },
    Framework {
        name: "Jekyll",
        fits: All(&[Depends("jekyll"), File("_config.yml")]),
        build: &[Line::always("bundle exec jekyll build")],
        serve: Serve::Site("_site"),
        env: &[("JEKYLL_ENV", "production")],
        ..Framework::NONE
    },
    Framework {
        name: "Rack with puma",
        fits: All(&[File("config.ru"), Depends("puma")]),
        serve: Serve::Run("bundle exec puma -b tcp://127.0.0.1:$PORT -e production"),
        ..Framework::NONE
    },
    Framework {
        name: "Rack with unicorn",
        fits: All(&[File("config.ru"), Depends("unicorn")]),
        serve: Serve::Run("bundle exec unicorn -l 127.0.0.1:$PORT -E production"),
        ..Framework::NONE
    },
    Framework {
        name: "Rack",
        fits: File("config.ru"),
        serve: Serve::Run("bundle exec rackup --host 127.0.0.1 --port $PORT --env production"),
        ..Framework::NONE
    },
    Framework {
        name: "Sinatra",
        fits: Depends("sinatra"),
        files: &["app.rb", "main.rb", "server.rb", "web.rb"],
        serve: Serve::Run("bundle exec ruby {file} -o 127.0.0.1 -p $PORT -e production"),
        ..Framework::NONE
    },
    Framework {
        name: "a Ruby program",
        fits: All(&[File("Gemfile"), Not(&File("package.json"))]),
        files: &["app.rb", "main.rb", "server.rb", "web.rb", "bot.rb"],
        serve: Serve::Run("bundle exec ruby {file}"),
        ..Framework::NONE
    },
];

fn read(view: &View<'_>) -> Result<Option<Facts>, NothingFits> {
    let mut facts = Facts::default();
    let gemfile = view.text("Gemfile")?.unwrap_or_default();
    for line in gemfile.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("gem ").or_else(|| line.strip_prefix("gem(")).and_then(quoted) {
            facts.dependencies.insert(name.to_owned(), String::new());
        }
        if let Some(version) =
            line.strip_prefix("ruby ").or_else(|| line.strip_prefix("ruby(")).and_then(quoted)
        {
            facts.versions.push(("the ruby line of Gemfile".to_owned(), version.to_owned()));
        }
        if line.contains("path:") || line.contains(":path") {
            facts.unlayered = Some("Gemfile takes a gem from a folder of the source".to_owned());
        }
    }
    for line in view.text("Gemfile.lock")?.unwrap_or_default().lines() {
        // The gems themselves stand four deep, what they depend on six.
        let name = line
            .strip_prefix("    ")
            .filter(|rest| !rest.starts_with(' '))
            .and_then(|rest| rest.split(' ').next());
        facts.dependencies.extend(name.map(|name| (name.to_owned(), String::new())));
    }
    let uses = |name: &str| facts.dependencies.contains_key(name);
    let database = view.text("config/database.yml")?.unwrap_or_default();
    if database.contains("sqlite3")
        && !database.contains("DATABASE_URL")
        && !uses("pg")
        && !uses("mysql2")
        && !uses("trilogy")
    {
        facts.know("sqlite_inside", "", "config/database.yml");
    }
    Ok(Some(facts))
}

/// The first quoted text at the start of `text`.
fn quoted(text: &str) -> Option<&str> {
    let text = text.trim_start();
    let mark = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    text.get(1..)?.split_once(mark).map(|(inside, _)| inside)
}
