//! Following the rows of a language: which of them fit, and the recipe that they make together.

use std::collections::{BTreeMap, BTreeSet};

use berth_spec::{Command, RelativeDir};

use super::rule::{Framework, Language, Line, Manager, Pairs, Serve, Server};
use super::view::{Facts, View, means};
use super::{Found, NothingFits, Web, fill, unclear, wish};
use crate::recipe::{Layer, Recipe, Step, Tool, ToolNeed};

/// How a script `start` begins that only serves files, which Berth does itself.
const FILE_SERVERS: [&str; 4] = ["serve", "http-server", "npx serve", "npx http-server"];
/// How deep a script that runs another one is followed.
const SCRIPTS_DEEP: usize = 4;

/// What a language made of a tree.
pub(super) enum Composed {
    /// It is not of this language.
    No,
    /// It can be built.
    Fits(Box<Found>),
    /// Files of the language are there, but nothing says what to run; another rule may know.
    Weak(NothingFits),
}

/// What `language` makes of the tree.
pub(super) fn compose(view: &View<'_>, language: &'static Language) -> Result<Composed, NothingFits> {
    if !language.fits.fits(view, &Facts::default())? {
        return Ok(Composed::No);
    }
    let Some(mut facts) = (language.read)(view)? else {
        return Ok(Composed::No);
    };
    let manager = choose_manager(view, language, &facts)?;
    let framework = choose_framework(view, language, &mut facts)?;
    let mut work = Work { view, language, facts, recipe: Recipe::default(), why: Vec::new() };
    let server = match &framework {
        Some((framework, _)) if view.manifest.processes.is_empty() => work.server(framework),
        _ => None,
    };
    work.tools(manager.map(|(manager, _)| manager));
    if let Some((row, seen)) = framework.as_ref().filter(|(row, _)| work.counts(row)) {
        work.why.push(format!("{seen}: {}", row.name));
    }
    if let Some((manager, seen)) = &manager {
        work.install(manager, seen, server.filter(|(_, there)| !there).map(|(server, _)| server))?;
    }
    let row = framework.as_ref().map(|(row, _)| *row);
    let built = work.build(manager.map(|(manager, _)| manager), row)?;
    let web = match work.web(
        manager.map(|(manager, _)| manager),
        framework.as_ref(),
        server.map(|(server, _)| server),
        built,
    )? {
        Some(web) => Some(web),
        None if !view.manifest.processes.is_empty() => None,
        None => match super::start_script(view)? {
            Some((web, because)) => {
                work.why.push(because);
                Some(web)
            }
            None => {
                let problem = unclear(format!("{}; {}", work.saw(), language.hint));
                return if built { Err(problem) } else { Ok(Composed::Weak(problem)) };
            }
        },
    };
    let release = work.release(row)?;
    work.environment(manager.map(|(manager, _)| manager), row, web.as_ref())?;
    let Work { recipe, why, .. } = work;
    Ok(Composed::Fits(Box::new(Found { builder: language.builder, recipe, web, release, why })))
}

/// The steps by which `language` builds what is in the tree beside the app's own language: the files for browsers of an app in Python.
pub(super) fn beside(
    view: &View<'_>,
    language: &'static Language,
) -> Result<Option<(Recipe, Vec<String>)>, NothingFits> {
    if !language.fits.fits(view, &Facts::default())? {
        return Ok(None);
    }
    let Ok(Some(facts)) = (language.read)(view) else {
        return Ok(None);
    };
    let manager = choose_manager(view, language, &facts)?;
    if !facts.scripts.contains_key("build") {
        return Ok(None);
    }
    let mut work = Work { view, language, facts, recipe: Recipe::default(), why: Vec::new() };
    work.tools(manager.map(|(manager, _)| manager));
    if let Some((manager, seen)) = &manager {
        work.install(manager, seen, None)?;
    }
    work.build(manager.map(|(manager, _)| manager), None)?;
    for need in &mut work.recipe.tools {
        need.at_run = false;
    }
    work.recipe.caches.extend(owned(language.caches));
    Ok(Some((work.recipe, work.why)))
}

