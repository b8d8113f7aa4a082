//! The platform's table in the machine's packet filter: put there by nft, left alone for as long as nobody changes the filter, and put back when
//! somebody takes it out.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_process::{Launch, Program, Stdio};
use rustix::fs::MemfdFlags;

use super::{nftables, rules};

/// Whether this machine passes packets on.
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// The platform's table, and what is in it as far as we have put it there.
#[derive(Debug)]
pub(super) struct Filter {
    table: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether the table has to be there: not before the first instance with a way out, and not after the last.
    holds: bool,
    applied: Option<Applied>,
}

#[derive(Debug, PartialEq, Eq)]
struct Applied {
    rules: String,
    /// The filter's generation once they were in.
    generation: u32,
}

impl Filter {
    pub(super) fn new(table: String) -> Self {
        Self { table, state: Mutex::default() }
    }

    pub(super) fn table(&self) -> &str {
        &self.table
    }

    /// Whether the table has to be there.
    pub(super) fn holds(&self) -> bool {
        self.state().holds
    }

    /// Has the rules be in the filter as they have to be from now on, whatever they are, and this machine pass packets on. nft takes longer than
    /// all the rest of a start, so it is not asked while the filter is of the generation that it had when they were put in. Blocks.
    pub(super) fn hold(&self) -> io::Result<()> {
        // Held while nft works: of starts at the same time one has to wait for the other's rules anyway.
        let mut state = self.state();
        state.holds = true;
        self.put(&mut state)?;
        pass_on()
    }

    /// Puts back what somebody took away since it had to be there: the table, and that this machine passes packets on. Blocks.
    ///
    /// It looks for the table and for nothing else. Whoever changes the filter makes another generation of it, this platform as well as others
    /// on the machine: were the rules put in anew with each, two of them would answer each other for ever.
    pub(super) fn restore(&self) -> io::Result<()> {
        let mut state = self.state();
        if !state.holds {
            return Ok(());
        }
        if !nftables::has_table(&self.table)? {
            self.put(&mut state)?;
            let table = &self.table;
            tracing::warn!(
                table,
                "somebody took the rules about instances out of the packet filter; they are back"
            );
        }
        pass_on()
    }

    /// Takes the rules away.
    pub(super) fn release(&self) -> io::Result<()> {
        *self.state() = State::default();
        load(&rules::removal(&self.table))
    }

    fn put(&self, state: &mut State) -> io::Result<()> {
        let rules = rules::table(&self.table, &rules::nameservers(&rules::resolv_conf()));
        let before = nftables::generation()?;
        let is_in = |applied: &Applied| applied.generation == before && applied.rules == rules;
        if state.applied.as_ref().is_some_and(is_in) {
            return Ok(());
        }
        state.applied = None;
        load(&rules)?;
        // A step further and no more: then nobody else has changed anything in between.
        let after = nftables::generation()?;
        if next(before) == after {
            state.applied = Some(Applied { rules, generation: after });
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has this machine pass packets on.
fn pass_on() -> io::Result<()> {
    if passes_on()? { Ok(()) } else { fs::write(FORWARD, "1") }
}

/// Whether this machine passes packets on.
pub(super) fn passes_on() -> io::Result<bool> {
    Ok(fs::read_to_string(FORWARD)?.trim() != "0")
}

/// The generation after `generation`: nought is passed over.
fn next(generation: u32) -> u32 {
    generation.checked_add(1).unwrap_or(1)
}

/// Has the packet filter take `rules`, all of them or none. Blocks.
pub(super) fn load(rules: &str) -> io::Result<()> {
    nft(&["-f", "-"], rules, None)
}

/// All that is in the packet filter, in nft's words. Blocks.
pub(super) fn listed() -> io::Result<String> {
    let mut out = memory("berth-ruleset")?;
    nft(&["-s", "list", "ruleset"], "", Some(out.try_clone()?))?;
    read_back(&mut out)
}

fn nft(args: &[&str], given: &str, out: Option<File>) -> io::Result<()> {
    let (mut input, mut said) = (memory("berth-rules")?, memory("berth-nft")?);
    input.write_all(given.as_bytes())?;
    input.rewind()?;
    let launch = Launch::new(Program::Nft).args(args.iter().copied()).dir("/");
    let mut launch = launch.stdin(Stdio::Fd(input.into())).stderr(Stdio::Fd(said.try_clone()?.into()));
    if let Some(out) = out {
        launch = launch.stdout(Stdio::Fd(out.into()));
    }
    let status = launch.start().map_err(io::Error::other)?.wait()?;
    if status.success() {
        return Ok(());
    }
    let words = read_back(&mut said)?;
    Err(io::Error::other(format!("nft ended with {status}: {}", words.trim())))
}

fn memory(name: &str) -> io::Result<File> {
    Ok(File::from(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?))
}

fn read_back(memory: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    memory.rewind()?;
    memory.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_follows_another() {
        assert_eq!((next(7), next(u32::MAX)), (8, 1));
    }
}
