//! Making the source of a sample: its generator, its own files over that, its changes.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::commands::Surroundings;
use super::sample::{Change, Edit, Sample, lay_over, words};

/// The day on which what npm offers was fixed: dependencies that a generator leaves open are resolved as they were then.
const BEFORE: &str = "2025-12-01";

/// Makes the source of `sample` in `folder` and gives the folder of the source.
///
/// # Errors
/// A command fails, or a text that is to be replaced is not there.
pub(super) fn make(
    sample: &Sample,
    files: Option<&Path>,
    folder: &Path,
    surroundings: &Surroundings<'_>,
) -> Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    let source = folder.join(&sample.name);
    let values = [("name", sample.name.as_str()), ("before", BEFORE)];
    let in_dir = |dir| Surroundings { dir, ..surroundings.clone() };
    for command in &sample.make {
        in_dir(folder).run(&words(command, &values))?;
    }
    if let Some(files) = files {
        lay_over(files, &source)?;
    }
    for change in &sample.change {
        replace(&source, change)?;
    }
    for command in &sample.finish {
        in_dir(&source).run(&words(command, &values))?;
    }
    Ok(source)
}

/// Makes the one-line change.
///
/// # Errors
/// Its text is not there.
pub(super) fn edit(source: &Path, edit: &Edit) -> Result<()> {
    let Edit { file, from, to, .. } = edit;
    replace(source, &Change { file: file.clone(), from: from.clone(), to: to.clone() })
}

/// Bytes, since the file may be a program.
fn replace(source: &Path, change: &Change) -> Result<()> {
    let file = source.join(&change.file);
    let bytes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let (from, to) = (change.from.as_bytes(), change.to.as_bytes());
    let at = bytes.windows(from.len()).position(|window| window == from);
    let at = at.with_context(|| format!("{} does not hold `{}`", change.file.display(), change.from))?;
    let replaced = [&bytes[..at], to, &bytes[at + from.len()..]].concat();
    std::fs::write(&file, replaced).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_made_once_or_is_an_error() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("a"), b"\xffone one").unwrap();
        let change = |from: &str| Change { file: "a".into(), from: from.to_owned(), to: "three".to_owned() };
        replace(temp.path(), &change("one")).unwrap();
        assert_eq!(std::fs::read(temp.path().join("a")).unwrap(), b"\xffthree one");
        assert!(replace(temp.path(), &change("two")).unwrap_err().to_string().contains("does not hold"));
    }
}
