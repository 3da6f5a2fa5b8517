//! What the operator may say on the command line.
//!
//! Exit statuses are listed at [`Exit`].

mod endurance;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand, error::ErrorKind};

pub use self::endurance::EnduringAskArgs;
use crate::{
    config::{Layer, ModeArg},
    kernel::Destination,
    values::{PortRange, parse_destination, parse_port},
    why::Subject,
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
    /// 3: the configuration file is wrong; one line on standard error says where and why.
    Configuration,
}

impl Exit {
    /// All of them, by status.
    pub const ALL: [Self; 4] = [Self::Done, Self::Failed, Self::Usage, Self::Configuration];

    /// The status that the shell sees.
    #[must_use]
    pub const fn status(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Configuration => 3,
        }
    }

    /// What it means, for the manual.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done, or told to stop",
            Self::Failed => "failed: one line on standard error says what, and what to do",
            Self::Usage => "the command line makes no sense: one line says where",
            Self::Configuration => "the configuration file is wrong: one line says where",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.status())
    }
}

/// Guards the data connections of an existing FTP server.
#[derive(Debug, Parser)]
#[command(
    name = "ftpguard",
    version,
    after_help = "Exit status: 0 done, 1 failed, 2 wrong usage, 3 wrong configuration file."
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
    /// Say whether the configuration is valid, without touching the kernel
    Check(Box<CheckArgs>),
    /// Say whether this host is fit, which FTP servers run here, and propose a configuration
    Doctor(Box<DoctorArgs>),
    /// Show hooks and modes in force, and the counters of a running guard
    Status(EnduringAskArgs),
    /// End a running guard, and remove everything that a dead one left in the kernel
    Detach(EnduringAskArgs),
    /// Have a running guard read its configuration file again, without dropping a transfer
    Reload(AskArgs),
    /// Show the mode of a running guard, or switch it
    Mode(ModeArgs),
    /// Say why something was refused, by which rule, and what would have allowed it
    Why(WhyArgs),
    /// List the control connections a running guard knows
    Sessions(AskArgs),
    /// List the open pinholes of a running guard
    Pinholes(AskArgs),
    /// Show the latest events of a running guard
    Events(EventsArgs),
    /// Watch a running guard: sessions, pinholes, refusals and attackers, live
    Top(TopArgs),
}

/// What `run` takes. Every option but the last two stands over the file's key of its name.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// The file and what stands over it.
    #[command(flatten)]
    pub given: Given,
    /// Folder of the control socket
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUNTIME_DIR)]
    pub runtime_dir: PathBuf,
    /// Folder in a BPF file system in which the kernel side outlives the daemon
    /// [default: /sys/fs/bpf/ftpguard, or another for another --runtime-dir]
    #[arg(long, value_name = "DIR")]
    pub pin_dir: Option<PathBuf>,
    /// Print events and totals as JSON, one object a line
    #[arg(long)]
    pub json: bool,
}

/// What `check` takes.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// The file, and what stands over it.
    #[command(flatten)]
    pub given: Given,
    /// Print the whole configuration that results, every key explained
    #[arg(long)]
    pub show: bool,
}

/// The file, and what stands over it.
#[derive(Args, Clone, Debug, Default)]
pub struct Given {
    /// Configuration file [default: /etc/ftpguard/ftpguard.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Port on which the FTP server accepts control connections; repeat for several
    #[arg(long = "control-port", value_name = "PORT", value_parser = parse_port)]
    pub control_ports: Vec<u16>,
    /// Range from which the FTP server takes its passive ports; unused ports in it are closed;
    /// repeat for several
    #[arg(long, value_name = "FIRST-LAST")]
    pub passive_ports: Vec<PortRange>,
    /// Destination the FTP server may connect to although it is no client; repeat for several
    #[arg(long = "allow-connect", value_name = "ADDR[/LEN][:PORT]", value_parser = parse_destination)]
    pub allow_connect: Vec<Destination>,
    /// Every other key.
    #[command(flatten)]
    pub layer: Layer,
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

/// What `top` takes.
#[derive(Args, Clone, Debug)]
pub struct TopArgs {
    /// Folder of the running guard's control socket
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUNTIME_DIR)]
    pub runtime_dir: PathBuf,
}

/// What `mode` takes.
#[derive(Args, Clone, Debug)]
pub struct ModeArgs {
    /// Mode to be in force from now on
    #[arg(value_name = "MODE")]
    pub mode: Option<ModeArg>,
    /// Whom to ask, and how to print.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// What `doctor` takes.
#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {
    /// The file, and what stands over it.
    #[command(flatten)]
    pub given: Given,
    /// Write the proposed configuration to the file, if it is not there or as it was installed
    #[arg(long)]
    pub write: bool,
    /// Replace a file that somebody has written
    #[arg(long, requires = "write")]
    pub force: bool,
    /// Whom to ask, and how to print.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// What `why` takes.
#[derive(Args, Clone, Debug)]
pub struct WhyArgs {
    /// Address of a client or a destination, or a port
    #[arg(value_name = "ADDRESS|PORT")]
    pub subject: Option<Subject>,
    /// The latest refusal, as without an address or port
    #[arg(long, conflicts_with = "subject")]
    pub last: bool,
    /// Whom to ask, and how to print.
    #[command(flatten)]
    pub ask: AskArgs,
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

/// Why the command line is not carried out.
#[derive(Debug)]
pub enum Refusal {
    /// Help or version was asked for: text for standard output.
    Help(String),
    /// It makes no sense: one line, what and how to put it right.
    Usage(String),
}

/// Parses a command line, program name first.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "every other kind is wrong usage"
)]
pub fn parse<I>(arguments: I) -> Result<Cli, Refusal>
where
    I: IntoIterator,
    I::Item: Into<OsString> + Clone,
{
    Cli::try_parse_from(arguments).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Refusal::Help(error.render().to_string())
        }
        // The enum is clap's, and may grow.
        _ => Refusal::Usage(one_line(&error.render().to_string())),
    })
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
    use crate::config::{Config, TrackingArg, XdpArg};

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

    /// What is in force without a file.
    fn config(arguments: &[&str]) -> Result<Config, String> {
        let given = run_args(arguments)?.given;
        given.over(None).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_guard_port_21_and_enforce() {
        let run = run_args(&[]).expect("defaults");
        assert_eq!(run.given.layer, Layer::default());
        let config = config(&[]).expect("defaults");
        assert_eq!(config.control_ports(), [21]);
        assert_eq!(config.data_source_ports, [20]);
        assert_eq!(config.mode, ModeArg::Enforce);
        assert_eq!(config.tracking, TrackingArg::Socket);
        assert_eq!(config.xdp_mode, XdpArg::Auto);
        assert!(config.passive_ports().is_empty());
        assert!(config.interfaces.is_empty() && !run.json);
        assert_eq!(run.runtime_dir, PathBuf::from("/run/ftpguard"));
    }

    #[test]
    fn repeated_values_are_kept_once() {
        let config = config(&[
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
        assert_eq!(config.interfaces, ["eth1", "eth0"]);
        assert_eq!(config.control_ports(), [21, 990]);
    }

    #[test]
    fn a_switch_can_be_turned_off_again() {
        for (argument, on) in [
            ("--bounce-shield", true),
            ("--bounce-shield=true", true),
            ("--bounce-shield=false", false),
        ] {
            assert_eq!(config(&[argument]).expect("valid").bounce_shield, on);
        }
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
            let line = config(arguments).expect_err("refused");
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
