//! What can be written on the command line: a file for each family of verbs.

mod apps;
mod backup;
mod certs;
mod cron;
mod domains;
mod gate;
mod git;
mod history;
mod launch;
mod platform;
mod registry;
mod releases;
mod run;
mod settings;
mod spelling;
mod stack;
mod traffic;
mod volumes;

use std::ffi::OsString;
use std::path::PathBuf;

use berth_spec::{AppName, ProjectName, TenantName};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use clap_complete::ArgValueCandidates;

use crate::completion;

pub use apps::{AppOrder, AppsArgs, DestroyArgs, ScaleArgs};
pub use backup::{BackupAction, BackupArgs, BackupFile, RestoreArgs};
pub use certs::{AcmeArgs, CertsAction, CertsArgs, ProofArg};
pub use cron::{CronAction, CronArgs};
pub use domains::{DomainsAction, DomainsArgs};
pub use gate::{MaintenanceArgs, Switch};
pub use git::{ConnectArgs, GitAction, GitArgs};
pub use history::{LogsArgs, TimelineArgs, WhyArgs};
pub use launch::LaunchArgs;
pub use platform::{CompletionsArgs, ManArgs, UpArgs, UpgradeAction, UpgradeArgs};
pub use registry::{RegistryAction, RegistryArgs};
pub use releases::{DeployArgs, ReleasesAction, ReleasesArgs, RollbackArgs, StrategyChoice};
pub use run::{ExecArgs, RunArgs};
pub use settings::{
    ConfigAction, ConfigArgs, DiffArgs, GetArgs, ImportArgs, ListArgs, SecretsAction, SecretsArgs, SetArgs,
    UnsetArgs,
};
pub use stack::{OfStack, StackAction, StackArgs};
pub use traffic::{PromoteArgs, ShareWish, TrafficAction, TrafficArgs};
pub use volumes::{VolumesAction, VolumesArgs};

/// Ends every help text.
const EXIT_STATUSES: &str = "\
Exit statuses:
  0    done
  1    tried, and failed
  2    the command line is wrong
  3    no such app, release or process
  4    refused: it contradicts what is there
  5    the platform cannot be reached
  6    the deployment was superseded by a newer one
  7    not allowed
  130  interrupted; what was begun on the platform goes on

Every error has a code and a page: docs/errors/CODE.md";

/// Deploy apps, and see what they do.
#[derive(Debug, Parser)]
#[command(name = "berth", version, disable_help_subcommand = true, max_term_width = 100)]
pub struct CommandLine {
    /// What every verb takes.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What every verb takes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "For every verb")]
pub struct Globals {
    /// The platform's data directory [env: BERTH_HOME]
    #[arg(long, global = true, value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// A platform that `berth up` noted down, by its name
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "home")]
    pub context: Option<String>,
    /// The tenant [default: default]
    #[arg(long, global = true, value_name = "NAME")]
    pub tenant: Option<TenantName>,
    /// The project [default: default]
    #[arg(long, global = true, value_name = "NAME")]
    pub project: Option<ProjectName>,
    /// Print one JSON document; one per line where output goes on
    #[arg(long, global = true)]
    pub json: bool,
    /// When to use colours: auto, always or never
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        value_enum,
        default_value_t,
        hide_possible_values = true
    )]
    pub color: ColorChoice,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Which app.
#[derive(Debug, Clone, Args)]
pub struct OfApp {
    /// The app [default: `app` in berth.toml, else the directory's name]
    #[arg(long, short, value_name = "NAME", add = ArgValueCandidates::new(completion::apps))]
    pub app: Option<AppName>,
}

impl OfApp {
    /// `--app` may stand before an action or after it.
    pub(crate) fn or(self, outer: Self) -> Self {
        Self { app: self.app.or(outer.app) }
    }
}

