//! REST wire types, error codes, OpenAPI, typed client.
//!
//! What crosses the wire between the platform and whoever speaks to it is defined here once: requests (strict: an
//! unknown field is refused), answers (open: a reader skips fields it does not know, so that an older client keeps
//! working), server-sent events and problems. Handlers declare their paths with the templates of [`route`], clients build
//! them with its functions. The typed client is behind the feature `client`.
#![warn(missing_docs)]

pub mod app;
pub mod certificate;
#[cfg(feature = "client")]
pub mod client;
pub mod code;
pub mod cron;
pub mod domains;
pub mod gate;
pub mod git;
pub mod history;
pub mod images;
pub mod logs;
pub mod openapi;
pub mod platform;
pub mod problem;
pub mod release;
pub mod route;
pub mod run;
pub mod settings;
pub mod traffic;
pub mod upload;
pub mod volume;

pub use app::{
    App, AppList, AppState, AppSummary, AppsQuery, Asleep, CreateApp, Exit, Instance, InstanceList,
    InstanceState, ProcessCount, Scale, SleepDepth,
};
pub use certificate::{
    Acme, AcmeSettings, Authority, Certificate, CertificateHost, CertificateList, CertificateOrigin,
    CertificateRenewal, CertificateState, CertificateUpload, DnsHook, ExternalAccount, Proof,
};
pub use code::{Code, ExitStatus};
pub use cron::{CronEntry, CronHistory, CronList, CronPast, CronState};
pub use domains::{Domain, DomainList, DomainSource, DomainsChanged, DomainsPatch};
pub use gate::{GateChange, GateChanged};
pub use git::{ConnectGit, Git, GitBranch, GitConnected, GitConnection, GitPass};
pub use history::{Evidence, TimelineEntry, TimelinePage, TimelineQuery, Why, WhyQuery};
pub use images::{ImageTag, Images};
pub use logs::{LogLine, LogQuery, LogStream};
pub use platform::{
    BackupQuery, Isolation, Platform, PlatformDown, Role, Upgrade, UpgradeBegun, UpgradeCommitted,
};
pub use problem::{Problem, SourceError};
pub use release::{
    DiffQuery, Difference, Failure, OutputLine, ProgressEvent, Reason, Release, ReleaseDiff, ReleaseList,
    ReleaseState, RollBack, Stage, Strategy, SubmitRelease,
};
pub use run::{Run, RunEnded, StartRun, TerminalSize};
pub use settings::{
    Config, ConfigChanged, ConfigPatch, SecretNames, SecretValue, SecretsChanged, SecretsPatch,
};
pub use traffic::{Rollout, Traffic, TrafficChanged, TrafficSet, TrafficShare};
pub use upload::{ChunkHash, ChunksMissing, ChunksQuery, InvalidHash, TreeCreated, TreeId};
pub use volume::{
    DestroyQuery, RestoreVolume, Snapshot, SnapshotList, Volume, VolumeDeed, VolumeList, VolumeSizes,
    VolumeWork,
};
