//! `ftpguard doctor`: is this host fit, which FTP servers run here, what would be guarded.
//!
//! Nothing is attached, mounted or changed; with `--write` the proposed configuration is written.
//!
//! - `host`: what the guard needs of the host, found out by trying.
//! - [`nft`]: firewall rules that would still block.
//! - [`processes`], [`conf`], [`version`]: FTP servers, their own settings, their known faults.
//! - [`predict`]: how well their passive ports can be guessed (rule D1).
//! - [`report`]: the findings for people and programs.

pub mod conf;
mod host;
pub mod nft;
pub mod predict;
pub mod processes;
pub mod report;
pub mod version;

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use anyhow::{Context as _, Result, bail, ensure};

use self::{
    predict::measure,
    processes::Found,
    report::{Finding, FoundServer, Report},
};
use crate::{
    cli::DoctorArgs,
    config::{Config, Ftpd, ModeArg},
    control_socket::{Reply, Request, ask},
    values::{parse_address, printable},
};

/// The file as the packages install it. While it is still that, the proposal may take its place.
const SHIPPED: &str = include_str!("../../packaging/ftpguard.toml");

/// What is said at the top of the proposed file.
const HEADING: &str = "\
ftpguard's configuration, as `ftpguard doctor` proposes it for the FTP servers that it found. In
monitor mode everything passes, and what would be refused is reported; set the mode to \"enforce\"
when `ftpguard mode` shows that no honest transfer would be refused.";

/// The same where the former file enforces.
const HEADING_ENFORCED: &str = "\
ftpguard's configuration, as `ftpguard doctor` proposes it for the FTP servers that it found. Those
that the former file did not name are watched only; take their `mode` out when `ftpguard mode` shows
that no honest transfer would be refused.";

/// Looks at host and FTP servers, and says what it found.
pub fn doctor(args: &DoctorArgs) -> Result<()> {
    let mut report = Report::default();
    // What is to be written need not be there yet.
    let resolved = match &args.given.config {
        Some(file) if !file.exists() => args.given.over(None),
        _ => args.given.resolve(),
    };
    let config = match resolved {
        Ok(config) => config,
        Err(error) => {
            report.host.push(Finding::bad(
                error.to_string(),
                "correct it; `ftpguard check` says when it is right",
            ));
            Config::default()
        }
    };
    let found =
        processes::find(&config.control_ports()).context("looking at processes in /proc")?;
    let enforced = config.mode == ModeArg::Enforce && args.given.file().exists();
    let former = if enforced { &config.ftpd } else { &[][..] };
    let proposal = propose(&config, former, &found);
    let guarded = proposal.as_ref().map_or(&config, |known| &known.config);
    host::look(&mut report, &config, guarded);
    report.servers = found.iter().map(FoundServer::of).collect();
    if let Ok(Reply::Ports(samples)) = ask(&args.ask.runtime_dir, &Request::Ports {}) {
        report.running = true;
        report.ports = samples.iter().filter_map(measure).collect();
        report.too_few = samples
            .iter()
            .filter(|sample| measure(sample).is_none())
            .map(|sample| (sample.control_port, sample.ports.len()))
            .collect();
    }
    let file = args.given.file();
    if let Some(Proposal { config, left_out }) = proposal {
        for (place, finding) in left_out {
            if let Some(server) = report.servers.get_mut(place) {
                server.findings.push(finding);
            }
        }
        let text = config.render(match config.mode {
            ModeArg::Monitor => HEADING,
            ModeArg::Enforce => HEADING_ENFORCED,
        })?;
        if args.write {
            write(&file, &text, args.force)?;
            report.written = Some(file.display().to_string());
        }
        report.proposal = Some(text);
    } else if args.write {
        bail!(
            "no FTP server was found, so there is nothing to write; start it, or name its control \
             port with --control-port"
        );
    }
    let text = if args.ask.json {
        format!("{}\n", serde_json::to_string(&report)?)
    } else {
        report.render()
    };
    io::stdout()
        .lock()
        .write_all(text.as_bytes())
        .context("writing to standard output")?;
    let bad = report.bad();
    ensure!(
        bad == 0,
        "this host is not fit yet: {bad} findings above need a remedy"
    );
    Ok(())
}

/// A configuration for the FTP servers that were found.
struct Proposal {
    config: Config,
    /// What of a server is not in it, by its place among those found.
    left_out: Vec<(usize, Finding)>,
}

