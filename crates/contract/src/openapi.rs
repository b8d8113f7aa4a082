//! The schemas of the OpenAPI document; handlers add their paths to it.

use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;

/// Every wire type as a schema, with the document's head.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Berth",
        description = "The API of a Berth platform. Every POST, PUT, PATCH and DELETE takes an Idempotency-Key; a repeat with \
                       the same key gives the same answer. What is refused is told as application/problem+json (RFC 9457) with \
                       a code, each of which has a page under docs/errors. Points in time are milliseconds since \
                       1970-01-01T00:00:00Z.",
        license(name = "MIT", identifier = "MIT")
    ),
    components(schemas(
        crate::app::App,
        crate::app::AppList,
        crate::app::AppState,
        crate::app::Asleep,
        crate::app::SleepDepth,
        crate::app::AppSummary,
        crate::app::CreateApp,
        crate::app::Exit,
        crate::app::Instance,
        crate::app::InstanceList,
        crate::app::InstanceState,
        crate::app::ProcessCount,
        crate::app::Scale,
        crate::cron::CronEntry,
        crate::cron::CronHistory,
        crate::cron::CronList,
        crate::cron::CronPast,
        crate::cron::CronState,
        crate::certificate::Acme,
        crate::certificate::AcmeSettings,
        crate::certificate::Authority,
        crate::certificate::Certificate,
        crate::certificate::CertificateHost,
        crate::certificate::CertificateList,
        crate::certificate::CertificateOrigin,
        crate::certificate::CertificateRenewal,
        crate::certificate::CertificateState,
        crate::certificate::CertificateUpload,
        crate::certificate::DnsHook,
        crate::certificate::ExternalAccount,
        crate::certificate::Proof,
        crate::domains::Domain,
        crate::domains::DomainList,
        crate::domains::DomainSource,
        crate::domains::DomainsChanged,
        crate::domains::DomainsPatch,
        crate::gate::GateChange,
        crate::gate::GateChanged,
        crate::git::ConnectGit,
        crate::git::Git,
        crate::git::GitBranch,
        crate::git::GitConnected,
        crate::git::GitConnection,
        crate::git::GitPass,
        crate::images::ImageTag,
        crate::images::Images,
        crate::history::Evidence,
        crate::history::TimelineEntry,
        crate::history::TimelinePage,
        crate::history::Why,
        crate::logs::LogLine,
        crate::logs::LogStream,
        crate::platform::Isolation,
        crate::platform::Platform,
        crate::platform::PlatformDown,
        crate::platform::Upgrade,
        crate::platform::UpgradeBegun,
        crate::platform::UpgradeCommitted,
        crate::platform::Role,
        crate::problem::Problem,
        crate::problem::SourceError,
        crate::release::Difference,
        crate::release::Failure,
        crate::release::OutputLine,
        crate::release::ProgressEvent,
        crate::release::Reason,
        crate::release::Release,
        crate::release::ReleaseDiff,
        crate::release::ReleaseList,
        crate::release::ReleaseState,
        crate::release::RollBack,
        crate::release::Stage,
        crate::release::Strategy,
        crate::release::SubmitRelease,
        crate::run::Run,
        crate::run::RunEnded,
        crate::run::StartRun,
        crate::run::TerminalSize,
        crate::settings::Config,
        crate::settings::ConfigChanged,
        crate::settings::ConfigPatch,
        crate::settings::SecretNames,
        crate::settings::SecretsChanged,
        crate::settings::SecretsPatch,
        crate::traffic::Rollout,
        crate::traffic::Traffic,
        crate::traffic::TrafficChanged,
        crate::traffic::TrafficSet,
        crate::traffic::TrafficShare,
        crate::upload::ChunksMissing,
        crate::upload::ChunksQuery,
        crate::upload::TreeCreated,
        crate::volume::RestoreVolume,
        crate::volume::Snapshot,
        crate::volume::SnapshotList,
        crate::volume::Volume,
        crate::volume::VolumeDeed,
        crate::volume::VolumeList,
        crate::volume::VolumeSizes,
        crate::volume::VolumeWork,
    ))
)]
pub struct ApiDoc;

/// The document with its head and every schema, without paths.
#[must_use]
pub fn document() -> Document {
    ApiDoc::openapi()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reference to a schema that is not listed would make the document useless to a generator.
    #[test]
    fn every_reference_has_its_schema() {
        let text = document().to_json().unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let schemas = json["components"]["schemas"].as_object().unwrap();
        let marker = "#/components/schemas/";
        let mut references = 0;
        for (start, _) in text.match_indices(marker) {
            let name: String = text.chars().skip(start + marker.len()).take_while(|c| *c != '"').collect();
            assert!(schemas.contains_key(&name), "{name} is referred to and not listed");
            references += 1;
        }
        assert!(references > 10);
    }
}
