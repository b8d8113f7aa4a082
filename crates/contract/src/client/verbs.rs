//! One method for every path of the API.

use std::io;

use berth_spec::{
    AppId, AppName, BranchName, CronName, HostName, ProjectId, ReleaseNumber, SnapshotName, TenantName,
    VolumeName,
};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use http::Method;
use serde_json::json;

use super::connection::Call;
use super::{Client, ClientError, Download, EventStream, UPLOADS_AT_ONCE};
use crate::app::{App, AppList, AppsQuery, CreateApp, InstanceList, Scale};
use crate::certificate::{Acme, AcmeSettings, Authority, Certificate, CertificateList, CertificateUpload};
use crate::cron::{CronHistory, CronList};
use crate::domains::{DomainList, DomainsChanged, DomainsPatch};
use crate::gate::{GateChange, GateChanged};
use crate::git::{ConnectGit, Git, GitBranch, GitConnected, GitPass};
use crate::history::{TimelinePage, TimelineQuery, Why, WhyQuery};
use crate::images::Images;
use crate::logs::{LogLine, LogQuery};
use crate::platform::{BackupQuery, Platform, PlatformDown, Upgrade, UpgradeBegun, UpgradeCommitted};
use crate::release::{ProgressEvent, Release, ReleaseDiff, ReleaseList, RollBack, SubmitRelease};
use crate::run::Run;
use crate::settings::{Config, ConfigChanged, ConfigPatch, SecretNames, SecretsChanged, SecretsPatch};
use crate::traffic::{Traffic, TrafficChanged, TrafficSet};
use crate::upload::{CHUNKS_QUERY_MAX, ChunkHash, ChunksMissing, ChunksQuery, TreeCreated};
use crate::volume::{DestroyQuery, RestoreVolume, SnapshotList, VolumeList, VolumeWork};
use crate::{route, upload::TreeId};

/// Every method fails with a [`ClientError`]: what the platform refused, or that it could not be asked.
#[expect(clippy::missing_errors_doc, reason = "said once for all methods of the block")]
impl Client {
    /// How the platform is.
    pub async fn platform(&self) -> Result<Platform, ClientError> {
        self.get(route::PLATFORM.to_owned()).await
    }

    /// Stops every app and then the platform.
    pub async fn platform_down(&self) -> Result<PlatformDown, ClientError> {
        self.change(Method::POST, route::PLATFORM_DOWN.to_owned(), &json!({})).await
    }

    /// Has another program, which lies on the platform's machine, take the platform over.
    pub async fn upgrade(&self, upgrade: &Upgrade) -> Result<UpgradeBegun, ClientError> {
        self.change(Method::POST, route::PLATFORM_UPGRADE.to_owned(), upgrade).await
    }

    /// Has the journal written in the newest format of the program that runs: there is no way back to an older one then.
    pub async fn commit_upgrade(&self) -> Result<UpgradeCommitted, ClientError> {
        self.change(Method::POST, route::PLATFORM_UPGRADE_COMMIT.to_owned(), &json!({})).await
    }

    /// The platform as one archive.
    pub async fn backup(&self, query: &BackupQuery) -> Result<Download, ClientError> {
        let yes = |is: bool| is.then(|| "true".to_owned());
        let pairs = [("key", yes(query.key)), ("volumes", yes(query.volumes))];
        Download::begin(self, route::query(route::PLATFORM_BACKUP, &pairs)).await
    }

    /// All apps of a project, page by page: an app that comes or goes meanwhile may be in it or not.
    pub async fn apps(&self, project: &ProjectId) -> Result<AppList, ClientError> {
        let mut all = Vec::new();
        let mut query = AppsQuery::default();
        loop {
            let page = self.apps_page(project, &query).await?;
            all.extend(page.apps);
            match page.next {
                Some(next) => query.after = Some(next),
                None => return Ok(AppList { apps: all, next: None }),
            }
        }
    }

