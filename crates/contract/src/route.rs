//! Where each resource lives: the templates that handlers declare and the paths that clients ask for.
//!
//! Templates use `{name}`, which axum and OpenAPI read alike. No segment needs percent-encoding, because the alphabets of
//! names and hashes hold nothing that a path gives a meaning to; queries are encoded by [`query`].

use std::fmt::Write as _;

use berth_spec::{AppId, ProjectId, ReleaseNumber, TenantName};

use crate::upload::ChunkHash;

/// What every path starts with.
pub const PREFIX: &str = "/api/v1";
/// The platform as a whole.
pub const PLATFORM: &str = "/api/v1/platform";
/// Stops the platform and every app on it.
pub const PLATFORM_DOWN: &str = "/api/v1/platform/down";
/// Has another program take the platform over.
pub const PLATFORM_UPGRADE: &str = "/api/v1/platform/upgrade";
/// Has the journal written in the newest format from here on.
pub const PLATFORM_UPGRADE_COMMIT: &str = "/api/v1/platform/upgrade/commit";
/// The platform as one archive.
pub const PLATFORM_BACKUP: &str = "/api/v1/platform/backup";
/// What happened on the whole platform.
pub const PLATFORM_TIMELINE: &str = "/api/v1/timeline";
/// The certificates.
pub const CERTIFICATES: &str = "/api/v1/certificates";
/// One of them.
pub const CERTIFICATE: &str = "/api/v1/certificates/{certificate}";
/// Certificates that are to be had now.
pub const CERTIFICATE_RENEWALS: &str = "/api/v1/certificate-renewals";
/// The ACME server that certificates are had from.
pub const ACME: &str = "/api/v1/acme";
/// The machine's own authority for certificates.
pub const AUTHORITY: &str = "/api/v1/authority";
/// The OpenAPI document.
pub const OPENAPI: &str = "/api/v1/openapi.json";
/// Asks which chunks of a list the tenant does not have.
pub const CHUNKS_MISSING: &str = "/api/v1/tenants/{tenant}/chunks/missing";
/// One chunk.
pub const CHUNK: &str = "/api/v1/tenants/{tenant}/chunks/{hash}";
/// Source trees.
pub const TREES: &str = "/api/v1/tenants/{tenant}/trees";
/// The apps of a project.
pub const APPS: &str = "/api/v1/tenants/{tenant}/projects/{project}/apps";
/// One app.
pub const APP: &str = "/api/v1/tenants/{tenant}/projects/{project}/apps/{app}";
/// An app's releases.
pub const RELEASES: &str = "/api/v1/tenants/{tenant}/projects/{project}/apps/{app}/releases";
/// One release; `{number}` is `42` or `v42`.
pub const RELEASE: &str = "/api/v1/tenants/{tenant}/projects/{project}/apps/{app}/releases/{number}";
/// What is different between two releases.
pub const DIFF: &str = "/api/v1/tenants/{tenant}/projects/{project}/apps/{app}/releases/{number}/diff";
/// How a release's deployment is getting on, as server-sent events.
pub const PROGRESS: &str =
    "/api/v1/tenants/{tenant}/projects/{project}/apps/{app}/releases/{number}/progress";
/// Makes a release out of an earlier one.
pub const ROLLBACK: &str = "/api/v1/tenants/{tenant}/projects/{project}/apps/{app}/rollback";
/// An app's configuration.
pub const CONFIG: &str = "/api/v1/tenants/{tenant}/projects/{project}/apps/{app}/config";
/// The names of an app's secrets.
pub const SECRETS: &str = "/api/v1/tenants/{tenant}/projects/{project}/apps/{app}/secrets";
/// One-off commands of an app.
pub const RUNS: &str = "/api/v1/tenants/{tenant}/projects/{project}/apps/{app}/runs";
/// What an app runs by a schedule.
pub const CRON: &str = "/api/v1/tenants/{tenant}/projects/{project}/apps/{app}/cron";
/// What became of one entry of it, and running it at once.
pub const CRON_RUNS: &str = "/api/v1/tenants/{tenant}/projects/{project}/apps/{app}/cron/{entry}/runs";
/// An app's volumes.
pub const VOLUMES: &str = "/api/v1/tenants/{tenant}/projects/{project}/apps/{app}/volumes";
/// One of them.
pub const VOLUME: &str = "/api/v1/tenants/{tenant}/projects/{project}/apps/{app}/volumes/{volume}";
/// The snapshots of a volume.
pub const SNAPSHOTS: &str =
    "/api/v1/tenants/{tenant}/projects/{project}/apps/{app}/volumes/{volume}/snapshots";
