//! What a path below `/v2/` asks for.

use berth_contract::route::REGISTRY_PREFIX;
use berth_control::route::DEFAULT_NAME;
use berth_image::Digest;
use berth_image::hosted::Named;
use berth_spec::{AppId, AppName};

/// What is asked for, and of which repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// Whether this is a registry, and whether it lets one in.
    Version,
    /// Which repositories there are.
    Catalog,
    /// The tags of one.
    Tags(AppId),
    /// A blob.
    Blob(AppId, Digest),
    /// A new upload.
    Uploads(AppId),
    /// One that was begun.
    Upload(AppId, String),
    /// A manifest.
    Manifest(AppId, Named),
}

/// Why a path asks for nothing that there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoAddress {
    /// No route.
    Unknown,
    /// The name is none of an app.
    Name,
    /// The digest is none.
    Digest,
    /// It is neither a tag nor a digest.
    Reference,
}

impl Address {
    /// Reads a path. What names may hold nobody encodes, so nothing is decoded.
    pub(super) fn read(path: &str) -> Result<Self, NoAddress> {
        let path = path.strip_prefix(REGISTRY_PREFIX).ok_or(NoAddress::Unknown)?;
        match path {
            "" => return Ok(Self::Version),
            "_catalog" => return Ok(Self::Catalog),
            _ => {}
        }
        let named = |name: &str| app_of(name).ok_or(NoAddress::Name);
        if let Some(name) = path.strip_suffix("/tags/list") {
            return Ok(Self::Tags(named(name)?));
        }
        if let Some(name) =
            path.strip_suffix("/blobs/uploads").or_else(|| path.strip_suffix("/blobs/uploads/"))
        {
            return Ok(Self::Uploads(named(name)?));
        }
        let (rest, last) = path.rsplit_once('/').ok_or(NoAddress::Unknown)?;
        if let Some(name) = rest.strip_suffix("/blobs/uploads") {
            return Ok(Self::Upload(named(name)?, last.to_owned()));
        }
        if let Some(name) = rest.strip_suffix("/blobs") {
            return Ok(Self::Blob(named(name)?, last.parse().map_err(|_invalid| NoAddress::Digest)?));
        }
        if let Some(name) = rest.strip_suffix("/manifests") {
            return Ok(Self::Manifest(named(name)?, Named::read(last).ok_or(NoAddress::Reference)?));
        }
        Err(NoAddress::Unknown)
    }
}

/// The app of a repository: `shop`, `acme/shops/shop`.
pub(crate) fn app_of(repository: &str) -> Option<AppId> {
    if repository.contains('/') {
        return repository.parse().ok();
    }
    let app: AppName = repository.parse().ok()?;
    let name = "a constant is a name";
    Some(AppId { tenant: DEFAULT_NAME.parse().expect(name), project: DEFAULT_NAME.parse().expect(name), app })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_of_the_specification_are_read() {
        let shop: AppId = "default/default/shop".parse().unwrap();
        let digest = Digest::of(b"");
        let table = [
            ("", Address::Version),
            ("_catalog", Address::Catalog),
            ("shop/tags/list", Address::Tags(shop.clone())),
            ("default/default/shop/blobs/uploads/", Address::Uploads(shop.clone())),
            ("shop/blobs/uploads", Address::Uploads(shop.clone())),
            ("shop/blobs/uploads/0a", Address::Upload(shop.clone(), "0a".to_owned())),
            (&format!("shop/blobs/{digest}"), Address::Blob(shop.clone(), digest)),
            ("shop/manifests/v1.0", Address::Manifest(shop.clone(), Named::Tag("v1.0".to_owned()))),
            (&format!("shop/manifests/{digest}"), Address::Manifest(shop, Named::Digest(digest))),
        ];
        for (path, address) in table {
            assert_eq!(Address::read(&format!("/v2/{path}")), Ok(address), "{path}");
        }
    }

    #[test]
    fn others_are_not() {
        for (path, why) in [
            ("/v2", NoAddress::Unknown),
            ("/v2/shop", NoAddress::Unknown),
            ("/v2/shop/referrers/x", NoAddress::Unknown),
            ("/v2/a/b/tags/list", NoAddress::Name),
            ("/v2/../a/b/tags/list", NoAddress::Name),
            ("/v2/Shop/tags/list", NoAddress::Name),
            ("/v2/shop/blobs/sha256:xyz", NoAddress::Digest),
            ("/v2/shop/manifests/.x", NoAddress::Reference),
        ] {
            assert_eq!(Address::read(path), Err(why), "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_path_is_an_address_or_none(path in "/v2/[a-z0-9/.:_-]{0,60}") {
            drop(Address::read(&path));
        }
    }
}
