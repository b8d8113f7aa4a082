//! What the planner makes of instances with a check of their own.

use berth_spec::Millis;

use crate::event::{Event, Exit, Ordinal};
use crate::scene::{Scene, deploy_of, manifest, v};
use crate::world::{Check, Verdict};

fn check(verdict: Verdict) -> Option<Check> {
    let evidence = vec!["its health check ended with status 1".to_owned(), "no database".to_owned()];
    Some(Check { verdict, evidence: if verdict == Verdict::Healthy { Vec::new() } else { evidence } })
}

fn newest(scene: &Scene) -> Ordinal {
    *scene.world.instances.keys().next_back().unwrap()
}

fn set(scene: &mut Scene, ordinal: Ordinal, verdict: Verdict) {
    scene.world.instances.get_mut(&ordinal).unwrap().check = check(verdict);
}

#[test]
fn requests_come_once_its_check_has_passed() {
    let mut scene = Scene::serving(&["web"], 1, None);
    scene.check = check(Verdict::Starting);
    scene.deploy(None);
    scene.run_until(|it| it.world.instances.len() == 2);
    let (routed, new) = (scene.app().routed.clone(), newest(&scene));
    for _ in 0..20 {
        scene.wait(Millis::from_secs(1));
        scene.pass();
        assert_eq!((scene.app().serving, &scene.app().routed), (Some(v(1)), &routed));
    }
    set(&mut scene, new, Verdict::Healthy);
    scene.settle();
    assert_eq!((scene.app().serving, &scene.app().routed), (Some(v(2)), &[new].into()));
}

#[test]
fn one_whose_check_does_not_pass_fails_its_release_with_what_it_said() {
    for processes in [&["web"][..], &["worker"]] {
        let mut scene = Scene::serving(&["web"], 1, None);
        scene.processes = processes.to_vec();
        scene.check = check(Verdict::Starting);
        scene.deploy(None);
        scene.run_until(|it| it.world.instances.len() == 2);
        let new = newest(&scene);
        set(&mut scene, new, Verdict::Unhealthy);
        scene.settle();
        assert_eq!(scene.failure_code(2), Some("health_check_failed"));
        let failure = scene.app().release(v(2)).unwrap().failure.clone().unwrap();
        assert!(failure.summary.contains("failed its health check"), "{failure:?}");
        assert!(failure.detail.iter().any(|line| line.ends_with(": no database")), "{failure:?}");
        assert_eq!(scene.app().serving, Some(v(1)));
    }
}

/// It has been started again meanwhile, and the shim says nothing bad of it any more.
#[test]
fn one_that_was_ended_for_it_fails_its_release() {
    let mut scene = Scene::serving(&["web"], 1, None);
    scene.check = check(Verdict::Starting);
    scene.deploy(None);
    scene.run_until(|it| it.world.instances.len() == 2);
    let seen = scene.world.instances.values_mut().next_back().unwrap();
    seen.restarts = 1;
    seen.last_exit =
        Some(Exit { status: None, signal: Some(15), after: Millis(5), oom: None, unhealthy: true });
    scene.settle();
    assert_eq!(scene.failure_code(2), Some("health_check_failed"));
}

#[test]
fn a_check_that_never_decides_runs_into_the_deploy_timeout() {
    let mut scene = Scene::serving(&["web"], 1, None);
    scene.check = check(Verdict::Starting);
    let mut next = manifest(None);
    next.deploy.timeout = Millis::from_secs(60);
    scene.wish(deploy_of(next));
    scene.settle();
    assert_eq!(scene.failure_code(2), Some("health_check_failed"));
    let failure = scene.app().release(v(2)).unwrap().failure.clone().unwrap();
    assert!(failure.summary.contains("was not ready within 1m"), "{failure:?}");
    assert!(failure.detail.iter().any(|line| line.ends_with(": no database")), "{failure:?}");
}

/// The shim ends and starts it; control takes nothing away and adds nothing.
#[test]
fn one_that_serves_and_falls_ill_is_left_to_its_shim() {
    let mut scene = Scene::serving(&["web", "worker"], 1, None);
    for ordinal in scene.world.instances.keys().copied().collect::<Vec<_>>() {
        set(&mut scene, ordinal, Verdict::Unhealthy);
    }
    scene.log.clear();
    scene.settle();
    let changes: Vec<&Event> = scene.log.iter().collect();
    assert_eq!(changes, [] as [&Event; 0]);
}

/// Edge probes a port or a path, and would send requests to one that answers there before its own check has passed again.
#[test]
fn one_that_is_ill_gets_no_requests_until_it_is_well_where_another_is() {
    let mut scene = Scene::serving(&["web"], 2, None);
    let all = scene.app().routed.clone();
    let [ill, well] = all.iter().copied().collect::<Vec<_>>()[..] else { panic!("{all:?}") };
    for verdict in [Verdict::Unhealthy, Verdict::Starting] {
        set(&mut scene, ill, verdict);
        scene.settle();
        assert_eq!(scene.app().routed, [well].into(), "{verdict:?}");
    }
    // The other falls ill as well: the last one is not taken away.
    set(&mut scene, well, Verdict::Unhealthy);
    scene.settle();
    assert_eq!(scene.app().routed, [well].into());
    set(&mut scene, ill, Verdict::Healthy);
    scene.settle();
    assert_eq!(scene.app().routed, [ill].into());
    set(&mut scene, well, Verdict::Healthy);
    scene.settle();
    assert_eq!(scene.app().routed, all);
    assert_eq!(scene.app().instances.len(), 2, "none was stopped or added");
}

#[test]
fn a_service_that_says_no_port_is_told_what_makes_it_a_worker() {
    use crate::event::Image;
    let next = |stack: Option<&str>, port| {
        let mut scene = Scene::serving(&["web"], 1, None);
        scene.healthy = false;
        scene.image = Some(Image { port, ..Image::default() });
        let mut manifest = manifest(None);
        manifest.stack = stack.map(|name| name.parse().unwrap());
        scene.wish(deploy_of(manifest));
        scene.settle();
        assert_eq!(scene.failure_code(2), Some("never_listened"));
        scene.app().release(v(2)).unwrap().failure.clone().unwrap().next.unwrap()
    };
    let told = next(Some("shop"), None);
    assert!(told.contains("`expose: [8080]`") && told.contains("`entrypoint`"), "{told}");
    assert!(next(Some("shop"), Some(80)).contains("PORT"));
    assert!(next(None, None).contains("PORT"));
}

#[test]
fn what_its_image_says_of_the_start_lengthens_its_grace() {
    use crate::event::{Image, ImageCheck};
    for (start_period, expected) in [(Millis(0), "never_listened"), (Millis::from_secs(90), "")] {
        let mut scene = Scene::serving(&["web"], 1, None);
        scene.healthy = false;
        scene.check = check(Verdict::Starting);
        scene.image = Some(Image {
            check: Some(ImageCheck {
                command: vec!["check".to_owned()],
                interval: Millis::from_secs(30),
                timeout: Millis::from_secs(30),
                start_period,
                start_interval: Millis::from_secs(1),
                retries: 3,
            }),
            ..Image::default()
        });
        scene.deploy(None);
        scene.run_until(|it| it.world.instances.len() == 2);
        for _ in 0..60 {
            scene.wait(Millis::from_secs(1));
            scene.pass();
        }
        assert_eq!(scene.failure_code(2).unwrap_or_default(), expected);
    }
}
