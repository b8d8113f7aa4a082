//! How many processes a build may have, by whatever counts them, and what is said when it wanted more.

use berth_process::{Cgroups, Controller};

use super::*;

/// Wants two hundred processes at once: no bomb, so that it ends also where nobody bounds it.
const MANY: &str = "i=0; while [ $i -lt 200 ]; do sleep 60 & i=$((i+1)); done";

#[tokio::test]
async fn a_control_group_bounds_a_build() {
    let groups = Cgroups::discover(&format!("berth-test-builds-{}", std::process::id()));
    let Some(groups) = groups.filter(|groups| groups.controllers().contains(&Controller::Processes)) else {
        println!("SKIPPED: control groups are not counted");
        return;
    };
    let place = Place::with(|config| {
        config.processes_max = 30;
        config.cgroups = Some(groups.clone());
    });
    assert_eq!(place.builder.processes_max(false), Some(30));
    let (outcome, said) = place.build(&[("app", "x")], &only(MANY)).await;
    assert!(matches!(outcome, Err(BuildError::Failed { .. })), "{outcome:?}\n{said}");
    assert!(said.contains("the build may have 30 processes at once, and wanted more"), "{said}");
    // One that keeps to it is told nothing.
    let (_, said) = place.must_build(&[("app", "x")], &only("sleep 0 & wait")).await;
    assert!(!said.contains("wanted more"), "{said}");
    assert_eq!(groups.names().unwrap(), Vec::<String>::new(), "the groups of builds go with them");
    groups.remove().unwrap();
}

#[tokio::test]
async fn where_no_control_group_counts_the_builds_own_user_does() {
    let place = Place::with(|config| config.processes_max = 30);
    assert_eq!((place.builder.processes_max(true), place.builder.processes_max(false)), (Some(30), None));
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: an ordinary user's builds have no user of their own");
        return;
    }
    // A user of this test's alone: the kernel counts all that one runs.
    let own = |request: &mut BuildRequest| {
        request.user = Some(User { uid: BUILD_UID + 40, gid: BUILD_UID + 40, groups: vec![APP_GID] });
    };
    let (outcome, said) = place.build_with(&[("app", "x")], &only(MANY), own).await;
    assert!(matches!(outcome, Err(BuildError::Failed { .. })), "{outcome:?}\n{said}");
}
