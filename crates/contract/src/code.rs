//! Every way in which Berth says no, as a code with a page.
//!
//! A code is a promise: programs match on it, its page under docs/errors explains it, contracts/error-codes.txt pins
//! its HTTP status and the exit status of the command line. Add a code at its place in the alphabet, write its page, refresh
//! the golden. A code is never renamed and never changes its meaning.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What the command line ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum ExitStatus {
    /// It was done.
    Ok = 0,
    /// It was tried and did not work out.
    Failed = 1,
    /// It was not asked for properly.
    Usage = 2,
    /// What it is about does not exist.
    NotFound = 3,
    /// The platform refused: it contradicts what is there.
    Refused = 4,
    /// The platform cannot be reached, or is not ready.
    Unreachable = 5,
    /// A newer deployment took its place.
    Superseded = 6,
    /// Whoever asks may not do it.
    NotAllowed = 7,
    /// Ctrl-C; what was begun on the platform goes on.
    Interrupted = 130,
}

impl From<ExitStatus> for std::process::ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status as u8)
    }
}

macro_rules! codes {
    ($($name:ident = $text:literal, $http:literal, $exit:ident, $title:literal;)*) => {
        /// An error code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(#[doc = $title] $name,)*
        }

        impl Code {
            /// Every code, in the order of the alphabet.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code as it is written: `app_not_found`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The HTTP status of a request that ends with it. Codes that only the command line gives end no request: they have the one that
            /// a request would have, and those that explain a failed release have 500.
            #[must_use]
            pub const fn http_status(self) -> u16 {
                match self { $(Self::$name => $http,)* }
            }

            /// What the command line ends with.
            #[must_use]
            pub const fn exit_status(self) -> ExitStatus {
                match self { $(Self::$name => ExitStatus::$exit,)* }
            }

            /// One line that says what it means, the same for every occurrence.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            /// The page that explains it: `docs/errors/app_not_found.md`.
            #[must_use]
            pub const fn page(self) -> &'static str {
                match self { $(Self::$name => concat!("docs/errors/", $text, ".md"),)* }
            }
        }
    };
}

