//! What is different between two releases.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use berth_contract::{Code, DiffQuery, Difference, Problem, ReleaseDiff, route};
use berth_control::state::{App, Phase, Release};
use berth_spec::{Manifest, ReleaseNumber};
use serde_json::Value;

use super::Api;
use super::auth::Principal;
use super::problem::{Query, Refused};
use super::releases::{ReleasePath, find_release};

#[utoipa::path(get, path = route::DIFF, tag = "releases", responses((status = 200, body = ReleaseDiff)),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path), ("number" = String, Path), DiffQuery))]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    principal: Principal,
    path: ReleasePath,
    Query(query): Query<DiffQuery>,
) -> Result<Json<ReleaseDiff>, Refused> {
    let (id, number) = find_release(&api, &principal, path)?;
    let app = api.desk.app(&id);
    let app = app.as_ref();
    let since = match query.since {
        Some(since) => app.and_then(|app| app.release(since)),
        None => app.and_then(|app| served_before(app, number)),
    };
    let gone = || {
        let which = query.since.map_or("that served before".to_owned(), |since| since.to_string());
        Problem::new(Code::ReleaseNotFound, format!("{id} has no release {which}"))
            .next("`berth releases` lists them")
    };
    let asked = app.and_then(|app| app.release(number));
    let (since, asked) = since.zip(asked).ok_or_else(gone)?;
    Ok(Json(difference(since, asked)))
}

/// The newest release before this one that served at some time.
fn served_before(app: &App, number: ReleaseNumber) -> Option<&Arc<Release>> {
    let served = app.releases.values().filter(|it| it.phase == Phase::Activated && it.number < number);
    served.max_by_key(|it| it.number)
}

/// Everything that a release is made of, once before and once after.
fn difference(since: &Release, asked: &Release) -> ReleaseDiff {
    ReleaseDiff {
        since: since.number,
        number: asked.number,
        source: compare(source(since), source(asked)),
        processes: compare(processes(since), processes(asked)),
        manifest: compare(keys(&since.manifest), keys(&asked.manifest)),
        config: compare(texts(&since.config), texts(&asked.config)),
        secrets: compare(texts(&since.secrets), texts(&asked.secrets)),
    }
}

type Named = BTreeMap<String, String>;

fn compare(mut before: Named, mut after: Named) -> Vec<Difference> {
    let names: BTreeSet<String> = before.keys().chain(after.keys()).cloned().collect();
    let both = names.into_iter().map(|name| Difference {
        before: before.remove(&name),
        after: after.remove(&name),
        name,
    });
    both.filter(|it| it.before != it.after).collect()
}

fn texts<K: ToString, V: ToString>(all: &BTreeMap<K, V>) -> Named {
    all.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

fn source(release: &Release) -> Named {
    let artifact = release.artifact.as_ref().map(|artifact| artifact.id.clone());
    let all =
        [("commit", release.commit.clone()), ("tree", Some(release.tree.clone())), ("artifact", artifact)];
    all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// As they run; those of the manifest, where it has some, before they are built.
fn processes(release: &Release) -> Named {
    texts(release.processes().unwrap_or(&release.manifest.processes))
}

/// The manifest's keys with their values, but for the processes, which are told by themselves.
fn keys(manifest: &Manifest) -> Named {
    let manifest = Manifest { processes: BTreeMap::new(), ..manifest.clone() };
    let mut found = Named::new();
    flatten("", &serde_json::to_value(manifest).unwrap_or_default(), &mut found);
    found
}

fn flatten(path: &str, value: &Value, found: &mut Named) {
    match value {
        Value::Null => {}
        Value::Object(table) => {
            for (key, value) in table {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, value, found);
            }
        }
        Value::String(text) => drop(found.insert(path.to_owned(), text.clone())),
        other => drop(found.insert(path.to_owned(), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(all: &[(&str, &str)]) -> Named {
        all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn only_what_differs_is_told() {
        let found = compare(
            named(&[("A", "1"), ("B", "1"), ("C", "1")]),
            named(&[("B", "2"), ("C", "1"), ("D", "1")]),
        );
        let told: Vec<(&str, Option<&str>, Option<&str>)> =
            found.iter().map(|it| (it.name.as_str(), it.before.as_deref(), it.after.as_deref())).collect();
        assert_eq!(told, [("A", Some("1"), None), ("B", Some("1"), Some("2")), ("D", None, Some("1"))]);
    }

    #[test]
    fn a_manifest_is_compared_key_by_key() {
        let one = Manifest::parse("[env]\nA = \"1\"\n[deploy]\ntimeout = \"5m\"\n").unwrap();
        let two = Manifest::parse("[env]\nA = \"2\"\n[http]\nhosts = [\"a.example\"]\n").unwrap();
        let names: Vec<String> = compare(keys(&one), keys(&two)).into_iter().map(|it| it.name).collect();
        assert_eq!(names, ["deploy.timeout", "env.A", "http.hosts"]);
    }
}
