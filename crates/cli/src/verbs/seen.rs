//! What was seen in a source: how it would be built and run, why, and what nobody can know before.

use std::collections::BTreeMap;

use berth_source::recipe::{Tool, ToolNeed};
use berth_source::{Detection, NothingFits};
use berth_spec::{Command, Manifest, ProcessName};
use serde::Serialize;

/// It, for people and for programs.
#[derive(Debug, Default, Serialize)]
pub(super) struct Seen {
    /// How it would be built; none when that was not found out.
    builder: Option<&'static str>,
    /// The reasons.
    why: Vec<String>,
    tools: Vec<SeenTool>,
    steps: Vec<SeenStep>,
    /// The directory that becomes the artifact, when it is not the whole tree.
    output: Option<String>,
    release_command: Option<String>,
    processes: BTreeMap<String, String>,
    /// What is seen only when it is built and started.
    not_known: Vec<String>,
    /// Why it was not found out, and what to write.
    pub(super) problem: Option<String>,
}

/// A tool that is needed.
#[derive(Debug, Serialize)]
struct SeenTool {
    tool: String,
    /// The version that the source asks for, as it is written there.
    wanted: Option<String>,
    /// Where it asks.
    by: Option<String>,
    /// Whether the processes need it, too.
    at_run: bool,
}

/// A step of the build.
#[derive(Debug, Serialize)]
struct SeenStep {
    does: String,
    command: String,
}

impl Seen {
    pub(super) fn new(found: &Result<Detection, NothingFits>, manifest: &Manifest) -> Self {
        if let Some(image) = &manifest.build.image {
            let processes = manifest.processes.iter().map(|(name, it)| (name.to_string(), it.to_string()));
            return Self {
                builder: Some("image"),
                why: vec![format!("nothing is built: {image} is pulled")],
                release_command: manifest.deploy.release_command.as_ref().map(ToString::to_string),
                processes: processes.collect(),
                not_known: vec!["which digest the name means when it is submitted".to_owned()],
                ..Self::default()
            };
        }
        let alone = matches!(found, Err(NothingFits::Dockerfile)).then_some("Dockerfile");
        if let Some(path) = manifest.build.dockerfile.as_deref().or(alone) {
            let processes = manifest.processes.iter().map(|(name, it)| (name.to_string(), it.to_string()));
            return Self {
                builder: Some("dockerfile"),
                why: vec![format!("Docker, Podman or buildah builds {path}")],
                release_command: manifest.deploy.release_command.as_ref().map(ToString::to_string),
                processes: processes.collect(),
                not_known: vec!["what the image runs, where no process is named".to_owned()],
                ..Self::default()
            };
        }
        let found = match found {
            Ok(found) => found,
            Err(problem) => return Self { problem: Some(problem.to_string()), ..Self::default() },
        };
        let steps = found.recipe.steps.iter();
        let mut steps: Vec<SeenStep> =
            steps.map(|it| SeenStep { does: it.does.clone(), command: it.command.to_string() }).collect();
        if let Some(command) = manifest.build.command.as_ref().filter(|_| steps.is_empty()) {
            steps.push(SeenStep {
                does: "`build.command` of berth.toml".to_owned(),
                command: command.to_string(),
            });
        }
        let release = manifest.deploy.release_command.as_ref().or(found.release_command.as_ref());
        let output = manifest.build.output.as_ref().or(found.recipe.output.as_ref());
        let processes = found.processes.iter().map(|(name, it)| (name.to_string(), it.to_string()));
        Self {
            builder: Some(found.builder.name()),
            why: found.why.clone(),
            tools: found.recipe.tools.iter().map(seen_tool).collect(),
            steps,
            output: output.map(ToString::to_string),
            release_command: release.map(ToString::to_string),
            processes: processes.collect(),
            not_known: not_known(found),
            problem: None,
        }
    }

    /// It as lines with what they are about.
    pub(super) fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = Vec::new();
        match (self.builder, &self.problem) {
            (Some(builder), _) => facts.push(("build", builder.to_owned())),
            (None, problem) => facts.push(("build", problem.clone().unwrap_or_default())),
        }
        facts.extend(self.why.iter().map(|why| ("", why.clone())));
        for it in &self.tools {
            let version = it.wanted.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
            let by = it.by.as_ref().map(|by| format!(", as {by} says")).unwrap_or_default();
            facts.push(("tool", format!("{}{version}{by}", it.tool)));
        }
        facts.extend(self.steps.iter().map(|it| ("step", format!("{}: {}", it.does, it.command))));
        facts.extend(self.output.iter().map(|output| ("output", output.clone())));
        facts.extend(self.release_command.iter().map(|line| ("release", line.clone())));
        facts.extend(self.processes.iter().map(|(name, line)| ("process", format!("{name}: {line}"))));
        facts.extend(self.not_known.iter().map(|what| ("not known", what.clone())));
        facts
    }
}

fn seen_tool(need: &ToolNeed) -> SeenTool {
    SeenTool {
        tool: tool_name(need.tool),
        wanted: need.wanted.as_ref().map(|wanted| wanted.version.clone()),
        by: need.wanted.as_ref().map(|wanted| wanted.by.clone()),
        at_run: need.at_run,
    }
}

fn tool_name(tool: Tool) -> String {
    format!("{tool:?}").to_lowercase()
}

/// Nothing here was started, and the platform may be another machine.
fn not_known(found: &Detection) -> Vec<String> {
    let mut all = Vec::new();
    let tools: Vec<String> = found.recipe.tools.iter().map(|need| tool_name(need.tool)).collect();
    if !tools.is_empty() {
        all.push(format!("whether the platform's machine has {}: the build says", tools.join(", ")));
    }
    let web = found.processes.iter().find(|(name, _)| ProcessName::is_web(name));
    match web {
        Some((_, Command::StaticSite { .. })) => {}
        Some(_) => all.push("whether web listens on the port in PORT: its start says".to_owned()),
        None => all.push("no process is called web, so no requests reach the app".to_owned()),
    }
    all
}
