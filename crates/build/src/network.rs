//! Which variables of the platform's own environment builds find in theirs: those that say how a network is reached from this machine.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, UdpSocket};

/// The variables; docs/environment.md lists them. They name proxies, mirrors and certificates, and hold no password unless somebody wrote
/// one into an address.
pub const HANDED_ON: [&str; 24] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "npm_config_registry",
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_CERT",
    "UV_INDEX_URL",
    "GOPROXY",
    "GOSUMDB",
    "CARGO_HTTP_CAINFO",
    "BUNDLE_MIRROR__ALL",
    "COMPOSER_REPO_PACKAGIST",
    "MAVEN_OPTS",
];

/// Those of them that are set here.
#[must_use]
pub fn handed_on() -> BTreeMap<String, String> {
    let set = HANDED_ON.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
    set.filter(|(_, value)| !value.is_empty()).collect()
}

/// Settings of the machine's that say, as the variables do, where packages are found.
const SETTINGS: [&str; 3] = ["/etc/npmrc", "/etc/pip.conf", "/etc/gitconfig"];

/// Which of the addresses that builds are told to find a network by is this machine's own, and so out of reach from any network but the
/// machine's: `HTTPS_PROXY leads to 127.0.0.1, which is this machine`. `env` are the variables that are handed on.
#[must_use]
pub fn leads_here(env: &BTreeMap<String, String>) -> Option<String> {
    let settings = SETTINGS.iter().filter_map(|path| Some((*path, fs::read_to_string(path).ok()?)));
    let variables = env.iter().map(|(name, value)| (name.as_str(), value.clone()));
    let names = fs::read_to_string("/etc/hosts").unwrap_or_default();
    let own = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    variables.chain(settings).find_map(|(name, text)| {
        let here = hosts(name, &text).into_iter().find(|host| is_here(host, own.trim(), &names))?;
        Some(format!("{name} leads to {here}, which is this machine"))
    })
}

/// The hosts in the setting `name`.
fn hosts(name: &str, text: &str) -> Vec<String> {
    let is_proxy = name.to_ascii_uppercase().ends_with("_PROXY");
    if name.eq_ignore_ascii_case("NO_PROXY") {
        return Vec::new();
    }
    let mut authorities: Vec<&str> = text.split("://").skip(1).collect();
    if is_proxy && authorities.is_empty() {
        authorities.push(text);
    }
    let of_java =
        text.split_whitespace().filter_map(|word| word.split_once("proxyHost=").map(|(_, host)| host));
    authorities.extend(of_java);
    authorities.into_iter().filter_map(host).collect()
}

/// The host at the beginning of what follows a scheme.
pub(crate) fn host(rest: &str) -> Option<String> {
    let authority = rest.split(|c: char| "/?#\"',|<>".contains(c) || c.is_whitespace()).next()?;
    let address = authority.rsplit('@').next()?;
    let host = match address.strip_prefix('[') {
        Some(inner) => inner.split(']').next()?,
        None => address.split(':').next()?,
    };
    Some(host.to_ascii_lowercase()).filter(|host| !host.is_empty())
}

/// Whether a host is this machine, which is called `own` and whose names of others are `names`, the text of `/etc/hosts`. Nobody is asked:
/// to wait for an answer at every start would be worse than to miss one.
fn is_here(host: &str, own: &str, names: &str) -> bool {
    if host == "localhost" || host.ends_with(".localhost") || host.eq_ignore_ascii_case(own) {
        return true;
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        return is_ours(address);
    }
    let lines = names.lines().filter_map(|line| line.split('#').next());
    let mut known = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        let address: IpAddr = words.next()?.parse().ok()?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
    });
    known.any(is_ours)
}

/// Whether an address is one of this machine's: only such a one can be bound to.
fn is_ours(address: IpAddr) -> bool {
    address.is_loopback() || address.is_unspecified() || UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found_in_whatever_names_them() {
        let table: [(&str, &str, &[&str]); 9] = [
            ("HTTPS_PROXY", "http://user:p@ss@127.0.0.1:3128/", &["127.0.0.1"]),
            ("https_proxy", "proxy.lan:3128", &["proxy.lan"]),
            ("NO_PROXY", "localhost,127.0.0.1", &[]),
            ("GOPROXY", "https://goproxy.lan|http://[::1]:3000,direct", &["goproxy.lan", "::1"]),
            ("PIP_EXTRA_INDEX_URL", "https://a.lan/simple http://B.lan/simple", &["a.lan", "b.lan"]),
            ("SSL_CERT_FILE", "/etc/ssl/x.crt", &[]),
            ("MAVEN_OPTS", "-Xmx1g -Dhttps.proxyHost=localhost -Dhttps.proxyPort=1", &["localhost"]),
            ("/etc/pip.conf", "[global]\nindex-url = http://mirror:8080/simple\n", &["mirror"]),
            ("COMPOSER_REPO_PACKAGIST", "{\"url\": \"https://c.lan\"}", &["c.lan"]),
        ];
        for (name, text, expected) in table {
            assert_eq!(hosts(name, text), expected, "{name}={text}");
        }
    }

    #[test]
    fn this_machine_is_known_by_its_names_and_addresses() {
        let names = "127.0.0.1 localhost\n127.0.1.1 box # me\n192.0.2.77 mirror cache.lan\n";
        for here in ["localhost", "api.localhost", "127.9.9.9", "::1", "0.0.0.0", "box", "BOX2"] {
            assert!(is_here(&here.to_ascii_lowercase(), "box2", names), "{here}");
        }
        for elsewhere in ["192.0.2.77", "mirror", "registry.npmjs.org", "2001:db8::1", "localhost.lan"] {
            assert!(!is_here(elsewhere, "box2", names), "{elsewhere}");
        }
    }

    #[test]
    fn it_is_said_which_setting_leads_here() {
        let env = |value: &str| BTreeMap::from([("npm_config_registry".to_owned(), value.to_owned())]);
        let said = leads_here(&env("http://localhost:4873/")).unwrap();
        assert_eq!(said, "npm_config_registry leads to localhost, which is this machine");
        let away = leads_here(&env("https://registry.example.org/"));
        assert!(away.is_none_or(|said| !said.contains("registry.example.org")));
    }
}
