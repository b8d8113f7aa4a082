//! `launch`, from what is seen to what is sent.

use super::*;

const FLY: &str = "app = 'shop'\n[env]\nLOG_LEVEL = 'info'\nPORT = '8080'\n[deploy]\nstrategy = 'rolling'\n[mounts]\nsource = 'data'\n";

fn write(platform: &Platform, file: &str, text: &str) {
    std::fs::write(platform.directory.path().join("site").join(file), text).unwrap();
}

fn manifest(platform: &Platform) -> Option<String> {
    std::fs::read_to_string(platform.directory.path().join("site/berth.toml")).ok()
}

fn changed(platform: &Platform) -> Vec<String> {
    platform.seen().into_iter().filter(|line| !line.starts_with("GET")).collect()
}

#[test]
fn a_dry_run_shows_all_and_does_nothing() {
    let platform = deploying("active", "");
    write(&platform, "fly.toml", FLY);
    let (status, out, err) = platform.berth("launch site --from fly --dry-run", "");
    assert_eq!((status, err.as_str()), (ExitStatus::Ok, "nothing was done\n"), "{out}");
    for part in [
        "app        shop (to be made)\n",
        "from       fly.toml\n",
        "build      static\n           there is index.html\n",
        "\nnot taken over:\n",
        "  env.PORT: Berth sets it for every instance\n",
        "  mounts: \"\" is not where a volume can be",
        "\nberth.toml, to be written:\n  # Written by `berth launch` from fly.toml.",
        "  strategy = \"rolling\"\n",
    ] {
        assert!(out.contains(part), "{part:?} in {out}");
    }
    assert_eq!((manifest(&platform), changed(&platform)), (None, Vec::new()));
    let (status, out, _) = platform.berth("launch site --from fly --dry-run --json", "");
    let told: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((status, told["builder"].as_str()), (ExitStatus::Ok, Some("static")));
    assert!(told["manifest"].as_str().unwrap().contains("rolling"), "{told}");
    let (_, out, _) = platform.berth("launch site --dry-run --name shop", "");
    assert!(out.contains("there is fly.toml: `berth launch --from fly` takes over what it says"), "{out}");
}

#[test]
fn a_dry_run_needs_no_platform() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("site")).unwrap();
    std::fs::write(directory.path().join("site/index.html"), "hello").unwrap();
    let nobody = format!("unix:{}", directory.path().join("api.sock").display());
    let (status, out, err) = super::berth(directory.path(), &nobody, "launch site --dry-run", "");
    assert_eq!((status, err.as_str()), (ExitStatus::Ok, "nothing was done\n"), "{out}");
    assert!(out.contains("app        site (no platform answered that would know it)\n"), "{out}");
    // In a home that no platform was ever started in.
    let line = "--home nowhere launch site --dry-run --json";
    let (status, out, err) = super::berth(directory.path(), "", line, "");
    let told: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((status, &told["exists"], err.as_str()), (ExitStatus::Ok, &serde_json::Value::Null, ""));
    let (status, ..) = super::berth(directory.path(), "", "--home nowhere launch site", "");
    assert_eq!(status, ExitStatus::Unreachable);
}

