//! Tests of the rules, as a table.

mod apps;
mod hostile;

use super::*;
use crate::tree::Entry;
use berth_spec::Problems;

/// Files in memory; `*` after a path makes it executable.
struct Table {
    tree: Tree,
    contents: BTreeMap<String, Vec<u8>>,
}

impl Files for Table {
    fn tree(&self) -> &Tree {
        &self.tree
    }
    fn head(&self, path: &str) -> io::Result<Vec<u8>> {
        self.contents.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn elf(kind: u8) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[..4].copy_from_slice(b"\x7fELF");
    bytes[5] = 1;
    bytes[16] = kind;
    bytes
}

fn table(files: &[(&str, &[u8])]) -> Table {
    let mut entries = Vec::new();
    let mut contents = BTreeMap::new();
    for (path, content) in files {
        let (path, exec) = path.strip_suffix('*').map_or((*path, false), |path| (path, true));
        let chunk = crate::tree::ChunkRef {
            hash: crate::ChunkId::of(content),
            len: u32::try_from(content.len()).unwrap(),
        };
        let chunks = if content.is_empty() { vec![] } else { vec![chunk] };
        let node = Node::File { exec, size: content.len() as u64, chunks };
        entries.push(Entry { path: path.to_owned(), node });
        contents.insert(path.to_owned(), content.to_vec());
    }
    Table { tree: Tree::new(entries).unwrap(), contents }
}

fn manifest(text: &str, procfile: Option<&str>) -> Result<Manifest, Problems> {
    Manifest::read(Some(text), procfile)
}

fn outcome(files: &[(&str, &[u8])], toml: &str, procfile: Option<&str>) -> String {
    let manifest = manifest(toml, procfile).unwrap();
    match detect(&table(files), &manifest, &"shop".parse().unwrap()) {
        Ok(found) => {
            assert!(!found.why.is_empty() && !found.processes.is_empty());
            let processes: Vec<String> =
                found.processes.iter().map(|(name, command)| format!("{name}: {command}")).collect();
            format!("{:?} {}", found.builder, processes.join(", "))
        }
        Err(NothingFits::Nothing) => "found nothing to run".to_owned(),
        Err(error) => error.to_string(),
    }
}

const PACKAGE: &[u8] = b"[package]\nname = \"hello\"\n";
const MAIN: &[u8] = b"fn main() {}";

/// The files, berth.toml, the Procfile, and what comes of it.
type Case<'a> = (&'a [(&'a str, &'a [u8])], &'a str, Option<&'a str>, &'a str);

fn check(cases: &[Case<'_>]) {
    for (files, toml, procfile, expected) in cases {
        assert_eq!(outcome(files, toml, *procfile), *expected, "{toml} {procfile:?}");
    }
}

#[test]
fn an_index_is_a_static_site() {
    check(&[
        (&[("index.html", b"x")], "", None, "Static web: static files in ."),
        (
            &[("public/index.html", b"x"), ("dist/index.html", b"x")],
            "",
            None,
            "Static web: static files in public",
        ),
        (&[("dist/index.html", b"x")], "", None, "Static web: static files in dist"),
    ]);
}

#[test]
fn a_cargo_project_runs_its_program() {
    check(&[
        (&[("Cargo.toml", PACKAGE), ("src/main.rs", MAIN)], "", None, "Cargo web: [\"bin/hello\"]"),
        (
            &[("Cargo.toml", PACKAGE), ("src/main.rs", MAIN), ("index.html", b"x")],
            "",
            None,
            "Cargo web: [\"bin/hello\"]",
        ),
        (
            &[("Cargo.toml", PACKAGE), ("src/bin/shop.rs", MAIN), ("src/bin/b/main.rs", MAIN)],
            "",
            None,
            "Cargo web: [\"bin/shop\"]",
        ),
        (
            &[
                ("Cargo.toml", b"[package]\nname = \"a\"\ndefault-run = \"b\"\n"),
                ("src/main.rs", MAIN),
                ("src/bin/b.rs", MAIN),
            ],
            "",
            None,
            "Cargo web: [\"bin/b\"]",
        ),
        (
            &[("Cargo.toml", PACKAGE), ("src/main.rs", MAIN), ("src/bin/b.rs", MAIN)],
            "",
            None,
            "Cargo.toml has several programs (b, hello) and none is called shop; write `[processes]` with `web = \"bin/NAME\"` into berth.toml",
        ),
        (
            &[("Cargo.toml", PACKAGE), ("src/lib.rs", MAIN)],
            "",
            None,
            "Cargo.toml has no program, only a library; write `[processes]` with `web = \"bin/NAME\"` into berth.toml",
        ),
        (
            &[("Cargo.toml", b"[workspace]\nmembers = []\n")],
            "",
            None,
            "Cargo.toml is a workspace of which `cargo build` makes no program; name the package of one in `default-members`, or write `[processes]` with `web = \"bin/NAME\"` into berth.toml",
        ),
        (&[("Cargo.toml", b"[workspace]\nmembers = []\n")], "", Some("web: bin/a"), "Cargo web: bin/a"),
        (
            &[("Cargo.toml", b"[package\n")],
            "",
            None,
            "Cargo.toml cannot be read: unclosed table, expected `]`",
        ),
    ]);
}

#[test]
fn processes_and_programs_are_copied() {
    let program = elf(3);
    check(&[
        (
            &[("server.js", b"x")],
            "",
            Some("web: node server.js\nworker: node w.js"),
            "Copy web: node server.js, worker: node w.js",
        ),
        (
            &[("server.js", b"x")],
            "[processes]\nweb = \"node a.js\"",
            Some("web: node server.js"),
            "Copy web: node a.js",
        ),
        (
            &[("app*", &program), ("readme", b"x"), ("tool.sh*", b"#!/bin/sh")],
            "",
            None,
            "Copy web: [\"./app\"]",
        ),
        (&[("app*", &program), ("b*", &program)], "", None, "found nothing to run"),
    ]);
}

#[test]
fn the_manifest_says_how() {
    let program = elf(3);
    check(&[
        (
            &[("site.md", b"x")],
            "[build]\ncommand = \"make\"",
            None,
            "nothing says what to run: write `[processes]` with `web = \"...\"` into berth.toml",
        ),
        (&[("x.c", b"x")], "[build]\ncommand = \"make\"\n[processes]\nweb = \"./x\"", None, "Copy web: ./x"),
        (
            &[("site.md", b"x")],
            "[build]\ncommand = \"make\"\noutput = \"out\"\nbuilder = \"static\"",
            None,
            "Static web: static files in .",
        ),
        (
            &[("site.md", b"x")],
            "[build]\ncommand = \"make\"\nbuilder = \"static\"",
            None,
            "where `build.command` puts the static site is not known: write `output = \"dist\"` below `[build]`",
        ),
        (
            &[("a", b"x")],
            "[build]\nbuilder = \"cargo\"",
            None,
            "berth.toml says builder = \"cargo\", but there is no Cargo.toml at the root",
        ),
        (
            &[("Cargo.toml", PACKAGE), ("app*", &program)],
            "[build]\nbuilder = \"copy\"",
            None,
            "Copy web: [\"./app\"]",
        ),
    ]);
}

#[test]
fn only_programs_count_as_executables() {
    let library = elf(1);
    let program = elf(2);
    assert!(outcome(&[("a*", &library)], "", None).starts_with("found nothing"));
    assert!(outcome(&[("a", &program)], "", None).starts_with("found nothing"));
    assert!(outcome(&[("a*", b"\x7fELF")], "", None).starts_with("found nothing"));
    assert_eq!(outcome(&[("-a*", &program)], "", None), "Copy web: [\"./-a\"]", "no option to anybody");
    assert_eq!(outcome(&[("a*", &program)], "", None), "Copy web: [\"./a\"]");
    assert!(outcome(&[], "", None).starts_with("found nothing"));
}
