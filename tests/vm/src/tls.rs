//! vsftpd and curl with TLS: there is no text to read, and the guard knows the ports all the
//! same (rule F1).

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ftpguard_common::verdict::Reason;
use ftpguard_tests::{
    Family, Guard, Sandbox,
    attack::Hammer,
    ftpd::{CONTROL_PORT, content},
    guard::Options,
    process::Process,
    tool::Way,
};

use crate::checks::test;

/// Where the image has a self-signed certificate with its key.
const CERTIFICATE: &str = "/etc/vsftpd.pem";

const PORTS: std::ops::RangeInclusive<u16> = 50_000..=50_031;
const LIMIT: Duration = Duration::from_secs(30);

/// Transfers in both ways; in the first a thief tries a port of the range over and over.
pub(crate) fn check(name: &str) -> Result<()> {
    let sandbox = Sandbox::new()?;
    let file = content(300_000);
    let _ftpd = start_vsftpd(&sandbox, &file)?;
    let guard = test(&format!("{name}: the guard starts"), || {
        Guard::start(&sandbox, &Options::default())
    })?;
    for family in Family::ALL {
        let transfer = |way: Way| {
            test(&format!("{name}: {way:?}, {}", family.label()), || {
                let fetched =
                    fetch(&sandbox, family, way).inspect_err(|_| println!("{}", guard.log()))?;
                ensure!(fetched == file, "the file is damaged");
                Ok(())
            })
        };
        let server = sandbox.server().address(family);
        // A thief more would leave the one emulated processor no time for anything else.
        let hammer = Hammer::start(sandbox.thief(), server, 50_000..=50_000)?;
        transfer(Way::Passive)?;
        let reached = hammer.stop();
        test(
            &format!("{name}: no thief got through, {}", family.label()),
            || {
                ensure!(reached == 0, "{reached} connections");
                guard.wait_for_counter(Reason::ClosedPort, 1)?;
                Ok(())
            },
        )?;
        transfer(Way::Active)?;
    }
    Ok(())
}

fn fetch(sandbox: &Sandbox, family: Family, way: Way) -> Result<Vec<u8>> {
    let local = sandbox.folder().join("fetched");
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "25"])
        .arg("--insecure")
        .args(match way {
            Way::Passive => ["--ftp-pasv", "--ssl-reqd"].as_slice(),
            // curl 7.88 never begins TLS on a data connection that it has accepted.
            Way::Active => ["--ftp-port", "-", "--ftp-ssl-control"].as_slice(),
        })
        .arg("--output")
        .arg(&local)
        .arg(format!(
            "ftp://{}/data.bin",
            sandbox.server().socket(family, CONTROL_PORT)
        ));
    sandbox
        .client()
        .run(&mut curl, LIMIT)?
        .success("curl with TLS")?;
    fs::read(&local).with_context(|| format!("reading {}", local.display()))
}

/// Starts a vsftpd that refuses everything without TLS.
fn start_vsftpd(sandbox: &Sandbox, file: &[u8]) -> Result<Process> {
    let folder = |name: &str| -> Result<PathBuf> {
        let path = sandbox.folder().join(name);
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(path)
    };
    let root = folder("ftp")?;
    let path = root.join("data.bin");
    fs::write(&path, file).with_context(|| format!("writing {}", path.display()))?;
    let configuration = sandbox.folder().join("vsftpd.conf");
    fs::write(&configuration, configure(&root, &folder("empty")?))
        .with_context(|| format!("writing {}", configuration.display()))?;
    let mut command = sandbox.ftpd_cgroup().command("vsftpd");
    let mut ftpd = sandbox.server().spawn(command.arg(configuration))?;
    let address = sandbox.server().socket(Family::V4, CONTROL_PORT);
    let begun = Instant::now();
    sandbox.server().enter(|| -> Result<()> {
        while TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_err() {
            ensure!(
                ftpd.ended()?.is_none() && begun.elapsed() < LIMIT,
                "vsftpd does not answer: {}",
                ftpd.log()
            );
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    })??;
    Ok(ftpd)
}

fn configure(root: &Path, empty: &Path) -> String {
    let (root, empty) = (root.display(), empty.display());
    let (first, last) = (PORTS.start(), PORTS.end());
    format!(
        "background=NO
listen=NO
listen_ipv6=YES
listen_port={CONTROL_PORT}
anonymous_enable=YES
no_anon_password=YES
local_enable=NO
ftp_username=ftp
nopriv_user=nobody
anon_root={root}
secure_chroot_dir={empty}
pasv_min_port={first}
pasv_max_port={last}
ssl_enable=YES
allow_anon_ssl=YES
force_anon_logins_ssl=YES
force_anon_data_ssl=NO
ssl_tlsv1=YES
require_ssl_reuse=NO
ssl_ciphers=HIGH
rsa_cert_file={CERTIFICATE}
rsa_private_key_file={CERTIFICATE}
"
    )
}
