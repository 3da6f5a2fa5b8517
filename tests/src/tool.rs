//! FTP clients that people use: curl, lftp and Python's ftplib.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{
    client::Commands,
    ftpd::{CONTROL_PORT, FILE, UPLOADS},
    process::Finished,
    sandbox::{Family, Sandbox},
};

/// How long one transfer may take. A lost first SYN costs one second.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Which client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// curl
    Curl,
    /// lftp
    Lftp,
    /// ftplib of Python 3
    Ftplib,
}

/// Who opens the data connection (RFC 959 section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The client does.
    Passive,
    /// The ftpd does.
    Active,
}

/// What ftplib is told: host, way, direction, remote name, local file.
const SCRIPT: &str = "
import sys
from ftplib import FTP
host, way, direction, remote, local = sys.argv[1:]
ftp = FTP(host, timeout=10)
ftp.login()
ftp.set_pasv(way == 'passive')
if direction == 'down':
    with open(local, 'wb') as f:
        ftp.retrbinary('RETR ' + remote, f.write)
else:
    with open(local, 'rb') as f:
        ftp.storbinary('STOR ' + remote, f)
ftp.quit()
";

impl Tool {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Curl, Self::Lftp, Self::Ftplib];
}

/// One transfer by one of the tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The client.
    pub tool: Tool,
    /// IPv4 or IPv6.
    pub family: Family,
    /// Who opens the data connection.
    pub way: Way,
    /// With which commands. ftplib has no choice, see [`Transfer::all`].
    pub commands: Commands,
}

impl Transfer {
    /// Every tool, over both families, with every set of commands that it can use there: PASV or
    /// EPSV (`Passive`), PORT or EPRT (`Active`).
    #[must_use]
    pub fn all(way: Way) -> Vec<Self> {
        let mut all = Vec::new();
        for tool in Tool::ALL {
            for (family, commands) in [
                (Family::V4, Commands::Classic),
                (Family::V4, Commands::Extended),
                (Family::V6, Commands::Extended),
            ] {
                // ftplib and active lftp use the classic commands for IPv4, always.
                let fixed = tool == Tool::Ftplib || (tool == Tool::Lftp && way == Way::Active);
                if !fixed || commands == Commands::of(family) {
                    all.push(Self {
                        tool,
                        family,
                        way,
                        commands,
                    });
                }
            }
        }
        all
    }

    /// Fetches the file that the ftpd offers, and returns its bytes.
    pub fn fetch(self, sandbox: &Sandbox) -> Result<Vec<u8>> {
        let local = scratch(sandbox);
        self.run(sandbox, Direction::Down, FILE, &local)?;
        let content = fs::read(&local).with_context(|| format!("reading {}", local.display()))?;
        let _ = fs::remove_file(&local);
        Ok(content)
    }

    /// Stores these bytes in the ftpd's upload folder under `name`.
    pub fn store(self, sandbox: &Sandbox, name: &str, content: &[u8]) -> Result<()> {
        let local = scratch(sandbox);
        fs::write(&local, content).with_context(|| format!("writing {}", local.display()))?;
        self.run(sandbox, Direction::Up, &format!("{UPLOADS}/{name}"), &local)?;
        let _ = fs::remove_file(&local);
        Ok(())
    }

    fn run(
        self,
        sandbox: &Sandbox,
        direction: Direction,
        remote: &str,
        local: &Path,
    ) -> Result<Finished> {
        let server = sandbox.server().address(self.family);
        let mut command = match self.tool {
            Tool::Curl => self.curl(server, direction, remote, local),
            Tool::Lftp => self.lftp(server, direction, remote, local),
            Tool::Ftplib => self.ftplib(server, direction, remote, local),
        };
        sandbox
            .client()
            .run(&mut command, TIMEOUT)?
            .success(&format!("{self:?}"))
    }

    fn curl(self, server: IpAddr, direction: Direction, remote: &str, local: &Path) -> Command {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "15"]);
        match (self.way, self.commands) {
            (Way::Passive, Commands::Classic) => command.args(["--ftp-pasv", "--disable-epsv"]),
            (Way::Passive, Commands::Extended) => command.arg("--ftp-pasv"),
            (Way::Active, Commands::Classic) => command.args(["--ftp-port", "-", "--disable-eprt"]),
            (Way::Active, Commands::Extended) => command.args(["--ftp-port", "-"]),
        };
        command
            .arg(match direction {
                Direction::Down => "--output",
                Direction::Up => "--upload-file",
            })
            .arg(local)
            .arg(format!("ftp://{}/{remote}", host(server)));
        command
    }

    fn lftp(self, server: IpAddr, direction: Direction, remote: &str, local: &Path) -> Command {
        let switch = |on: bool| if on { "on" } else { "off" };
        let passive = switch(self.way == Way::Passive);
        let extended = switch(self.commands == Commands::Extended);
        let local = local.display();
        let transfer = match direction {
            Direction::Down => format!("get {remote} -o {local}"),
            Direction::Up => format!("put {local} -o {remote}"),
        };
        let mut command = Command::new("lftp");
        command
            // No settings of whoever runs this.
            .env("HOME", "/nonexistent")
            .args(["--norc", "-e"])
            .arg(format!(
                "set net:timeout 5; set net:max-retries 1; set ftp:ssl-allow off; \
                 set xfer:clobber on; set cmd:fail-exit on; set ftp:passive-mode {passive}; \
                 set ftp:prefer-epsv {extended}; {transfer}; exit"
            ))
            .arg(format!("ftp://anonymous:nobody@{}", host(server)));
        command
    }

    fn ftplib(self, server: IpAddr, direction: Direction, remote: &str, local: &Path) -> Command {
        let mut command = Command::new("python3");
        command
            .args(["-c", SCRIPT])
            .arg(server.to_string())
            .arg(match self.way {
                Way::Passive => "passive",
                Way::Active => "active",
            })
            .arg(match direction {
                Direction::Down => "down",
                Direction::Up => "up",
            })
            .arg(remote)
            .arg(local);
        command
    }
}

/// Which way the file goes.
#[derive(Clone, Copy, Debug)]
enum Direction {
    Down,
    Up,
}

/// The host part of a URL.
fn host(server: IpAddr) -> String {
    match server {
        IpAddr::V4(_) => format!("{server}:{CONTROL_PORT}"),
        IpAddr::V6(_) => SocketAddr::new(server, CONTROL_PORT).to_string(),
    }
}

/// A new local file name.
fn scratch(sandbox: &Sandbox) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    sandbox.folder().join(format!("local-{number}"))
}
