//! The routing snapshot as it follows from the state.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};

use berth_routing::names;
use berth_routing::{
    AppRoute, Backend, CacheRoute, Endpoint, Generation, Host, Https, Probe, ProbePath, Role, Share, Snapshot,
};
use berth_spec::manifest::Http;
use berth_spec::{AppId, HostName, Millis, ReleaseNumber};

use crate::certificate;
use crate::sleep::is_put_to_sleep;
use crate::state::{App, Instance, Life, Position, Release, State};

/// How long edge holds a request while an app has no instance that takes connections: the budget of the design for the
/// only instance of an app being started again.
pub const HOLD: Millis = Millis::from_secs(5);
/// The same for an app that sleeps now and then: what has to be started anew takes longer than what is only started again.
pub const WAKE_HOLD: Millis = Millis::from_secs(30);
/// The project and the tenant that need not be named in a host.
pub const DEFAULT_NAME: &str = "default";

/// The host that an app has without asking: `shop.localhost`, and outside the default project
/// `shop.project.tenant.localhost`.
#[must_use]
pub fn default_host(app: &AppId) -> String {
    let (project, tenant) = (app.project.as_str(), app.tenant.as_str());
    if project == DEFAULT_NAME && tenant == DEFAULT_NAME {
        return format!("{}.localhost", app.app);
    }
    format!("{}.{project}.{tenant}.localhost", app.app)
}

/// The app whose default host this is, if it is one; it need not exist.
#[must_use]
pub fn named_by_default(host: &HostName) -> Option<AppId> {
    let labels: Vec<&str> = host.as_str().strip_suffix(".localhost")?.split('.').collect();
    let id = match labels[..] {
        [app] => format!("{DEFAULT_NAME}/{DEFAULT_NAME}/{app}"),
        [app, project, tenant] => format!("{tenant}/{project}/{app}"),
        _ => return None,
    };
    id.parse().ok().filter(|id| default_host(id) == host.as_str())
}

/// The hosts that an app has beside its default one: those that were added, and those that a release names which serves, may serve
/// again at once or is not settled.
pub fn claims(app: &App) -> impl Iterator<Item = &HostName> {
    let releases = app.releases.values().filter(|release| {
        app.serving == Some(release.number) || app.warm == Some(release.number) || !release.phase.is_settled()
    });
    app.domains.iter().chain(releases.flat_map(|release| &release.manifest.http.hosts))
}

/// The hosts that requests for the app come in by: its own and those of the release that serves; none while that is not public.
#[must_use]
pub fn serving_hosts(app: &App) -> Vec<String> {
    if app.serving_release().is_some_and(|release| release.manifest.http.internal) {
        return Vec::new();
    }
    let named = app.serving_release().into_iter().flat_map(|release| &release.manifest.http.hosts);
    let all = app.domains.iter().chain(named).map(|host| host.as_str().to_owned());
    all.chain([default_host(&app.id)]).collect::<BTreeSet<String>>().into_iter().collect()
}

/// Where in the journal the app's routing last changed: a snapshot of that generation or a later one shows it as it is.
#[must_use]
pub fn changed_at(app: &App) -> Position {
    let reachable = app.instances.values().filter(|it| it.process.is_web() && it.port.is_some());
    reachable.map(|it| it.routing_changed_at).max().unwrap_or(0)
}

/// Whether `newer` has to be published after `last`: it says something else, or an instance's place changed since and changed
/// back, which what waits for the generation must learn.
#[must_use]
pub fn must_publish(last: &Snapshot, newer: &Snapshot, state: &State) -> bool {
    newer.apps != last.apps
        || newer.certificates != last.certificates
        || newer.challenges != last.challenges
        || state.apps.values().any(|app| changed_at(app) > last.generation.0)
}

/// Whether `last` does not show `app` as it is: [`must_publish`] for one app.
#[must_use]
pub fn is_behind(last: &Snapshot, app: &App) -> bool {
    let route = (app.life != Life::Destroyed).then(|| app_route(app));
    route.as_ref() != last.apps.get(&app.id) || changed_at(app) > last.generation.0
}

/// The routing snapshot for `state`.
#[must_use]
pub fn snapshot(state: &State) -> Snapshot {
    let alive = state.apps.values().filter(|app| app.life != Life::Destroyed);
    let apps: BTreeMap<AppId, AppRoute> = alive.map(|app| (app.id.clone(), app_route(app))).collect();
    let (certificates, challenges) = (certificate::routes(state), certificate::challenges(state));
    Snapshot { certificates, challenges, ..Snapshot::new(Generation(state.position), apps) }
}

