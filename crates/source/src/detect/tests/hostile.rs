//! Trees that mean harm: whatever their files say, detection answers, and their text stays in words of its own.

use proptest::prelude::*;

use super::*;

/// Texts that would do something if a shell of ours ever read them, or that break a file of some form.
const NASTY: [&str; 11] = [
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned ;",
    "' && touch pwned '",
    "\" | touch pwned",
    "--evil",
    "../../etc",
    "a\u{202e}b",
    "{module}",
    "$PORT",
    "\u{0}",
];

/// What could be a part of any of the files, in no order.
fn scraps() -> impl Strategy<Value = String> {
    let scrap = prop_oneof![
        "[a-z{}\\[\\]\",:=#\n ]{0,12}",
        proptest::sample::select(vec![
            r#"{"name":"#,
            r#""scripts":{"build":"x","start":"y"}"#,
            r#""workspaces":["**"]"#,
            r#""dependencies":{"next":1}"#,
            r#""main":"../x""#,
            "[project]\n",
            "[tool.poetry]\n",
            "dependencies = [\"a\"]\n",
            "name = \"x\"\n",
            "[package]\n",
            "[workspace]\nmembers = [\"*\"]\n",
            "app = FastAPI()\n",
            "def create_app(\n",
            "module x\n",
            "package main\n",
            "gem 'rails'\n",
            "FROM x\n",
            "run: x\n",
            "<version>",
            "defmodule X do\n",
            "app: :x,\n",
            "#!/bin/sh\n",
            "}",
            "]",
        ])
        .prop_map(str::to_owned),
        proptest::sample::select(NASTY.to_vec()).prop_map(str::to_owned),
    ];
    proptest::collection::vec(scrap, 0..8).prop_map(|scraps| scraps.concat())
}

const NAMES: [&str; 30] = [
    "package.json",
    "angular.json",
    "pnpm-workspace.yaml",
    "yarn.lock",
    "apps/web/package.json",
    "next.config.js",
    "pyproject.toml",
    "requirements.txt",
    "Pipfile",
    "main.py",
    "app/main.py",
    "manage.py",
    "x/settings.py",
    "x/wsgi.py",
    "Cargo.toml",
    "src/main.rs",
    "go.mod",
    "main.go",
    "cmd/a b/main.go",
    "Gemfile",
    "composer.json",
    "pom.xml",
    "settings.gradle",
    "build.gradle",
    "deno.json",
    "a;b.csproj",
    "mix.exs",
    "Makefile",
    "start.sh",
    ".tool-versions",
];

fn outcome_of(files: &[(&str, &[u8])]) -> Option<Detection> {
    let shop: AppName = "shop".parse().unwrap();
    detect(&table(files), &Manifest::default(), &shop).ok()
}

/// The commands of what was found that a shell will read.
fn shells(found: &Detection) -> Vec<&str> {
    let steps = found.recipe.steps.iter().map(|step| &step.command);
    let commands = steps.chain(found.processes.values()).chain(&found.release_command);
    commands
        .filter_map(|command| match command {
            Command::Shell(line) => Some(line.as_str()),
            Command::Argv(argv) if argv.iter().any(|word| word == "-c") => {
                argv.iter().skip_while(|word| *word != "-c").nth(1).map(String::as_str)
            }
            _ => None,
        })
        .collect()
}

proptest! {
    #[test]
    fn any_files_are_detected_or_refused(texts in proptest::collection::vec((0..NAMES.len(), scraps()), 0..6)) {
        let mut files: BTreeMap<&str, &[u8]> = BTreeMap::new();
        for (name, text) in &texts {
            files.insert(NAMES[*name], text.as_bytes());
        }
        let files: Vec<(&str, &[u8])> = files.into_iter().collect();
        if let Some(found) = outcome_of(&files) {
            prop_assert!(!found.why.is_empty() && !found.processes.is_empty());
            let json = serde_json::to_string(&found.processes).unwrap();
            prop_assert_eq!(serde_json::from_str::<BTreeMap<ProcessName, Command>>(&json).unwrap(), found.processes);
        }
    }

    #[test]
    fn names_in_files_never_reach_a_shell(nasty in proptest::sample::select(NASTY.to_vec()), rest in "[a-z]{0,3}") {
        let name = format!("{nasty}{rest}");
        let json = serde_json::to_string(&name).unwrap();
        let texts: [Vec<(&str, String)>; 9] = [
            vec![
                ("package.json", format!(r#"{{"name":{json},"main":{json},"packageManager":{json},"scripts":{{"build":"x"}},"dependencies":{{{json}:{json},"vite":"7"}}}}"#)),
                ("index.html", String::new()),
            ],
            vec![
                ("angular.json", format!(r#"{{"projects":{{{json}:{{"architect":{{"build":{{"options":{{"outputPath":{json}}}}}}}}}}}}}"#)),
                ("package.json", r#"{"dependencies":{"@angular/core":"20"}}"#.to_owned()),
            ],
            vec![("pyproject.toml", format!("[project]\nname = {json}\ndependencies = [{json}, \"flask\"]\n")), ("app.py", "app = Flask(__name__)\n".to_owned())],
            vec![("go.mod", format!("module {name}\n")), ("main.go", "package main\n".to_owned())],
            vec![("settings.gradle", format!("rootProject.name = '{name}'\n")), ("build.gradle", String::new())],
            vec![("A.java", format!("package {name};\nvoid main(")), ("b", String::new())],
            vec![("x.csproj", format!("Microsoft.NET.Sdk.Web<AssemblyName>{name}</AssemblyName>"))],
            vec![("mix.exs", format!("defmodule {name} do\napp: :{name},\n"))],
            vec![("Cargo.toml", format!("[package]\nname = {json}\n")), ("src/main.rs", String::new())],
        ];
        for files in &texts {
            let files: Vec<(&str, &[u8])> = files.iter().map(|(path, text)| (*path, text.as_bytes())).collect();
            for line in outcome_of(&files).iter().flat_map(shells) {
                prop_assert!(!line.contains("pwned") && !line.contains("evil"), "{}", line);
            }
        }
    }
}
