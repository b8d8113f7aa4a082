//! The requests of the distribution protocol, and what is done about each.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LINK, LOCATION, RANGE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use berth_clock::random_bytes;
use berth_control::state::{App, Life};
use berth_image::hosted::{HostedError, Named, Repository, Upload};
use berth_image::{Digest, MANIFEST_MAX};
use berth_spec::AppId;
use futures_util::StreamExt as _;
use serde_json::json;

use super::address::{Address, app_of};
use super::refusal::Refusal;
use crate::api::{Api, Principal, find_app};
use crate::git::short;

/// How much of a blob is read or written at a time.
const PIECE: usize = 1 << 20;
/// How long a client may send nothing.
const SILENCE: Duration = Duration::from_secs(60);
/// How many names one page of a list has.
const PAGE: usize = 1_000;
const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");
const VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

type Answer = Result<Response, Refusal>;

/// Serves a request below `/v2/`.
pub(crate) async fn serve(State(api): State<Arc<Api>>, principal: Principal, request: Request) -> Response {
    let mut response = answer(&api, &principal, request).await.unwrap_or_else(Refusal::into_response);
    response.headers_mut().insert(VERSION, HeaderValue::from_static("registry/2.0"));
    response
}

async fn answer(api: &Arc<Api>, principal: &Principal, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let query = Query::read(parts.uri.query().unwrap_or_default());
    let method = parts.method;
    let address = Address::read(parts.uri.path())?;
    let asked = Asked { api, principal, headers: parts.headers, query, head: method == Method::HEAD };
    match (address, method) {
        (Address::Version, Method::GET | Method::HEAD) => Ok(Json(json!({})).into_response()),
        (Address::Catalog, Method::GET) => asked.catalog().await,
        (Address::Tags(app), Method::GET) => asked.tags(&app).await,
        (Address::Blob(app, digest), Method::GET | Method::HEAD) => asked.blob(&app, digest).await,
        (Address::Uploads(app), Method::POST) => asked.begin(&app, body).await,
        (Address::Upload(app, id), Method::GET) => asked.progress(&app, id).await,
        (Address::Upload(app, id), Method::PATCH) => asked.piece(&app, id, body).await,
        (Address::Upload(app, id), Method::PUT) => asked.finish(&app, id, body).await,
        (Address::Upload(app, id), Method::DELETE) => asked.cancel(&app, id).await,
        (Address::Manifest(app, named), Method::GET | Method::HEAD) => asked.manifest(&app, named).await,
        (Address::Manifest(app, named), Method::PUT) => asked.put_manifest(&app, named, body).await,
        (Address::Manifest(app, Named::Tag(tag)), Method::DELETE) => asked.untag(&app, tag).await,
        (Address::Blob(..) | Address::Manifest(..), Method::DELETE) => {
            Err(Refusal::unsupported("what has no tag any more is removed by itself; only tags are deleted"))
        }
        _ => Err(Refusal::unsupported("this is not done at this address")),
    }
}

/// A request, without its body.
struct Asked<'a> {
    api: &'a Arc<Api>,
    principal: &'a Principal,
    headers: HeaderMap,
    query: Query,
    head: bool,
}

