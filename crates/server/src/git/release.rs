//! A release of a commit: found, when it is there already, or submitted.

use std::sync::Arc;

use berth_contract::{Code, Problem, SubmitRelease};
use berth_control::command::{Command, Wish};
use berth_control::state::{App, Release};
use berth_source::archive::Unpacked;
use berth_spec::{ReleaseNumber, manifest, procfile};

use super::commit::ObjectId;
use crate::api::{Api, Refused, check_sizes, read_deploy};
use crate::desk::{Asker, RequestKey};

/// The release that serves or will serve next, if it is of this very commit: what was cut off after it was submitted comes again.
pub(super) fn under_way<'a>(app: &'a App, commit: &ObjectId, tree: &str) -> Option<&'a Arc<Release>> {
    let newest = app.releases.values().next_back().filter(|release| !release.phase.is_settled());
    let current = newest.or_else(|| app.serving_release());
    current.filter(|release| release.commit.as_deref() == Some(commit.as_str()) && release.tree == tree)
}

/// Submits a commit whose source is in the store.
///
/// # Errors
/// What an upload of the same source would be refused with.
pub(super) async fn submit(
    api: &Api,
    app: &App,
    asker: Asker,
    key: Option<RequestKey>,
    (commit, subject): (&ObjectId, String),
    mut source: Unpacked,
) -> Result<ReleaseNumber, Refused> {
    let mut text = |name: &str| {
        let bytes = source.texts.remove(name)?;
        let not_text = || Problem::new(Code::ManifestInvalid, format!("{name} is not UTF-8"));
        Some(String::from_utf8(bytes).map_err(|_invalid| not_text()))
    };
    let (manifest, procfile) =
        (text(manifest::FILE_NAME).transpose()?, text(procfile::FILE_NAME).transpose()?);
    let release = SubmitRelease {
        tree: source.tree.to_string().parse().expect("both crates write tree ids alike"),
        manifest,
        procfile,
        strategy: None,
        image: None,
        description: (!subject.is_empty()).then_some(subject),
        commit: Some(commit.as_str().to_owned()),
    };
    let mut deploy = read_deploy(&app.id, &release)?;
    check_sizes(&api.machine, &app.id, &deploy.manifest).await?;
    api.machine.pin_image(&app.id, &mut deploy).await?;
    let command = Command::App { app: app.id.clone(), wish: Wish::Deploy(Box::new(deploy)) };
    let outcome = api.desk.submit(command, asker, release.description, key).await?;
    Ok(outcome.release.ok_or_else(|| Problem::new(Code::Internal, "no release was made"))?)
}
