//! `registry`.

use berth_contract::{ExitStatus, Images};
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
                let images = self.client.images(&app).await?;
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