type Chosen<'a, T> = (&'a T, String);

fn choose_manager(
    view: &View<'_>,
    language: &'static Language,
    facts: &Facts,
) -> Result<Option<(&'static Manager, &'static str)>, NothingFits> {
    for manager in language.managers {
        if manager.fits.fits(view, facts)? {
            let lock = manager.lock.iter().find(|lock| view.find(lock).is_some());
            return Ok(Some((manager, lock.copied().unwrap_or_default())));
        }
    }
    Ok(None)
}

fn choose_framework(
    view: &View<'_>,
    language: &'static Language,
    facts: &mut Facts,
) -> Result<Option<Chosen<'static, Framework>>, NothingFits> {
    for framework in language.frameworks {
        let Some(mut seen) = framework.fits.seen(view, facts)? else {
            continue;
        };
        if let Some(module) = facts.values.get(framework.module).cloned() {
            facts.know("module", module.text, module.seen);
        }
        if !framework.object.is_empty() {
            let Some(object) = super::languages::python::object(view, facts, framework.object)? else {
                continue;
            };
            object.tell(facts);
            seen = object.seen;
        }
        if !framework.files.is_empty() {
            let found = framework.files.iter().find_map(|file| view.find(&facts.at(file)));
            let Some(file) = found else {
                continue;
            };
            let inside = file.strip_prefix(&facts.dir).unwrap_or(file).trim_start_matches('/').to_owned();
            facts.know("file", inside, file);
            if seen.is_empty() {
                file.clone_into(&mut seen);
            }
        }
        return Ok(Some((framework, seen)));
    }
    Ok(None)
}

/// A recipe in the making.
struct Work<'v> {
    view: &'v View<'v>,
    language: &'static Language,
    facts: Facts,
    recipe: Recipe,
    why: Vec<String>,
}

