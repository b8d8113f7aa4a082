//! Certificates, the ACME server that they are had from, and the machine's own authority.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use berth_certificate::acme::{AcmeError, Client, ExternalAccount, Server};
use berth_certificate::{AUTHORITY, LocalAuthority, Pair};
use berth_contract::{
    Acme, AcmeSettings, Authority, Certificate, CertificateHost, CertificateList, CertificateOrigin,
    CertificateRenewal, CertificateState, CertificateUpload, Code, DnsHook, Problem, Proof, route,
};
use berth_control::certificate::{self, ByName, CertificateChange, Certificates, Origin, is_public, renewal};
use berth_control::command::Command;
use berth_control::plan::APPLY_DEADLINE;
use berth_control::route::serving_hosts;
use berth_control::state::{Life, State as Known};
use berth_spec::{HostName, Millis, Timestamp};

use super::auth::Principal;
use super::mutation::{Mutation, NoBody};
use super::problem::{Body, Refused};
use super::{Api, views};
use crate::certificates::{ACCOUNT_LABEL, certificate_of, hook};

/// An order waits for its hook, and others wait behind it: servers forget an order after some days.
const HOOK_LONGEST: Millis = Millis::from_secs(60 * 60);

#[utoipa::path(get, path = route::CERTIFICATES, tag = "certificates",
    responses((status = 200, body = CertificateList)))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    principal: Principal,
) -> Result<Json<CertificateList>, Refused> {
    principal.own_platform()?;
    let now = api.clock.now();
    Ok(Json(api.desk.read(|state| {
        let certificates = &state.platform.certificates;
        CertificateList {
            acme: certificates.acme.as_ref().map(shown_acme),
            certificates: certificates.held.values().map(shown).collect(),
            hosts: hosts(state, now),
        }
    })))
}

#[utoipa::path(post, path = route::CERTIFICATES, tag = "certificates", request_body = CertificateUpload,
    responses((status = 201, body = Certificate)), params(("Idempotency-Key" = String, Header)))]
pub(super) async fn upload(
    State(api): State<Arc<Api>>,
    mutation: Mutation<Body<CertificateUpload>>,
) -> Result<(StatusCode, Json<Certificate>), Refused> {
    mutation.principal.own_platform()?;
    let sent = &mutation.body.0;
    let invalid = |why: String| Problem::new(Code::CertificateInvalid, why);
    let pair = Pair::read(&sent.chain, sent.key.expose()).map_err(|error| invalid(error.to_string()))?;
    let now = api.clock.now();
    let (chain, key) = (&sent.chain, sent.key.expose());
    let certificate = certificate_of(&pair, chain, key, None, &api.vault, &*api.clock);
    if certificate.not_after < now {
        return Err(invalid("the time of the certificate is over".to_owned()).into());
    }
    if certificate.hosts.is_empty() {
        return Err(
            invalid("none of the names of the certificate is one that an app could have".to_owned()).into()
        );
    }
    let answer = shown(&certificate);
    change(&api, &mutation, CertificateChange::Stored { certificate }).await?;
    Ok((StatusCode::CREATED, Json(answer)))
}

#[utoipa::path(delete, path = route::CERTIFICATE, tag = "certificates", responses((status = 204)),
    params(("certificate" = String, Path), ("Idempotency-Key" = String, Header)))]
pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    mutation: Mutation<NoBody>,
) -> Result<StatusCode, Refused> {
    mutation.principal.own_platform()?;
    if !api.desk.read(|state| state.platform.certificates.held.contains_key(&id)) {
        let problem = Problem::new(Code::CertificateNotFound, "there is no certificate with this id");
        return Err(problem.next("`berth certs --json` has the ids").into());
    }
    change(&api, &mutation, CertificateChange::Removed { id }).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(post, path = route::CERTIFICATE_RENEWALS, tag = "certificates", request_body = CertificateRenewal,
    responses((status = 202, description = "It is asked for; the list says what comes of it")),
    params(("Idempotency-Key" = String, Header)))]
