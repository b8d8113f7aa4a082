//! What a failed deployment tells people: the lines that matter, what an exit means, where an app should listen, what changed.
//!
//! Pure text: whoever observed a failure gives what was seen, and gets the sentences that help. Nothing here decides anything.

mod changed;
mod exit;
mod language;
mod nearest;
mod output;

pub use changed::{SourceDiff, changed};
pub use exit::explained;
pub use language::listen_on_port;
pub use nearest::nearest;
pub use output::{missing_variable, that_matter};
