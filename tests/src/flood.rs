//! A flood of SYNs, and what it costs a process.

use std::{fs, net::Ipv4Addr, process::Command, time::Duration};

use anyhow::{Context as _, Result};

use crate::{namespace::Namespace, process::Process};

/// Sends live frames of `BPF_PROG_TEST_RUN`: more than a million SYNs a second on one processor.
const GENERATOR: &str = include_str!("flood.py");

/// Where a flood goes, and how much of it.
#[derive(Clone, Copy, Debug)]
pub struct Flood<'a> {
    /// The interface by which it leaves.
    pub interface: &'a str,
    /// The hardware address of the next hop.
    pub hardware: [u8; 6],
    /// The destination.
    pub destination: Ipv4Addr,
    /// The destination port.
    pub port: u16,
    /// SYNs a second.
    pub rate: u32,
    /// For how long.
    pub seconds: u32,
    /// The only source, random ones where there is none.
    pub source: Option<Ipv4Addr>,
}

impl Flood<'_> {
    /// Starts it in this network namespace.
    pub fn start(&self, place: &Namespace) -> Result<Process> {
        let hardware = self.hardware.map(|byte| format!("{byte:02x}")).join(":");
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-c", GENERATOR, self.interface, &hardware]);
        command.args([self.destination.to_string(), self.port.to_string()]);
        command.args([self.rate.to_string(), self.seconds.to_string()]);
        command.args(self.source.map(|source| source.to_string()));
        let mut flood = place.spawn(&mut command)?;
        flood.wait_for_line("flood", Duration::from_secs(5), |line| line == "flooding")?;
        Ok(flood)
    }
}

/// Waits for the end of a flood, and returns how many SYNs it sent.
pub fn sent(flood: Process) -> Result<u64> {
    let done = flood.wait(Duration::from_mins(1))?.success("the flood")?;
    let count = done
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("sent "))
        .with_context(|| format!("no count in {}", done.stdout))?;
    count.parse().context("the count")
}

/// How long a process has run on any processor so far.
pub fn processor_time(process: u32) -> Result<Duration> {
    let mut sum = Duration::ZERO;
    let threads = fs::read_dir(format!("/proc/{process}/task")).context("its threads")?;
    for thread in threads.flatten() {
        // Nanoseconds on a processor, waiting for one, and how often (Documentation/scheduler/
        // sched-stats.rst).
        let path = thread.path().join("schedstat");
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        let spent = text.split_whitespace().next().context("no time")?;
        sum += Duration::from_nanos(spent.parse().context("its time")?);
    }
    Ok(sum)
}
