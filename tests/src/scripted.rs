//! An FTP server that says what its client tells it to say.

use std::{
    fs,
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    ftpd::CONTROL_PORT,
    process::Process,
    sandbox::{Family, Sandbox},
};

/// What the file that it serves holds.
pub const CONTENT: &[u8] = b"the file";

const PROGRAM: &str = include_str!("scripted.py");

/// The running server. It ends when this value is dropped.
#[derive(Debug)]
pub struct Scripted(Process);

impl Scripted {
    /// Starts it on the sandbox's server and waits until it answers.
    pub fn start(sandbox: &Sandbox) -> Result<Self> {
        let file = sandbox.folder().join("scripted.py");
        fs::write(&file, PROGRAM).with_context(|| format!("writing {}", file.display()))?;
        let mut command = sandbox.ftpd_cgroup().command("/usr/bin/python3");
        command
            .arg(file)
            .args([&CONTROL_PORT.to_string(), "50000", "50031"]);
        let server = sandbox.server();
        let process = server.spawn(&mut command)?;
        let port = server.socket(Family::V4, CONTROL_PORT);
        let deadline = Instant::now() + Duration::from_secs(10);
        server.enter(|| {
            while TcpStream::connect_timeout(&port, Duration::from_millis(200)).is_err() {
                if Instant::now() > deadline {
                    bail!("the scripted server does not answer:\n{}", process.log());
                }
                thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        })??;
        Ok(Self(process))
    }

    /// Everything it complained of so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.0.log()
    }
}
