//! The command line as a whole: what is taken, what is refused, and every help text.

use std::path::Path;

use super::*;

fn parse(text: &str) -> Result<CommandLine, clap::Error> {
    read(text.split(' ').map(OsString::from))
}

#[test]
fn the_definition_is_sound() {
    definition().debug_assert();
}

#[test]
fn both_spellings_are_taken() {
    for text in ["berth config set A=b=c --app shop", "berth --json config:set -a shop A=b=c"] {
        let Verb::Config(ConfigArgs {
            action: Some(ConfigAction::Set(SetArgs { settings, of, .. })), ..
        }) = parse(text).unwrap().verb
        else {
            panic!("{text}");
        };
        assert_eq!((settings[0].as_str(), of.app.unwrap().as_str()), ("A=b=c", "shop"));
    }
    assert!(matches!(parse("berth secrets:list").unwrap().verb, Verb::Secrets(_)));
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for text in [
        "berth",
        "berth lunch",
        "berth apps --state broken",
        "berth scale web",
        "berth scale web=-1",
        "berth scale WEB=1",
        "berth rollback v0",
        "berth rollback latest",
        "berth logs --app ../x",
        "berth config set",
        "berth timeline --all --app shop",
        "berth status --home x --context y",
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
}

#[test]
fn every_verb_is_in_the_documentation() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    let page = std::fs::read_to_string(page).unwrap();
    for verb in definition().get_subcommands() {
        let row = format!("\n| `{}", verb.get_name());
        assert!(page.contains(&row), "docs/cli.md has no row for {}", verb.get_name());
    }
}

/// One file for each verb, so that a change of the command line is seen in review.
#[test]
fn help_golden() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contracts/cli");
    let mut expected = vec![("berth.txt".to_owned(), help(definition(), &[]))];
    for verb in definition().get_subcommands() {
        let name = verb.get_name();
        expected.push((format!("{name}.txt"), help(definition(), &[name])));
        for action in verb.get_subcommands() {
            let action = action.get_name();
            let text = help(definition(), &[name, action]);
            expected.push((format!("{name}-{action}.txt"), text));
        }
    }
    if std::env::var_os("BERTH_UPDATE_GOLDENS").is_some() {
        std::fs::create_dir_all(&directory).unwrap();
        for (file, text) in &expected {
            std::fs::write(directory.join(file), text).unwrap();
        }
    }
    for (file, text) in &expected {
        let golden = std::fs::read_to_string(directory.join(file)).unwrap_or_default();
        assert_eq!(&golden, text, "contracts/cli/{file} is stale: run with BERTH_UPDATE_GOLDENS=1");
    }
}

fn help(command: clap::Command, verbs: &[&str]) -> String {
    let arguments = std::iter::once("berth").chain(verbs.iter().copied()).chain(["--help"]);
    let shown = command.term_width(100).try_get_matches_from(arguments).unwrap_err();
    let text: Vec<String> = shown.to_string().lines().map(|line| line.trim_end().to_owned()).collect();
    text.join("\n") + "\n"
}
