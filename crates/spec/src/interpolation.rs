//! Variables in a text, as Compose has them put in.

/// `text` with `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME-default}`, `${NAME:?why}` and `$$` put in.
///
/// # Errors
/// What is wrong with it, or which variable is not set: Compose would put nothing there, and say so where nobody looks.
pub fn interpolated(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        rest = if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            after
        } else if let Some(after) = after.strip_prefix('{') {
            let (inner, after) = after.split_once('}').ok_or("a ${ has no }")?;
            let end = inner.find(|c: char| !is_name(c)).unwrap_or(inner.len());
            let (name, rule) = inner.split_at(end);
            out.push_str(&chosen(name, rule, variable(name))?);
            after
        } else {
            let end = after.find(|c: char| !is_name(c)).unwrap_or(after.len());
            let (name, after) = after.split_at(end);
            if name.is_empty() {
                return Err("a $ that stands for itself is written $$".to_owned());
            }
            out.push_str(&chosen(name, "", variable(name))?);
            after
        };
    }
    out.push_str(rest);
    Ok(out)
}

fn chosen(name: &str, rule: &str, value: Option<String>) -> Result<String, String> {
    let given = value.clone().filter(|value| !value.is_empty());
    let missing = |why: &str| {
        Err(if why.is_empty() { format!("{name} is not set") } else { format!("{name} is not set: {why}") })
    };
    match (rule.get(..2), rule.get(..1)) {
        (Some(":-"), _) => Ok(given.unwrap_or_else(|| rule.chars().skip(2).collect())),
        (Some(":?"), _) => given.map_or_else(|| missing(rule.get(2..).unwrap_or_default()), Ok),
        (_, Some("-")) => Ok(value.unwrap_or_else(|| rule.chars().skip(1).collect())),
        (_, Some("?")) => value.map_or_else(|| missing(rule.get(1..).unwrap_or_default()), Ok),
        (_, None) if name.is_empty() => Err("a ${} names no variable".to_owned()),
        (_, None) => value.map_or_else(|| missing("set it in the environment or in .env"), Ok),
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
            ("${NONE:?must}", None),
            ("${NONE}", None),
            ("${A", None),
            ("$", None),
            ("${A/b}", None),
        ] {
            assert_eq!(interpolated(text, &set).ok().as_deref(), expected, "{text}");
        }
    }
}
