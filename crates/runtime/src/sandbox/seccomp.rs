//! The seccomp filter: which system calls an app may make, as a classic BPF program.
//!
//! An allow-list in the spirit of Docker's default profile, and stricter where platforms of apps need less: nothing of namespaces, mounts,
//! keys, BPF, io_uring, userfaultfd, performance counters or other processes' memory. What is newer than the list is answered as a kernel
//! answers that does not know it (ENOSYS), so that libraries fall back; what is refused, with EPERM.
//!
//! The numbers are compiled into a binary search over ranges instead of a list of comparisons: the kernel runs the filter
//! once for every number when it is installed (its cache of verdicts), and then for each call that is not simply allowed.

mod calls;

use calls::{ALLOWED, NEWEST};

/// What the kernel is told to do with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Allow,
    /// Fails with this number.
    Errno(u16),
    /// Allowed when the word at this argument has none of these bits.
    WithoutBits {
        argument: u32,
        bits: u32,
    },
    /// Allowed when the word at this argument is none of these.
    NoneOf {
        argument: u32,
        values: &'static [u32],
    },
    /// Allowed when the word at this argument is one of these.
    OneOf {
        argument: u32,
        values: &'static [u32],
    },
}

const EPERM: u16 = 1;
const ENOSYS: u16 = 38;
const EAFNOSUPPORT: u16 = 97;

/// All namespaces that clone(2) can make: CLONE_NEWTIME is none of its flags.
const NEW_NAMESPACES: u32 = 0x7E02_0000;
/// Those of personality(2) that programs use: Linux, without randomised addresses, 32 bits of them, and the question.
const PERSONALITIES: &[u32] = &[0, 0x0008, 0x0002_0000, 0x0002_0008, 0x0004_0000, 0xFFFF_FFFF];
/// Unix, IPv4, IPv6, netlink (which tells addresses). No packets, no vsock, no kernel cryptography, no Bluetooth.
const FAMILIES: &[u32] = &[1, 2, 10, 16];
/// Typing into somebody's terminal (TIOCSTI), and the selection of the console (TIOCLINUX). And what a file counts as (FS_IOC_FSSETXATTR,
/// FS_IOC_SETFLAGS): whoever owns a file may take it out of its project, and so out of the limit of its volume, unless he is in a user namespace.
const TRICKS: &[u32] = &[0x5412, 0x541C, 0x401C_5820, 0x4008_6602];

/// The architecture that the kernel must say a call is of, as in linux/audit.h.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xC000_00B7;

/// An instruction of classic BPF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_AT_LEAST: u16 = 0x35;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

const ALLOW: u32 = 0x7FFF_0000;
const ERRNO: u32 = 0x0005_0000;

/// Where things are in struct seccomp_data.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;

/// The filter, as the kernel has it.
pub(crate) fn filter() -> Vec<u8> {
    bytes(&program(&ranges()))
}

fn bytes(program: &[Instruction]) -> Vec<u8> {
    let encode = |it: &Instruction| {
        let [low, high] = it.code.to_ne_bytes();
        let [k0, k1, k2, k3] = it.k.to_ne_bytes();
        [low, high, it.jt, it.jf, k0, k1, k2, k3]
    };
    program.iter().flat_map(encode).collect()
}

/// What becomes of a call of this number.
fn verdict(number: u32) -> Verdict {
    let special = |call: libc::c_long| u32::try_from(call) == Ok(number);
    if special(libc::SYS_clone) {
        return Verdict::WithoutBits { argument: 0, bits: NEW_NAMESPACES };
    }
    // Its flags are behind a pointer, where no filter looks. The C libraries fall back to clone.
    if special(libc::SYS_clone3) {
        return Verdict::Errno(ENOSYS);
    }
    if special(libc::SYS_personality) {
        return Verdict::OneOf { argument: 0, values: PERSONALITIES };
    }
    if special(libc::SYS_socket) {
        return Verdict::OneOf { argument: 0, values: FAMILIES };
    }
    if special(libc::SYS_ioctl) {
        return Verdict::NoneOf { argument: 1, values: TRICKS };
    }
    match ALLOWED.binary_search(&number) {
        Ok(_) => Verdict::Allow,
        Err(_) if number > NEWEST => Verdict::Errno(ENOSYS),
        Err(_) => Verdict::Errno(EPERM),
    }
}

/// The first numbers of ranges that have one verdict, with it.
fn ranges() -> Vec<(u32, Verdict)> {
    let mut ranges: Vec<(u32, Verdict)> = Vec::new();
    for number in 0..=NEWEST + 1 {
        let verdict = verdict(number);
        if ranges.last().is_none_or(|(_, last)| *last != verdict) {
            ranges.push((number, verdict));
        }
    }
    ranges
}