impl Work<'_> {
    /// Whether a framework has a part in what is done. One that only says what to run has none where something else says so.
    fn counts(&self, framework: &Framework) -> bool {
        let says_more = !framework.own.is_empty() || !framework.build.is_empty() || !framework.env.is_empty();
        says_more || (self.view.manifest.processes.is_empty() && self.start_script(Some(framework)).is_none())
    }

    fn tools(&mut self, manager: Option<&Manager>) {
        let mut tools = vec![self.language.tool];
        tools.extend(manager.and_then(|manager| manager.tool));
        // Bun runs what it installs, unless something is for Node by name.
        if tools == [Tool::Node, Tool::Bun]
            && self.facts.scripts.get("start").is_some_and(|start| start.starts_with("bun"))
        {
            tools.remove(0);
        }
        for (index, tool) in tools.into_iter().enumerate() {
            let wanted = wish::wanted(self.view, &self.facts, tool);
            if let Some(wanted) = &wanted {
                self.why.push(format!("{} asks for {} {}", wanted.by, wish::name(tool), wanted.version));
            }
            self.recipe.tools.push(ToolNeed {
                tool,
                wanted,
                at_run: index == 0 && self.language.needed_to_run,
            });
        }
    }

    /// The server for `framework`, and whether it is among the dependencies.
    fn server(&self, framework: &Framework) -> Option<(&'static Server, bool)> {
        let Serve::Servers(servers) = framework.serve else {
            return None;
        };
        let has = |name: &str| self.facts.dependencies.contains_key(name);
        let there =
            servers.iter().find(|server| has(server.package) || server.within.iter().any(|name| has(name)));
        there.map(|server| (server, true)).or_else(|| servers.first().map(|server| (server, false)))
    }

    fn install(
        &mut self,
        manager: &'static Manager,
        lock: &str,
        server: Option<&Server>,
    ) -> Result<(), NothingFits> {
        let line = if lock.is_empty() { manager.unlocked } else { manager.locked };
        if line.is_empty() {
            return Ok(());
        }
        let shown = line
            .split(" && ")
            .last()
            .unwrap_or(line)
            .trim_start_matches("exec ")
            .replace(" -- \"$@\"", " ...");
        let mut line = line.to_owned();
        let mut arguments = self.facts.requirements.clone();
        let takes_arguments = line.contains("\"$@\"");
        if let Some(server) = server {
            if takes_arguments {
                arguments.push(server.package.to_owned());
            } else {
                line = format!("{line} && {} {}", manager.add, server.package);
            }
        }
        let command = if takes_arguments {
            fill::with_arguments(&line, &arguments)?
        } else {
            fill::fill(&line, &self.facts.values, "")?
        };
        let seen = if lock.is_empty() {
            manager.fits.seen(self.view, &self.facts)?.unwrap_or_default()
        } else {
            lock.to_owned()
        };
        self.why.push(match seen.as_str() {
            "" if manager.lock.is_empty() => format!("it needs `{shown}`"),
            "" => format!("no lock file: `{shown}`"),
            seen => format!("{seen}: `{shown}`"),
        });
        if let Some(server) = server {
            self.why.push(format!("no server is among the dependencies: {} is installed", server.package));
        }
        let layer = self.layer(manager, lock);
        let env = owned(manager.install_env);
        self.recipe.steps.push(Step { does: "installing dependencies".to_owned(), command, env, layer });
        if self.facts.is_package && !manager.project.is_empty() {
            let command = fill::fill(manager.project, &self.facts.values, "")?;
            let does = "installing the app itself".to_owned();
            self.recipe.steps.push(Step { does, command, env: BTreeMap::new(), layer: None });
        }
        Ok(())
    }

    fn layer(&mut self, manager: &Manager, lock: &str) -> Option<Layer> {
        if manager.makes.is_empty() {
            return None;
        }
        if let Some(reason) = &self.facts.unlayered {
            self.why.push(format!("{reason}: every build installs anew"));
            return None;
        }
        let reads = |path: &str| path == lock || manager.reads.iter().any(|pattern| means(pattern, path));
        let mut inputs: BTreeSet<String> =
            self.view.paths().filter(|path| reads(path)).map(str::to_owned).collect();
        inputs.extend(self.facts.inputs.iter().filter(|path| self.view.has(path)).cloned());
        let makes = manager.makes.iter().copied().chain(self.facts.makes.iter().map(String::as_str));
        Some(Layer { inputs, makes: makes.filter_map(|dir| RelativeDir::new(dir).ok()).collect() })
    }

    /// Adds what builds; whether there was anything.
    fn build(
        &mut self,
        manager: Option<&Manager>,
        framework: Option<&Framework>,
    ) -> Result<bool, NothingFits> {
        let before = self.recipe.steps.len();
        let mut lines: &[Line] = &[];
        if let Some(command) = &self.view.manifest.build.command {
            self.why.push(format!("`build.command` of berth.toml builds: {command}"));
            self.step(command.clone());
            return Ok(true);
        }
        if let (Some(manager), true) = (manager, self.facts.scripts.contains_key("build")) {
            let command = self.run_script(manager, "build")?;
            self.why.push(format!("the script build: `{command}`"));
            self.step(command);
        } else if let Some(framework) = framework {
            lines = framework.build;
        }
        for line in lines.iter().chain(framework.map_or(&[][..], |framework| framework.finish)) {
            if let Some(seen) = line.when.seen(self.view, &self.facts)? {
                let dir = if line.text.contains("{dir}") { "" } else { self.facts.dir.as_str() };
                let command = fill::fill(line.text, &self.facts.values, dir)?;
                self.why.push(match (line.does, seen.as_str()) {
                    ("", "") => format!("it is built by `{command}`"),
                    ("", seen) => format!("{seen}: `{command}`"),
                    (does, _) => does.to_owned(),
                });
                self.step(command);
            }
        }
        Ok(self.recipe.steps.len() > before)
    }

    fn step(&mut self, command: Command) {
        self.recipe.steps.push(Step {
            does: "building".to_owned(),
            command,
            env: BTreeMap::new(),
            layer: None,
        });
    }

    /// The command by which `manager` runs a script of the app.
    fn run_script(&mut self, manager: &Manager, script: &'static str) -> Result<Command, NothingFits> {
        self.facts.know("script", script, "");
        let dir = self.facts.dir.clone();
        self.facts.know("dir", dir, "");
        // A workspace whose root can build does so for all its packages, in the right order.
        let at_root = script == "build" && self.facts.values.contains_key("root_build");
        let line = if self.facts.dir.is_empty() || at_root { manager.script } else { manager.script_below };
        fill::fill(line, &self.facts.values, "")
    }

    /// What serves; nothing when it is not known.
    fn web(
        &mut self,
        manager: Option<&Manager>,
        framework: Option<&Chosen<'static, Framework>>,
        server: Option<&Server>,
        built: bool,
    ) -> Result<Option<Web>, NothingFits> {
        let given = &self.view.manifest.build.output;
        if !self.view.manifest.processes.is_empty() {
            self.recipe.output.clone_from(given);
            return Ok(None);
        }
        if let Some(text) = self.start_script(framework.map(|(row, _)| *row)) {
            self.recipe.output.clone_from(given);
            let around = ["prestart", "poststart"].iter().any(|name| self.facts.scripts.contains_key(*name));
            let command = match manager {
                Some(manager) if around => self.run_script(manager, "start")?,
                _ => fill::script(&text, &self.facts.dir)?,
            };
            self.why.push("the script start says what to run".to_owned());
            return Ok(Some(Web::Runs(command)));
        }
        let Some((row, _)) = framework else {
            return Ok(self.output_alone(built));
        };
        let line = match &row.serve {
            Serve::Site(dir) => return self.site(dir, false).map(Some),
            Serve::SinglePage(dir) => return self.site(dir, true).map(Some),
            Serve::Unclear(problem) => return Err(unclear(*problem)),
            Serve::Script => return Ok(self.output_alone(built)),
            Serve::Run(line) => line,
            Serve::Servers(_) => {
                let factory = self.facts.values.contains_key("call");
                server.map_or("", |server| if factory { server.run_factory } else { server.run })
            }
        };
        self.recipe.output.clone_from(given);
        fill::fill(line, &self.facts.values, &self.facts.dir).map(|command| Some(Web::Runs(command)))
    }

    /// Whoever says where the build puts its output, and nothing of what runs, has a static site.
    fn output_alone(&mut self, built: bool) -> Option<Web> {
        let output = self.view.manifest.build.output.clone().filter(|_| built)?;
        self.why.push(format!("`build.output` of berth.toml: the files in {output} are the site"));
        self.recipe.output = Some(output);
        Some(Web::Site { root: RelativeDir::here(), single_page: false })
    }

    fn site(&mut self, dir: &str, single_page: bool) -> Result<Web, NothingFits> {
        let filled = dir
            .strip_prefix('{')
            .and_then(|name| name.strip_suffix('}'))
            .map_or(dir, |name| self.facts.values.get(name).map_or("dist", |value| value.text.as_str()));
        let below = self.facts.at(filled);
        let guessed =
            RelativeDir::new(&below).map_err(|bad| unclear(format!("the folder of the site: {bad}")))?;
        let output = self.view.manifest.build.output.clone().unwrap_or(guessed);
        self.why.push(if single_page {
            format!("the files in {output} are the site; paths that are no files get its index.html")
        } else {
            format!("the files in {output} are the site")
        });
        self.recipe.output = Some(output);
        Ok(Web::Site { root: RelativeDir::here(), single_page })
    }

    /// What the script `start` runs, unless the framework knows better.
    fn start_script(&self, framework: Option<&Framework>) -> Option<String> {
        let scripts = &self.facts.scripts;
        let mut text = scripts.get("start")?.trim().to_owned();
        for _ in 0..SCRIPTS_DEEP {
            let Some(other) = other_script(&text).filter(|name| scripts.contains_key(*name)) else {
                break;
            };
            if ["pre", "post"].iter().any(|around| scripts.contains_key(&format!("{around}{other}"))) {
                break;
            }
            text = scripts.get(other)?.trim().to_owned();
        }
        let bare = bare_program(&text);
        let begins = |own: &str| {
            bare.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '@', ':']))
        };
        let replaced = framework.is_some_and(|row| {
            let serves_files = matches!(row.serve, Serve::Site(_) | Serve::SinglePage(_));
            row.own.iter().any(|own| begins(own))
                || (serves_files && FILE_SERVERS.iter().any(|own| begins(own)))
        });
        (!replaced && !text.is_empty()).then_some(text)
    }

    fn release(&mut self, framework: Option<&Framework>) -> Result<Option<Command>, NothingFits> {
        let Some(framework) = framework else {
            return Ok(None);
        };
        for line in framework.notes {
            if let Some(seen) = line.when.seen(self.view, &self.facts)? {
                self.why.push(if seen.is_empty() {
                    line.text.to_owned()
                } else {
                    format!("{seen}: {}", line.text)
                });
            }
        }
        for line in framework.release {
            if line.when.fits(self.view, &self.facts)? {
                let command = fill::fill(line.text, &self.facts.values, &self.facts.dir)?;
                self.why.push(format!("before traffic: `{command}`"));
                return Ok(Some(command));
            }
        }
        Ok(None)
    }

    fn environment(
        &mut self,
        manager: Option<&Manager>,
        framework: Option<&Framework>,
        web: Option<&Web>,
    ) -> Result<(), NothingFits> {
        let recipe = &mut self.recipe;
        recipe.env.extend(owned(self.language.env));
        recipe.caches.extend(owned(self.language.caches));
        if let Some(manager) = manager {
            recipe.env.extend(owned(manager.env));
            recipe.caches.extend(owned(manager.caches));
            recipe.relocated.extend(dirs(manager.relocated.iter().copied())?);
        }
        if let Some(framework) = framework {
            recipe.env.extend(owned(framework.env));
            let kept: Vec<String> = framework.kept.iter().map(|dir| self.facts.at(dir)).collect();
            recipe.kept.extend(dirs(kept.iter().map(String::as_str))?);
        }
        if let Some(base) = self.facts.values.get("python_path") {
            recipe.env.insert("PYTHONPATH".to_owned(), format!("$ARTIFACT/{}", base.text));
        }
        let is_made = |dir: &String| self.facts.makes.iter().any(|made| dir.starts_with(made));
        let below = self.language.path.iter().map(|dir| self.facts.at(dir)).filter(is_made);
        let folders: Vec<String> =
            below.chain(self.language.path.iter().map(|dir| (*dir).to_owned())).collect();
        recipe.path.extend(dirs(folders.iter().map(String::as_str))?);
        if matches!(web, Some(Web::Site { .. })) {
            for need in &mut recipe.tools {
                need.at_run = false;
            }
        }
        Ok(())
    }

    /// What there is, for the sentence that says what is missing.
    fn saw(&self) -> String {
        format!("this is {}, but nothing says what to run", self.language.name)
    }
}

