//! `certs`.

use std::path::Path;

use berth_contract::{
    AcmeSettings, Certificate, CertificateHost, CertificateList, CertificateOrigin, CertificateState,
    CertificateUpload, Code, DnsHook, ExitStatus, ExternalAccount, Proof, SecretValue,
};
use serde_json::json;

use super::Session;
use crate::args::{AcmeArgs, CertsAction, CertsArgs};
use crate::failure::Failure;
use crate::figures::exact;
use crate::screen::Style;
use crate::table::{Cell, Table};

const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";
/// So much of an id tells a person one certificate from another.
const ID_SHOWN: usize = 12;

impl Session<'_> {
    pub(super) async fn certs(&mut self, args: CertsArgs) -> Result<ExitStatus, Failure> {
        match args.action {
            None | Some(CertsAction::List) => {
                let list = self.client.certificates().await?;
                self.show(&list, |session| session.show_certificates(&list))
            }
            Some(CertsAction::Acme(args)) => self.acme(args).await,
            Some(CertsAction::Add { chain, key }) => self.add_certificate(&chain, &key).await,
            Some(CertsAction::Remove { id }) => {
                let id = self.whole_id(&id).await?;
                self.client.remove_certificate(&id).await?;
                self.show(&json!({ "removed": id }), |session| {
                    Ok(session.screen.line(&format!("removed {}", short(&id)))?)
                })
            }
            Some(CertsAction::Renew { host }) => {
                self.client.renew_certificate(&host).await?;
                self.show(&json!({ "host": host }), |session| {
                    session.screen.line(&format!("asked for a certificate for {host}"))?;
                    session.hint("`berth certs` shows what comes of it")
                })
            }
            Some(CertsAction::Ca) => {
                let authority = self.client.authority().await?;
                self.show(&authority, |session| Ok(session.screen.line(authority.certificate.trim_end())?))
            }
        }
    }

    async fn acme(&mut self, args: AcmeArgs) -> Result<ExitStatus, Failure> {
        if args.off {
            self.client.unset_acme().await?;
            return self.show(&json!({ "acme": null }), |session| {
                Ok(session.screen.line("no more certificates are asked for; those that there are stay")?)
            });
        }
        let usual = if args.staging { LETS_ENCRYPT_STAGING } else { LETS_ENCRYPT };
        let external = args.external_id.zip(args.external_key_file);
        let external_account = match external {
            Some((id, file)) => Some(ExternalAccount { id, key: SecretValue::new(read(&file)?) }),
            None => None,
        };
        let settings = AcmeSettings {
            directory: args.directory.unwrap_or_else(|| usual.to_owned()),
            email: args.email,
            proof: args.proof.into(),
            dns: args.dns_hook.map(|program| DnsHook {
                program,
                wait_ms: args.dns_wait,
                timeout_ms: args.dns_timeout,
            }),
            authorities: args.authorities.as_deref().map(read).transpose()?,
            external_account,
        };
        let acme = self.client.set_acme(&settings).await?;
        self.show(&acme, |session| {
            session.screen.line(&format!("certificates come from {}", acme.directory))?;
            session.hint(
                "every public host of an app gets one within moments; `berth certs` shows how each stands",
            )
        })
    }

    async fn add_certificate(&mut self, chain: &Path, key: &Path) -> Result<ExitStatus, Failure> {
        let upload = CertificateUpload { chain: read(chain)?, key: SecretValue::new(read(key)?) };
        let certificate = self.client.upload_certificate(&upload).await?;
        self.show(&certificate, |session| {
            let hosts: Vec<&str> = certificate.hosts.iter().map(berth_spec::HostName::as_str).collect();
            let line = format!(
                "{} is shown for {} until {}",
                short(&certificate.id),
                hosts.join(", "),
                exact(certificate.not_after)
            );
            session.screen.line(&line)?;
            session.hint("it is not renewed by itself: bring the next one before then")
        })
    }

    /// The one certificate whose id begins so.
    async fn whole_id(&self, beginning: &str) -> Result<String, Failure> {
        let list = self.client.certificates().await?;
        let mut fit = list.certificates.iter().filter(|it| it.id.starts_with(beginning)).map(|it| &it.id);
        match (fit.next(), fit.next()) {
            (Some(id), None) => Ok(id.clone()),
            (None, _) => {
                let detail = "no certificate has an id that begins so";
                Err(Failure::local(Code::CertificateNotFound, detail, "`berth certs` lists them"))
            }
            (Some(_), Some(_)) => {
                let detail = "several certificates have an id that begins so";
                Err(Failure::local(Code::UsageInvalid, detail, "give more of it"))
            }
        }
    }

    fn show_certificates(&mut self, list: &CertificateList) -> Result<(), Failure> {
        match &list.acme {
            Some(acme) => {
                let email = acme.email.as_ref().map_or_else(String::new, |email| format!(", for {email}"));
                let (directory, proof) = (&acme.directory, acme.proof.as_str());
                self.screen.line(&format!("certificates come from {directory} by {proof}{email}"))?;
                if let Some(hook) = &acme.dns {
                    let what = if acme.proof == Proof::Dns01 { "hosts are" } else { "wildcards are" };
                    self.screen.line(&format!("{what} proven by {}", hook.program))?;
                }
            }
            None => {
                self.screen.line("certificates do not come by themselves")?;
                self.hint("`berth certs acme --email YOU@EXAMPLE.COM` has Let's Encrypt give them")?;
            }
        }
        if !list.hosts.is_empty() {
            self.screen.line("")?;
            let mut table = Table::new(&["HOST", "APP", "STATE", "UNTIL", "ISSUER", "CERTIFICATE"]);
            for host in &list.hosts {
                table.row(row(host, list));
            }
            self.print(&table)?;
        }
        for (host, failure) in list.hosts.iter().filter_map(|host| Some((host, host.failure.as_ref()?))) {
            let again =
                host.again_at.map_or_else(String::new, |at| format!("; tried again at {}", exact(at)));
            self.screen.line(&format!("{}: {}{again}", host.host, failure.summary))?;
            for line in &failure.log {
                self.screen.line(&format!("  | {line}"))?;
            }
            if let Some(next) = &failure.next {
                self.screen.line(&format!("  {next}"))?;
            }
        }
        for why in list.hosts.iter().filter_map(|host| host.unasked.as_ref()) {
            self.screen.line(why)?;
        }
        let unused = list
            .certificates
            .iter()
            .filter(|it| !list.hosts.iter().any(|host| host.certificate.as_ref() == Some(&it.id)));
        for certificate in unused {
            self.screen.line(&why_unused(certificate, list))?;
        }
        Ok(())
    }
}

