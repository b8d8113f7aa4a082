//! What may leave an instance's network, as rules of the machine's packet filter.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;

use super::{LINK_PREFIX, POOL, TRY_PREFIX};

/// Counts what is sent over an interface for a try, once our own rules let it pass.
pub(super) const TRIED: &str = "tried";
/// Counts what of it everybody else's rules let pass, too.
pub(super) const PASSED: &str = "passed";

/// Addresses that nothing sends to: those that mean this machine, the services that tell a cloud's machine its secrets (on link-local addresses and,
/// at Alibaba, Azure and Oracle, on others), other instances, and what is no single machine.
pub(super) const BLOCKED: [&str; 9] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.0/24",
    POOL,
    "224.0.0.0/4",
    "240.0.0.0/4",
];

/// The table of the platform. What an app must not reach refuses at once, so that it does not wait for what never comes. It is the same, whatever was there before: one transaction makes it, empties it and fills it.
///
/// That a chain accepts what is passed on ends that chain alone: those of other tables are asked, too, and any of them may drop it. What a try
/// sends is counted before them and after them, and dropped in the end. It is dropped in a chain of its own, so that another platform's has counted it by then.
pub(super) fn table(name: &str, resolvers: &BTreeSet<Ipv4Addr>) -> String {
    let blocked = BLOCKED.join(", ");
    let removal = removal(name);
    let ours = format!("iifname \"{LINK_PREFIX}*\"");
    let of_a_try = format!("iifname \"{TRY_PREFIX}*\"");
    let mut dns = String::new();
    if !resolvers.is_empty() {
        let resolvers: Vec<String> = resolvers.iter().map(ToString::to_string).collect();
        let to = format!("ip daddr {{ {} }} meta l4proto {{ tcp, udp }} th dport 53", resolvers.join(", "));
        // Though the resolver may be this machine, or at an address that is blocked.
        writeln!(dns, "    {ours} {to} accept").expect("text is written to memory");
    }
    format!(
        "{removal}table inet {name} {{
  counter {TRIED} {{
    packets 0 bytes 0
  }}
  counter {PASSED} {{
    packets 0 bytes 0
  }}
  chain input {{
    type filter hook input priority mangle; policy accept;
{dns}    {ours} reject with icmpx admin-prohibited
  }}
  chain forward {{
    type filter hook forward priority mangle; policy accept;
    oifname \"{LINK_PREFIX}*\" ct state established,related accept
    oifname \"{LINK_PREFIX}*\" drop
    iifname != \"{LINK_PREFIX}*\" accept
    tcp flags syn tcp option maxseg size set rt mtu
{dns}    meta nfproto ipv6 reject with icmpx admin-prohibited
    ip saddr != {POOL} drop
    ip daddr {{ {blocked} }} reject with icmpx admin-prohibited
    {of_a_try} counter name {TRIED}
  }}
  chain last {{
    type filter hook forward priority 1000; policy accept;
    {of_a_try} counter name {PASSED}
  }}
  chain nowhere {{
    type filter hook forward priority 1001; policy accept;
    {of_a_try} drop
  }}
  chain leave {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {POOL} oifname != \"{LINK_PREFIX}*\" masquerade
  }}
}}
"
    )
}

/// Removes the table, whether it is there or not.
pub(super) fn removal(name: &str) -> String {
    format!("table inet {name} {{}}\ndelete table inet {name}\n")
}

/// The text of the `resolv.conf` that an instance shall have: the machine's, without the resolvers that listen at the machine's loopback, where the
/// instance does not get to. Where systemd's resolver is one of these, those that it asks itself take its place.
#[must_use]
pub fn resolv_conf() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let text = read("/etc/resolv.conf");
    if nameservers(&text).is_empty() { without_loopback(&read(SYSTEMD)) } else { without_loopback(&text) }
}

/// What systemd's resolver asks.
const SYSTEMD: &str = "/run/systemd/resolve/resolv.conf";

fn without_loopback(text: &str) -> String {
    let kept = text.lines().filter(|line| !is_nameserver(line) || !nameservers(line).is_empty());
    kept.map(|line| format!("{line}\n")).collect()
}

fn is_nameserver(line: &str) -> bool {
    line.split_ascii_whitespace().next() == Some("nameserver")
}

/// The resolvers in the text of a `resolv.conf` that an instance can get to.
pub(super) fn nameservers(text: &str) -> BTreeSet<Ipv4Addr> {
    let lines = text.lines().filter(|line| is_nameserver(line));
    let addresses = lines.filter_map(|line| line.split_ascii_whitespace().nth(1)?.parse::<Ipv4Addr>().ok());
    addresses.filter(|address| !address.is_loopback() && !address.is_unspecified()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_at_loopback_are_left_out() {
        let text = "# made by hand\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nnameserver ::1\nsearch example.com\noptions edns0\n";
        assert_eq!(nameservers(text), [Ipv4Addr::new(10, 0, 0, 2)].into());
        let kept = "# made by hand\nnameserver 10.0.0.2\nsearch example.com\noptions edns0\n";
        assert_eq!(without_loopback(text), kept);
        assert_eq!(nameservers("nameserver x\nnameserver\nnameservers 1.1.1.1"), BTreeSet::new());
    }

    #[test]
    fn dns_is_allowed_before_anything_is_blocked() {
        let text = table("berth_x", &[Ipv4Addr::new(169, 254, 169, 254)].into());
        let at = |needle: &str| text.find(needle).unwrap();
        assert!(at("dport 53") < at("reject"));
        assert!(text.rfind("dport 53").unwrap() < at("169.254.0.0/16"));
        assert!(!table("berth_x", &BTreeSet::new()).contains("dport"));
    }
}