/// One of them.
pub const SNAPSHOT: &str =
    "/api/v1/tenants/{tenant}/projects/{project}/apps/{app}/volumes/{volume}/snapshots/{snapshot}";
/// Brings one back.
pub const VOLUME_RESTORE: &str =
    "/api/v1/tenants/{tenant}/projects/{project}/apps/{app}/volumes/{volume}/restore";
/// The hosts that lead to an app.
pub const DOMAINS: &str = "/api/v1/tenants/{tenant}/projects/{project}/apps/{app}/domains";
/// Whether requests get to an app.
pub const GATE: &str = "/api/v1/tenants/{tenant}/projects/{project}/apps/{app}/gate";
/// How an app's requests are shared between releases.
pub const TRAFFIC: &str = "/api/v1/tenants/{tenant}/projects/{project}/apps/{app}/traffic";
/// Has the release that is being rolled out take over.
pub const PROMOTE: &str = "/api/v1/tenants/{tenant}/projects/{project}/apps/{app}/promote";
/// Has all requests go to the release that serves.
pub const ABORT: &str = "/api/v1/tenants/{tenant}/projects/{project}/apps/{app}/abort";
/// An app's log lines, as server-sent events.
pub const LOGS: &str = "/api/v1/tenants/{tenant}/projects/{project}/apps/{app}/logs";
/// An app's instances.
pub const INSTANCES: &str = "/api/v1/tenants/{tenant}/projects/{project}/apps/{app}/instances";
/// How many instances of each process are wanted.
pub const SCALE: &str = "/api/v1/tenants/{tenant}/projects/{project}/apps/{app}/scale";
/// What happened to an app.
pub const TIMELINE: &str = "/api/v1/tenants/{tenant}/projects/{project}/apps/{app}/timeline";
/// Why an app is as it is.
pub const WHY: &str = "/api/v1/tenants/{tenant}/projects/{project}/apps/{app}/why";

/// The images that were pushed for an app.
pub const APP_IMAGES: &str = "/api/v1/tenants/{tenant}/projects/{project}/apps/{app}/images";

/// How an app is deployed by git.
pub const APP_GIT: &str = "/api/v1/tenants/{tenant}/projects/{project}/apps/{app}/git";
/// Which branch of an app's repository is deployed.
pub const GIT_BRANCH: &str = "/api/v1/tenants/{tenant}/projects/{project}/apps/{app}/git/branch";
/// The repository elsewhere that an app is deployed from.
pub const GIT_CONNECTION: &str = "/api/v1/tenants/{tenant}/projects/{project}/apps/{app}/git/connection";
/// Lets git in for a short time.
pub const GIT_PASS: &str = "/api/v1/tenants/{tenant}/projects/{project}/apps/{app}/git/pass";
/// What forges call: `/hooks/APP/ID` or `/hooks/TENANT/PROJECT/APP/ID`.
pub const HOOKS: &str = "/hooks/{*rest}";
/// What the paths of apps' repositories start with: git's own protocol, not REST.
pub const GIT_PREFIX: &str = "/git/";
/// An app's repository, `/git/APP.git` or `/git/TENANT/PROJECT/APP.git`, and what git asks of it.
pub const GIT: &str = "/git/{*rest}";

