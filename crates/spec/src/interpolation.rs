//! Variables in a text, as Compose has them put in.

/// So deep defaults may stand in one another.
const DEPTH_MAX: usize = 8;

/// `text` with `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME-default}`, `${NAME:+instead}`, `${NAME+instead}`, `${NAME:?why}`, `${NAME?why}` and `$$`
/// put in; there may be variables in a default, too.
///
/// # Errors
/// What is wrong with it, or which variable is not set: Compose would put nothing there, and say so where nobody looks.
pub fn interpolated(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    within(text, variable, DEPTH_MAX)
}

fn within(text: &str, variable: &dyn Fn(&str) -> Option<String>, depth: usize) -> Result<String, String> {
    let depth = depth.checked_sub(1).ok_or("defaults stand in one another too deep")?;
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        rest = if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            after
        } else if let Some(after) = after.strip_prefix('{') {
            let (inner, after) = braced(after).ok_or("a ${ has no }")?;
            let end = inner.find(|c: char| !is_name(c)).unwrap_or(inner.len());
            let (name, rule) = inner.split_at(end);
            out.push_str(&chosen(name, rule, variable, depth)?);
            after
        } else {
            let end = after.find(|c: char| !is_name(c)).unwrap_or(after.len());
            let (name, after) = after.split_at(end);
            if name.is_empty() {
                return Err("a $ that stands for itself is written $$".to_owned());
            }
            out.push_str(&chosen(name, "", variable, depth)?);
            after
        };
    }
    out.push_str(rest);
    Ok(out)
}

/// What stands before the brace that closes, and what behind it.
fn braced(text: &str) -> Option<(&str, &str)> {
    let mut open = 1_usize;
    let mut before = '\0';
    for (at, c) in text.char_indices() {
        match c {
            '{' if before == '$' => open += 1,
            '}' if open == 1 => return Some((text.get(..at)?, text.get(at + 1..)?)),
            '}' => open -= 1,
            _ => {}
        }
        before = c;
    }
    None
}

fn chosen(
    name: &str,
    rule: &str,
    variable: &dyn Fn(&str) -> Option<String>,
    depth: usize,
) -> Result<String, String> {
    let value = variable(name);
    let given = value.clone().filter(|value| !value.is_empty());
    let missing = |why: &str| {
        Err(if why.is_empty() { format!("{name} is not set") } else { format!("{name} is not set: {why}") })
    };
    let put_in = |text: &str| within(text, variable, depth);
    if name.is_empty() {
        return Err("a ${} names no variable".to_owned());
    }
    let (of_given, rule_left) = match rule.strip_prefix(':') {
        Some(rest) => (true, rest),
        None => (false, rule),
    };
    let value = if of_given { given } else { value };
    match (rule_left.get(..1), rule_left.get(1..).unwrap_or_default()) {
        (Some("-"), default) => value.map_or_else(|| put_in(default), Ok),
        (Some("+"), instead) => value.map_or(Ok(String::new()), |_| put_in(instead)),
        (Some("?"), why) => value.map_or_else(|| missing(why), Ok),
        (None, _) if !of_given => value.map_or_else(|| missing("set it in the environment or in .env"), Ok),
        _ => Err(format!("${{{name}{rule}}} is not known here")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_put_in_as_compose_does() {
        let set = |name: &str| match name {
            "A" => Some("a".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        for (text, expected) in [
            ("x$A.${A}$$A", Some("xa.a$A")),
            ("${NONE:-d}${NONE-e}${EMPTY:-f}${EMPTY-g}", Some("def")),
            ("${A:?must}", Some("a")),
            ("${A:-${NONE}}|${NONE:-${A}}|${NONE-x${NONE:-${EMPTY:-y}}z}", Some("a|a|xyz")),
            ("${A:+b}${A+c}${EMPTY:+d}${EMPTY+e}${NONE+f}", Some("bce")),
            ("${NONE:?must}", None),
            ("${NONE:-${NONE}}", None),
            ("${NONE}", None),
            ("${A", None),
            ("${A:-${A}", None),
            ("$", None),
            ("${}", None),
            ("${A/b}", None),
            ("${A:}", None),
        ] {
            assert_eq!(interpolated(text, &set).ok().as_deref(), expected, "{text}");
        }
        let deep = format!("{}x{}", "${N:-".repeat(10_000), "}".repeat(10_000));
        assert!(interpolated(&deep, &set).is_err());
    }
}
