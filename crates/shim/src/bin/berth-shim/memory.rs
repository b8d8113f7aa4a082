//! The kernel's kills in the app's control group for want of memory, also those that the app's program survives.

use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::event::{EventfdFlags, PollFd, PollFlags};

use crate::system;

/// Milliseconds between two looks: after a word of the kernel, which on v1 comes before it counts; when there is something else to do anyway; and where
/// the kernel gives no word, as in a container of Docker's on v1, whose control groups cannot be written to.
const SOON: u64 = 100;
const SELDOM: u64 = 1_000;
const REGULARLY: u64 = 5_000;
/// So many looks are taken after a word of the kernel: what it said may have been no kill.
const LOOKS: u8 = 10;
/// The counter is a few short lines.
const ROOM: usize = 4 << 10;

/// How the kernel says that the group has no more memory.
#[derive(Debug)]
enum Word {
    /// By the counter itself: v2.
    Counter,
    /// By what it was asked to write to: v1.
    Event(OwnedFd),
    /// It does not.
    None,
}

/// What watches the group's counter.
#[derive(Debug)]
pub(crate) struct Memory {
    counter: File,
    word: Word,
    kills: u64,
    at_last_exit: u64,
    looked: u64,
    looks: u8,
}

impl Memory {
    /// Watches the counter at `path`, as [`berth_shim::sandbox::Sandbox::oom_counter`] has it. Nothing where it cannot be read.
    pub(crate) fn watch(path: &str) -> Option<Self> {
        let counter = File::open(path).ok()?;
        let word = Word::of(path, &counter);
        let mut memory = Self { counter, word, kills: 0, at_last_exit: 0, looked: 0, looks: 0 };
        memory.kills = memory.count()?;
        memory.at_last_exit = memory.kills;
        Some(memory)
    }

    /// How many processes the kernel has killed so far.
    pub(crate) fn kills(&self) -> u64 {
        self.kills
    }

    /// What is to be waited for.
    pub(crate) fn polled(&self) -> Option<PollFd<'_>> {
        match &self.word {
            Word::Counter => Some(PollFd::new(&self.counter, PollFlags::PRI)),
            Word::Event(event) => Some(PollFd::new(event, PollFlags::IN)),
            Word::None => None,
        }
    }

    /// The milliseconds until it has to look again, if it has to.
    pub(crate) fn look_in(&self, now: u64) -> Option<u64> {
        let pause = match &self.word {
            _ if self.looks > 0 => SOON,
            Word::None => REGULARLY,
            Word::Counter | Word::Event(_) => return None,
        };
        Some((self.looked + pause).saturating_sub(now))
    }

    /// How many were killed since that was last asked; `has_word` when what is waited for came.
    pub(crate) fn fresh(&mut self, has_word: bool, now: u64) -> u64 {
        if has_word {
            self.looks = LOOKS;
            if let Word::Event(event) = &self.word {
                system::unheeded(rustix::io::read(event, &mut [0; 8]));
            }
        }
        let pause = if self.looks > 0 { SOON } else { SELDOM };
        if has_word || now >= self.looked.saturating_add(pause) { self.look(now) } else { 0 }
    }

    /// Whether there was a kill since the app last exited, and how many that was not told yet; asked when it has exited.
    pub(crate) fn exited(&mut self, now: u64) -> (bool, u64) {
        let fresh = self.look(now);
        let since = self.kills.saturating_sub(std::mem::replace(&mut self.at_last_exit, self.kills));
        (since > 0, fresh)
    }

    fn look(&mut self, now: u64) -> u64 {
        self.looked = now;
        self.looks = self.looks.saturating_sub(1);
        let Some(kills) = self.count() else {
            // The group is gone, which the kernel would not cease to tell.
            (self.word, self.looks) = (Word::None, 0);
            return 0;
        };
        let fresh = kills.saturating_sub(std::mem::replace(&mut self.kills, kills));
        if fresh > 0 {
            self.looks = 0;
        }
        fresh
    }

    fn count(&self) -> Option<u64> {
        let mut text = [0; ROOM];
        let length = self.counter.read_at(&mut text, 0).ok()?;
        let text = std::str::from_utf8(text.get(..length)?).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
    }
}

impl Word {
    fn of(path: &str, counter: &File) -> Self {
        if !path.ends_with("memory.oom_control") {
            return Self::Counter;
        }
        // `admin-guide/cgroup-v1/memory.rst`, "OOM Control".
        let control = Path::new(path).with_file_name("cgroup.event_control");
        let asked =
            rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok().filter(|event| {
                std::fs::write(control, format!("{} {}", event.as_raw_fd(), counter.as_raw_fd())).is_ok()
            });
        asked.map_or(Self::None, Self::Event)
    }
}
