//! docs/quick-start.md, carried out word for word on a machine of its own, with honest transfers
//! and thefts in between.

mod page;

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};

use self::page::{Step, steps};
use crate::{
    attack::{self, Answer},
    client::{self, Commands, FtpClient},
    ftpd::{FILE, cache, content},
    guard,
    process::Finished,
    sandbox::{Family, INTERFACE, Sandbox},
    service_manager::ServiceManager,
    terminal::Terminal,
};

/// The page.
pub const PAGE: &str = include_str!("../../../docs/quick-start.md");
const PREPARE: &str = include_str!("prepare.sh");

/// FTP servers of the machine: unit, control port.
const SERVERS: [(&str, u16); 3] = [("vsftpd", 21), ("proftpd", 2121), ("pure-ftpd", 2122)];
/// The one whose data connections can be stolen: `ProFTPD` 1.3.8 does not ask who connects.
const TRUSTING: u16 = 2121;
/// Where the packages put the configuration.
const CONFIGURATION: &str = "/etc/ftpguard/ftpguard.toml";
const UNIT: &str = "ftpguard.service";

/// How ftpguard comes to the machine.
#[derive(Clone, Debug)]
pub enum Package {
    /// As the page says: the .deb, with apt.
    Deb(PathBuf),
    /// The program, and from this folder what the packages put beside it. The page's commands of
    /// package managers are left out.
    Files {
        /// The program.
        program: PathBuf,
        /// The workspace's folder `packaging`.
        packaging: PathBuf,
    },
}

/// One theft that was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Theft {
    /// The thief has the file.
    Done,
    /// No answer to the thief, and the client has its file.
    Refused,
}

struct Play<'a> {
    sandbox: &'a Sandbox,
    machine: ServiceManager,
    package: &'a Package,
    file: Vec<u8>,
    transcript: String,
}

/// Carries the page out. Returns a transcript.
///
/// Every command has to succeed. In monitor mode a theft succeeds and is told, enforced it fails
/// and is told; honest transfers succeed throughout, and when all is done nothing is left.
pub fn play(package: &Package) -> Result<String> {
    let sandbox = Sandbox::new()?;
    let file = content(300_000);
    let machine = boot(&sandbox, package, &file)?;
    let mut play = Play {
        sandbox: &sandbox,
        machine,
        package,
        file,
        transcript: String::new(),
    };
    // Nobody answers systemctl until systemd has come up.
    let up = || {
        let told = play.run(&["systemctl", "is-active", "sandbox.target"]);
        told.ok()?.status.success().then_some(())
    };
    play.machine.wait_for("machine", up)?;
    for (server, _) in SERVERS {
        let started = play.run(&["systemctl", "start", server])?.success(server);
        started.with_context(|| play.machine.log())?;
    }
    for (server, port) in SERVERS {
        let answers = || {
            let port = sandbox.server().socket(Family::V4, port);
            let knock = attack::knock(sandbox.client(), port);
            matches!(knock, Ok(Answer::Connected(_))).then_some(())
        };
        play.machine.wait_for(server, answers)?;
    }
    play.honest("before")?;
    play.theft(Theft::Done)?;
    let begun = Instant::now();
    for step in steps(PAGE) {
        match step {
            Step::Heading(heading) => {
                let _ = writeln!(play.transcript, "\n## {heading}\n");
            }
            Step::Command { root, line } => play
                .command(root, line)
                .with_context(|| format!("the page's `{line}`; so far:\n{}", play.transcript))?,
            Step::Configuration(text) => play.configuration(&text)?,
        }
    }
    let took = begun.elapsed().as_secs_f64();
    let _ = writeln!(play.transcript, "\nAll of it took {took:.0} s.");
    play.theft(Theft::Done)?;
    Ok(play.transcript)
}

