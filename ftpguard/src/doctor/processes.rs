//! FTP servers among the processes of this host: who listens on a control port, or is known by
//! name.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use procfs::{
    ProcResult,
    net::TcpState,
    process::{FDTarget, Process, all_processes},
};

use super::{
    conf::{self, Files, Product, Said},
    version,
};

/// The most bytes of a configuration file.
const MAX_FILE: u64 = 1 << 20;

/// An FTP server that runs here.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its process: the one that listens.
    pub pid: u32,
    /// Its effective user.
    pub uid: Option<u32>,
    /// Its program's name, as its owner likes it.
    pub program: String,
    /// What it is.
    pub product: Product,
    /// Its version, where its program shows it.
    pub version: Option<String>,
    /// Ports on which it accepts connections and that look like control ports.
    pub control_ports: Vec<u16>,
    /// What it says about itself.
    pub said: Said,
}

/// Every FTP server of the caller's network namespace. `control_ports` are those of the
/// configuration: whoever listens there is one, whatever it is called.
pub fn find(control_ports: &[u16]) -> ProcResult<Vec<Found>> {
    let listening = listening()?;
    let mut found: Vec<Found> = Vec::new();
    let mut taken: BTreeSet<u64> = BTreeSet::new();
    let mut processes: Vec<Process> = all_processes()?.filter_map(Result::ok).collect();
    // Of processes that share a socket the oldest, lowest, is the one that made it; the service
    // manager makes sockets for others.
    processes.sort_by_key(|process| (process.pid == 1, process.pid));
    for process in processes {
        let Ok(held) = held(&process, &listening) else {
            // Gone meanwhile, or not ours to look at.
            continue;
        };
        let program = name_of(&process);
        let product = Product::of(&program);
        let ports: BTreeMap<u64, u16> = held
            .into_iter()
            .filter(|(inode, port)| {
                !taken.contains(inode)
                    && (product != Product::Other || control_ports.contains(port))
            })
            .collect();
        if ports.is_empty() {
            continue;
        }
        taken.extend(ports.keys());
        found.push(describe(
            &process,
            program,
            product,
            &ports.into_values().collect(),
        ));
    }
    Ok(found)
}

fn describe(process: &Process, program: String, product: Product, ports: &BTreeSet<u16>) -> Found {
    let arguments = arguments(process);
    let said = conf::read(product, &arguments, &Root::of(process));
    // Its data listeners of this moment are none; without a word of its own, what it says or 21
    // is its control port if it listens there.
    let named = said
        .control_port
        .or(Some(21))
        .filter(|port| ports.contains(port));
    let in_range = |port: &u16| {
        said.passive_ports
            .is_some_and(|range| range.contains(*port))
    };
    let control_ports = match named {
        Some(port) => vec![port],
        None => ports
            .iter()
            .copied()
            .filter(|port| !in_range(port))
            .collect(),
    };
    let exe = PathBuf::from(format!("/proc/{}/exe", process.pid));
    Found {
        pid: process.pid.unsigned_abs(),
        uid: process.status().ok().map(|status| status.euid),
        version: version::of_program(product, &exe).ok().flatten(),
        program,
        product,
        control_ports,
        said,
    }
}

/// Listening sockets by inode.
fn listening() -> ProcResult<HashMap<u64, u16>> {
    let mut all = procfs::net::tcp()?;
    // A kernel may have no IPv6.
    all.extend(procfs::net::tcp6().unwrap_or_default());
    Ok(all
        .into_iter()
        .filter(|entry| entry.state == TcpState::Listen)
        .map(|entry| (entry.inode, entry.local_address.port()))
        .collect())
}

fn held(process: &Process, listening: &HashMap<u64, u16>) -> ProcResult<Vec<(u64, u16)>> {
    Ok(process
        .fd()?
        .filter_map(Result::ok)
        .filter_map(|descriptor| {
            let FDTarget::Socket(inode) = descriptor.target else {
                return None;
            };
            Some((inode, *listening.get(&inode)?))
        })
        .collect())
}

/// The program's file name; a process may have given itself another name.
fn name_of(process: &Process) -> String {
    let exe = process.exe().ok();
    let name = exe
        .as_deref()
        .and_then(Path::file_name)
        .map(|name| name.to_string_lossy().into_owned());
    let comm = || process.stat().map(|stat| stat.comm).unwrap_or_default();
    // A file that was replaced by an upgrade.
    name.map_or_else(comm, |name| name.trim_end_matches(" (deleted)").to_owned())
}

/// The arguments after the program's name; none where the process wrote its state there
/// (`proftpd: (accepting connections)`).
fn arguments(process: &Process) -> Vec<String> {
    let all = process.cmdline().unwrap_or_default();
    let renamed = all
        .first()
        .is_some_and(|first| first.contains(": ") || first.contains(" ("));
    if renamed {
        return Vec::new();
    }
    all.into_iter().skip(1).collect()
}

/// The file system as a process sees it.
struct Root {
    root: PathBuf,
    current: PathBuf,
}

impl Root {
    fn of(process: &Process) -> Self {
        Self {
            root: PathBuf::from(format!("/proc/{}/root", process.pid)),
            current: process.cwd().unwrap_or_else(|_| PathBuf::from("/")),
        }
    }
}

impl Files for Root {
    fn read(&self, path: &Path) -> Option<String> {
        let inside = self.current.join(path);
        let outside = self.root.join(inside.strip_prefix("/").ok()?);
        // Devices and pipes might never end.
        if !fs::metadata(&outside).ok()?.is_file() {
            return None;
        }
        let mut bytes = Vec::new();
        let file = fs::File::open(outside).ok()?;
        file.take(MAX_FILE).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}
