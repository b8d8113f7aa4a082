//! Which files `--from` means, and what they say together.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use berth_contract::Code;
use berth_source::import::{Imported, Kind, Secret, import};

use super::super::{MANIFEST_MAX, Session};
use crate::failure::Failure;

/// What stands for standard input.
const INPUT: &str = "-";

impl Session<'_> {
    /// What the files say together, and what they are called. One describes the app; files of variables come beside it.
    pub(super) fn take_over(
        &mut self,
        path: &Path,
        from: &[String],
    ) -> Result<(Imported, Vec<String>), Failure> {
        let (mut taken, mut names) = (Imported::default(), Vec::new());
        let mut described: Option<String> = None;
        for given in from {
            let (kind, name, text) = self.read_from(path, given)?;
            let more = import(kind, &name, &text).map_err(Failure::Manifest)?;
            if kind != Kind::Env
                && let Some(before) = described.replace(name.clone())
            {
                let detail = format!("both {before} and {name} describe the app");
                return Err(Failure::local(
                    Code::UsageInvalid,
                    detail,
                    "take over one of them, and files of variables beside it",
                ));
            }
            merge(&mut taken, more, kind);
            names.push(name);
        }
        settle(&mut taken);
        Ok((taken, names))
    }

    /// The kind, the name and the text of what one `--from` means.
    fn read_from(&mut self, path: &Path, given: &str) -> Result<(Kind, String, String), Failure> {
        if given == INPUT {
            let text = self.screen.read_input(MANIFEST_MAX).map_err(|problem| unreadable(INPUT, &problem))?;
            return Ok((Kind::Env, "standard input".to_owned(), text));
        }
        let word = Kind::NAMED.iter().find(|(_, word, _)| *word == given);
        let (kind, name, file) = match word {
            Some((kind, _, file)) => (*kind, (*file).to_owned(), path.join(file)),
            None => {
                let kind = Kind::of_file(given).ok_or_else(|| unknown(given))?;
                (kind, given.to_owned(), self.place(path, given))
            }
        };
        let opened = std::fs::File::open(&file).map_err(|problem| unreadable(&name, &problem))?;
        let mut text = String::new();
        // One byte more than is read, so that a file which is too long is told as that.
        let read = opened.take(MANIFEST_MAX + 1).read_to_string(&mut text);
        read.map_err(|problem| unreadable(&name, &problem))?;
        Ok((kind, name, text))
    }

    /// A name is looked for from here first, then in the source.
    fn place(&self, path: &Path, given: &str) -> PathBuf {
        let here = self.environment.directory.join(given);
        if here.is_file() { here } else { path.join(given) }
    }
}

fn unreadable(name: &str, problem: &std::io::Error) -> Failure {
    let detail = format!("{name} cannot be read: {problem}");
    Failure::local(Code::SourceUnreadable, detail, "name a file that is there, from here or from the source")
}

fn unknown(given: &str) -> Failure {
    let words: Vec<&str> = Kind::NAMED.iter().map(|(_, word, _)| *word).collect();
    let files: Vec<&str> = Kind::NAMED.iter().map(|(_, _, file)| *file).collect();
    let detail = format!("{given:?} is no file that Berth takes over");
    let next = format!("name one like {}, or one of the words {}", files.join(", "), words.join(", "));
    Failure::local(Code::UsageInvalid, detail, next)
}

fn merge(taken: &mut Imported, more: Imported, kind: Kind) {
    if kind != Kind::Env {
        taken.manifest = more.manifest;
    }
    taken.config.extend(more.config);
    taken.notes.extend(more.notes);
    taken.left.extend(more.left);
    for (name, secret) in more.secrets {
        let weaker =
            !matches!(secret, Secret::Given(_)) && matches!(taken.secrets.get(&name), Some(Secret::Given(_)));
        if !weaker {
            taken.secrets.insert(name, secret);
        }
    }
}

/// A value among the plain variables for what another file calls a secret is that secret's.
fn settle(taken: &mut Imported) {
    for (name, secret) in &mut taken.secrets {
        if let Some(value) = taken.config.remove(name)
            && !matches!(secret, Secret::Given(_))
        {
            *secret = Secret::Given(value);
        }
    }
}
