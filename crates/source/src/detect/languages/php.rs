//! PHP, with Composer where there is a composer.json.

use berth_spec::manifest::Builder;
use serde_json::Value as Json;

use crate::detect::rule::{Framework, Language, Line, Manager, Serve};
use crate::detect::sign::Sign::{self, All, Any, Depends, File, Not, Root};
use crate::detect::view::{Facts, View};
use crate::detect::{NothingFits, unclear};
use crate::recipe::Tool;

pub(in crate::detect) const PHP: Language = Language {
    builder: Builder::Php,
    name: "a PHP app",
    fits: Any(&[File("composer.json"), File("index.php"), File("public/index.php")]),
    tool: Tool::Php,
    needed_to_run: true,
    programs: &["php", "composer", "frankenphp", "vendor/bin/heroku-php-apache2", "heroku-php-apache2"],
    read,
    managers: &MANAGERS,
    frameworks: &FRAMEWORKS,
    // PHP's own server answers one request at a time unless it is given workers.
    env: &[("PHP_CLI_SERVER_WORKERS", "4")],
    caches: &[],
    path: &["vendor/bin"],
    hint: "put an index.php at the root or in public/, or write `[processes]` with `web = \"php -S 127.0.0.1:$PORT -t DIR\"` into berth.toml",
};

const MANAGERS: [Manager; 1] = [Manager {
    name: "composer",
    fits: Root("composer.json"),
    tool: Some(Tool::Composer),
    lock: &["composer.lock"],
    // What is loaded from where depends on the app's own files, and its scripts on all of them: both come after the layer.
    locked: "composer install --no-dev --no-interaction --no-progress --prefer-dist --no-scripts --no-autoloader",
    unlocked: "composer update --no-dev --no-interaction --no-progress --prefer-dist --no-scripts --no-autoloader",
    project: "composer install --no-dev --no-interaction --no-progress --prefer-dist --optimize-autoloader",
    reads: &["composer.json", "auth.json"],
    makes: &["vendor"],
    caches: &[("COMPOSER_CACHE_DIR", "composer")],
    ..Manager::NONE
}];

const OWN_SERVER: &[Line] = &[Line::always(
    "it is served by PHP's own server with 4 workers, which suits a small site; `[processes]` can name another one, like frankenphp",
)];

const FRAMEWORKS: [Framework; 5] = [
    Framework {
        name: "Laravel",
        fits: All(&[Depends("laravel/framework"), File("artisan")]),
        serve: Serve::Run("env VIEW_COMPILED_PATH=$TMPDIR php -S 127.0.0.1:$PORT -t public"),
        release: &[Line::when(Not(&SQLITE), "php artisan migrate --force")],
        env: &[("APP_ENV", "production"), ("LOG_CHANNEL", "stderr"), ("PHP_CLI_SERVER_WORKERS", "4")],
        notes: &[
            Line::always(
                "it needs a secret: `berth secrets set APP_KEY=...`, and SESSION_DRIVER and CACHE_STORE that keep nothing in files",
            ),
            Line::when(
                SQLITE,
                "the database is SQLite unless DB_CONNECTION says otherwise; in the source it is read-only and not kept, so no migration runs",
            ),
        ],
        ..Framework::NONE
    },
    Framework {
        name: "Symfony",
        fits: All(&[Depends("symfony/framework-bundle"), File("public/index.php")]),
        finish: &[Line::when(File("bin/console"), "php bin/console cache:warmup --no-interaction")],
        serve: Serve::Run("php -S 127.0.0.1:$PORT -t public"),
        env: &[("APP_ENV", "prod"), ("APP_DEBUG", "0")],
        notes: OWN_SERVER,
        ..Framework::NONE
    },
    Framework {
        name: "PHP in public",
        fits: File("public/index.php"),
        serve: Serve::Run("php -S 127.0.0.1:$PORT -t public"),
        notes: OWN_SERVER,
        ..Framework::NONE
    },
    Framework {
        name: "PHP in web",
        fits: File("web/index.php"),
        serve: Serve::Run("php -S 127.0.0.1:$PORT -t web"),
        notes: OWN_SERVER,
        ..Framework::NONE
    },
    Framework {
        name: "PHP at the root",
        fits: File("index.php"),
        serve: Serve::Run("php -S 127.0.0.1:$PORT -t ."),
        notes: OWN_SERVER,
        ..Framework::NONE
    },
];

/// Laravel's own choice since version 11, which an app overrides in its configuration alone.
const SQLITE: Sign = Any(&[Sign::Says("config/database.php", "env('DB_CONNECTION', 'sqlite')")]);

fn read(view: &View<'_>) -> Result<Option<Facts>, NothingFits> {
    let mut facts = Facts::default();
    let Some(text) = view.text("composer.json")? else {
        return Ok(Some(facts));
    };
    let composer: Json =
        serde_json::from_str(&text).map_err(|bad| unclear(format!("composer.json cannot be read: {bad}")))?;
    for (name, version) in composer.get("require").and_then(Json::as_object).into_iter().flatten() {
        let version = version.as_str().unwrap_or_default();
        facts.dependencies.insert(name.clone(), version.to_owned());
        if name == "php" {
            facts.versions.push(("require.php of composer.json".to_owned(), version.to_owned()));
        }
    }
    let local = |repository: &Json| repository.get("type").and_then(Json::as_str) == Some("path");
    let repositories = composer.get("repositories");
    let listed = repositories.and_then(Json::as_array).is_some_and(|list| list.iter().any(local));
    if listed || repositories.and_then(Json::as_object).is_some_and(|named| named.values().any(local)) {
        facts.unlayered = Some("composer.json takes a package from a folder of the source".to_owned());
    }
    facts.is_package = true;
    Ok(Some(facts))
}
