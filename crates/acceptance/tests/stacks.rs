//! Stacks: the services of a compose file as apps, in the order in which they need each other, each with a life of its own.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use berth_acceptance::{Actor, Answer, Options, Platform, actor_binary, exchange};

/// Two services from the same source, one that runs once before them, and a volume.
const SHOP: &str = r#"services:
  web:
    build: ./site
    command: ["./actor", "serve"]
    ports: ["80:8080"]
    environment:
      GREETING: hello ${WHO:-world}
    env_file: site.env
    depends_on:
      seed: { condition: service_completed_successfully }
      store: { condition: service_healthy }
  seed:
    build: ./site
    command: ["./actor", "say", "seeded"]
  store:
    build: ./site
    command: ["./actor", "keep"]
    expose: [8080]
    volumes: ["data:/data"]
    container_name: store
volumes:
  data:
"#;

fn directory(platform: &Platform, compose: &str) -> PathBuf {
    let here = platform.scratch().join("shop");
    fs::create_dir_all(here.join("site")).unwrap();
    fs::copy(actor_binary(), here.join("site/actor")).unwrap();
    fs::write(here.join("site.env"), "GREETING=overruled\nNOT_SET\nLEVEL=\"${NO_LEVEL:-in}$WAY\"\n").unwrap();
    fs::write(here.join(".env"), "WAY=fo\n").unwrap();
    fs::write(here.join("compose.yaml"), compose).unwrap();
    here
}

fn stack(platform: &Platform, here: &Path, words: &[&str]) -> Answer {
    platform.cli_in(here, ["stack"].iter().chain(words).copied())
}

fn ask(platform: &Platform, app: &str, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {app}.localhost\r\nconnection: close\r\n\r\n");
    let reply = exchange(platform.edge(), request.as_bytes()).unwrap();
    (reply.status, reply.text())
}

#[test]
fn services_come_up_in_their_order_and_live_by_themselves() {
    let platform = Platform::start(Options::default());
    let here = directory(&platform, SHOP);
    let planned = stack(&platform, &here, &["up", "--dry-run"]).ok();
    let said = format!("{}{}", planned.stdout, planned.stderr);
    for part in [
        "compose.yaml is the stack shop",
        "seed becomes the app shop-seed: built from ./site, run once to its end",
        "web becomes the app shop-web: built from ./site, HTTP at its port 8080, after seed and store",
        "store becomes the app shop-store: built from ./site, HTTP at its port 8080 for the others alone",
        "compose.yaml:5 services.web.ports: HTTP comes in by the app's host",
        "compose.yaml:20 services.store.container_name",
        "nothing was done",
    ] {
        assert!(said.contains(part), "{part:?} in {said}");
    }
    let up = stack(&platform, &here, &["up"]).ok();
    let at = |text: &str| up.stdout.find(text).unwrap_or_else(|| panic!("{text} in {}", up.stdout));
    assert!(at("v1 of shop-seed is active") < at("deploying shop-web"), "{}", up.stdout);
    assert!(at("v1 of shop-store is active") < at("deploying shop-web"), "{}", up.stdout);
    assert_eq!(ask(&platform, "shop-web", "/env/GREETING").1, "hello world");
    assert_eq!(ask(&platform, "shop-web", "/env/LEVEL").1, "info");
    // It publishes nothing: its host is nobody's, and the other services call it as the file does, by HTTP or at its port.
    assert_eq!(ask(&platform, "shop-store", "/visits").0, 404);
    let store = |path: &str| ask(&platform, "shop-web", &format!("/call/store{path}")).1;
    assert_eq!(store("/visits"), "200 1");
    assert_eq!(store(":8080/instance"), store("/instance"));
    let why = platform.cli(["why", "-a", "shop-seed"]).ok().stdout;
    assert!(why.contains("to its end, once") && !why.contains("berth scale"), "{why}");
    let listed = stack(&platform, &here, &["ps"]).ok().stdout;
    assert!(listed.contains("shop-web") && listed.contains("shop-seed"), "{listed}");

    // What is done to one touches no other, and a second time costs web no request.
    let before = store("/instance");
    let asking = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| {
            while asking.load(Ordering::Relaxed) {
                let (status, said) = ask(&platform, "shop-web", "/");
                assert_eq!(status, 200, "{said}");
            }
        });
        let _config = platform.cli(["config", "set", "A=1", "-a", "shop-web"]).ok();
        assert_eq!(store("/instance"), before);
        let _again = stack(&platform, &here, &["up"]).ok();
        asking.store(false, Ordering::Relaxed);
        asked.join().unwrap();
    });
    assert_eq!(store("/visits"), "200 2");
    let releases = platform.cli(["releases", "-a", "shop-web", "--json"]).ok().json();
    assert_eq!(releases["releases"].as_array().unwrap().len(), 3, "{releases}");

    let _down = stack(&platform, &here, &["down", "--yes"]).ok();
    assert_eq!(ask(&platform, "shop-web", "/").0, 404);
    let left = platform.cli(["volumes", "-a", "shop-store", "--json"]).ok().json();
    assert_eq!(left["volumes"][0]["name"], "data", "{left}");
}

