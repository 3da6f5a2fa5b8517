//! Which machine, kernel and programs a report is of.

use std::{env, fs, process::Command, thread};

use serde_json::{Value, json};

use crate::exec::output;

/// The machine, and how the benchmark was called.
#[derive(Debug, Default)]
pub(super) struct Host {
    pub(super) facts: Vec<(&'static str, String)>,
}

impl Host {
    /// Asks the system.
    pub(super) fn ask(quick: bool) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let first = |text: String| text.lines().next().unwrap_or_default().trim().to_owned();
        let cpu = read("/proc/cpuinfo");
        let cpu = cpu
            .lines()
            .find_map(|line| line.strip_prefix("model name"))
            .map_or("", |name| name.trim_start_matches([' ', '\t', ':']));
        let processors = thread::available_parallelism().map_or(0, usize::from);
        let memory = read("/proc/meminfo");
        let memory = memory
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))
            .unwrap_or_default();
        let version = |program: &str, argument: &str| {
            first(output(Command::new(program).arg(argument)).unwrap_or_default())
        };
        let command: Vec<String> = env::args().skip(1).collect();
        let command = command.join(" ");
        let facts = vec![
            ("date", version("date", "--utc")),
            ("command", format!("cargo xtask {command}")),
            ("length", if quick { "quick" } else { "full" }.to_owned()),
            ("kernel", version("uname", "-srvm")),
            ("processor", format!("{processors} x {cpu}")),
            ("memory", memory.trim().to_owned()),
            ("load before", first(read("/proc/loadavg"))),
            (
                "ftpguard",
                format!(
                    "{} ({})",
                    env!("CARGO_PKG_VERSION"),
                    first(
                        output(Command::new("git").args(["describe", "--always", "--dirty"]))
                            .unwrap_or_else(|| "no git".to_owned())
                    )
                ),
            ),
            ("nftables", version("nft", "--version")),
            ("rustc", version("rustc", "--version")),
        ];
        Self { facts }
    }

    /// Says how busy the machine was at the end.
    pub(super) fn finish(&mut self) {
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        self.facts.push(("load after", load.trim().to_owned()));
    }

    pub(super) fn json(&self) -> Value {
        let facts = self.facts.iter();
        facts
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect()
    }
}
