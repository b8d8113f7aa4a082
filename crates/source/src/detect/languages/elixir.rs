//! Elixir with mix.

use berth_spec::manifest::Builder;

use crate::detect::NothingFits;
use crate::detect::rule::{Framework, Language, Line, Manager, Serve};
use crate::detect::sign::Sign::{All, Depends, File, Known, Says};
use crate::detect::view::{Facts, View};
use crate::recipe::Tool;

pub(in crate::detect) const ELIXIR: Language = Language {
    builder: Builder::Elixir,
    name: "an Elixir app",
    fits: File("mix.exs"),
    tool: Tool::Elixir,
    needed_to_run: true,
    programs: &["mix", "elixir", "iex"],
    read,
    managers: &MANAGERS,
    frameworks: &FRAMEWORKS,
    // Without a name in a network of nodes no daemon stays behind that outlives the instance.
    env: &[("MIX_ENV", "prod"), ("PHX_SERVER", "true"), ("RELEASE_DISTRIBUTION", "none")],
    caches: &[("HEX_HOME", "hex"), ("MIX_HOME", "mix")],
    path: &[],
    hint: "give mix.exs an `app: :name`, or write `[processes]` with `web = \"mix run --no-halt\"` into berth.toml",
};

const MANAGERS: [Manager; 1] = [Manager {
    name: "mix",
    fits: Known("dependencies"),
    lock: &["mix.lock"],
    locked: "mix local.hex --force --if-missing && mix local.rebar --force --if-missing && mix deps.get --only prod --check-locked",
    unlocked: "mix local.hex --force --if-missing && mix local.rebar --force --if-missing && mix deps.get --only prod",
    ..Manager::NONE
}];

/// A release is started where it may not write: what it writes at its start goes to the instance's own folder.
const RUN: &str = "env RELEASE_TMP=$TMPDIR _build/prod/rel/{elixir_app}/bin/{elixir_app} start";

const FRAMEWORKS: [Framework; 2] = [
    Framework {
        name: "Phoenix",
        fits: All(&[Depends("phoenix"), Known("elixir_app")]),
        build: &[
            Line::always("mix compile"),
            Line::when(Says("mix.exs", "assets.deploy"), "mix assets.deploy"),
            Line::always("mix release --overwrite"),
        ],
        serve: Serve::Run(RUN),
        release: &[Line::when(
            All(&[Known("elixir_module"), File("lib/*/release.ex")]),
            "env RELEASE_TMP=$TMPDIR _build/prod/rel/{elixir_app}/bin/{elixir_app} eval {elixir_module}.Release.migrate",
        )],
        notes: &[Line::always(
            "it needs `berth secrets set SECRET_KEY_BASE=...`, and PHX_HOST for the addresses that it writes",
        )],
        ..Framework::NONE
    },
    Framework {
        name: "a mix release",
        fits: Known("elixir_app"),
        build: &[Line::always("mix compile"), Line::always("mix release --overwrite")],
        serve: Serve::Run(RUN),
        ..Framework::NONE
    },
];

fn read(view: &View<'_>) -> Result<Option<Facts>, NothingFits> {
    let mut facts = Facts::default();
    let text = view.text("mix.exs")?.unwrap_or_default();
    let word = |rest: &str| -> String {
        rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
    };
    let code =
        text.lines().map(|line| line.split('#').next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let deps =
        code.split_once("defp deps").map_or("", |(_, rest)| rest.split("\n  end").next().unwrap_or_default());
    for (_, rest) in deps.match_indices("{:").filter_map(|(at, _)| deps.split_at_checked(at + 2)) {
        facts.dependencies.insert(word(rest), String::new());
    }
    if !facts.dependencies.is_empty() {
        facts.know("dependencies", "", "");
    }
    let app = text.split_once("app: :").map(|(_, rest)| word(rest)).filter(|name| !name.is_empty());
    if let Some(name) = app {
        facts.know("elixir_app", name, "mix.exs");
    }
    let module = text.split_once("defmodule ").map(|(_, rest)| word(rest)).filter(|name| !name.is_empty());
    if let Some(module) = module {
        facts.know("elixir_module", module, "mix.exs");
    }
    let wanted = text.split_once("elixir: \"").and_then(|(_, rest)| rest.split_once('"'));
    facts.versions.extend(wanted.map(|(version, _)| ("elixir of mix.exs".to_owned(), version.to_owned())));
    Ok(Some(facts))
}
