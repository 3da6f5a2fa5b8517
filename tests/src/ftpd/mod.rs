//! Real ftpds in the sandbox.

pub mod cache;
mod inetutils;
mod libunftp;
mod manager;
mod proftpd;
mod pure_ftpd;
mod pyftpdlib;
mod reactor;
mod vsftpd;
mod wayward;

use std::{
    ffi::OsString,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    ops::RangeInclusive,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    process::Process,
    sandbox::{Family, Host, Sandbox},
    tls::{Certificate, Handshake, Security, Version},
};

/// The control port.
pub const CONTROL_PORT: u16 = 21;
/// The control port for TLS from the first byte on.
pub const IMPLICIT_PORT: u16 = 990;

/// The file that clients fetch, in the root folder.
pub const FILE: &str = "data.bin";
/// A small file, for many transfers in a row.
pub const SMALL_FILE: &str = "small.bin";
/// The only folder in which clients may store.
pub const UPLOADS: &str = "upload";

/// The user as whom vsftpd serves anonymous clients.
const USER: &str = "ftp";

/// Which ftpd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// vsftpd with a privileged parent for each session, its default.
    Vsftpd,
    /// vsftpd with `one_process_model`.
    VsftpdOneProcess,
    /// pyftpdlib with one thread for all sessions.
    Pyftpdlib,
    /// pyftpdlib with a thread for each session.
    PyftpdlibThreads,
    /// pyftpdlib with a process for each session.
    PyftpdlibProcesses,
    /// pyftpdlib with processes that were forked in advance and share the control port.
    PyftpdlibPrefork,
    /// A small ftpd of our own that reads in one thread and listens in others. It serves
    /// [`FILE`]s passively and does nothing else; implicit TLS only.
    Reactor,
    /// A small ftpd of our own that misbehaves on request. In clear only.
    Wayward,
    /// `ProFTPD`, which forks for each session.
    Proftpd,
    /// `Pure-FTPd`, which forks for each session, and once more for what needs root.
    PureFtpd,
    /// GNU inetutils' ftpd, which OpenBSD's inetd starts for each session.
    Inetutils,
    /// A program that serves FTP itself, with libunftp. In clear and by explicit TLS; active mode
    /// over IPv4 only.
    Libunftp,
}

/// Who accepts control connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// The ftpd, or the inetd that belongs to it.
    Own,
    /// A service manager that starts an ftpd for each connection, which is its standard input,
    /// as systemd does with `Accept=yes`.
    Manager {
        /// Whether the manager is in the watched control group, as the ftpds are.
        watched: bool,
    },
}

/// How the ftpd is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which ftpd.
    pub kind: Kind,
    /// Whether the ftpd compares the data connection's peer with the control connection's itself
    /// (the default of both). Without, it behaves as ftpds do that have no such check.
    pub own_checks: bool,
    /// vsftpd's `connect_from_port_20`. Works with own checks only, else vsftpd 3.0.3 binds in
    /// a process that may not.
    pub from_port_20: bool,
    /// The control port, if it is not the usual one.
    pub port: Option<u16>,
    /// The range of passive ports. inetutils' ftpd knows none.
    pub passive_ports: RangeInclusive<u16>,
    /// Whether control and data connections are under TLS, and from when on.
    pub tls: Option<Handshake>,
    /// Whether a data connection must resume the TLS session of the control connection.
    pub tls_reuse: bool,
    /// Who accepts control connections.
    pub activation: Activation,
    /// vsftpd's `pasv_address`: what its 227 replies name in the place of its own address.
    pub public_address: Option<Ipv4Addr>,
}

/// A running ftpd. It ends when this value is dropped.
#[derive(Debug)]
pub struct Ftpd {
    process: Process,
    settings: Settings,
    root: PathBuf,
    content: Vec<u8>,
    certificate: Option<Certificate>,
}

impl Kind {
    /// One of each way in which sessions are arranged: of processes, and of one thread.
    pub const ALL: [Self; 3] = [Self::Vsftpd, Self::VsftpdOneProcess, Self::Pyftpdlib];

    /// Every one that people run.
    pub const ZOO: [Self; 9] = [
        Self::Vsftpd,
        Self::VsftpdOneProcess,
        Self::Proftpd,
        Self::PureFtpd,
        Self::Inetutils,
        Self::Pyftpdlib,
        Self::PyftpdlibThreads,
        Self::PyftpdlibProcesses,
        Self::PyftpdlibPrefork,
    ];

