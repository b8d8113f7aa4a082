//! Completion as shells do it: in bash for real; the scripts of the others are at least what their shells can read.

use std::path::Path;
use std::process::{Command, Output};

use berth_acceptance::{Options, Platform, berth};

#[expect(clippy::disallowed_methods, reason = "the shell of a person, not of the platform")]
#[expect(clippy::print_stderr, reason = "a test that is left out says so")]
fn shell(program: &str, arguments: &[&str], home: &Path) -> Option<Output> {
    let folder = berth().parent().expect("a file lies in a folder");
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", folder.display());
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", path).env("HOME", home).env("BERTH_HOME", home);
    match command.output() {
        Ok(output) => Some(output),
        Err(_) => {
            eprintln!("SKIPPED: {program} is not installed, so its completion was not tried");
            None
        }
    }
}

/// What bash does when Tab is pressed behind these words.
fn completed(home: &Path, words: &str) -> String {
    let script = format!(
        "source <(berth completions bash)\nCOMP_WORDS=({words})\nCOMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n\
         COMP_TYPE=9\n_clap_complete_berth berth \"${{COMP_WORDS[COMP_CWORD]}}\" x\necho \"${{COMPREPLY[@]}}\""
    );
    let output = shell("bash", &["--norc", "-c", &script], home).expect("bash is everywhere");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn verbs_apps_and_releases_are_completed() {
    let platform = Platform::start(Options::default());
    let site = platform.scratch().join("site");
    std::fs::create_dir(&site).expect("our directory");
    std::fs::write(site.join("index.html"), "<h1>shop</h1>").expect("our directory");
    let _deployed = platform.cli(["deploy", "--app", "shop", &site.display().to_string()]).ok();
    let home = platform.home();
    assert_eq!(completed(&home, "berth laun"), "launch");
    assert_eq!(completed(&home, "berth config im"), "import");
    assert_eq!(completed(&home, "berth logs --app ''"), "shop");
    assert!(completed(&home, "berth --app shop rollback ''").starts_with("v1 "));
    // A platform that is not there has no names, and nobody waits for it.
    assert_eq!(completed(Path::new("/nonexistent"), "berth logs --app ''"), "");
    for other in ["zsh", "fish"] {
        let script = platform.cli(["completions", other]).ok().stdout;
        let file = platform.scratch().join(other);
        std::fs::write(&file, script).expect("our directory");
        if let Some(output) = shell(other, &["-n", &file.display().to_string()], &home) {
            assert!(output.status.success(), "{other}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