/// What the paths of the registry of images start with: the OCI distribution protocol, not REST.
pub const REGISTRY_PREFIX: &str = "/v2/";
/// An app's repository of images, `/v2/APP/...` or `/v2/TENANT/PROJECT/APP/...`, and what is asked of it.
pub const REGISTRY: &str = "/v2/{*rest}";

/// The header that makes a repeated mutation harmless; required on every POST, PUT, PATCH and DELETE.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The header that names the last server-sent event seen.
pub const LAST_EVENT_ID: &str = "last-event-id";
/// The media type of a problem.
pub const PROBLEM_JSON: &str = "application/problem+json";
/// The media type of a stream of server-sent events.
pub const EVENT_STREAM: &str = "text/event-stream";
/// The media type of a backup.
pub const TAR: &str = "application/x-tar";

/// The name of the server-sent event that carries a [`crate::ProgressEvent`].
pub const EVENT_PROGRESS: &str = "progress";
/// The name of the server-sent event that carries a [`crate::LogLine`].
pub const EVENT_LINE: &str = "line";
/// The name of the server-sent event that carries a [`crate::Problem`] and ends the stream.
pub const EVENT_PROBLEM: &str = "problem";

/// `/api/v1/tenants/T/projects/P/apps`
#[must_use]
pub fn apps(project: &ProjectId) -> String {
    format!("{PREFIX}/tenants/{}/projects/{}/apps", project.tenant, project.project)
}

/// `/api/v1/tenants/T/projects/P/apps/A`
#[must_use]
pub fn app(app: &AppId) -> String {
    format!("{}/{}", apps(&app.project_id()), app.app)
}

/// A resource directly below an app: `releases`, `config` and so on.
#[must_use]
pub fn below_app(id: &AppId, resource: &str) -> String {
    format!("{}/{resource}", app(id))
}

/// `.../releases/42`
#[must_use]
pub fn release(id: &AppId, number: ReleaseNumber) -> String {
    format!("{}/releases/{}", app(id), number.0)
}

/// A resource directly below a tenant: `trees`, `chunks/missing`.
#[must_use]
pub fn below_tenant(tenant: &TenantName, resource: &str) -> String {
    format!("{PREFIX}/tenants/{tenant}/{resource}")
}

/// `/api/v1/tenants/T/chunks/HASH`
#[must_use]
pub fn chunk(tenant: &TenantName, hash: &ChunkHash) -> String {
    below_tenant(tenant, &format!("chunks/{hash}"))
}

/// `path?a=1&b=2` of the pairs that have a value; names are ours and stay as they are, values are percent-encoded.
#[must_use]
pub fn query(path: &str, pairs: &[(&str, Option<String>)]) -> String {
    let mut text = path.to_owned();
    let mut separator = '?';
    for (name, value) in pairs {
        let Some(value) = value else { continue };
        text.push(separator);
        separator = '&';
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                text.push(char::from(byte));
            } else {
                write!(text, "%{byte:02X}").expect("writing to a string cannot fail");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_fill_their_templates() {
        let id: AppId = "t/p/shop".parse().unwrap();
        let fill = |template: &str| {
            template
                .replace("{tenant}", "t")
                .replace("{project}", "p")
                .replace("{app}", "shop")
                .replace("{number}", "42")
        };
        assert_eq!(app(&id), fill(APP));
        assert_eq!(apps(&id.project_id()), fill(APPS));
        assert_eq!(release(&id, ReleaseNumber(42)), fill(RELEASE));
        assert_eq!(below_app(&id, "config"), fill(CONFIG));
        assert_eq!(below_tenant(&id.tenant, "chunks/missing"), fill(CHUNKS_MISSING));
    }

    #[test]
    fn values_of_a_query_are_encoded() {
        let path =
            query("/x", &[("a", Some("1&b=2 \u{e4}/".to_owned())), ("n", None), ("f", Some("true".into()))]);
        assert_eq!(path, "/x?a=1%26b%3D2%20%C3%A4%2F&f=true");
    }
}