fn dirs<'d>(names: impl Iterator<Item = &'d str>) -> Result<Vec<RelativeDir>, NothingFits> {
    names.map(|name| RelativeDir::new(name).map_err(|bad| unclear(bad.to_string()))).collect()
}

fn owned(pairs: Pairs) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The script that `text` runs and nothing else: `npm run serve`.
fn other_script(text: &str) -> Option<&str> {
    let mut words = text.split_whitespace();
    let (manager, mut word) = (words.next()?, words.next()?);
    if !["npm", "pnpm", "yarn", "bun"].contains(&manager) {
        return None;
    }
    if word == "run" {
        word = words.next()?;
    }
    words.next().is_none().then_some(word)
}

/// `text` from its program on: without assignments and programs that only run another one.
fn bare_program(text: &str) -> &str {
    const RUNNERS: [&str; 6] = ["npx", "bunx", "cross-env", "env", "dotenv", "pnpm exec"];
    let mut rest = text.trim_start();
    loop {
        let word = rest.split_whitespace().next().unwrap_or_default();
        let runner = RUNNERS
            .iter()
            .find(|runner| rest.strip_prefix(**runner).is_some_and(|after| after.starts_with(' ')));
        let skip = match runner {
            Some(runner) => runner.len(),
            None if word.contains('=') && !word.starts_with('-') => word.len(),
            None => return rest,
        };
        rest = rest.get(skip..).unwrap_or_default().trim_start();
    }
}
