//! .NET.

use berth_spec::manifest::Builder;

use crate::detect::NothingFits;
use crate::detect::rule::{Framework, Language, Line, Serve};
use crate::detect::sign::Sign::{Any, File, Known};
use crate::detect::view::{Facts, View};
use crate::recipe::Tool;

pub(in crate::detect) const DOTNET: Language = Language {
    builder: Builder::Dotnet,
    name: "a .NET app",
    fits: Any(&[
        File("*.csproj"),
        File("*.fsproj"),
        File("*.sln"),
        File("*.slnx"),
        File("*/*.csproj"),
        File("src/*/*.csproj"),
    ]),
    tool: Tool::Dotnet,
    needed_to_run: true,
    programs: &["dotnet"],
    read,
    managers: &[],
    frameworks: &FRAMEWORKS,
    env: &[
        ("DOTNET_CLI_TELEMETRY_OPTOUT", "1"),
        ("DOTNET_NOLOGO", "1"),
        ("ASPNETCORE_ENVIRONMENT", "Production"),
    ],
    caches: &[("NUGET_PACKAGES", "nuget")],
    path: &[],
    hint: "name the app like the project to run, or write `build.command` and `[processes]` into berth.toml",
};

const PUBLISH: &[Line] = &[Line::always("dotnet publish {project} --configuration Release --output out")];

const FRAMEWORKS: [Framework; 2] = [
    Framework {
        name: "ASP.NET",
        fits: Known("web_project"),
        build: PUBLISH,
        // Where it runs is where it looks for wwwroot and appsettings.json.
        serve: Serve::Run("env -C out ASPNETCORE_URLS=http://127.0.0.1:$PORT dotnet {assembly}.dll"),
        ..Framework::NONE
    },
    Framework {
        name: "a .NET program",
        fits: Known("project"),
        build: PUBLISH,
        serve: Serve::Run("env -C out dotnet {assembly}.dll"),
        ..Framework::NONE
    },
];

/// The most projects that are read.
const READ_MAX: usize = 50;

/// A project that makes a program.
struct Project<'v> {
    path: &'v str,
    is_web: bool,
    text: String,
}

fn read(view: &View<'_>) -> Result<Option<Facts>, NothingFits> {
    let mut projects = Vec::new();
    let is_project = |path: &&str| {
        (path.ends_with(".csproj") || path.ends_with(".fsproj")) && path.matches('/').count() <= 2
    };
    for path in view.paths().filter(is_project).take(READ_MAX) {
        let text = view.text(path)?.unwrap_or_default();
        let is_web = text.contains("Microsoft.NET.Sdk.Web");
        if is_web || text.contains("<OutputType>Exe") || text.contains("Microsoft.NET.Sdk.Worker") {
            projects.push(Project { path, is_web, text });
        }
    }
    let mut facts = Facts::default();
    let name = |path: &str| {
        path.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map_or("", |(stem, _)| stem).to_owned()
    };
    let webs = projects.iter().filter(|project| project.is_web).count();
    let chosen = projects
        .iter()
        .find(|project| name(project.path).eq_ignore_ascii_case(view.app.as_str()))
        .or_else(|| {
            projects
                .iter()
                .find(|project| if webs > 0 { webs == 1 && project.is_web } else { projects.len() == 1 })
        });
    if let Some(project) = chosen {
        let assembly = project.text.split_once("<AssemblyName>").and_then(|(_, rest)| rest.split_once('<'));
        let assembly = assembly.map(|(assembly, _)| assembly.trim().to_owned()).filter(|name| is_plain(name));
        facts.know("assembly", assembly.unwrap_or_else(|| name(project.path)), project.path);
        facts.know("project", project.path, project.path);
        if project.is_web {
            facts.know("web_project", "", project.path);
        }
        let target =
            project.text.split_once("<TargetFramework>net").and_then(|(_, rest)| rest.split_once('<'));
        facts.versions.extend(target.map(|(version, _)| {
            (format!("TargetFramework of {}", project.path), format!(">={}", version.trim()))
        }));
    }
    let global = view.text("global.json")?.unwrap_or_default();
    let sdk = serde_json::from_str::<serde_json::Value>(&global).ok();
    if let Some(version) = sdk.as_ref().and_then(|global| global.pointer("/sdk/version")?.as_str()) {
        facts.versions.insert(0, ("sdk.version of global.json".to_owned(), format!("~{version}")));
    }
    Ok(Some(facts))
}

/// Whether an assembly's name holds no variable of the build, which only dotnet knows.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.contains(['$', '/'])
}
