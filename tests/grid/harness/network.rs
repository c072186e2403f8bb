//! Machines that are none: network namespaces on one bridge. Needs root, `ip` (iproute2), `unshare` and `nsenter`
//! (util-linux).
//!
//! No namespace has a name: each lives as long as a process that waits in it for the end of its standard input, which comes
//! when the test ends, however it ends. So nothing is ever left behind, and nothing outside of them is touched.

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use super::{
    server::Guard,
    wait::{LONG, until},
};

/// Some machines, each with one link to a bridge.
#[derive(Debug)]
pub(crate) struct Network {
    bridge: Machine,
    machines: Vec<Machine>,
}

/// A namespace.
#[derive(Debug)]
pub(crate) struct Machine(Guard);

impl Machine {
    fn start() -> Result<Self, String> {
        let mut command = Command::new("unshare");
        command.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().map_err(|error| format!("unshare: {error}"))?;
        let mut machine = Self(Guard(child));
        let mut failed = None;
        let (own, pid) = (fs::read_link("/proc/self/ns/net").ok(), machine.pid());
        until("a namespace", LONG, || {
            let there = fs::read_link(format!("/proc/{pid}/ns/net")).ok();
            failed = machine.0.0.try_wait().expect("a child");
            (failed.is_some() || (there.is_some() && there != own)).then_some(())
        });
        match failed {
            None => Ok(machine),
            Some(_) => Err(format!("unshare --net: {}", said(&mut machine.0.0))),
        }
    }

    fn pid(&self) -> String {
        self.0.0.id().to_string()
    }

    /// `ip` in this namespace.
    fn ip(&self, args: &str) -> Result<(), String> {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid(), "-n", "ip"]).args(args.split(' '));
        let output = command.output().map_err(|error| format!("nsenter: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("ip {args}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }

    /// What a command is to be put behind to run there.
    pub(super) fn prefix(&self) -> Vec<String> {
        ["nsenter", "-t", &self.pid(), "-n"].map(str::to_owned).to_vec()
    }
}

fn said(child: &mut Child) -> String {
    let mut text = String::new();
    if let Some(stderr) = &mut child.stderr {
        // What can't be read is not worth a second error.
        drop(std::io::Read::read_to_string(stderr, &mut text));
    }
    text.trim().to_owned()
}

impl Network {
    /// So many machines, or why there can't be any here; that was said on standard error then, whoever captures output.
    pub(crate) fn of(machines: usize) -> Option<Self> {
        Self::build(machines)
            .inspect_err(|reason| {
                // Past the capture of the test runner, because a test that was skipped looks like one that passed.
                drop(writeln!(std::io::stderr(), "skipped: no network namespaces here ({reason})"));
            })
            .ok()
    }

    fn build(count: usize) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root may make them".into());
        }
        for tool in ["ip", "unshare", "nsenter"] {
            let found = std::env::var_os("PATH").is_some_and(|path| {
                std::env::split_paths(&path).any(|folder: PathBuf| folder.join(tool).exists())
            });
            if !found {
                return Err(format!("there is no {tool}"));
            }
        }
        let bridge = Machine::start()?;
        bridge.ip("link add br0 type bridge")?;
        bridge.ip("link set br0 up")?;
        let mut this = Self { bridge, machines: Vec::new() };
        for number in 0..count {
            let machine = Machine::start()?;
            let (bridge, pid) = (&this.bridge, machine.pid());
            bridge.ip(&format!("link add port{number} type veth peer name eth0 netns {pid}"))?;
            bridge.ip(&format!("link set port{number} master br0 up"))?;
            machine.ip("link set lo up")?;
            machine.ip(&format!("address add {}/24 dev eth0", Self::address(number)))?;
            machine.ip("link set eth0 up")?;
            this.machines.push(machine);
        }
        Ok(this)
    }

    /// Where a machine is: an address for private use.
    pub(crate) fn address(number: usize) -> String {
        format!("10.203.77.{}", number + 1)
    }

    /// One of them.
    pub(crate) fn machine(&self, number: usize) -> &Machine {
        &self.machines[number]
    }

    /// Cuts the link of a machine, or mends it.
    pub(crate) fn set_link(&self, number: usize, is_up: bool) {
        let state = if is_up { "up" } else { "down" };
        self.bridge.ip(&format!("link set port{number} {state}")).expect("a link");
    }
}