fn program(ranges: &[(u32, Verdict)]) -> Vec<Instruction> {
    let mut program = vec![
        Instruction { code: LOAD, jt: 0, jf: 0, k: ARCHITECTURE_AT },
        Instruction { code: JUMP_EQUAL, jt: 1, jf: 0, k: ARCHITECTURE },
        // Calls of another architecture have other numbers.
        give_back(Verdict::Errno(ENOSYS)),
        Instruction { code: LOAD, jt: 0, jf: 0, k: NUMBER_AT },
    ];
    search(ranges, &mut program);
    program
}

/// Appends a search for the range that the number, which is loaded, is in.
fn search(ranges: &[(u32, Verdict)], program: &mut Vec<Instruction>) {
    match ranges {
        [] => {}
        [(_, verdict)] => decide(*verdict, program),
        _ => {
            let (lower, upper) = ranges.split_at(ranges.len() / 2);
            let first = upper.first().map_or(0, |(first, _)| *first);
            let at = program.len();
            program.push(Instruction { code: JUMP_AT_LEAST, jt: 0, jf: 0, k: first });
            search(lower, program);
            let distance = program.len() - at - 1;
            match u8::try_from(distance) {
                Ok(distance) => program[at].jt = distance,
                Err(_) => {
                    // Too far for the eight bits of a comparison: it leads to a jump that has thirty-two.
                    program[at] = Instruction { code: JUMP_AT_LEAST, jt: 0, jf: 1, k: first };
                    let far = u32::try_from(distance).unwrap_or(u32::MAX);
                    program.insert(at + 1, Instruction { code: JUMP, jt: 0, jf: 0, k: far });
                }
            }
            search(upper, program);
        }
    }
}

fn decide(verdict: Verdict, program: &mut Vec<Instruction>) {
    let load = |argument: u32| Instruction { code: LOAD, jt: 0, jf: 0, k: ARGUMENTS_AT + 8 * argument };
    match verdict {
        Verdict::Allow | Verdict::Errno(_) => program.push(give_back(verdict)),
        Verdict::WithoutBits { argument, bits } => {
            program.push(load(argument));
            program.push(Instruction { code: JUMP_ANY_BIT, jt: 0, jf: 1, k: bits });
            program.push(give_back(Verdict::Errno(EPERM)));
            program.push(give_back(Verdict::Allow));
        }
        Verdict::OneOf { argument, values } => {
            program.push(load(argument));
            let refused = if values == FAMILIES { EAFNOSUPPORT } else { EPERM };
            compare(values, program);
            program.push(give_back(Verdict::Errno(refused)));
            program.push(give_back(Verdict::Allow));
        }
        Verdict::NoneOf { argument, values } => {
            program.push(load(argument));
            compare(values, program);
            program.push(give_back(Verdict::Allow));
            program.push(give_back(Verdict::Errno(EPERM)));
        }
    }
}

/// Jumps over the next instruction behind all of these when the word is one of `values`.
fn compare(values: &[u32], program: &mut Vec<Instruction>) {
    for (index, value) in values.iter().enumerate() {
        let left = u8::try_from(values.len() - index).unwrap_or(u8::MAX);
        program.push(Instruction { code: JUMP_EQUAL, jt: left, jf: 0, k: *value });
    }
}

