//! What runs in the guest: what depends on control groups, as root and as an ordinary user who was given a part of them, and what depends on a file
//! system that has quotas of projects.
//!
//! Not everything: a translated processor is slow, and what touches neither is the same on any machine.

/// As whom a suite runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whom {
    /// Root, below a group of a service, which holds what started the tests too.
    Root,
    /// An ordinary user, in a group that is his own, as systemd's `Delegate=yes` gives it.
    Ordinary,
}

/// Tests of one program.
#[derive(Debug, Clone, Copy)]
pub(super) struct Suite {
    pub(super) name: &'static str,
    /// The folder of the crate.
    pub(super) folder: &'static str,
    /// What cargo calls the program.
    pub(super) target: &'static str,
    pub(super) whom: Whom,
    /// Every test that has one of these in its name.
    pub(super) tests: &'static [&'static str],
    /// Where its files lie.
    pub(super) dir: &'static str,
}

/// On the disk with ext4.
const ON_EXT4: &str = "/tmp";
/// On the disk with XFS.
pub(super) const ON_XFS: &str = "/xfs";

/// How groups are found, made, limited and removed.
const GROUPS: &[&str] = &["cgroup::"];
/// How whole trees end.
const TREES: &[&str] =
    &["control_group", "known_root_and_its_group", "bounded_group", "keeps_forking", "whose_leader_ended"];
/// Instances: their limits and bombs, that they stand still, that nothing of them is left, and that the next control finds them.
const INSTANCES: &[&str] = &[
    "the_suite_is_whole",
    "limits::processes_are_limited",
    "limits::memory_is_limited",
    "limits::a_child_that_ran_out",
    "limits::runtimes_find_their_limits",
    "freezing::it_stands_still",
    "freezing::it_can_be_stopped",
    "clearing::nothing_is_left",
    "controls::one_whose_shim_died",
    "controls::what_no_record_knows",
    "controls::what_was_adopted",
    "controls::going_down",
    "exits::what_it_left_behind",
    "stops::children_that_left",
    "lives::what_left_the_session",
    "floods::a_fork_bomb",
    "floods::a_memory_bomb",
];
/// Forty instances, which takes its time.
const KILLS: &[&str] = &["lives::a_shim_that_is_killed_at_any_moment"];
/// Builds: their limits, and that nothing of them is left.
const BUILDS: &[&str] =
    &["daemon_that_a_build_leaves", "takes_its_builds_along", "runs_out_of_memory", "a_fork_bomb"];
const JOURNEY: &[&str] = &["a_platform_on_version_two_alone"];
/// Volumes are kept to their sizes, by the file system and on a platform.
const PROJECTS: &[&str] = &["quota::"];
const SIZES: &[&str] = &["a_volume_is_kept_to_its_size"];

const fn suite(
    name: &'static str,
    program: (&'static str, &'static str),
    whom: Whom,
    tests: &'static [&'static str],
) -> Suite {
    Suite { name, folder: program.0, target: program.1, whom, tests, dir: ON_EXT4 }
}

/// What takes longest comes first, so that it ends beside something else.
pub(super) const PLAN: &[Suite] = &[
    suite("root-quota-journey", ("acceptance", "quotas"), Whom::Root, SIZES),
    suite("root-journey", ("acceptance", "unified"), Whom::Root, JOURNEY),
    suite("user-journey", ("acceptance", "unified"), Whom::Ordinary, JOURNEY),
    suite("root-kills", ("runtime", "sandbox"), Whom::Root, KILLS),
    suite("root-quota", ("volume", "berth_volume"), Whom::Root, PROJECTS),
    Suite { dir: ON_XFS, ..suite("root-quota-xfs", ("volume", "berth_volume"), Whom::Root, PROJECTS) },
    suite("root-groups", ("process", "berth_process"), Whom::Root, GROUPS),
    suite("user-groups", ("process", "berth_process"), Whom::Ordinary, GROUPS),
    suite("root-trees", ("process", "children"), Whom::Root, TREES),
    suite("user-trees", ("process", "children"), Whom::Ordinary, TREES),
    suite("root-instances", ("runtime", "sandbox"), Whom::Root, INSTANCES),
    suite("user-instances", ("runtime", "sandbox"), Whom::Ordinary, INSTANCES),
    suite("root-builds", ("build", "enclosed"), Whom::Root, BUILDS),
    suite("user-builds", ("build", "enclosed"), Whom::Ordinary, BUILDS),
];

impl Suite {
    /// Whether the test is one of it. What plays a role for another test is none.
    pub(super) fn has(&self, test: &str) -> bool {
        let plays = test.rsplit("::").next().is_some_and(|name| name.starts_with("role_"));
        !plays && self.tests.iter().any(|part| test.contains(part))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_told_apart_and_are_single_words() {
        let names: BTreeSet<&str> = PLAN.iter().map(|suite| suite.name).collect();
        assert_eq!(names.len(), PLAN.len());
        assert!(names.iter().all(|name| !name.contains(char::is_whitespace)));
    }

    #[test]
    fn what_plays_a_role_is_no_test() {
        let suite = suite("a", ("b", "c"), Whom::Root, &["floods::"]);
        assert!(suite.has("attacks::floods::a_bomb"));
        assert!(!suite.has("attacks::floods::role_bomb") && !suite.has("attacks::escapes::a_mount"));
    }
}
