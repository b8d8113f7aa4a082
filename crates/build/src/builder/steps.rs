//! Following a recipe: each step in turn, or the layer that it would make.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use berth_source::recipe::Step;
use berth_spec::Command;

use super::garbage::touch;
use super::make::{Work, ground};
use super::{Inside, Plan, blocking};
use crate::error::BuildError;
use crate::layer::{Hand, LayerInputs, Shared};
use crate::tools::{self, SYSTEM_PATH};

/// What a program says when it may not write to a file.
const REFUSED: [&str; 3] = ["EACCES", "EPERM", "ermission denied"];

impl Inside {
    /// Follows the recipe in the tree of `work`, and tells what of the tree is shared afterwards.
    pub(super) async fn run_steps(
        self: &Arc<Self>,
        plan: &Arc<Plan>,
        work: &Arc<Work>,
    ) -> Result<Shared, BuildError> {
        let mut shared = Shared::default();
        for (index, step) in plan.detection.recipe.steps.iter().enumerate() {
            let key = layer_key(self, plan, index);
            if let Some(key) = &key {
                shared = put(self, plan, work, key, Hand::Linked, shared).await?;
                if shared.layers.contains(key) {
                    plan.log.say(format!("{}: unchanged, taken from an earlier build", step.does));
                    continue;
                }
            }
            plan.log.say(step.does.clone());
            let mut ran = self.run_command(plan, work, step).await;
            if let Err(BuildError::Failed { tail, .. }) = &ran
                && !shared.layers.is_empty()
                && tail.iter().any(|line| REFUSED.iter().any(|word| line.contains(word)))
            {
                plan.log.say("it may have wanted to write to what releases share: once more, with copies");
                for key in std::mem::take(&mut shared).layers {
                    // What is copied is shared with nobody.
                    drop(put(self, plan, work, &key, Hand::Copied, Shared::default()).await?);
                }
                ran = self.run_command(plan, work, step).await;
            }
            ran?;
            if let Some(key) = key {
                shared = self.keep_layer(plan, work, index, key, shared).await?;
            }
        }
        Ok(shared)
    }

    /// Makes a layer of what the step `index` left, and puts it back into the tree.
    async fn keep_layer(
        self: &Arc<Self>,
        plan: &Arc<Plan>,
        work: &Arc<Work>,
        index: usize,
        key: String,
        shared: Shared,
    ) -> Result<Shared, BuildError> {
        let (planned, worked, made) = (Arc::clone(plan), Arc::clone(work), key.clone());
        let shared = blocking(move || {
            let recipe = &planned.detection.recipe;
            if let Some(layer) = recipe.steps.get(index).and_then(|step| step.layer.as_ref()) {
                let (src, log) = (&worked.src, &planned.log);
                worked.layers.make(&made, layer, &recipe.relocated, src, &shared, log)?;
            }
            Ok(shared)
        })
        .await?;
        put(self, plan, work, &key, Hand::Linked, shared).await
    }

    /// Runs the command of a step.
    async fn run_command(&self, plan: &Plan, work: &Work, step: &Step) -> Result<(), BuildError> {
        let env = self.env(plan, work, &step.env);
        let ground = ground(plan, work)?;
        let refuse = |error: berth_spec::CommandError| BuildError::Start(error.into());
        let (program, args) = match &step.command {
            Command::Shell(line) => (Some(ground.shell(line)), Vec::new()),
            Command::Argv(_) | Command::Line(_) | Command::StaticSite { .. } => {
                let mut argv = step.command.argv(&env).map_err(refuse)?;
                let args = argv.split_off(1);
                let name = argv.pop().unwrap_or_default();
                (ground.program(&name, env.get("PATH").map_or("", String::as_str).as_ref()), args)
            }
        };
        let shown = step.command.to_string();
        let Some(program) = program else {
            let outcome = "is not installed: no folder of PATH has it".to_owned();
            return Err(BuildError::Failed { command: shown, outcome, tail: Vec::new() });
        };
        self.run(plan, work, program, args, shown, env).complete(None).await
    }

    /// The environment of a command of a build. Nothing of ours is handed on but how to reach a network and, to a build that runs as
    /// ourselves, where programs are.
    pub(super) fn env(
        &self,
        plan: &Plan,
        work: &Work,
        step: &BTreeMap<String, String>,
    ) -> BTreeMap<String, String> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let recipe = &plan.detection.recipe;
        let mut env = self.config.env.clone();
        env.extend(plan.request.env.clone());
        env.extend(
            [
                ("HOME", text(&work.tmp)),
                ("TMPDIR", text(&work.tmp)),
                ("LANG", "C.UTF-8".to_owned()),
                ("APP_NAME", plan.request.app.app.to_string()),
                ("ARTIFACT_DIR", text(&self.layout.artifact(&plan.request.app, &plan.id))),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        env.extend(recipe.caches.iter().map(|(name, cache)| (name.clone(), text(&work.cache.join(cache)))));
        let src = text(&work.src);
        let given = recipe.env.iter().chain(step);
        env.extend(given.map(|(name, value)| (name.clone(), value.replace("$ARTIFACT", &src))));
        let system = match plan.request.user {
            Some(_) => SYSTEM_PATH.to_owned(),
            None => self.config.toolchains.path.to_string_lossy().into_owned(),
        };
        let own = recipe.path.iter().map(|dir| text(&work.src.join(dir.as_str())));
        let tools = tools::folders(&plan.tools, &system).into_iter().map(|folder| text(&folder));
        let path: Vec<String> = own.chain(tools).chain([system]).collect();
        env.insert("PATH".to_owned(), path.join(":"));
        env
    }
}

/// The key of the layer that a step makes, if it makes one.
fn layer_key(inside: &Inside, plan: &Plan, step: usize) -> Option<String> {
    let recipe = &plan.detection.recipe;
    let layer = recipe.steps.get(step)?.layer.as_ref()?;
    let tools: Vec<&str> = plan.tools.iter().map(|tool| tool.identity.as_str()).collect();
    let platform = &inside.config.platform;
    Some(LayerInputs { platform, tools: &tools, recipe, step, env: &plan.request.env }.key(layer, &plan.tree))
}

/// Puts a layer into the tree, if there is one of that key.
async fn put(
    inside: &Inside,
    plan: &Arc<Plan>,
    work: &Arc<Work>,
    key: &str,
    hand: Hand,
    mut shared: Shared,
) -> Result<Shared, BuildError> {
    let (work, key) = (Arc::clone(work), key.to_owned());
    if plan.request.cancel.is_cancelled() {
        return Err(BuildError::Cancelled);
    }
    let now = inside.clock.now();
    blocking(move || {
        if work.layers.take(&key, &work.src, hand, &mut shared)? {
            touch(&work.layers.place(&key), now);
        }
        Ok(shared)
    })
    .await
}
