//! `docs/apps.md`: the record as a table.

use std::fmt::Write as _;

use super::record::{Measured, Record, Row};
use super::sample::Untried;

const HEAD: &str = "# Sample apps

<!-- Written by `cargo xtask apps` from docs/apps.json; edit it by running the samples again. -->

What frameworks' own generators make, and small apps by hand, each taken unaided all the way on a platform of its own: detected, built, served, then deployed
again after a one-line change while a strict client sends 50 requests a second, of which none may fail. The table of how each is made is
[xtask/apps](../xtask/apps); `cargo xtask apps NAME` runs one, and CI runs a dozen.

- *cold* is the seconds from `berth deploy` to the first right answer through edge, with empty caches; *warm* the same after the change, under load.
- *bare* is the same by the tool's own commands, such as `npm ci && npm run build` and its server, in the same run: with empty caches, and once more after the change.
- *sent* is what the change sent; *artifact* what the first release takes on disk, *added* what the second added: files that are the same are shared by hard links,
  directories cannot be.

Rows of commits 21fd375 and 5b617bd were taken by a release build with every instance in the sandbox, most of them on a quiet machine; older ones by a debug build before there was a
sandbox, while up to ten other builds ran. What is in one row may be compared, and no more than that. A row's commit is in [apps.json](apps.json).
";

pub(super) fn render(record: &Record, untried: &[Untried]) -> String {
    let mut page = HEAD.to_owned();
    write_page(&mut page, record, untried).expect("a String takes everything");
    page
}

fn write_page(page: &mut String, record: &Record, untried: &[Untried]) -> std::fmt::Result {
    let served = record.rows.values().filter(|row| row.problem.is_none()).count();
    writeln!(page, "\n{served} of {} samples came all the way, on {}.\n", record.rows.len(), record.machine)?;
    writeln!(
        page,
        "| sample | what | detected as | | cold s (bare) | warm s (bare) | requests | sent | artifact | added |"
    )?;
    writeln!(page, "|---|---|---|---|---:|---:|---:|---:|---:|---:|")?;
    for (name, row) in &record.rows {
        let Row { what, builder, problem, measured, .. } = row;
        let Measured { cold_s, warm_s, bare_cold_s, bare_warm_s, .. } = measured;
        let verdict = if problem.is_some() { "**failed**" } else { "served" };
        writeln!(
            page,
            "| `{name}` | {what} | {builder} | {verdict} | {} | {} | {} | {} | {} | {} |",
            with_peer(*cold_s, *bare_cold_s),
            with_peer(*warm_s, *bare_warm_s),
            requests(measured),
            size(measured.sent_bytes),
            size(measured.artifact_bytes),
            size(measured.added_bytes),
        )?;
    }
    let failed: Vec<(&String, &Row)> = record.rows.iter().filter(|(_, row)| row.problem.is_some()).collect();
    if !failed.is_empty() {
        writeln!(page, "\n## What failed\n")?;
    }
    for (name, row) in failed {
        let problem = row.problem.as_deref().unwrap_or_default();
        writeln!(page, "- `{name}`: {}", problem.lines().next().unwrap_or_default().trim_end())?;
    }
    writeln!(page, "\n## What runs\n")?;
    for (name, row) in record.rows.iter().filter(|(_, row)| !row.processes.is_empty()) {
        let processes: Vec<String> =
            row.processes.iter().map(|process| format!("`{}`", process.replace('`', "'"))).collect();
        let note = if row.note.is_empty() { String::new() } else { format!(" {}", row.note) };
        writeln!(page, "- `{name}`: {}.{note}", processes.join(", "))?;
    }
    writeln!(page, "\n## What was not tried\n")?;
    for Untried { what, why } in untried {
        writeln!(page, "- {what}: {why}")?;
    }
    Ok(())
}

fn with_peer(ours: Option<f64>, peer: Option<f64>) -> String {
    match (ours, peer) {
        (None, _) => String::new(),
        (Some(ours), None) => format!("{ours:.2}"),
        (Some(ours), Some(peer)) => format!("{ours:.2} ({peer:.2})"),
    }
}

fn requests(measured: &Measured) -> String {
    match (measured.requests, measured.failed_requests) {
        (Some(sent), Some(0)) => format!("{sent}"),
        (Some(sent), Some(failed)) => format!("{sent}, **{failed} failed**"),
        _ => String::new(),
    }
}

/// In words, to three digits: `1.23 MB`.
fn size(bytes: Option<u64>) -> String {
    let Some(bytes) = bytes else { return String::new() };
    let (unit, name) = match bytes {
        0..1_000 => return format!("{bytes} B"),
        1_000..1_000_000 => (1_000, "KB"),
        1_000_000..1_000_000_000 => (1_000_000, "MB"),
        _ => (1_000_000_000, "GB"),
    };
    let (whole, tenth) = (bytes / unit, bytes % unit * 10 / unit);
    if whole >= 100 { format!("{whole} {name}") } else { format!("{whole}.{tenth} {name}") }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_row_tells_how_far_a_sample_came() {
        let measured = Measured {
            cold_s: Some(12.345),
            bare_cold_s: Some(11.0),
            sent_bytes: Some(1_234),
            requests: Some(100),
            failed_requests: Some(0),
            ..Measured::default()
        };
        let row = Row {
            what: "A thing".to_owned(),
            date: "2026-01-31".to_owned(),
            commit: "abc".to_owned(),
            builder: "node".to_owned(),
            processes: vec!["web: node server.js".to_owned()],
            problem: None,
            measured,
            note: String::new(),
        };
        let failed =
            Row { problem: Some("no\nmore".to_owned()), measured: Measured::default(), ..row.clone() };
        let rows = BTreeMap::from([("a".to_owned(), row), ("b".to_owned(), failed)]);
        let record = Record { machine: "a machine".to_owned(), rows };
        let untried = [Untried { what: "X".to_owned(), why: "no X here".to_owned() }];
        let page = render(&record, &untried);
        for line in [
            "1 of 2 samples came all the way, on a machine.",
            "| `a` | A thing | node | served | 12.35 (11.00) |  | 100 | 1.2 KB |  |  |",
            "| `b` | A thing | node | **failed** |  |  |  |  |  |  |",
            "- `b`: no",
            "- `a`: `web: node server.js`.",
            "- X: no X here",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
        let read: Record = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
        assert_eq!(read, record);
    }

    #[test]
    fn sizes_have_three_digits_at_most_before_the_point() {
        let words = [0, 999, 1_000, 12_345, 123_456_789, 5_000_000_000].map(|bytes| size(Some(bytes)));
        assert_eq!(words, ["0 B", "999 B", "1.0 KB", "12.3 KB", "123 MB", "5.0 GB"]);
    }
}
