//! The Procfile: one process per line, `name: command`, as Heroku reads it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::command::Command;
use crate::name::{ProcessName, RELEASE_COMMAND_PROCESS, RUN_PROCESS};
use crate::problem::{Collector, Problems, Wrong};

/// The name of the file.
pub const FILE_NAME: &str = "Procfile";
/// The longest Procfile that is read, in bytes.
pub const PROCFILE_MAX: usize = 64 * 1024;

/// What a Procfile says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Procfile {
    /// The processes and what they run.
    pub processes: BTreeMap<ProcessName, Command>,
    /// The command of `release:`, which runs once per deploy before traffic moves.
    pub release: Option<Command>,
}

impl Procfile {
    /// Reads the text of a Procfile. Blank lines and lines that start with `#` are skipped.
    ///
    /// # Errors
    /// All its [`Problems`] at once: a line that is not `name: command`, a name or command that is none, a name
    /// given twice, a file without any process.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        let mut problems = Collector::new(FILE_NAME, text);
        if text.len() > PROCFILE_MAX {
            problems
                .note(&(0..0), Wrong::new(format!("the file is longer than {} KiB", PROCFILE_MAX / 1024)));
            return Err(Problems(problems.into_problems()));
        }
        let mut read = Self::default();
        let mut start = 0;
        for line in text.split_inclusive('\n') {
            let indent = line.len() - line.trim_start().len();
            let content = line.trim();
            if !content.is_empty() && !content.starts_with('#') {
                let at = start + indent;
                if let Err(wrong) = read.line(content) {
                    problems.note(&(at..at + content.len()), wrong);
                }
            }
            start += line.len();
        }
        let problems = problems.into_problems();
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        if read == Self::default() {
            let mut empty = Collector::new(FILE_NAME, text);
            let wrong = Wrong::new("the file names no process");
            empty.note(&(0..0), wrong.instead("write a line like `web: bin/server`"));
            return Err(Problems(empty.into_problems()));
        }
        Ok(read)
    }

    fn line(&mut self, line: &str) -> Result<(), Wrong> {
        let Some((name, command)) = line.split_once(':') else {
            return Err(
                Wrong::new("not of the form `name: command`").instead("write a line like `web: bin/server`")
            );
        };
        let name = name.trim_end();
        let command = Command::parse(command).map_err(Wrong::new);
        let twice = || Wrong::new(format!("`{name}` is given twice"));
        if name == "release" {
            let before = self.release.replace(command?);
            return if before.is_some() { Err(twice()) } else { Ok(()) };
        }
        if name == RELEASE_COMMAND_PROCESS {
            return Err(Wrong::new(format!("`{name}` is not a process")).instead("write `release:`"));
        }
        if name == RUN_PROCESS {
            let wrong = Wrong::new("`run` is what one-off commands are called");
            return Err(wrong.instead("give the process another name"));
        }
        let process = ProcessName::new(name).map_err(|bad| {
            let near = name.to_ascii_lowercase().replace('_', "-");
            match ProcessName::new(&near) {
                Ok(near) => Wrong::new(bad).instead(format!("write `{near}:`")),
                Err(_) => Wrong::new(bad),
            }
        })?;
        match self.processes.entry(process) {
            Entry::Occupied(_) => Err(twice()),
            Entry::Vacant(free) => {
                free.insert(command?);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn processes_and_the_release_command_are_read() {
        let read = Procfile::parse(
            "# the shop\r\nweb: bin/server -p $PORT\r\n\n worker : a && b\nrelease: bin/migrate: x",
        )
        .unwrap();
        assert_eq!(read.processes["web"], Command::Line("bin/server -p $PORT".into()));
        assert_eq!(read.processes["worker"], Command::Shell("a && b".into()));
        assert_eq!(read.release, Some(Command::Line("bin/migrate: x".into())));
    }

    #[test]
    fn every_mistake_is_reported_with_its_line() {
        let problems = Procfile::parse("web: a\nweb: b\nWeb_Two: c\n  nothing\nq: 'x\nz:\n").unwrap_err();
        assert_eq!(
            problems.to_string(),
            "Procfile:2:1: `web` is given twice\n  2 | web: b\n    | ^\n\
             Procfile:3:1: process name \"Web_Two\" may hold only a-z, 0-9 and -\n  3 | Web_Two: c\n    | ^\n  write `web-two:`\n\
             Procfile:4:3: not of the form `name: command`\n  4 |   nothing\n    |   ^\n  write a line like `web: bin/server`\n\
             Procfile:5:1: the ' at character 1 is never closed\n  5 | q: 'x\n    | ^\n\
             Procfile:6:1: the command is empty\n  6 | z:\n    | ^"
        );
        let taken = Procfile::parse("web: a\nrelease-command: b\n").unwrap_err().to_string();
        assert!(taken.contains("`release-command` is not a process") && taken.contains("write `release:`"));
        assert!(Procfile::parse("# nothing\n").is_err());
        assert!(Procfile::parse(&"a".repeat(PROCFILE_MAX + 1)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            drop(Procfile::parse(&text));
        }

        #[test]
        fn any_lines_are_read_or_refused(text in "([a-z_]{0,3}:? ?[a$'\"|\\\\]{0,4}\r?\n){0,4}") {
            if let Err(problems) = Procfile::parse(&text) {
                prop_assert!(!problems.0.is_empty());
                drop(problems.to_string());
            }
        }
    }
}