/// A machine with three FTP servers that are not running yet.
fn boot(sandbox: &Sandbox, package: &Package, file: &[u8]) -> Result<ServiceManager> {
    let folder = guard::folder(sandbox, "files")?;
    let data = folder.join(FILE);
    fs::write(&data, file).with_context(|| format!("writing {}", data.display()))?;
    let mut files: Vec<(String, PathBuf)> = vec![(FILE.to_owned(), data)];
    let ftpds = cache::folder();
    for path in tree(
        &ftpds,
        &["usr/sbin", "usr/lib/proftpd", "lib/systemd/system"],
    )? {
        let name = path.strip_prefix(&ftpds).unwrap_or(&path).display();
        files.push((format!("ftpds/{name}"), path.clone()));
    }
    match package {
        Package::Deb(deb) => {
            let name = deb.file_name().context("a name")?.to_string_lossy();
            files.push((name.into_owned(), deb.clone()));
        }
        Package::Files { program, packaging } => {
            files.push(("ftpguard".to_owned(), program.clone()));
            for name in ["ftpguard.toml", UNIT] {
                files.push((name.to_owned(), packaging.join(name)));
            }
        }
    }
    let files: Vec<(&str, &Path)> = files
        .iter()
        .map(|(name, path)| (name.as_str(), path.as_path()))
        .collect();
    ServiceManager::boot_machine(sandbox, &[], &files, "", PREPARE)
}

/// The files in these folders below `top`, and in theirs.
fn tree(top: &Path, folders: &[&str]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = folders.iter().map(|name| top.join(name)).collect();
    while let Some(folder) = open.pop() {
        let entries = fs::read_dir(&folder)
            .with_context(|| format!("reading {} (cargo xtask setup)", folder.display()))?;
        for entry in entries {
            let path = entry.context("reading a folder")?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.is_file() {
                found.push(path);
            }
        }
    }
    Ok(found)
}

