//! Ways out: to the machine's settings, files, devices and processes, and to what the kernel keeps for the privileged.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;

use super::{attempts, call, gained, text};

const NONE: [libc::c_long; 6] = [0; 6];

fn writes(path: &str, value: &str) -> Option<String> {
    let outcome =
        OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(value.as_bytes()));
    gained(&format!("wrote {path}"), outcome)
}

/// Something is read from it.
fn reads(path: &str) -> Option<String> {
    let mut first = [0; 1];
    let read = File::open(path).and_then(|mut file| std::io::Read::read(&mut file, &mut first));
    read.ok().filter(|length| *length > 0).map(|_| format!("read {path}"))
}

fn calls(what: &str, number: libc::c_long, arguments: [libc::c_long; 6]) -> Option<String> {
    gained(what, call(number, arguments))
}

fn all(attempts: impl IntoIterator<Item = Option<String>>) -> Vec<String> {
    attempts.into_iter().flatten().collect()
}

attempts! {
    /// The kernel runs `core_pattern` as root outside; sysrq ends the machine.
    settings_of_the_kernel || all([
        writes("/proc/sys/kernel/core_pattern", "|/tmp/x"),
        writes("/proc/sys/kernel/modprobe", "/tmp/x"),
        writes("/proc/sys/vm/drop_caches", "1"),
        writes("/proc/sysrq-trigger", "h"),
        writes("/proc/irq/default_smp_affinity", "1"),
        writes("/proc/self/uid_map", "0 0 1"),
    ]);

    secrets_of_the_kernel || all([
        reads("/proc/kcore"),
        reads("/proc/keys"),
        reads("/proc/timer_list"),
        reads("/proc/kmsg"),
        reads("/proc/interrupts"),
        calls("syslog", libc::SYS_syslog, [10, 0, 0, 0, 0, 0]),
    ]);

    /// Also where its own limits are to be seen.
    settings_of_devices_and_groups || {
        let mut gains = all([
            reads("/sys/firmware/acpi/tables/DSDT"),
            reads("/sys/kernel/notes"),
            writes("/sys/fs/cgroup/memory.max", "max"),
            writes("/sys/fs/cgroup/memory/memory.limit_in_bytes", "-1"),
            writes("/sys/fs/cgroup/pids/pids.max", "max"),
            writes("/sys/fs/cgroup/cgroup.procs", "0"),
            writes("/sys/fs/cgroup/devices/devices.allow", "a"),
            writes("/sys/fs/cgroup/memory/release_agent", "/tmp/x"),
        ]);
        gains.extend(gained("a group", fs::create_dir("/sys/fs/cgroup/memory/x")));
        gains
    };

    mounts || all([
        calls("tmpfs", libc::SYS_mount, [text(c"none"), text(c"/tmp"), text(c"tmpfs"), 0, 0, 0]),
        calls("proc", libc::SYS_mount, [text(c"none"), text(c"/tmp"), text(c"proc"), 0, 0, 0]),
        calls("bind", libc::SYS_mount, [text(c"/usr"), text(c"/tmp"), 0, 4_096, 0, 0]),
        calls("writable", libc::SYS_mount, [0, text(c"/usr"), 0, 32 | 4_096, 0, 0]),
        calls("umount", libc::SYS_umount2, [text(c"/proc/kcore"), 2, 0, 0, 0, 0]),
        calls("pivot_root", libc::SYS_pivot_root, [text(c"/tmp"), text(c"/tmp"), 0, 0, 0, 0]),
        calls("chroot", libc::SYS_chroot, [text(c"/tmp"), 0, 0, 0, 0, 0]),
        calls("open_tree", libc::SYS_open_tree, [libc::AT_FDCWD.into(), text(c"/"), 1, 0, 0, 0]),
        calls("fsopen", libc::SYS_fsopen, [text(c"tmpfs"), 0, 0, 0, 0, 0]),
    ]);

    /// A user namespace would give all capabilities over the others.
    namespaces_of_its_own || all([
        calls("unshare user", libc::SYS_unshare, [libc::CLONE_NEWUSER.into(), 0, 0, 0, 0, 0]),
        calls("unshare mount", libc::SYS_unshare, [libc::CLONE_NEWNS.into(), 0, 0, 0, 0, 0]),
        calls("unshare net", libc::SYS_unshare, [libc::CLONE_NEWNET.into(), 0, 0, 0, 0, 0]),
        calls("clone user", libc::SYS_clone, [(libc::CLONE_NEWUSER | libc::SIGCHLD).into(), 0, 0, 0, 0, 0]),
        calls("clone3", libc::SYS_clone3, NONE),
    ]);

    namespaces_of_others || {
        let mut gains = Vec::new();
        for name in ["mnt", "pid", "net", "user", "cgroup"] {
            for pid in ["1", "self"] {
                let path = format!("/proc/{pid}/ns/{name}");
                if let Ok(file) = File::open(&path) {
                    let number = std::os::fd::AsRawFd::as_raw_fd(&file).into();
                    gains.extend(calls(&path, libc::SYS_setns, [number, 0, 0, 0, 0, 0]));
                }
            }
        }
        gains
    };

    other_processes || all([
        calls("ptrace", libc::SYS_ptrace, [16, 1, 0, 0, 0, 0]),
        calls("traceme", libc::SYS_ptrace, NONE),
        calls("readv", libc::SYS_process_vm_readv, [1, 0, 0, 0, 0, 0]),
        calls("pidfd_getfd", libc::SYS_pidfd_getfd, NONE),
        calls("kcmp", libc::SYS_kcmp, [1, 1, 0, 0, 0, 0]),
        reads("/proc/1/environ"),
        reads("/proc/1/mem"),
        reads("/proc/1/maps"),
        gained("root of init", fs::read_dir("/proc/1/root").map(drop)),
        gained("cwd of init", fs::read_dir("/proc/1/cwd").map(drop)),
        gained("descriptors of init", fs::read_dir("/proc/1/fd").map(drop)),
    ]);

    doors_of_the_kernel || all([
        calls("keyctl", libc::SYS_keyctl, NONE),
        calls("add_key", libc::SYS_add_key, [text(c"user"), text(c"k"), text(c"v"), 1, -3, 0]),
        calls("bpf", libc::SYS_bpf, NONE),
        calls("io_uring", libc::SYS_io_uring_setup, [1, 0, 0, 0, 0, 0]),
        calls("userfaultfd", libc::SYS_userfaultfd, NONE),
        calls("perf", libc::SYS_perf_event_open, NONE),
        calls("module", libc::SYS_init_module, NONE),
        calls("kexec", libc::SYS_kexec_load, NONE),
        calls("reboot", libc::SYS_reboot, [0xfee1_dead, 672_274_793, 0, 0, 0, 0]),
        calls("handle", libc::SYS_open_by_handle_at, NONE),
        calls("clock", libc::SYS_clock_settime, [0, 0, 0, 0, 0, 0]),
        calls("hostname", libc::SYS_sethostname, [text(c"x"), 1, 0, 0, 0, 0]),
        calls("packets", libc::SYS_socket, [libc::AF_PACKET.into(), libc::SOCK_RAW.into(), 0, 0, 0, 0]),
        calls("raw", libc::SYS_socket, [libc::AF_INET.into(), libc::SOCK_RAW.into(), 1, 0, 0, 0]),
        calls("vsock", libc::SYS_socket, [libc::AF_VSOCK.into(), libc::SOCK_STREAM.into(), 0, 0, 0, 0]),
        calls("alg", libc::SYS_socket, [libc::AF_ALG.into(), libc::SOCK_SEQPACKET.into(), 0, 0, 0, 0]),
    ]);

    privileges || {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let expected = [
            ("CapInh:", "0000000000000000"),
            ("CapPrm:", "0000000000000000"),
            ("CapEff:", "0000000000000000"),
            ("CapBnd:", "0000000000000000"),
            ("CapAmb:", "0000000000000000"),
            ("NoNewPrivs:", "1"),
            ("Seccomp:", "2"),
        ];
        let differs = |(name, value): (&str, &str)| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("missing").trim();
            (line != value).then(|| format!("{name} {line}"))
        };
        let mut gains: Vec<String> = expected.into_iter().filter_map(differs).collect();
        gains.extend(calls("setuid", libc::SYS_setuid, NONE));
        gains.extend(calls("setgid", libc::SYS_setgid, NONE));
        gains.extend(calls("setgroups", libc::SYS_setgroups, NONE));
        gains
    };

    device_nodes || {
        let device = |name: &'static std::ffi::CStr, mode: u32, number: libc::c_long| {
            let arguments = [libc::AT_FDCWD.into(), text(name), mode.into(), number, 0, 0];
            calls(&name.to_string_lossy(), libc::SYS_mknodat, arguments)
        };
        // 8:0 is the first disk, 1:1 the memory.
        let mut gains = all([
            device(c"/tmp/disk", libc::S_IFBLK | 0o666, 0x800),
            device(c"/tmp/memory", libc::S_IFCHR | 0o666, 0x101),
            device(c"/dev/shm/memory", libc::S_IFCHR | 0o666, 0x101),
            device(c"/run/memory", libc::S_IFCHR | 0o666, 0x101),
        ]);
        let known = ["null", "zero", "full", "random", "urandom", "tty", "pts", "shm", "fd", "stdin", "stdout", "stderr", "ptmx"];
        let names = fs::read_dir("/dev").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        gains.extend(names.filter(|name| !known.contains(&name.as_str())));
        gains
    };

    /// CVE-2019-5736: what started the app must not be written to by way of `/proc`.
    the_program_that_started_it || {
        let mut gains = Vec::new();
        for pid in ["1", "self"] {
            let path = format!("/proc/{pid}/exe");
            gains.extend(gained(&path, OpenOptions::new().write(true).open(&path)));
            gains.extend(gained("truncate", OpenOptions::new().write(true).truncate(true).open(&path)));
        }
        gains
    };

    /// CVE-2024-21626: a descriptor or a directory of the machine that was left open leads out.
    descriptors_left_open || {
        let entries = fs::read_dir("/proc/self/fd").unwrap();
        let numbers = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        // The fourth is that of the folder which is read.
        let mut gains: Vec<String> = numbers.filter(|name| !["0", "1", "2", "3"].contains(&name.as_str())).collect();
        let known = ["proc", "usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "opt", "nix", "etc", "var", "tmp", "run", "dev", "sys"];
        for place in ["/proc/self/cwd/", "/proc/self/cwd/../../..", "/"] {
            let names = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            // The test program itself lies in a folder that nothing else is in.
            gains.extend(names.filter(|name| !known.contains(&name.as_str())).map(|name| format!("{place}{name}")));
        }
        gains
    };

    programs_that_gain_rights || {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts.lines().filter(|line| !line.contains("nosuid")).map(str::to_owned).collect()
    };

    files_of_the_machine || {
        let mut gains = all([
            reads("/etc/shadow"),
            gained("/root", fs::read_dir("/root").map(drop)),
            gained("/home", fs::read_dir("/home").map(drop)),
            gained("/boot", fs::read_dir("/boot").map(drop)),
            gained("/var/lib/dpkg", fs::read_dir("/var/lib/dpkg").map(drop)),
            gained("/var/log", fs::read_dir("/var/log").map(drop)),
            writes("/etc/passwd", "x"),
            writes("/etc/hosts", "x"),
            writes("/usr/bin/env", "x"),
        ]);
        for place in ["/", "/etc", "/usr", "/dev", "/var", "/proc", "/sys"] {
            gains.extend(gained(place, File::create(format!("{place}/made"))));
        }
        gains
    };
}
