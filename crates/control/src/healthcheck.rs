//! Which command says of an instance whether it is well: its manifest's, or its image's.

use berth_spec::manifest::Healthcheck;
use berth_spec::{Command, Millis, ProcessName};

use crate::event::ImageCheck;
use crate::state::Release;

/// From the end of one check to the next, where nobody says: as Docker has it, and so are the two after it.
pub const INTERVAL: Millis = Millis::from_secs(30);
/// How long one may take.
pub const TIMEOUT: Millis = Millis::from_secs(30);
/// How many must fail in a row.
pub const RETRIES: u32 = 3;
/// From one to the next as long as none has passed and somebody waits for it. Docker's five seconds are for those who do not.
pub const START_INTERVAL: Millis = Millis::from_secs(1);

/// A command that is run in an instance, again and again, and says by its status whether it is well. Nothing is left open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceCheck {
    /// What is run.
    pub command: Command,
    /// From the end of one to the beginning of the next.
    pub interval: Millis,
    /// How long one may take.
    pub timeout: Millis,
    /// How long from the start on a failure does not count, unless one has passed before.
    pub start_period: Millis,
    /// From one to the next as long as none has passed.
    pub start_interval: Millis,
    /// How many must fail in a row.
    pub retries: u32,
}

impl Release {
    /// The check that instances of `process` have. What the manifest says of it key by key wins over the image; a path that it has for
    /// the web process counts in the image's place.
    #[must_use]
    pub fn healthcheck(&self, process: &ProcessName) -> Option<InstanceCheck> {
        let own = self.manifest.healthcheck.get(process);
        if own.is_some_and(|own| own.disable) {
            return None;
        }
        let is_asked = own.is_none() && process.is_web() && self.manifest.http.readiness.path.is_some();
        let image = self.image_check().filter(|_| !is_asked && self.asked_path().is_none());
        let command = own.and_then(|own| own.command.clone());
        let command = command.or_else(|| image.map(|image| Command::Argv(image.command.clone())))?;
        let interval = own.and_then(|own| own.interval).or(image.map(|it| it.interval)).unwrap_or(INTERVAL);
        let start_interval = own.and_then(|own| own.start_interval).or(image.map(|it| it.start_interval));
        let start_period = own.and_then(|own| own.start_period).or(image.map(|it| it.start_period));
        Some(InstanceCheck {
            command,
            interval,
            timeout: own.and_then(|own| own.timeout).or(image.map(|it| it.timeout)).unwrap_or(TIMEOUT),
            start_period: start_period.unwrap_or_default(),
            start_interval: start_interval.unwrap_or(START_INTERVAL.min(interval)),
            retries: own.and_then(|own| own.retries).or(image.map(|it| it.retries)).unwrap_or(RETRIES),
        })
    }

    /// The path that the image's own check asks for, unless the manifest puts something else in the place of that check.
    #[must_use]
    pub fn asked_by_image(&self) -> Option<&str> {
        let is_replaced = self.of_web().is_some_and(|own| own.disable || own.command.is_some());
        self.asked_path().filter(|_| !is_replaced)
    }

    /// How long after its start an instance may not be ready: what the manifest says, and as long as a check that asks for a path would
    /// fail by Docker, or a command's failures do not count.
    #[must_use]
    pub fn grace(&self, process: &ProcessName) -> Millis {
        let grace = self.manifest.http.readiness.grace;
        if !process.is_web() || self.asked_by_image().is_none() || self.manifest.http.readiness.path.is_some()
        {
            return grace.max(self.healthcheck(process).map(|check| check.start_period).unwrap_or_default());
        }
        let (own, image) = (self.of_web(), self.image_check());
        let interval = own.and_then(|own| own.interval).or(image.map(|it| it.interval)).unwrap_or(INTERVAL);
        let start_period = own.and_then(|own| own.start_period).or(image.map(|it| it.start_period));
        let retries = own.and_then(|own| own.retries).or(image.map(|it| it.retries)).unwrap_or(RETRIES);
        grace.max(Millis(
            start_period.unwrap_or_default().0.saturating_add(interval.0.saturating_mul(retries.into())),
        ))
    }

    fn of_web(&self) -> Option<&Healthcheck> {
        self.manifest.healthcheck.iter().find(|(process, _)| process.is_web()).map(|(_, own)| own)
    }

    fn asked_path(&self) -> Option<&str> {
        self.artifact.as_ref()?.image.as_ref()?.health_path.as_deref()
    }

