//! Checks that are commands, as images and compose files have them, and what they ask for.

/// The path that a check asks the app for and nothing else, as in `curl -f http://localhost:3000/up || exit 1`; `None` when it does
/// anything else, or finds something well that answers with an error. `port` is where the app is known to listen for requests: what is
/// asked of another is not asked of what serves them.
#[must_use]
pub fn asked_path(command: &str, port: Option<u16>) -> Option<String> {
    let command = command.replace(['"', '\''], "").replace("||", " || ");
    let (asks, otherwise) =
        command.split_once(" || ").map_or((command.as_str(), None), |(asks, rest)| (asks, Some(rest.trim())));
    if otherwise.is_some_and(|what| !matches!(what, "exit 1" | "exit" | "false")) {
        return None;
    }
    let mut words = asks.split_whitespace().skip_while(|word| ["/bin/sh", "sh", "-c"].contains(word));
    let program = words.next()?;
    let mut url = None;
    let mut fails = match program.rsplit('/').next()? {
        "wget" => true,
        // Without -f it passes whatever the answer is.
        "curl" => false,
        _ => return None,
    };
    while let Some(word) = words.next() {
        match word {
            _ if word.starts_with("http://") => {
                if url.replace(word).is_some() {
                    return None;
                }
            }
            "--fail" => fails = true,
            ">" | "-o" | "--output" if words.next() == Some("/dev/null") => {}
            "--max-time" | "--connect-timeout" | "-m" | "-T" | "-t" => drop(words.next()),
            _ if program.ends_with("curl") && is_of(word, "fsS") => fails |= word.contains('f'),
            _ if HARMLESS.contains(&word)
                || word.starts_with("--timeout=")
                || word.starts_with("--tries=") => {}
            _ => return None,
        }
    }
    path_of(url.filter(|_| fails)?, port)
}

/// What makes no difference to what is asked, nor to what passes.
const HARMLESS: [&str; 18] = [
    "--silent",
    "--show-error",
    "--quiet",
    "--spider",
    "--no-verbose",
    "--output-document=-",
    "--output-document=/dev/null",
    "-q",
    "-nv",
    "-qO-",
    "-O-",
    "-O/dev/null",
    "-qO/dev/null",
    ">/dev/null",
    "1>/dev/null",
    "2>/dev/null",
    "2>&1",
    "-qS",
];

/// Whether a word is short flags, all among `flags`.
fn is_of(word: &str, flags: &str) -> bool {
    word.strip_prefix('-').is_some_and(|set| !set.is_empty() && set.chars().all(|flag| flags.contains(flag)))
}

/// The path of a URL of the app's own, if it is one.
fn path_of(url: &str, port: Option<u16>) -> Option<String> {
    let address = url.strip_prefix("http://")?;
    if address.contains(['&', ';', '|', '`', '<', '>', '(', '#']) {
        return None;
    }
    let (host, path) = address.split_once('/').unwrap_or((address, ""));
    // One that is put together, `$PORT`, is the app's.
    let (host, asked) =
        host.split_once(':').map_or((host, Some(80)), |(host, asked)| (host, asked.parse().ok()));
    let elsewhere = asked.zip(port).is_some_and(|(asked, port): (u16, u16)| asked != port);
    let is_own = ["localhost", "127.0.0.1", "0.0.0.0"].contains(&host) && !elsewhere && !path.contains('$');
    is_own.then(|| format!("/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_asks_its_own_app_has_a_path() {
        for (command, port, path) in [
            ("curl -f http://localhost:3000/up || exit 1", None, Some("/up")),
            ("curl -fsS http://localhost:3000/up||exit 1", Some(3000), Some("/up")),
            (
                "/bin/sh -c curl --fail --silent -o /dev/null http://localhost:3000/up",
                Some(3000),
                Some("/up"),
            ),
            ("curl -sf --max-time 5 http://localhost:${PORT}/up > /dev/null 2>&1", Some(3000), Some("/up")),
            ("/usr/bin/wget -qO- \"http://127.0.0.1/health?deep=1\"", None, Some("/health?deep=1")),
            ("wget --no-verbose --tries=1 --spider http://localhost:80 || false", Some(80), Some("/")),
        ] {
            assert_eq!(asked_path(command, port).as_deref(), path, "{command}");
        }
    }

    #[test]
    fn one_that_does_anything_else_has_none() {
        for (command, port) in [
            ("curl -f http://localhost:9090/metrics", Some(3000)),
            ("wget -qO- http://127.0.0.1/health", Some(8080)),
            ("curl -f http://db.example.com/up", None),
            ("curl http://localhost:3000/up", None),
            ("wget -qO- http://localhost/up && test -e /ready", None),
            ("wget -qO- http://localhost/up | grep ok", None),
            ("curl -f http://localhost/up; exit 0", None),
            ("curl -f http://localhost/a && false", None),
            ("curl -f http://localhost/a || true", None),
            ("curl -f -H Host:shop http://localhost/a", None),
            ("curl -f -X POST http://localhost/a", None),
            ("curl -f http://localhost/a http://localhost/b", None),
            ("curl -f http://localhost/$(cat /path)", None),
            ("test -e /ok && curl -f http://localhost/a", None),
            ("pg_isready -U app", None),
            ("", None),
        ] {
            assert_eq!(asked_path(command, port), None, "{command}");
        }
    }
}
