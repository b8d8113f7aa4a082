//! What can be written on the command line.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use berth_spec::{AppName, EnvName, ProcessName, ProjectName, ReleaseNumber, TenantName};
use clap::{Args, Parser, Subcommand, ValueEnum};

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
#[command(
    name = "berth",
    version,
    disable_help_subcommand = true,
    after_help = EXIT_STATUSES,
    max_term_width = 100
)]
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
    #[arg(long, short, value_name = "NAME")]
    pub app: Option<AppName>,
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
#[command(after_help = EXIT_STATUSES)]
pub enum Verb {
    /// Start the platform, and stay until it is stopped
    #[command(after_help = EXIT_STATUSES)]
    Up(UpArgs),
    /// Stop every app, then the platform
    #[command(after_help = EXIT_STATUSES)]
    Down,
    /// Show the platform and its apps
    #[command(after_help = EXIT_STATUSES)]
    Status,
    /// Look for what may go wrong on this machine
    #[command(after_help = EXIT_STATUSES)]
    Doctor,
    /// Build and start the source in a directory
    #[command(after_help = EXIT_STATUSES)]
    Deploy(DeployArgs),
    /// List the apps
    #[command(after_help = EXIT_STATUSES)]
    Apps,
    /// List an app's releases, or show one
    #[command(after_help = EXIT_STATUSES)]
    Releases(ReleasesArgs),
    /// Go back to an earlier release, with its configuration and secrets
    #[command(after_help = EXIT_STATUSES)]
    Rollback(RollbackArgs),
    /// Show or change the configuration (also `config:set` and so on)
    #[command(after_help = EXIT_STATUSES)]
    Config(ConfigArgs),
    /// List or change the secrets; values never come out (also `secrets:set` and so on)
    #[command(after_help = EXIT_STATUSES)]
    Secrets(SecretsArgs),
    /// Show what an app's processes wrote
    #[command(after_help = EXIT_STATUSES)]
    Logs(LogsArgs),
    /// List an app's instances
    #[command(after_help = EXIT_STATUSES)]
    Ps(OfApp),
    /// Set how many instances of a process run
    #[command(after_help = EXIT_STATUSES)]
    Scale(ScaleArgs),
    /// Stop an app and remove it
    #[command(after_help = EXIT_STATUSES)]
    Destroy(DestroyArgs),
    /// Explain why an app is as it is
    #[command(after_help = EXIT_STATUSES)]
    Why(WhyArgs),
    /// Show what happened, and who did it
    #[command(after_help = EXIT_STATUSES)]
    Timeline(TimelineArgs),
    /// Print the version
    #[command(after_help = EXIT_STATUSES)]
    Version,
}

/// `berth up`
#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    /// Where apps answer [default: as last time, at first 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub edge: Option<SocketAddr>,
    /// Where the API answers, on loopback [default: as last time, at first 127.0.0.1:7070]
    #[arg(long, value_name = "ADDRESS")]
    pub api: Option<SocketAddr>,
    /// Return once the platform is up, and leave it running
    #[arg(long)]
    pub detach: bool,
    /// Deploy this directory once the platform is up
    #[arg(long, value_name = "PATH")]
    pub deploy: Option<PathBuf>,
}

/// `berth deploy`
#[derive(Debug, Clone, Args)]
pub struct DeployArgs {
    /// The directory with the source
    #[arg(default_value = ".")]
    pub path: PathBuf,
    /// The app to deploy.
    #[command(flatten)]
    pub of: OfApp,
    /// How traffic moves: bluegreen, rolling or recreate [default: as berth.toml says]
    #[arg(long, value_enum, hide_possible_values = true)]
    pub strategy: Option<StrategyChoice>,
    /// Show what was detected and what would change, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// What is in the release, for people
    #[arg(long, short, value_name = "TEXT")]
    pub message: Option<String>,
    /// The source's commit [default: that of the git repository in the directory]
    #[arg(long, value_name = "ID")]
    pub commit: Option<String>,
    /// Whether to follow it.
    #[command(flatten)]
    pub waiting: Waiting,
}

/// How traffic moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StrategyChoice {
    /// Start all new instances, then move at once
    Bluegreen,
    /// Replace one instance after the other
    Rolling,
    /// Stop the old before the new start
    Recreate,
}

/// `berth releases`
#[derive(Debug, Clone, Args)]
pub struct ReleasesArgs {
    /// The release to show, `v42` or `42`
    pub release: Option<ReleaseNumber>,
    /// How many to list
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 20)]
    pub count: usize,
    /// Whose releases.
    #[command(flatten)]
    pub of: OfApp,
}