/// Whether to wait for the release that a change makes.
#[derive(Debug, Clone, Copy, Args)]
pub struct Waiting {
    /// Return once the change is taken on, without following it
    #[arg(long)]
    pub detach: bool,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Start the platform, and stay until it is stopped
    Up(UpArgs),
    /// Stop every app, then the platform
    Down,
    /// Show the platform and its apps
    Status,
    /// Look for what may go wrong on this machine
    Doctor,
    /// See what is in a directory, write berth.toml, make the app and deploy it
    Launch(LaunchArgs),
    /// Build and start the source in a directory
    Deploy(DeployArgs),
    /// List the apps
    Apps(AppsArgs),
    /// List an app's releases, or show one
    Releases(ReleasesArgs),
    /// Go back to an earlier release, with its configuration and secrets
    Rollback(RollbackArgs),
    /// Show how requests are shared between two releases, or set it (also `traffic:set`)
    Traffic(TrafficArgs),
    /// Have the release that is being rolled out take over at once
    Promote(PromoteArgs),
    /// Have all requests go to the release that serves again, and end the rollout
    Abort(OfApp),
    /// Show or change the configuration (also `config:set` and so on)
    Config(ConfigArgs),
    /// List or change the secrets; values never come out (also `secrets:set` and so on)
    Secrets(SecretsArgs),
    /// List or change the hosts that lead to an app (also `domains:add` and so on)
    Domains(DomainsArgs),
    /// Show the certificates and how each host stands, have them come by themselves, or bring one (also `certs:add` and so on)
    Certs(CertsArgs),
    /// Turn requests away with a page that says so, or show whether they are
    Maintenance(MaintenanceArgs),
    /// Have requests wait, each for 30 seconds at most, until `berth resume`
    Pause(OfApp),
    /// Let requests through again
    Resume(OfApp),
    /// Have another program take the platform over, without a request that fails; one that does not come up gives way to this one
    /// again. Nothing is written that this one does not read until `berth upgrade commit`
    Upgrade(UpgradeArgs),
    /// List what an app runs by a schedule, run it at once, or show what became of it
    Cron(CronArgs),
    /// List the directories that outlive an app's releases, snapshot, restore or remove them (also `volumes:snapshot` and so on)
    Volumes(VolumesArgs),
    /// Run the services of a compose file as apps
    Stack(StackArgs),
    /// Deploy by `git push`, or from a repository elsewhere (also `git:remote` and so on)
    Git(GitArgs),
    /// Show the images that were pushed for an app, and how to push one (also `registry:password`)
    Registry(RegistryArgs),
    /// Show what an app's processes wrote
    Logs(LogsArgs),
    /// Run a command once in an app's release
    Run(RunArgs),
    /// Run a command in a running instance, beside the app's own program
    Exec(ExecArgs),
    /// List an app's instances
    Ps(OfApp),
    /// Set how many instances of a process run
    Scale(ScaleArgs),
    /// Stop an app and remove it
    Destroy(DestroyArgs),
    /// Explain why an app is as it is
    Why(WhyArgs),
    /// Show what happened, and who did it
    Timeline(TimelineArgs),
    /// Save the whole platform into a file, or look into such a file
    Backup(BackupArgs),
    /// Make a home of a backup; `berth up` starts the platform in it
    Restore(RestoreArgs),
    /// Print what makes a shell complete commands, names of apps and numbers of releases
    Completions(CompletionsArgs),
    /// Write a man page for each verb
    #[command(hide = true)]
    Man(ManArgs),
    /// Print the version
    Version,
}

/// The definition of the command line.
pub(crate) fn definition() -> clap::Command {
    with_exit_statuses(CommandLine::command())
}

/// Every help text ends with them.
fn with_exit_statuses(command: clap::Command) -> clap::Command {
    command.after_help(EXIT_STATUSES).mut_subcommands(with_exit_statuses)
}

/// Reads the command line, the program's name first.
///
/// # Errors
/// What clap says of it: a mistake, or that help or the version was asked for.
pub(crate) fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<CommandLine, clap::Error> {
    let definition = definition();
    let arguments = spelling::split_colons(arguments, &definition);
    CommandLine::from_arg_matches(&definition.try_get_matches_from(arguments)?)
}

/// The verb that was asked for and is not there, and what to type instead, when other platforms have it.
pub(crate) fn meant(problem: &clap::Error) -> Option<(String, &'static str)> {
    spelling::meant(problem)
}

#[cfg(test)]
mod tests;
