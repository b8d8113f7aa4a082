//! The `/etc/hosts` of an instance, which says where the apps of its project are, and is kept true while the instance lives.
//!
//! Every resolver of names reads it, before any other place and anew at each question; none of ours has to be there, or to be found, for it.
//! The app reads it at any moment, so that no line in it is ever half of one: what comes is appended, and what goes, or comes back, is
//! changed in one byte.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::net::Ipv4Addr;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use berth_routing::names::{DOMAIN, Project};
use berth_spec::AppName;
use berth_spec::manifest::Alias;

/// What marks a line as one that does not count, in the place of the first digit of an address.
const OFF: u8 = b'#';

/// What an instance of that host name finds before any app is named.
pub(crate) fn own(hostname: &str) -> String {
    format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback {hostname}\n")
}

/// The lines that name the apps of `project`, which the instance also calls by `aliases`.
pub(crate) fn lines(project: &Project, aliases: &BTreeMap<Alias, AppName>) -> BTreeSet<String> {
    let line = |(app, address): (&AppName, &Ipv4Addr)| {
        let mut line = format!("{address}\t{app}.{DOMAIN}");
        for (alias, _) in aliases.iter().filter(|(_, meant)| *meant == app) {
            line.push(' ');
            line.push_str(alias.as_str());
        }
        line
    };
    project.apps.iter().map(line).collect()
}

/// Has the file at `path` name what `wanted` says. What does not name an app in it is left as it is.
///
/// # Errors
/// What the system says.
pub(crate) fn update(path: &Path, wanted: &BTreeSet<String>) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let mut missing: BTreeSet<&String> = wanted.iter().collect();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let bare = line.trim_end_matches('\n');
        // Every address of an app begins with the same digit.
        let (counts, named) = match bare.strip_prefix(char::from(OFF)) {
            Some(rest) => (false, format!("1{rest}")),
            None => (true, bare.to_owned()),
        };
        let is_wanted = missing.remove(&named);
        if is_wanted && !counts {
            file.write_all_at(b"1", at)?;
        } else if counts && !is_wanted && is_apps(bare) {
            file.write_all_at(&[OFF], at)?;
        }
        at += line.len() as u64;
    }
    let more: String = missing.into_iter().map(|line| format!("{line}\n")).collect();
    file.write_all_at(more.as_bytes(), at)
}

fn is_apps(line: &str) -> bool {
    let address = line.split('\t').next().and_then(|address| address.parse::<Ipv4Addr>().ok());
    address.is_some_and(|address| !address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(texts: &[&str]) -> BTreeSet<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn what_comes_and_goes_changes_no_other_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        std::fs::write(&path, own("web-7")).unwrap();
        let (api, db) = ("198.19.0.1\tapi.internal", "198.19.0.2\tdb.internal db");
        let read = || std::fs::read_to_string(&path).unwrap();
        update(&path, &lines_of(&[api])).unwrap();
        assert_eq!(read(), format!("{}{api}\n", own("web-7")));
        let before = read();
        update(&path, &lines_of(&[api, db])).unwrap();
        assert_eq!(read(), format!("{before}{db}\n"), "what comes is appended");
        update(&path, &lines_of(&[db])).unwrap();
        assert_eq!(read(), format!("{}#98.19.0.1\tapi.internal\n{db}\n", own("web-7")));
        update(&path, &lines_of(&[api, db])).unwrap();
        assert_eq!(read(), format!("{before}{db}\n"), "what comes back is at its place");
        let now = read();
        update(&path, &lines_of(&[api, db])).unwrap();
        assert_eq!(read(), now);
    }

    #[test]
    fn an_alias_stands_beside_the_name_of_its_app() {
        let app = |name: &str| AppName::new(name).unwrap();
        let address = |last| Ipv4Addr::new(198, 19, 0, last);
        let apps = [(app("shop-db"), address(1)), (app("shop-web"), address(2))].into();
        let project = Project { apps, ports: BTreeSet::new() };
        let aliases = [("db", "shop-db"), ("database", "shop-db"), ("gone", "shop-gone")];
        let aliases = aliases.map(|(alias, app)| (alias.parse().unwrap(), AppName::new(app).unwrap())).into();
        let expected = ["198.19.0.1\tshop-db.internal database db", "198.19.0.2\tshop-web.internal"];
        assert_eq!(lines(&project, &aliases), lines_of(&expected));
    }
}
