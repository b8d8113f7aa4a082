//! The name that somebody probably meant.

/// Of `candidates` the one that is most like `wanted`, if one is like it: a slip or two of the finger away.
#[must_use]
pub fn nearest<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Half of a short name changed is another name.
    let most = (wanted.chars().count() / 3).min(2);
    let alike = |candidate: &&str| candidate.len().abs_diff(wanted.len()) <= most + 1;
    let best = candidates.into_iter().filter(alike).map(|it| (distance(wanted, it), it)).min()?;
    // What is there under its very name was not mistyped.
    (1..=most).contains(&best.0).then_some(best.1)
}

/// How many letters have to be added, left out, changed or swapped with their neighbour (optimal string alignment).
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for row in 1..=one.len() {
        let mut current = vec![row; other.len() + 1];
        for column in 1..=other.len() {
            let changed = usize::from(one[row - 1] != other[column - 1]);
            let least = (last[column] + 1).min(current[column - 1] + 1).min(last[column - 1] + changed);
            let swapped = row > 1
                && column > 1
                && one[row - 1] == other[column - 2]
                && one[row - 2] == other[column - 1];
            current[column] = if swapped { least.min(before_last[column - 2] + 1) } else { least };
        }
        before_last = std::mem::replace(&mut last, current);
    }
    last[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_other_names_are_not() {
        let names = ["gunicorn", "python3", "node", "uvicorn", "ls", "server"];
        for (wanted, found) in [
            ("gunicron", Some("gunicorn")),
            ("gunicorn", None),
            ("uvicron", Some("uvicorn")),
            ("pyhton3", Some("python3")),
            ("nod", Some("node")),
            ("sever", Some("server")),
            ("ps", None),
            ("", None),
            ("rails", None),
        ] {
            assert_eq!(nearest(wanted, names), found, "{wanted}");
        }
    }
}
