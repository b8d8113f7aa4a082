//! Realistic files against what is taken from them, kept in `tests/import`; and any text against all readers.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

const SAMPLES: [&str; 8] = [
    "Procfile",
    "app.json",
    "compose.yaml",
    "deploy.short.yml",
    "deploy.yml",
    "fly.services.toml",
    "fly.toml",
    "heroku.env",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import")
}

/// What was taken, as text. Values of secrets are shown here: the samples are invented.
fn told(taken: &Imported) -> String {
    let mut told = taken.manifest.write(&[], &[]);
    for (name, value) in &taken.config {
        writeln!(told, "config: {name}={value:?}").unwrap();
    }
    for (name, secret) in &taken.secrets {
        let from = match secret {
            Secret::Given(value) => format!("{value:?}"),
            Secret::Generated => "generated".to_owned(),
            Secret::Asked { what } => format!("asked {}", what.as_deref().unwrap_or_default()),
        };
        writeln!(told, "secret: {name} {}", from.trim_end()).unwrap();
    }
    for note in &taken.notes {
        writeln!(told, "note: {note}").unwrap();
    }
    for left in &taken.left {
        writeln!(told, "left: {}: {}", left.what, left.why).unwrap();
    }
    told
}

#[test]
fn import_golden() {
    for sample in SAMPLES {
        let text = std::fs::read_to_string(folder().join(sample)).unwrap();
        let taken =
            import(Kind::of_file(sample).unwrap(), sample, &text).unwrap_or_else(|bad| panic!("{bad}"));
        let told = told(&taken);
        let golden = folder().join(format!("{sample}.taken"));
        if std::env::var_os("BERTH_UPDATE_GOLDENS").is_some() {
            std::fs::write(&golden, &told).unwrap();
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(expected, told, "{} is stale: run with BERTH_UPDATE_GOLDENS=1", golden.display());
        let written = taken.manifest.write(&[], &[]);
        assert_eq!(Manifest::parse(&written).unwrap(), taken.manifest, "{sample}");
    }
}

#[test]
fn a_file_is_known_by_its_name() {
    for (name, kind) in [
        ("../old/Procfile.dev", Some(Kind::Procfile)),
        ("fly.production.toml", Some(Kind::Fly)),
        ("config/deploy.staging.yml", Some(Kind::Kamal)),
        ("docker-compose.yml", Some(Kind::Compose)),
        (".env.production", Some(Kind::Env)),
        ("prod.env", Some(Kind::Env)),
        ("Cargo.toml", None),
    ] {
        assert_eq!(Kind::of_file(name), kind, "{name}");
    }
    for (kind, _, file) in Kind::NAMED {
        assert_eq!(Kind::of_file(file), Some(kind), "{file}");
    }
}

#[test]
fn a_mistake_has_its_place() {
    for (kind, text, place) in [
        (Kind::AppJson, "{\n  \"env\": }", "f:2:10: expected value"),
        (Kind::Fly, "app = 'a'\n[env\n", "f:2:"),
        (Kind::Kamal, "service: shop\nenv: [1, {\n", "f:"),
        (Kind::Compose, "- one\n- two\n", "f:1:1: the file is not a table"),
        (Kind::Env, "A=1\nB\n", "f:2:1: not of the form"),
        (Kind::Kamal, "a: 1\na: 2\n", "f:2:1: "),
    ] {
        let problems = import(kind, "f", text).unwrap_err().to_string();
        assert!(problems.starts_with(place), "{kind:?}: {problems}");
    }
}

#[test]
fn a_backend_that_speaks_http_2_is_told_of() {
    let text =
        "app = 'a'\n[http_service]\ninternal_port = 50051\n[http_service.http_options]\nh2_backend = true\n";
    let taken = import(Kind::Fly, "fly.toml", text).unwrap();
    assert_eq!(taken.manifest.http.protocol, berth_spec::HttpProtocol::H2c);
    let taken = import(Kind::Fly, "fly.toml", &text.replace("true", "false")).unwrap();
    assert_eq!(taken.manifest.http.protocol, berth_spec::HttpProtocol::Http1);
}

#[test]
fn a_document_that_unfolds_is_refused() {
    let mut text = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (one, two) in "abcdefghijklm".chars().zip("bcdefghijklmn".chars()) {
        writeln!(text, "{two}: &{two} [{}]", vec![format!("*{one}"); 9].join(", ")).unwrap();
    }
    assert!(import(Kind::Compose, "compose.yaml", &text).is_err());
    let deep = "[".repeat(100_000);
    for kind in [Kind::Kamal, Kind::AppJson, Kind::Fly] {
        assert!(import(kind, "f", &deep).is_err());
    }
}

#[test]
fn what_looks_secret_is_one() {
    for (name, value, secret) in [
        ("SECRET_KEY_BASE", "x", true),
        ("STRIPE_API_KEY", "x", true),
        ("DATABASE_URL", "postgres://u:p@h/d", true),
        ("REDIS_URL", "redis://localhost:6379", false),
        ("MONKEY", "x", false),
        ("LOG_LEVEL", "info", false),
        ("CERT", "-----BEGIN CERTIFICATE-----", true),
    ] {
        assert_eq!(looks_secret(name, value), secret, "{name}");
    }
}

proptest! {
    /// Half a real file, with a piece of any text in it.
    #[test]
    fn any_text_is_read_or_refused(sample in 0..SAMPLES.len(), cut in 0_usize..1_500, noise in any::<String>()) {
        let text = std::fs::read_to_string(folder().join(SAMPLES[sample])).unwrap();
        let (head, tail) = text.split_at(text.floor_char_boundary(cut));
        for text in [format!("{head}{noise}{tail}"), head.to_owned(), noise] {
            for (kind, ..) in Kind::NAMED {
                if let Ok(taken) = import(kind, "f", &text) {
                    let written = taken.manifest.write(&[], &[]);
                    prop_assert_eq!(Manifest::parse(&written), Ok(taken.manifest), "{}", written);
                }
            }
        }
    }
}
