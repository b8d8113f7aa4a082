//! What the server says.

/// The words.
pub const GREETING: &str = "This is the first release";
