//! What a release has that the one before had not, in words.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::state::Release;

/// How many names a line gives before it only counts.
const NAMED: usize = 4;

/// How one source tree differs from another, by the paths of files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceDiff {
    /// Files that are only in the newer.
    pub added: Vec<String>,
    /// Files that are in both and differ.
    pub changed: Vec<String>,
    /// Files that are only in the older.
    pub removed: Vec<String>,
}

/// What `new` has changed since `old`, a line for each kind of change; one line that says so where nothing has. Values are never told, since they may be
/// secret. `source` is how the trees differ, where that is known.
#[must_use]
pub fn changed(old: &Release, new: &Release, source: Option<&SourceDiff>) -> Vec<String> {
    let mut lines = Vec::new();
    match source {
        _ if old.tree == new.tree => {}
        Some(diff) => lines.push(format!(
            "source: {}",
            kinds([("changed", &diff.changed), ("new", &diff.added), ("gone", &diff.removed)])
        )),
        None => lines.push("source: another one".to_owned()),
    }
    let config = Named::of(&old.config, &new.config);
    if let Some(words) = config.words() {
        lines.push(format!("configuration: {words}"));
    }
    let secrets = Named::of(&old.secrets, &new.secrets);
    if let Some(words) = secrets.words() {
        lines.push(format!("secrets: {words}"));
    }
    let (old_manifest, new_manifest) = (keys(old), keys(new));
    if let Some(words) = Named::of(&old_manifest, &new_manifest).words() {
        lines.push(format!("berth.toml: {words}"));
    }
    if let (Some(before), Some(now)) = (&old.artifact, &new.artifact) {
        let commands = now.processes.iter().filter(|(process, command)| {
            before.processes.get(*process).is_some_and(|before| before != *command)
        });
        lines.extend(commands.map(|(process, command)| {
            let before = before.processes.get(process).map(ToString::to_string).unwrap_or_default();
            format!("command of {process}: `{command}`, was `{before}`")
        }));
        // Versions of tools and what was detected: the builder's own words.
        let known: BTreeSet<&String> = before.why.iter().collect();
        lines.extend(
            now.why.iter().filter(|why| !known.contains(why)).take(NAMED).map(|why| format!("build: {why}")),
        );
    }
    if lines.is_empty() {
        lines.push("nothing: source, configuration, secrets and berth.toml are the same".to_owned());
    }
    lines
}

/// What differs between two maps, by name.
#[derive(Debug, Default)]
struct Named {
    changed: Vec<String>,
    added: Vec<String>,
    removed: Vec<String>,
}

impl Named {
    fn of<K: Ord + ToString, V: PartialEq>(old: &BTreeMap<K, V>, new: &BTreeMap<K, V>) -> Self {
        let mut named = Self::default();
        for (name, value) in new {
            match old.get(name) {
                None => named.added.push(name.to_string()),
                Some(before) if before != value => named.changed.push(name.to_string()),
                Some(_) => {}
            }
        }
        named.removed = old.keys().filter(|name| !new.contains_key(name)).map(ToString::to_string).collect();
        named
    }

    fn words(&self) -> Option<String> {
        let kinds = kinds([("changed", &self.changed), ("new", &self.added), ("gone", &self.removed)]);
        (!kinds.is_empty()).then_some(kinds)
    }
}

/// `2 changed (a, b), 1 new (c)`.
fn kinds<const N: usize>(kinds: [(&str, &Vec<String>); N]) -> String {
    let told = kinds.into_iter().filter(|(_, names)| !names.is_empty()).map(|(kind, names)| {
        let rest = if names.len() > NAMED { ", ..." } else { "" };
        let some: Vec<&str> = names.iter().take(NAMED).map(String::as_str).collect();
        format!("{} {kind} ({}{rest})", names.len(), some.join(", "))
    });
    told.collect::<Vec<_>>().join(", ")
}

/// The manifest's keys as one writes them, `http.port`, with their values; what stands on its own elsewhere is left out.
fn keys(release: &Release) -> BTreeMap<String, Value> {
    let mut keys = BTreeMap::new();
    let manifest = serde_json::to_value(&release.manifest).unwrap_or_default();
    flatten(&manifest, String::new(), &mut keys);
    keys
}

fn flatten(value: &Value, path: String, keys: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(value, below, keys);
            }
        }
        // A key that is not given and one that is nothing are the same to people.
        Value::Null => {}
        other => drop(keys.insert(path, other.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scene::{Scene, artifact, v};

    fn release() -> Release {
        let scene = Scene::serving(&["web"], 1, None);
        Release::clone(scene.app().release(v(1)).unwrap())
    }

    #[test]
    fn each_kind_of_change_is_told_and_no_value() {
        let old = release();
        assert_eq!(
            changed(&old, &old, None),
            ["nothing: source, configuration, secrets and berth.toml are the same"]
        );
        let mut new = old.clone();
        new.tree = "another".to_owned();
        new.config = [("A".parse().unwrap(), "hunter2".to_owned())].into();
        new.secrets = [("API_KEY".parse().unwrap(), 2)].into();
        new.manifest.http.readiness.grace = berth_spec::Millis(1);
        let mut built = artifact("a-2", &["web"]);
        built.why = vec!["building with Node 22".to_owned()];
        new.artifact = Some(built);
        let five = || (0..5).map(|index| format!("f{index}")).collect();
        let diff = SourceDiff { changed: vec!["src/app.js".into()], added: five(), removed: Vec::new() };
        let lines = changed(&old, &new, Some(&diff));
        assert_eq!(lines[0], "source: 1 changed (src/app.js), 5 new (f0, f1, f2, f3, ...)");
        assert_eq!(lines[1], "configuration: 1 new (A)");
        assert_eq!(lines[2], "secrets: 1 new (API_KEY)");
        assert_eq!(lines[3], "berth.toml: 1 changed (http.readiness.grace)");
        assert!(lines.contains(&"build: building with Node 22".to_owned()), "{lines:?}");
        assert!(!lines.join("").contains("hunter2"));
        assert_eq!(changed(&old, &new, None)[0], "source: another one");
    }
}
