//! Who drops what instances send, and the command that lets them out, in words for an operator.

use std::fs;

use super::LINK_PREFIX;

/// Whether ufw is switched on, which iptables of the old kind hides from nft.
pub(super) fn has_ufw() -> bool {
    let conf = fs::read_to_string("/etc/ufw/ufw.conf").unwrap_or_default();
    conf.lines().any(|line| line.trim() == "ENABLED=yes")
}

/// What to say when something that is sent is dropped, in view of all that nft lists. What already speaks of our interfaces is not accused.
pub(super) fn told(ruleset: &str, has_ufw: bool) -> String {
    let ours = format!("\"{LINK_PREFIX}*\"");
    let silent: Vec<Table<'_>> = tables(ruleset).filter(|table| !table.text.contains(&ours)).collect();
    let any = |what: &str| silent.iter().any(|table| table.text.contains(what));
    let of_iptables = if any("chain ufw-") || (has_ufw && !any("chain DOCKER-USER")) {
        Some(format!("ufw drops what instances send; `ufw route allow in on {LINK_PREFIX}+` lets them out"))
    } else if any("chain DOCKER-USER") {
        Some(format!(
            "Docker has had the machine drop what instances send; `iptables -I DOCKER-USER -i {LINK_PREFIX}+ -j ACCEPT` and `iptables -I DOCKER-USER \
             -o {LINK_PREFIX}+ -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT` let them out until the machine starts again"
        ))
    } else {
        None
    };
    let of_firewalld = silent.iter().any(|table| table.name.ends_with(" firewalld")).then(|| {
        format!(
            "firewalld refuses what instances send; `firewall-cmd --permanent --zone=trusted --add-interface={LINK_PREFIX}+` and `firewall-cmd \
             --reload` let them out"
        )
    });
    let known: Vec<String> = of_firewalld.into_iter().chain(of_iptables).collect();
    if !known.is_empty() {
        return known.join("; ");
    }
    let chains: Vec<String> = silent.iter().flat_map(Table::forward_chains).collect();
    let who = match chains.as_slice() {
        [] => "rules that nft does not list (`iptables-legacy -S FORWARD` may)".to_owned(),
        chains => format!("the packet filter's {}", chains.join(", ")),
    };
    format!(
        "{who} drop what instances send; they are let out by rules there that accept what comes in by interfaces {LINK_PREFIX}*, and what goes out by \
         these and belongs to it"
    )
}

/// A table as nft lists it.
struct Table<'a> {
    name: &'a str,
    text: &'a str,
}

impl Table<'_> {
    /// The chains that are asked about what is passed on.
    fn forward_chains(&self) -> Vec<String> {
        let mut chain = "";
        let mut found = Vec::new();
        for line in self.text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix("chain ").and_then(|rest| rest.strip_suffix(" {")) {
                chain = name;
            } else if line.starts_with("type filter hook forward") {
                found.push(format!("{} {chain}", self.name));
            }
        }
        found
    }
}

/// The tables that are listed, without those of platforms.
fn tables(ruleset: &str) -> impl Iterator<Item = Table<'_>> {
    let parts = ruleset.split("\ntable ").map(|part| part.strip_prefix("table ").unwrap_or(part));
    let tables = parts.filter_map(|text| Some(Table { name: text.split_once(" {")?.0, text }));
    tables.filter(|table| !table.name.contains(" berth_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "table inet berth_x {\n\tchain forward {\n\t\ttype filter hook forward priority mangle; policy accept;\n\t\tiifname != \
                        \"bv*\" accept\n\t}\n}\n";
    const UFW: &str = "\tchain ufw-user-forward {\n\t}\n";
    const DOCKER: &str = "\tchain DOCKER-USER {\n\t\tcounter return\n\t}\n";

    fn filter(chains: &[&str]) -> String {
        let forward = "\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n";
        format!("{OURS}table ip filter {{\n{}{forward}}}\ntable inet other {{\n}}\n", chains.concat())
    }

    #[test]
    fn whoever_drops_it_is_named_with_what_helps() {
        let of = |chains: &[&str]| told(&filter(chains), false);
        assert!(of(&[UFW]).contains("`ufw route allow in on bv+`"));
        assert!(of(&[DOCKER]).contains("`iptables -I DOCKER-USER -i bv+ -j ACCEPT`"));
        // Both are in one chain, and ufw keeps what it is told.
        assert!(!of(&[UFW, DOCKER]).contains("DOCKER"));
        let nobody = of(&[]);
        assert!(nobody.starts_with("the packet filter's ip filter FORWARD drop"), "{nobody}");
        assert!(told(OURS, false).starts_with("rules that nft does not list"));
        assert!(told(OURS, true).starts_with("ufw drops"));
    }

    #[test]
    fn who_already_lets_instances_out_is_not_accused() {
        let firewalld = |rule: &str| {
            let chain = "\tchain filter_FORWARD {\n\t\ttype filter hook forward priority filter + 10; policy accept;\n";
            format!("{}table inet firewalld {{\n{chain}{rule}\t}}\n}}\n", filter(&[DOCKER]))
        };
        let both = told(&firewalld(""), false);
        assert!(both.contains("--add-interface=bv+") && both.contains("DOCKER-USER"), "{both}");
        let one = told(&firewalld("\t\tiifname \"bv*\" goto filter_FWD_trusted\n"), false);
        assert!(!one.contains("firewall-cmd") && one.contains("DOCKER-USER"), "{one}");
    }
}
