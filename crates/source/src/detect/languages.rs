//! The languages that detection knows, in the order in which they are asked.
//!
//! Node is the last: what has a package.json for its browser files and is otherwise written in Python, Ruby or PHP is no Node app.

mod node;
pub(super) mod python;
mod workspace;

use super::rule::Language;

/// All languages but Rust, whose builder follows cargo itself.
pub(super) const LANGUAGES: [&Language; 2] = [&python::PYTHON, &node::NODE];

/// The language whose build script runs beside that of another one.
pub(super) const FOR_BROWSERS: &Language = &node::NODE;