pub(super) async fn renew(
    State(api): State<Arc<Api>>,
    mutation: Mutation<Body<CertificateRenewal>>,
) -> Result<StatusCode, Refused> {
    mutation.principal.own_platform()?;
    let host = mutation.body.0.host.clone();
    let (wanted, acme, provable) = api.desk.read(|state| {
        let certificates = &state.platform.certificates;
        let wanted = certificate::wanted(state).contains(&host);
        (wanted, certificates.acme.is_some(), certificates.can_ask_for(&host))
    });
    if !acme {
        let problem = Problem::new(Code::AcmeUnset, "no ACME server is set, so there is nobody to ask");
        return Err(problem.next("`berth certs acme --email YOU@EXAMPLE.COM` asks Let's Encrypt").into());
    }
    if !wanted {
        return Err(not_wanted(&host, provable).into());
    }
    change(&api, &mutation, CertificateChange::Asked { host }).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Why none is asked for.
fn not_wanted(host: &HostName, provable: bool) -> Problem {
    let (why, next) = if provable {
        (format!("no app has the host {host}"), "`berth domains` shows an app's hosts")
    } else if is_public(host) {
        let why = format!("{host} is a wildcard, which is proven by DNS alone");
        (why, "`berth certs acme --dns-hook PATH` names the program that writes to DNS")
    } else {
        let why = format!("{host} is no name for which a server of the internet gives certificates");
        (why, "`berth certs add` brings one of your own")
    };
    Problem::new(Code::CertificateNotFound, why).next(next)
}

#[utoipa::path(put, path = route::ACME, tag = "certificates", request_body = AcmeSettings,
    responses((status = 200, description = "There is an account there", body = Acme)),
    params(("Idempotency-Key" = String, Header)))]
pub(super) async fn set_acme(
    State(api): State<Arc<Api>>,
    mutation: Mutation<Body<AcmeSettings>>,
) -> Result<Json<Acme>, Refused> {
    mutation.principal.own_platform()?;
    let sent = &mutation.body.0;
    let server = Server { directory: sent.directory.clone(), authorities: sent.authorities.clone() };
    let dns = dns_hook(&api, sent)?;
    let account = account(&api, &server, sent).await?;
    let acme = certificate::Acme {
        directory: sent.directory.clone(),
        authorities: sent.authorities.clone(),
        email: sent.email.clone(),
        proof: match sent.proof {
            Proof::Http01 | Proof::Dns01 => certificate::Proof::Http01,
            Proof::TlsAlpn01 => certificate::Proof::TlsAlpn01,
        },
        dns,
        account: api.vault.seal_text(&*api.clock, ACCOUNT_LABEL, &account),
    };
    let answer = shown_acme(&acme);
    change(&api, &mutation, CertificateChange::AcmeSet { acme }).await?;
    Ok(Json(answer))
}

#[utoipa::path(delete, path = route::ACME, tag = "certificates",
    responses((status = 204, description = "No more are asked for; those that there are stay")),
    params(("Idempotency-Key" = String, Header)))]
pub(super) async fn unset_acme(
    State(api): State<Arc<Api>>,
    mutation: Mutation<NoBody>,
) -> Result<StatusCode, Refused> {
    mutation.principal.own_platform()?;
    change(&api, &mutation, CertificateChange::AcmeUnset).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(get, path = route::AUTHORITY, tag = "certificates", responses((status = 200, body = Authority)))]
pub(super) async fn authority(
    State(api): State<Arc<Api>>,
    principal: Principal,
) -> Result<Json<Authority>, Refused> {
    principal.own_platform()?;
    let path = api.identity.home.join("routing").join(AUTHORITY);
    let unreadable =
        |why: String| Problem::new(Code::Internal, format!("{} cannot be read: {why}", path.display()));
    let pem = std::fs::read_to_string(&path).map_err(|error| unreadable(error.to_string()))?;
    let authority = LocalAuthority::read(&pem).map_err(|error| unreadable(error.to_string()))?;
    Ok(Json(Authority { certificate: authority.root_pem().to_owned() }))
}

/// Has a change decided, and waits until edge goes by it.
async fn change<T>(api: &Api, mutation: &Mutation<T>, change: CertificateChange) -> Result<(), Refused> {
    let command = Command::ChangeCertificates { change: Box::new(change) };
    let shown = || api.desk.read(certificate::routes);
    let before = shown();
    let outcome = mutation.submit(api, command, None).await?;
    // Edge is told of nothing where no host of an app is concerned.
    if outcome.changed && shown() != before {
        // One that does not in time does so a moment later, or is started again.
        let _applied = api.edge.follows(outcome.position, APPLY_DEADLINE.as_duration()).await;
    }
    Ok(())
}

