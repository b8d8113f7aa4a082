//! `deploy.resources` and what it was called before: how much of the machine an instance of a service may take.

use berth_spec::manifest::Resources;

use super::Reader;
use super::node::Node;

/// What is written in `deploy.resources`.
pub(super) fn read(reader: &mut Reader<'_>, full: &str, value: &Node, resources: &mut Resources) {
    if !reader.is_table(full, value) {
        return;
    }
    for (key, value) in value.entries() {
        let full = format!("{full}.{key}");
        match key {
            "limits" => {
                for (key, value) in value.entries() {
                    limit(reader, &format!("{full}.{key}"), key, value, resources);
                }
            }
            "reservations" if value.get("devices").is_some() => {
                reader.refuse(value, &full, "no app is given a device");
            }
            "reservations" => {
                reader.tell(value, &full, "nothing is reserved: an instance takes what is there")
            }
            _ => reader.refuse(value, &full, "not known here"),
        }
    }
}

/// One limit.
pub(super) fn limit(reader: &mut Reader<'_>, full: &str, key: &str, value: &Node, resources: &mut Resources) {
    let Some(text) = reader.text(value) else { return };
    let before = *resources;
    let is_read = match key {
        // Docker takes either for no limit.
        _ if ["-1", "0"].contains(&text.as_str()) => return,
        "mem_limit" | "memory" => {
            resources.memory = bytes(&text);
            resources.memory.is_some()
        }
        "cpus" => {
            resources.cpu_millis = cpu_millis(&text);
            resources.cpu_millis.is_some()
        }
        "pids_limit" | "pids" => {
            resources.processes = text.parse().ok();
            resources.processes.is_some()
        }
        _ => return reader.refuse(value, full, "not known here"),
    };
    let changed = |before: Option<u64>, now: Option<u64>| before.is_some() && before != now;
    if !is_read {
        reader.refuse(value, full, &format!("{text:?} is no limit that can be read"));
    } else if changed(before.memory, resources.memory)
        || changed(before.cpu_millis.map(u64::from), resources.cpu_millis.map(u64::from))
        || changed(before.processes, resources.processes)
    {
        reader.refuse(value, full, "another limit is said elsewhere in the service: leave one out");
    }
}

/// `512m`, `1.5gb`, `300000`: Docker's units, each 1,024 times the one before.
fn bytes(text: &str) -> Option<u64> {
    let text = text.to_ascii_lowercase();
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = text.strip_suffix(unit)?;
    let unit = match unit.trim().trim_end_matches("ib").trim_end_matches('b') {
        "" => "",
        "k" => "Ki",
        "m" => "Mi",
        "g" => "Gi",
        "t" => "Ti",
        _ => return None,
    };
    format!("{number}{unit}").parse().ok().map(|bytes: berth_spec::Bytes| bytes.0)
}

/// Thousandths of a processor.
fn cpu_millis(text: &str) -> Option<u32> {
    let processors = text.parse::<f64>().ok().filter(|it| (0.001..=8_192.0).contains(it))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 1 and 8,192,000")]
    Some((processors * 1_000.0).round() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_dockers() {
        for (text, expected) in [
            ("512m", Some(512 << 20)),
            ("1.5gb", Some(3 << 29)),
            ("64K", Some(64 << 10)),
            ("300000", Some(300_000)),
            ("300000b", Some(300_000)),
            ("1GiB", Some(1 << 30)),
            ("lots", None),
            ("5x", None),
            ("", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
        assert_eq!(cpu_millis("0.5"), Some(500));
        assert_eq!(cpu_millis("-1"), None);
    }
}
