//! What is said to git's question whether a push may be taken: a deployment, where it is to the deploy branch.
//!
//! The order is: the commit's tree goes into the chunk store, a release is submitted and followed to its end; only when it serves is
//! the push taken, and git moves the branch. Killed in between, control leaves a release that goes on by itself and a branch that is where
//! it was; the same push then finds the release under way, or serving, and is taken.

use std::sync::Arc;
use std::time::Duration;

use berth_contract::{Code, Failure, Problem, Stage};
use berth_control::state::{App, Phase, Release};
use berth_spec::{AppId, ReleaseNumber};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;

use super::commit::{Commit, ObjectId, Quarantine};
use super::release;
use super::repository::Repository;
use super::service::Moving;
use super::teller::Teller;
use crate::api::{Api, Follower, Principal, Refused, release_failure, unenforced, urls};
use crate::desk::Asker;

/// The longest question of the hook, in bytes: far more branches than a push may have.
const QUESTION_MAX: u64 = 8 << 20;
/// How many branches and tags one push may change.
const CHANGES_MAX: usize = 1_000;
/// How long another push of the app is waited for before that is said.
const QUIET: Duration = Duration::from_millis(300);

/// A push to an app's repository.
pub(super) struct Push {
    api: Arc<Api>,
    principal: Principal,
    app: AppId,
    repository: Repository,
}

/// A branch or tag that is to change.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    old: ObjectId,
    new: ObjectId,
    name: String,
}

/// What the hook asks.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    quarantine: Option<String>,
    changes: Vec<Change>,
}

impl Push {
    pub(super) fn new(api: &Arc<Api>, principal: Principal, app: &App, repository: Repository) -> Self {
        Self { api: Arc::clone(api), principal, app: app.id.clone(), repository }
    }

    /// Answers the hook, if it asks. What it gives is to be held until git has moved the branch.
    pub(super) async fn converse(self, hook: UnixStream) -> Moving {
        let (ask, tell) = hook.into_split();
        let mut teller = Teller::new(tell);
        let question = match read_question(ask).await {
            Ok(question) => question?,
            Err(refused) => {
                teller.problem(&refused.into_problem()).await;
                teller.end(false).await;
                return None;
            }
        };
        let moving = self.api.machine.repositories().moving(&self.app);
        let held = match tokio::time::timeout(QUIET, Arc::clone(&moving).lock_owned()).await {
            Ok(held) => held,
            Err(_late) => {
                teller.line("another push to this app is under way; waiting for its end").await;
                moving.lock_owned().await
            }
        };
        let judged = self.judge(&question, &mut teller).await;
        let taken = judged.is_ok();
        match judged {
            Ok(()) => {}
            Err(Refusal::Problem(refused)) => teller.problem(&refused.into_problem()).await,
            Err(Refusal::Failed(number, failure)) => teller.failure(number, &failure).await,
        }
        teller.end(taken).await;
        Some(held)
    }

    async fn judge(&self, question: &Question, teller: &mut Teller) -> Result<(), Refusal> {
        let app = self.known()?;
        let branches = super::deploy_branches(&app);
        let deployed = check(&question.changes, &branches)?;
        for change in &question.changes {
            if let Some(tag) = change.name.strip_prefix("refs/tags/") {
                teller.line(&format!("the tag {tag} is kept and not deployed")).await;
            } else if Some(change) != deployed {
                let branch = change.name.trim_start_matches("refs/heads/");
                let which = branches.join(" or ");
                let how = format!("`git push berth {branch}:{}` deploys it", branches[0]);
                teller.line(&format!("{branch} is kept and not deployed: only {which} is; {how}")).await;
            }
        }
        match deployed {
            None => Ok(()),
            Some(change) => self.deploy(question, change, teller).await,
        }
    }

    fn known(&self) -> Result<Arc<App>, Refused> {
        let gone = || Problem::new(Code::AppNotFound, format!("{} was destroyed meanwhile", self.app));
        Ok(self.api.desk.app(&self.app).ok_or_else(gone)?)
    }