    /// One page of a project's apps.
    pub async fn apps_page(&self, project: &ProjectId, query: &AppsQuery) -> Result<AppList, ClientError> {
        let pairs = [
            ("after", query.after.as_ref().map(ToString::to_string)),
            ("limit", query.limit.map(|limit| limit.to_string())),
            ("q", query.q.clone()),
        ];
        self.get(route::query(&route::apps(project), &pairs)).await
    }

    /// Makes an app.
    pub async fn create_app(&self, project: &ProjectId, name: AppName) -> Result<App, ClientError> {
        self.change(Method::POST, route::apps(project), &CreateApp { name }).await
    }

    /// One app.
    pub async fn app(&self, app: &AppId) -> Result<App, ClientError> {
        self.get(route::app(app)).await
    }

    /// Stops an app and removes everything of it but its history, and its volumes unless they go too.
    pub async fn destroy_app(&self, app: &AppId, query: &DestroyQuery) -> Result<(), ClientError> {
        let pairs = [("volumes", query.volumes.then(|| "true".to_owned()))];
        let path = route::query(&route::app(app), &pairs);
        let call = Call::change(Method::DELETE, path, (self.inside.keys)(), Bytes::new(), "");
        self.exchange(&call).await.map(drop)
    }

    /// An app's volumes, also those that are left of one that was destroyed.
    pub async fn volumes(&self, app: &AppId) -> Result<VolumeList, ClientError> {
        self.get(route::below_app(app, "volumes")).await
    }

    /// A volume's snapshots.
    pub async fn snapshots(&self, app: &AppId, volume: &VolumeName) -> Result<SnapshotList, ClientError> {
        self.get(route::below_app(app, &format!("volumes/{volume}/snapshots"))).await
    }

    /// Begins to take a snapshot of a volume.
    pub async fn take_snapshot(&self, app: &AppId, volume: &VolumeName) -> Result<VolumeWork, ClientError> {
        let path = route::below_app(app, &format!("volumes/{volume}/snapshots"));
        self.change(Method::POST, path, &json!({})).await
    }

    /// Begins to bring a snapshot of a volume back.
    pub async fn restore_volume(
        &self,
        app: &AppId,
        volume: &VolumeName,
        restore: &RestoreVolume,
    ) -> Result<VolumeWork, ClientError> {
        self.change(Method::POST, route::below_app(app, &format!("volumes/{volume}/restore")), restore).await
    }

    /// Removes a snapshot.
    pub async fn remove_snapshot(
        &self,
        app: &AppId,
        volume: &VolumeName,
        snapshot: &SnapshotName,
    ) -> Result<(), ClientError> {
        let path = route::below_app(app, &format!("volumes/{volume}/snapshots/{snapshot}"));
        let call = Call::change(Method::DELETE, path, (self.inside.keys)(), Bytes::new(), "");
        self.exchange(&call).await.map(drop)
    }

    /// Removes a volume that nothing has any more, with all that is in it and its snapshots.
    pub async fn remove_volume(&self, app: &AppId, volume: &VolumeName) -> Result<(), ClientError> {
        let path = route::below_app(app, &format!("volumes/{volume}"));
        let call = Call::change(Method::DELETE, path, (self.inside.keys)(), Bytes::new(), "");
        self.exchange(&call).await.map(drop)
    }

    /// An app's releases, newest first.
    pub async fn releases(&self, app: &AppId) -> Result<ReleaseList, ClientError> {
        self.get(route::below_app(app, "releases")).await
    }

    /// One release.
    pub async fn release(&self, app: &AppId, number: ReleaseNumber) -> Result<Release, ClientError> {
        self.get(route::release(app, number)).await
    }

    /// What is different in a release since another one.
    pub async fn release_diff(
        &self,
        app: &AppId,
        number: ReleaseNumber,
        since: ReleaseNumber,
    ) -> Result<ReleaseDiff, ClientError> {
        let path = format!("{}/diff", route::release(app, number));
        self.get(route::query(&path, &[("since", Some(since.0.to_string()))])).await
    }

