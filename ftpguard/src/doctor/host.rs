//! What the guard needs of the host. Features are tried: the programs are loaded, and let go.

use std::{
    io::{self, Read as _},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use super::{
    nft::blocking,
    report::{Finding, Report},
};
use crate::{
    config::{Config, XdpArg},
    guard,
    kernel::{Kernel, Pins},
    preflight::{self, Host},
    values::PortRange,
};

/// The most bytes of a tool's answer.
const MAX_ANSWER: u64 = 16 << 20;

/// Looks at the host as it would be guarded with `config`; the firewall with the ports of
/// `guarded`, which may be a proposal.
pub(super) fn look(report: &mut Report, config: &Config, guarded: &Config) {
    let findings = &mut report.host;
    match preflight::look(&config.interfaces, config.cgroup()) {
        Ok(host) => {
            findings.push(Finding::good(format!("kernel {}", host.release)));
            findings.push(Finding::good(format!(
                "cgroup v2 at {}",
                host.cgroup.display()
            )));
            look_at_bpf(findings, config, &host);
            findings.push(Finding::good(format!(
                "interfaces {}",
                host.interfaces.join(", ")
            )));
            look_at_xdp(findings, config, &host);
        }
        Err(error) => findings.push(Finding::bad(format!("{error:#}"), "")),
    }
    if preflight::bpffs_is_mounted() {
        findings.push(Finding::good("bpffs is mounted".to_owned()));
    } else {
        findings.push(Finding::odd(
            "bpffs is not mounted".to_owned(),
            "the guard mounts it; or: mount -t bpf -o mode=0700 bpf /sys/fs/bpf",
        ));
    }
    look_at_firewall(findings, guarded);
}

fn look_at_bpf(findings: &mut Vec<Finding>, config: &Config, host: &Host) {
    match Kernel::load(&guard::settings(config, host, Pins::Nowhere)) {
        Ok(kernel) => {
            findings.push(Finding::good(
                "the kernel takes every program and map".to_owned(),
            ));
            for feature in kernel.features().missing() {
                findings.push(Finding::odd(
                    format!("without {}: {}", feature.label(), feature.without()),
                    "nothing need be done; a newer kernel has it",
                ));
            }
        }
        Err(error) => findings.push(Finding::bad(
            format!("{:#}", anyhow::Error::new(error)),
            "run as root on Linux 5.10 or later",
        )),
    }
}

fn look_at_xdp(findings: &mut Vec<Finding>, config: &Config, host: &Host) {
    if config.xdp_mode == XdpArg::Tc {
        return;
    }
    let links = match tool("ip", &["-json", "-details", "link", "show"]) {
        Ok(links) => links,
        Err(error) => {
            findings.push(Finding::odd(
                format!("other XDP programs were not looked for: {error}"),
                "install iproute2",
            ));
            return;
        }
    };
    for link in links.as_array().into_iter().flatten() {
        let name = link.get("ifname").and_then(Value::as_str).unwrap_or("");
        let program = link
            .get("xdp")
            .and_then(|xdp| xdp.get("prog"))
            .and_then(|program| program.get("id"))
            .and_then(Value::as_u64);
        if let Some(program) = program
            && host.interfaces.iter().any(|interface| interface == name)
        {
            findings.push(Finding::odd(
                format!("{name} runs an XDP program, number {program}"),
                "if it is not this guard's own, TC judges there in xdp_mode \"auto\"; \
                 `bpftool prog show id` names it",
            ));
        }
    }
}

fn look_at_firewall(findings: &mut Vec<Finding>, config: &Config) {
    let ruleset = match tool("nft", &["--json", "list", "ruleset"]) {
        Ok(ruleset) => ruleset,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            findings.push(Finding::good("nftables is not installed".to_owned()));
            return;
        }
        Err(error) => {
            findings.push(Finding::odd(
                format!("nftables rules were not looked at: {error}"),
                "run as root",
            ));
            return;
        }
    };
    let passive: Vec<u16> = config
        .passive_ports()
        .into_iter()
        .flat_map(PortRange::ports)
        .collect();
    let found = blocking(&ruleset, &config.control_ports(), &passive, &config.nft_set);
    if found.is_empty() {
        findings.push(Finding::good(
            "nftables blocks neither control nor passive ports".to_owned(),
        ));
    }
    for chain in found {
        let mut what = Vec::new();
        if !chain.control_ports.is_empty() {
            let ports: Vec<String> = chain.control_ports.iter().map(u16::to_string).collect();
            what.push(format!("control ports {}", ports.join(", ")));
        }
        if chain.passive_ports > 0 {
            what.push(format!("{} passive ports", chain.passive_ports));
        }
        let what = what.join(" and ");
        findings.push(if chain.is_unsure {
            Finding::odd(
                format!(
                    "nftables chain {} drops what no rule accepts, and it cannot be told whether \
                     its sets and maps accept {what}",
                    chain.chain
                ),
                "see that they do; the guard fills no set but those of nft_set",
            )
        } else {
            Finding::odd(
                format!("nftables chain {} drops {what}", chain.chain),
                "accept them there: the guard closes what is not to be reached, and opens nothing",
            )
        });
    }
}

/// How long a tool may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a tool answers in JSON.
fn tool(name: &str, arguments: &[&str]) -> io::Result<Value> {
    let place = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists())
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("there is no `{name}`")))?;
    let mut child = Command::new(place)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let stdout = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(MAX_ANSWER).read_to_end(&mut text)?;
        }
        Ok::<_, io::Error>(text)
    });
    let begun = std::time::Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if begun.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::other(format!("`{name}` does not end")));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let text = reader
        .join()
        .map_err(|_| io::Error::other(format!("`{name}` was not read")))??;
    if !status.success() {
        return Err(io::Error::other(format!("`{name}` failed")));
    }
    serde_json::from_slice(&text)
        .map_err(|error| io::Error::other(format!("`{name}` answered no JSON: {error}")))
}