fn refused(error: &AcmeError) -> Problem {
    match error {
        AcmeError::Address(_) | AcmeError::Authorities(_) => {
            Problem::new(Code::RequestInvalid, error.to_string())
        }
        AcmeError::Unreachable { .. } => Problem::new(Code::AcmeUnreachable, error.to_string()),
        AcmeError::Refused { .. }
        | AcmeError::NoProof { .. }
        | AcmeError::Credentials
        | AcmeError::Make(_) => Problem::new(Code::AcmeRefused, error.to_string()),
    }
}

/// The credentials of an account at `server`: of the one that is set, where it is one there and nobody says whose it is to be. A server may have a certificate replaced
/// by the account alone that asked for it, and a CAA record may name that (RFC 8657).
async fn account(api: &Api, server: &Server, sent: &AcmeSettings) -> Result<String, Refused> {
    let external = sent.external_account.as_ref().map(external).transpose()?;
    let email = sent.email.as_deref();
    if external.is_none()
        && let Some(credentials) = held_account(api, &server.directory)
        // One that the server has forgotten is no reason to have none, and of a server that cannot be asked the next question says so.
        && go_on(server, &credentials, email).await.is_ok()
    {
        return Ok(credentials);
    }
    let registered = Client::register(server, email, external.as_ref()).await;
    let (_client, account) = registered.map_err(|error| refused(&error))?;
    Ok(account)
}

/// The credentials of the account that is set, if it is one of this server's.
fn held_account(api: &Api, directory: &str) -> Option<String> {
    let sealed = api.desk.read(|state| {
        let acme = state.platform.certificates.acme.as_ref().filter(|acme| acme.directory == directory)?;
        Some(acme.account.clone())
    })?;
    api.vault.open_text(ACCOUNT_LABEL, &sealed).ok()
}

/// Has `server` write to `email` about the account that has these credentials.
async fn go_on(server: &Server, credentials: &str, email: Option<&str>) -> Result<(), AcmeError> {
    Client::open(server, credentials).await?.write_to(email).await
}

/// The hook that is to be set, if there is to be one, once it was looked at.
fn dns_hook(api: &Api, sent: &AcmeSettings) -> Result<Option<certificate::DnsHook>, Refused> {
    let every_host = sent.proof == Proof::Dns01;
    let Some(hook) = &sent.dns else {
        let missing =
            || Problem::new(Code::RequestInvalid, "proofs by DNS need a program that writes the records");
        return if every_host {
            Err(missing().next("name it with `--dns-hook PATH`").into())
        } else {
            Ok(None)
        };
    };
    if let Err(error) = hook::checked(&hook.program, &api.identity.home) {
        let problem = Problem::new(Code::RequestInvalid, format!("this cannot be the DNS hook: {error}"));
        return Err(problem
            .next("give a program of root's, in a folder of root's, like /etc/berth/dns")
            .into());
    }
    let (program, wait, limit) = (hook.program.clone(), hook.wait_ms, hook.timeout_ms);
    if limit.0 == 0 || limit > HOOK_LONGEST || wait > HOOK_LONGEST {
        let why = format!(
            "a DNS hook has at most {HOOK_LONGEST}, and some time at least, and as long may be waited"
        );
        return Err(Problem::new(Code::RequestInvalid, why).into());
    }
    Ok(Some(certificate::DnsHook { program, wait, limit, every_host }))
}

/// Servers give the key in the alphabet of URLs; people paste it in either, with or without its padding.
fn external(sent: &berth_contract::ExternalAccount) -> Result<ExternalAccount, Refused> {
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let key = sent.key.expose().trim().replace('+', "-").replace('/', "_");
    let key = GeneralPurpose::new(&alphabet::URL_SAFE, lenient).decode(key);
    let wrong = |_base64| Problem::new(Code::RequestInvalid, "the key of the external account is not base64");
    let key = key.map_err(wrong)?;
    Ok(ExternalAccount { id: sent.id.clone(), key })
}

fn shown_acme(acme: &certificate::Acme) -> Acme {
    let proof = match (&acme.dns, acme.proof) {
        (Some(hook), _) if hook.every_host => Proof::Dns01,
        (_, certificate::Proof::Http01) => Proof::Http01,
        (_, certificate::Proof::TlsAlpn01) => Proof::TlsAlpn01,
    };
    let dns = acme.dns.as_ref().map(|hook| DnsHook {
        program: hook.program.clone(),
        wait_ms: hook.wait,
        timeout_ms: hook.limit,
    });
    Acme { directory: acme.directory.clone(), email: acme.email.clone(), proof, dns }
}

