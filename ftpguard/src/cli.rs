//! What the operator may say on the command line.
//!
//! Exit statuses are listed at [`Exit`].

mod endurance;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand, ValueEnum, error::ErrorKind};
use ftpguard_common::abi::{Active, Mode, Tracking};

pub use self::endurance::{EnduranceArgs, EnduringAskArgs, OnStop, WithoutDaemonArg};
use crate::{
    kernel::{Destination, XdpChoice},
    values::{PortRange, parse_destination, parse_port},
};

/// How the `ftpguard` command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done, or told to stop.
    Done,
    /// 1: something failed; one line on standard error says what.
    Failed,
    /// 2: the command line makes no sense; one line on standard error says why.
    Usage,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
        })
    }
}

/// Guards the data connections of an existing FTP server.
#[derive(Debug, Parser)]
#[command(
    name = "ftpguard",
    version,
    after_help = "Exit status: 0 done, 1 failed, 2 wrong usage."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Guard this host's FTP server until SIGINT or SIGTERM
    Run(Box<RunArgs>),
    /// Show hooks and modes in force, and the counters of a running guard
    Status(EnduringAskArgs),
    /// End a running guard, and remove everything that a dead one left in the kernel
    Detach(EnduringAskArgs),
    /// List the control connections a running guard knows
    Sessions(AskArgs),
    /// List the open pinholes of a running guard
    Pinholes(AskArgs),
    /// Show the latest events of a running guard
    Events(EventsArgs),
}

/// What `run` takes.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Interface to guard; repeat for several [default: every interface but lo]
    #[arg(long = "iface", value_name = "IFACE")]
    pub interfaces: Vec<String>,
    /// Port on which the FTP server accepts control connections; repeat for several
    #[arg(long = "control-port", value_name = "PORT", default_value = "21", value_parser = parse_port)]
    pub control_ports: Vec<u16>,
    /// Range from which the FTP server takes its passive ports; unused ports in it are closed
    #[arg(long, value_name = "FIRST-LAST")]
    pub passive_ports: Option<PortRange>,
    /// Whether denials take effect
    #[arg(long, value_name = "MODE", default_value = "enforce")]
    pub mode: ModeArg,
    /// Where SYNs are judged
    #[arg(long, value_name = "WHERE", default_value = "auto")]
    pub xdp_mode: XdpArg,
    /// Who makes pinholes: the FTP server's own `listen()`, or the replies on the wire
    #[arg(long, value_name = "BY", default_value = "socket")]
    pub tracking: TrackingArg,
    /// Whom active mode may reach
    #[arg(long, value_name = "WHOM", default_value = "client")]
    pub active: ActiveArg,
    /// Destination the FTP server may connect to although it is no client; repeat for several
    #[arg(long = "allow-connect", value_name = "ADDR[/LEN][:PORT]", value_parser = parse_destination)]
    pub allow_connect: Vec<Destination>,
    /// Port from which the FTP server opens active data connections; repeat for several
    #[arg(long = "data-source-port", value_name = "PORT", default_value = "20", value_parser = parse_port)]
    pub data_source_ports: Vec<u16>,
    /// Drop SYNs from port 20 to this host's ports below 1024: other FTP servers cannot be made
    /// to attack its services
    #[arg(long)]
    pub bounce_shield: bool,
    /// cgroup v2 folder whose processes are watched [default: the hierarchy's root]
    #[arg(long, value_name = "DIR")]
    pub cgroup: Option<PathBuf>,
    /// Folder of the control socket
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUNTIME_DIR)]
    pub runtime_dir: PathBuf,
    /// How the kernel side lives on without the daemon, and how much it may hold.
    #[command(flatten)]
    pub endurance: EnduranceArgs,
    /// Print events and totals as JSON, one object a line
    #[arg(long)]
    pub json: bool,
}

/// What every question to a running guard takes.
#[derive(Args, Clone, Debug)]
pub struct AskArgs {
    /// Folder of the running guard's control socket
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUNTIME_DIR)]
    pub runtime_dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What `events` takes.
#[derive(Args, Clone, Debug)]
pub struct EventsArgs {
    /// Whom to ask, and how to print.
    #[command(flatten)]
    pub ask: AskArgs,
    /// Go on with every new event until interrupted
    #[arg(long)]
    pub follow: bool,
}

/// Where the control socket lies unless `--runtime-dir` moves it.
pub const DEFAULT_RUNTIME_DIR: &str = "/run/ftpguard";

/// Choices of `--mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModeArg {
    /// Decide, count and report; let everything pass
    Monitor,
    /// Denials take effect
    Enforce,
}

impl From<ModeArg> for Mode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Monitor => Self::Monitor,
            ModeArg::Enforce => Self::Enforce,
        }
    }
}

/// Choices of `--xdp-mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum XdpArg {
    /// XDP in the driver where there is one that can, TC elsewhere
    Auto,
    /// XDP in the driver, or fail
    Native,
    /// XDP in the network stack, or fail
    Generic,
    /// TC ingress
    Tc,
}

impl From<XdpArg> for XdpChoice {
    fn from(choice: XdpArg) -> Self {
        match choice {
            XdpArg::Auto => Self::Auto,
            XdpArg::Native => Self::Native,
            XdpArg::Generic => Self::Generic,
            XdpArg::Tc => Self::Tc,
        }
    }
}

/// Choices of `--tracking`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TrackingArg {
    /// The kernel, inside the FTP server's `listen()`: exact, and works under TLS
    Socket,
    /// The daemon, from the 227, 228 and 229 replies it reads on the wire
    Text,
}