impl Asked<'_> {
    /// The repository of an app that whoever asks may see.
    fn repository(&self, id: &AppId) -> Result<Repository, Refusal> {
        let app: Arc<App> = find_app(self.api, self.principal, id)?;
        if !self.principal.is_for(&app.id) || app.life != Life::Alive {
            let gone = format!("there is no app {id}");
            return Err(Refusal::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", gone));
        }
        Ok(self.api.machine.repository_of_images(&app.id))
    }

    async fn catalog(&self) -> Answer {
        let hosted = self.api.machine.hosted_images();
        let names = blocking(move || hosted.names()).await?;
        let visible = names.into_iter().filter(|name| {
            let app = app_of(name);
            app.is_some_and(|app| {
                self.principal.is_for(&app) && find_app(self.api, self.principal, &app).is_ok()
            })
        });
        let (page, next) = self.query.page(visible, "/v2/_catalog");
        Ok(listed(next, &json!({ "repositories": page })))
    }

    async fn tags(&self, app: &AppId) -> Answer {
        let repository = self.repository(app)?;
        let there = repository.clone();
        let tags = blocking(move || there.tags()).await?;
        if tags.is_empty() && !repository.exists() {
            return Err(Refusal::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "nothing was pushed to it yet"));
        }
        let name = short(app);
        let (page, next) = self.query.page(tags.into_iter(), &format!("/v2/{name}/tags/list"));
        Ok(listed(next, &json!({ "name": name, "tags": page })))
    }

    async fn blob(&self, app: &AppId, digest: Digest) -> Answer {
        let repository = self.repository(app)?;
        let found = blocking(move || repository.blob(&digest)).await?;
        let unknown = || Refusal::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", format!("there is no {digest}"));
        let (file, length) = found.ok_or_else(unknown)?;
        let range = self.headers.get(RANGE).and_then(|value| value.to_str().ok());
        let (status, first, count) = match range.map(|range| part(range, length)) {
            None | Some(Some(None)) => (StatusCode::OK, 0, length),
            Some(Some(Some((first, last)))) => (StatusCode::PARTIAL_CONTENT, first, last - first + 1),
            Some(None) => {
                let why = format!("the blob has {length} bytes");
                return Err(Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID", why));
            }
        };
        let body = if self.head { Body::empty() } else { sent(file, first, count) };
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_LENGTH, count.into());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(DIGEST, text(&digest.to_string()));
        if status == StatusCode::PARTIAL_CONTENT {
            headers.insert(CONTENT_RANGE, text(&format!("bytes {first}-{}/{length}", first + count - 1)));
        }
        Ok(response)
    }

    /// Begins an upload; is done at once where all is sent with it, or another repository has the blob.
    async fn begin(&self, app: &AppId, body: Body) -> Answer {
        let repository = self.repository(app)?;
        if let (Some(mount), Some(from)) = (self.query.digest("mount")?, self.query.get("from")) {
            // From where one may not see there is nothing to be had, and nothing to be learnt.
            let from = app_of(from).and_then(|from| self.repository(&from).ok());
            let there = repository.clone();
            let mounted = match from {
                Some(from) => blocking(move || there.mount(&from, &mount)).await?,
                None => false,
            };
            if mounted {
                return Ok(made(app, "blobs", &mount));
            }
        }
        let digest = self.query.digest("digest")?;
        let id = hex::encode(random_bytes::<16>(&*self.api.clock));
        let name = id.clone();
        let Some(digest) = digest else {
            blocking(move || repository.begin(&name)).await?;
            return Ok(under_way(StatusCode::ACCEPTED, app, &id, 0));
        };
        let upload = blocking(move || {
            repository.begin(&name)?;
            Ok(repository.upload(&name)?.at_once())
        });
        let upload = receive(upload.await?, body).await?;
        blocking(move || upload.finish(&digest)).await?;
        Ok(made(app, "blobs", &digest))
    }

    async fn progress(&self, app: &AppId, id: String) -> Answer {
        let (repository, name) = (self.repository(app)?, id.clone());
        let length = blocking(move || repository.upload(&name).map(|upload| upload.length())).await?;
        Ok(under_way(StatusCode::NO_CONTENT, app, &id, length))
    }

    /// The upload that a request goes on with, where it begins where the last one ended.
    async fn upload(&self, app: &AppId, id: &str) -> Result<Upload, Refusal> {
        let (repository, name) = (self.repository(app)?, id.to_owned());
        let offset = match self.headers.get(CONTENT_RANGE).map(|value| value.to_str()) {
            None => None,
            Some(range) => {
                let first = range.ok().and_then(|range| range.split_once('-')?.0.trim().parse::<u64>().ok());
                let wrong = || {
                    Refusal::new(StatusCode::BAD_REQUEST, "SIZE_INVALID", "Content-Range is FIRST-LAST here")
                };
                Some(first.ok_or_else(wrong)?)
            }
        };
        blocking(move || {
            let upload = repository.upload(&name)?;
            offset.map_or(Ok(()), |offset| upload.begins_at(offset))?;
            Ok(upload)
        })
        .await
    }

    async fn piece(&self, app: &AppId, id: String, body: Body) -> Answer {
        let upload = receive(self.upload(app, &id).await?, body).await?;
        Ok(under_way(StatusCode::ACCEPTED, app, &id, upload.length()))
    }

    async fn finish(&self, app: &AppId, id: String, body: Body) -> Answer {
        let missing =
            || Refusal::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", "the digest of the upload is missing");
        let digest = self.query.digest("digest")?.ok_or_else(missing)?;
        let upload = receive(self.upload(app, &id).await?, body).await?;
        blocking(move || upload.finish(&digest)).await?;
        Ok(made(app, "blobs", &digest))
    }

    async fn cancel(&self, app: &AppId, id: String) -> Answer {
        let repository = self.repository(app)?;
        blocking(move || repository.upload(&id)?.cancel()).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    }

    async fn manifest(&self, app: &AppId, named: Named) -> Answer {
        let repository = self.repository(app)?;
        let wanted = named.clone();
        let held = blocking(move || repository.manifest(&wanted)).await?;
        let unknown = || {
            let name = match &named {
                Named::Tag(tag) => tag.clone(),
                Named::Digest(digest) => digest.to_string(),
            };
            Refusal::new(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", format!("there is no {name}"))
        };
        let held = held.ok_or_else(unknown)?;
        let length = held.bytes.len();
        let body = if self.head { Body::empty() } else { Body::from(held.bytes) };
        let mut response = body.into_response();
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
        response.headers_mut().insert(CONTENT_TYPE, text(&held.media_type));
        response.headers_mut().insert(DIGEST, text(&held.digest.to_string()));
        Ok(response)
    }

    async fn put_manifest(&self, app: &AppId, named: Named, body: Body) -> Answer {
        let repository = self.repository(app)?;
        let most = usize::try_from(MANIFEST_MAX).unwrap_or(usize::MAX);
        let read = tokio::time::timeout(SILENCE, axum::body::to_bytes(body, most)).await;
        let bytes: Bytes = read.ok().and_then(Result::ok).ok_or_else(|| {
            let why = format!("a manifest has {} MiB at most, and comes at once", MANIFEST_MAX >> 20);
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", why)
        })?;
        let kind = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let kind = kind.to_owned();
        let digest = blocking(move || repository.put_manifest(&named, &kind, &bytes)).await?;
        Ok(made(app, "manifests", &digest))
    }

    async fn untag(&self, app: &AppId, tag: String) -> Answer {
        let repository = self.repository(app)?;
        let gone = blocking(move || repository.untag(&tag)).await?;
        if gone {
            return Ok(StatusCode::ACCEPTED.into_response());
        }
        Err(Refusal::new(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "there is no such tag"))
    }
}

