//! What a path below `/git/` asks for.

use axum::http::Method;
use berth_control::route::DEFAULT_NAME;
use berth_spec::{AppId, AppName};

/// What git's own programs are called that serve a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    /// Clone and fetch.
    UploadPack,
    /// Push.
    ReceivePack,
}

impl Service {
    /// The name as git writes it in queries and media types.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::UploadPack => "git-upload-pack",
            Self::ReceivePack => "git-receive-pack",
        }
    }

    /// The verb of the program.
    pub(super) const fn verb(self) -> &'static str {
        match self {
            Self::UploadPack => "upload-pack",
            Self::ReceivePack => "receive-pack",
        }
    }

    fn of_name(name: &str) -> Option<Self> {
        [Self::UploadPack, Self::ReceivePack].into_iter().find(|service| service.name() == name)
    }
}

/// A repository, and what is asked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// Whose.
    pub(super) app: AppId,
    /// By which service.
    pub(super) service: Service,
    /// Whether it is the question which branches there are.
    pub(super) advertise: bool,
}

/// Why a path asks for nothing that there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoAddress {
    /// It names no repository.
    Unknown,
    /// It is of the protocol that reads files, which needs no program and knows no rights.
    Dumb,
}

impl Address {
    /// Reads the path and the query of a request. Names hold nothing that a path would encode, so nothing is decoded.
    pub(super) fn read(method: &Method, path: &str, query: Option<&str>) -> Result<Self, NoAddress> {
        let path = path.strip_prefix("/git/").ok_or(NoAddress::Unknown)?;
        if let Some(repository) = path.strip_suffix("/info/refs") {
            let app = app(repository).ok_or(NoAddress::Unknown)?;
            let service = query.and_then(|query| query.strip_prefix("service="));
            let service = service.and_then(Service::of_name).ok_or(NoAddress::Dumb)?;
            return if method == Method::GET {
                Ok(Self { app, service, advertise: true })
            } else {
                Err(NoAddress::Unknown)
            };
        }
        let (repository, last) = path.rsplit_once('/').ok_or(NoAddress::Unknown)?;
        match Service::of_name(last) {
            Some(service) if method == Method::POST => {
                Ok(Self { app: app(repository).ok_or(NoAddress::Unknown)?, service, advertise: false })
            }
            _ => Err(NoAddress::Unknown),
        }
    }
}

/// The app and the id of a webhook: `/hooks/APP/ID`, `/hooks/TENANT/PROJECT/APP/ID`.
pub(super) fn hook(path: &str) -> Option<(AppId, String)> {
    let (of, hook) = path.strip_prefix("/hooks/")?.rsplit_once('/')?;
    let plain = hook.len() == 16 && hook.bytes().all(|byte| byte.is_ascii_hexdigit());
    Some((app(of).filter(|_| plain && !of.ends_with(".git"))?, hook.to_owned()))
}

/// `shop`, `shop.git`, `acme/shops/shop.git`.
fn app(repository: &str) -> Option<AppId> {
    let repository = repository.strip_suffix(".git").unwrap_or(repository);
    match repository.split_once('/') {
        Some(_) => repository.parse().ok(),
        None => {
            let app: AppName = repository.parse().ok()?;
            let name = "a constant is a name";
            Some(AppId {
                tenant: DEFAULT_NAME.parse().expect(name),
                project: DEFAULT_NAME.parse().expect(name),
                app,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str) -> Result<String, NoAddress> {
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let method = if path.ends_with("/refs") { Method::GET } else { Method::POST };
        Address::read(&method, path, query)
            .map(|it| format!("{} {} {}", it.app, it.service.verb(), it.advertise))
    }

    #[test]
    fn repositories_are_known_by_their_short_and_their_whole_names() {
        let short = read("/git/shop.git/info/refs?service=git-upload-pack").unwrap();
        assert_eq!(short, "default/default/shop upload-pack true");
        assert_eq!(read("/git/shop/git-receive-pack").unwrap(), "default/default/shop receive-pack false");
        assert_eq!(
            read("/git/acme/web/shop.git/git-upload-pack").unwrap(),
            "acme/web/shop upload-pack false"
        );
    }

    #[test]
    fn hostile_paths_name_nothing() {
        for path in [
            "/git/../shop.git/git-receive-pack",
            "/git/..%2fshop.git/git-receive-pack",
            "/git/.git/git-receive-pack",
            "/git//git-receive-pack",
            "/git/Shop.git/git-receive-pack",
            "/git/--upload-pack=x/git-receive-pack",
            "/git/a/b/git-receive-pack",
            "/git/a/b/c/d/git-receive-pack",
            "/git/a/b/../git-receive-pack",
            "/git/shop.git/git-receive-pack/",
            "/git/shop.git/git-shell",
            "/git/shop\n.git/git-receive-pack",
            "/git/shop.git.git/git-receive-pack",
            "/git/shop.git/HEAD",
            "/git/shop.git/objects/info/packs",
        ] {
            assert_eq!(read(path), Err(NoAddress::Unknown), "{path}");
        }
        assert!(hook("/hooks/shop/0f9a1c2e3b4d5f60").is_some());
        assert!(hook("/hooks/acme/web/shop/0f9a1c2e3b4d5f60").is_some());
        for path in [
            "/hooks/shop",
            "/hooks/shop/",
            "/hooks/../0f9a1c2e3b4d5f60",
            "/hooks/shop/0f9a1c2e3b4d5f6%30",
            "/hooks/shop/..",
            "/hooks/a/b/0f9a1c2e3b4d5f60",
        ] {
            assert_eq!(hook(path), None, "{path}");
        }
        for query in ["", "?", "?service=", "?service=git-shell", "?service=git-upload-pack&x=y"] {
            assert_eq!(read(&format!("/git/shop.git/info/refs{query}")), Err(NoAddress::Dumb), "{query}");
        }
        assert!(Address::read(&Method::GET, "/git/shop.git/git-receive-pack", None).is_err());
    }
}