    async fn deploy(&self, question: &Question, change: &Change, teller: &mut Teller) -> Result<(), Refusal> {
        self.check_unmoved(change).await?;
        let quarantine = question.quarantine.as_deref().and_then(Quarantine::of);
        let commit = Commit::new(&self.repository, quarantine, &change.new);
        let subject = commit.subject().await.map_err(Problem::from)?;
        teller.line(&format!("reading {} {subject}", change.new.short())).await;
        let store = self.api.machine.store(&self.app.tenant);
        let store = store.map_err(|refused| refused.into_problem())?;
        let source = commit.import(store).await?;
        if !source.pointers.is_empty() {
            let files = source.pointers.join(", ");
            teller
                .line(&format!(
                    "warning: only Git LFS pointers were pushed of {files}, not what they stand for"
                ))
                .await;
        }
        let app = self.known()?;
        let number = match release::under_way(&app, &change.new, &source.tree.to_string()) {
            Some(release) => {
                teller.line(&format!("{} is of this commit already", release.number)).await;
                release.number
            }
            None => {
                let Principal { name: actor, correlation, .. } = self.principal.clone();
                let asker = Asker { actor, correlation };
                release::submit(&self.api, &app, asker, None, (&change.new, subject), source).await?
            }
        };
        let release = self.known()?.release(number).cloned();
        if let Some(release) = release
            && let Some(warning) = unenforced(&self.api.machine, &release.manifest).await
        {
            teller.line(&format!("warning: {warning}")).await;
        }
        self.follow(number, teller).await
    }

    /// Somebody else may have pushed between what the client saw and now: git would refuse to move the branch, but only after the deployment.
    async fn check_unmoved(&self, change: &Change) -> Result<(), Refused> {
        let format = "--format=%(objectname)";
        let now = self
            .repository
            .run("for-each-ref", &[format, &change.name], 4_096)
            .await
            .map_err(Problem::from)?;
        let now = String::from_utf8_lossy(&now);
        let expected = if change.old.is_nothing() { "" } else { change.old.as_str() };
        if now.trim() == expected {
            return Ok(());
        }
        let detail = format!("{} was moved by another push meanwhile", change.name);
        Err(Problem::new(Code::Conflict, detail)
            .next("fetch it, put your commits on top and push again")
            .into())
    }

    /// Tells how the release gets on, to its end.
    async fn follow(&self, mut number: ReleaseNumber, teller: &mut Teller) -> Result<(), Refusal> {
        loop {
            match self.outcome(number, teller).await? {
                Phase::Superseded => {}
                _ => return self.tell_serving(number, teller).await.map_err(Refusal::from),
            }
            // A change of configuration meanwhile made a newer release of the same source: that is the one that will serve.
            let app = self.known()?;
            let same = |release: &&Arc<Release>| {
                let ours = app.release(number);
                release.number > number
                    && ours.is_some_and(|ours| ours.tree == release.tree && ours.commit == release.commit)
            };
            let Some(heir) = app.releases.values().rev().find(same) else {
                let detail = format!("{number} was superseded by a newer deployment before it served");
                return Err(Problem::new(Code::Superseded, detail)
                    .next("push again if this commit is to serve")
                    .into());
            };
            teller.line(&format!("{number} was superseded by {} of the same source", heir.number)).await;
            number = heir.number;
        }
    }

    async fn outcome(&self, number: ReleaseNumber, teller: &mut Teller) -> Result<Phase, Refusal> {
        let mut follower = Follower::begin(Arc::clone(&self.api), &self.app, number, 0, 0);
        while let Some(event) = follower.next().await {
            let (_, event) = event?;
            match event.stage {
                Stage::Active | Stage::Superseded | Stage::Failed if event.log.is_none() => {}
                _ => teller.step(&event).await,
            }
        }
        let app = self.known()?;
        let release =
            app.release(number).ok_or_else(|| Problem::new(Code::AppNotFound, "the app was destroyed"))?;
        match (&release.failure, release.phase) {
            (Some(failure), _) => Err(Refusal::Failed(number, Box::new(release_failure(failure)))),
            (None, phase) if phase.is_settled() => Ok(phase),
            // The stream ends early only when control does.
            (None, _) => Err(Problem::new(Code::Stopping, "the platform is going down")
                .next("push again when it is up: the deployment goes on")
                .into()),
        }
    }

    async fn tell_serving(&self, number: ReleaseNumber, teller: &mut Teller) -> Result<(), Refused> {
        let app = self.known()?;
        let took = app.release(number).and_then(|it| Some(it.settled_at? - it.submitted_at));
        let took = took
            .map_or_else(String::new, |took| format!(" after {}.{} s", took.0 / 1_000, took.0 % 1_000 / 100));
        teller.line(&format!("ok {number} of {} is active{took}", self.app.app)).await;
        for url in urls(&self.api, &app) {
            teller.line(&format!("   {url}")).await;
        }
        Ok(())
    }
}

/// Why a push is refused.
enum Refusal {
    Problem(Refused),
    Failed(ReleaseNumber, Box<Failure>),
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem.into())
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        Self::Problem(refused)
    }
}