    /// Deploys an uploaded tree. The answer comes when the release is taken on, before it is built.
    pub async fn submit(&self, app: &AppId, release: &SubmitRelease) -> Result<Release, ClientError> {
        self.change(Method::POST, route::below_app(app, "releases"), release).await
    }

    /// Makes a release out of an earlier one; when that serves already, gives the release that does.
    pub async fn roll_back(&self, app: &AppId, rollback: &RollBack) -> Result<Release, ClientError> {
        self.change(Method::POST, route::below_app(app, "rollback"), rollback).await
    }

    /// How a release's deployment is getting on, from its begin to its end.
    #[must_use]
    pub fn progress(&self, app: &AppId, number: ReleaseNumber) -> EventStream<ProgressEvent> {
        let path = format!("{}/progress", route::release(app, number));
        EventStream::new(self, path, route::EVENT_PROGRESS, false, |event| {
            event.log.is_none() && event.stage.is_end()
        })
    }

    /// An app's configuration.
    pub async fn config(&self, app: &AppId) -> Result<Config, ClientError> {
        self.get(route::below_app(app, "config")).await
    }

    /// Changes an app's configuration.
    pub async fn patch_config(&self, app: &AppId, patch: &ConfigPatch) -> Result<ConfigChanged, ClientError> {
        self.change(Method::PATCH, route::below_app(app, "config"), patch).await
    }

    /// The names of an app's secrets.
    pub async fn secrets(&self, app: &AppId) -> Result<SecretNames, ClientError> {
        self.get(route::below_app(app, "secrets")).await
    }

    /// Changes an app's secrets.
    pub async fn patch_secrets(
        &self,
        app: &AppId,
        patch: &SecretsPatch,
    ) -> Result<SecretsChanged, ClientError> {
        self.change(Method::PATCH, route::below_app(app, "secrets"), patch).await
    }

    /// The certificates, and how each host stands.
    pub async fn certificates(&self) -> Result<CertificateList, ClientError> {
        self.get(route::CERTIFICATES.to_owned()).await
    }

    /// Brings a certificate; returns once edge shows it.
    pub async fn upload_certificate(&self, upload: &CertificateUpload) -> Result<Certificate, ClientError> {
        self.change(Method::POST, route::CERTIFICATES.to_owned(), upload).await
    }

    /// Removes a certificate; returns once edge does not show it any more.
    pub async fn remove_certificate(&self, id: &str) -> Result<(), ClientError> {
        let path = format!("{}/{id}", route::CERTIFICATES);
        let call = Call::change(Method::DELETE, path, (self.inside.keys)(), Bytes::new(), "");
        self.exchange(&call).await.map(drop)
    }

    /// Has a certificate asked for now.
    pub async fn renew_certificate(&self, host: &HostName) -> Result<(), ClientError> {
        let path = route::CERTIFICATE_RENEWALS.to_owned();
        let body = json!({ "host": host }).to_string();
        let call =
            Call::change(Method::POST, path, (self.inside.keys)(), Bytes::from(body), "application/json");
        self.exchange(&call).await.map(drop)
    }

    /// Has certificates come from an ACME server, and opens an account there.
    pub async fn set_acme(&self, settings: &AcmeSettings) -> Result<Acme, ClientError> {
        self.change(Method::PUT, route::ACME.to_owned(), settings).await
    }

    /// Has no more certificates asked for.
    pub async fn unset_acme(&self) -> Result<(), ClientError> {
        let call =
            Call::change(Method::DELETE, route::ACME.to_owned(), (self.inside.keys)(), Bytes::new(), "");
        self.exchange(&call).await.map(drop)
    }

    /// The machine's own authority.
    pub async fn authority(&self) -> Result<Authority, ClientError> {
        self.get(route::AUTHORITY.to_owned()).await
    }

    /// The hosts that lead to an app.
    pub async fn domains(&self, app: &AppId) -> Result<DomainList, ClientError> {
        self.get(route::below_app(app, "domains")).await
    }