fn shown(certificate: &certificate::Certificate) -> Certificate {
    let (origin, renews_at) = match certificate.origin {
        Origin::Acme => (CertificateOrigin::Acme, Some(renewal(certificate))),
        Origin::Uploaded => (CertificateOrigin::Uploaded, None),
    };
    Certificate {
        id: certificate.id.clone(),
        hosts: certificate.hosts.iter().cloned().collect(),
        issuer: certificate.issuer.clone(),
        origin,
        not_before: certificate.not_before,
        not_after: certificate.not_after,
        renews_at,
    }
}

/// The hosts of all apps, but for those below localhost: their certificates are issued here, as they are asked for.
fn hosts(state: &Known, now: Timestamp) -> Vec<CertificateHost> {
    let certificates = &state.platform.certificates;
    let by_name = certificates.by_name();
    let alive = state.apps.values().filter(|app| app.life == Life::Alive);
    let mut hosts: Vec<CertificateHost> = alive
        .flat_map(|app| serving_hosts(app).into_iter().map(move |host| (host, app)))
        .filter_map(|(host, app)| Some((host.parse::<HostName>().ok()?, app)))
        .filter(|(host, _)| !is_local(host) || by_name.of(host).is_some())
        .map(|(host, app)| stands(certificates, &by_name, host, &app.id, now))
        .collect();
    hosts.sort_by(|one, other| one.host.cmp(&other.host));
    hosts
}

fn is_local(host: &HostName) -> bool {
    host.as_str() == "localhost" || host.as_str().ends_with(".localhost")
}

fn stands(
    certificates: &Certificates,
    by_name: &ByName<'_>,
    host: HostName,
    app: &berth_spec::AppId,
    now: Timestamp,
) -> CertificateHost {
    let shown = by_name.of(&host);
    let setback = certificates.setbacks.get(&host);
    let asked =
        certificates.due(&host, by_name).is_some_and(|due| due <= now) && certificates.can_ask_for(&host);
    let state = match shown {
        Some(certificate) if now <= certificate.not_after => CertificateState::Valid,
        Some(_) => CertificateState::Expired,
        None if asked => CertificateState::Ordered,
        None if setback.is_some() => CertificateState::Failed,
        None => CertificateState::None,
    };
    // Where nobody is asked at all, that is said once, and of all.
    let is_asked = certificates.acme.is_none() && is_public(&host) || certificates.can_ask_for(&host);
    let unasked = (shown.is_none() && !is_asked).then(|| {
        let Problem { detail, next, .. } = not_wanted(&host, false);
        format!("{detail}; {}", next.unwrap_or_default())
    });
    CertificateHost {
        unasked,
        certificate: shown.map(|it| it.id.clone()),
        app: app.clone(),
        state,
        failure: setback.map(|setback| views::failure(&setback.failure)),
        again_at: setback.map(|setback| setback.again_at),
        host,
    }
}

/// What happened, in words.
pub(super) fn say(change: &CertificateChange) -> String {
    match change {
        CertificateChange::AcmeSet { acme } => format!("has certificates come from {}", acme.directory),
        CertificateChange::AcmeUnset => "has no more certificates asked for".to_owned(),
        CertificateChange::Stored { certificate } => {
            let hosts: Vec<&str> = certificate.hosts.iter().map(HostName::as_str).collect();
            format!("got a certificate of {} for {}", certificate.issuer, hosts.join(", "))
        }
        CertificateChange::Removed { id } => {
            format!("removed the certificate {}", id.get(..12).unwrap_or(id))
        }
        CertificateChange::Asked { host } => format!("asked for a certificate for {host}"),
        CertificateChange::Ordered { host, .. } => format!("ordered a certificate for {host}"),
        CertificateChange::Dropped { host } => format!("wants no certificate for {host} any more"),
        CertificateChange::Failed { host, failure, .. } => {
            format!("got no certificate for {host}: {}", failure.summary)
        }
    }
}

/// Takes out of a change what only the platform may know.
pub(super) fn without_secrets(change: &mut serde_json::Map<String, serde_json::Value>) {
    if let Some(acme) = change.get_mut("acme").and_then(serde_json::Value::as_object_mut) {
        acme.remove("account");
    }
    if let Some(certificate) = change.get_mut("certificate").and_then(serde_json::Value::as_object_mut) {
        certificate.remove("key");
    }
}