fn give_back(verdict: Verdict) -> Instruction {
    let k = match verdict {
        Verdict::Errno(number) => ERRNO | u32::from(number),
        _ => ALLOW,
    };
    Instruction { code: RETURN, jt: 0, jf: 0, k }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Runs a program as the kernel does.
    fn run(program: &[Instruction], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let mut data = [number.to_ne_bytes(), architecture.to_ne_bytes(), [0; 4], [0; 4]].concat();
        data.extend(arguments.iter().flat_map(|argument| argument.to_ne_bytes()));
        let (mut at, mut word) = (0, 0);
        for _ in 0..4_096 {
            let Instruction { code, jt, jf, k } = program[at];
            let jump = |condition: bool| at + 1 + usize::from(if condition { jt } else { jf });
            at = match code {
                LOAD => {
                    let from = usize::try_from(k).unwrap();
                    word = u32::from_ne_bytes(data[from..from + 4].try_into().unwrap());
                    at + 1
                }
                JUMP => at + 1 + usize::try_from(k).unwrap(),
                JUMP_EQUAL => jump(word == k),
                JUMP_AT_LEAST => jump(word >= k),
                JUMP_ANY_BIT => jump(word & k != 0),
                RETURN => return k,
                _ => panic!("no such instruction: {code}"),
            };
        }
        panic!("the program does not end");
    }

    fn answer(call: libc::c_long, arguments: [u64; 6]) -> u32 {
        run(&program(&ranges()), ARCHITECTURE, call.try_into().unwrap(), arguments)
    }

    const REFUSED: u32 = ERRNO | EPERM as u32;
    /// file_setattr(2) of Linux 6.17, which the C library's bindings do not have yet.
    const FILE_SETATTR: libc::c_long = 469;

    #[test]
    fn every_number_gets_the_verdict_of_the_list() {
        let program = program(&ranges());
        for number in 0..2_000 {
            let answered = run(&program, ARCHITECTURE, number, [0; 6]);
            let expected = match verdict(number) {
                Verdict::Errno(errno) => ERRNO | u32::from(errno),
                Verdict::OneOf { values: FAMILIES, .. } => ERRNO | u32::from(EAFNOSUPPORT),
                _ => ALLOW,
            };
            assert_eq!(answered, expected, "call {number}");
        }
    }

    #[test]
    fn what_breaks_out_is_refused() {
        for call in [
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_pivot_root,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_ptrace,
            libc::SYS_process_vm_writev,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_bpf,
            libc::SYS_io_uring_setup,
            libc::SYS_userfaultfd,
            libc::SYS_perf_event_open,
            libc::SYS_open_by_handle_at,
            libc::SYS_fsopen,
            libc::SYS_move_mount,
            libc::SYS_mount_setattr,
            libc::SYS_kexec_load,
            libc::SYS_init_module,
            libc::SYS_reboot,
            libc::SYS_swapon,
            libc::SYS_settimeofday,
            libc::SYS_quotactl,
        ] {
            assert_eq!(answer(call, [0; 6]), REFUSED, "call {call}");
        }
    }

    #[test]
    fn flags_are_looked_at() {
        let threads = 0x003D_0F00;
        assert_eq!(answer(libc::SYS_clone, [threads, 0, 0, 0, 0, 0]), ALLOW);
        for namespace in [libc::CLONE_NEWUSER, libc::CLONE_NEWNS, libc::CLONE_NEWNET, libc::CLONE_NEWCGROUP] {
            let flags = threads | u64::try_from(namespace).unwrap();
            assert_eq!(answer(libc::SYS_clone, [flags, 0, 0, 0, 0, 0]), REFUSED);
        }
        assert_eq!(answer(libc::SYS_clone3, [0; 6]), ERRNO | u32::from(ENOSYS));
        for (family, allowed) in
            [(1, true), (2, true), (10, true), (16, true), (17, false), (38, false), (40, false)]
        {
            assert_eq!(
                answer(libc::SYS_socket, [family, 1, 0, 0, 0, 0]) == ALLOW,
                allowed,
                "family {family}"
            );
        }
        assert_eq!(answer(libc::SYS_ioctl, [0, 0x5412, 0, 0, 0, 0]), REFUSED);
        assert_eq!(answer(libc::SYS_ioctl, [0, 0x5413, 0, 0, 0, 0]), ALLOW);
        // What a file counts as may be read and not written, by whatever call.
        for (request, expected) in
            [(0x401C_5820, REFUSED), (0x4008_6602, REFUSED), (0x801C_581F, ALLOW), (0x8008_6601, ALLOW)]
        {
            assert_eq!(answer(libc::SYS_ioctl, [0, request, 0, 0, 0, 0]), expected, "{request:x}");
        }
        assert_ne!(answer(FILE_SETATTR, [0; 6]), ALLOW);
        // The kernel passes arguments of 32 bits as they come: what is above them must not hide what is below.
        assert_eq!(answer(libc::SYS_ioctl, [0, 0x1_0000_5412, 0, 0, 0, 0]), REFUSED);
        assert_eq!(answer(libc::SYS_personality, [0xFFFF_FFFF, 0, 0, 0, 0, 0]), ALLOW);
        assert_eq!(answer(libc::SYS_personality, [0x0400_0000, 0, 0, 0, 0, 0]), REFUSED);
    }

    #[test]
    fn other_architectures_and_newer_calls_are_unknown() {
        let program = program(&ranges());
        let unknown = ERRNO | u32::from(ENOSYS);
        // i386, and the numbers of x32, which say the same architecture.
        assert_eq!(run(&program, 0x4000_0003, 11, [0; 6]), unknown);
        assert_eq!(run(&program, ARCHITECTURE, 0x4000_0000, [0; 6]), unknown);
        assert_eq!(run(&program, ARCHITECTURE, NEWEST + 1, [0; 6]), unknown);
    }

    #[test]
    fn it_is_small() {
        let length = program(&ranges()).len();
        assert!(length < 350, "{length} instructions");
        assert!(ALLOWED.is_sorted_by(|one, next| one < next));
    }

    proptest! {
        /// However many ranges there are, also so many that jumps become long.
        #[test]
        fn a_search_finds_its_range(starts in prop::collection::btree_set(1_u32..5_000, 1..800), number in 0_u32..6_000) {
            let starts: Vec<u32> = [0].into_iter().chain(starts).collect();
            let ranges: Vec<(u32, Verdict)> = starts
                .iter()
                .enumerate()
                .map(|(index, start)| (*start, Verdict::Errno(u16::try_from(index).unwrap())))
                .collect();
            let found = run(&program(&ranges), ARCHITECTURE, number, [0; 6]) & 0xFFFF;
            let expected = starts.iter().rposition(|start| *start <= number).unwrap();
            prop_assert_eq!(usize::try_from(found).unwrap(), expected);
        }
    }
}
