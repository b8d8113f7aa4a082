//! The rules as docs/detection.md has them.

use std::fmt::Write as _;

use super::languages::LANGUAGES;
use super::rule::{Framework, Language, Line, Serve};

/// The tables of all languages, as Markdown. Written from the rows themselves, so that the page is never behind.
#[must_use]
pub fn tables() -> String {
    LANGUAGES.iter().map(|language| tables_of(language)).collect::<Vec<_>>().join("\n")
}

fn tables_of(language: &Language) -> String {
    let mut page = format!(
        "### {}\n\n`build.builder = \"{}\"`. Looked for: {}.\n",
        capital(language.name),
        language.builder.name(),
        language.fits
    );
    if !language.managers.is_empty() {
        page.push_str("\n| when there is | dependencies by | steps |\n|---|---|---|\n");
    }
    for manager in language.managers {
        let steps = [(manager.locked, "with a lock file"), (manager.unlocked, "without")];
        let known = steps.iter().filter(|(line, _)| !line.is_empty());
        let only = known.clone().count() == 1;
        let steps: Vec<String> = known
            .map(|(line, when)| if only { code(line) } else { format!("{} ({when})", code(line)) })
            .collect();
        row(&mut page, &[&manager.fits.to_string(), manager.name, &steps.join(", ")]);
    }
    page.push_str("\n| when there is | it is | and no script `build`: it is built by | and no script `start`: it is served by |\n|---|---|---|---|\n");
    for framework in language.frameworks {
        let built: Vec<String> = framework.build.iter().chain(framework.finish).map(conditional).collect();
        row(&mut page, &[&seen(framework), framework.name, &built.join(", "), &served(framework)]);
    }
    page
}

fn seen(framework: &Framework) -> String {
    let mut seen = vec![framework.fits.to_string()];
    if !framework.object.is_empty() {
        seen.push(format!("a file that makes a `{}`", framework.object));
    }
    if !framework.files.is_empty() {
        let files: Vec<String> = framework.files.iter().map(|file| code(file)).collect();
        seen.push(format!("one of {}", files.join(", ")));
    }
    seen.join(" and ")
}

fn served(framework: &Framework) -> String {
    let mut served = match &framework.serve {
        Serve::Site(dir) => format!("Berth, the files in {}", code(dir)),
        Serve::SinglePage(dir) => format!("Berth, the files in {} as a single page", code(dir)),
        Serve::Run(line) => code(line),
        Serve::Servers(servers) => {
            let names: Vec<&str> = servers.iter().map(|server| server.package).collect();
            format!(
                "{}, whichever is a dependency, else {}",
                names.join(", "),
                names.first().unwrap_or(&"none")
            )
        }
        Serve::Script => "its script `start`".to_owned(),
        Serve::Unclear(_) => "not known; the message says what to add".to_owned(),
    };
    let release: Vec<String> = framework.release.iter().map(conditional).collect();
    if !release.is_empty() {
        write!(served, "; before traffic {}", release.join(", "))
            .expect("a string takes all that is written");
    }
    served
}

fn conditional(line: &Line) -> String {
    match line.when.to_string().as_str() {
        _ if !line.does.is_empty() => line.does.to_owned(),
        "anything else" => code(line.text),
        when => format!("{} (when there is {when})", code(line.text)),
    }
}

fn row(page: &mut String, cells: &[&str]) {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    writeln!(page, "| {} |", cells.join(" | ")).expect("a string takes all that is written");
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| format!("{}{}", first.to_uppercase(), letters.as_str()))
}
