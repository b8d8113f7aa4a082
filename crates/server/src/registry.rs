//! The registry that apps' images are pushed to: the OCI distribution protocol below `/v2/`, on the API's port.
//!
//! Every app has one repository, `APP` or `TENANT/PROJECT/APP`. Who may see an app may pull and push there with a token as the password.
//! Nothing is shared between repositories but what is mounted by somebody who may see both.

mod address;
pub(crate) mod http;
mod refusal;

use std::net::SocketAddr;

use berth_image::Reference;

pub(crate) use address::app_of;
pub(crate) use refusal::challenge;

/// Whether an image is in the registry at `own`. By that very address alone: whoever is asked is shown a pass, and at another address of
/// loopback, or where `localhost` leads, any user of the machine may listen.
pub(crate) fn is_own(reference: &Reference, own: SocketAddr) -> bool {
    reference.registry().parse() == Ok(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_registry_is_known_by_its_address_and_no_pass_goes_elsewhere() {
        let own: SocketAddr = "127.0.0.1:7070".parse().unwrap();
        let is = |name: &str| is_own(&name.parse().unwrap(), own);
        assert!(is("127.0.0.1:7070/shop") && is("127.0.0.1:7070/a/b/shop:1"));
        for other in ["127.0.0.2:7070/shop", "localhost:7070/shop", "127.0.0.1:5000/shop", "shop"] {
            assert!(!is(other), "{other}");
        }
    }
}