/// Does what waits for the disk where it does not hold up others.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HostedError> + Send + 'static,
) -> Result<T, Refusal> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(_panicked) => Err(Refusal::internal("the registry failed")),
    }
}

/// Adds a body to an upload as it comes, in bounded memory. What came of one that breaks off stays, to be gone on with.
async fn receive(mut upload: Upload, body: Body) -> Result<Upload, Refusal> {
    let mut parts = body.into_data_stream();
    let mut gathered = Vec::new();
    loop {
        let late = |_elapsed| {
            let why = format!("nothing was sent for {} s", SILENCE.as_secs());
            Refusal::new(StatusCode::REQUEST_TIMEOUT, "BLOB_UPLOAD_INVALID", why)
        };
        let part = tokio::time::timeout(SILENCE, parts.next()).await.map_err(late)?;
        let over = part.is_none();
        let broken = match part {
            Some(Ok(bytes)) => {
                gathered.extend_from_slice(&bytes);
                false
            }
            Some(Err(_)) => true,
            None => false,
        };
        if gathered.len() >= PIECE || ((over || broken) && !gathered.is_empty()) {
            let bytes = std::mem::take(&mut gathered);
            upload = blocking(move || {
                upload.append(&bytes)?;
                Ok(upload)
            })
            .await?;
        }
        if broken {
            let why = "the request broke off";
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", why));
        }
        if over {
            return Ok(upload);
        }
    }
}

/// A part of a file as a body.
fn sent(file: File, first: u64, count: u64) -> Body {
    let pieces = futures_util::stream::unfold((file, first, count), |(mut file, first, left)| async move {
        if left == 0 {
            return None;
        }
        let length = left.min(PIECE as u64);
        let read = tokio::task::spawn_blocking(move || {
            file.seek(SeekFrom::Start(first))?;
            let mut piece = vec![0; usize::try_from(length).unwrap_or(PIECE)];
            file.read_exact(&mut piece)?;
            Ok::<_, std::io::Error>((file, Bytes::from(piece)))
        });
        match read.await.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            Ok((file, piece)) => Some((Ok(piece), (file, first + length, left - length))),
            // The client sees that the body ends too early.
            Err(error) => {
                tracing::error!(%error, "a blob cannot be read");
                None
            }
        }
    });
    Body::from_stream(pieces.map(|piece: std::io::Result<Bytes>| piece))
}

