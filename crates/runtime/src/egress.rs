//! The way out of instances' own networks. As root it is a pair of interfaces and the machine's packet filter ([`pair`]); for an ordinary user it is
//! a program of that user's at the other end of an interface ([`slirp`]).

mod attempt;
mod filter;
mod firewall;
mod guard;
mod nftables;
mod pair;
mod rules;
mod slirp;

pub(crate) use self::pair::Pair;
pub use self::rules::resolv_conf;
pub(crate) use self::slirp::Slirp;

/// What the names of the interfaces here begin with; the rest is from the instance's token.
const LINK_PREFIX: &str = "bv";
/// What those begin with over which it is tried whether anything gets out. No token has such digits.
const TRY_PREFIX: &str = "bvtry";
/// What nobody on the machine's networks is at: a range for the measurement of routers (RFC 2544), which no network uses for anything. The
/// lower half has the addresses of instances; the upper one is within their networks alone, for the names of apps and for gateways.
const POOL: &str = "198.18.0.0/15";

/// The way out that instances have here.
#[derive(Debug)]
pub(crate) enum WayOut {
    /// As root.
    Pair(Pair),
    /// As an ordinary user.
    Slirp(Slirp),
}