impl From<TrackingArg> for Tracking {
    fn from(tracking: TrackingArg) -> Self {
        match tracking {
            TrackingArg::Socket => Self::Socket,
            TrackingArg::Text => Self::Text,
        }
    }
}

/// Choices of `--active`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ActiveArg {
    /// The session's client, and destinations given with --allow-connect
    Client,
    /// Destinations given with --allow-connect
    Exceptions,
    /// Nobody
    Off,
}

impl From<ActiveArg> for Active {
    fn from(active: ActiveArg) -> Self {
        match active {
            ActiveArg::Client => Self::Client,
            ActiveArg::Exceptions => Self::Exceptions,
            ActiveArg::Off => Self::Off,
        }
    }
}

/// Why the command line is not carried out.
#[derive(Debug)]
pub enum Refusal {
    /// Help or version was asked for: text for standard output.
    Help(String),
    /// It makes no sense: one line, what and how to put it right.
    Usage(String),
}

/// Parses and checks a command line, program name first.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "every other kind is wrong usage"
)]
pub fn parse<I>(arguments: I) -> Result<Cli, Refusal>
where
    I: IntoIterator,
    I::Item: Into<OsString> + Clone,
{
    let mut cli = Cli::try_parse_from(arguments).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Refusal::Help(error.render().to_string())
        }
        // The enum is clap's, and may grow.
        _ => Refusal::Usage(one_line(&error.render().to_string())),
    })?;
    if let Command::Run(run) = &mut cli.command {
        run.check().map_err(Refusal::Usage)?;
    }
    Ok(cli)
}

impl RunArgs {
    /// Checks what no single value can show, and drops repetitions.
    fn check(&mut self) -> Result<(), String> {
        for ports in [&mut self.control_ports, &mut self.data_source_ports] {
            ports.sort_unstable();
            ports.dedup();
        }
        let mut seen = Vec::new();
        self.interfaces.retain(|name| {
            let new = !seen.contains(name);
            seen.push(name.clone());
            new
        });
        if let Some(range) = self.passive_ports
            && let Some(port) = self
                .control_ports
                .iter()
                .find(|port| range.contains(**port))
        {
            return Err(format!(
                "--passive-ports {range} contains the control port {port}; \
                 end the range below it or start it above, in the FTP server's settings too"
            ));
        }
        Ok(())
    }
}

/// Clap's message without its prefix, usage and hints about help.
fn one_line(message: &str) -> String {
    let first: Vec<&str> = message
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty())
        .collect();
    let line = first.join("; ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    format!("{line}; see `ftpguard --help`").replace(":;", ":")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_args(arguments: &[&str]) -> Result<RunArgs, String> {
        let line = ["ftpguard", "run"].iter().chain(arguments);
        match parse(line) {
            Ok(Cli {
                command: Command::Run(run),
            }) => Ok(*run),
            Ok(other) => Err(format!("not run: {other:?}")),
            Err(Refusal::Usage(line) | Refusal::Help(line)) => Err(line),
        }
    }

    #[test]
    fn defaults_guard_port_21_and_enforce() {
        let run = run_args(&[]).expect("defaults");
        assert_eq!(run.control_ports, [21]);
        assert_eq!(run.data_source_ports, [20]);
        assert_eq!(run.mode, ModeArg::Enforce);
        assert_eq!(run.tracking, TrackingArg::Socket);
        assert_eq!(run.xdp_mode, XdpArg::Auto);
        assert_eq!(run.passive_ports, None);
        assert!(run.interfaces.is_empty() && !run.json);
        assert_eq!(run.runtime_dir, PathBuf::from("/run/ftpguard"));
    }

    #[test]
    fn repeated_values_are_kept_once() {
        let run = run_args(&[
            "--iface",
            "eth1",
            "--iface",
            "eth0",
            "--iface",
            "eth1",
            "--control-port",
            "990",
            "--control-port",
            "21",
            "--control-port",
            "990",
        ])
        .expect("valid");
        assert_eq!(run.interfaces, ["eth1", "eth0"]);
        assert_eq!(run.control_ports, [21, 990]);
    }

    #[test]
    fn nonsense_is_one_line_that_names_it() {
        for (arguments, named) in [
            (&["--passive-ports", "60000-50000"][..], "write 50000-60000"),
            (&["--passive-ports", "80-50000"], "80 is too low"),
            (
                &["--passive-ports", "2000-3000", "--control-port", "2121"],
                "2121",
            ),
            (&["--control-port", "0"], "port 0"),
            (&["--control-port", "ftp"], "\"ftp\""),
            (&["--data-source-port", "65536"], "65536"),
            (&["--mode", "on"], "monitor"),
            (&["--allow-connect", "ldap.example"], "ldap.example"),
            (&["--no-such-option"], "--no-such-option"),
        ] {
            let line = run_args(arguments).expect_err("refused");
            assert!(line.contains(named), "{arguments:?}: {line}");
            assert!(!line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn help_is_no_error() {
        assert!(matches!(
            parse(["ftpguard", "--help"]),
            Err(Refusal::Help(_))
        ));
        assert!(matches!(
            parse(["ftpguard", "run", "--help"]),
            Err(Refusal::Help(_))
        ));
        assert!(matches!(
            parse(["ftpguard", "--version"]),
            Err(Refusal::Help(_))
        ));
        assert!(matches!(
            parse(["ftpguard", "walk"]),
            Err(Refusal::Usage(_))
        ));
    }
}
