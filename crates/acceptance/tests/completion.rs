//! Completion as shells do it, in each for real: bash is asked for its answer, fish too, and in zsh somebody types and presses Tab.

use std::path::Path;
use std::process::{Command, Output};

use berth_acceptance::{Options, Platform, berth};

#[expect(clippy::disallowed_methods, reason = "the shell of a person, not of the platform")]
#[expect(clippy::print_stderr, reason = "a test that is left out says so")]
fn shell(program: &str, arguments: &[&str], home: &Path) -> Option<Output> {
    let folder = berth().parent().expect("a file lies in a folder");
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", folder.display());
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", path)
        .env("TERM", "dumb")
        .env("HOME", home)
        .env("BERTH_HOME", home);
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

/// A person at a terminal: an interactive zsh, a line typed into it without its end, Tab, and a key that writes down what stands there then.
/// `$1` is the line, `$2` the file. A second of looking is twenty looks; nobody waits for more than two minutes.
const ZSH: &str = r#"
zmodload zsh/zpty
zpty person zsh -f -i
zpty -w person "PS1=; autoload -Uz compinit && compinit -u -D; source <(berth completions zsh)
show() { print -r -- \"\$BUFFER\" > $2; BUFFER= }; zle -N show; bindkey '^X' show; print > $2.ready"
# wait: until the file is there; what the terminal shows is read all the while, or the shell in it would stand still
await() { repeat 2400 { [[ -s $1 ]] && return; zpty -r -t person said; sleep 0.05 }; exit 1 }
await $2.ready
zpty -w -n person "$1"$'\t\x18'
await $2
zpty -d person
"#;

/// What stands in a zsh after Tab was pressed behind these words; nothing where there is no zsh.
fn typed_into_zsh(home: &Path, words: &str) -> Option<String> {
    let file = tempfile::NamedTempFile::new().expect("a temporary directory");
    let path = file.path().display().to_string();
    let output = shell("zsh", &["-f", "-c", ZSH, "zsh", words, &path], home)?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::remove_file(format!("{path}.ready")).expect("the shell was ready");
    Some(std::fs::read_to_string(file.path()).expect("it was written").trim().to_owned())
}

/// What fish offers behind these words, without what it says of each; nothing where there is no fish.
fn offered_by_fish(home: &Path, words: &str) -> Option<Vec<String>> {
    let script = format!("berth completions fish | source; complete -C '{words}'");
    let output = shell("fish", &["--no-config", "-c", &script], home)?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect())
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
    for (words, whole) in [
        ("berth laun", "berth launch"),
        ("berth config im", "berth config import"),
        ("berth logs --app ", "berth logs --app shop"),
        ("berth rollback --app shop v", "berth rollback --app shop v1"),
    ] {
        if let Some(typed) = typed_into_zsh(&home, words) {
            assert_eq!(typed, whole);
        }
        if let Some(offered) = offered_by_fish(&home, words) {
            let last = whole.rsplit(' ').next().expect("there are words");
            assert!(offered.iter().any(|word| word == last), "{words}: {offered:?}");
        }
    }
    if let Some(offered) = offered_by_fish(Path::new("/nonexistent"), "berth logs --app ") {
        assert!(!offered.contains(&"shop".to_owned()), "{offered:?}");
    }
}
