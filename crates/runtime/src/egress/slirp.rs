//! The way out as an ordinary user: slirp4netns(1), a program of that user's at the other end of an interface of the instance's network.
//!
//! It sends on by sockets of its own what the instance sends, so that everything comes from the machine. It filters nothing: what an instance must not
//! reach its network refuses, which the shim and its keeper see to (`berth-shim/way_out.rs`, `keeper.rs`).

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use berth_process::{Group, Launch, Program, SealedImage, Stdio};
use berth_shim::config::{Network, StartConfig};
use berth_shim::netlink::{Mac, Prefix};
use berth_shim::way_out::WayOut;
use rustix::fs::MemfdFlags;
use rustix::pipe::PipeFlags;

use super::rules::{self, BLOCKED};

/// The word that has a shim try.
const LEAD_OUT: &str = "lead-out";
/// The network that instances and slirp4netns are in, the same for all: each is its own. It lies in what nobody is at.
const NETWORK: &str = "198.18.0.0/24";
/// The instance's address in it.
const OWN: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 100);
/// The address that slirp4netns takes there, the second one, and the hardware address that it makes of that.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
const MAC: Mac = [0x52, 0x55, 198, 18, 0, 2];

/// The platform's part of the ways out.
#[derive(Debug)]
pub(crate) struct Slirp {
    program: PathBuf,
}

impl Slirp {
    /// The way out of the instances of a platform that is not root's, after one was made and left nothing behind. Blocks, for some
    /// milliseconds where it works and some seconds where slirp4netns does nothing.
    ///
    /// # Errors
    /// Why no instance can have a way out here, and what to do about it.
    pub(crate) fn open(shim: &SealedImage) -> Result<Self, String> {
        let found = Program::Slirp.path();
        let program = found.or(Err("slirp4netns is not installed: it is in the package of that name"))?;
        let slirp = Self { program };
        let tried = slirp.attempt(shim).map_err(|error| format!("it could not be tried: {error}"))?;
        match tried {
            None => Ok(slirp),
            Some(what) if what.starts_with("/dev/net/tun: Permission denied") => {
                Err(format!("{what}; everybody may open it where it has its usual mode, 0666"))
            }
            Some(what) => Err(what),
        }
    }

    /// Has a shim make a way out. What is wrong with it, if anything is.
    fn attempt(&self, shim: &SealedImage) -> io::Result<Option<String>> {
        let config = StartConfig {
            argv: vec![LEAD_OUT.to_owned()],
            dir: "/".to_owned(),
            network: Network::Own,
            way_out: Some(self.config()),
            ..StartConfig::blank()
        };
        let mut file = File::from(rustix::fs::memfd_create("berth-lead-out", MemfdFlags::CLOEXEC)?);
        file.write_all(&config.encode())?;
        let mut launch =
            Launch::new(Program::Image(shim.clone())).arg0("berth-shim").arg(LEAD_OUT).group(Group::Session);
        let number = launch.inherit(&file)?;
        let (answer, out) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let launch = launch.arg(number.to_string()).dir("/").stdout(Stdio::Fd(out));
        let mut child = launch.start().map_err(io::Error::other)?;
        let mut said = String::new();
        File::from(answer).read_to_string(&mut said)?;
        let status = child.wait()?;
        Ok(match (status.success(), said.is_empty()) {
            (true, _) => None,
            (false, false) => Some(said),
            (false, true) => Some(format!("the shim that tried it ended with {status}")),
        })
    }

    /// What the shim of an instance is told.
    pub(crate) fn config(&self) -> WayOut {
        let [_, _, first, second, third, fourth] = MAC;
        debug_assert_eq!(
            GATEWAY.octets(),
            [first, second, third, fourth],
            "slirp4netns makes it of its address"
        );
        WayOut {
            program: command(self.program.to_string_lossy().into_owned()),
            own: OWN,
            gateway: GATEWAY,
            mac: MAC,
            resolvers: rules::nameservers(&rules::resolv_conf()).into_iter().collect(),
            refused: blocked(),
        }
    }
}

fn command(program: String) -> Vec<String> {
    let network = format!("--cidr={NETWORK}");
    // It would lead what goes to its own address to the machine's loopback otherwise.
    let options = ["--disable-host-loopback", "--enable-seccomp", "--mtu=65520", &network];
    [program].into_iter().chain(options.map(str::to_owned)).collect()
}

/// What is refused whatever the machine's own addresses are.
fn blocked() -> Vec<Prefix> {
    BLOCKED.into_iter().filter_map(prefix).collect()
}

fn prefix(text: &str) -> Option<Prefix> {
    let (address, bits) = text.split_once('/').unwrap_or((text, "32"));
    Some((address.parse().ok()?, bits.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_blocked_is_read_whole() {
        assert_eq!(blocked().len(), BLOCKED.len());
        assert_eq!(prefix("169.254.0.0/16"), Some((Ipv4Addr::new(169, 254, 0, 0), 16)));
        assert_eq!(prefix("100.100.100.200"), Some((Ipv4Addr::new(100, 100, 100, 200), 32)));
        assert_eq!((prefix("x"), prefix("1.2.3.4/x")), (None, None));
    }
}