    /// Changes which hosts lead to an app; returns once edge goes by it.
    pub async fn patch_domains(
        &self,
        app: &AppId,
        patch: &DomainsPatch,
    ) -> Result<DomainsChanged, ClientError> {
        self.change(Method::PATCH, route::below_app(app, "domains"), patch).await
    }

    /// Opens or closes an app to requests; returns once edge goes by it.
    pub async fn change_gate(&self, app: &AppId, change: &GateChange) -> Result<GateChanged, ClientError> {
        self.change(Method::PUT, route::below_app(app, "gate"), change).await
    }

    /// How an app's requests are shared between releases.
    pub async fn traffic(&self, app: &AppId) -> Result<Traffic, ClientError> {
        self.get(route::below_app(app, "traffic")).await
    }

    /// Gives a release its share of an app's requests; returns once edge goes by it.
    pub async fn set_traffic(&self, app: &AppId, set: &TrafficSet) -> Result<TrafficChanged, ClientError> {
        self.change(Method::PUT, route::below_app(app, "traffic"), set).await
    }

    /// Has the release that is being rolled out take over.
    pub async fn promote(&self, app: &AppId) -> Result<TrafficChanged, ClientError> {
        self.change(Method::POST, route::below_app(app, "promote"), &json!({})).await
    }

    /// Has all requests go to the release that serves; returns once edge goes by it.
    pub async fn abort(&self, app: &AppId) -> Result<TrafficChanged, ClientError> {
        self.change(Method::POST, route::below_app(app, "abort"), &json!({})).await
    }

    /// What an app runs by a schedule.
    pub async fn cron(&self, app: &AppId) -> Result<CronList, ClientError> {
        self.get(route::below_app(app, "cron")).await
    }

    /// What became of a cron entry.
    pub async fn cron_history(&self, app: &AppId, entry: &CronName) -> Result<CronHistory, ClientError> {
        self.get(route::below_app(app, &format!("cron/{entry}/runs"))).await
    }

    /// Runs a cron entry at once.
    pub async fn run_cron(&self, app: &AppId, entry: &CronName) -> Result<Run, ClientError> {
        self.change(Method::POST, route::below_app(app, &format!("cron/{entry}/runs")), &json!({})).await
    }

    /// What was pushed to an app's repository of images.
    pub async fn images(&self, app: &AppId) -> Result<Images, ClientError> {
        self.get(route::below_app(app, "images")).await
    }

    /// How an app is deployed by git.
    pub async fn git(&self, app: &AppId) -> Result<Git, ClientError> {
        self.get(route::below_app(app, "git")).await
    }

    /// Says which branch of an app's repository is deployed.
    pub async fn set_git_branch(&self, app: &AppId, branch: Option<BranchName>) -> Result<Git, ClientError> {
        self.change(Method::PUT, route::below_app(app, "git/branch"), &GitBranch { branch }).await
    }

    /// Has the pushes to a repository elsewhere deployed.
    pub async fn connect_git(&self, app: &AppId, connect: &ConnectGit) -> Result<GitConnected, ClientError> {
        self.change(Method::PUT, route::below_app(app, "git/connection"), connect).await
    }

    /// Has the pushes to the repository elsewhere deployed no longer.
    pub async fn disconnect_git(&self, app: &AppId) -> Result<Git, ClientError> {
        self.change(Method::DELETE, route::below_app(app, "git/connection"), &json!({})).await
    }

    /// Asks for something that lets git in.
    pub async fn git_pass(&self, app: &AppId) -> Result<GitPass, ClientError> {
        self.change(Method::POST, route::below_app(app, "git/pass"), &json!({})).await
    }

    /// An app's log lines.
    #[must_use]
    pub fn logs(&self, app: &AppId, query: &LogQuery) -> EventStream<LogLine> {
        let pairs = [
            ("follow", query.follow.then(|| "true".to_owned())),
            ("lines", query.lines.map(|lines| lines.to_string())),
            ("process", query.process.as_ref().map(ToString::to_string)),
            ("instance", query.instance.clone()),
            ("after", query.after.clone()),
        ];
        let path = route::query(&route::below_app(app, "logs"), &pairs);
        EventStream::new(self, path, route::EVENT_LINE, !query.follow, |_| false)
    }

