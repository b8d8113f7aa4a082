//! Verbs and printing.
