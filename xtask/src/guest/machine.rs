//! The machine that is booted: QEMU with a processor that is translated, a disk, and two serial lines.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::initial;
use super::kernel::Kernel;
use super::outcome::LineEnd;
use super::word::Word;
use super::{find, inside};
use crate::program::Program;

/// How long the guest may take to its first word, and how long it may say nothing after that, which is longer than its longest test takes
/// on a machine with much else to do. It is ended then.
const BOOT: Duration = Duration::from_secs(180);
const SILENCE: Duration = Duration::from_secs(600);
const PROCESSORS: &str = "2";
/// MiB.
const MEMORY: &str = "2048";
/// Of which next to nothing is written.
const DISK: u64 = 4 << 30;
/// Likewise; the least that mkfs.xfs makes is 300 MiB.
const OTHER_DISK: u64 = 1 << 30;
/// How many words may wait to be heard. The guest waits, should nobody listen.
const WORDS: usize = 16;

/// What it is made of.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) kernel: &'a Kernel,
    /// Where its files lie on this machine.
    pub(super) place: &'a Path,
    /// What was compiled, below the place.
    pub(super) stage: &'a Path,
    /// What it is to run of the plan.
    pub(super) suites: &'a [&'a str],
}

/// A machine that runs. It is ended when it is dropped.
#[derive(Debug)]
pub(super) struct Machine {
    qemu: Child,
    lines: Receiver<String>,
}

impl Parts<'_> {
    /// Switches it on.
    ///
    /// # Errors
    /// A part of it cannot be made, or QEMU cannot be started.
    pub(super) fn boot(&self) -> Result<Machine> {
        let (archive, disk) = (self.place.join("initial.cpio"), self.place.join("disk"));
        let other = self.place.join("disk-xfs");
        let modules = self.kernel.for_the_root()?;
        std::fs::write(
            &archive,
            initial::archive(&std::fs::read(find("busybox")?)?, &modules, &self.first()),
        )?;
        File::create(&disk)?.set_len(DISK)?;
        // It counts what projects take, as the disk of a machine whose volumes are kept to their sizes.
        let quotas = ["-O", "project,quota", "-E", "quotatype=prjquota"];
        Program::new(find("mke2fs")?).args(["-q", "-F", "-t", "ext4"]).args(quotas).arg(&disk).run()?;
        File::create(&other)?.set_len(OTHER_DISK)?;
        Program::new(find("mkfs.xfs")?).args(["-q", "-f"]).arg(&other).run()?;
        let mut qemu = self.command(&archive, [&disk, &other])?.spawn().context("cannot start QEMU")?;
        let out = qemu.stdout.take().context("QEMU's output is a pipe")?;
        let (sender, lines) = sync_channel(WORDS);
        // Ends with the pipe, or when nobody listens any more.
        std::thread::spawn(move || {
            let mut reader = BufReader::new(out);
            let mut bytes = Vec::new();
            while reader.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
                if sender.send(String::from_utf8_lossy(&bytes).into_owned()).is_err() {
                    return;
                }
                bytes.clear();
            }
        });
        Ok(Machine { qemu, lines })
    }

    /// Where its console is written to: the kernel's words and those of the tests.
    pub(super) fn console(&self) -> PathBuf {
        self.place.join("console.log")
    }

    /// The first program of the real root, which is this one again.
    fn first(&self) -> String {
        let (program, stage) = (self.stage.join(inside::PROGRAM), self.stage.display());
        let (modules, suites) = (self.kernel.modules.display(), self.suites.join(" "));
        format!("{} guest --inside {stage} {modules} {suites}", program.display())
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "berth-process guards tenants' programs; this is our own tool"
    )]
    fn command(&self, archive: &Path, disks: [&Path; 2]) -> Result<Command> {
        let mut command = Command::new(find("qemu-system-x86_64")?);
        let option = |name: &str, path: &Path| format!("{name}{}", path.display());
        command
            // Not KVM, which a machine may offer and not be able to keep what it promises: it would say nothing then.
            .args(["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max"])
            .args([
                "-smp",
                PROCESSORS,
                "-m",
                MEMORY,
                "-nodefaults",
                "-no-user-config",
                "-no-reboot",
                "-display",
                "none",
            ])
            .arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(archive)
            .args(["-append", "console=ttyS0 panic=-1 cgroup_no_v1=all loglevel=4"])
            .args(["-serial", &option("file:", &self.console()), "-serial", "stdio"])
            // All of this machine's files, of which it can change none.
            .args(["-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"])
            .args(disks.iter().flat_map(|disk| {
                ["-drive".to_owned(), format!("{},format=raw,if=virtio,cache=unsafe", option("file=", disk))]
            }))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(self.place.join("qemu.log"))?);
        Ok(command)
    }
}

impl Machine {
    /// Hears what it says until it is switched off, says something that is no word, or falls silent.
    pub(super) fn listen(self, mut hear: impl FnMut(Word)) -> LineEnd {
        let mut patience = BOOT;
        loop {
            let line = match self.lines.recv_timeout(patience) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => return LineEnd::Closed,
                Err(RecvTimeoutError::Timeout) => return LineEnd::Silent,
            };
            patience = SILENCE;
            match Word::parse(&line) {
                Ok(word) => hear(word),
                Err(error) => return LineEnd::Garbled(format!("{error:#}")),
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It has switched itself off, or nobody wants it any more.
        let ended = self.qemu.kill().and_then(|()| self.qemu.wait());
        ended.map_or_else(|error| println!("!! QEMU does not end: {error}"), drop);
    }
}
