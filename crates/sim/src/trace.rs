//! What happened, step by step: hashed as a whole, the end of it kept to be read.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::time::Duration;

/// How many lines a failure shows.
const SHOWN: usize = 40;

/// The trace of one world.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    lines: VecDeque<String>,
    whole: bool,
    /// Used again for each line.
    line: String,
}

impl Trace {
    /// An empty trace; keeps all lines when `whole`, else the last ones.
    pub(crate) fn new(whole: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, lines: VecDeque::new(), whole, line: String::new() }
    }

    pub(crate) fn add(&mut self, now: Duration, what: fmt::Arguments<'_>) {
        self.line.clear();
        write!(self.line, "{:>9.3} {what}", now.as_secs_f64()).expect("a string takes whatever is written");
        // FNV-1a: for telling two runs apart, not for hiding anything.
        for byte in self.line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        let recycled = if self.whole || self.lines.len() < SHOWN { None } else { self.lines.pop_front() };
        let mut kept = recycled.unwrap_or_default();
        kept.clone_from(&self.line);
        self.lines.push_back(kept);
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines.into()
    }
}
