//! The ways to protect data connections that are compared, and how each is put in place.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use ftpguard_tests::{
    Family, Guard, Sandbox,
    guard::Options,
    process::{Process, run},
    sandbox::INTERFACE,
};

use super::Bench;

/// One way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Nothing at all.
    Nothing,
    /// The same once more: how far two rows differ that do not.
    NothingAgain,
    /// nf_conntrack_ftp reads the control connection; new connections to the range are dropped
    /// unless it expects them.
    Conntrack,
    /// The range is open to listed addresses only, in nftables before connection tracking.
    RawDrop,
    /// The same at the interface, as early as nftables can.
    NetdevSet,
    /// An XDP program that drops everything.
    DropAll,
    /// An XDP program that drops every SYN.
    ParseOnly,
    /// ftpguard as `--tracking` and `--xdp-mode` say.
    Guard(&'static str, &'static str),
}

/// ftpguard as it chooses for itself.
pub(super) const GUARD: Way = Way::Guard("socket", "auto");

/// A way in place. It goes when this is dropped.
pub(super) struct InPlace<'a> {
    sandbox: &'a Sandbox,
    /// nftables' rules are to be removed.
    rules: bool,
    /// The guard, where it is that.
    pub(super) guard: Option<Guard>,
    yardstick: Option<Process>,
}

impl Way {
    /// Its name in tables.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Nothing => "no firewall",
            Self::NothingAgain => "no firewall, again",
            Self::Conntrack => "nf_conntrack_ftp",
            Self::RawDrop => "nftables raw, fixed list",
            Self::NetdevSet => "nftables netdev, fixed list",
            Self::DropAll => "XDP that drops all",
            Self::ParseOnly => "XDP that only parses",
            Self::Guard("text", _) => "ftpguard, text tracking",
            Self::Guard(_, "native") => "ftpguard, XDP in the driver",
            Self::Guard(_, "generic") => "ftpguard, generic XDP",
            Self::Guard(_, "tc") => "ftpguard, TC",
            Self::Guard(_, _) => "ftpguard",
        }
    }

    /// Puts it in place on the sandbox's server, on its interface and a further one.
    pub(super) fn put<'a>(
        self,
        bench: &Bench,
        sandbox: &'a Sandbox,
        other: Option<&str>,
    ) -> Result<InPlace<'a>> {
        self.put_on(bench, sandbox, other.as_slice())
    }

    /// The same on any number of further interfaces.
    pub(super) fn put_on<'a>(
        self,
        bench: &Bench,
        sandbox: &'a Sandbox,
        others: &[&str],
    ) -> Result<InPlace<'a>> {
        let mut place = InPlace {
            sandbox,
            rules: false,
            guard: None,
            yardstick: None,
        };
        let interfaces: Vec<&str> = [INTERFACE].iter().chain(others).copied().collect();
        match self {
            Self::Nothing | Self::NothingAgain => {}
            Self::Conntrack | Self::RawDrop | Self::NetdevSet => {
                let text = self.rules(sandbox, &interfaces);
                let file = sandbox.folder().join("rules.nft");
                fs::write(&file, text).context("writing nftables' rules")?;
                place.rules = true;
                nft(sandbox, &["-f", &file.to_string_lossy()])?;
            }
            Self::DropAll | Self::ParseOnly => {
                let program = if self == Self::DropAll {
                    "drop_all"
                } else {
                    "parse_only"
                };
                let interface = others.first().context("this would cut off the server")?;
                let mut command = Command::new(&bench.helper);
                command.args(["hold", program, interface]);
                let mut process = sandbox.server().spawn(&mut command)?;
                let ready = |line: &str| line == "ready";
                process.wait_for_line("ready line", Duration::from_secs(10), ready)?;
                place.yardstick = Some(process);
            }
            Self::Guard(tracking, xdp_mode) => {
                let options = Options {
                    binary: bench.binary.clone(),
                    tracking,
                    xdp_mode,
                    interfaces: interfaces.into_iter().map(str::to_owned).collect(),
                    ..Options::default()
                };
                place.guard = Some(Guard::start(sandbox, &options).context("starting ftpguard")?);
            }
        }
        Ok(place)
    }

    /// nftables' rules, in the form in which its manual recommends them.
    fn rules(self, sandbox: &Sandbox, interfaces: &[&str]) -> String {
        let client = Family::ALL.map(|family| sandbox.client().address(family));
        let [v4, v6] = client;
        let range = "tcp dport 50000-50031 tcp flags & (syn|ack) == syn";
        if self == Self::Conntrack {
            return format!(
                "table inet ftpguard_bench {{
  ct helper ftp {{
    type \"ftp\" protocol tcp
  }}
  chain prerouting {{
    type filter hook prerouting priority -150
    tcp dport 21 ct helper set \"ftp\"
  }}
  chain input {{
    type filter hook input priority 0
    ct state established,related accept
    {range} drop
  }}
}}
"
            );
        }
        let (family, hook) = if self == Self::RawDrop {
            let hook = "type filter hook prerouting priority raw".to_owned();
            ("inet", hook)
        } else {
            let devices = interfaces.join(", ");
            let hook = format!("type filter hook ingress devices = {{ {devices} }} priority 0");
            ("netdev", hook)
        };
        format!(
            "table {family} ftpguard_bench {{
  set clients4 {{
    type ipv4_addr
    elements = {{ {v4} }}
  }}
  set clients6 {{
    type ipv6_addr
    elements = {{ {v6} }}
  }}
  chain early {{
    {hook}
    {range} ip saddr != @clients4 drop
    {range} ip6 saddr != @clients6 drop
  }}
}}
"
        )
    }
}

impl Drop for InPlace<'_> {
    fn drop(&mut self) {
        if let Some(mut yardstick) = self.yardstick.take() {
            yardstick.end();
        }
        if self.rules {
            let _ = nft(self.sandbox, &["flush", "ruleset"]);
        }
    }
}

/// Whether the kernel has nf_conntrack_ftp; else why not.
pub(super) fn conntrack_is_there(sandbox: &Sandbox, bench: &Bench) -> Result<()> {
    Way::Conntrack.put(bench, sandbox, None).map(|_| ())
}

/// Runs nft on the sandbox's server, in whose network namespace there are no other rules.
fn nft(sandbox: &Sandbox, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("nft");
    command.args(arguments);
    let finished = sandbox
        .server()
        .run(&mut command, Duration::from_secs(10))?;
    ensure!(finished.status.success(), "nft: {}", finished.stderr);
    Ok(())
}

/// Runs a command of this machine to its end.
pub(super) fn tool(program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(run(&mut command, Duration::from_secs(10))?.stdout)
}
