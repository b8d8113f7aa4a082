//! Whether an installed version of a tool is one that the source asks for.
//!
//! Every language writes its wishes in its own way; what they have in common is read here: `20`, `v22.1.0`, `>=18 <21`, `^8.1 || ^9`,
//! `~> 3.2`, `>=3.9,<4`, `20.x`, `18 - 20`, `lts/*`, `stable`. Pure, so that what is chosen can be shown before anything is built.

use crate::recipe::{Tool, Wanted};

/// The most parts of a version that are compared.
const PARTS_MAX: usize = 4;
/// The longest wish that is read, in bytes; a longer one fits nothing.
const WISH_MAX: usize = 512;
/// The names of Node's long-term releases, with their major versions.
const NODE_LINES: [(&str, u64); 11] = [
    ("argon", 4),
    ("boron", 6),
    ("carbon", 8),
    ("dubnium", 10),
    ("erbium", 12),
    ("fermium", 14),
    ("gallium", 16),
    ("hydrogen", 18),
    ("iron", 20),
    ("jod", 22),
    ("krypton", 24),
];
/// What may stand before the number of a version.
const PREFIXES: [&str; 11] =
    ["v", "go", "python-", "ruby-", "node-", "nodejs-", "php-", "jdk-", "openjdk-", "temurin-", "elixir-"];

/// The version that was chosen for a wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice<'v> {
    /// It.
    pub version: &'v str,
    /// Whether it is what was asked for; else it is the nearest there is, and the difference is to be told.
    pub fits: bool,
}

impl Wanted {
    /// Whether `installed`, a version as the tool itself gives it, is what is asked for. A wish that cannot be read takes nothing.
    #[must_use]
    pub fn takes(&self, tool: Tool, installed: &str) -> bool {
        takes(tool, &self.version, installed)
    }

    /// The newest of the `installed` versions that is asked for, else the one nearest to it; none when none is installed.
    #[must_use]
    pub fn choose<'v>(&self, tool: Tool, installed: impl IntoIterator<Item = &'v str>) -> Option<Choice<'v>> {
        let asked = first_number(&self.version).map(|at| numbers(tool, at));
        let nearness = |version: &str| {
            let parts = parts(tool, version).unwrap_or_default();
            let shared = asked.iter().flatten().zip(&parts).take_while(|(asked, part)| asked == part);
            (self.takes(tool, version), shared.count(), parts)
        };
        let version = installed.into_iter().max_by_key(|version| nearness(version))?;
        Some(Choice { version, fits: self.takes(tool, version) })
    }
}

fn takes(tool: Tool, wish: &str, installed: &str) -> bool {
    let wish = wish.trim();
    if wish.len() > WISH_MAX {
        return false;
    }
    if let Some(fits) = by_name(tool, wish, installed) {
        return fits;
    }
    let Some(have) = parts(tool, installed) else {
        return false;
    };
    wish.split('|').filter(|range| !range.is_empty()).any(|range| in_range(tool, range, &have) == Some(true))
}

/// Wishes by name rather than number; nothing when `wish` is none of them.
fn by_name(tool: Tool, wish: &str, installed: &str) -> Option<bool> {
    let unstable = ["nightly", "beta"].into_iter().find(|channel| installed.contains(channel));
    if tool == Tool::Rust
        && let Some(channel) = ["stable", "beta", "nightly"].into_iter().find(|name| wish.starts_with(name))
    {
        // A nightly of a certain day cannot be told from its version number alone.
        return Some(
            unstable.unwrap_or("stable") == channel && (wish == channel || installed.contains(wish)),
        );
    }
    match wish {
        "" | "*" | "x" | "X" | "stable" | "latest" | "current" | "node" | "default" | "system" => Some(true),
        "lts" => by_name(tool, "lts/*", installed),
        _ => {
            let line = wish.strip_prefix("lts/").or_else(|| wish.strip_prefix("lts-"))?.to_ascii_lowercase();
            let major = *parts(tool, installed)?.first()?;
            let named = NODE_LINES.iter().find(|(name, _)| *name == line);
            // Every even major becomes a long-term one.
            Some(named.map_or(line.starts_with(['*', '-']) && major % 2 == 0, |(_, its)| *its == major))
        }
    }
}

