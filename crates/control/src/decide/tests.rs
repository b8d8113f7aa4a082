//! Wishes and facts: granted, refused, stale.

use std::collections::{BTreeMap, BTreeSet};

use berth_spec::HostName;
use berth_spec::manifest::Strategy;
use berth_spec::{EnvName, ProcessName, ReleaseNumber};
use proptest::prelude::*;

use super::*;
use crate::command::{Fact, Wish};
use crate::event::{Exit, Failure, GoneCause, SealedSecret, StopReason, WarmEnd};
use crate::invariant::check_app;
use crate::scene::{Scene, artifact, deploy_of, manifest, shop, v, web, worker};
use crate::state::{Life, Phase};

fn env(name: &str) -> EnvName {
    name.parse().unwrap()
}

fn set(name: &str, value: &str) -> Wish {
    Wish::ChangeConfig { set: [(env(name), value.to_owned())].into(), unset: BTreeSet::new() }
}

fn secret(name: &str, version: u64) -> Wish {
    let value = SealedSecret { version, sealed: format!("{name}{version}") };
    Wish::ChangeSecrets { set: [(env(name), value)].into(), unset: BTreeSet::new() }
}

fn unset_secret(name: &str) -> Wish {
    Wish::ChangeSecrets { set: BTreeMap::new(), unset: [env(name)].into() }
}

fn failed(release: u64) -> Fact {
    let failure = Failure::new("x", "");
    Fact::Failed { release: v(release), failure }
}

fn kinds(events: &[Event]) -> Vec<&'static str> {
    events.iter().map(Event::kind).collect()
}

#[test]
fn an_app_is_created_once_and_by_whatever_comes_first() {
    let mut scene = Scene::new();
    assert_eq!(kinds(&scene.wish(Wish::Create)), ["app_created"]);
    assert_eq!(kinds(&scene.wish(Wish::Create)), [""; 0]);
    assert_eq!(kinds(&Scene::new().wish(set("A", "1"))), ["app_created", "config_changed"]);
    assert_eq!(kinds(&Scene::new().wish(deploy_of(manifest(None)))), ["app_created", "release_submitted"]);
}

#[test]
fn what_there_is_not_is_refused() {
    let mut scene = Scene::new();
    let refused = |scene: &mut Scene, wish| scene.try_wish(wish).unwrap_err().code();
    let rollback = |to| Wish::Rollback { to: v(to), keep_config: false };
    assert_eq!(refused(&mut scene, rollback(1)), "app_not_found");
    assert_eq!(refused(&mut scene, Wish::Destroy { volumes: false }), "app_not_found");
    scene.deploy(None);
    assert_eq!(refused(&mut scene, rollback(2)), "release_not_found");
    assert_eq!(refused(&mut scene, rollback(1)), "release_never_served");
    scene.settle();
    let scale = |process: ProcessName, count| Wish::Scale { processes: [(process, count)].into() };
    assert_eq!(refused(&mut scene, scale(worker(), 1)), "process_not_found");
    assert_eq!(refused(&mut scene, scale(web(), MAX_INSTANCES + 1)), "limit_exceeded");
    assert_eq!(kinds(&scene.wish(scale(web(), MAX_INSTANCES))), ["scale_changed"]);
    scene.wish(Wish::Destroy { volumes: false });
    assert_eq!(refused(&mut scene, deploy_of(manifest(None))), "app_destroying");
    assert_eq!(kinds(&scene.wish(Wish::Destroy { volumes: false })), [""; 0]);
    let elsewhere = "other/prod/shop".parse().unwrap();
    let refusal = decide(&scene.state, &Command::App { app: elsewhere, wish: Wish::Create }).unwrap_err();
    assert_eq!(refusal.code(), "project_not_found");
}

#[test]
fn hosts_belong_to_one_app() {
    let mut scene = Scene::new();
    let with = |host: &str| {
        let mut manifest = manifest(None);
        manifest.http.hosts = vec![host.parse::<HostName>().unwrap()];
        deploy_of(manifest)
    };
    scene.wish(with("shop.example.com"));
    let other: berth_spec::AppId = "default/default/blog".parse().unwrap();
    let ask = |scene: &mut Scene, wish| scene.command(&Command::App { app: other.clone(), wish });
    for host in ["shop.example.com", "shop.localhost"] {
        assert_eq!(ask(&mut scene, with(host)).unwrap_err().code(), "host_taken", "{host}");
    }
    ask(&mut scene, with("blog.localhost")).unwrap();
    // A release that failed has no claim any more.
    scene.fact(failed(1)).unwrap();
    ask(&mut scene, with("shop.example.com")).unwrap();
}

