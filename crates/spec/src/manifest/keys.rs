//! The keys of berth.toml, section by section: those that are read, and those whose feature is not there yet.

/// The keys of one section.
#[derive(Debug)]
pub(super) struct Keys {
    /// The section as people write it; empty for the top.
    pub(super) section: &'static str,
    /// Keys that this version reads.
    pub(super) known: &'static [&'static str],
    /// Keys that the design has and this version has not: an error that says so, never ignored.
    pub(super) later: &'static [&'static str],
}

pub(super) const TOP: Keys = Keys {
    section: "",
    known: &[
        "app",
        "stack",
        "build",
        "processes",
        "env",
        "deploy",
        "http",
        "shutdown",
        "cron",
        "network",
        "resources",
        "isolation",
        "volumes",
        "scale",
        "healthcheck",
        "args",
    ],
    later: &["services", "slo"],
};
pub(super) const BUILD: Keys = Keys {
    section: "build",
    known: &["builder", "command", "output", "network", "env", "image", "dockerfile", "target", "args"],
    later: &[],
};
pub(super) const DEPLOY: Keys = Keys {
    section: "deploy",
    known: &["release_command", "strategy", "timeout", "warm", "canary"],
    later: &[],
};
pub(super) const CANARY: Keys =
    Keys { section: "deploy.canary", known: &["steps", "interval", "analysis"], later: &[] };
pub(super) const HTTP: Keys = Keys {
    section: "http",
    known: &[
        "port",
        "protocol",
        "public",
        "hosts",
        "force_https",
        "hsts",
        "request_timeout",
        "concurrency",
        "rate_limit",
        "route",
        "cache",
        "checks",
    ],
    later: &[],
};
pub(super) const HTTP_CONCURRENCY: Keys =
    Keys { section: "http.concurrency", known: &["soft_limit", "hard_limit"], later: &[] };
pub(super) const RATE_LIMIT: Keys = Keys {
    section: "http.rate_limit",
    known: &["requests", "per", "burst", "by", "path", "methods"],
    later: &[],
};
pub(super) const HTTP_CACHE: Keys = Keys { section: "http.cache", known: &["size", "max_body"], later: &[] };
pub(super) const HTTP_ROUTE: Keys =
    Keys { section: "http.route", known: &["path", "methods", "request_timeout", "concurrency"], later: &[] };
pub(super) const CHECK: Keys =
    Keys { section: "http.checks", known: &["type", "path", "interval", "timeout", "grace"], later: &[] };
pub(super) const SHUTDOWN: Keys =
    Keys { section: "shutdown", known: &["signal", "drain", "kill_after"], later: &[] };
pub(super) const CRON: Keys = Keys {
    section: "cron",
    known: &["name", "schedule", "timezone", "command", "concurrency", "timeout", "catch_up"],
    later: &[],
};

pub(super) const NETWORK: Keys = Keys { section: "network", known: &["egress", "names"], later: &[] };

pub(super) const RESOURCES: Keys = Keys {
    section: "resources.NAME",
    known: &["cpu", "disk_read", "disk_write", "memory", "processes", "tmp"],
    later: &[],
};
pub(super) const ISOLATION: Keys = Keys { section: "isolation", known: &["minimum"], later: &[] };
pub(super) const VOLUMES: Keys =
    Keys { section: "volumes", known: &["name", "path", "size", "processes"], later: &[] };
pub(super) const SCALE: Keys = Keys {
    section: "scale.NAME",
    known: &["min", "idle_after", "stop_after"],
    later: &["max", "target", "predict"],
};
pub(super) const HEALTHCHECK: Keys = Keys {
    section: "healthcheck.NAME",
    known: &["disable", "command", "interval", "timeout", "start_period", "start_interval", "retries"],
    later: &[],
};

/// All sections whose keys are fixed; `[processes]` and `[env]` take any name.
pub(super) const SECTIONS: [&Keys; 18] = [
    &TOP,
    &BUILD,
    &DEPLOY,
    &CANARY,
    &HTTP,
    &HTTP_CONCURRENCY,
    &RATE_LIMIT,
    &HTTP_ROUTE,
    &HTTP_CACHE,
    &CHECK,
    &SHUTDOWN,
    &CRON,
    &NETWORK,
    &RESOURCES,
    &ISOLATION,
    &VOLUMES,
    &SCALE,
    &HEALTHCHECK,
];