/// Why a certificate is shown to nobody: another is shown for all its hosts, or no app has one of them.
fn why_unused(certificate: &Certificate, list: &CertificateList) -> String {
    let hosts: Vec<&str> = certificate.hosts.iter().map(berth_spec::HostName::as_str).collect();
    let is_for = |host: &&CertificateHost| {
        certificate.hosts.iter().any(|it| *it == host.host || it.covers(&host.host))
    };
    let instead = list.hosts.iter().filter(is_for);
    let instead: Vec<String> = instead
        .filter_map(|host| Some(format!("{} has {}", host.host, short(host.certificate.as_ref()?))))
        .collect();
    let why = if instead.is_empty() {
        "no app has such a host".to_owned()
    } else {
        format!("{}, which goes before it", instead.join(" and "))
    };
    format!("{} for {} is shown to nobody: {why}", short(&certificate.id), hosts.join(", "))
}

fn row(host: &CertificateHost, list: &CertificateList) -> Vec<Cell> {
    let certificate = list.certificates.iter().find(|it| Some(&it.id) == host.certificate.as_ref());
    let state = match host.state {
        CertificateState::Valid => Cell::new("valid", Style::Good),
        CertificateState::Expired => Cell::new("expired", Style::Bad),
        CertificateState::Ordered => Cell::new("being had", Style::Dim),
        CertificateState::Failed => Cell::new("failed", Style::Bad),
        CertificateState::None => Cell::new("none", Style::Dim),
    };
    let until = certificate.map_or_else(String::new, |it| exact(it.not_after).chars().take(16).collect());
    let issuer = certificate.map_or_else(String::new, |it| match it.origin {
        CertificateOrigin::Acme => it.issuer.clone(),
        CertificateOrigin::Uploaded => format!("{} (brought)", it.issuer),
    });
    let id = certificate.map_or_else(String::new, |it| short(&it.id).to_owned());
    vec![
        host.host.as_str().into(),
        host.app.app.as_str().into(),
        state,
        until.into(),
        issuer.into(),
        id.into(),
    ]
}

fn short(id: &str) -> &str {
    id.get(..ID_SHOWN).unwrap_or(id)
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| {
        let detail = format!("{} cannot be read: {error}", path.display());
        Failure::local(Code::UsageInvalid, detail, "give a file of PEM that you may read")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_is_shown_to_nobody_says_why() {
        let certificate = |id: &str, hosts: &[&str]| json!({ "id": id, "hosts": hosts, "issuer": "x", "origin": "acme", "not_before": 0, "not_after": 1 });
        let list = json!({
            "acme": null,
            "certificates": [certificate("aaaa", &["a.example.com"]), certificate("bbbb", &["*.example.com"]), certificate("cccc", &["else.org"])],
            "hosts": [{ "host": "a.example.com", "app": "default/default/shop", "certificate": "aaaa", "state": "valid" }],
        });
        let list: CertificateList = serde_json::from_value(list).unwrap();
        let why = |at: usize| why_unused(&list.certificates[at], &list);
        assert_eq!(
            why(1),
            "bbbb for *.example.com is shown to nobody: a.example.com has aaaa, which goes before it"
        );
        assert_eq!(why(2), "cccc for else.org is shown to nobody: no app has such a host");
    }
}