/// Whether `have` fulfils all that is said in `range`; nothing when it cannot be read.
fn in_range(tool: Tool, range: &str, have: &[u64]) -> Option<bool> {
    if let Some((low, high)) = range.split_once(" - ") {
        let low = compare(tool, ">=", low.trim(), have)?;
        return Some(low && compare(tool, "<=", high.trim(), have)?);
    }
    let mut operator = "";
    let mut fits = None;
    for word in range.split([' ', ',', '\t']).filter(|word| !word.is_empty()) {
        let at = word.find(|c: char| !"<>=!~^".contains(c)).unwrap_or(word.len());
        let (signs, number) = word.split_at(at);
        if !signs.is_empty() {
            operator = signs;
        }
        if !number.is_empty() {
            fits = Some(fits.unwrap_or(true) & compare(tool, operator, number, have)?);
            operator = "";
        }
    }
    if operator.is_empty() { fits } else { None }
}

/// Whether `have` stands in the relation `operator` to `number`.
fn compare(tool: Tool, operator: &str, number: &str, have: &[u64]) -> Option<bool> {
    let given = parts(tool, number)?;
    let starts = |length: usize| have.iter().copied().chain(std::iter::repeat(0)).take(length);
    let order = have.iter().copied().chain(std::iter::repeat(0)).take(PARTS_MAX).cmp(padded(&given));
    // Elsewhere `>18` begins right after 18.0.0, with npm's ranges after all of 18.
    let npm = matches!(tool, Tool::Node | Tool::Pnpm | Tool::Yarn | Tool::Bun | Tool::Deno);
    let prefix = starts(given.len()).eq(given.iter().copied());
    let below = |bumped: usize| {
        let raised = given.get(bumped)?.checked_add(1)?;
        let limit = given.iter().copied().take(bumped).chain([raised]).collect::<Vec<u64>>();
        Some(order.is_ge() && starts(limit.len()).lt(limit.iter().copied()))
    };
    let pessimistic = given.len().saturating_sub(2);
    match operator {
        "" | "=" | "==" | "===" => Some(prefix),
        "!=" => Some(!prefix),
        ">=" => Some(order.is_ge()),
        ">" => Some(order.is_gt() && !(npm && prefix)),
        "<" => Some(order.is_lt()),
        "<=" => Some(order.is_le() || (npm && prefix)),
        _ if given.is_empty() => Some(true),
        "^" => below(given.iter().position(|part| *part != 0).unwrap_or(given.len() - 1)),
        "~" if tool != Tool::Php => below(1.min(given.len() - 1)),
        "~" | "~>" | "~=" => below(pessimistic),
        _ => None,
    }
}

fn padded(given: &[u64]) -> impl Iterator<Item = u64> {
    given.iter().copied().chain(std::iter::repeat(0)).take(PARTS_MAX)
}

/// The parts of a version up to a wildcard: none for `*`, `[20]` for `20.x`; nothing when it is none.
fn parts(tool: Tool, version: &str) -> Option<Vec<u64>> {
    let bare = PREFIXES.iter().find_map(|prefix| version.strip_prefix(prefix)).unwrap_or(version);
    let begins = bare.starts_with(|c: char| c.is_ascii_digit()) || matches!(bare, "*" | "x" | "X");
    begins.then(|| numbers(tool, bare))
}

fn numbers(tool: Tool, text: &str) -> Vec<u64> {
    let mut found = Vec::new();
    for part in text.split('.').take(PARTS_MAX) {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        let (digits, rest) = part.split_at(end);
        match digits.parse() {
            Ok(number) => found.push(number),
            Err(_) => break,
        }
        // `1.95.0-nightly`, `8.0_382`: what follows a number ends the version.
        if !rest.is_empty() {
            break;
        }
    }
    // Java was called 1.8 before it was called 9.
    if tool == Tool::Java && found.first() == Some(&1) && found.len() > 1 {
        found.remove(0);
    }
    found
}

