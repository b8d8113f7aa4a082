//! What is decided about a request before any app is asked: proofs for ACME servers, the way to HTTPS, names that do not belong together.

use http::uri::PathAndQuery;
use http::{HeaderValue, Uri};

use berth_routing::host::normalise;

use crate::answer::{Reason, Wrong};
use crate::client::Origin;
use crate::worker::Worker;

/// Where an ACME server looks for its answer (RFC 8555, 8.3).
const PROOFS: &str = "/.well-known/acme-challenge/";

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// It goes to the app; its client is to use HTTPS alone for so many seconds, nought for no such word.
    Go {
        /// How many.
        hsts: u32,
    },
    /// It is answered with this text.
    Prove(String),
    /// Its client is sent there.
    Redirect(HeaderValue),
    /// It is refused.
    Refuse(Reason),
}

impl Before {
    const GO: Self = Self::Go { hsts: 0 };
}

/// Looks at a request for `uri` with the host `host`, as its client wrote it.
pub(crate) fn before_the_app(worker: &Worker, origin: &Origin, host: &HeaderValue, uri: &Uri) -> Before {
    let Origin::Outside { secure, .. } = origin else { return Before::GO };
    worker.in_fleet(|fleet| {
        let path = uri.path();
        // One that is none of ours may be the app's own.
        if let Some(answer) = path.strip_prefix(PROOFS).and_then(|token| fleet.shown().answer(token)) {
            return Before::Prove(answer.to_owned());
        }
        if secure.is_none() && (fleet.shown().is_empty() || worker.secure_port().is_none()) {
            return Before::GO;
        }
        let Ok(name) = normalise(host.as_bytes()) else {
            return Before::Refuse(Reason::BadRequest(Wrong::Host));
        };
        let Some(app) = fleet.app(&name) else { return Before::GO };
        let certificate = fleet.shown().of(&name);
        match (secure, worker.secure_port()) {
            (Some(asked), _) => {
                // A certificate that both names have shows that one owner has both (RFC 9110, 7.4).
                let same = certificate
                    .zip(fleet.shown().of(asked))
                    .is_some_and(|(one, other)| std::sync::Arc::ptr_eq(one, other));
                if *asked == *name || same {
                    Before::Go { hsts: app.https.hsts }
                } else {
                    Before::Refuse(Reason::Misdirected)
                }
            }
            (None, Some(port)) if app.https.force && certificate.is_some() => {
                let rest = uri.path_and_query().map_or("/", PathAndQuery::as_str);
                let port = if port == 443 { String::new() } else { format!(":{port}") };
                HeaderValue::from_str(&format!("https://{name}{port}{rest}"))
                    .map_or(Before::GO, Before::Redirect)
            }
            (None, _) => Before::GO,
        }
    })
}
