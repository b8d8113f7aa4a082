//! Where something was measured: processor, memory, kernel, file system, compiler, commit.

use std::path::Path;

use anyhow::Result;

use crate::program::Program;
use crate::workspace::Workspace;

/// One line that lets a reader judge the figures.
///
/// # Errors
/// `/proc` or the compiler cannot be asked.
pub(crate) fn describe(target_dir: &Path) -> Result<String> {
    let cpus = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = field(&cpus, "model name").unwrap_or(std::env::consts::ARCH);
    let cores = std::thread::available_parallelism()?;
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let kilobytes: u64 =
        field(&memory, "MemTotal").and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or(0);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let file_system = file_system_of(&mounts, &target_dir.to_string_lossy());
    let rustc = Program::new("rustc").arg("--version").output()?;
    let rustc: Vec<&str> = rustc.split(' ').take(2).collect();
    let (megabytes, kernel, rustc) = (kilobytes / 1024, kernel.trim(), rustc.join(" "));
    Ok(format!("{model}, {cores} cores, {megabytes} MB, Linux {kernel}, {file_system}, {rustc}"))
}

/// How many processes wanted to run, over the last minute.
///
/// # Errors
/// `/proc` cannot be read.
pub(crate) fn load() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').next().unwrap_or_default().parse()?)
}

/// What a record says of a machine that had other work at this load: figures of one run compare with their peers in it, and with little else.
pub(crate) fn shared(load: f64) -> Option<String> {
    (load >= 0.5).then(|| {
        format!("others worked on the machine: its load was {load} over the minute before this began; figures compare with their peers alone")
    })
}

/// The commit, short, with `+` when the checkout differs from it.
///
/// # Errors
/// Git fails.
pub(crate) fn commit(workspace: &Workspace) -> Result<String> {
    let git = || Program::git(workspace);
    let commit = git().args(["rev-parse", "--short=12", "HEAD"]).output()?;
    // The records that benches write are no change of what is measured.
    let changes = git().args(["status", "--porcelain", "--", ".", ":!docs"]).output()?;
    let mark = if changes.is_empty() { "" } else { "+" };
    Ok(format!("{}{mark}", commit.trim()))
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
}

/// The type of the file system whose mount point is the longest that holds `path`; the last mounted of equals.
fn file_system_of<'a>(mounts: &'a str, path: &str) -> &'a str {
    let holding = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind) = (fields.next()?, fields.next()?);
        Path::new(path).starts_with(point).then_some((point.len(), kind))
    });
    holding.max_by_key(|(length, _)| *length).map_or("an unknown file system", |(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_mount_point_holds_the_path() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /home/x xfs rw 0 0\n";
        assert_eq!(file_system_of(mounts, "/home/x/target"), "xfs");
        assert_eq!(file_system_of(mounts, "/home/xy/target"), "ext4");
        assert_eq!(file_system_of("", "/"), "an unknown file system");
    }

    #[test]
    fn a_busy_machine_is_said() {
        assert!(load().unwrap() >= 0.0);
        assert_eq!(shared(0.1), None);
        assert!(shared(6.2).unwrap().contains("6.2"));
    }

    #[test]
    fn fields_are_read() {
        assert_eq!(field("processor\t: 0\nmodel name\t: AMD X\n", "model name"), Some("AMD X"));
    }

    #[test]
    fn this_machine_can_be_described() {
        assert!(describe(Path::new("/")).unwrap().contains("Linux"));
    }
}
