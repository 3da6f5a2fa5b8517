//! TLS as clients that people use speak it: curl, lftp and ftplib, TLS 1.2 and 1.3, with data
//! connections that must resume the control connection's TLS session and with such that need not.

use std::{fs, net::SocketAddr, path::Path, process::Command, time::Duration};

use ftpguard_tests::{
    Family, Guard,
    ftpd::{FILE, Kind, UPLOADS},
    scenario::Stage,
    tool::Way,
};

use crate::{
    help::stage,
    zoo::{Tls, guard_for, origin, origins, settings},
};

/// How long one transfer may take. A lost first SYN costs one second.
const LIMIT: Duration = Duration::from_secs(20);

/// Who transfers, and over which version of TLS where it can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Curl12,
    Curl13,
    Lftp,
    Ftplib,
}

/// Python's FTP over TLS, with the control connection's session for data connections, which its
/// library leaves out.
const SCRIPT: &str = "
import ssl, sys
from ftplib import FTP, FTP_TLS
host, way, remote, fetched, stored, local = sys.argv[1:]
class Resuming(FTP_TLS):
    def ntransfercmd(self, cmd, rest=None):
        conn, size = FTP.ntransfercmd(self, cmd, rest)
        return self.context.wrap_socket(conn, session=self.sock.session), size
context = ssl._create_unverified_context()
ftp = Resuming(host, context=context, timeout=10)
ftp.login()
ftp.prot_p()
ftp.set_pasv(way == 'passive')
with open(fetched, 'wb') as f:
    ftp.retrbinary('RETR ' + remote, f.write)
with open(local, 'rb') as f:
    ftp.storbinary('STOR ' + stored, f)
ftp.quit()
";

/// One fetch and one store by this client.
struct Errand<'a> {
    server: SocketAddr,
    way: Way,
    implicit: bool,
    fetched: &'a Path,
    local: &'a Path,
    stored: String,
}

impl Errand<'_> {
    fn commands(&self, client: Client) -> Vec<Command> {
        match client {
            Client::Curl12 => self.curl(&["--tls-max", "1.2"], true),
            // It closes with session tickets unread, which vsftpd may take for a failure.
            Client::Curl13 => self.curl(&["--tlsv1.3"], false),
            Client::Lftp => vec![self.lftp()],
            Client::Ftplib => vec![self.ftplib()],
        }
    }

    fn scheme(&self) -> &str {
        if self.implicit { "ftps" } else { "ftp" }
    }

    /// Passive only: in active mode the curl of Debian 12 waits for itself under TLS.
    fn curl(&self, version: &[&str], stores: bool) -> Vec<Command> {
        let fetch = ("--output", self.fetched, FILE);
        let store = ("--upload-file", self.local, self.stored.as_str());
        [fetch, store]
            .into_iter()
            .take(if stores { 2 } else { 1 })
            .map(|(direction, local, remote)| {
                let mut curl = Command::new("curl");
                curl.args(["--silent", "--show-error", "--max-time", "15"]);
                curl.args(["--insecure", "--ssl-reqd", "--ftp-pasv"]);
                curl.args(version).arg(direction).arg(local);
                curl.arg(format!("{}://{}/{remote}", self.scheme(), self.server));
                curl
            })
            .collect()
    }

    fn lftp(&self) -> Command {
        let passive = if self.way == Way::Passive {
            "on"
        } else {
            "off"
        };
        let mut lftp = Command::new("lftp");
        lftp.env("HOME", "/nonexistent")
            .args(["--norc", "-e"])
            .arg(format!(
                "set net:timeout 5; set net:max-retries 1; set cmd:fail-exit on; \
             set xfer:clobber on; set ssl:verify-certificate no; set ftp:ssl-force on; \
             set ftp:ssl-protect-data on; set ftp:passive-mode {passive}; \
             get {FILE} -o {}; put {} -o {}; exit",
                self.fetched.display(),
                self.local.display(),
                self.stored
            ));
        lftp.arg(format!(
            "{}://anonymous:nobody@{}",
            self.scheme(),
            self.server
        ));
        lftp
    }

    fn ftplib(&self) -> Command {
        let way = if self.way == Way::Passive {
            "passive"
        } else {
            "active"
        };
        let mut python = Command::new("/usr/bin/python3");
        python
            .args(["-c", SCRIPT, &self.server.ip().to_string(), way, FILE])
            .arg(self.fetched)
            .arg(&self.stored)
            .arg(self.local);
        python
    }
}