/// The configuration with the FTP servers that were found; `None` where there are none.
///
/// They are watched only, but for those that are enforced already: `enforced` (rule M3).
fn propose(config: &Config, enforced: &[Ftpd], found: &[Found]) -> Option<Proposal> {
    let mut ftpd: Vec<Ftpd> = Vec::new();
    let mut places = Vec::new();
    for (place, server) in found.iter().enumerate() {
        let taken = |port: &u16| ftpd.iter().any(|known| known.control_ports.contains(port));
        let control_ports: Vec<u16> = server
            .control_ports
            .iter()
            .copied()
            .filter(|port| !taken(port))
            .collect();
        let Some(first) = control_ports.first() else {
            continue;
        };
        let program = printable(&server.program);
        let name = [
            program.clone(),
            format!("{program} at {first}"),
            format!("{program} at {first}, pid {}", server.pid),
        ]
        .into_iter()
        .find(|name| ftpd.iter().all(|known| known.name != *name))?;
        let known = enforced.iter().find(|known| {
            known
                .control_ports
                .iter()
                .any(|port| control_ports.contains(port))
        });
        ftpd.push(Ftpd {
            name,
            control_ports,
            passive_ports: server.said.passive_ports.into_iter().collect(),
            // A name is not looked up: it may stand for another address tomorrow.
            public_addresses: server
                .said
                .public_address
                .iter()
                .filter_map(|address| parse_address(address).ok())
                .collect(),
            mode: match known {
                Some(known) => known.mode,
                None => (!enforced.is_empty()).then_some(ModeArg::Monitor),
            },
        });
        places.push(place);
    }
    if ftpd.is_empty() {
        return None;
    }
    let left_out = leave_out(&mut ftpd, &places, found);
    let mut sources: Vec<u16> = config.data_source_ports.clone();
    sources.extend(
        found
            .iter()
            .filter_map(|server| server.said.data_source_port)
            .filter(|port| *port != 0),
    );
    let mut proposal = Config {
        mode: if enforced.is_empty() {
            ModeArg::Monitor
        } else {
            ModeArg::Enforce
        },
        ftpd,
        data_source_ports: sources,
        ..config.clone()
    };
    if proposal.check().is_err() {
        // A new one shares its range with one that is enforced: then all are to be watched.
        return if enforced.is_empty() {
            None
        } else {
            propose(config, &[], found)
        };
    }
    Some(Proposal {
        config: proposal,
        left_out,
    })
}

/// Takes the passive ranges away that hold a control port, and says whose it is: anybody on this
/// host can run something that is called like an FTP server. `places` are those of `ftpd` in
/// `found`.
fn leave_out(ftpd: &mut [Ftpd], places: &[usize], found: &[Found]) -> Vec<(usize, Finding)> {
    let owners: Vec<(u16, usize)> = ftpd
        .iter()
        .zip(places)
        .flat_map(|(ftpd, place)| ftpd.control_ports.iter().map(|port| (*port, *place)))
        .collect();
    let mut left_out = Vec::new();
    for (ftpd, place) in ftpd.iter_mut().zip(places) {
        ftpd.passive_ports.retain(|range| {
            let Some((port, owner)) = owners.iter().find(|(port, _)| range.contains(*port)) else {
                return true;
            };
            let whose = match found.get(*owner) {
                Some(other) if owner != place => {
                    format!("a control port of {}, pid {}", other.program, other.pid)
                }
                _ => "its own control port".to_owned(),
            };
            left_out.push((
                *place,
                Finding::odd(
                    format!("its passive range {range} holds {port}, {whose}: it is not proposed"),
                    "give it a range without control ports, in its own settings too; look whose \
                     process the other one is",
                ),
            ));
            false
        });
    }
    left_out
}

fn write(file: &Path, text: &str, force: bool) -> Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let mut options = fs::File::options();
    options.write(true).mode(0o644);
    if force || fs::read_to_string(file).is_ok_and(|text| text == SHIPPED) {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    let mut target = match options.open(file) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => bail!(
            "{} exists already; look at the proposal without --write, or add --force to replace it",
            file.display()
        ),
        other => other.with_context(|| format!("writing {}", file.display()))?,
    };
    target
        .write_all(text.as_bytes())
        .with_context(|| format!("writing {}", file.display()))
}

#[cfg(test)]
mod tests;
