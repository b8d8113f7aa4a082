//! The lines of a program's output that say why it ended.
//!
//! Every runtime has its own way to die: where the message stands (after the stack in Python, before it elsewhere), what a line of a
//! stack looks like, which of those lines are the app's own. A block is found by its message, and told without what repeats it.

use berth_spec::EnvName;

/// The most lines that are told.
const LINES: usize = 12;
/// The most lines of a message that spans several.
const MESSAGE: usize = 4;
/// How many lines are told where none looks like a message.
const LAST: usize = 6;
/// The longest line that is told, in bytes.
const LINE_BYTES: usize = 500;

/// Of the last lines of an output those that matter, in their order.
#[must_use]
pub fn that_matter(lines: &[String]) -> Vec<String> {
    let lines: Vec<String> =
        lines.iter().map(|line| plain(line)).filter(|line| !line.trim().is_empty()).collect();
    let told: Vec<&String> = match lines.iter().rposition(|line| is_message(line)) {
        Some(message) => block(&lines, message),
        None => {
            let complaints = lines.iter().filter(|line| complains(line)).collect::<Vec<_>>();
            let said = if complaints.is_empty() {
                lines.iter().filter(|line| !is_noise(line)).collect()
            } else {
                complaints
            };
            said.iter().skip(said.len().saturating_sub(LAST)).copied().collect()
        }
    };
    let short =
        |line: &String| line.get(..line.floor_char_boundary(LINE_BYTES)).unwrap_or_default().to_owned();
    told.into_iter().take(LINES).map(short).collect()
}

/// The lines that belong to the message at `at`: where it happened, the message, its causes, the app's own place in the stack.
fn block(lines: &[String], at: usize) -> Vec<&String> {
    if let Some(told) = python(lines, at) {
        return told;
    }
    // A cause stands below what it led to, which says where in the app that was.
    let mut first = at;
    while first > 0 && lines[first].trim_start().starts_with("Caused by") {
        match lines[..first].iter().rposition(|line| is_message(line)) {
            Some(before) => first = before,
            None => break,
        }
    }
    let mut told: Vec<&String> = place(lines, first);
    let mut own_seen = false;
    let mut message = 0;
    for line in &lines[first..] {
        if line.trim_start().starts_with("Caused by") {
            told.push(line);
            message = 1;
        } else if is_frame(line) {
            message = MESSAGE;
            if !own_seen && is_own(line) {
                own_seen = true;
                told.push(line);
            }
        } else if message < MESSAGE && !is_noise(line) {
            told.push(line);
            message += 1;
        }
    }
    told
}

/// What Python tells: the stack first, its last line of the app's own, then the message.
fn python(lines: &[String], at: usize) -> Option<Vec<&String>> {
    let start =
        lines[..=at].iter().rposition(|line| line.starts_with("Traceback (most recent call last)"))?;
    let end = start + 1 + lines[start + 1..].iter().position(|line| !line.starts_with([' ', '\t']))?;
    let frames = || (start + 1..end).filter(|&index| lines[index].trim_start().starts_with("File \""));
    let frame = frames().rfind(|&index| is_own(&lines[index])).or_else(|| frames().next_back());
    let mut told = vec![&lines[start]];
    if let Some(frame) = frame {
        told.push(&lines[frame]);
        told.extend(
            lines[frame + 1..end].iter().take(1).filter(|line| !line.trim_start().starts_with("File \"")),
        );
    }
    told.extend(lines[end..].iter().take(MESSAGE).filter(|line| !is_noise(line)));
    Some(told)
}

/// What Node and others print above their message: `/app/server.js:3` and the line of source there.
fn place(lines: &[String], at: usize) -> Vec<&String> {
    let above = at.saturating_sub(4)..at;
    let is_place = |line: &String| {
        let number = line.rsplit_once(':').is_some_and(|(path, line)| {
            path.contains(['/', '.']) && !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_digit())
        });
        number && !line.contains(' ')
    };
    let Some(place) = above.clone().rev().find(|&index| is_place(&lines[index])) else { return Vec::new() };
    if !is_own(&lines[place]) {
        return Vec::new();
    }
    let caret = |line: &&String| line.trim().bytes().all(|byte| matches!(byte, b'^' | b'~'));
    lines[place..at].iter().take(2).filter(|line| !caret(line)).collect()
}

/// Whether the line is the message of an error that nobody caught, or says as much.
fn is_message(line: &str) -> bool {
    const BEGINS: [&str; 18] = [
        "Traceback (most recent call last)",
        "panic: ",
        "fatal error: ",
        "Exception in thread",
        "Caused by: ",
        "Error: ",
        "PHP Fatal error",
        "PHP Parse error",
        "Fatal error: ",
        "Uncaught ",
        "** (",
        "Unhandled exception",
        "error: ",
        "npm error Missing script",
        "npm ERR! Missing script",
        "[Errno ",
        "ImportError",
        "Unhandled rejection",
    ];
    let text = line.trim_start();
    if BEGINS.iter().any(|begin| text.starts_with(begin))
        || (text.starts_with("thread ") && text.contains(" panicked at "))
    {
        return true;
    }
    // Ruby: `app.rb:3:in 'fetch': key not found: "A" (KeyError)`.
    if text.contains(":in ")
        && text.trim_end().ends_with(')')
        && text.contains(" (")
        && !text.starts_with("from ")
    {
        return true;
    }
    // `KeyError: 'A'`, `java.lang.IllegalStateException: no`, `django.core.exceptions.ImproperlyConfigured: no`.
    if line.starts_with([' ', '\t']) {
        return false;
    }
    let name = text.split([':', ' ']).next().unwrap_or_default();
    let is_name =
        name.len() > 5 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._$".contains(&byte));
    is_name
        && (name.ends_with("Error")
            || name.ends_with("Exception")
            || (name.contains(".exceptions.") && text.contains(": ")))
}

