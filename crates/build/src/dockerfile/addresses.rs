//! What a Dockerfile has the engine itself fetch. `ADD` of an address is no command of the build's: the engine gets it, in the machine's network,
//! whatever network commands have.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use berth_source::tree::Node;
use berth_source::{ChunkStore, Tree};

use super::context::Content;
use crate::error::BuildError;
use crate::network::host;

/// The longest Dockerfile that is read, in bytes.
const MAX: u64 = 4 << 20;
/// How many links one may lead over.
const LINKS: usize = 8;

/// Refuses the Dockerfile at `path` if it fetches what it must not.
pub(super) fn check(store: &ChunkStore, tree: &Tree, path: &str, offline: bool) -> Result<(), BuildError> {
    let refused = |why: String| BuildError::Outcome(format!("{path} {why}"));
    let Some(Node::File { size, chunks, .. }) = followed(tree, path) else {
        return Err(refused("is a link that leads to no file of the source".to_owned()));
    };
    if *size > MAX {
        return Err(refused(format!("is larger than {} MiB", MAX >> 20)));
    }
    let mut bytes = Vec::new();
    let read = Content::new(store, chunks).read_to_end(&mut bytes);
    read.map_err(|error| refused(format!("cannot be read: {error}")))?;
    allowed(&String::from_utf8_lossy(&bytes), offline).map_err(BuildError::Outcome)
}

/// What is at `path`, or where the links there lead.
fn followed<'a>(tree: &'a Tree, path: &str) -> Option<&'a Node> {
    let mut path = path.to_owned();
    for _link in 0..=LINKS {
        match tree.node(&path)? {
            Node::Link { target } => {
                let mut steps: Vec<&str> = path.split('/').collect();
                steps.pop();
                for step in target.split('/') {
                    match step {
                        "." | "" => {}
                        ".." => drop(steps.pop()),
                        step => steps.push(step),
                    }
                }
                path = steps.join("/");
            }
            file @ Node::File { .. } => return Some(file),
        }
    }
    None
}

/// Whether everything that `ADD` fetches may be fetched, else why not.
fn allowed(dockerfile: &str, offline: bool) -> Result<(), String> {
    for source in instructions(dockerfile).iter().flat_map(|instruction| added(instruction)) {
        // Quotes and escapes are taken away by the engine, too.
        let plain = source.replace(['"', '\'', '\\', '`'], "");
        if offline && (is_address(&plain) || plain.contains('$')) {
            return Err(format!(
                "`ADD {source}` {} an address, which the engine fetches in the machine's network, and `network = false` keeps the build from every one: have \
                 the file in the source and `COPY` it",
                if is_address(&plain) { "is" } else { "may be" }
            ));
        }
        let reached = plain.split_once("://").and_then(|(_, rest)| host(rest));
        if let Some(host) = reached.filter(|host| is_out_of_reach(host)) {
            return Err(format!(
                "`ADD {source}` would be fetched from {host}, which is the machine itself or its cloud's metadata; no build gets there"
            ));
        }
    }
    Ok(())
}

/// All that an engine may take for an instruction, a line each. Which character makes one go on in the next line the file may say, and engines do not
/// agree on what they take for that; so both are, and every line is looked at by itself, too. What is told to a command as its input looks the same.
fn instructions(dockerfile: &str) -> Vec<String> {
    let dockerfile = dockerfile.strip_prefix('\u{feff}').unwrap_or(dockerfile);
    // Comments and empty lines may stand between the lines of an instruction.
    let says = |line: &&str| !line.trim_start().is_empty() && !line.trim_start().starts_with('#');
    let lines = || dockerfile.lines().map(str::trim_end).filter(says);
    let mut found: Vec<String> = lines().map(str::to_owned).collect();
    for escape in ['\\', '`'] {
        let mut begun = String::new();
        for line in lines() {
            let part = line.strip_suffix(escape);
            begun.push_str(part.unwrap_or(line));
            if part.is_none() {
                found.push(std::mem::take(&mut begun));
            }
        }
        found.push(begun);
    }
    found
}

/// What an instruction adds, if it does; without where to.
fn added(instruction: &str) -> Vec<String> {
    let instruction = instruction.trim_start();
    let (verb, rest) = instruction.split_once(char::is_whitespace).unwrap_or((instruction, ""));
    let mut rest = rest.trim();
    if verb.eq_ignore_ascii_case("ONBUILD") {
        return added(rest);
    }
    if !verb.eq_ignore_ascii_case("ADD") {
        return Vec::new();
    }
    while rest.starts_with("--") {
        rest = rest.split_once(char::is_whitespace).map_or("", |(_flag, more)| more.trim_start());
    }
    let words = rest.split_whitespace().map(str::to_owned);
    let mut words = serde_json::from_str(rest).unwrap_or_else(|_words| words.collect::<Vec<String>>());
    words.pop();
    words
}

