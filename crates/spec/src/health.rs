//! Checks that are commands, as images and compose files have them, and what they ask for.

/// The path that a check asks the app for, as in `curl -f http://localhost:3000/up`; `None` when it does anything else. `port` is where
/// the app is known to listen for requests: what is asked of another is not asked of what serves them.
#[must_use]
pub fn asked_path(command: &str, port: Option<u16>) -> Option<String> {
    let (_, rest) = command.split_once("http://")?;
    let address = rest.split(|c: char| c.is_whitespace() || "\"'|;&".contains(c)).next()?;
    let (host, path) = address.split_once('/').unwrap_or((address, ""));
    // One that is put together, `$PORT`, is the app's.
    let (host, asked) =
        host.split_once(':').map_or((host, Some(80)), |(host, asked)| (host, asked.parse().ok()));
    let elsewhere = asked.zip(port).is_some_and(|(asked, port): (u16, u16)| asked != port);
    let is_own = ["localhost", "127.0.0.1", "0.0.0.0"].contains(&host) && !elsewhere;
    is_own.then(|| format!("/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_asks_its_own_app_has_a_path() {
        for (command, port, path) in [
            ("curl -f http://localhost:3000/up || exit 1", None, Some("/up")),
            ("curl -f http://localhost:3000/up || exit 1", Some(3000), Some("/up")),
            ("curl -f http://localhost:${PORT}/up", Some(3000), Some("/up")),
            ("curl -f http://localhost:9090/metrics", Some(3000), None),
            ("wget -qO- \"http://127.0.0.1/health?deep=1\"", None, Some("/health?deep=1")),
            ("wget -qO- http://127.0.0.1/health", Some(8080), None),
            ("curl http://localhost", Some(80), Some("/")),
            ("curl http://db.example.com/up", None, None),
            ("pg_isready -U app", None, None),
        ] {
            assert_eq!(asked_path(command, port).as_deref(), path, "{command}");
        }
    }
}