    fn image_check(&self) -> Option<&ImageCheck> {
        self.artifact.as_ref()?.image.as_ref()?.check.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use berth_spec::Manifest;

    use super::*;
    use crate::event::{Artifact, Image};
    use crate::scene::Scene;

    const ASKS: &str = "[[http.checks]]\ntype = \"readiness\"\npath = \"/up\"\n";

    fn release(manifest: &str, image: Image) -> Release {
        let scene = Scene::serving(&["web", "worker"], 1, None);
        let release = Release::clone(scene.app().releases.values().next().expect("it serves"));
        let artifact = Artifact { image: Some(Box::new(image)), ..Artifact::default() };
        let text = format!("[build]\nimage = \"db\"\n{manifest}");
        Release { manifest: Manifest::parse(&text).unwrap(), artifact: Some(artifact), ..release }
    }

    fn checked() -> Image {
        let check = ImageCheck {
            command: vec!["pg_isready".to_owned()],
            interval: Millis(5_000),
            timeout: Millis(4_000),
            start_period: Millis(3_000),
            start_interval: Millis(500),
            retries: 7,
        };
        Image { check: Some(check), ..image() }
    }

    fn image() -> Image {
        serde_json::from_str(r#"{"reference": "db", "manifest": "sha256:1"}"#).unwrap()
    }

    fn of(release: &Release, process: &str) -> Option<InstanceCheck> {
        release.healthcheck(&ProcessName::new(process).unwrap())
    }

    #[test]
    fn a_manifest_wins_key_by_key() {
        let own =
            of(&release("[healthcheck.web]\ncommand = \"./ok $PORT\"\nretries = 1\n", checked()), "web");
        let own = own.unwrap();
        assert_eq!(own.command, Command::parse("./ok $PORT").unwrap());
        assert_eq!((own.retries, own.interval, own.timeout), (1, Millis(5_000), Millis(4_000)));
        let later = of(&release("[healthcheck.web]\nstart_period = \"1m\"\n", checked()), "web").unwrap();
        assert_eq!(later.command, Command::Argv(vec!["pg_isready".to_owned()]));
        assert_eq!((later.start_period, later.start_interval), (Millis(60_000), Millis(500)));
        assert_eq!(of(&release("[healthcheck.web]\nstart_period = \"1m\"\n", image()), "web"), None);
        assert_eq!(of(&release("[healthcheck.web]\ndisable = true\n", checked()), "web"), None);
        assert!(of(&release("[healthcheck.web]\ndisable = true\n", checked()), "worker").is_some());
    }

    #[test]
    fn what_nobody_says_is_dockers() {
        let quick = "[healthcheck.worker]\ncommand = \"./ok\"\ninterval = \"200ms\"\n";
        let check = of(&release(quick, image()), "worker").unwrap();
        assert_eq!((check.timeout, check.retries, check.start_period), (TIMEOUT, RETRIES, Millis(0)));
        assert_eq!((check.interval, check.start_interval), (Millis(200), Millis(200)));
        assert_eq!(of(&release("[healthcheck.worker]\ncommand = \"./ok\"\n", image()), "web"), None);
    }

    #[test]
    fn a_path_takes_the_place_of_the_images_command_and_not_of_the_manifests() {
        assert_eq!(of(&release(ASKS, checked()), "web"), None);
        assert!(of(&release(ASKS, checked()), "worker").is_some());
        let both = format!("{ASKS}[healthcheck.web]\ncommand = \"./ok\"\n");
        assert!(of(&release(&both, checked()), "web").is_some());
    }

    #[test]
    fn what_an_image_asks_for_is_asked_unless_it_is_replaced() {
        let asks = || Image { health_path: Some("/up".to_owned()), ..image() };
        assert_eq!(release("", asks()).asked_by_image(), Some("/up"));
        for replaced in ["disable = true", "command = \"./ok\""] {
            let text = format!("[healthcheck.web]\n{replaced}\n");
            assert_eq!(release(&text, asks()).asked_by_image(), None, "{replaced}");
        }
        let fewer = release(
            "[healthcheck.web]\nretries = 1\n",
            Image { health_path: Some("/up".to_owned()), ..checked() },
        );
        assert_eq!(
            (fewer.asked_by_image(), of(&fewer, "web")),
            (Some("/up"), None),
            "it is asked, and not run"
        );
        let web = ProcessName::new("web").unwrap();
        assert_eq!(fewer.grace(&web), Millis::from_secs(10), "3 s, and one interval of 5 s");
        let asked = release("", Image { health_path: Some("/up".to_owned()), ..checked() });
        assert_eq!(asked.grace(&web), Millis::from_secs(38), "3 s, and seven of 5 s");
        assert_eq!(
            release("", checked()).grace(&web),
            Millis::from_secs(10),
            "what fails a command is its shim's to say"
        );
    }
}
