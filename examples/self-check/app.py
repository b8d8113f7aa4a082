"""What an app finds when it looks around on its machine: the things that people look for who want to get out of a container.

Deployed, it shows a page; `/json` is the same for programs. What is found is of use to an intruder; what was looked for and not found
is listed too. Nothing is changed: calls to the kernel are tried in a process of their own, with arguments that do nothing.
"""

import ctypes
import errno
import html
import json
import os
import platform
import socket
import stat
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LIBC = ctypes.CDLL(None, use_errno=True)
REFUSED = {errno.EPERM, errno.ENOSYS, errno.EACCES}

# Of x86_64 and of aarch64; the arguments are wrong on purpose, so that one that is let through fails in another way.
CALLS = {
    "mount": (165, 40, (0, 0, 0, 0, 0)),
    "unshare of users": (272, 97, (0x10000000,)),
    "unshare of mounts": (272, 97, (0x00020000,)),
    "setns": (308, 268, (-1, 0)),
    "pivot_root": (155, 41, (0, 0)),
    "ptrace": (101, 117, (16, 1, 0, 0)),
    "process_vm_readv": (310, 270, (1, 0, 0, 0, 0, 0)),
    "add_key": (248, 217, (0, 0, 0, 0, 0)),
    "keyctl": (250, 219, (0, -3, 0, 0, 0)),
    "bpf": (321, 280, (0, 0, 0)),
    "io_uring_setup": (425, 425, (1, 0)),
    "userfaultfd": (323, 282, (0,)),
    "perf_event_open": (298, 241, (0, 0, -1, -1, 0)),
    "open_by_handle_at": (304, 265, (-1, 0, 0)),
    "init_module": (175, 105, (0, 0, 0)),
    "kexec_load": (246, 104, (0, 0, 0, 0)),
    "reboot": (169, 142, (0, 0, 0, 0)),
    "swapon": (167, 224, (0, 0)),
    "settimeofday": (164, 170, (0, 0)),
    "quotactl": (179, 60, (0, 0, 0, 0)),
}
SOCKETS = [
    "/var/run/docker.sock",
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/podman/podman.sock",
    "/run/systemd/private",
    "/run/dbus/system_bus_socket",
    "/var/run/secrets/kubernetes.io/serviceaccount/token",
]
SECRETS = [
    "/etc/shadow",
    "/etc/gshadow",
    "/etc/ssh/ssh_host_ed25519_key",
    "/root",
    "/home",
    "/var/log",
    "/var/lib/docker",
    "/proc/kcore",
    "/proc/keys",
    "/proc/timer_list",
    "/proc/1/environ",
    "/proc/1/root/etc",
    "/sys/firmware",
    "/sys/kernel/security",
    "/dev/mem",
    "/dev/kmsg",
]
METADATA = ["169.254.169.254", "100.100.100.200", "168.63.129.16", "fd00:ec2::254"]
PORTS = [22, 80, 443, 2375, 2376, 2379, 3306, 5432, 6379, 6443, 7070, 8080, 9000, 10250]
DEVICES = {"null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "pts", "shm", "mqueue", "fd", "stdin", "stdout", "stderr", "core"}
WRITABLE = ("/tmp", "/run", "/dev/shm", "/dev/mqueue", "/dev/pts", "/proc")


def status():
    with open("/proc/self/status") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def rights():
    said = status()
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        if int(said[name], 16):
            yield f"capabilities {name} {said[name].strip()}"
    if said.get("NoNewPrivs", "").strip() != "1":
        yield "privileges can be gained by a set-user-id program"
    if said.get("Seccomp", "").strip() != "2":
        yield "no filter of system calls"


def users():
    with open("/proc/self/uid_map") as file:
        if file.read().split() == ["0", "0", "4294967295"]:
            yield "the users here are the machine's"
    try:
        os.setuid(0)
        yield "user 0 can be had"
    except OSError:
        pass


def processes():
    others = [pid for pid in os.listdir("/proc") if pid.isdigit() and int(pid) not in (1, os.getpid(), os.getppid())]
    names = set()
    for pid in others:
        try:
            with open(f"/proc/{pid}/comm") as file:
                names.add(file.read().strip())
        except OSError:
            pass
    names -= {"python3", "python", os.path.basename(sys.executable)}
    if names:
        yield f"processes of others: {', '.join(sorted(names)[:5])}"


def calls():
    number = {"x86_64": 0, "aarch64": 1}.get(platform.machine())
    if number is None:
        return
    for name, row in CALLS.items():
        pid = os.fork()
        if pid == 0:
            ctypes.set_errno(0)
            done = LIBC.syscall(ctypes.c_long(row[number]), *[ctypes.c_long(it) for it in row[2]])
            os._exit(0 if done == -1 and ctypes.get_errno() in REFUSED else 1)
        if os.waitpid(pid, 0)[1] != 0:
            yield f"the kernel looks at {name}"


def files():
    for path in SECRETS:
        try:
            if os.path.isdir(path):
                if os.listdir(path):
                    yield f"{path} can be listed"
            else:
                with open(path, "rb") as file:
                    if file.read(1):
                        yield f"{path} can be read"
        except OSError:
            pass


def writable():
    own = os.getcwd()
    for path in ["/"] + [entry.path for entry in os.scandir("/")] + ["/etc/passwd", "/sys/fs/cgroup", "/proc/sys/kernel", own]:
        if path.startswith(WRITABLE) or os.path.islink(path):
            continue
        if os.access(path, os.W_OK):
            yield f"{path} can be written to"
    for path in ("/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname"):
        try:
            open(path, "a").close()
            yield f"{path} can be written to"
        except OSError:
            pass


def devices():
    for entry in os.scandir("/dev"):
        mode = entry.stat(follow_symlinks=False).st_mode
        if entry.name not in DEVICES and (stat.S_ISBLK(mode) or stat.S_ISCHR(mode)):
            yield f"the device {entry.path}"
    try:
        os.mknod("/tmp/disk", stat.S_IFBLK | 0o600, os.makedev(8, 0))
        os.unlink("/tmp/disk")
        yield "devices can be made"
    except OSError:
        pass


def sockets():
    for path in SOCKETS:
        if os.path.exists(path):
            yield f"{path} is there"
    with open("/proc/net/unix") as file:
        names = [line.split()[-1] for line in file if "@" in line]
    if names:
        yield f"abstract sockets of others: {', '.join(names[:3])}"


def gateways():
    with open("/proc/net/route") as file:
        rows = [line.split() for line in file][1:]
    for row in rows:
        # One without an address leads through a device, and to nobody.
        if row[1] == "00000000" and row[2] != "00000000":
            yield socket.inet_ntoa(bytes.fromhex(row[2])[::-1])


def reached(address, port):
    try:
        socket.create_connection((address, port), timeout=0.5).close()
        return True
    except OSError:
        return False


def network():
    for address in METADATA:
        if reached(address, 80):
            yield f"the metadata service at {address}"
    more = [int(port) for port in os.environ.get("CHECK_PORTS", "").split(",") if port]
    own = int(os.environ.get("PORT", "0"))
    for address in ["127.0.0.1", *gateways(), *os.environ.get("CHECK_ADDRESSES", "").split()]:
        for port in PORTS + more:
            if (address, port) != ("127.0.0.1", own) and reached(address, port):
                yield f"somebody listens at {address}:{port}"


def environment():
    for name in os.environ:
        # BERTH_TOKEN names the instance and opens nothing.
        if any(word in name for word in ("SECRET", "PASSWORD", "TOKEN", "KUBERNETES", "AWS_")) and name != "BERTH_TOKEN":
            yield f"the variable {name}"


CHECKS = [rights, users, processes, calls, files, writable, devices, sockets, network, environment]


def look():
    results = []
    for check in CHECKS:
        # In a process of its own: it gives up what it tries to gain, and a filter that kills kills nothing else.
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            try:
                found = list(check())
            except Exception as error:
                found = [f"could not look: {error!r}"]
            with os.fdopen(writer, "w") as out:
                json.dump(found, out)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as said:
            text = said.read()
        os.waitpid(pid, 0)
        results.append({"check": check.__name__, "found": json.loads(text) if text else ["the check was killed"]})
    return results


def page(results):
    rows = []
    for result in results:
        found = result["found"]
        words = "<br>".join(html.escape(word) for word in found) if found else "nothing"
        rows.append(f'<tr class="{"found" if found else "none"}"><th>{result["check"]}</th><td>{words}</td></tr>')
    count = sum(len(result["found"]) for result in results)
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Self-check</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 3rem auto; padding: 0 1rem; color: #1c2024; }}
table {{ border-collapse: collapse; width: 100%; }} th, td {{ text-align: left; vertical-align: top; padding: .5rem .75rem; border-top: 1px solid #dde1e6; }}
th {{ font-weight: 600; width: 9rem; }} .none td {{ color: #687076; }} .found td {{ color: #b42318; }}
</style><h1>{count or "Nothing"} found</h1><p>What this app finds on its machine that an intruder could use.</p>
<table>{"".join(rows)}</table></html>"""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path not in ("/", "/json"):
            self.send_error(404)
            return
        results = look()
        kind = "application/json" if self.path == "/json" else "text/html; charset=utf-8"
        body = (json.dumps(results) if self.path == "/json" else page(results)).encode()
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("", int(os.environ.get("PORT", "8080"))), Handler).serve_forever()
