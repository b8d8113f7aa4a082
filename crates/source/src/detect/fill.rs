//! Making commands of the lines of rules, so that nothing of a tree's text is ever more than one word of them.

use std::collections::BTreeMap;

use berth_spec::Command;

use super::view::Value;
use super::{NothingFits, unclear};

/// The command of a rule's `line`, with what is known in the place of its `{names}`, run in the folder `dir`.
pub(super) fn fill(
    line: &str,
    values: &BTreeMap<&'static str, Value>,
    dir: &str,
) -> Result<Command, NothingFits> {
    let mut words = line.split(' ').map(|word| fill_word(word, values)).collect::<Result<Vec<_>, _>>()?;
    if !dir.is_empty() {
        // `env` changes the folder and is then replaced by the program: no process of ours stays between.
        words.splice(0..0, ["env".to_owned(), "-C".to_owned(), quoted(dir)]);
    }
    parsed(&words.join(" "), line)
}

/// A script of the tenant's as a command, run in the folder `dir`. What in it needs a shell gets one of its own.
pub(super) fn script(text: &str, dir: &str) -> Result<Command, NothingFits> {
    let command = parsed(text, text)?;
    if dir.is_empty() {
        return Ok(command);
    }
    match command {
        Command::Shell(text) => {
            let words = ["env", "-C", dir, "/bin/sh", "-c", &text];
            Command::from_argv(words.map(str::to_owned).to_vec()).map_err(|bad| cannot_run(&text, &bad))
        }
        _ => parsed(&format!("env -C {} {}", quoted(dir), text.trim()), text),
    }
}

/// A line of ours that takes `arguments` as `"$@"`.
pub(super) fn with_arguments(line: &str, arguments: &[String]) -> Result<Command, NothingFits> {
    let words = ["/bin/sh", "-c", line, "sh"].map(str::to_owned).into_iter().chain(arguments.iter().cloned());
    Command::from_argv(words.collect()).map_err(|bad| cannot_run(line, &bad))
}

fn parsed(text: &str, shown: &str) -> Result<Command, NothingFits> {
    Command::parse(text).map_err(|bad| cannot_run(shown, &bad))
}

fn cannot_run(text: &str, bad: &berth_spec::CommandError) -> NothingFits {
    let shown: String = text.chars().take(80).collect();
    unclear(format!("`{shown}` cannot be run: {bad}"))
}

fn fill_word(word: &str, values: &BTreeMap<&'static str, Value>) -> Result<String, NothingFits> {
    let mut filled = String::new();
    let mut rest = word;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, behind)) = after.split_once('}') else {
            break;
        };
        let value = values.get(name).ok_or_else(|| unclear(format!("the app's {name} is not known")))?;
        filled.push_str(before);
        filled.push_str(&quoted(&value.text));
        rest = behind;
    }
    filled.push_str(rest);
    Ok(filled)
}

/// `word` so that it stays one word of a line, and nothing in it is expanded.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./:@%+,-".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_value_is_one_word_whatever_it_holds(text in "[^\0]{1,40}", dir in "[a-z '$;]{0,6}") {
            let value = Value { text: text.clone(), seen: String::new() };
            let values = BTreeMap::from([("file", value)]);
            let command = fill("node --x={file} {file}", &values, &dir).unwrap();
            prop_assert!(matches!(command, Command::Line(_)), "{:?}", command);
            let argv = command.argv(&BTreeMap::from([("x".to_owned(), "y".to_owned())])).unwrap();
            let start = if dir.is_empty() { 0 } else { 3 };
            prop_assert_eq!(&argv[start..], ["node".to_owned(), format!("--x={text}"), text]);
        }
    }
}
