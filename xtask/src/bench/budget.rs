//! What the figures should be: the budgets of the design, one row each.

use super::record::Figure;

/// A bound on one figure.
#[derive(Debug, Clone, Copy)]
pub(super) enum Budget {
    AtMost(f64),
    AtLeast(f64),
    /// At most so many times the figure of the peer whose name begins so.
    TimesPeer(f64, &'static str),
}

/// By bench and key of the figure.
const BUDGETS: &[(&str, &str, Budget)] = &[
    ("apps10k", "apps10k_start_s", Budget::AtMost(5.0)),
    ("apps10k", "apps10k_start_with_snapshot_s", Budget::AtMost(2.0)),
    ("apps10k", "apps10k_list_p99_ms", Budget::AtMost(10.0)),
    ("apps10k", "apps10k_idle_cpu_pct", Budget::AtMost(1.0)),
    ("deploy", "deploy_unchanged_p50_ms", Budget::AtMost(1_000.0)),
    ("deploy", "rollback_p99_ms", Budget::AtMost(1_000.0)),
    ("deploy", "rollback_max_ms", Budget::AtMost(1_000.0)),
    ("deploy", "idle_pss_mb", Budget::AtMost(50.0)),
    ("deploy", "idle_cpu_pct", Budget::AtMost(1.0)),
    ("deploy", "shim_private_kb", Budget::AtMost(2_048.0)),
    ("deploy", "replay_events_per_s", Budget::AtLeast(300_000.0)),
    ("deploy", "failed_requests", Budget::AtMost(0.0)),
    ("apps", "failed_requests", Budget::AtMost(0.0)),
    ("edge", "plain_us", Budget::TimesPeer(1.0, "nginx")),
    ("edge", "tls_us", Budget::TimesPeer(0.85, "nginx")),
    ("edge", "handshake_us", Budget::TimesPeer(0.65, "nginx")),
    ("edge", "h2_us", Budget::TimesPeer(1.1, "nginx")),
    ("edge", "body1m_us", Budget::TimesPeer(0.9, "nginx")),
    ("edge", "upload1m_us", Budget::TimesPeer(0.9, "nginx")),
    ("edge", "close_us", Budget::TimesPeer(0.3, "caddy")),
    ("edge", "idle_conn_kib", Budget::AtMost(6.0)),
    ("edge", "idle_tls_conn_kib", Budget::AtMost(17.0)),
    ("edge", "failed_requests", Budget::AtMost(0.0)),
    ("edge", "wrong_rollback_pct", Budget::AtMost(1.0)),
    ("edge", "missed_regression_pct", Budget::AtMost(5.0)),
    ("edge", "wake_frozen_p99_ms", Budget::AtMost(50.0)),
    ("rollouts", "wrong_rollback_pct", Budget::AtMost(1.0)),
    ("rollouts", "missed_regression_pct", Budget::AtMost(5.0)),
    ("runtime", "start_p50_ms", Budget::AtMost(8.0)),
    ("runtime", "instance_mb", Budget::AtMost(2.0)),
    ("runtime", "pull_start_p50_ms", Budget::TimesPeer(1.0, "docker")),
    ("pull", "pull_start_p50_ms", Budget::TimesPeer(1.0, "docker")),
    ("wake", "wake_frozen_p99_ms", Budget::AtMost(50.0)),
];

/// The budget of a figure; none when it has none.
pub(super) fn of(bench: &str, key: &str) -> Option<Budget> {
    BUDGETS.iter().find(|(name, figure, _)| *name == bench && *figure == key).map(|(_, _, budget)| *budget)
}

impl Budget {
    /// Whether `figure` is within; none when the peer was not there.
    pub(super) fn holds(self, figure: &Figure) -> Option<bool> {
        match self {
            Self::AtMost(bound) => Some(figure.value <= bound),
            Self::AtLeast(bound) => Some(figure.value >= bound),
            Self::TimesPeer(times, peer) => {
                let (_, value) = figure.peer.iter().find(|(name, _)| name.starts_with(peer))?;
                Some(figure.value <= times * value)
            }
        }
    }

    /// In words, without the unit.
    pub(super) fn words(self) -> String {
        match self {
            Self::AtMost(bound) => format!("at most {bound}"),
            Self::AtLeast(bound) => format!("at least {bound}"),
            Self::TimesPeer(times, peer) => format!("at most {times} x {peer}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_budget_against_a_peer_needs_the_peer() {
        let mut figure = Figure { value: 10.5, unit: "us".to_owned(), n: 1, peer: BTreeMap::new() };
        let budget = of("edge", "plain_us").unwrap();
        assert_eq!(budget.holds(&figure), None);
        figure.peer.insert("nginx 1.22".to_owned(), 10.0);
        assert_eq!(budget.holds(&figure), Some(false));
        figure.value = 9.5;
        assert_eq!(budget.holds(&figure), Some(true));
        assert!(of("build", "plain_us").is_none());
    }
}