    /// An app's instances.
    pub async fn instances(&self, app: &AppId) -> Result<InstanceList, ClientError> {
        self.get(route::below_app(app, "instances")).await
    }

    /// Sets how many instances of the named processes are wanted; gives what is wanted of all.
    pub async fn scale(&self, app: &AppId, scale: &Scale) -> Result<Scale, ClientError> {
        self.change(Method::PUT, route::below_app(app, "scale"), scale).await
    }

    /// What happened: to an app, or on the whole platform.
    pub async fn timeline(
        &self,
        app: Option<&AppId>,
        query: &TimelineQuery,
    ) -> Result<TimelinePage, ClientError> {
        let path =
            app.map_or_else(|| route::PLATFORM_TIMELINE.to_owned(), |app| route::below_app(app, "timeline"));
        let pairs = [
            ("after", query.after.map(|after| after.to_string())),
            ("limit", query.limit.map(|n| n.to_string())),
        ];
        self.get(route::query(&path, &pairs)).await
    }

    /// Why an app is as it is.
    pub async fn why(&self, app: &AppId, query: &WhyQuery) -> Result<Why, ClientError> {
        self.get(route::query(&route::below_app(app, "why"), &[("subject", query.subject.clone())])).await
    }

    /// Which of `chunks` the tenant does not have, in the order given. Asks in parts when there are many.
    pub async fn missing_chunks(
        &self,
        tenant: &TenantName,
        chunks: &[ChunkHash],
    ) -> Result<Vec<ChunkHash>, ClientError> {
        let mut missing = Vec::new();
        for part in chunks.chunks(CHUNKS_QUERY_MAX) {
            let query = ChunksQuery { chunks: part.to_vec() };
            let path = route::below_tenant(tenant, "chunks/missing");
            let answer: ChunksMissing = self.change(Method::POST, path, &query).await?;
            missing.extend(answer.missing);
        }
        Ok(missing)
    }

    /// Sends chunks, four at a time. `read` gives a chunk's bytes when its turn comes, so that no more than those under way
    /// are in memory; `sent` is told the length of each that has arrived.
    pub async fn upload_chunks(
        &self,
        tenant: &TenantName,
        chunks: &[ChunkHash],
        read: impl Fn(&ChunkHash) -> io::Result<Vec<u8>>,
        sent: impl Fn(usize),
    ) -> Result<(), ClientError> {
        let (read, sent) = (&read, &sent);
        stream::iter(chunks)
            .map(|hash| async move {
                let bytes = Bytes::from(read(hash).map_err(ClientError::Source)?);
                let length = bytes.len();
                self.put_chunk(tenant, hash, bytes).await?;
                sent(length);
                Ok::<(), ClientError>(())
            })
            .buffer_unordered(UPLOADS_AT_ONCE)
            .try_collect()
            .await
    }

    async fn put_chunk(
        &self,
        tenant: &TenantName,
        hash: &ChunkHash,
        bytes: Bytes,
    ) -> Result<(), ClientError> {
        let path = route::chunk(tenant, hash);
        let call = Call::change(Method::PUT, path, (self.inside.keys)(), bytes, "application/octet-stream");
        self.exchange(&call).await.map(drop)
    }

    /// Stores a tree, given as its canonical JSON; every chunk that it names has to be there.
    pub async fn put_tree(&self, tenant: &TenantName, canonical: Vec<u8>) -> Result<TreeId, ClientError> {
        let path = route::below_tenant(tenant, "trees");
        let call = Call::change(
            Method::POST,
            path,
            (self.inside.keys)(),
            Bytes::from(canonical),
            "application/json",
        );
        self.json::<TreeCreated>(&call).await.map(|created| created.tree)
    }
}
