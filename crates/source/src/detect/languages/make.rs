//! A Makefile that says how the app is built and run.

use berth_spec::manifest::Builder;

use crate::detect::NothingFits;
use crate::detect::rule::{Framework, Language, Line, Manager, Serve};
use crate::detect::sign::Sign::{Always, Any, File, Known};
use crate::detect::view::{Facts, View};
use crate::recipe::Tool;

pub(in crate::detect) const MAKE: Language = Language {
    builder: Builder::Make,
    name: "an app with a Makefile",
    fits: Any(&[File("Makefile"), File("makefile"), File("GNUmakefile")]),
    tool: Tool::Make,
    needed_to_run: true,
    programs: &["make"],
    read,
    managers: &MANAGERS,
    frameworks: &FRAMEWORKS,
    env: &[],
    caches: &[],
    path: &[],
    hint: "give the Makefile a target `start` or `run`, or write `[processes]` with `web = \"./PROGRAM\"` into berth.toml",
};

const MANAGERS: [Manager; 1] = [Manager {
    name: "make",
    fits: Always,
    script: "make {script}",
    script_below: "make {script}",
    ..Manager::NONE
}];

const BUILT: &[Line] = &[Line::when(Known("make_all"), "make all")];

const FRAMEWORKS: [Framework; 3] = [
    Framework {
        name: "a target `start`",
        fits: Known("make_start"),
        build: BUILT,
        serve: Serve::Run("make start"),
        ..Framework::NONE
    },
    Framework {
        name: "a target `run`",
        fits: Known("make_run"),
        build: BUILT,
        serve: Serve::Run("make run"),
        ..Framework::NONE
    },
    Framework {
        name: "a target `serve`",
        fits: Known("make_serve"),
        build: BUILT,
        serve: Serve::Run("make serve"),
        ..Framework::NONE
    },
];

/// The targets that say something, by the names that rules have for them.
const TARGETS: [(&str, &str); 4] =
    [("make_all", "all"), ("make_start", "start"), ("make_run", "run"), ("make_serve", "serve")];

fn read(view: &View<'_>) -> Result<Option<Facts>, NothingFits> {
    let mut facts = Facts::default();
    for path in ["GNUmakefile", "makefile", "Makefile"] {
        let Some(text) = view.text(path)? else {
            continue;
        };
        for line in text.lines() {
            let Some((targets, rest)) =
                line.split_once(':').filter(|_| !line.starts_with(['\t', ' ', '#', '.']))
            else {
                continue;
            };
            // `a := b` assigns.
            if rest.starts_with('=') || rest.starts_with(":=") {
                continue;
            }
            for target in targets.split_whitespace() {
                if target == "build" {
                    facts.scripts.insert("build".to_owned(), String::new());
                }
                if let Some((known, _)) = TARGETS.iter().find(|(_, name)| *name == target) {
                    facts.know(known, "", path);
                }
            }
        }
        return Ok(Some(facts));
    }
    Ok(None)
}