fn app_route(app: &App) -> AppRoute {
    let asleep = app.asleep.is_some();
    let backends = app.instances.iter().filter(|(_, it)| it.process.is_web()).filter_map(|(&ordinal, it)| {
        let role = if app.routed.contains(&ordinal) {
            Role::Routed
        } else if it.is_wanted() && Some(it.release) != app.warm && !(asleep && is_put_to_sleep(app, it)) {
            Role::Candidate
        } else {
            Role::Parked
        };
        let release = app.release(it.release)?;
        Some(Backend {
            instance: app.id.instance(it.process.clone(), ordinal),
            endpoint: endpoint(it)?,
            role,
            probe: probe(release),
            concurrency: release.manifest.http.concurrency,
            request_timeout: release.manifest.http.request_timeout,
            protocol: release.manifest.http.protocol,
        })
    });
    let web_wanted =
        app.scale.iter().find(|(process, _)| process.is_web()).is_none_or(|(_, &count)| count > 0);
    // An app that goes is at no host any more, while what was sent to it is waited for.
    let hosts = if app.life == Life::Alive { serving_hosts(app) } else { Vec::new() };
    let address = names::address(app.slot).filter(|_| app.life == Life::Alive);
    AppRoute {
        hosts: hosts.into_iter().map(Host).collect(),
        backends: backends.collect(),
        hold: hold(app).filter(|_| web_wanted).unwrap_or_default(),
        rate_limits: ruling(app).map(|it| it.manifest.http.rate_limits.clone()).unwrap_or_default(),
        routes: ruling(app).map(|it| it.manifest.http.routes.clone()).unwrap_or_default(),
        cache: cache(app),
        gate: app.gate,
        address,
        https: app.serving_release().map(|release| https(&release.manifest.http)).unwrap_or_default(),
        shares: shares(app),
        asleep: app.asleep.map(|asleep| Generation(asleep.position)),
    }
}

fn https(http: &Http) -> Https {
    let hsts = http.hsts.map_or(0, |time| u32::try_from(time.as_duration().as_secs()).unwrap_or(u32::MAX));
    Https { force: http.force_https.unwrap_or(true), hsts }
}

/// The release whose rules requests to the app are held to: the newest that gets any. So its rules are in force by the time it is said to serve.
fn ruling(app: &App) -> Option<&Release> {
    let routed = app.instances.iter().filter(|(ordinal, _)| app.routed.contains(ordinal));
    let newest = routed.map(|(_, it)| it.release).max();
    newest.or(app.serving).and_then(|number| app.release(number)).map(AsRef::as_ref)
}

/// What answers are stored in: nothing while two releases get requests, since nobody could say of which one an answer is.
fn cache(app: &App) -> Option<CacheRoute> {
    let routed = app.instances.iter().filter(|(ordinal, _)| app.routed.contains(ordinal));
    let mut releases = routed.map(|(_, it)| it.release);
    // One that sleeps, or whose instances change, has what it had.
    let release = releases.next().or(app.serving)?;
    let cache = app.release(release)?.manifest.http.cache.as_ref()?;
    let alone = releases.all(|it| it == release) && app.split.is_none();
    alone.then_some(CacheRoute { release, size: cache.size, max_body: cache.max_body })
}

/// How requests are shared, the other release's share first: see [`berth_routing::split::choose`].
fn shares(app: &App) -> Vec<Share> {
    let Some((split, serving)) = app.split.zip(app.serving) else { return Vec::new() };
    let of = |release: ReleaseNumber| {
        app.routed.iter().copied().filter(|it| app.instances[it].release == release).collect()
    };
    vec![
        Share { release: split.release, percent: split.percent, instances: of(split.release) },
        Share { release: serving, percent: 100 - split.percent.min(100), instances: of(serving) },
    ]
}

/// How long a request waits for an instance, where a release serves that may have one.
fn hold(app: &App) -> Option<Millis> {
    let sleeps = app.serving_release()?.manifest.sleep().is_some();
    Some(if sleeps { WAKE_HOLD } else { HOLD })
}

/// Where the instance is reached, once it has a port.
fn endpoint(instance: &Instance) -> Option<Endpoint> {
    let port = instance.port?;
    Some(match &instance.dialer {
        Some(name) => Endpoint::Dialer { name: name.clone(), port },
        None => Endpoint::Tcp { addr: SocketAddr::from((Ipv4Addr::LOCALHOST, port)) },
    })
}

