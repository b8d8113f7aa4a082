//! The one binary: configuration, wiring, signals, supervisor and the roles.
fn main() {}
