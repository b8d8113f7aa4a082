//! Tests of commands: what is split, what needs a shell, what is refused.

use proptest::prelude::*;

use super::*;

fn env() -> BTreeMap<String, String> {
    [("PORT", "8080"), ("FLAGS", " -a  -b "), ("EMPTY", ""), ("SPACED", "a b")]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn argv(line: &str) -> Vec<String> {
    let command = Command::parse(line).unwrap();
    assert!(matches!(command, Command::Line(_)), "{line:?} needs a shell");
    command.argv(&env()).unwrap()
}

#[test]
fn lines_split_as_sh_splits_them() {
    let table: [(&str, &[&str]); 22] = [
        ("bin/server", &["bin/server"]),
        ("  bin/server\t--port  $PORT \n", &["bin/server", "--port", "8080"]),
        ("a --port=${PORT}x", &["a", "--port=8080x"]),
        ("a '$PORT' \"$PORT\"", &["a", "$PORT", "8080"]),
        ("a x$FLAGS'y'", &["a", "x", "-a", "-b", "y"]),
        ("a \"x$FLAGS\"", &["a", "x -a  -b "]),
        ("a $EMPTY $UNSET ''", &["a", ""]),
        ("a \"$EMPTY\"", &["a", ""]),
        ("a $SPACED$SPACED", &["a", "a", "ba", "b"]),
        ("a b\\ c 'd'\"e\"f", &["a", "b c", "def"]),
        ("a \"x\\\"\\$\\`\\\\\\n\"", &["a", "x\"$`\\\\n"]),
        ("a 'x\\'", &["a", "x\\"]),
        ("a \"x\ny\"", &["a", "x\ny"]),
        ("a x\\\ny \"x\\\ny\" 'x\\\ny' $PO\\\nRT", &["a", "xy", "xy", "x\\\ny", "8080"]),
        ("a \\| \\; \\* '&&' \">\"", &["a", "|", ";", "*", "&&", ">"]),
        ("a b#c d~e {x,y} x=1 % ^ !", &["a", "b#c", "d~e", "{x,y}", "x=1", "%", "^", "!"]),
        ("a $ \"b$\" c$/d", &["a", "$", "b$", "c$/d"]),
        ("'if' x", &["if", "x"]),
        ("A\\=1 x", &["A=1", "x"]),
        ("\"my program\" é", &["my program", "é"]),
        ("echo hi", &["echo", "hi"]),
        ("$PORT", &["8080"]),
    ];
    for (line, expected) in table {
        assert_eq!(argv(line), expected, "{line:?}");
    }
}

#[test]
fn what_needs_a_shell_gets_one() {
    for line in [
        "a && b",
        "a | b",
        "a > b",
        "a < b",
        "a; b",
        "a &",
        "`a`",
        "a $(b)",
        "a \"$(b)\"",
        "a \"`b`\"",
        "(a)",
        "a *.txt",
        "a b?",
        "a [ab]",
        "A=1 a",
        "A= a",
        "a\nb",
        "a # b",
        "a ~/x",
        "~/a",
        "${A:-b}",
        "${",
        "a ${A",
        "a $1",
        "a $$",
        "a $?",
        "a $'x'",
        "exec a",
        "cd a",
        "if a",
        "! a",
        "{ a",
        ". a",
        "a $((1+1))",
    ] {
        let command = Command::parse(line).unwrap();
        assert_eq!(command, Command::Shell(line.to_owned()));
        assert_eq!(command.argv(&env()).unwrap(), ["/bin/sh", "-c", line]);
    }
}

#[test]
fn what_cannot_start_is_refused() {
    let unclosed = |mark, column| CommandError::Unclosed { mark, column };
    let table = [
        ("", CommandError::Empty),
        (" \n\t", CommandError::Empty),
        ("''", CommandError::Empty),
        ("\"\" a", CommandError::Empty),
        ("a\0b", CommandError::Nul),
        ("-rf /", CommandError::Dash('-')),
        ("+x && a", CommandError::Dash('+')),
        ("a 'b", unclosed('\'', 3)),
        ("a \"b", unclosed('"', 3)),
        ("a \\", CommandError::TrailingBackslash),
    ];
    for (line, expected) in table {
        assert_eq!(Command::parse(line).unwrap_err(), expected, "{line:?}");
    }
    let long = "a".repeat(COMMAND_MAX + 1);
    assert_eq!(Command::parse(&long).unwrap_err(), CommandError::TooLong(COMMAND_MAX));
}

#[test]
fn what_expands_to_nothing_startable_is_refused_at_start() {
    let start = |line: &str| Command::parse(line).unwrap().argv(&env());
    assert_eq!(start("$UNSET").unwrap_err(), CommandError::Empty);
    assert_eq!(start("\"$UNSET\" a").unwrap_err(), CommandError::Empty);
    assert_eq!(start("$FLAGS").unwrap_err(), CommandError::Dash('-'));
    let large = BTreeMap::from([("A".to_owned(), "x".repeat(100_000))]);
    let many = Command::parse(&"$A".repeat(8_000)).unwrap();
    assert_eq!(many.argv(&large).unwrap_err(), CommandError::TooLong(EXPANDED_MAX));
}

#[test]
fn arrays_are_taken_as_they_are() {
    let array = |words: &[&str]| Command::from_argv(words.iter().map(|&word| word.to_owned()).collect());
    assert_eq!(array(&["a", "$PORT", "", "&&"]).unwrap().argv(&env()).unwrap(), ["a", "$PORT", "", "&&"]);
    assert_eq!(array(&[]).unwrap_err(), CommandError::Empty);
    assert_eq!(array(&["", "a"]).unwrap_err(), CommandError::Empty);
    assert_eq!(array(&["a", "b\0"]).unwrap_err(), CommandError::Nul);
    assert_eq!(array(&["-a"]).unwrap_err(), CommandError::Dash('-'));
}

#[test]
fn the_stored_form_stays_and_is_checked_when_read() {
    let root = RelativeDir::new("./public/").unwrap();
    let table = [
        (Command::parse("a $B").unwrap(), r#"{"line":"a $B"}"#),
        (Command::parse("a && b").unwrap(), r#"{"shell":"a && b"}"#),
        (Command::from_argv(vec!["a".into()]).unwrap(), r#"{"argv":["a"]}"#),
        (
            Command::StaticSite { root: root.clone(), single_page: false },
            r#"{"static_site":{"root":"public"}}"#,
        ),
        (
            Command::StaticSite { root, single_page: true },
            r#"{"static_site":{"root":"public","single_page":true}}"#,
        ),
    ];
    for (command, json) in table {
        assert_eq!(serde_json::to_string(&command).unwrap(), json);
        assert_eq!(serde_json::from_str::<Command>(json).unwrap(), command);
    }
    for bad in [
        r#"{"line":""}"#,
        r#"{"argv":[]}"#,
        r#"{"shell":"-c"}"#,
        r#"{"static_site":{"root":"../x"}}"#,
        r#"{"static_site":{"root":"/etc"}}"#,
        r#"{"other":"x"}"#,
    ] {
        assert!(serde_json::from_str::<Command>(bad).is_err(), "{bad}");
    }
}

/// Quotes a word for a shell, the way every shell agrees on.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

proptest! {
    #[test]
    fn quoted_words_come_back(words in prop::collection::vec("[^\0]{0,12}", 1..6)) {
        prop_assume!(!words[0].is_empty() && !words[0].starts_with('-'));
        let line = words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ");
        prop_assert_eq!(argv(&line), words);
    }

    #[test]
    fn nothing_an_attacker_puts_in_a_variable_becomes_syntax(value in "[^\0]{0,40}") {
        let env = BTreeMap::from([("V".to_owned(), value.clone())]);
        let command = Command::parse("run \"$V\" '$V' x\"$V\"y").unwrap();
        prop_assert_eq!(
            command.argv(&env).unwrap(),
            ["run".to_owned(), value.clone(), "$V".to_owned(), format!("x{value}y")]
        );
    }

    #[test]
    fn any_text_is_a_command_or_an_error(text in any::<String>(), value in any::<String>()) {
        let env = BTreeMap::from([("A".to_owned(), value)]);
        if let Ok(command) = Command::parse(&text) {
            if let Ok(argv) = command.argv(&env) {
                prop_assert!(!argv[0].is_empty() && !argv[0].starts_with('-'));
            }
            let json = serde_json::to_string(&command).unwrap();
            prop_assert_eq!(serde_json::from_str::<Command>(&json).unwrap(), command);
        }
    }

    #[test]
    fn any_shell_like_text_is_a_command_or_an_error(text in "[ab $'\"\\\\{}\n;A=]{0,24}") {
        if let Ok(command) = Command::parse(&text) {
            drop(command.argv(&BTreeMap::new()));
        }
    }

    #[test]
    fn a_relative_dir_never_leaves(text in "[./a\\\\\0-]{0,12}") {
        if let Ok(dir) = RelativeDir::new(&text) {
            prop_assert!(!dir.as_str().starts_with('/'));
            prop_assert!(dir.as_str().split('/').all(|segment| !segment.is_empty() && segment != ".."));
        }
    }
}
