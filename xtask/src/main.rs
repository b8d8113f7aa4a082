//! The house's own commands.
fn main() {}
