//! Who asks: the peer of a Unix socket or the bearer of a token; and what they may touch.

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use berth_clock::{Clock, random_bytes};
use berth_contract::{Code, Problem, route};
use berth_control::event::Grant;
use berth_spec::{AppId, ProjectId, TenantId};

use super::Api;
use super::problem::Refused;
use crate::git::Pass;
use crate::git::http::{CHALLENGE, told};
use crate::registry;

/// What a token starts with, so that scanners of leaked secrets know one when they see it.
pub(super) const TOKEN_PREFIX: &str = "berth_";
/// The group whose members own the platform beside root and the home's owner.
const GROUP: &str = "berth";

/// How a connection came in; put beside each of its requests by the accept loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Over `api.sock`, from a process of this user and group.
    Local { uid: u32, gid: u32, pid: Option<i32> },
    /// Over TCP; only a token tells who it is.
    Network,
}

/// Whoever asks, once known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Principal {
    /// `uid:0`, `token:ci`.
    pub name: String,
    grants: Vec<Grant>,
    /// The id of the request, which all that follows from it carries.
    pub correlation: String,
    /// The one app that they may touch, when they came with a pass.
    only: Option<AppId>,
}

impl Principal {
    /// Whether they may touch everything.
    #[must_use]
    pub(super) fn owns_platform(&self) -> bool {
        self.grants.contains(&Grant::Platform)
    }

    /// Whether what they showed is not for another app alone.
    pub(crate) fn is_for(&self, app: &AppId) -> bool {
        self.only.as_ref().is_none_or(|only| only == app)
    }

    fn may_enter_project(&self, project: &ProjectId) -> bool {
        self.grants.iter().any(|grant| match grant {
            Grant::Platform => true,
            Grant::Tenant { tenant } => tenant.tenant == project.tenant,
            Grant::Project { project: granted } => granted == project,
        })
    }

    /// Whether they may see the app.
    #[must_use]
    pub(super) fn may_see(&self, app: &AppId) -> bool {
        self.may_enter_project(&app.project_id())
    }

    /// Lets them into a project, or answers as if it were not there: what one may not see one is not told of.
    ///
    /// # Errors
    /// The problem that a missing project has.
    pub(super) fn enter_project(&self, api: &Api, project: &ProjectId) -> Result<(), Refused> {
        let there = api.desk.read(|state| state.platform.projects.contains(project));
        if there && self.may_enter_project(project) {
            return Ok(());
        }
        Err(Problem::new(Code::ProjectNotFound, format!("there is no project {project}")).into())
    }

    /// Lets them upload for a tenant, or answers as if it were not there.
    ///
    /// # Errors
    /// The problem that a missing tenant has.
    pub(super) fn enter_tenant(&self, api: &Api, tenant: &TenantId) -> Result<(), Refused> {
        let there = api.desk.read(|state| state.platform.tenants.contains(tenant));
        let granted = self.grants.iter().any(|grant| match grant {
            Grant::Platform => true,
            Grant::Tenant { tenant: granted } => granted == tenant,
            Grant::Project { project } => project.tenant == tenant.tenant,
        });
        if there && granted {
            return Ok(());
        }
        Err(Problem::new(Code::TenantNotFound, format!("there is no tenant {tenant}")).into())
    }

