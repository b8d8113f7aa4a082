//! Deno.

use berth_spec::manifest::Builder;
use serde_json::Value as Json;

use crate::detect::rule::{Framework, Language, Manager, Serve};
use crate::detect::sign::Sign::{All, Always, Any, File, Not, Says};
use crate::detect::view::{Facts, View};
use crate::detect::{NothingFits, unclear};
use crate::recipe::Tool;

pub(in crate::detect) const DENO: Language = Language {
    builder: Builder::Deno,
    name: "a Deno app",
    fits: Any(&[
        File("deno.json"),
        File("deno.jsonc"),
        File("deno.lock"),
        All(&[Not(&File("package.json")), Any(&[File("main.ts"), File("server.ts"), File("mod.ts")])]),
    ]),
    tool: Tool::Deno,
    needed_to_run: true,
    programs: &["deno"],
    read,
    managers: &MANAGERS,
    frameworks: &FRAMEWORKS,
    // What it downloads is a part of the artifact: nothing is fetched at the start. It trusts whom the machine trusts, as other tools do.
    env: &[
        ("DENO_DIR", "$ARTIFACT/.deno"),
        ("DENO_TLS_CA_STORE", "system,mozilla"),
        ("DENO_NO_PROMPT", "1"),
        ("DENO_NO_UPDATE_CHECK", "1"),
    ],
    caches: &[],
    path: &[],
    hint: "give deno.json a task `start`, or name its program main.ts",
};

const MANAGERS: [Manager; 2] = [
    Manager {
        name: "deno",
        fits: Any(&[File("deno.json"), File("deno.jsonc")]),
        lock: &["deno.lock"],
        locked: "deno install --frozen",
        unlocked: "deno install",
        script: "deno task {script}",
        script_below: "deno task {script}",
        reads: &["deno.json", "deno.jsonc", "package.json", ".npmrc"],
        makes: &[".deno", "node_modules"],
        ..Manager::NONE
    },
    Manager { name: "deno", fits: Always, script: "deno task {script}", ..Manager::NONE },
];

const PROGRAMS: &[&str] =
    &["main.ts", "server.ts", "index.ts", "mod.ts", "src/main.ts", "main.js", "main.tsx"];

const FRAMEWORKS: [Framework; 2] = [
    Framework {
        name: "a module that exports its `fetch`",
        fits: Any(&[Says("main.ts", "export default { fetch"), Says("server.ts", "export default { fetch")]),
        files: PROGRAMS,
        serve: Serve::Run("deno serve --allow-all --host 127.0.0.1 --port $PORT {file}"),
        ..Framework::NONE
    },
    Framework {
        name: "a Deno program",
        fits: Always,
        files: PROGRAMS,
        serve: Serve::Run("deno run --allow-all {file}"),
        ..Framework::NONE
    },
];

fn read(view: &View<'_>) -> Result<Option<Facts>, NothingFits> {
    let mut facts = Facts::default();
    for path in ["deno.json", "deno.jsonc"] {
        let Some(text) = view.text(path)? else {
            continue;
        };
        let read: Json = serde_json::from_str(&without_comments(&text))
            .map_err(|bad| unclear(format!("{path} cannot be read: {bad}")))?;
        for (name, task) in read.get("tasks").and_then(Json::as_object).into_iter().flatten() {
            let command = task.as_str().or_else(|| task.get("command")?.as_str());
            facts.scripts.extend(command.map(|command| (name.clone(), command.to_owned())));
        }
    }
    // A package.json with nothing but tools beside deno.lock is Deno's; one that starts Node is Node's.
    let package = view.text("package.json")?.unwrap_or_default();
    let node = package.contains("\"start\"") && !view.has("deno.json") && !view.has("deno.jsonc");
    Ok((!node).then_some(facts))
}

/// JSON of which comments and the commas before a closing bracket are left out.
fn without_comments(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    let mut inside = false;
    while let Some(c) = rest.next() {
        match (c, inside, rest.peek()) {
            ('\\', true, Some(_)) => {
                plain.push(c);
                plain.extend(rest.next());
            }
            ('"', _, _) => {
                inside = !inside;
                plain.push(c);
            }
            ('/', false, Some('/')) => while rest.next_if(|c| *c != '\n').is_some() {},
            ('/', false, Some('*')) => {
                rest.next();
                let mut before = ' ';
                for c in rest.by_ref() {
                    if before == '*' && c == '/' {
                        break;
                    }
                    before = c;
                }
            }
            ('}' | ']', false, _) => {
                let kept = plain.trim_end().trim_end_matches(',').len();
                plain.truncate(kept);
                plain.push(c);
            }
            _ => plain.push(c),
        }
    }
    plain
}
