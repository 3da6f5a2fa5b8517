//! A real vsftpd in the sandbox.

use std::{
    fmt::Write as _,
    fs,
    net::{SocketAddr, TcpStream},
    ops::RangeInclusive,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
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

/// How vsftpd is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `one_process_model`: no privileged parent.
    pub one_process: bool,
    /// Whether vsftpd compares the data connection's peer with the control connection's itself
    /// (its default). Without, it behaves as ftpds do that have no such check.
    pub own_checks: bool,
    /// `connect_from_port_20`.
    pub from_port_20: bool,
    /// `pasv_min_port` and `pasv_max_port`.
    pub passive_ports: RangeInclusive<u16>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            one_process: false,
            own_checks: true,
            from_port_20: false,
            passive_ports: 50_000..=50_031,
        }
    }
}

impl Settings {
    /// Without vsftpd's own checks: the guard is the only one that stands in the way.
    #[must_use]
    pub fn without_own_checks() -> Self {
        Self {
            own_checks: false,
            ..Self::default()
        }
    }

    /// The configuration file.
    fn file(&self, root: &Path, empty: &Path) -> String {
        let yes = |on: bool| if on { "YES" } else { "NO" };
        let lines = [
            ("background", "NO".to_owned()),
            // Debian's default: one IPv6 socket for both families.
            ("listen", "NO".to_owned()),
            ("listen_ipv6", "YES".to_owned()),
            ("listen_port", CONTROL_PORT.to_string()),
            ("one_process_model", yes(self.one_process).to_owned()),
            ("anonymous_enable", "YES".to_owned()),
            ("no_anon_password", "YES".to_owned()),
            ("local_enable", "NO".to_owned()),
            ("ftp_username", USER.to_owned()),
            ("nopriv_user", "nobody".to_owned()),
            ("write_enable", "YES".to_owned()),
            ("anon_upload_enable", "YES".to_owned()),
            ("anon_other_write_enable", "YES".to_owned()),
            ("anon_world_readable_only", "NO".to_owned()),
            ("anon_root", root.display().to_string()),
            ("secure_chroot_dir", empty.display().to_string()),
            ("pasv_min_port", self.passive_ports.start().to_string()),
            ("pasv_max_port", self.passive_ports.end().to_string()),
            ("pasv_promiscuous", yes(!self.own_checks).to_owned()),
            ("port_promiscuous", yes(!self.own_checks).to_owned()),
            ("connect_from_port_20", yes(self.from_port_20).to_owned()),
            ("accept_timeout", "5".to_owned()),
            ("connect_timeout", "5".to_owned()),
            ("data_connection_timeout", "10".to_owned()),
            ("idle_session_timeout", "120".to_owned()),
            ("xferlog_enable", "NO".to_owned()),
        ];
        lines.iter().fold(String::new(), |mut file, (key, value)| {
            let _ = writeln!(file, "{key}={value}");
            file
        })
    }
}

/// A running vsftpd. It ends when this value is dropped.
#[derive(Debug)]
pub struct Vsftpd {
    process: Process,
    settings: Settings,
    root: PathBuf,
    content: Vec<u8>,
}

impl Vsftpd {
    /// Starts vsftpd on the sandbox's server and waits until its control port answers.
    pub fn start(sandbox: &Sandbox, settings: Settings) -> Result<Self> {
        let root = sandbox.folder().join("ftp");
        let empty = sandbox.folder().join("empty");
        let content = content(300_000);
        make_root(&root, &content)?;
        fs::create_dir_all(&empty).with_context(|| format!("making {}", empty.display()))?;
        let file = sandbox.folder().join("vsftpd.conf");
        fs::write(&file, settings.file(&root, &empty))
            .with_context(|| format!("writing {}", file.display()))?;

        let server = sandbox.server();
        let process = server
            .spawn(sandbox.ftpd_cgroup().command("vsftpd").arg(&file))
            .context("vsftpd (cargo xtask setup installs it)")?;
        let mut vsftpd = Self {
            process,
            settings,
            root,
            content,
        };
        let port = server.socket(Family::V4, CONTROL_PORT);
        server.enter(|| vsftpd.wait_until_it_answers(port))??;
        Ok(vsftpd)
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

    fn wait_until_it_answers(&mut self, port: SocketAddr) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect_timeout(&port, Duration::from_millis(200)).is_err() {
            if self.process.ended()?.is_some() || Instant::now() > deadline {
                bail!(
                    "vsftpd does not answer on {port}; its output:\n{}",
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
