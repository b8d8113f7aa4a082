//! Rust text with comments and literals blanked out, so that a rule sees code alone.

/// A Rust file as the rules read it.
#[derive(Debug)]
pub(crate) struct RustSource<'a> {
    /// Lines as written.
    pub lines: Vec<&'a str>,
    /// The same lines; every byte of a comment or of a string or character literal is a space.
    pub code: Vec<String>,
}

impl<'a> RustSource<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let code = blank_comments_and_literals(text).lines().map(str::to_owned).collect();
        Self { lines: text.lines().collect(), code }
    }

    /// How many lines come before the inline test module; all of them when there is none.
    pub(crate) fn production_lines(&self) -> usize {
        let starts_tests = |at: &usize| {
            let mut after = self.code.iter().skip(at + 1).map(|line| line.trim());
            let item = after.find(|line| !line.is_empty() && !line.starts_with("#["));
            item.is_some_and(|item| item.contains("mod ") && item.ends_with('{'))
        };
        let mut marks = (0..self.code.len()).filter(|&at| self.code[at].trim() == "#[cfg(test)]");
        marks.find(starts_tests).unwrap_or(self.code.len())
    }

    /// The lines of code, numbered from 1, in which `word` stands as a word: no letter, digit or `_` on either side of it.
    pub(crate) fn lines_with_word(&self, word: &str) -> Vec<usize> {
        let numbered = self.code.iter().enumerate();
        numbered.filter(|(_, line)| has_word(line, word)).map(|(at, _)| at + 1).collect()
    }
}

/// Whether `word` stands in `line` with no letter, digit or `_` on either side.
pub(crate) fn has_word(line: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, found)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line.get(at + found.len()..).and_then(|text| text.chars().next());
        // A word that begins or ends with a sign (`.unwrap(`) needs no boundary on that side.
        let open_start = !word.starts_with(part_of_name) || !before.is_some_and(part_of_name);
        let open_end = !word.ends_with(part_of_name) || !after.is_some_and(part_of_name);
        open_start && open_end
    })
}

/// A lexer for just as much of Rust as tells code from what is not. Keeps lengths and line breaks.
fn blank_comments_and_literals(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match end_of_blank(bytes, at) {
            Some(end) => {
                let blanked = bytes[at..end].iter().map(|&byte| if byte == b'\n' { '\n' } else { ' ' });
                code.extend(blanked);
                at = end;
            }
            None => {
                code.push(if byte.is_ascii() { char::from(byte) } else { ' ' });
                at += 1;
            }
        }
    }
    code
}

/// Where the comment or literal that begins at `at` ends; none when code stands there.
fn end_of_blank(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let length = match rest {
        [b'/', b'/', ..] => rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => block_comment_length(rest),
        [b'"', ..] => string_length(rest),
        [b'r', b'"' | b'#', ..] => raw_string_length(rest)?,
        [b'\'', ..] => char_length(rest)?,
        _ => return None,
    };
    Some(at + length)
}

fn block_comment_length(text: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        match &text[at..] {
            [b'/', b'*', ..] => {
                depth += 1;
                at += 2;
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    text.len()
}

fn string_length(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = text.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

/// None for a raw identifier such as `r#type`.
fn raw_string_length(text: &[u8]) -> Option<usize> {
    let hashes = text.iter().skip(1).take_while(|&&byte| byte == b'#').count();
    if text.get(1 + hashes) != Some(&b'"') {
        return None;
    }
    let closing: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let body = &text[2 + hashes..];
    let end = body.windows(closing.len()).position(|window| window == closing);
    Some(end.map_or(text.len(), |end| 2 + hashes + end + closing.len()))
}

/// None for a lifetime.
fn char_length(text: &[u8]) -> Option<usize> {
    if text.get(1) == Some(&b'\\') {
        let end = text.iter().skip(3).position(|&byte| byte == b'\'')?;
        return Some(3 + end + 1);
    }
    // One character of up to four bytes, then the quote.
    let end = text.iter().skip(2).take(4).position(|&byte| byte == b'\'')? + 2;
    let body = std::str::from_utf8(&text[1..end]).ok()?;
    (body.chars().count() == 1).then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blanked(text: &str) -> String {
        let code = blank_comments_and_literals(text);
        assert_eq!(code.len(), text.len());
        code.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_and_literals_disappear() {
        assert_eq!(blanked("a // todo!\nb"), "a b");
        assert_eq!(blanked("a /* x /* y */ z */ b"), "a b");
        assert_eq!(blanked(r#"f("todo! \" x", b)"#), "f( , b)");
        assert_eq!(blanked("f(r#\"a \" b\"#, b)"), "f( , b)");
        assert_eq!(blanked("g('\"', 'é', '\\'', '\\u{1F600}')"), "g( , , , )");
    }

    #[test]
    fn lifetimes_and_raw_names_are_code() {
        assert_eq!(blanked("fn f<'a>(x: &'a str, r#type: u8) {}"), "fn f<'a>(x: &'a str, r#type: u8) {}");
    }

    #[test]
    fn what_is_never_closed_runs_to_the_end() {
        assert_eq!(blanked("a \"b"), "a");
        assert_eq!(blanked("a r#\"b\""), "a");
        assert_eq!(blanked("a /* b"), "a");
    }

    #[test]
    fn production_ends_at_the_inline_test_module() {
        let text = "fn a() {}\n#[cfg(test)]\nuse x;\n#[cfg(test)]\n#[path = \"x\"]\nmod tests {\n}\n";
        assert_eq!(RustSource::new(text).production_lines(), 3);
        assert_eq!(RustSource::new("fn a() {}\n#[cfg(test)]\nmod tests;\n").production_lines(), 3);
        assert_eq!(RustSource::new("let x = \"\n#[cfg(test)]\nmod tests {\";\n").production_lines(), 3);
    }

    #[test]
    fn words_have_edges() {
        assert!(has_word("x.sleep(1)", "sleep"));
        assert!(!has_word("asleep(1)", "sleep"));
        assert!(has_word("x.unwrap()", ".unwrap("));
    }
}