#[test]
fn what_was_taken_over_is_written_set_and_deployed() {
    let platform = deploying("active", "");
    let app_json =
        r#"{"env":{"LEVEL":"info","KEY_BASE":{"generator":"secret"}},"scripts":{"release":"./migrate"}}"#;
    write(&platform, "app.json", app_json);
    let more = [
        (format!("PATCH {APP}/config"), r#"{"config":{"LEVEL":"info"},"release":null}"#),
        (format!("PATCH {APP}/secrets"), r#"{"secrets":{"KEY_BASE":1},"release":null}"#),
    ];
    platform.also(&more);
    let (status, out, err) = platform.berth("launch site --from app.json --name shop --detach", "");
    assert_eq!(status, ExitStatus::Ok, "{out}{err}");
    let written = manifest(&platform).unwrap();
    let read = berth_spec::Manifest::parse(&written).unwrap();
    assert_eq!(read.deploy.release_command.unwrap().to_string(), "./migrate");
    assert_eq!(platform.body(&format!("PATCH {APP}/config")), r#"{"set":{"LEVEL":"info"},"unset":[]}"#);
    let secrets: serde_json::Value =
        serde_json::from_str(&platform.body(&format!("PATCH {APP}/secrets"))).unwrap();
    assert_eq!(secrets["set"]["KEY_BASE"].as_str().unwrap().len(), 64);
    let submitted: serde_json::Value =
        serde_json::from_str(&platform.body(&format!("POST {APP}/releases"))).unwrap();
    assert_eq!(submitted["manifest"], written.as_str());
    assert!(!format!("{out}{err}").contains(secrets["set"]["KEY_BASE"].as_str().unwrap()));
}

#[test]
fn a_secret_without_a_value_keeps_it_from_being_deployed() {
    let platform = deploying("active", "");
    write(&platform, "app.json", r#"{"env":{"STRIPE_KEY":{"description":"of the shop"}}}"#);
    let (status, out, err) = platform.berth("launch site --from heroku --name shop", "");
    assert_eq!(status, ExitStatus::Refused, "{out}{err}");
    assert!(out.contains("missing    STRIPE_KEY (of the shop)\n"), "{out}");
    assert!(
        err.contains("  next: berth secrets set STRIPE_KEY --app shop\n  then: berth deploy site\n"),
        "{err}"
    );
    assert!(!changed(&platform).iter().any(|line| line.ends_with("/releases")));

    // A file of variables beside it has the value.
    let platform = deploying("active", "");
    write(&platform, "app.json", r#"{"env":{"STRIPE_KEY":{}}}"#);
    platform.also(&[(format!("PATCH {APP}/secrets"), r#"{"secrets":{"STRIPE_KEY":1},"release":null}"#)]);
    let (status, out, err) =
        platform.berth("launch site --from heroku --from - --name shop --yes --detach", "STRIPE_KEY=s3cr3t");
    assert_eq!(status, ExitStatus::Ok, "{out}{err}");
    assert!(!format!("{out}{err}").contains("s3cr3t"));
    assert!(platform.body(&format!("PATCH {APP}/secrets")).contains("s3cr3t"));
}

#[test]
fn a_manifest_is_not_replaced_unasked() {
    let platform = deploying("active", "");
    let mine = "app = \"shop\" # mine\n";
    write(&platform, "berth.toml", mine);
    write(&platform, "fly.toml", FLY);
    let (status, _, err) = platform.berth("launch site --from fly --no-deploy", "");
    assert_eq!(status, ExitStatus::Refused);
    assert!(err.contains("code: not_confirmed"), "{err}");
    assert_eq!((manifest(&platform).as_deref(), changed(&platform)), (Some(mine), Vec::new()));
    let (status, out, err) = platform.berth("launch site --no-deploy", "");
    assert_eq!((status, manifest(&platform).as_deref()), (ExitStatus::Ok, Some(mine)), "{err}");
    assert!(out.ends_with("shop is made; `berth deploy site` deploys it\n"), "{out}");
    let (status, _, err) = platform.berth("launch site --from fly --no-deploy --yes", "");
    assert_eq!(status, ExitStatus::Ok, "{err}");
    assert!(manifest(&platform).unwrap().contains("rolling"));
    let (status, _, err) = platform.berth("launch site --name other --no-deploy", "");
    assert_eq!(status, ExitStatus::Usage, "{err}");
}

#[test]
fn what_cannot_be_taken_over_is_told_before_anything_is_done() {
    let platform = deploying("active", "");
    write(&platform, "fly.toml", "app = 'shop'\n[env\n");
    write(&platform, "app.json", "{}");
    for (line, told) in [
        ("launch site --from fly", "error: fly.toml is not valid\n  fly.toml:2:"),
        ("launch site --from Cargo.lock", "error: \"Cargo.lock\" is no file that Berth takes over\n"),
        ("launch site --from kamal", "error: config/deploy.yml cannot be read: No such file"),
        ("launch nowhere", "error: "),
    ] {
        let (status, _, err) = platform.berth(line, "");
        assert_ne!(status, ExitStatus::Ok, "{line}");
        assert!(err.starts_with(told), "{line}: {err}");
    }
    write(&platform, "fly.toml", FLY);
    let (status, _, err) = platform.berth("launch site --from fly --from heroku", "");
    assert_eq!(status, ExitStatus::Usage);
    assert!(err.starts_with("error: both fly.toml and app.json describe the app\n"), "{err}");
    assert!(changed(&platform).is_empty());
}
