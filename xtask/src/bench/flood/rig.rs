//! A second link to the server, by which the flood comes.

use std::{
    fs,
    process::{self, Command},
    time::Duration,
};

use anyhow::{Context as _, Result};
use ftpguard_tests::{
    Family,
    ftpd::{Kind, Settings},
    namespace::Namespace,
    process::Process,
    scenario::Stage,
};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use serde_json::Value;

use super::super::{Bench, ways::tool};

/// Receives the flood, and serves.
const SERVER_PROCESSOR: usize = 0;
/// Makes the flood, and is the client.
const CLIENT_PROCESSOR: usize = 1;

/// A server with an ftpd, and a link to it over which nothing but a flood comes.
pub(super) struct Rig {
    pub(super) stage: Stage,
    source: Namespace,
    interface: String,
    ethernet: String,
}

/// What the server received.
pub(super) struct Received {
    pub(super) packets: f64,
    /// The receiving thread's processor time.
    pub(super) nanoseconds: f64,
}

impl Rig {
    pub(super) fn new() -> Result<Self> {
        let stage = Stage::new(Settings::of(Kind::Vsftpd))?;
        // Sessions inherit it.
        pin(stage.ftpd.id(), SERVER_PROCESSOR)?;
        // The sandbox sweeps up what begins like this.
        let source = Namespace::new(&format!("fg{}-flood", process::id()))?;
        // By its name the thread that receives is found among all others.
        let interface = format!("f{}", process::id());
        let server = stage.sandbox.server();
        source.ip(&[
            "link",
            "add",
            "flood",
            "type",
            "veth",
            "peer",
            "name",
            &interface,
            "netns",
            server.name(),
        ])?;
        source.ip(&["link", "set", "flood", "up"])?;
        // What is sent here is thrown away.
        source.ip(&[
            "link", "add", "nowhere", "type", "veth", "peer", "name", "hole",
        ])?;
        source.ip(&["link", "set", "nowhere", "up"])?;
        source.ip(&["link", "set", "hole", "up"])?;
        server.ip(&["link", "set", &interface, "up"])?;
        let back = ethernet(&source, "flood")?;
        // Answers to the flood go back there; without a firewall there are some.
        for (family, gateway, sources) in [
            ("-4", "169.254.9.9", "198.18.0.0/15"),
            ("-6", "fe80::9", "2001:2::/48"),
        ] {
            let neighbour = ["neigh", "add", gateway, "lladdr", &back, "dev", &interface];
            server.ip(&[&[family], &neighbour[..]].concat())?;
            let route = ["route", "add", sources, "via", gateway, "dev", &interface];
            server.ip(&[&[family], &route[..], &["onlink"]].concat())?;
        }
        for all in ["all", "default", &interface] {
            server.set(&format!("net/ipv4/conf/{all}/rp_filter"), "0")?;
        }
        let rig = Self {
            ethernet: ethernet(server, &interface)?,
            stage,
            source,
            interface,
        };
        rig.receive_in_a_thread()?;
        Ok(rig)
    }

    pub(super) fn interface(&self) -> &str {
        &self.interface
    }

    /// Has the interface take frames as a network card does, and a thread receive them (Linux
    /// 5.12), whose processor time can be read.
    fn receive_in_a_thread(&self) -> Result<()> {
        let server = self.stage.sandbox.server().name();
        let interface = &self.interface;
        let offload = [
            "netns", "exec", server, "ethtool", "-K", interface, "gro", "on",
        ];
        tool("ip", &offload)?;
        // `ip netns exec` shows the namespace's own /sys.
        let threaded = format!("echo 1 > /sys/class/net/{interface}/threaded");
        tool("ip", &["netns", "exec", server, "sh", "-c", &threaded])
            .context("receiving in a thread needs Linux 5.12")?;
        Ok(())
    }