/// The first and last byte that a `Range` asks for; within it nothing when it is of a form that may be passed over (RFC 9110, 14.2), and
/// nothing at all when it lies beyond the end.
fn part(range: &str, length: u64) -> Option<Option<(u64, u64)>> {
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Some(None);
    };
    let end = length.checked_sub(1);
    let (first, last) = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if last < first => return Some(None),
        (Ok(first), Ok(last)) => (first, end?.min(last)),
        (Ok(first), Err(_)) if last.is_empty() => (first, end?),
        (Err(_), Ok(count)) if first.is_empty() => (length.saturating_sub(count), end.filter(|_| count > 0)?),
        _ => return Some(None),
    };
    (first <= last).then_some(Some((first, last)))
}

fn made(app: &AppId, what: &str, digest: &Digest) -> Response {
    let location = format!("/v2/{}/{what}/{digest}", short(app));
    (StatusCode::CREATED, [(LOCATION, text(&location)), (DIGEST, text(&digest.to_string()))]).into_response()
}

fn under_way(status: StatusCode, app: &AppId, id: &str, length: u64) -> Response {
    let location = format!("/v2/{}/blobs/uploads/{id}", short(app));
    let range = format!("0-{}", length.saturating_sub(1));
    let headers = [(LOCATION, text(&location)), (UPLOAD_ID, text(id)), (RANGE, text(&range))];
    (status, headers).into_response()
}

fn listed(next: Option<String>, list: &serde_json::Value) -> Response {
    let mut response = Json(list).into_response();
    if let Some(next) = next {
        response.headers_mut().insert(LINK, text(&format!("<{next}>; rel=\"next\"")));
    }
    response
}

fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).expect("names, digests and numbers are visible ASCII")
}

/// The parameters of an address, as they were sent: what is looked for among them needs no encoding but that of the colon in a digest.
struct Query(Vec<(String, String)>);

impl Query {
    fn read(query: &str) -> Self {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let plain =
            |text: &str| text.replace("%3A", ":").replace("%3a", ":").replace("%2F", "/").replace("%2f", "/");
        Self(pairs.map(|(name, value)| (name.to_owned(), plain(value))).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn digest(&self, name: &str) -> Result<Option<Digest>, Refusal> {
        let invalid = |_invalid| super::address::NoAddress::Digest.into();
        self.get(name).map(|digest| digest.parse().map_err(invalid)).transpose()
    }

    /// The names behind `last`, `n` of them, and where the next ones are.
    fn page(&self, names: impl Iterator<Item = String>, path: &str) -> (Vec<String>, Option<String>) {
        let count = self.get("n").and_then(|count| count.parse().ok()).unwrap_or(PAGE).min(PAGE);
        let last = self.get("last").unwrap_or_default();
        let mut names = names.filter(|name| name.as_str() > last);
        let page: Vec<String> = names.by_ref().take(count).collect();
        let more = names.next().is_some();
        let next = page.last().filter(|_| more).map(|last| format!("{path}?n={count}&last={last}"));
        (page, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_the_rfc() {
        let table = [
            ("bytes=0-3", Some(Some((0, 3)))),
            ("bytes=8-", Some(Some((8, 9)))),
            ("bytes=-4", Some(Some((6, 9)))),
            ("bytes=5-100", Some(Some((5, 9)))),
            ("bytes=10-", None),
            ("bytes=-0", None),
            ("bytes=4-3", Some(None)),
            ("bytes=0-1,3-4", Some(None)),
            ("lines=0-3", Some(None)),
        ];
        for (range, expected) in table {
            assert_eq!(part(range, 10), expected, "{range}");
        }
        assert_eq!(part("bytes=0-", 0), None);
    }

    #[test]
    fn lists_come_in_pages() {
        let names = || ["a", "b", "c"].map(str::to_owned).into_iter();
        let page = |query: &str| Query::read(query).page(names(), "/v2/x");
        assert_eq!(page(""), (vec!["a".into(), "b".into(), "c".into()], None));
        assert_eq!(page("n=2"), (vec!["a".into(), "b".into()], Some("/v2/x?n=2&last=b".into())));
        assert_eq!(page("n=2&last=b"), (vec!["c".into()], None));
        assert_eq!(page("n=0"), (vec![], None));
    }
}