/// Whether an engine fetches it instead of taking it from the source.
fn is_address(source: &str) -> bool {
    source.contains("://") || ["git@", "github.com/"].iter().any(|start| source.starts_with(start))
}

/// Whether a host as it is written is the machine itself, or one of the addresses at which clouds tell a machine its secrets. A name that leads there
/// is not known before it is asked for, and a redirection not before that.
fn is_out_of_reach(host: &str) -> bool {
    const METADATA: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16)];
    const METADATA_6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    let host = host.trim_end_matches('.');
    match host.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V4(address)) => {
            let is_here = address.is_loopback() || address.octets()[0] == 0;
            is_here || address.is_link_local() || METADATA.contains(&address)
        }
        Ok(IpAddr::V6(address)) => {
            let is_here = address.is_loopback() || address.is_unspecified();
            is_here || address.is_unicast_link_local() || address == METADATA_6
        }
        // No name ends in a number: it is an address, written in one of the old ways.
        Err(_) if host.rsplit('.').next().is_some_and(is_number) => true,
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

fn is_number(label: &str) -> bool {
    let hexadecimal = label.strip_prefix("0x").unwrap_or("-");
    let is_hexadecimal = hexadecimal.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hexadecimal || (!label.is_empty() && label.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use berth_source::tree::Entry;

    use super::*;

    #[test]
    fn links_are_followed_within_the_source() {
        let link = |path: &str, target: &str| Entry {
            path: path.to_owned(),
            node: Node::Link { target: target.to_owned() },
        };
        let file = Node::File { exec: false, size: 0, chunks: Vec::new() };
        let tree = Tree::new(vec![
            link("Dockerfile", "docker/prod"),
            link("docker/prod", "../images/Dockerfile"),
            link("docker/round", "round"),
            link("lost", "nowhere"),
            Entry { path: "images/Dockerfile".to_owned(), node: file.clone() },
        ])
        .unwrap();
        for path in ["Dockerfile", "docker/prod", "images/Dockerfile"] {
            assert_eq!(followed(&tree, path), Some(&file), "{path}");
        }
        for path in ["docker/round", "lost", "none"] {
            assert_eq!(followed(&tree, path), None, "{path}");
        }
    }

    #[test]
    fn without_a_network_no_address_is_added() {
        for dockerfile in [
            "FROM scratch\nADD http://example.org/x /x",
            "add --chown=1:1 --checksum=sha256:0 https://example.org/x /x",
            "ADD [\"a\", \"https://example.org/x\", \"/x/\"]",
            "ADD \\\n  # why\n\n  a \\\n  git@example.org:a/b.git /x",
            "# escape=`\nADD `\n https://example.org/x /x",
            "RUN true \\\\\nADD https://example.org/x /x",
            "ADD --chown=1\\\n https://example.org/x /x",
            "ONBUILD ADD https://example.org/x /x",
            "ADD http:\"//\"example.org/x /x",
            "ADD $FROM /x",
            "\u{feff}ADD https://example.org/x /x",
        ] {
            let why = allowed(dockerfile, true).expect_err(dockerfile);
            assert!(why.contains("`network = false`") && why.contains("`COPY`"), "{why}");
            assert_eq!(allowed(dockerfile, false), Ok(()), "{dockerfile}");
        }
    }

    #[test]
    fn what_is_of_the_source_is_added() {
        for dockerfile in [
            "FROM scratch\nADD a b /c/",
            "# ADD http://example.org/x /x\nADD . /http://x\nADD a \\\n b \\\n /c",
            "COPY $FROM /x\nRUN echo ADD http://example.org /x",
            "",
        ] {
            assert_eq!(allowed(dockerfile, true), Ok(()), "{dockerfile}");
        }
    }

    #[test]
    fn the_machine_and_its_metadata_are_not_fetched_from() {
        for host in [
            "127.0.0.1",
            "localhost:7070",
            "api.localhost",
            "0.0.0.0",
            "169.254.169.254",
            "user:word@169.254.169.254:80",
            "[::1]",
            "[fe80::1]",
            "[fd00:ec2::254]",
            "[::ffff:169.254.169.254]",
            "100.100.100.200",
            "168.63.129.16",
            "2852039166",
            "0xa9fea9fe",
            "0251.0376.0251.0376",
            "127.1",
            "LOCALHOST.",
        ] {
            let dockerfile = format!("FROM scratch\nADD http://{host}/latest/meta-data /x");
            let why = allowed(&dockerfile, false).expect_err(host);
            assert!(why.contains("no build gets there"), "{why}");
        }
        for host in ["10.0.0.7", "example.org", "203.0.113.80:8080", "mirror.lan", "[2001:db8::1]"] {
            let dockerfile = format!("ADD https://{host}/x /x");
            assert_eq!(allowed(&dockerfile, false), Ok(()), "{host}");
        }
    }
}
