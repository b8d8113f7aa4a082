//! Append-only event log with a global order, on SQLite.