fn hosts(hosts: &[&str]) -> BTreeSet<HostName> {
    hosts.iter().map(|host| host.parse().unwrap()).collect()
}

fn domains(add: &[&str], remove: &[&str]) -> Wish {
    Wish::ChangeDomains { add: hosts(add), remove: hosts(remove) }
}

#[test]
fn domains_come_and_go_without_a_release() {
    let mut scene = Scene::serving(&["web"], 1, None);
    let events = scene.wish(domains(&["shop.example.com", "*.shop.example.com"], &[]));
    assert_eq!(kinds(&events), ["domains_changed"]);
    let shown = crate::route::serving_hosts(scene.app());
    assert_eq!(shown, ["*.shop.example.com", "shop.example.com", "shop.localhost"]);
    // What is so already changes nothing, and the default host is the app's without being added.
    assert_eq!(kinds(&scene.wish(domains(&["shop.example.com", "shop.localhost"], &[]))), [""; 0]);
    let refused = |scene: &mut Scene, host| scene.try_wish(domains(&[], &[host])).unwrap_err().code();
    assert_eq!(refused(&mut scene, "shop.localhost"), "domain_fixed");
    assert_eq!(refused(&mut scene, "other.example.com"), "domain_not_found");
    let mut named = manifest(None);
    named.http.hosts = vec!["named.example.com".parse().unwrap()];
    scene.wish(deploy_of(named));
    scene.settle();
    assert_eq!(refused(&mut scene, "named.example.com"), "domain_fixed");
    scene.wish(domains(&["x.example.com"], &["shop.example.com"]));
    assert_eq!(scene.app().domains, hosts(&["*.shop.example.com", "x.example.com"]));
    let many: Vec<String> = (0..MAX_DOMAINS).map(|number| format!("h{number}.com")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(scene.try_wish(domains(&many, &[])).unwrap_err().code(), "limit_exceeded");
    scene.wish(Wish::Destroy { volumes: false });
    scene.settle();
    assert!(scene.app().domains.is_empty());
}

#[test]
fn a_domain_is_the_first_ones_and_crosses_no_tenant() {
    let mut scene = Scene::serving(&["web"], 1, None);
    for project in ["acme/prod", "default/other"] {
        scene.command(&Command::EnsureProject { project: project.parse().unwrap() }).unwrap();
    }
    scene.wish(domains(&["shop.example.com", "*.wild.com"], &[]));
    let ask = |scene: &mut Scene, app: &str, add: &[&str]| {
        let command = Command::App { app: app.parse().unwrap(), wish: domains(add, &[]) };
        scene.command(&command).map(|_| ()).map_err(|refusal| refusal.code())
    };
    let (sibling, foreign) = ("default/other/blog", "acme/prod/blog");
    for host in
        ["shop.example.com", "*.wild.com", "shop.localhost", "blog.localhost", "*.prod.acme.localhost"]
    {
        assert_eq!(ask(&mut scene, sibling, &[host]), Err("host_taken"), "{host}");
        assert_eq!(ask(&mut scene, foreign, &[host]), Err("host_taken"), "{host}");
    }
    // An exact name wins over a wildcard, so within a tenant both may be; another tenant would take names away.
    for host in ["a.wild.com", "*.example.com"] {
        assert_eq!(ask(&mut scene, foreign, &[host]), Err("host_taken"), "{host}");
        assert_eq!(ask(&mut scene, sibling, &[host]), Ok(()), "{host}");
    }
    assert_eq!(ask(&mut scene, foreign, &["blog.prod.acme.localhost", "wild.com", "b.c.wild.com"]), Ok(()));
}

#[test]
fn a_rollback_does_not_bring_a_host_back_that_another_app_has() {
    let mut scene = Scene::new();
    let mut named = manifest(None);
    named.deploy.warm = berth_spec::Millis(0);
    named.http.hosts = vec!["shop.example.com".parse().unwrap()];
    scene.wish(deploy_of(named.clone()));
    scene.settle();
    named.http.hosts.clear();
    scene.wish(deploy_of(named));
    scene.settle();
    let other = "default/default/blog".parse().unwrap();
    scene.command(&Command::App { app: other, wish: domains(&["shop.example.com"], &[]) }).unwrap();
    let back = Wish::Rollback { to: v(1), keep_config: false };
    assert_eq!(scene.try_wish(back).unwrap_err().code(), "host_taken");
}

#[test]
fn configuration_that_changes_nothing_makes_no_release() {
    let mut scene = Scene::serving(&["web"], 1, None);
    assert_eq!(kinds(&scene.wish(set("A", "1"))), ["config_changed", "release_submitted"]);
    assert_eq!(kinds(&scene.wish(set("A", "1"))), [""; 0]);
    // While a deploy is on its way the configuration goes with what comes.
    scene.deploy(None);
    scene.wish(set("A", "2"));
    let newest = scene.app().release(v(4)).unwrap();
    assert_eq!((newest.artifact.as_ref(), newest.config.len()), (None, 1));
    let many = (0..=MAX_VARIABLES).map(|number| (env(&format!("V{number}")), String::new())).collect();
    let refusal = scene.try_wish(Wish::ChangeConfig { set: many, unset: BTreeSet::new() }).unwrap_err();
    assert_eq!(refusal.code(), "limit_exceeded");
}

#[test]
fn secrets_are_versioned_and_two_at_once_do_not_both_win() {
    let mut scene = Scene::serving(&["web"], 1, None);
    assert_eq!(kinds(&scene.wish(secret("KEY", 1))), ["secrets_changed", "release_submitted"]);
    assert_eq!(scene.try_wish(secret("KEY", 1)).unwrap_err().code(), "conflict");
    assert_eq!(next_secret_version(Some(scene.app()), &env("KEY")), 2);
    scene.wish(unset_secret("KEY"));
    assert_eq!(kinds(&scene.wish(unset_secret("KEY"))), [""; 0]);
    assert_eq!(
        scene.try_wish(secret("KEY", 1)).unwrap_err().code(),
        "conflict",
        "a version is never given twice"
    );
    scene.wish(secret("KEY", 2));
    assert_eq!(scene.app().secret_versions(), [(env("KEY"), 2)].into());
}

#[test]
fn a_rollback_brings_back_configuration_and_secrets() {
    let mut scene = Scene::serving(&["web"], 1, None);
    scene.wish(set("A", "1"));
    scene.wish(secret("KEY", 1));
    scene.settle();
    scene.wish(set("A", "2"));
    scene.wish(secret("KEY", 2));
    scene.wish(secret("NEW", 1));
    scene.settle();
    assert_eq!((scene.app().serving, scene.app().rollback_target()), (Some(v(6)), Some(v(3))));
    let events = scene.wish(Wish::Rollback { to: v(3), keep_config: false });
    assert_eq!(kinds(&events), ["config_changed", "secrets_changed", "release_submitted"]);
    assert_eq!(scene.app().config, [(env("A"), "1".to_owned())].into());
    assert_eq!(scene.app().secret_versions(), [(env("KEY"), 1)].into());
    scene.settle();
    assert_eq!(scene.app().rollback_target(), Some(v(1)), "not to the same again");
    let events = scene.wish(Wish::Rollback { to: v(1), keep_config: true });
    assert_eq!(kinds(&events), ["release_submitted"]);
    assert_eq!(scene.app().release(v(8)).unwrap().secrets, [(env("KEY"), 1)].into());
}

#[test]
fn a_rollback_to_what_serves_changes_nothing() {
    let back = |to| Wish::Rollback { to: v(to), keep_config: false };
    let mut scene = Scene::serving(&["web"], 1, None);
    assert_eq!(kinds(&scene.wish(back(1))), [""; 0]);
    scene.wish(set("A", "1"));
    scene.settle();
    assert_eq!(kinds(&scene.wish(back(1))), ["config_changed", "release_submitted"]);
    assert_eq!(kinds(&scene.wish(back(1))), ["release_submitted"], "the first is on its way only");
    scene.settle();
    for to in [1, 4] {
        assert_eq!(kinds(&scene.wish(back(to))), [""; 0], "{to}");
    }
    // What is on its way is stopped by it.
    scene.deploy(None);
    assert_eq!(kinds(&scene.wish(back(1))), ["release_submitted"]);
    scene.settle();
    scene.wish(set("A", "2"));
    scene.settle();
    assert_eq!(scene.app().config.len(), 1);
    assert_eq!(kinds(&scene.wish(back(1))), ["config_changed", "release_submitted"]);
}

#[test]
fn a_revoked_secret_ends_the_warm_release_that_holds_it() {
    let mut scene = Scene::serving(&["web"], 1, None);
    scene.wish(secret("KEY", 1));
    scene.settle();
    scene.deploy(None);
    scene.run_until(|it| it.app().warm == Some(v(2)));
    assert_eq!(kinds(&scene.wish(secret("OTHER", 1))), ["secrets_changed", "release_submitted"]);
    let events = scene.wish(unset_secret("KEY"));
    assert!(events.contains(&Event::WarmEnded { number: v(2), why: WarmEnd::SecretRevoked }), "{events:?}");
}

#[test]
fn a_second_life_goes_on_with_the_numbers_and_knows_nothing_else() {
    let mut scene = Scene::serving(&["web"], 2, None);
    scene.wish(set("A", "1"));
    scene.wish(Wish::Destroy { volumes: false });
    scene.settle();
    let slot = scene.app().slot;
    assert_eq!(scene.app().life, Life::Destroyed);
    assert_eq!(scene.try_wish(Wish::Destroy { volumes: false }).unwrap_err().code(), "app_not_found");
    scene.deploy(None);
    let app = scene.app();
    assert_eq!((app.slot, app.config.len(), app.scale.len(), app.rollback_target()), (slot, 0, 0, None));
    for number in 1..=2 {
        let back = scene.try_wish(Wish::Rollback { to: v(number), keep_config: false }).unwrap_err();
        assert!(["release_not_found", "release_never_served"].contains(&back.code()), "{back}");
    }
    scene.settle();
    assert_eq!((scene.app().serving, scene.app().routed.len()), (Some(v(3)), 1));
    assert!(scene.app().instances.keys().all(|ordinal| *ordinal > 2));
}

#[test]
fn facts_that_are_no_longer_true_are_stale() {
    let mut scene = Scene::serving(&["web"], 1, None);
    scene.wish(Wish::Scale { processes: [(web(), 2)].into() });
    let exit =
        Exit { status: Some(0), signal: None, after: berth_spec::Millis(1), oom: None, unhealthy: false };
    let assign =
        |release, process| Fact::Assign { release: v(release), process, tokens: vec!["a".to_owned()] };
    let stale = [
        Fact::Built { release: v(1), artifact: artifact("a", &["web"]) },
        failed(1),
        failed(7),
        Fact::BeginActivation { release: v(1) },
        Fact::BeginActivation { release: v(2) },
        Fact::CommandFinished { release: v(1) },
        Fact::AdoptWarm { release: v(1) },
        Fact::HandOver { release: v(1), processes: [web()].into() },
        assign(2, web()),
        assign(1, worker()),
        Fact::Started { ordinal: 9, port: Some(1), dialer: None },
        Fact::Route { ordinals: [1, 9].into() },
        Fact::Route { ordinals: BTreeSet::new() },
        Fact::Activate { release: v(1) },
        Fact::EndWarm { release: v(1), why: WarmEnd::Expired },
        Fact::Stop { ordinal: 9, why: StopReason::Retired },
        Fact::Stop { ordinal: 1, why: StopReason::Replaced },
        Fact::Stop { ordinal: 1, why: StopReason::ScaledDown },
        Fact::Exited { ordinal: 9, exit, more: 0 },
        Fact::Gone { ordinal: 9, cause: GoneCause::Lost },
        Fact::Destroyed,
    ];
    let before = scene.state.clone();
    for fact in stale {
        let refusal = scene.fact(fact.clone()).unwrap_err();
        assert!(matches!(refusal, Refusal::Stale(_)), "{fact:?}: {refusal}");
    }
    assert_eq!(scene.state, before);
}

#[test]
fn facts_that_are_so_already_change_nothing() {
    let mut scene = Scene::serving(&["web"], 1, None);
    let port = scene.app().instances[&1].port;
    let same = [
        Fact::Started { ordinal: 1, port, dialer: None },
        // Whoever does not see the port has not looked yet.
        Fact::Started { ordinal: 1, port: None, dialer: None },
        Fact::Route { ordinals: [1].into() },
        Fact::Assign { release: v(1), process: web(), tokens: vec!["a".to_owned(), "b".to_owned()] },
    ];
    for fact in same {
        assert_eq!(scene.fact(fact.clone()).unwrap(), [], "{fact:?}");
    }
    scene.wish(Wish::Scale { processes: [(web(), 2)].into() });
    let tokens = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
    let twice = Fact::Assign { release: v(1), process: web(), tokens };
    assert_eq!(scene.fact(twice.clone()).unwrap().len(), 1, "no more than are wanted");
    assert_eq!(scene.fact(twice).unwrap(), []);
}

#[test]
fn a_release_whose_instance_was_lost_just_now_is_not_activated() {
    let mut scene = Scene::serving(&["web"], 1, None);
    scene.deploy(None);
    scene.run_until(|it| it.routed_releases() == [v(2)].into());
    let new = *scene.app().routed.first().unwrap();
    scene.fact(Fact::Gone { ordinal: new, cause: GoneCause::Lost }).unwrap();
    scene.fact(Fact::Activate { release: v(2) }).unwrap_err();
    scene.settle();
    assert_eq!(scene.app().serving, Some(v(2)));
}

#[test]
fn a_failed_release_hands_back_only_to_what_served() {
    let mut scene = Scene::serving(&["web"], 2, None);
    scene.deploy(None);
    scene.run_until(|it| it.routed_releases() == [v(2)].into());
    // One of the old is new since: nobody knows yet whether it gets ready.
    scene.fact(Fact::Gone { ordinal: 1, cause: GoneCause::Lost }).unwrap();
    let tokens = vec!["a".to_owned()];
    scene.fact(Fact::Assign { release: v(1), process: web(), tokens }).unwrap();
    let newest = scene.app().last_ordinal;
    scene.fact(Fact::Started { ordinal: newest, port: Some(29_000), dialer: None }).unwrap();
    scene.fact(failed(2)).unwrap();
    assert_eq!(scene.app().routed, [2].into());
}

#[test]
fn facts_about_what_never_was_are_stale() {
    let scene = Scene::new();
    let refusal = decide(&scene.state, &Command::Fact { app: shop(), fact: Fact::Destroyed }).unwrap_err();
    assert_eq!(refusal.code(), "conflict");
}

/// Anything at all, true or not.
fn any_command() -> impl Strategy_<Value = Command> {
    let number = || (1_u64..6).prop_map(ReleaseNumber);
    let process = || prop_oneof![Just(web()), Just(worker())];
    let ordinals = || proptest::collection::btree_set(1_u64..8, 0..4);
    let strategy = prop_oneof![
        Just(None),
        Just(Some(Strategy::Rolling)),
        Just(Some(Strategy::Recreate)),
        Just(Some(Strategy::BlueGreen))
    ];
    let wish = prop_oneof![
        Just(Wish::Create),
        strategy.prop_map(|strategy| deploy_of(manifest(strategy))),
        (number(), any::<bool>()).prop_map(|(to, keep_config)| Wish::Rollback { to, keep_config }),
        (0_u8..3).prop_map(|value| set("A", &value.to_string())),
        (1_u64..4).prop_map(|version| secret("KEY", version)),
        Just(unset_secret("KEY")),
        (process(), 0_u32..4)
            .prop_map(|(process, count)| Wish::Scale { processes: [(process, count)].into() }),
        Just(Wish::Destroy { volumes: false }),
    ];
    let fact = prop_oneof![
        number().prop_map(|release| Fact::Built { release, artifact: artifact("a", &["web", "worker"]) }),
        number().prop_map(|release| failed(release.0)),
        number().prop_map(|release| Fact::BeginActivation { release }),
        number().prop_map(|release| Fact::CommandFinished { release }),
        number().prop_map(|release| Fact::AdoptWarm { release }),
        (number(), process())
            .prop_map(|(release, process)| Fact::HandOver { release, processes: [process].into() }),
        (number(), process(), 1_usize..3).prop_map(|(release, process, count)| Fact::Assign {
            release,
            process,
            tokens: vec!["a".to_owned(); count]
        }),
        (1_u64..8, any::<bool>()).prop_map(|(ordinal, port)| Fact::Started {
            ordinal,
            port: port.then_some(20_000),
            dialer: None
        }),
        ordinals().prop_map(|ordinals| Fact::Route { ordinals }),
        number().prop_map(|release| Fact::Activate { release }),
        number().prop_map(|release| Fact::EndWarm { release, why: WarmEnd::Expired }),
        (1_u64..8).prop_map(|ordinal| Fact::Stop { ordinal, why: StopReason::Replaced }),
        (1_u64..8).prop_map(|ordinal| Fact::Stop { ordinal, why: StopReason::Retired }),
        (1_u64..8).prop_map(|ordinal| Fact::Gone { ordinal, cause: GoneCause::Lost }),
        Just(Fact::Destroyed),
    ];
    prop_oneof![
        1 => wish.prop_map(|wish| Command::App { app: shop(), wish }),
        4 => fact.prop_map(|fact| Command::Fact { app: shop(), fact }),
    ]
}

use proptest::strategy::Strategy as Strategy_;

proptest! {
    /// Whatever is asked in whatever order, no step breaks an invariant, and the planner always comes to an end from there.
    #[test]
    fn no_sequence_breaks_an_invariant(
        commands in proptest::collection::vec(any_command(), 1..120),
        passes in proptest::collection::vec(0_usize..4, 1..120),
    ) {
        let mut scene = Scene::new();
        scene.processes = vec!["web", "worker"];
        for (command, passes) in commands.iter().zip(passes.iter().cycle()) {
            // The stage checks every step.
            let refused = scene.command(command).is_err();
            if let Some(app) = scene.state.apps.get(&shop()) {
                check_app(app).unwrap();
                (0..*passes).for_each(|_| drop(scene.pass()));
            }
            prop_assert!(refused || scene.state.position > 0);
        }
        if scene.state.apps.contains_key(&shop()) {
            scene.settle();
            let app = scene.app();
            prop_assert!(app.activation.is_none());
            prop_assert!(app.releases.values().all(|release| release.phase.is_settled()));
            prop_assert!(app.life != Life::Destroying);
            let newest = app.releases.values().rev().find(|it| it.phase == Phase::Activated && it.artifact.is_some());
            prop_assert_eq!(app.serving, newest.map(|it| it.number));
        }
    }
}

#[test]
fn a_volume_is_for_one_instance_of_a_process() {
    let with = |strategy: Option<Strategy>, processes: &str| {
        let text = format!("[[volumes]]\nname = \"data\"\npath = \"/data\"\nprocesses = [{processes}]");
        let mut made = berth_spec::Manifest::parse(&text).unwrap();
        made.deploy.strategy = strategy;
        deploy_of(made)
    };
    let mut scene = Scene::serving(&["web", "worker"], 2, None);
    let code =
        |outcome: Result<Vec<Event>, crate::command::Refusal>| outcome.map_err(|refusal| refusal.code());
    for strategy in [Strategy::BlueGreen, Strategy::Rolling] {
        assert_eq!(code(scene.try_wish(with(Some(strategy), "\"web\""))), Err("volume_exclusive"));
    }
    assert_eq!(code(scene.try_wish(with(None, ""))), Err("volume_exclusive"), "two of web");
    scene.wish(with(Some(Strategy::Rolling), "\"worker\""));
    scene.settle();
    assert_eq!(scene.app().serving, Some(v(2)));
    let scale = |process: ProcessName, count| Wish::Scale { processes: [(process, count)].into() };
    assert_eq!(code(scene.try_wish(scale(worker(), 2))), Err("volume_exclusive"));
    scene.wish(scale(web(), 3));
    scene.wish(scale(web(), 1));
    scene.wish(with(Some(Strategy::Recreate), ""));
    // Before it serves, too.
    assert_eq!(code(scene.try_wish(scale(web(), 2))), Err("volume_exclusive"));
    scene.settle();
    let remove = |scene: &mut Scene| {
        code(scene.try_wish(Wish::RemoveVolume { volume: "data".parse().unwrap(), snapshot: None }))
    };
    assert_eq!(remove(&mut scene), Err("volume_in_use"));
    scene.deploy(None);
    scene.settle();
    assert_eq!(remove(&mut scene).unwrap().len(), 1);
    scene.wish(scale(web(), 2));
    let rollback = Wish::Rollback { to: v(3), keep_config: false };
    assert_eq!(code(scene.try_wish(rollback)), Err("volume_exclusive"));
    scene.wish(Wish::Destroy { volumes: false });
    scene.settle();
    assert_eq!(remove(&mut scene).unwrap().len(), 1, "of what is destroyed it may be left");
}
