//! The registry that apps' images are pushed to: the OCI distribution protocol below `/v2/`, on the API's port.
//!
//! Every app has one repository, `APP` or `TENANT/PROJECT/APP`. Who may see an app may pull and push there with a token as the password.
//! Nothing is shared between repositories but what is mounted by somebody who may see both.

mod address;
pub(crate) mod http;
mod refusal;

use std::net::{IpAddr, SocketAddr};

use berth_image::Reference;

pub(crate) use address::app_of;
pub(crate) use refusal::challenge;

/// Whether an image is in the registry at `own`, by whichever of this machine's names.
pub(crate) fn is_own(reference: &Reference, own: SocketAddr) -> bool {
    let Some((host, port)) = reference.registry().rsplit_once(':') else { return false };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let here = host == "localhost" || host.parse().is_ok_and(|it: IpAddr| it.is_loopback() || it == own.ip());
    here && port.parse() == Ok(own.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_registry_is_known_by_all_its_names() {
        let own: SocketAddr = "127.0.0.1:7070".parse().unwrap();
        let is = |name: &str| is_own(&name.parse().unwrap(), own);
        assert!(is("127.0.0.1:7070/shop") && is("localhost:7070/a/b/shop:1") && is("127.0.0.2:7070/shop"));
        assert!(!is("127.0.0.1:5000/shop") && !is("shop") && !is("registry.example.com:7070/shop"));
    }
}