    /// Its name.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Vsftpd => "vsftpd",
            Self::VsftpdOneProcess => "vsftpd with one_process_model",
            Self::Pyftpdlib => "pyftpdlib",
            Self::PyftpdlibThreads => "pyftpdlib with threads",
            Self::PyftpdlibProcesses => "pyftpdlib with processes",
            Self::PyftpdlibPrefork => "pyftpdlib with processes forked in advance",
            Self::Reactor => "reactor with a pool of threads",
            Self::Wayward => "wayward ftpd",
            Self::Proftpd => "ProFTPD",
            Self::PureFtpd => "Pure-FTPd",
            Self::Inetutils => "inetutils-ftpd",
            Self::Libunftp => "libunftp",
        }
    }
}

impl Settings {
    /// With the ftpd's own checks, as it comes.
    #[must_use]
    pub fn of(kind: Kind) -> Self {
        Self {
            kind,
            own_checks: true,
            from_port_20: false,
            port: None,
            passive_ports: 50_000..=50_031,
            tls: None,
            tls_reuse: false,
            activation: Activation::Own,
            public_address: None,
        }
    }

    /// Without the ftpd's own checks: the guard is the only one that stands in the way.
    #[must_use]
    pub fn unchecked(kind: Kind) -> Self {
        Self {
            own_checks: false,
            ..Self::of(kind)
        }
    }

    /// The control port: the one that was chosen, else 990 where TLS begins with the first byte,
    /// else 21.
    #[must_use]
    pub fn control_port(&self) -> u16 {
        match (self.port, self.tls) {
            (Some(port), _) => port,
            (None, Some(Handshake::Implicit)) => IMPLICIT_PORT,
            (None, Some(Handshake::Explicit) | None) => CONTROL_PORT,
        }
    }
}

impl Ftpd {
    /// Starts the ftpd on the sandbox's server and waits until its control port answers.
    pub fn start(sandbox: &Sandbox, settings: Settings) -> Result<Self> {
        Self::start_on(sandbox.server(), sandbox, settings)
    }

    /// Starts an ftpd with these settings on any of the sandbox's hosts, in the same folder as
    /// every other one of the sandbox, and waits until its control port answers.
    pub fn start_on(server: &Host, sandbox: &Sandbox, settings: Settings) -> Result<Self> {
        let root = sandbox.folder().join("ftp");
        let content = content(300_000);
        make_root(&root, &content)?;
        let certificate = match settings.tls {
            Some(_) => Some(Certificate::make(sandbox.folder())?),
            None => None,
        };
        let place = Place {
            folder: sandbox.folder(),
            root: &root,
            certificate: certificate.as_ref(),
            addresses: Family::ALL.map(|family| server.socket(family, settings.control_port())),
        };
        let mut command = command(sandbox, &settings, &place)?;
        let process = server
            .spawn(&mut command)
            .with_context(|| format!("starting {}", settings.kind.label()))?;
        let mut ftpd = Self {
            process,
            settings,
            root,
            content,
            certificate,
        };
        let port = server.socket(Family::V4, ftpd.settings.control_port());
        server.enter(|| ftpd.wait_until_it_answers(port))??;
        Ok(ftpd)
    }