impl Play<'_> {
    fn run(&self, words: &[&str]) -> Result<Finished> {
        self.machine.run(words)
    }

    /// Notes something that happens between the commands.
    fn note(&mut self, what: &str) {
        let _ = writeln!(self.transcript, "({what})\n");
    }

    /// Runs one of the page's commands, does what people would do around it, and looks at what it
    /// says.
    fn command(&mut self, root: bool, line: &str) -> Result<()> {
        let is_package = line.starts_with("apt ") || line.starts_with("dnf ");
        let is_apt = line.starts_with("apt ");
        match self.package.clone() {
            Package::Deb(_) if is_package && !is_apt => return Ok(()),
            Package::Files { .. } if is_package => {
                if line.contains(" install ") && is_apt {
                    self.place()?;
                }
                return Ok(());
            }
            Package::Deb(_) | Package::Files { .. } => {}
        }
        if line == "ftpguard top" {
            return self.top();
        }
        if line == "ftpguard status" {
            self.monitored()?;
        }
        // What needs no root is done without: as a user who owns nothing.
        let user = "setpriv --reuid=nobody --regid=nogroup --clear-groups ";
        let script = format!("cd /mnt && {}{line}", if root { "" } else { user });
        let finished = self.run(&["sh", "-c", &script])?;
        let sign = if root { "#" } else { "$" };
        let _ = writeln!(self.transcript, "{sign} {line}\n{}\n", finished.stdout);
        let told = finished.success(line)?.stdout;
        let expected: &[&str] = match line {
            "ftpguard doctor" => &[
                "vsftpd 3.",
                "proftpd 1.",
                "pure-ftpd 1.",
                "50000-50099",
                "52000-52099",
            ],
            "ftpguard doctor --write" => &["was written to", CONFIGURATION],
            "ftpguard status" => &["monitor", INTERFACE, "21, 2121, 2122", "no-pinhole"],
            "ftpguard mode" => &["monitor", "no-pinhole"],
            "ftpguard events" => &["no-pinhole", "51"],
            "ftpguard why" => &["no-pinhole", &self.thief()],
            "ftpguard mode enforce" => &["enforce"],
            _ => &[],
        };
        for part in expected {
            ensure!(told.contains(part), "no {part:?} in what it says:\n{told}");
        }
        match line {
            "ftpguard mode enforce" => {
                self.honest("enforced")?;
                self.theft(Theft::Refused)?;
            }
            "systemctl disable --now ftpguard" => self.nothing_is_left()?,
            "apt purge ftpguard" => {
                let there = self.run(&["test", "-e", "/etc/ftpguard"])?;
                ensure!(!there.status.success(), "its configuration is still there");
            }
            _ => {}
        }
        Ok(())
    }

    /// Puts into place what a package would.
    fn place(&self) -> Result<()> {
        let script = format!(
            "cp /mnt/ftpguard /usr/bin/ && chmod 755 /usr/bin/ftpguard && mkdir /etc/ftpguard && \
             cp /mnt/ftpguard.toml {CONFIGURATION} && cp /mnt/{UNIT} /usr/lib/systemd/system/ && \
             systemctl daemon-reload"
        );
        let placed = self.run(&["sh", "-c", &script])?;
        placed.success("putting the files into place").map(drop)
    }

    /// What people do while the guard only watches.
    fn monitored(&mut self) -> Result<()> {
        self.machine.wait_until_active(UNIT)?;
        self.honest("in monitor mode")?;
        self.theft(Theft::Done)
    }

    /// Looks at the live view, in a real terminal.
    fn top(&mut self) -> Result<()> {
        let _session = self.sandbox.client().enter(|| self.login(TRUSTING))??;
        let words = self.machine.inside(&["ftpguard", "top"]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let terminal = Terminal::open(self.sandbox.folder(), (80, 24), &words)?;
        let thief = self.thief();
        let screen = terminal.wait_for(&["Sessions (", "no-pinhole", &thief, "q quits"])?;
        let _ = writeln!(self.transcript, "# ftpguard top\n{screen}\n");
        terminal.press("q")?;
        terminal.wait_until_closed()
    }

    /// A part of the file: where it names the FTP servers it is a whole one, else it is added.
    fn configuration(&mut self, text: &str) -> Result<()> {
        let script = if text.contains("[[ftpd]]") {
            "printf '%s' \"$1\" > /tmp/own.toml && ftpguard check --config /tmp/own.toml"
        } else {
            self.note(&format!("added to {CONFIGURATION}:\n{text}"));
            "printf '%s' \"$1\" >> \"$0\" && ftpguard check"
        };
        let done = self.run(&["sh", "-c", script, CONFIGURATION, text])?;
        done.success("the page's configuration").map(drop)
    }

    /// Every server serves its file, in passive and in active mode.
    fn honest(&mut self, when: &str) -> Result<()> {
        for (server, port) in SERVERS {
            let files = self.sandbox.client().enter(|| {
                let mut ftp = self.login(port)?;
                let passive = ftp.retrieve_passive(FILE, Commands::Classic)?;
                anyhow::Ok([passive, ftp.retrieve_active(FILE, Commands::Classic)?])
            })?;
            let files = files.with_context(|| format!("{server} {when}"))?;
            ensure!(
                files.iter().all(|file| *file == self.file),
                "{server} {when}: another file"
            );
        }
        self.note("files fetched from each of the three servers, passive and active");
        Ok(())
    }

    /// A thief connects to the port that was announced to a client, before the client does (T1).
    fn theft(&mut self, expected: Theft) -> Result<()> {
        let (mut ftp, port) = self.sandbox.client().enter(|| {
            let mut ftp = self.login(TRUSTING)?;
            let port = ftp.passive(Commands::Classic)?;
            anyhow::Ok((ftp, port))
        })??;
        let outcome = match attack::knock(self.sandbox.thief(), port)? {
            Answer::Connected(data) => {
                ftp.send(&format!("RETR {FILE}"))?;
                ensure!(client::read_all(data)? == self.file, "another file");
                Theft::Done
            }
            Answer::Silent => {
                let data = self.sandbox.client().enter(|| client::connect(port))??;
                ensure!(data.syns_lost == 0, "the client's first SYN was lost");
                ensure!(ftp.receive(FILE, data.stream)? == self.file, "another file");
                Theft::Refused
            }
            Answer::Refused => bail!("nobody listens on {port}"),
        };
        ensure!(outcome == expected, "{outcome:?}, not {expected:?}");
        self.note(match outcome {
            Theft::Done => "a thief connected to a client's data port and got its file",
            Theft::Refused => {
                "a thief tried to, and got no answer; the client got its file at the first try"
            }
        });
        Ok(())
    }

    /// The guard has ended: nothing is attached or pinned.
    fn nothing_is_left(&self) -> Result<()> {
        let script = format!(
            "ls -d /sys/fs/bpf/ftpguard* 2> /dev/null; ip link show {INTERFACE} | grep xdp; tc filter show dev {INTERFACE} \
             ingress; ls /run/ftpguard 2> /dev/null"
        );
        let left = self.run(&["sh", "-c", &script])?.stdout;
        ensure!(left.trim().is_empty(), "left behind:\n{left}");
        Ok(())
    }

    fn thief(&self) -> String {
        self.sandbox.thief().address(Family::V4).to_string()
    }

    /// A session with the server at this control port. To be called on the client's host.
    fn login(&self, port: u16) -> Result<FtpClient> {
        FtpClient::login(SocketAddr::new(
            self.sandbox.server().address(Family::V4),
            port,
        ))
    }
}
