//! Checks that are commands, as images and compose files have them, and what they ask for.

/// The path that a check asks the app for, as in `curl -f http://localhost:3000/up`; `None` when it does anything else.
#[must_use]
pub fn asked_path(command: &str) -> Option<String> {
    let (_, rest) = command.split_once("http://")?;
    let address = rest.split(|c: char| c.is_whitespace() || "\"'|;&".contains(c)).next()?;
    let (host, path) = address.split_once('/').unwrap_or((address, ""));
    let host = host.split(':').next()?;
    ["localhost", "127.0.0.1", "0.0.0.0"].contains(&host).then(|| format!("/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_asks_its_own_app_has_a_path() {
        for (command, path) in [
            ("curl -f http://localhost:3000/up || exit 1", Some("/up")),
            ("wget -qO- \"http://127.0.0.1/health?deep=1\"", Some("/health?deep=1")),
            ("curl http://localhost", Some("/")),
            ("curl http://db.example.com/up", None),
            ("pg_isready -U app", None),
        ] {
            assert_eq!(asked_path(command).as_deref(), path, "{command}");
        }
    }
}
