//! The one binary: configuration, wiring, signals, supervisor and the roles.
mod home;
fn main() {}
