//! `git`.

use std::ffi::OsStr;
use std::io::Read as _;

use berth_contract::{Code, ConnectGit, ExitStatus, Git, SecretValue};
use berth_process::{Launch, Program, Stdio};
use berth_spec::{AppId, BranchName};
use serde_json::json;

use super::Session;
use crate::args::{ConnectArgs, GitAction, GitArgs};
use crate::failure::Failure;

/// The longest token that is read, in bytes.
const TOKEN_MAX: u64 = 4_096;
/// Of the environment git gets what it looks for in its user's.
const ENVIRONMENT: [&str; 6] = ["HOME", "PATH", "XDG_CONFIG_HOME", "USER", "GIT_DIR", "LANG"];

impl Session<'_> {
    pub(super) async fn git(&mut self, args: GitArgs) -> Result<ExitStatus, Failure> {
        let outer = args.of;
        match args.action {
            None => {
                let app = self.app_id(&outer)?;
                let git = self.client.git(&app).await?;
                self.show(&git, |session| session.show_git(&git))
            }
            Some(GitAction::Remote { name, of }) => {
                let app = self.app_id(&of.or(outer))?;
                self.remote(&app, &name).await
            }
            Some(GitAction::Branch { branch, of }) => {
                let app = self.app_id(&of.or(outer))?;
                let git = self.client.set_git_branch(&app, branch).await?;
                self.show(&git, |session| session.show_git(&git))
            }
            Some(GitAction::Connect(args)) => {
                let app = self.app_id(&args.of.clone().or(outer))?;
                self.connect(&app, args).await
            }
            Some(GitAction::Disconnect(of)) => {
                let app = self.app_id(&of.or(outer))?;
                let git = self.client.disconnect_git(&app).await?;
                self.show(&git, |session| Ok(session.screen.line("disconnected")?))
            }
            Some(GitAction::Credential { operation, of }) => {
                let app = self.app_id(&of.or(outer))?;
                self.credential(&app, &operation).await
            }
        }
    }

    fn show_git(&mut self, git: &Git) -> Result<(), Failure> {
        let branches: Vec<&str> = git.branches.iter().map(BranchName::as_str).collect();
        self.screen.line(&format!("remote     {}", git.remote))?;
        self.screen.line(&format!("deploys    {}", branches.join(" or ")))?;
        match &git.connection {
            None => self.hint("`berth git remote` lets this directory push to it; `berth git connect URL` deploys from elsewhere"),
            Some(connection) => {
                self.screen.line(&format!("connected  {}", connection.url))?;
                Ok(self.screen.line(&format!("webhook    {}", connection.hook))?)
            }
        }
    }

    async fn remote(&mut self, app: &AppId, name: &BranchName) -> Result<ExitStatus, Failure> {
        self.own_git(&["rev-parse", "--git-dir"])?;
        if !self.is_there(app).await? {
            self.make(app).await?;
        }
        let git = self.client.git(app).await?;
        let (url, name) = (git.remote.clone(), name.as_str());
        let known = self.own_git(&["remote"])?;
        if known.lines().any(|line| line == name) {
            self.own_git(&["remote", "set-url", name, &url])?;
        } else {
            self.own_git(&["remote", "add", name, &url])?;
        }
        let helper = self.helper(app)?;
        let key = format!("credential.{url}.helper");
        // An empty one first: other helpers must not be told the pass, nor asked for one.
        self.own_git(&["config", "--replace-all", &key, ""])?;
        self.own_git(&["config", "--add", &key, &helper])?;
        let branch = git.branches.first().map_or("main", BranchName::as_str).to_owned();
        self.show(&json!({ "remote": name, "url": url }), |session| {
            session.screen.line(&format!("the remote {name} is {url}"))?;
            session.hint(&format!("`git push {name} {branch}` deploys"))
        })
    }

    /// What git runs for a password: this program, told which platform and which app. Git gives it to the user's shell.
    fn helper(&self, app: &AppId) -> Result<String, Failure> {
        let unknown = |problem: std::io::Error| {
            Failure::local(
                Code::Internal,
                format!("this program does not know its own path: {problem}"),
                "run it by its path",
            )
        };
        let program = std::env::current_exe().map_err(unknown)?;
        let mut words = vec![quoted(program.as_os_str())?];
        if let Some(home) = &self.home {
            words.extend(["--home".to_owned(), quoted(home.as_os_str())?]);
        }
        let id = [("--tenant", app.tenant.as_str()), ("--project", app.project.as_str())];
        words.extend(id.into_iter().flat_map(|(flag, name)| [flag.to_owned(), name.to_owned()]));
        Ok(format!("!{} git credential --app {}", words.join(" "), app.app))
    }

    async fn credential(&mut self, app: &AppId, operation: &str) -> Result<ExitStatus, Failure> {
        if operation == "get" {
            let pass = self.client.git_pass(app).await?;
            self.screen.line(&format!("username={}", pass.username))?;
            self.screen.line(&format!("password={}", pass.password))?;
        }
        Ok(ExitStatus::Ok)
    }

    async fn connect(&mut self, app: &AppId, args: ConnectArgs) -> Result<ExitStatus, Failure> {
        let token = if args.token {
            if self.screen.asks {
                self.hint("the token, ended by Ctrl-D:")?;
            }
            let read = self.screen.read_input(TOKEN_MAX).map_err(Failure::Output)?;
            Some(SecretValue::new(read.trim().to_owned()))
        } else {
            None
        };
        let ask = ConnectGit { url: args.url, branch: args.branch, token, allow_http: args.allow_http };
        if !self.is_there(app).await? {
            self.make(app).await?;
        }
        let connected = self.client.connect_git(app, &ask).await?;
        self.show(&connected, |session| {
            session.screen.line(&format!("pushes to {} are deployed once it has this webhook:", connected.connection.url))?;
            session.screen.line(&format!("  path     {}", connected.connection.hook))?;
            session.screen.line(&format!("  secret   {}", connected.secret))?;
            session.screen.line("  content  application/json, push events")?;
            session.hint("the secret is shown this once; the path is below the address at which the forge reaches the platform's API")
        })
    }

    /// Runs git in the current directory, as whoever runs us.
    fn own_git(&self, args: &[&str]) -> Result<String, Failure> {
        let failed = |detail: String| {
            Failure::local(
                Code::UsageInvalid,
                detail,
                "run it in a repository of git's; `git init` makes one",
            )
        };
        let mut git = Launch::new(Program::OwnGit).args(args).dir(&self.environment.directory);
        git = ENVIRONMENT.into_iter().fold(git, Launch::env_from_ours);
        let launched = git.stdout(Stdio::Piped).stderr(Stdio::Inherited).start();
        let mut child = launched.map_err(|problem| failed(problem.to_string()))?;
        let mut text = String::new();
        let mut stdout = child.stdout.take().expect("it is piped");
        stdout.read_to_string(&mut text).map_err(Failure::Output)?;
        let status = child.wait().map_err(Failure::Output)?;
        if status.success() { Ok(text) } else { Err(failed(format!("`git {}` failed", args.join(" ")))) }
    }
}

/// A word for the user's shell, through which git runs helpers.
fn quoted(word: &OsStr) -> Result<String, Failure> {
    let not_text = || {
        Failure::local(Code::UsageInvalid, format!("{} is not UTF-8", word.display()), "use a path that is")
    };
    let text = word.to_str().ok_or_else(not_text)?;
    Ok(format!("'{}'", text.replace('\'', "'\\''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stays_one_word_in_a_shell() {
        assert_eq!(quoted(OsStr::new("/a b/c'd;$(x)")).unwrap(), "'/a b/c'\\''d;$(x)'");
    }
}