    /// Lets only owners of the platform on.
    ///
    /// # Errors
    /// A problem for everybody else.
    pub(super) fn own_platform(&self) -> Result<(), Refused> {
        if self.owns_platform() {
            return Ok(());
        }
        Err(Problem::new(Code::Forbidden, "only an owner of the platform may do that").into())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Principal {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Refused> {
        let known = parts.extensions.get::<Self>().cloned();
        known.ok_or_else(|| Problem::new(Code::Unauthenticated, "the request has no principal").into())
    }
}

/// Finds out who asks, and turns away whoever is nobody.
pub(super) async fn admit(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let correlation = format!("req-{}", hex::encode(random_bytes::<8>(&*api.clock)));
    let peer = request.extensions().get::<Peer>().copied().unwrap_or(Peer::Network);
    let of_git = request.uri().path().starts_with(route::GIT_PREFIX);
    let of_registry = request.uri().path().starts_with(route::REGISTRY_PREFIX);
    // Git and those who push images know no other way to show a token than as a password.
    let takes_passwords = of_git || of_registry;
    let shown = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = shown.and_then(|value| match value.strip_prefix("Bearer ") {
        Some(token) => Some(token.to_owned()),
        None if takes_passwords => password(value),
        None => None,
    });
    let pass = token.as_deref().filter(|token| takes_passwords && Pass::is_like(token));
    let pass = pass.and_then(|pass| Pass::read(pass, &api.vault, api.clock.now()));
    let only = pass.as_ref().map(|pass| pass.app.clone());
    let known = match (peer, token) {
        _ if pass.is_some() => {
            pass.map(|pass| (pass.name, vec![Grant::Project { project: pass.app.project_id() }]))
        }
        // A token says more than where the connection comes from.
        (_, Some(token)) => by_token(&api, token.trim()),
        (Peer::Local { uid, gid, pid }, None) => by_peer(&api, uid, gid, pid),
        (Peer::Network, None) => None,
    };
    let Some((name, grants)) = known else {
        if of_registry {
            return registry::challenge();
        }
        let problem = Problem::new(Code::Unauthenticated, "no valid token came with the request")
            .next("send `Authorization: Bearer berth_...`, or use the platform's Unix socket as its owner")
            .of_request(correlation);
        return if of_git { challenge(problem) } else { Refused::from(problem).into_response() };
    };
    request.extensions_mut().insert(Principal { name, grants, correlation: correlation.clone(), only });
    let mut response = next.run(request).await;
    if let Ok(value) = correlation.parse() {
        response.headers_mut().insert("x-request-id", value);
    }
    response
}

/// Has git ask for a password.
fn challenge(problem: Problem) -> Response {
    let next = "`berth git remote` sets a remote up; elsewhere a token of the platform is the password, with any user name";
    let mut response = told(&problem.next(next));
    response.headers_mut().insert(WWW_AUTHENTICATE, CHALLENGE);
    response
}

/// The password of `Basic` credentials (RFC 7617).
fn password(value: &str) -> Option<String> {
    use base64::Engine as _;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("Basic") {
        return None;
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok()?;
    let (_user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some(password.to_owned())
}

fn by_token(api: &Api, token: &str) -> Option<(String, Vec<Grant>)> {
    let body = token.strip_prefix(TOKEN_PREFIX)?;
    let hash = hash_token(body);
    api.desk.read(|state| {
        let mut tokens = state.platform.tokens.iter();
        let same = |known: &str| verify_slices_are_equal(known.as_bytes(), hash.as_bytes()).is_ok();
        let (id, token) = tokens.find(|(_, token)| same(&token.sha256))?;
        Some((format!("token:{id}"), token.grants.clone()))
    })
}

/// What of a token is kept: 256 random bits need no slow hash.
#[must_use]
pub(super) fn hash_token(body: &str) -> String {
    hex::encode(digest(&SHA256, body.as_bytes()))
}

fn by_peer(api: &Api, uid: u32, gid: u32, pid: Option<i32>) -> Option<(String, Vec<Grant>)> {
    let owns = uid == 0 || uid == api.identity.owner_uid || is_member(gid, pid);
    owns.then(|| (format!("uid:{uid}"), vec![Grant::Platform]))
}

/// Whether the peer is in the group by its own or one of its supplementary groups.
fn is_member(gid: u32, pid: Option<i32>) -> bool {
    let Some(group) = group_id(&std::fs::read_to_string("/etc/group").unwrap_or_default()) else {
        return false;
    };
    if gid == group {
        return true;
    }
    // The peer waits for our answer; should its pid have been reused, the worst is that a member's process is taken for the peer, which
    // needs the peer to die within the request, and then nobody reads the answer.
    let status = pid.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).ok());
    let groups =
        status.iter().flat_map(|status| status.lines()).find_map(|line| line.strip_prefix("Groups:"));
    groups.is_some_and(|groups| groups.split_whitespace().any(|it| it.parse() == Ok(group)))
}

fn group_id(groups: &str) -> Option<u32> {
    let line = groups.lines().find(|line| line.split(':').next() == Some(GROUP))?;
    line.split(':').nth(2)?.parse().ok()
}

/// A new token: its text, which is shown once, and the hash that is kept.
#[must_use]
pub fn new_token(clock: &dyn Clock) -> (String, String) {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random_bytes::<32>(clock));
    let hash = hash_token(&body);
    (format!("{TOKEN_PREFIX}{body}"), hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_found_by_its_name_alone() {
        assert_eq!(group_id("root:x:0:\nberthing:x:7:\nberth:x:42:ann,bob\n"), Some(42));
        assert_eq!(group_id("root:x:0:\n"), None);
        assert_eq!(group_id("berth:x:?:\n"), None);
    }

    #[test]
    fn a_token_comes_as_the_password_of_any_user() {
        assert_eq!(password("Basic eDpiZXJ0aF9hOmI=").as_deref(), Some("berth_a:b"));
        assert_eq!(password("basic OmJlcnRoX2E=").as_deref(), Some("berth_a"));
        for value in ["", "Basic", "Basic !", "Basic eA==", "Bearer eDp5", "Basic /w==", "Digest eDp5"] {
            assert_eq!(password(value), None, "{value}");
        }
    }

    #[test]
    fn a_principal_enters_what_its_grants_name() {
        let of =
            |grants| Principal { name: "token:t".into(), grants, correlation: String::new(), only: None };
        let app: AppId = "acme/web/shop".parse().unwrap();
        let tenant = |name: &str| Grant::Tenant { tenant: name.parse().unwrap() };
        let project = |name: &str| Grant::Project { project: name.parse().unwrap() };
        for grant in [Grant::Platform, tenant("acme"), project("acme/web")] {
            assert!(of(vec![grant.clone()]).may_see(&app), "{grant:?}");
        }
        for grants in [vec![], vec![tenant("other")], vec![project("acme/api"), project("other/web")]] {
            assert!(!of(grants).may_see(&app));
        }
    }
}
