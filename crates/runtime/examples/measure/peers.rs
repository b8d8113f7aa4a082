//! The launchers that ours is measured beside, each as isolated as it makes an app by itself, without a network outside.
//!
//! All run the same root file system, which has busybox and nothing else. What they are given less than ours is said where it is.

use std::fs;
use std::io::{BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use berth_clock::{Clock as _, SystemClock};
use rustix::net::{AddressFamily, SocketType};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};

use crate::Outcome;
use crate::instances::{APP, connect_by, first_byte, millis, pause};

/// The user that the app is.
const USER: u32 = 61_235;
const DOCKER_API: &str = "/v1.41";

pub(crate) struct Peer {
    launcher: Launcher,
    scratch: PathBuf,
    clock: SystemClock,
}

enum Launcher {
    Runc,
    Bwrap,
    Docker(Child),
}

/// What is left to do when a start was measured.
enum End {
    Kill(Child),
    Runc(String),
    Docker(String),
}

impl Peer {
    pub(crate) fn new(name: &str, scratch: &Path) -> Outcome<Self> {
        root_file_system(scratch)?;
        let launcher = match name {
            "runc" => {
                bundle(scratch)?;
                Launcher::Runc
            }
            "bwrap" => Launcher::Bwrap,
            "docker" => Launcher::Docker(dockerd(scratch)?),
            _ => return Err(format!("there is no launcher {name}").into()),
        };
        Ok(Self { launcher, scratch: scratch.to_owned(), clock: SystemClock::new() })
    }

    /// How long it takes to start the app and get an answer, in milliseconds.
    pub(crate) fn start(&mut self, round: usize) -> Outcome<f64> {
        let name = format!("bench-{round}");
        let began = self.clock.monotonic();
        let (pid, end) = match &self.launcher {
            Launcher::Runc => self.runc(name)?,
            Launcher::Bwrap => self.bwrap()?,
            Launcher::Docker(_) => {
                let (pid, id) = docker_start(&self.scratch, "bench", &name)?;
                (pid, End::Docker(id))
            }
        };
        first_byte(&self.clock, || connect_within(pid))?;
        let took = millis(self.clock.monotonic() - began);
        match end {
            End::Kill(mut child) => {
                child.kill()?;
                child.wait()?;
            }
            End::Runc(name) => succeed(self.runc_command().args(["delete", "--force", &name]))?,
            End::Docker(id) => {
                call(&self.scratch, "DELETE", &format!("/containers/{id}?force=1"), &Value::Null)?;
            }
        }
        Ok(took)
    }

    fn runc_command(&self) -> Command {
        let mut command = program("runc");
        command.arg("--root").arg(self.scratch.join("runc-state"));
        command
    }

    /// With namespaces and limits like ours, but without a user namespace and without seccomp, as `runc spec` leaves it.
    fn runc(&self, name: String) -> Outcome<(u32, End)> {
        let pid_file = self.scratch.join("runc.pid");
        let mut command = self.runc_command();
        command.args(["run", "--detach", "--bundle"]).arg(self.scratch.join("bundle"));
        command.arg("--pid-file").arg(&pid_file).arg(&name);
        succeed(&mut command)?;
        Ok((fs::read_to_string(&pid_file)?.trim().parse()?, End::Runc(name)))
    }

