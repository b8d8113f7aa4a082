//! `[args]`: what the entrypoint of an image is given in place of the image's own command.

use std::collections::BTreeMap;

use super::read::{Section, expected, text};
use crate::command::Command;
use crate::name::{ProcessName, RELEASE_COMMAND_PROCESS, RUN_PROCESS};
use crate::problem::Wrong;

pub(super) fn read(
    section: &mut Section<'_, '_, '_>,
    processes: &BTreeMap<ProcessName, Command>,
    is_image: bool,
) -> BTreeMap<ProcessName, Vec<String>> {
    let mut all = BTreeMap::new();
    for (key, value) in section.table_at("args").into_iter().flatten() {
        let name = section.note(key.span(), name_of(key.get_ref(), processes, is_image));
        let words = value.get_ref().as_array().ok_or_else(|| {
            expected("an array of strings", value.get_ref()).instead("write it like [\"server\", \"/data\"]")
        });
        let words = words.and_then(|words| {
            let words = words.iter().map(|word| text(word.get_ref()).map(str::to_owned));
            let words = words.collect::<Result<Vec<String>, Wrong>>()?;
            // They have to be what follows a program.
            let whole = ["program".to_owned()].into_iter().chain(words.iter().cloned());
            Command::from_argv(whole.collect()).map_err(Wrong::new)?;
            Ok(words)
        });
        let words = section.note(value.span(), words);
        all.extend(name.zip(words));
    }
    all
}

fn name_of(
    name: &str,
    processes: &BTreeMap<ProcessName, Command>,
    is_image: bool,
) -> Result<ProcessName, Wrong> {
    let process = ProcessName::new(name).map_err(Wrong::new)?;
    if !is_image {
        return Err(Wrong::new("only an image has an entrypoint that is given something")
            .instead("write the whole command below [processes]"));
    }
    if [RELEASE_COMMAND_PROCESS, RUN_PROCESS].contains(&name) {
        return Err(Wrong::new(format!("`{name}` is not a process here")));
    }
    if processes.contains_key(&process) {
        let wrong = Wrong::new(format!("`processes.{process}` is a whole command already"));
        return Err(wrong.instead("leave one of the two out"));
    }
    Ok(process)
}

#[cfg(test)]
mod tests {
    use super::super::Manifest;

    #[test]
    fn an_image_is_told_what_to_do() {
        let text = "[build]\nimage = \"minio\"\n[processes]\nworker = \"/bin/work\"\n[args]\nweb = [\"server\", \"/data\", \"\"]\nidle = []\n";
        let manifest = Manifest::parse(text).unwrap();
        let of = |name: &str| manifest.args.iter().find(|(process, _)| process.as_str() == name).unwrap().1;
        assert_eq!(of("web"), &["server", "/data", ""]);
        assert!(of("idle").is_empty());
        let written = manifest.write(&[], &[]);
        assert_eq!(Manifest::parse(&written).unwrap(), manifest, "{written}");
    }

    #[test]
    fn what_has_no_entrypoint_is_told_nothing() {
        let image = "[build]\nimage = \"a\"\n";
        for (text, what) in [
            ("[args]\nweb = [\"a\"]\n".to_owned(), "only an image has an entrypoint that is given something"),
            (
                format!("{image}[processes]\nweb = \"a\"\n[args]\nweb = [\"b\"]\n"),
                "`processes.web` is a whole command already",
            ),
            (format!("{image}[args]\nweb = \"a b\"\n"), "expected an array of strings, found string"),
            (format!("{image}[args]\nweb = [1]\n"), "expected a string, found integer"),
            (format!("{image}[args]\nrun = [\"a\"]\n"), "`run` is not a process here"),
            (format!("{image}[args]\nweb = [\"a\\u0000\"]\n"), "the command holds a NUL byte"),
        ] {
            let problems = Manifest::parse(&text).unwrap_err().0;
            assert!(problems.iter().any(|it| it.what == what), "{text}: {problems:?}");
        }
    }
}
