//! `docs/benchmarks.md`: all records as tables.

use std::fmt::Write as _;

use super::budget;
use super::record::{Figure, Record};

const HEAD: &str = "# Benchmarks

<!-- Written by `cargo xtask bench` from docs/benchmarks/*.json; edit those by measuring again. -->

Each table is one run on one machine; peers were measured in the same run. The budget is what we aim for, and the table says where we stand, also
where that is not there yet. A percentile is given only where enough was measured for it (a p99 from 100 measurements on), else the maximum, named so.
";

pub(super) fn render(records: &[Record]) -> String {
    let mut page = HEAD.to_owned();
    for record in records {
        render_record(&mut page, record).expect("a String takes everything");
    }
    page
}

fn render_record(page: &mut String, record: &Record) -> std::fmt::Result {
    let Record { name, date, commit, machine, quick, figures, absent, notes } = record;
    let flag = if *quick { " --quick" } else { "" };
    writeln!(page, "\n## {name}\n")?;
    writeln!(page, "`cargo xtask bench {name}{flag}` on {date}, commit {commit}, {machine}.\n")?;
    writeln!(page, "| figure | value | unit | n | budget | | peers |")?;
    writeln!(page, "|---|---:|---|---:|---|---|---|")?;
    for (key, figure) in figures {
        let budget = budget::of(name, key);
        let words = budget.map(budget::Budget::words).unwrap_or_default();
        let verdict = match budget.map(|budget| budget.holds(figure)) {
            None => "",
            Some(None) => "peer absent",
            Some(Some(true)) => "kept",
            Some(Some(false)) => "**missed**",
        };
        let Figure { value, unit, n, .. } = figure;
        writeln!(page, "| `{key}` | {value} | {unit} | {n} | {words} | {verdict} | {} |", peers(figure))?;
    }
    if !absent.is_empty() {
        writeln!(page, "\nNot there, so not measured: {}.", absent.join(", "))?;
    }
    if !notes.is_empty() {
        writeln!(page)?;
    }
    for note in notes {
        writeln!(page, "- {note}")?;
    }
    Ok(())
}

/// Each peer's value, and ours as a multiple of it.
fn peers(figure: &Figure) -> String {
    let one = |(name, value): (&String, &f64)| {
        if *value > 0.0 {
            format!("{name}: {value} ({:.2} x)", figure.value / value)
        } else {
            format!("{name}: {value}")
        }
    };
    figure.peer.iter().map(one).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_record_becomes_a_table() {
        let edge = Figure {
            value: 9.0,
            unit: "us".to_owned(),
            n: 3,
            peer: BTreeMap::from([("nginx 1.22".to_owned(), 10.0)]),
        };
        let slow = Figure { value: 1_500.5, unit: "ms".to_owned(), n: 30, peer: BTreeMap::new() };
        let record = Record {
            name: "edge".to_owned(),
            date: "2026-01-31".to_owned(),
            commit: "abc".to_owned(),
            machine: "a machine".to_owned(),
            quick: true,
            figures: BTreeMap::from([
                ("plain_us".to_owned(), edge),
                ("idle_conn_kib".to_owned(), slow.clone()),
                ("other_ms".to_owned(), slow),
            ]),
            absent: vec!["haproxy".to_owned()],
            notes: vec!["a note".to_owned()],
        };
        let page = render(std::slice::from_ref(&record));
        for line in [
            "`cargo xtask bench edge --quick` on 2026-01-31, commit abc, a machine.",
            "| `plain_us` | 9 | us | 3 | at most 1 x nginx | kept | nginx 1.22: 10 (0.90 x) |",
            "| `other_ms` | 1500.5 | ms | 30 |  |  |  |",
            "| `idle_conn_kib` | 1500.5 | ms | 30 | at most 6 | **missed** |  |",
            "Not there, so not measured: haproxy.",
            "- a note",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
        let read: Record = serde_json::from_str(&record.to_json().unwrap()).unwrap();
        assert_eq!(read, record);
    }
}