    /// With all namespaces, but without limits and without seccomp: it has neither of its own.
    fn bwrap(&self) -> Outcome<(u32, End)> {
        let user = USER.to_string();
        let mut command = program("bwrap");
        command.args(["--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]);
        command.args(["--uid", &user, "--gid", &user, "--info-fd", "1", "--ro-bind"]);
        command.arg(self.scratch.join("root")).args(["/", "--proc", "/proc", "--dev", "/dev"]);
        command.args(["--tmpfs", "/tmp", "--"]).args(APP).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let told = child.stdout.take().ok_or("its output is a pipe")?;
        let mut text = Vec::new();
        for byte in BufReader::new(told).bytes() {
            text.push(byte?);
            if text.ends_with(b"}") {
                break;
            }
        }
        let told: Value = serde_json::from_slice(&text)?;
        let pid = told["child-pid"].as_u64().ok_or("bwrap told no process")?;
        Ok((pid.try_into()?, End::Kill(child)))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Launcher::Docker(child) = &mut self.launcher {
            let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
            // It ends its containerd on its way.
            if let Some(pid) = pid
                && rustix::process::kill_process(pid, rustix::process::Signal::TERM).is_ok()
            {
                drop(child.wait());
            }
        }
    }
}

/// By Docker's API, with limits, its own seccomp profile, and the network `none`, which spares it a bridge. Gives the app's process and the container.
pub(crate) fn docker_start(scratch: &Path, image: &str, name: &str) -> Outcome<(u32, String)> {
    let wanted = json!({
        "Image": image, "Cmd": APP, "User": USER.to_string(),
        "HostConfig": {
            "NetworkMode": "none", "Memory": 256 << 20, "NanoCpus": 2_000_000_000_u64, "PidsLimit": 256,
            "CapDrop": ["ALL"], "ReadonlyRootfs": true, "SecurityOpt": ["no-new-privileges"],
            "Tmpfs": { "/tmp": "" },
        },
    });
    let made = call(scratch, "POST", &format!("/containers/create?name={name}"), &wanted)?;
    let id = made["Id"].as_str().ok_or_else(|| format!("docker made nothing: {made}"))?.to_owned();
    let started = call(scratch, "POST", &format!("/containers/{id}/start"), &Value::Null)?;
    let shown = call(scratch, "GET", &format!("/containers/{id}/json"), &Value::Null)?;
    let pid = shown["State"]["Pid"].as_u64().filter(|pid| *pid > 0);
    let pid = pid.ok_or_else(|| format!("docker started nothing: {started}"))?;
    Ok((pid.try_into()?, id))
}

/// One call of Docker's API; by HTTP/1.0, so that the answer is what comes until the end.
pub(crate) fn call(scratch: &Path, method: &str, path: &str, body: &Value) -> Outcome<Value> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let mut stream = UnixStream::connect(scratch.join("docker.sock"))?;
    let head = "HTTP/1.0\r\nhost: docker\r\ncontent-type: application/json";
    write!(stream, "{method} {DOCKER_API}{path} {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    Ok(if body.trim().is_empty() { Value::Null } else { serde_json::from_str(body)? })
}

/// A connection to the app, by a socket of the network that this process is in.
pub(crate) fn connect_within(pid: u32) -> Outcome<TcpStream> {
    let network = fs::File::open(format!("/proc/{pid}/ns/net"))?;
    // A thread of its own, which ends there.
    let made = std::thread::spawn(move || -> rustix::io::Result<OwnedFd> {
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
        rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)
    });
    connect_by(made.join().map_err(|_panic| "the thread ended early")??)
}

fn root_file_system(scratch: &Path) -> Outcome<()> {
    let root = scratch.join("root");
    for folder in ["bin", "proc", "dev", "sys", "tmp", "etc"] {
        fs::create_dir_all(root.join(folder))?;
    }
    if !root.join("bin/busybox").try_exists()? {
        fs::copy("/bin/busybox", root.join("bin/busybox"))?;
    }
    Ok(())
}

fn bundle(scratch: &Path) -> Outcome<()> {
    let bundle = scratch.join("bundle");
    fs::create_dir_all(&bundle)?;
    drop(fs::remove_file(bundle.join("config.json")));
    succeed(program("runc").arg("spec").current_dir(&bundle))?;
    let mut config: Value = serde_json::from_slice(&fs::read(bundle.join("config.json"))?)?;
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(APP);
    config["process"]["user"] = json!({ "uid": USER, "gid": USER });
    config["process"]["capabilities"] = json!({});
    config["root"] = json!({ "path": scratch.join("root"), "readonly": true });
    config["linux"]["resources"] = json!({
        "memory": { "limit": 256 << 20 }, "cpu": { "quota": 200_000, "period": 100_000 }, "pids": { "limit": 256 },
    });
    let mounts = config["mounts"].as_array_mut().ok_or("a spec without mounts")?;
    mounts.push(
        json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev"] }),
    );
    fs::write(bundle.join("config.json"), config.to_string())?;
    Ok(())
}

/// A daemon of our own, with everything of it below `scratch`.
fn dockerd(scratch: &Path) -> Outcome<Child> {
    let socket = format!("unix://{}", scratch.join("docker.sock").display());
    let log = fs::File::create(scratch.join("dockerd.log"))?;
    let mut command = program("dockerd");
    command
        .arg("--data-root")
        .arg(scratch.join("docker"))
        .arg("--exec-root")
        .arg(scratch.join("docker-exec"));
    command.arg("--pidfile").arg(scratch.join("docker.pid")).args(["--host", &socket]);
    command.args(["--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]);
    let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
    let clock = SystemClock::new();
    let began = clock.monotonic();
    while call(scratch, "GET", "/version", &Value::Null).is_err() {
        if (clock.monotonic() - began).as_secs() > 60 {
            return Err("dockerd does not answer; docker.log says why".into());
        }
        pause(std::time::Duration::from_millis(50));
    }
    let tar = scratch.join("root.tar");
    succeed(program("tar").arg("-cf").arg(&tar).arg("-C").arg(scratch.join("root")).arg("."))?;
    succeed(program("docker").args(["--host", &socket, "import"]).arg(&tar).arg("bench"))?;
    Ok(child)
}

#[expect(
    clippy::disallowed_methods,
    reason = "what is measured is how long these take, not what guards them"
)]
pub(crate) fn program(name: &str) -> Command {
    Command::new(name)
}

pub(crate) fn succeed(command: &mut Command) -> Outcome<()> {
    let ended = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    if ended.success() { Ok(()) } else { Err(format!("{command:?} ended with {ended}").into()) }
}