/// `berth rollback`
#[derive(Debug, Clone, Args)]
pub struct RollbackArgs {
    /// The release to go back to [default: the one that was active before]
    pub release: Option<ReleaseNumber>,
    /// Keep today's configuration and secrets, and start new instances
    #[arg(long)]
    pub keep_config: bool,
    /// Whose release.
    #[command(flatten)]
    pub of: OfApp,
    /// Whether to follow it.
    #[command(flatten)]
    pub waiting: Waiting,
}

/// `berth config`
#[derive(Debug, Clone, Args)]
pub struct ConfigArgs {
    /// What to do; nothing lists.
    #[command(subcommand)]
    pub action: Option<ConfigAction>,
    /// Whose configuration, when it is listed.
    #[command(flatten)]
    pub of: OfApp,
}

/// What to do with the configuration.
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigAction {
    /// Set variables; makes a release
    #[command(after_help = EXIT_STATUSES)]
    Set {
        /// `NAME=VALUE`; `NAME=-` reads the value from standard input
        #[arg(required = true, value_name = "NAME=VALUE")]
        settings: Vec<String>,
        /// Whose.
        #[command(flatten)]
        of: OfApp,
        /// Whether to follow it.
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Remove variables; makes a release
    #[command(after_help = EXIT_STATUSES)]
    Unset {
        /// The variables
        #[arg(required = true, value_name = "NAME")]
        names: Vec<EnvName>,
        /// Whose.
        #[command(flatten)]
        of: OfApp,
        /// Whether to follow it.
        #[command(flatten)]
        waiting: Waiting,
    },
    /// List the variables
    #[command(after_help = EXIT_STATUSES)]
    List(OfApp),
}

/// `berth secrets`
#[derive(Debug, Clone, Args)]
pub struct SecretsArgs {
    /// What to do; nothing lists.
    #[command(subcommand)]
    pub action: Option<SecretsAction>,
    /// Whose secrets, when they are listed.
    #[command(flatten)]
    pub of: OfApp,
}

/// What to do with the secrets.
#[derive(Debug, Clone, Subcommand)]
pub enum SecretsAction {
    /// Set secrets; makes a release
    #[command(after_help = EXIT_STATUSES)]
    Set {
        /// `NAME` or `NAME=-` reads the value from standard input; `NAME=VALUE` leaves it in the shell's history
        #[arg(required = true, value_name = "NAME")]
        settings: Vec<String>,
        /// Whose.
        #[command(flatten)]
        of: OfApp,
        /// Whether to follow it.
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Remove secrets; makes a release
    #[command(after_help = EXIT_STATUSES)]
    Unset {
        /// The secrets
        #[arg(required = true, value_name = "NAME")]
        names: Vec<EnvName>,
        /// Whose.
        #[command(flatten)]
        of: OfApp,
        /// Whether to follow it.
        #[command(flatten)]
        waiting: Waiting,
    },
    /// List the names
    #[command(after_help = EXIT_STATUSES)]
    List(OfApp),
}

/// `berth logs`
#[derive(Debug, Clone, Args)]
pub struct LogsArgs {
    /// Wait for more lines, until Ctrl-C
    #[arg(long, short)]
    pub follow: bool,
    /// How many of the newest lines to begin with
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 100)]
    pub lines: u32,
    /// Only this process: `web`
    #[arg(long, short, value_name = "NAME")]
    pub process: Option<ProcessName>,
    /// Only this instance: `web.7`
    #[arg(long, short, value_name = "NAME")]
    pub instance: Option<String>,
    /// Only lines after this cursor, as --json gives it
    #[arg(long, value_name = "CURSOR")]
    pub after: Option<String>,
    /// Whose log.
    #[command(flatten)]
    pub of: OfApp,
}

/// `berth scale`
#[derive(Debug, Clone, Args)]
pub struct ScaleArgs {
    /// `web=2 worker=1`; nothing shows what is wanted now
    #[arg(value_name = "PROCESS=COUNT", value_parser = process_count)]
    pub counts: Vec<(ProcessName, u32)>,
    /// Whose processes.
    #[command(flatten)]
    pub of: OfApp,
}

/// `berth destroy`
#[derive(Debug, Clone, Args)]
pub struct DestroyArgs {
    /// The app.
    #[command(flatten)]
    pub of: OfApp,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
}

