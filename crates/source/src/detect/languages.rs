//! The languages that detection knows, in the order in which they are asked.
//!
//! Node is the last: what has a package.json for its browser files and is otherwise written in Python, Ruby or PHP is no Node app.

mod deno;
mod dotnet;
mod elixir;
mod go;
mod java;
mod make;
mod node;
mod php;
pub(super) mod python;
mod ruby;
mod workspace;

use super::rule::Language;

/// All languages but Rust, whose builder follows cargo itself.
pub(super) const LANGUAGES: [&Language; 10] = [
    &elixir::ELIXIR,
    &ruby::RUBY,
    &php::PHP,
    &python::PYTHON,
    &go::GO,
    &java::JAVA,
    &dotnet::DOTNET,
    &deno::DENO,
    &node::NODE,
    &make::MAKE,
];

/// The language whose build script runs beside that of another one.
pub(super) const FOR_BROWSERS: &Language = &node::NODE;
