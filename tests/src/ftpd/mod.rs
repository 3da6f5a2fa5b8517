//! Real ftpds in the sandbox.

mod pyftpdlib;
mod vsftpd;

use std::{
    fs,
    net::{SocketAddr, TcpStream},
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
    sandbox::{Family, Sandbox},
};

/// The control port.
pub const CONTROL_PORT: u16 = 21;

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
    /// The range of passive ports.
    pub passive_ports: RangeInclusive<u16>,
}

/// A running ftpd. It ends when this value is dropped.
#[derive(Debug)]
pub struct Ftpd {
    process: Process,
    settings: Settings,
    root: PathBuf,
    content: Vec<u8>,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Vsftpd, Self::VsftpdOneProcess, Self::Pyftpdlib];

    /// Its name.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Vsftpd => "vsftpd",
            Self::VsftpdOneProcess => "vsftpd with one_process_model",
            Self::Pyftpdlib => "pyftpdlib",
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
            passive_ports: 50_000..=50_031,
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
}

impl Ftpd {
    /// Starts the ftpd on the sandbox's server and waits until its control port answers.
    pub fn start(sandbox: &Sandbox, settings: Settings) -> Result<Self> {
        let root = sandbox.folder().join("ftp");
        let content = content(300_000);
        make_root(&root, &content)?;
        let mut command = command(sandbox, &settings, &root)?;
        let server = sandbox.server();
        let process = server
            .spawn(&mut command)
            .with_context(|| format!("starting {}", settings.kind.label()))?;
        let mut ftpd = Self {
            process,
            settings,
            root,
            content,
        };
        let port = server.socket(Family::V4, CONTROL_PORT);
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

    /// The process that listens on the control port.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
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
        Ok(())
    }
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

/// The command that runs the ftpd in the foreground, in the control group made for it.
fn command(sandbox: &Sandbox, settings: &Settings, root: &Path) -> Result<Command> {
    let write = |name: &str, text: String| -> Result<PathBuf> {
        let path = sandbox.folder().join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    };
    let (program, file) = match settings.kind {
        Kind::Vsftpd | Kind::VsftpdOneProcess => {
            let empty = sandbox.folder().join("empty");
            fs::create_dir_all(&empty).with_context(|| format!("making {}", empty.display()))?;
            let one_process = settings.kind == Kind::VsftpdOneProcess;
            let text = vsftpd::configuration(settings, one_process, root, &empty);
            ("vsftpd", write("vsftpd.conf", text)?)
        }
        Kind::Pyftpdlib => {
            let text = pyftpdlib::program(settings, root);
            (pyftpdlib::PYTHON, write("ftpd.py", text)?)
        }
    };
    let mut command = sandbox.ftpd_cgroup().command(program);
    command.arg(file);
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
