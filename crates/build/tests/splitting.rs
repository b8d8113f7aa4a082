//! A line is split as `sh` splits it: the two are asked and compared.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use berth_process::{Ground, Launch, Stdio, User};
use berth_spec::Command;
use proptest::prelude::*;

/// Lines that may differ from their neighbours in every rule: quotes, escapes, variables set, empty and unset.
fn lines() -> impl Strategy<Value = Vec<String>> {
    let piece = prop::sample::select(vec![
        "a", "b", " ", " ", "\t", "\n", "'", "'", "\"", "\"", "\\", "$A", "$B", "${A}", "${E}", "$U", "$",
        "=", "#", "-", "~", "!", "{", "}", "é", "x=1", "%", "]", "\\\n", "$A$A", ",",
    ]);
    let line = prop::collection::vec(piece, 1..12).prop_map(|pieces| pieces.concat());
    prop::collection::vec(line, 200)
}

fn env() -> BTreeMap<String, String> {
    [("A", " one  two "), ("B", "t\tu"), ("E", "")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

/// What `sh` makes of each line as arguments: every argument ends in \x01, every line in \x02.
fn asked_of_sh(dir: &Path, lines: &[&str]) -> Vec<Vec<String>> {
    let mut script =
        "set -f\nf() { for zz in \"$@\"; do printf '%s\\001' \"$zz\"; done; printf '\\002'; }\n".to_owned();
    for line in lines {
        script.push_str(&format!("f {line}\n"));
    }
    std::fs::write(dir.join("script"), script).unwrap();
    let as_root = rustix::process::geteuid().is_root();
    let user = as_root.then(|| User { uid: 2_100_000_019, gid: 2_100_000_019, groups: vec![] });
    let ground = Ground::new(dir, user).unwrap();
    let launch = Launch::new(ground.shell(". ./script")).envs(env()).stdout(Stdio::Piped);
    let mut child = launch.start().unwrap();
    let mut output = String::new();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    assert!(child.wait().unwrap().success());
    let answers = output.split_terminator('\u{2}');
    answers.map(|answer| answer.split_terminator('\u{1}').map(str::to_owned).collect()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_line_is_split_as_sh_splits_it(lines in lines()) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let env = env();
        let split: Vec<(&str, Vec<String>)> = lines
            .iter()
            .filter_map(|line| match Command::parse(line).ok()? {
                Command::Line(kept) => Some((line.trim(), Command::Line(kept).argv(&env).ok()?)),
                Command::Argv(_) | Command::Shell(_) | Command::StaticSite { .. } => None,
            })
            .collect();
        prop_assert!(!split.is_empty());
        let (asked, ours): (Vec<&str>, Vec<Vec<String>>) = split.into_iter().unzip();
        let theirs = asked_of_sh(dir.path(), &asked);
        prop_assert_eq!(ours.len(), theirs.len());
        for ((line, ours), theirs) in asked.iter().zip(ours).zip(theirs) {
            prop_assert_eq!(ours, theirs, "{:?}", line);
        }
    }
}