/// Checks the changes of a push and gives the one that is to be deployed.
fn check<'c>(changes: &'c [Change], branches: &[&str]) -> Result<Option<&'c Change>, Refused> {
    if changes.len() > CHANGES_MAX {
        return Err(too_many());
    }
    let refused = |detail: String, next: &str| Err(Problem::new(Code::PushRefused, detail).next(next).into());
    let mut deployed = None;
    for change in changes {
        let name = &change.name;
        let Some(short) = name.strip_prefix("refs/heads/").or_else(|| name.strip_prefix("refs/tags/")) else {
            let detail = format!("{name} is neither a branch nor a tag");
            return refused(detail, "only refs/heads/ and refs/tags/ are kept here");
        };
        if short.split('/').any(|part| part.starts_with('-')) {
            let detail = format!("the name {short} looks like an option to every program that is given it");
            return refused(detail, "give it a name that does not begin with -");
        }
        if !name.starts_with("refs/heads/") || !branches.contains(&short) {
            continue;
        }
        if change.new.is_nothing() {
            let detail = format!("{short} is the branch that is deployed, and cannot be deleted");
            return refused(
                detail,
                "`berth git branch` deploys another one, `berth destroy` removes the app",
            );
        }
        if deployed.replace(change).is_some() {
            let names = branches.join(" and ");
            let detail = format!("the push changes {names}, and only one branch can be deployed");
            return refused(detail, &format!("push one of them: `git push berth {}`", branches[0]));
        }
    }
    Ok(deployed)
}

fn too_many() -> Refused {
    let detail = format!("the push changes more than {CHANGES_MAX} branches and tags");
    Problem::new(Code::PushRefused, detail).next("push fewer at a time").into()
}

/// Reads what the hook asks; nothing when no hook was started.
async fn read_question(hook: OwnedReadHalf) -> Result<Option<Question>, Refused> {
    let mut text = Vec::new();
    let read = hook.take(QUESTION_MAX + 1).read_to_end(&mut text).await;
    if read.is_err() || text.is_empty() {
        return Ok(None);
    }
    if text.len() as u64 > QUESTION_MAX {
        return Err(too_many());
    }
    let text = String::from_utf8(text);
    let text =
        text.map_err(|_not_text| Problem::new(Code::PushRefused, "the name of a branch is not UTF-8"))?;
    let nonsense = || Problem::new(Code::Internal, "git's hook asked something that is no question");
    Ok(Some(parse(&text).ok_or_else(nonsense)?))
}

/// The quarantine, or an empty line; then `OLD NEW NAME` for each change.
fn parse(text: &str) -> Option<Question> {
    let (quarantine, rest) = text.split_once('\n')?;
    let mut changes = Vec::new();
    for line in rest.lines() {
        let mut words = line.splitn(3, ' ');
        let (old, new, name) = (words.next()?, words.next()?, words.next()?);
        changes.push(Change { old: ObjectId::read(old)?, new: ObjectId::read(new)?, name: name.to_owned() });
    }
    Some(Question { quarantine: (!quarantine.is_empty()).then(|| quarantine.to_owned()), changes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn change(name: &str, new: char) -> Change {
        let id = |digit: char| ObjectId::read(&digit.to_string().repeat(40)).unwrap();
        Change { old: id('0'), new: id(new), name: name.to_owned() }
    }

    #[test]
    fn only_the_deploy_branch_is_deployed_and_it_stays() {
        let of = |changes: &[Change]| {
            check(changes, &crate::git::DEPLOY_BRANCHES).map(|it| it.map(|it| it.name.clone()))
        };
        let [main, master, topic, tag] =
            ["refs/heads/main", "refs/heads/master", "refs/heads/topic/main", "refs/tags/main"]
                .map(|name| change(name, 'a'));
        assert_eq!(of(&[topic.clone(), tag.clone()]).unwrap(), None);
        assert_eq!(of(&[tag, main.clone(), topic]).unwrap().as_deref(), Some("refs/heads/main"));
        assert_eq!(of(&[main, master]).unwrap_err().into_problem().code, Code::PushRefused);
        assert!(of(&[change("refs/heads/main", '0')]).is_err());
        assert_eq!(of(&[change("refs/heads/gone", '0')]).unwrap(), None);
    }

    #[test]
    fn hostile_names_are_refused() {
        for name in [
            "refs/heads/--upload-pack=x",
            "refs/heads/a/-rf",
            "refs/tags/-x",
            "refs/pull/1/head",
            "refs/replace/x",
            "HEAD",
            "",
        ] {
            assert!(check(&[change(name, 'a')], &["main"]).is_err(), "{name}");
        }
        let many = vec![change("refs/heads/x", 'a'); CHANGES_MAX + 1];
        assert!(check(&many, &["main"]).is_err());
    }

    proptest! {
        #[test]
        fn any_question_is_read_or_refused(text in ".{0,200}") {
            if let Some(question) = parse(&text) {
                prop_assert!(question.changes.len() <= text.lines().count());
            }
        }
    }
}