    /// How it is set up.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What [`FILE`] holds.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// What a client needs to log in: nothing where the ftpd speaks in clear.
    pub fn security(&self, version: Version) -> Result<Option<Security>> {
        match (self.settings.tls, &self.certificate) {
            (Some(handshake), Some(certificate)) => {
                Security::new(handshake, version, certificate).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Everything it wrote so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The process that listens on the control port.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The folder that it serves.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What lies in the upload folder under this name.
    pub fn uploaded(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.root.join(UPLOADS).join(name);
        fs::read(&path).with_context(|| format!("reading {}", path.display()))
    }

    /// Ends the listening process, and with it the service.
    pub fn stop(&mut self) {
        self.process.end();
    }

    fn wait_until_it_answers(&mut self, port: SocketAddr) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect_timeout(&port, Duration::from_millis(200)).is_err() {
            if self.process.ended()?.is_some() || Instant::now() > deadline {
                bail!(
                    "{} does not answer on {port} (cargo xtask setup installs it); its output:\n{}",
                    self.settings.kind.label(),
                    self.process.log()
                );
            }
            thread::sleep(Duration::from_millis(5));
        }
        // A guard that starts now would take this one for a client that was there before it.
        let deadline = Instant::now() + Duration::from_secs(5);
        while is_serving(port.port())? && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

/// Whether this network namespace has a connection to its port that the ftpd has not closed
/// (`/proc/net/tcp`, Documentation/networking/proc_net_tcp.rst).
fn is_serving(port: u16) -> Result<bool> {
    /// `TCP_ESTABLISHED` and `TCP_CLOSE_WAIT` (include/net/tcp_states.h).
    const OPEN: [&str; 2] = ["01", "08"];
    let local = format!(":{port:04X}");
    for table in ["tcp", "tcp6"] {
        let path = format!("/proc/thread-self/net/{table}");
        let lines = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let is_open = |line: &str| {
            let mut fields = line.split_whitespace().skip(1);
            let is_ours = fields.next().is_some_and(|end| end.ends_with(&local));
            is_ours && fields.nth(1).is_some_and(|state| OPEN.contains(&state))
        };
        if lines.lines().any(is_open) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Bytes without a pattern that a damaged transfer could repeat (a linear congruential
/// generator).
#[must_use]
pub fn content(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .collect()
}

/// Where an ftpd finds its things.
struct Place<'a> {
    /// For its configuration and whatever it writes itself.
    folder: &'a Path,
    /// What clients see.
    root: &'a Path,
    certificate: Option<&'a Certificate>,
    /// Where clients find its control port.
    addresses: [SocketAddr; 2],
}

impl Place<'_> {
    fn write(&self, name: &str, text: String) -> Result<PathBuf> {
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// A folder with nothing in it.
    fn empty(&self) -> Result<PathBuf> {
        let path = self.folder.join("empty");
        fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(path)
    }
}

/// The command that runs the ftpd in the foreground, in the control group made for it.
fn command(sandbox: &Sandbox, settings: &Settings, place: &Place<'_>) -> Result<Command> {
    let words = match settings.kind {
        Kind::Vsftpd | Kind::VsftpdOneProcess => vsftpd::command(settings, place)?,
        Kind::Pyftpdlib
        | Kind::PyftpdlibThreads
        | Kind::PyftpdlibProcesses
        | Kind::PyftpdlibPrefork => pyftpdlib::command(settings, place)?,
        Kind::Reactor => reactor::command(settings, place)?,
        Kind::Wayward => wayward::command(settings, place)?,
        Kind::Proftpd => proftpd::command(settings, place)?,
        Kind::PureFtpd => pure_ftpd::command(settings, place)?,
        Kind::Inetutils => inetutils::command(settings, place)?,
        Kind::Libunftp => libunftp::command(settings, place)?,
    };
    match settings.activation {
        Activation::Own => in_cgroup(sandbox, words),
        Activation::Manager { watched } => {
            let procs = sandbox.ftpd_cgroup().path().join("cgroup.procs");
            let manager = manager::command(settings, place, &procs, words)?;
            if watched {
                return in_cgroup(sandbox, manager);
            }
            let mut manager = manager.into_iter();
            let mut command = Command::new(manager.next().context("no program")?);
            command.args(manager);
            Ok(command)
        }
    }
}

fn in_cgroup(sandbox: &Sandbox, words: Vec<OsString>) -> Result<Command> {
    let mut words = words.into_iter();
    let mut command = sandbox
        .ftpd_cgroup()
        .command(words.next().context("no program")?);
    command.args(words);
    Ok(command)
}

/// Makes the folder that clients see: not writable, as vsftpd demands, but for one subfolder.
fn make_root(root: &Path, content: &[u8]) -> Result<()> {
    let uploads = root.join(UPLOADS);
    fs::create_dir_all(&uploads).with_context(|| format!("making {}", uploads.display()))?;
    let user = nix::unistd::User::from_name(USER)
        .context("reading the user database")?
        .with_context(|| format!("there is no user {USER}; Debian's vsftpd package makes it"))?;
    chown(&uploads, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
        .with_context(|| format!("giving {} to {USER}", uploads.display()))?;
    for (name, content) in [(FILE, content), (SMALL_FILE, &content[..100])] {
        let path = root.join(name);
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))
            .with_context(|| format!("opening {} to all", path.display()))?;
    }
    fs::set_permissions(root, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("opening {} to all", root.display()))
}