/// `berth why`
#[derive(Debug, Clone, Args)]
pub struct WhyArgs {
    /// `v42`, `web.7`, `web`, `scale`; nothing explains the app as it is
    pub subject: Option<String>,
    /// Whose.
    #[command(flatten)]
    pub of: OfApp,
}

/// `berth timeline`
#[derive(Debug, Clone, Args)]
pub struct TimelineArgs {
    /// The whole platform instead of one app
    #[arg(long, conflicts_with = "app")]
    pub all: bool,
    /// Only what came after this position
    #[arg(long, value_name = "POSITION")]
    pub after: Option<u64>,
    /// How many entries
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub count: u32,
    /// Whose.
    #[command(flatten)]
    pub of: OfApp,
}

fn process_count(text: &str) -> Result<(ProcessName, u32), String> {
    let (process, count) = text.split_once('=').ok_or("expected PROCESS=COUNT, as in web=2")?;
    let process = process.parse().map_err(|problem| format!("{problem}"))?;
    let count = count.parse().map_err(|_problem| format!("{count:?} is not a whole number"))?;
    Ok((process, count))
}

/// Takes `config:set` for `config set`, as Heroku and Dokku write it.
pub(crate) fn split_colons(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut split = Vec::new();
    let mut may_split = true;
    for argument in arguments {
        let parts = argument.to_str().and_then(|text| text.split_once(':'));
        match parts {
            Some((noun @ ("config" | "secrets"), verb @ ("set" | "unset" | "list"))) if may_split => {
                may_split = false;
                split.extend([noun.into(), verb.into()]);
            }
            _ => split.push(argument),
        }
    }
    split
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::CommandFactory as _;

    use super::*;

    fn parse(text: &str) -> Result<CommandLine, clap::Error> {
        CommandLine::try_parse_from(split_colons(text.split(' ').map(OsString::from)))
    }

    #[test]
    fn the_definition_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn both_spellings_are_taken() {
        for text in ["berth config set A=b=c --app shop", "berth --json config:set -a shop A=b=c"] {
            let Verb::Config(ConfigArgs { action: Some(ConfigAction::Set { settings, of, .. }), .. }) =
                parse(text).unwrap().verb
            else {
                panic!("{text}");
            };
            assert_eq!((settings[0].as_str(), of.app.unwrap().as_str()), ("A=b=c", "shop"));
        }
        assert!(matches!(parse("berth secrets:list").unwrap().verb, Verb::Secrets(_)));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for text in [
            "berth",
            "berth launch",
            "berth scale web",
            "berth scale web=-1",
            "berth scale WEB=1",
            "berth rollback v0",
            "berth rollback latest",
            "berth logs --app ../x",
            "berth config set",
            "berth timeline --all --app shop",
            "berth status --home x --context y",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_verb_is_in_the_documentation() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
        let page = std::fs::read_to_string(page).unwrap();
        for verb in CommandLine::command().get_subcommands() {
            let row = format!("\n| `{}", verb.get_name());
            assert!(page.contains(&row), "docs/cli.md has no row for {}", verb.get_name());
        }
    }

    /// One file for each verb, so that a change of the command line is seen in review.
    #[test]
    fn help_golden() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contracts/cli");
        let mut expected = vec![("berth.txt".to_owned(), help(CommandLine::command(), &[]))];
        for verb in CommandLine::command().get_subcommands() {
            let name = verb.get_name();
            expected.push((format!("{name}.txt"), help(CommandLine::command(), &[name])));
            for action in verb.get_subcommands() {
                let action = action.get_name();
                let text = help(CommandLine::command(), &[name, action]);
                expected.push((format!("{name}-{action}.txt"), text));
            }
        }
        if std::env::var_os("BERTH_UPDATE_GOLDENS").is_some() {
            std::fs::create_dir_all(&directory).unwrap();
            for (file, text) in &expected {
                std::fs::write(directory.join(file), text).unwrap();
            }
        }
        for (file, text) in &expected {
            let golden = std::fs::read_to_string(directory.join(file)).unwrap_or_default();
            assert_eq!(&golden, text, "contracts/cli/{file} is stale: run with BERTH_UPDATE_GOLDENS=1");
        }
    }

    fn help(command: clap::Command, verbs: &[&str]) -> String {
        let arguments = std::iter::once("berth").chain(verbs.iter().copied()).chain(["--help"]);
        let shown = command.term_width(100).try_get_matches_from(arguments).unwrap_err();
        let text: Vec<String> = shown.to_string().lines().map(|line| line.trim_end().to_owned()).collect();
        text.join("\n") + "\n"
    }
}