fn probe(release: &Release) -> Probe {
    let readiness = &release.manifest.http.readiness;
    // What the manifest says counts; else what the image's author wrote.
    let path = readiness.path.as_ref().map(|path| path.as_str().to_owned());
    let path = path.or_else(|| release.asked_by_image().map(str::to_owned));
    Probe {
        path: path.map_or(ProbePath::Guess, ProbePath::Strict),
        interval: readiness.interval,
        timeout: readiness.timeout,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Wish;
    use crate::scene::Scene;

    #[test]
    fn an_app_that_goes_is_at_no_host_while_it_drains() {
        let mut scene = Scene::serving(&["web"], 1, None);
        let before = app_route(scene.app());
        assert_eq!(before.hosts, [Host("shop.localhost".to_owned())]);
        assert_eq!(before.address, names::address(scene.app().slot));
        scene.wish(Wish::Destroy { volumes: false });
        let route = app_route(scene.app());
        assert_eq!((route.hosts.len(), route.backends.len()), (0, 1), "it was told at once");
        assert_eq!(route.address, None, "nor does its name lead to it");
    }

    #[test]
    fn an_app_that_is_not_public_is_at_no_host_and_has_its_name() {
        let scene = Scene::serving(&["web"], 1, None);
        let mut app = scene.app().clone();
        for release in app.releases.values_mut() {
            std::sync::Arc::make_mut(release).manifest.http.internal = true;
        }
        let route = app_route(&app);
        assert_eq!((route.hosts.len(), route.backends.len()), (0, 1));
        assert_eq!(route.address, names::address(app.slot));
    }

    #[test]
    fn the_newest_release_that_gets_requests_says_how_often_one_may_ask() {
        let scene = Scene::serving(&["web"], 1, None);
        let mut app = scene.app().clone();
        assert_eq!(app_route(&app).rate_limits, []);
        let text = "[[http.rate_limit]]\nrequests = 5\nper = \"1m\"\nby = \"ip\"\n";
        let limited = berth_spec::Manifest::parse(text).unwrap().http;
        let release = std::sync::Arc::make_mut(app.releases.values_mut().next().unwrap());
        release.manifest.http.rate_limits.clone_from(&limited.rate_limits);
        assert_eq!(app_route(&app).rate_limits, limited.rate_limits);
        // It takes over: its instances are routed, and that it serves is not said yet.
        app.serving = None;
        assert_eq!(app_route(&app).rate_limits, limited.rate_limits);
        app.routed.clear();
        assert_eq!(app_route(&app).rate_limits, []);
    }

    #[test]
    fn answers_are_stored_of_one_release_at_a_time() {
        let scene = Scene::serving(&["web"], 2, None);
        let mut app = scene.app().clone();
        assert_eq!(app_route(&app).cache, None);
        let number = *app.releases.keys().next().unwrap();
        let http = berth_spec::Manifest::parse("[http.cache]\n").unwrap().http;
        std::sync::Arc::make_mut(app.releases.get_mut(&number).unwrap()).manifest.http.cache = http.cache;
        assert_eq!(app_route(&app).cache.map(|it| it.release), Some(number));
        let mut both = app.clone();
        let newer = berth_spec::ReleaseNumber(number.0 + 1);
        let release = both.releases[&number].clone();
        both.releases.insert(newer, release);
        let last = *both.routed.iter().next_back().unwrap();
        both.instances.get_mut(&last).unwrap().release = newer;
        assert_eq!(app_route(&both).cache, None, "two releases get requests");
        app.routed.clear();
        assert_eq!(app_route(&app).cache.map(|it| it.release), Some(number), "as when it sleeps");
        app.serving = None;
        assert_eq!(app_route(&app).cache, None);
    }

    #[test]
    fn a_default_host_names_its_app() {
        for id in ["default/default/shop", "acme/prod/shop", "default/prod/shop"] {
            let id: AppId = id.parse().unwrap();
            assert_eq!(named_by_default(&default_host(&id).parse().unwrap()), Some(id));
        }
        let others = [
            "localhost",
            "a.b.localhost",
            "shop.default.default.localhost",
            "1.localhost",
            "shop.example.com",
        ];
        for host in others {
            assert_eq!(named_by_default(&host.parse().unwrap()), None, "{host}");
        }
    }
}