/// What is there already and is nobody's service is neither deployed over nor taken down, and what the file no longer has is told.
#[test]
fn a_stack_has_its_own_apps_and_no_others() {
    let platform = Platform::start(Options::default());
    let here = directory(&platform, SHOP);
    let own = Actor::new(&platform, "shop-store", "[processes]\nweb = \"./actor serve\"\n");
    let _deployed = own.deploy().ok();
    let said = |answer: &Answer| format!("{}{}", answer.stdout, answer.stderr);
    let refused = stack(&platform, &here, &["up"]);
    assert_eq!(refused.status, 4, "{}", said(&refused));
    assert!(
        said(&refused).contains("the app shop-store is there already, and is of no stack"),
        "{}",
        said(&refused)
    );
    let down = stack(&platform, &here, &["down", "--yes", "--volumes"]).ok();
    assert!(said(&down).contains("shop-store is of no stack, and stays"), "{}", said(&down));
    assert_eq!(own.ask("/release"), (200, "v1".to_owned()));
    let names = || {
        let listed = platform.cli(["apps", "--json"]).ok().json();
        let apps = listed["apps"].as_array().unwrap().clone();
        apps.iter().map(|app| app["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(), ["shop-store"]);
    let _adopted = stack(&platform, &here, &["up", "--adopt"]).ok();
    assert_eq!(names(), ["shop-seed", "shop-store", "shop-web"]);

    let web = "name: shop\nservices:\n  web:\n    build: ./site\n    ports: [\"8080\"]\n    command: [\"./actor\", \"serve\"]\n    volumes: [\"data:/data\"]\n";
    fs::write(here.join("compose.yaml"), web).unwrap();
    let fewer = stack(&platform, &here, &["up"]).ok();
    for orphan in ["shop-seed", "shop-store"] {
        let told = format!("{orphan} is of this stack and no longer in compose.yaml");
        assert!(said(&fewer).contains(&told), "{}", said(&fewer));
    }
    for part in [
        "in compose.yaml, and stays with data (",
        "shop-web has a volume data of its own, and not that of shop-store",
        "`berth exec -a shop-store -- tar -cC /data . | berth exec -a shop-web -- tar -xC /data`",
    ] {
        assert!(said(&fewer).contains(part), "{part:?} in {}", said(&fewer));
    }
    // Several files may be one stack: what another of them has is no orphan.
    fs::write(here.join("more.yaml"), web.replace("  web:", "  more:")).unwrap();
    let both = stack(&platform, &here, &["up", "-f", "compose.yaml", "-f", "more.yaml"]).ok();
    assert!(!said(&both).contains("shop-web is of this stack") && names().contains(&"shop-more".to_owned()));
    let _more = stack(&platform, &here, &["down", "--yes", "-f", "more.yaml"]).ok();
    let _down = stack(&platform, &here, &["down", "--yes"]).ok();
    assert_eq!(names(), ["shop-seed", "shop-store"]);
    let _all = stack(&platform, &here, &["down", "--yes", "--remove-orphans"]).ok();
    assert_eq!(names(), [""; 0]);
}

#[test]
fn a_service_that_fails_keeps_those_behind_it_from_coming_up() {
    let platform = Platform::start(Options::default());
    let here = directory(&platform, &SHOP.replace(r#""say", "seeded""#, r#""exit", "3""#));
    let up = stack(&platform, &here, &["up"]);
    assert_ne!(up.status, 0);
    let said = format!("{}{}", up.stdout, up.stderr);
    assert!(said.contains("release_command_failed") && said.contains("shop-seed did not come up"), "{said}");
    assert_eq!(ask(&platform, "shop-web", "/").0, 404);
}

#[test]
fn what_cannot_be_kept_is_refused_with_its_line_and_several_files_are_several_stacks() {
    let platform = Platform::start(Options::default());
    let here = directory(&platform, &SHOP.replace("data:/data", "./data:/data"));
    let refused = stack(&platform, &here, &["up"]);
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert!(refused.status == 4 && said.contains("stack_refused"), "{said}");
    assert!(
        said.contains(
            "compose.yaml:19 refused: services.store.volumes: ./data is a directory of the machine"
        ),
        "{said}"
    );
    assert_eq!(platform.cli(["apps", "--json"]).ok().json()["apps"], serde_json::json!([]));
    // A directory that only a compose file describes is not one app.
    let alone = platform.scratch().join("alone");
    fs::create_dir(&alone).unwrap();
    fs::write(alone.join("compose.yaml"), SHOP).unwrap();
    let told = platform.cli_in(&alone, ["deploy"]);
    assert!(
        told.status == 4 && told.stderr.contains("`berth stack up` runs each of them"),
        "{}",
        told.stderr
    );

    let one = |name: &str| {
        format!(
            "services:\n  {name}:\n    build: ./site\n    command: [\"./actor\", \"serve\"]\n    ports: [8080]\n"
        )
    };
    fs::write(here.join("compose.infra.yaml"), one("cache")).unwrap();
    fs::write(here.join("worker.yaml"), one("mail")).unwrap();
    let _infra = stack(&platform, &here, &["up", "infra"]).ok();
    assert_eq!(ask(&platform, "infra-cache", "/").0, 200);
    let _both = stack(&platform, &here, &["up", "-f", "worker.yaml"]).ok();
    assert_eq!(ask(&platform, "worker-mail", "/").0, 200);
    let _down = stack(&platform, &here, &["down", "infra", "--yes"]).ok();
    assert_eq!((ask(&platform, "infra-cache", "/").0, ask(&platform, "worker-mail", "/").0), (404, 200));
}
