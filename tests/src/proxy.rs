//! An FTP proxy on the third host, in front of the ftpd on the server (rule O9): Debian's
//! `ftp-proxy`, of the SuSE Proxy Suite. IPv4 only, in clear only.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    ops::RangeInclusive,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    ftpd::{CONTROL_PORT, cache},
    process::Process,
    sandbox::{Family, Sandbox},
};

/// A running proxy. It ends when this value is dropped.
#[derive(Debug)]
pub struct FtpProxy {
    process: Process,
}

impl FtpProxy {
    /// Starts it, and waits until it answers.
    ///
    /// It does without its own check of who connects, so that only a guard stands in the way.
    /// `upstream` says how it opens data connections to the ftpd: `passive`, `active`, or `client`
    /// for the way its client does.
    pub fn start(
        sandbox: &Sandbox,
        upstream: &str,
        passive_ports: &RangeInclusive<u16>,
    ) -> Result<Self> {
        let host = sandbox.third();
        let text = format!(
            "[-Global-]
ServerType standalone
Listen {}
Port {CONTROL_PORT}
DestinationAddress {}
DestinationPort {CONTROL_PORT}
DestinationTransferMode {upstream}
PassiveMinDataPort {}
PassiveMaxDataPort {}
SockBindRand yes
SameAddress no
ForkLimit 10000
TimeOut 60
LogLevel WRN
LogDestination {}
PidFile {}
",
            host.address(Family::V4),
            sandbox.server().address(Family::V4),
            passive_ports.start(),
            passive_ports.end(),
            sandbox.folder().join("proxy.log").display(),
            sandbox.folder().join("proxy.pid").display(),
        );
        let file = sandbox.folder().join("ftp-proxy.conf");
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        let mut command = sandbox
            .proxy_cgroup()
            .command(cache::file("usr/sbin/ftp-proxy"));
        command.args(["-d", "-n", "-f"]).arg(&file);
        let mut proxy = Self {
            process: host.spawn(&mut command).context("starting ftp-proxy")?,
        };
        let port = host.socket(Family::V4, CONTROL_PORT);
        host.enter(|| proxy.wait_until_it_answers(port))??;
        Ok(proxy)
    }

    /// Everything it wrote so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    fn wait_until_it_answers(&mut self, port: SocketAddr) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect_timeout(&port, Duration::from_millis(200)).is_err() {
            if self.process.ended()?.is_some() || Instant::now() > deadline {
                bail!(
                    "ftp-proxy does not answer on {port} (cargo xtask setup installs it); its \
                     output:\n{}",
                    self.process.log()
                );
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}
