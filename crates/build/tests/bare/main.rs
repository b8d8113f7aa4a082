//! Builds with nothing around their commands but their user and their limits, as where a machine has nothing else.
//!
//! As root they run under a uid of their own, as they do on a platform; as an ordinary user under our own.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in its helper functions")]

#[path = "../suite/builds.rs"]
mod builds;
#[path = "../suite/place.rs"]
mod place;

use std::path::Path;
use std::sync::Arc;

use berth_process::Enclosure;

/// Whether something stands around commands.
const ENCLOSED: bool = false;

fn enclosure(_home: &Path) -> Option<Arc<dyn Enclosure>> {
    None
}