codes! {
    AcmeRefused = "acme_refused", 502, Failed, "The ACME server refused";
    AcmeUnreachable = "acme_unreachable", 502, Unreachable, "The ACME server cannot be asked";
    AcmeUnset = "acme_unset", 409, Refused, "No ACME server is set";
    AppDestroying = "app_destroying", 409, Refused, "The app is being destroyed";
    AppExists = "app_exists", 409, Refused, "The app exists already";
    AppNotFound = "app_not_found", 404, NotFound, "There is no such app";
    BackupInvalid = "backup_invalid", 500, Failed, "The backup cannot be used";
    BackupKeyMissing = "backup_key_missing", 409, Refused, "The key that the secrets are sealed under is not there";
    BuildCancelled = "build_cancelled", 500, Failed, "The build was cancelled";
    BuildFailed = "build_failed", 500, Failed, "The build failed";
    BuildTimedOut = "build_timed_out", 500, Failed, "The build took longer than it may";
    CertificateInvalid = "certificate_invalid", 422, Refused, "The certificate cannot be used";
    CertificateNotFound = "certificate_not_found", 404, NotFound, "There is no such certificate";
    ChunkMismatch = "chunk_mismatch", 422, Refused, "The bytes of a chunk do not have its hash";
    ChunksMissing = "chunks_missing", 409, Refused, "The tree names chunks that were not uploaded";
    CloneFailed = "clone_failed", 500, Failed, "The connected repository could not be fetched";
    Conflict = "conflict", 409, Refused, "Something else changed it at the same time";
    ContextInvalid = "context_invalid", 400, Usage, "The file that says where the platform is cannot be read";
    CrashedAtStart = "crashed_at_start", 500, Failed, "An instance ended before it was ready";
    CronNotFound = "cron_not_found", 404, NotFound, "The app has no such cron entry";
    CronRunning = "cron_running", 409, Refused, "The cron entry has not ended yet";
    DeployTimedOut = "deploy_timed_out", 500, Failed, "The deployment did not end in time";
    DiskFull = "disk_full", 507, Failed, "The disk has no space left";
    DnsHookFailed = "dns_hook_failed", 502, Failed, "The DNS hook did not write its record";
    DockerUnavailable = "docker_unavailable", 503, Unreachable, "There is no Docker for instances, or nothing that builds a Dockerfile";
    DomainFixed = "domain_fixed", 409, Refused, "The domain cannot be removed by itself";
    DomainNotFound = "domain_not_found", 404, NotFound, "The app has no such domain";
    EdgeUnresponsive = "edge_unresponsive", 500, Failed, "The edge did not take over the new routes in time";
    FileExists = "file_exists", 409, Refused, "There is a file already";
    Forbidden = "forbidden", 403, NotAllowed, "You may not do that";
    GitMissing = "git_missing", 503, Failed, "Git is not installed on the platform's machine";
    HealthCheckFailed = "health_check_failed", 500, Failed, "The health check did not succeed";
    HomeInUse = "home_in_use", 409, Refused, "Another platform runs in this home";
    HomeUnusable = "home_unusable", 500, Failed, "The home directory cannot be used";
    HostTaken = "host_taken", 409, Refused, "Another app answers for the host";
    IdempotencyKeyMissing = "idempotency_key_missing", 400, Usage, "The request has no idempotency key";
    IdempotencyKeyReused = "idempotency_key_reused", 422, Refused, "The idempotency key was used for another request";
    ImageInvalid = "image_invalid", 422, Refused, "The image is not what it has to be";
    ImageNotFound = "image_not_found", 404, NotFound, "The registry has no such image";
    ImagePlatformMissing = "image_platform_missing", 422, Refused, "There is no image for the platform's machine";
    ImageReferenceInvalid = "image_reference_invalid", 422, Usage, "The text does not name an image";
    ImageTooLarge = "image_too_large", 422, Refused, "The image is larger than it may be";
    ImagesUnsupported = "images_unsupported", 500, Failed, "The platform cannot run images here";
    InstanceNotFound = "instance_not_found", 404, NotFound, "There is no such instance";
    Internal = "internal", 500, Failed, "Berth itself failed";
    Interrupted = "interrupted", 500, Interrupted, "The command was interrupted";
    InvalidTree = "invalid_tree", 422, Refused, "The source tree is not valid";
    IsolationTooLow = "isolation_too_low", 409, Refused, "The app asks for more isolation than the platform has";
    LimitExceeded = "limit_exceeded", 422, Refused, "That is more than one app may have";
    ListensElsewhere = "listens_elsewhere", 500, Failed, "The app listens on another port than PORT";
    ManifestInvalid = "manifest_invalid", 422, Refused, "berth.toml or the Procfile is not valid";
    MethodNotAllowed = "method_not_allowed", 405, Usage, "The resource does not take this method";
    NeverDeployed = "never_deployed", 409, Refused, "The app has no release yet";
    NeverListened = "never_listened", 500, Failed, "The app never listened on PORT";
    NoRollbackTarget = "no_rollback_target", 409, Refused, "There is no earlier release to go back to";
    NoRollout = "no_rollout", 409, Refused, "No release is being rolled out, and requests are not shared";
    NotConfirmed = "not_confirmed", 409, Refused, "The command was not confirmed";
    NothingToRun = "nothing_to_run", 422, Refused, "Nothing in the source says how to run it";
    Overloaded = "overloaded", 503, Unreachable, "The platform has more to do than it takes on";
    PayloadTooLarge = "payload_too_large", 413, Refused, "The request is larger than it may be";
    PortTaken = "port_taken", 500, Failed, "Another program listens on the address";
    ProcessNotFound = "process_not_found", 404, NotFound, "The app has no such process";
    ProjectNotFound = "project_not_found", 404, NotFound, "There is no such project";
    PushRefused = "push_refused", 422, Refused, "The push was refused";
    RegistryDenied = "registry_denied", 502, NotAllowed, "The registry refuses the image";
    RegistryUnreachable = "registry_unreachable", 502, Failed, "The registry cannot be reached";
    ReleaseCommandFailed = "release_command_failed", 500, Failed, "The release command failed";
    ReleaseGone = "release_gone", 410, Refused, "The release cannot be brought back any more";
    ReleaseNeverServed = "release_never_served", 409, Refused, "The release never served";
    ReleaseNotFound = "release_not_found", 404, NotFound, "There is no such release";
    RequestInvalid = "request_invalid", 400, Usage, "The request is not what the API takes";
    RequestTimedOut = "request_timed_out", 408, Unreachable, "The request did not arrive in time";
    RolloutAborted = "rollout_aborted", 500, Failed, "Somebody ended the rollout of the release";
    RolloutFailed = "rollout_failed", 500, Failed, "An instance of the release that was being rolled out ended or fell ill";
    RolloutWorse = "rollout_worse", 500, Failed, "The release that was being rolled out did worse than the one before";
    RouteNotFound = "route_not_found", 404, NotFound, "The API has no such path";
    SignatureInvalid = "signature_invalid", 401, NotAllowed, "The webhook is not signed by who it should be";
    SnapshotNotFound = "snapshot_not_found", 404, NotFound, "The volume has no such snapshot";
    SourceDamaged = "source_damaged", 500, Failed, "Stored source is damaged";
    SourceUnreadable = "source_unreadable", 500, Failed, "The source cannot be read";
    StackRefused = "stack_refused", 422, Refused, "Something in the compose file cannot be kept";
    StartFailed = "start_failed", 500, Failed, "An instance could not be started";
    Stopping = "stopping", 503, Unreachable, "The platform is going down";
    StorageFailed = "storage_failed", 500, Failed, "The platform could not read or write its files";
    Superseded = "superseded", 500, Superseded, "A newer deployment took its place";
    TenantNotFound = "tenant_not_found", 404, NotFound, "There is no such tenant";
    ToolchainMissing = "toolchain_missing", 500, Failed, "What builds the source is not installed";
    TrafficNotPossible = "traffic_not_possible", 409, Refused, "Requests cannot be shared between releases in this way";
    TreeNotFound = "tree_not_found", 404, NotFound, "There is no such source tree";
    Unauthenticated = "unauthenticated", 401, NotAllowed, "The platform does not know who asks";
    Unreachable = "unreachable", 500, Unreachable, "The platform cannot be reached";
    UpgradeFailed = "upgrade_failed", 500, Failed, "The other program did not bring the platform up";
    UpgradeRefused = "upgrade_refused", 422, Refused, "The program cannot take the platform over";
    UpgradeUncommitted = "upgrade_uncommitted", 409, Refused, "The upgrade has to be committed first";
    UsageInvalid = "usage_invalid", 400, Usage, "The command line is not valid";
    UserIdsExhausted = "user_ids_exhausted", 507, Refused, "The platform has no user id left for another app";
    VariableNotFound = "variable_not_found", 404, NotFound, "The app has no such variable";
    VolumeBusy = "volume_busy", 409, Refused, "The app does something that a volume cannot be worked on beside";
    VolumeExclusive = "volume_exclusive", 409, Refused, "Two instances would write to one volume at once";
    VolumeInUse = "volume_in_use", 409, Refused, "The volume is in use";
    VolumeNotFound = "volume_not_found", 404, NotFound, "The app has no such volume";
    VolumeTooSmall = "volume_too_small", 409, Refused, "A volume holds more than its size would allow";
}

