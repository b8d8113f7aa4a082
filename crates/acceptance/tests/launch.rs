//! From another platform's file to an app that serves: launched, configured from files, compared, with nothing shown that is secret.

use std::fs;

use berth_acceptance::{Actor, Options, Platform};

const FLY: &str = r#"
app = 'shop'
primary_region = 'ams'

[processes]
app = './actor serve'

[env]
GREETING = 'hello'
PORT = '8080'

[http_service]
internal_port = 8080
processes = ['app']

[[vm]]
memory = '1gb'
"#;

#[test]
fn an_app_of_another_platform_is_launched() {
    let platform = Platform::start(Options::default());
    // The directory with its program; the manifest is what launch is to write.
    let shop = Actor::web(&platform, "shop", "serve");
    let file = |name: &str| shop.directory().join(name);
    fs::remove_file(file("berth.toml")).expect("it was written");
    fs::write(file("fly.toml"), FLY).expect("our directory");
    let variables = platform.scratch().join("prod.env");
    fs::write(&variables, "LEVEL='in fo'\nAPI_KEY=\"s3cr3t\\nvalue\"\n").expect("our directory");
    let directory = shop.directory().display().to_string();
    let variables = variables.display().to_string();
    let from = ["launch", &directory, "--from", "fly", "--from", &variables];

    let seen = platform.cli(from.iter().chain(&["--dry-run", "--json"])).ok().json();
    assert_eq!(
        (&seen["exists"], &seen["processes"]["web"]),
        (&false.into(), &"./actor serve".into()),
        "{seen}"
    );
    assert!(seen["not_taken_over"]["vm"].is_string(), "{seen}");
    assert!(fs::metadata(file("berth.toml")).is_err(), "a dry run writes nothing");

    let launched = platform.cli(from).ok();
    for (name, value) in [("GREETING", "hello"), ("LEVEL", "in fo"), ("API_KEY", "s3cr3t\nvalue")] {
        assert_eq!(shop.ask(&format!("/env/{name}")), (200, value.to_owned()));
    }
    assert!(!format!("{}{}", launched.stdout, launched.stderr).contains("s3cr3t"), "{}", launched.stdout);
    let written = fs::read_to_string(file("berth.toml")).expect("launch wrote it");
    assert!(written.contains("web = \"./actor serve\"") && !written.contains("s3cr3t"), "{written}");

    // A second launch finds nothing to write, and deploys what is there.
    let _again = platform.cli(["launch", &directory]).ok();
    assert_eq!(fs::read_to_string(file("berth.toml")).expect("it is there"), written);

    let _set = shop.verb(&["config", "set", "LEVEL=debug"]).ok();
    let lines = platform.cli(["config", "list", "--shell", "--app", "shop"]).ok().stdout;
    let kept = platform.scratch().join("kept.env");
    fs::write(&kept, lines).expect("our directory");
    let _unset = shop.verb(&["config", "unset", "LEVEL"]).ok();
    let _back = shop.verb(&["config", "import", &kept.display().to_string()]).ok();
    assert_eq!(shop.ask("/env/LEVEL"), (200, "debug".to_owned()));

    let diff = shop.verb(&["releases", "diff", "v1"]).ok().json();
    let level = serde_json::json!([{ "name": "LEVEL", "before": "in fo", "after": "debug" }]);
    let same = serde_json::json!([]);
    assert_eq!((&diff["config"], &diff["secrets"], &diff["source"]), (&level, &same, &same), "{diff}");
    let newer = platform.scratch().join("key.env");
    fs::write(&newer, "API_KEY=other\n").expect("our directory");
    let _key = shop.verb(&["secrets", "import", &newer.display().to_string()]).ok();
    let diff = shop.verb(&["config", "diff"]).ok();
    assert_eq!(diff.json()["secrets"][0]["after"], "2", "{}", diff.stdout);
    assert!(!diff.stdout.contains("other"), "{}", diff.stdout);
}