    /// The receiving thread.
    fn receiver(&self) -> Result<u32> {
        let name = format!("napi/{}", self.interface);
        let processes = fs::read_dir("/proc").context("reading /proc")?;
        let pid = processes
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
            .find(|pid| {
                let name_of = fs::read_to_string(format!("/proc/{pid}/comm"));
                name_of.is_ok_and(|other| other.starts_with(&name))
            })
            .with_context(|| format!("no thread {name}"))?;
        pin(pid, SERVER_PROCESSOR)?;
        Ok(pid)
    }

    /// Sends as many SYNs as go.
    pub(super) fn flood(&self, bench: &Bench, family: Family, seconds: f64) -> Result<Received> {
        let receiver = self.receiver()?;
        // On the processor that receives it: the buffers come and go between two processors
        // otherwise, and their locks cost more than the programs that are compared.
        let mut command = self.command(bench, family, true, SERVER_PROCESSOR, seconds);
        let before = (self.packets()?, processor_time(receiver)?);
        let limit = Duration::from_secs_f64(seconds * 3.0 + 20.0);
        self.source.run(&mut command, limit)?.success("the flood")?;
        let after = (self.packets()?, processor_time(receiver)?);
        Ok(Received {
            packets: after.0 - before.0,
            nanoseconds: after.1 - before.1,
        })
    }

    /// Begins to send at this rate; or into the void.
    pub(super) fn start(
        &self,
        bench: &Bench,
        arrives: bool,
        rate: u32,
        limit: Duration,
    ) -> Result<Process> {
        self.receiver()?;
        let seconds = limit.as_secs_f64();
        let mut command = self.command(bench, Family::V4, arrives, CLIENT_PROCESSOR, seconds);
        command.args(["--rate", &rate.to_string()]);
        let mut process = self.source.spawn(&mut command)?;
        process.wait_for_line("ready line", Duration::from_secs(10), |line| {
            line == "ready"
        })?;
        Ok(process)
    }

    fn command(
        &self,
        bench: &Bench,
        family: Family,
        arrives: bool,
        processor: usize,
        seconds: f64,
    ) -> Command {
        let ports = &self.stage.ftpd.settings().passive_ports;
        let count = ports.len();
        let server = self.stage.sandbox.server().address(family);
        let mut command = Command::new("taskset");
        command.args(["-c", &processor.to_string()]);
        command.arg(&bench.helper).arg("flood");
        command.args(["--interface", if arrives { "flood" } else { "nowhere" }]);
        command.args(["--to", &self.ethernet]);
        command.args(["--destination", &server.to_string()]);
        command.args(["--first-port", &ports.start().to_string()]);
        command.args(["--ports", &count.to_string()]);
        command.args(["--seconds", &seconds.to_string()]);
        command
    }

    /// How many packets the interface has received.
    fn packets(&self) -> Result<f64> {
        let server = self.stage.sandbox.server();
        let shown = server.ip(&["-s", "-j", "link", "show", &self.interface])?;
        let shown: Value = serde_json::from_str(&shown.stdout).context("ip's answer")?;
        let packets = &shown[0]["stats64"]["rx"]["packets"];
        packets.as_f64().context("no packets in ip's answer")
    }
}

/// An interface's Ethernet address.
fn ethernet(namespace: &Namespace, interface: &str) -> Result<String> {
    let shown = namespace.ip(&["-j", "link", "show", interface])?;
    let shown: Value = serde_json::from_str(&shown.stdout).context("ip's answer")?;
    let address = shown[0]["address"].as_str().context("no address")?;
    Ok(address.to_owned())
}

/// Keeps a process or thread on one processor; 0 is the calling thread.
pub(super) fn pin(pid: u32, processor: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(processor)?;
    sched_setaffinity(Pid::from_raw(pid.cast_signed()), &set)
        .with_context(|| format!("keeping {pid} on processor {processor}"))
}

/// Nanoseconds that a process has been on a processor, with all its threads.
pub(in super::super) fn processor_time(pid: u32) -> Result<f64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).context("reading threads")?;
    let times = tasks.flatten().filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    Ok(times.sum())
}