fn first_number(text: &str) -> Option<&str> {
    text.find(|c: char| c.is_ascii_digit()).and_then(|at| text.get(at..))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wanted(version: &str) -> Wanted {
        Wanted { version: version.to_owned(), by: ".nvmrc".to_owned() }
    }

    #[test]
    fn wishes_are_read_as_their_languages_write_them() {
        let table: &[(Tool, &str, &str, &str)] = &[
            // tool, wish, versions that fit, versions that do not
            (Tool::Node, "20", "20.0.0 v20.19.2", "2.0.0 19.9.9 21.0.0 200.0.0"),
            (Tool::Node, "v22.1.0", "22.1.0 v22.1.0", "22.1.1 22.0.0"),
            (Tool::Node, ">=18", "18.0.0 20.1.1", "17.9.9"),
            (Tool::Node, ">= 18 < 21", "18.0.0 20.99.0", "21.0.0 17.0.0"),
            (Tool::Node, ">18", "19.0.0", "18.0.0 18.9.0"),
            (Tool::Node, "<=18", "18.9.0 17.0.0", "19.0.0"),
            (Tool::Node, "^18.12.0 || >=20.9", "18.12.0 18.20.0 20.9.0 22.0.0", "18.11.0 19.0.0 20.8.9"),
            (Tool::Node, "^0.10", "0.10.5", "0.11.0 1.0.0"),
            (Tool::Node, "~20.1", "20.1.9", "20.2.0 20.0.9"),
            (Tool::Node, "~20", "20.9.0", "21.0.0"),
            (Tool::Node, "18 - 20", "18.0.0 20.9.9", "17.0.0 21.0.0"),
            (Tool::Node, "20.x", "20.1.0", "21.0.0"),
            (Tool::Node, "*", "1.0.0 20.0.0", ""),
            (Tool::Node, "lts/*", "20.1.0 22.0.0", "21.0.0"),
            (Tool::Node, "lts/iron", "20.1.0", "22.0.0"),
            (Tool::Node, "lts/nobody", "", "20.1.0"),
            (Tool::Node, "garbage", "", "20.1.0"),
            (Tool::Node, ">=", "", "20.1.0"),
            (Tool::Python, "3.12", "3.12.0 3.12.9", "3.1.2 3.13.0"),
            (Tool::Python, "python-3.11.9", "3.11.9", "3.11.2"),
            (Tool::Python, ">=3.9,<4.0", "3.9.0 3.13.1", "3.8.9 4.0.0"),
            (Tool::Python, ">=3.9, !=3.9.1", "3.9.2", "3.9.1"),
            (Tool::Python, "~=3.9", "3.9.0 3.13.0", "4.0.0 3.8.0"),
            (Tool::Python, ">3.9", "3.9.1 3.10.0", "3.9.0"),
            (Tool::Python, "==3.11.*", "3.11.4", "3.12.0"),
            (Tool::Python, "pypy3.9-7.3", "", "3.9.0"),
            (Tool::Ruby, "~> 3.2.1", "3.2.1 3.2.9", "3.3.0 3.2.0"),
            (Tool::Ruby, "~> 3.2", "3.2.0 3.9.0", "4.0.0"),
            (Tool::Ruby, "ruby-3.1.2", "3.1.2p20", "3.1.3"),
            (Tool::Php, "^8.1|^7.4", "8.2.0 7.4.33", "8.0.0 7.3.0 9.0.0"),
            (Tool::Php, "~8.1", "8.1.0 8.3.0", "9.0.0"),
            (Tool::Php, "8.*", "8.2.28", "7.4.0"),
            (Tool::Go, ">=1.22", "go1.22.3 1.23.0", "go1.19.8"),
            (Tool::Java, ">=17", "17.0.12 21.0.1", "1.8.0_382 11.0.1"),
            (Tool::Java, "1.8", "1.8.0_382 8.0.1", "17.0.1"),
            (Tool::Java, "temurin-17", "17.0.12", "21.0.0"),
            (Tool::Rust, "stable", "1.95.0", "1.96.0-nightly"),
            (Tool::Rust, "nightly", "1.96.0-nightly", "1.95.0"),
            (Tool::Rust, "1.80", "1.80.1", "1.95.0"),
        ];
        for (tool, wish, fit, other) in table {
            let check = |versions: &str, expected: bool| {
                for version in versions.split_whitespace() {
                    assert_eq!(wanted(wish).takes(*tool, version), expected, "{tool:?} {wish:?} {version}");
                }
            };
            check(fit, true);
            check(other, false);
        }
    }

    #[test]
    fn the_newest_that_fits_is_chosen_and_else_the_nearest() {
        let installed = ["3.8.20", "3.11.2", "3.12.9", "3.13.3"];
        let choose = |wish: &str| {
            let choice = wanted(wish).choose(Tool::Python, installed).unwrap();
            (choice.version, choice.fits)
        };
        assert_eq!(choose(">=3.9"), ("3.13.3", true));
        assert_eq!(choose("3.12"), ("3.12.9", true));
        assert_eq!(choose("3.11.9"), ("3.11.2", false));
        assert_eq!(choose("3.10"), ("3.13.3", false));
        assert_eq!(choose("2.7"), ("3.13.3", false));
        assert_eq!(wanted("3").choose(Tool::Python, []), None);
    }

    proptest! {
        #[test]
        fn a_version_is_what_it_asks_for(a in 0_u64..99, b in 0_u64..99, c in 0_u64..99) {
            let version = format!("{a}.{b}.{c}");
            for tool in [Tool::Node, Tool::Python, Tool::Php, Tool::Ruby, Tool::Go] {
                for wish in ["", "=", "==", ">=", "<=", "^", "~", "~>", "~="] {
                    prop_assert!(wanted(&format!("{wish}{version}")).takes(tool, &version), "{} {}", wish, version);
                }
                for wish in [">", "<", "!="] {
                    prop_assert!(!wanted(&format!("{wish}{version}")).takes(tool, &version), "{} {}", wish, version);
                }
                let wish = format!("{a}.{b}");
                prop_assert!(wanted(&wish).takes(tool, &version));
            }
        }

        #[test]
        fn a_caret_stays_below_the_next_breaking_version(
            a in 1_u64..50, b in 0_u64..50, c in 0_u64..50, x in 0_u64..60, y in 0_u64..60, z in 0_u64..60,
        ) {
            let (wish, have) = (format!("^{a}.{b}.{c}"), format!("{x}.{y}.{z}"));
            prop_assert_eq!(wanted(&wish).takes(Tool::Node, &have), x == a && (y, z) >= (b, c));
        }

        #[test]
        fn either_side_of_a_bar_is_enough(a in 0_u64..30, b in 0_u64..30, have in 0_u64..30) {
            let wish = format!("{a} || >={b}");
            prop_assert_eq!(wanted(&wish).takes(Tool::Node, &format!("{have}.1.0")), have == a || have >= b);
        }

        #[test]
        fn any_text_is_a_wish_that_fits_or_not(
            wish in any::<String>(), odd in "[v0-9.x*<>=!~^| ,-]{0,12}", installed in any::<String>(),
        ) {
            for tool in [Tool::Node, Tool::Rust, Tool::Java, Tool::Php] {
                for wish in [&wish, &odd] {
                    let _fits = wanted(wish).takes(tool, &installed);
                    let _fits = wanted(wish).takes(tool, "20.1.2");
                    let _choice = wanted(wish).choose(tool, [installed.as_str(), "1.2.3", "20"]);
                }
            }
        }
    }
}