fn transfer(stage: &Stage, guard: &Guard, client: Client, family: Family, way: Way) {
    let name = format!("{client:?}-{family:?}-{way:?}");
    let sandbox = &stage.sandbox;
    let (fetched, local) = (sandbox.folder().join(&name), sandbox.folder().join("local"));
    fs::write(&local, stage.ftpd.content()).expect("a local file");
    let settings = stage.ftpd.settings();
    let errand = Errand {
        server: sandbox.server().socket(family, settings.control_port()),
        way,
        implicit: settings.control_port() != ftpguard_tests::ftpd::CONTROL_PORT,
        fetched: &fetched,
        local: &local,
        stored: format!("{UPLOADS}/{name}"),
    };
    for mut command in errand.commands(client) {
        sandbox
            .client()
            .run(&mut command, LIMIT)
            .and_then(|finished| finished.success(&name))
            .unwrap_or_else(|error| {
                panic!(
                    "{settings:?}: {error:#}\n{}\n{}",
                    stage.ftpd.log(),
                    guard.log()
                )
            });
    }
    assert!(
        stage.is_file(&fs::read(&fetched).expect("fetched")),
        "{name}"
    );
    if client != Client::Curl13 {
        let stored = stage.ftpd.uploaded(&name).expect("stored");
        assert!(stage.is_file(&stored), "{name}");
    }
}

fn is_pyftpdlib(kind: Kind) -> bool {
    matches!(kind, Kind::Pyftpdlib | Kind::PyftpdlibThreads)
}

fn every_client_works(kind: Kind, tls: Tls) {
    let stage = stage(settings(kind, tls));
    let guard = guard_for(&stage);
    for (client, family, way) in [
        (Client::Curl12, Family::V4, Way::Passive),
        (Client::Curl13, Family::V6, Way::Passive),
        (Client::Lftp, Family::V4, Way::Passive),
        (Client::Lftp, Family::V6, Way::Active),
        (Client::Ftplib, Family::V4, Way::Passive),
    ] {
        let suits = match client {
            // pyftpdlib 1.5.7 resets it in the middle of a reply, guard or not.
            Client::Curl12 | Client::Curl13 => !is_pyftpdlib(kind),
            // It knows no implicit TLS.
            Client::Ftplib => !matches!(tls, Tls::Implicit),
            Client::Lftp => true,
        };
        if suits {
            transfer(&stage, &guard, client, family, way);
        }
    }
    for found in origins(&guard) {
        assert!(
            origin(kind).contains(&found.as_str()),
            "{found}\n{}",
            guard.log()
        );
    }
}

#[test]
fn f1_tls_clients_of_vsftpd() {
    every_client_works(Kind::Vsftpd, Tls::Explicit);
    every_client_works(Kind::Vsftpd, Tls::Reuse);
    every_client_works(Kind::Vsftpd, Tls::Implicit);
}

#[test]
fn f1_tls_clients_of_proftpd() {
    every_client_works(Kind::Proftpd, Tls::Reuse);
    every_client_works(Kind::Proftpd, Tls::Implicit);
}

#[test]
fn f1_tls_clients_of_pure_ftpd() {
    every_client_works(Kind::PureFtpd, Tls::Explicit);
}

#[test]
fn f1_tls_clients_of_pyftpdlib() {
    every_client_works(Kind::Pyftpdlib, Tls::Explicit);
    every_client_works(Kind::PyftpdlibThreads, Tls::Explicit);
}