impl Code {
    /// The code that is written `text`.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Code {
    /// A code that a newer platform knows and this program does not is read as [`Code::Internal`]: its title and detail
    /// still reach the reader.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(Self::from_text(&text).unwrap_or(Self::Internal))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::path::Path;

    use super::*;

    const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

    #[test]
    fn error_codes_golden() {
        let mut table = String::from("# code, HTTP status, exit status of the command line, title\n");
        for code in Code::ALL {
            let exit = code.exit_status() as u8;
            writeln!(table, "{code} {} {exit} {}", code.http_status(), code.title()).unwrap();
        }
        let path = Path::new(ROOT).join("contracts/error-codes.txt");
        if std::env::var_os("BERTH_UPDATE_GOLDENS").is_some() {
            std::fs::write(&path, &table).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(golden, table, "contracts/error-codes.txt is stale: run with BERTH_UPDATE_GOLDENS=1");
    }

    #[test]
    fn every_code_has_a_page_that_explains_it() {
        for code in Code::ALL {
            let text = std::fs::read_to_string(Path::new(ROOT).join(code.page()))
                .unwrap_or_else(|problem| panic!("{}: {problem}", code.page()));
            let head = format!("# {code}\n\n{}.", code.title());
            assert!(text.starts_with(&head), "{} must start with {head:?}", code.page());
            for section in ["\n## What happened\n", "\n## Why\n", "\n## What to do\n"] {
                assert!(text.contains(section), "{} lacks {section:?}", code.page());
            }
        }
    }

    #[test]
    fn every_page_belongs_to_a_code() {
        for entry in std::fs::read_dir(Path::new(ROOT).join("docs/errors")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let code = name.strip_suffix(".md").unwrap_or(&name);
            assert!(
                code == "README" || Code::from_text(code).is_some(),
                "docs/errors/{name} explains no code"
            );
        }
    }

    #[test]
    fn codes_stand_in_the_order_of_the_alphabet() {
        assert!(Code::ALL.is_sorted_by(|one, other| one.as_str() < other.as_str()));
    }

    #[test]
    fn who_is_refused_is_not_told_that_the_platform_failed() {
        for code in Code::ALL {
            let is_his =
                matches!(code.exit_status(), ExitStatus::Usage | ExitStatus::NotFound | ExitStatus::Refused);
            assert!(!is_his || code.http_status() != 500, "{code}");
        }
    }

    #[test]
    fn an_unknown_code_is_read_as_internal() {
        assert_eq!(serde_json::from_str::<Code>("\"from_the_future\"").unwrap(), Code::Internal);
        assert_eq!(serde_json::from_str::<Code>("\"app_not_found\"").unwrap(), Code::AppNotFound);
    }
}