/// Whether the line complains in words, where nothing looks like an error of a runtime's.
fn complains(line: &str) -> bool {
    const WORDS: [&str; 13] = [
        "error",
        "fatal",
        "not found",
        "no such file",
        "denied",
        "cannot",
        "can't",
        "could not",
        "failed",
        "refused",
        "in use",
        "invalid",
        "must be set",
    ];
    let text = line.to_lowercase();
    WORDS.iter().any(|word| text.contains(word)) && !is_noise(line)
}

/// Whether the line is one of a stack.
fn is_frame(line: &str) -> bool {
    let text = line.trim_start();
    let numbered = |mark: char| {
        let (number, _) = text.split_once(mark).unwrap_or_default();
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    let indented = line.len() > text.len();
    let begins =
        ["at ", "from ", "goroutine ", "File \"", "... ", "stack backtrace:", "Stack trace:", "created by "];
    begins.iter().any(|begin| text.starts_with(begin) && (indented || !begin.starts_with('a') || text.contains(['(', '/'])))
        || (text.starts_with('#') && text.as_bytes().get(1).is_some_and(u8::is_ascii_digit))
        || (indented && (numbered(':') || text.contains(".go:")))
        // Go names the function in the line above its place: `main.main()`.
        || (!indented && text.ends_with(')') && text.contains('.') && !text.contains(' ') && !text.contains('"'))
}

/// Whether a line of a stack is of the app, and not of its runtime or a library.
fn is_own(line: &str) -> bool {
    const OTHERS: [&str; 25] = [
        "__rustc::",
        "node:",
        "node_modules",
        "(internal/",
        "site-packages",
        "dist-packages",
        "/lib/python",
        "<frozen ",
        "/usr/local/go/",
        "/usr/lib/go",
        "runtime/",
        "/go/pkg/mod/",
        "java.base",
        "java.",
        "jdk.internal",
        "sun.",
        "org.springframework",
        "/gems/",
        "/rubygems",
        "/rustc/",
        "/.cargo/registry",
        "std::",
        "core::",
        "vendor/",
        "<internal:",
    ];
    let text = line.trim_start();
    // In the line of the function of a stack of Go there is no place to go to.
    let go_function = !line.starts_with([' ', '\t']) && text.ends_with(')') && !text.contains(':');
    !go_function
        && !["goroutine ", "stack backtrace", "Stack trace", "... ", "#0 {main}", "created by "]
            .iter()
            .any(|it| text.starts_with(it))
        && !OTHERS.iter().any(|other| text.contains(other))
}

/// Whether the line only says how the one before it came about, or what everybody says who dies.
fn is_noise(line: &str) -> bool {
    const NOISE: [&str; 16] = [
        "npm ERR!",
        "npm error",
        "Node.js v",
        "note: run with",
        "error Command failed",
        "info Visit",
        "exit status ",
        "During handling of",
        "The above exception",
        "ELIFECYCLE",
        "Emitted 'error'",
        "(Use `node --trace",
        "[signal ",
        "> ",
        "}",
        "{",
    ];
    let text = line.trim_start();
    let wanted = text.contains("Missing script") || text.contains("could not determine executable");
    !wanted
        && (NOISE.iter().any(|noise| text.starts_with(noise))
            || text.bytes().all(|byte| byte.is_ascii_punctuation()))
}

/// The line without colours and other control characters.
fn plain(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' && chars.peek() == Some(&'[') {
            chars.next();
            // A sequence of control ends at its first letter (ECMA-48 5.4).
            while chars.next().is_some_and(|c| !('\u{40}'..='\u{7e}').contains(&c)) {}
        } else if c == '\t' || !c.is_control() {
            text.push(c);
        }
    }
    text
}

/// The environment variable that the output says is missing, if it says so.
#[must_use]
pub fn missing_variable(lines: &[String]) -> Option<EnvName> {
    const QUOTED: [&str; 5] =
        ["KeyError", "key not found", "Undefined array key", "Undefined index", "resolve placeholder"];
    const SAID: [&str; 13] = [
        "environment variable",
        "env var",
        "env variable",
        "must be set",
        "must be defined",
        "not set",
        "is required",
        "notpresent",
        "is missing",
        "missing required",
        "not defined",
        "is undefined",
        "is unset",
    ];
    lines.iter().rev().map(|line| plain(line)).find_map(|line| {
        let quoted = QUOTED.iter().any(|mark| line.contains(mark));
        let said = line.to_lowercase();
        if !quoted && !SAID.iter().any(|mark| said.contains(mark)) {
            return None;
        }
        let words = line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let is_variable = |word: &&str| {
            let upper =
                word.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
            upper
                && word.len() >= 3
                && (word.contains('_') || quoted)
                && !word.starts_with("ERR_")
                && !word.starts_with('_')
        };
        words.filter(is_variable).find_map(|word| EnvName::new(word).ok())
    })
}

#[cfg(test)]
mod tests;
