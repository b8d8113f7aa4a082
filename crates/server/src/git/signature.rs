//! Who a webhook is from: GitHub, Gitea, Forgejo and GitLab, each by what it sends.
//!
//! - GitHub, Gitea and Forgejo sign the body: `X-Hub-Signature-256: sha256=HEX`, `X-Gitea-Signature: HEX`, `X-Forgejo-Signature: HEX`, HMAC-SHA-256
//!   under the secret's text (<https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries>).
//! - GitLab sends the secret itself: `X-Gitlab-Token`.
//! - Newer GitLab signs as Standard Webhooks has it: `webhook-signature: v1,BASE64` over `ID.TIMESTAMP.BODY`, under the bytes that
//!   the secret encodes behind `whsec_`; such a delivery is taken for five minutes
//!   (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).
//!
//! One secret serves for all: its text is `whsec_` and base64. Every comparison takes the same time whatever is compared.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use berth_spec::Timestamp;

/// What the text of a secret starts with.
const PREFIX: &str = "whsec_";
/// How far the clock of a signing GitLab may be from ours, in seconds.
const DRIFT: u64 = 300;

/// The secret of a webhook.
#[derive(Clone)]
pub(super) struct HookSecret([u8; 32]);

impl HookSecret {
    pub(super) fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// As it is given to the forge.
    pub(super) fn text(&self) -> String {
        format!("{PREFIX}{}", BASE64.encode(self.0))
    }

    /// Who sent a request with this body, if it was somebody who has the secret.
    pub(super) fn sender(&self, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Option<Sender> {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        // The first that is there decides: a wrong signature is not made good by something else that is right.
        if let Some(signature) = header("webhook-signature") {
            let (id, sent) = (header("webhook-id")?, header("webhook-timestamp")?);
            return self.standard(signature, id, sent, body, now).then_some(Sender::GitLab);
        }
        if let Some(token) = header("x-gitlab-token") {
            return same(token.as_bytes(), self.text().as_bytes()).then_some(Sender::GitLab);
        }
        // Gitea and Forgejo send GitHub's header, too.
        for (name, sender) in [("x-forgejo-signature", Sender::Gitea), ("x-gitea-signature", Sender::Gitea)] {
            if let Some(signature) = header(name) {
                return self.signed(signature, body).then_some(sender);
            }
        }
        let signature = header("x-hub-signature-256")?.strip_prefix("sha256=")?;
        self.signed(signature, body).then_some(Sender::GitHub)
    }

    fn signed(&self, signature: &str, body: &[u8]) -> bool {
        let Ok(signature) = hex::decode(signature) else { return false };
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.text().as_bytes());
        hmac::verify(&key, body, &signature).is_ok()
    }

    fn standard(&self, signatures: &str, id: &str, sent: &str, body: &[u8], now: Timestamp) -> bool {
        let near = |sent: u64| (now.0 / 1_000).abs_diff(sent) <= DRIFT;
        if !sent.parse().is_ok_and(near) {
            return false;
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let signed = [id.as_bytes(), b".", sent.as_bytes(), b".", body].concat();
        signatures
            .split(' ')
            .filter_map(|it| BASE64.decode(it.strip_prefix("v1,")?).ok())
            .any(|signature| hmac::verify(&key, &signed, &signature).is_ok())
    }
}

fn same(one: &[u8], other: &[u8]) -> bool {
    verify_slices_are_equal(one, other).is_ok()
}

/// The kind of forge that sent a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    GitHub,
    /// Forgejo too.
    Gitea,
    GitLab,
}

impl Sender {
    /// In whose name what follows is done.
    pub(super) const fn actor(self) -> &'static str {
        match self {
            Self::GitHub => "hook:github",
            Self::Gitea => "hook:gitea",
            Self::GitLab => "hook:gitlab",
        }
    }

    /// What happened there, as it calls it, in one word of ours.
    pub(super) fn event(self, headers: &HeaderMap) -> Event {
        let (name, push) = match self {
            Self::GitHub => ("x-github-event", "push"),
            Self::Gitea => ("x-gitea-event", "push"),
            Self::GitLab => ("x-gitlab-event", "Push Hook"),
        };
        match headers.get(name).and_then(|value| value.to_str().ok()) {
            Some(event) if event == push => Event::Push,
            Some("ping") => Event::Ping,
            _ => Event::Other,
        }
    }
}

/// What a webhook tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Push,
    Ping,
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    fn sender(headers: &[(&'static str, String)], body: &[u8]) -> Option<Sender> {
        let headers = headers.iter().map(|(name, value)| {
            (HeaderName::from_static(name), HeaderValue::try_from(value.as_str()).unwrap())
        });
        HookSecret::new([7; 32]).sender(&headers.collect(), body, NOW)
    }

    fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref().to_vec()
    }

    #[test]
    fn each_forge_is_known_by_its_signature() {
        let text = HookSecret::new([7; 32]).text();
        let hex = hex::encode(mac(text.as_bytes(), b"{}"));
        let github = ("x-hub-signature-256", format!("sha256={hex}"));
        assert_eq!(sender(std::slice::from_ref(&github), b"{}"), Some(Sender::GitHub));
        assert_eq!(sender(std::slice::from_ref(&github), b"{ }"), None, "another body");
        let gitea = ("x-gitea-signature", hex.clone());
        assert_eq!(sender(&[gitea.clone(), github.clone()], b"{}"), Some(Sender::Gitea));
        assert_eq!(
            sender(&[("x-gitea-signature", "00".repeat(32)), github], b"{}"),
            None,
            "the first decides"
        );
        assert_eq!(sender(&[("x-gitlab-token", text.clone())], b"{}"), Some(Sender::GitLab));
        for wrong in ["", "x", "whsec_", &hex] {
            assert_eq!(sender(&[("x-gitlab-token", wrong.to_owned())], b"{}"), None);
            assert_eq!(sender(&[("x-hub-signature-256", wrong.to_owned())], b"{}"), None);
        }
        assert_eq!(sender(&[], b"{}"), None);
    }

    #[test]
    fn a_standard_webhook_is_taken_near_its_time() {
        let at = |sent: u64| {
            let signed = mac(&[7; 32], format!("id.{sent}.{{}}").as_bytes());
            let signature = format!("v1,{} v1,AAAA", BASE64.encode(signed));
            let headers = [
                ("webhook-signature", signature),
                ("webhook-id", "id".into()),
                ("webhook-timestamp", sent.to_string()),
            ];
            sender(&headers, b"{}")
        };
        let now = NOW.0 / 1_000;
        assert_eq!([at(now), at(now - 300), at(now + 300)], [Some(Sender::GitLab); 3]);
        assert_eq!([at(now - 301), at(now + 301), at(0)], [None; 3]);
    }
}
