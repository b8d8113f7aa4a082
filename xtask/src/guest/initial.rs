//! The archive that the kernel begins with: a program, a few modules, and the script that finds the real root.
//!
//! Its format is "newc" of the kernel's Documentation/driver-api/early-userspace/buffer-format.rst: a head of hexadecimal numbers, a name, the bytes.

use std::fmt::Write as _;

use super::kernel::Module;

/// Kinds of entries, as in stat(2).
const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;

/// Where the guest finds this machine's files, what it changes of them, and the two together.
const FOLDERS: [&str; 7] = ["bin", "dev", "host", "modules", "new", "proc", "top"];

/// The archive of `busybox`, `modules`, and an `/init` that makes `first` the first program of the real root.
pub(super) fn archive(busybox: &[u8], modules: &[Module], first: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for folder in FOLDERS {
        put(&mut out, folder, FOLDER, &[]);
    }
    put(&mut out, "bin/busybox", PROGRAM, busybox);
    for module in modules {
        put(&mut out, &format!("modules/{}", module.name), FILE, &module.bytes);
    }
    put(&mut out, "init", PROGRAM, script(modules, first).as_bytes());
    put(&mut out, "TRAILER!!!", 0, &[]);
    out
}

/// Loads the modules, lays a layer of memory over this machine's files, and goes there.
fn script(modules: &[Module], first: &str) -> String {
    let mut script = "#!/bin/busybox sh\nset -e\nB=/bin/busybox\n".to_owned();
    for module in modules {
        writeln!(script, "$B insmod /modules/{}", module.name).expect("a string takes all");
    }
    script.push_str(
        "$B mount -t devtmpfs dev /dev\n\
         $B mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=512000 host /host\n\
         $B mount -t tmpfs -o size=50% top /top\n\
         $B mkdir /top/upper /top/work\n\
         $B mount -t overlay -o lowerdir=/host,upperdir=/top/upper,workdir=/top/work root /new\n\
         $B mount --move /dev /new/dev\n",
    );
    // Its first program starts what is listed there, and reaps whatever has lost its parent.
    write!(script, "echo '::once:{first}' > /new/etc/inittab\nexec $B switch_root /new /bin/busybox init\n")
        .expect("a string takes all");
    script
}

fn put(out: &mut Vec<u8>, name: &str, mode: u32, bytes: &[u8]) {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("what is put in is small");
    // No inode, owner, time or device; one link; the name's length counts the byte that ends it.
    let fields = [0, mode, 0, 0, 1, 0, length(bytes), 0, 0, 0, 0, length(name.as_bytes()) + 1, 0];
    let mut head = "070701".to_owned();
    for field in fields {
        write!(head, "{field:08x}").expect("a string takes all");
    }
    out.extend([head.as_bytes(), name.as_bytes(), &[0]].concat());
    pad(out);
    out.extend(bytes);
    pad(out);
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_begins_where_the_kernel_looks_for_it() {
        let modules = [Module { name: "a.ko".to_owned(), bytes: vec![7; 5] }];
        let bytes = archive(b"xyz", &modules, "/first");
        let (mut at, mut names) = (0, Vec::new());
        while at < bytes.len() {
            let text = |from: usize, length: usize| {
                std::str::from_utf8(&bytes[at + from..at + from + length]).unwrap().to_owned()
            };
            assert_eq!(text(0, 6), "070701", "at {at}");
            let number = |index: usize| usize::from_str_radix(&text(6 + index * 8, 8), 16).unwrap();
            let (size, name) = (number(6), number(11));
            names.push(text(110, name - 1));
            at = (at + 110 + name).next_multiple_of(4);
            at = (at + size).next_multiple_of(4);
        }
        assert_eq!(names.first().map(String::as_str), Some("bin"));
        assert_eq!(names[FOLDERS.len()..], ["bin/busybox", "modules/a.ko", "init", "TRAILER!!!"]);
    }

    #[test]
    fn the_script_loads_what_there_is_and_starts_what_it_is_told() {
        let script = script(&[Module { name: "a.ko".to_owned(), bytes: Vec::new() }], "/x guest --inside");
        assert!(script.contains("insmod /modules/a.ko\n") && script.contains("'::once:/x guest --inside'"));
    }
}
