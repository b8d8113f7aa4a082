//! `registry`.

use berth_contract::client::ClientError;
use berth_contract::{Code, ExitStatus, Images};
use berth_spec::AppId;
use serde_json::json;

use super::Session;
use crate::args::{RegistryAction, RegistryArgs};
use crate::failure::Failure;
use crate::table::Table;

impl Session<'_> {
    pub(super) async fn registry(&mut self, args: RegistryArgs) -> Result<ExitStatus, Failure> {
        let outer = args.of;
        match args.action {
            None => {
                let app = self.app_id(&outer)?;
                let images = self.client.images(&app).await.map_err(|error| not_there(error, &app))?;
                self.show(&images, |session| session.show_images(app.app.as_str(), &images))
            }
            Some(RegistryAction::Password(of)) => {
                let app = self.app_id(&of.or(outer))?;
                if !self.is_there(&app).await? {
                    self.make(&app).await?;
                }
                let pass = self.client.git_pass(&app).await?;
                let (username, password) = (pass.username, pass.password);
                self.show(
                    &json!({ "username": username, "password": password, "expires_at": pass.expires_at }),
                    |session| Ok(session.screen.line(&password)?),
                )
            }
        }
    }

    fn show_images(&mut self, app: &str, images: &Images) -> Result<(), Failure> {
        let Images { repository, tags } = images;
        let host = repository.split('/').next().unwrap_or_default();
        self.screen.line(&format!("repository {repository}"))?;
        self.screen.line(&format!(
            "log in     berth registry password --app {app} | docker login {host} --username berth --password-stdin"
        ))?;
        self.screen.line(&format!("push       docker push {repository}:TAG"))?;
        self.screen.line(&format!("deploy     berth deploy --app {app} --image {repository}:TAG"))?;
        if tags.is_empty() {
            return self.hint("nothing was pushed to it yet");
        }
        self.screen.line("")?;
        let mut table = Table::new(&["TAG", "DIGEST"]);
        for tag in tags {
            table.row(vec![(&tag.tag).into(), (&tag.digest).into()]);
        }
        self.print(&table)
    }
}

/// What is pushed may come before the app, which is then made.
fn not_there(error: ClientError, app: &AppId) -> Failure {
    match error {
        ClientError::Problem(problem) if problem.code == Code::AppNotFound => {
            let name = &app.app;
            Failure::Local(Box::new(problem.next(format!(
                "`berth registry password --app {name}` makes it, so that images can be pushed to it; `berth registry --app {name}` then says where to"
            ))))
        }
        other => other.into(),
    }
}
