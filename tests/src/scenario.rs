//! Honest transfers and attacks, each played once from end to end.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    attack::{self, Answer},
    client::{self, Commands, FtpClient},
    ftpd::{FILE, Ftpd, Kind, Settings, UPLOADS},
    sandbox::{Family, Host, Sandbox},
    target::Target,
    tls::Version,
    wire::SynWatch,
};

/// A refusal that the ftpd reports later than this was a time-out, not a refusal (rule O4).
pub const AT_ONCE: Duration = Duration::from_secs(3);

/// A service port, for bounces to the client itself: `printer`, below 1024.
const LOW_PORT: u16 = 515;

/// A sandbox with a running ftpd.
#[derive(Debug)]
pub struct Stage {
    /// The ftpd.
    pub ftpd: Ftpd,
    /// The hosts.
    pub sandbox: Sandbox,
}

/// What is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// An honest client fetches and stores a file over connections that it opens.
    Passive,
    /// An honest client fetches and stores a file over connections that the ftpd opens.
    Active,
    /// A thief connects to the announced port before the client does (threats T1, T2).
    ThiefFirst,
    /// A thief connects to the announced port after the client did (rule K6).
    ThiefAfter,
    /// A thief scans the passive range while a port is announced (threat T4).
    Scan,
    /// A user has the ftpd connect to a third host (threat T5).
    BounceToThirdHost,
    /// A user has the ftpd connect to a service port, below 1024, of the user's own host (rule O1).
    BounceToLowPort,
}

/// Who got what they wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Winner {
    /// Every honest transfer arrived whole, and the attacker, if there was one, got nothing.
    Honest,
    /// The attacker reached what he wanted to reach.
    Attacker,
    /// The honest transfer failed although no attacker reached anything.
    Nobody,
}

/// How a scene went.
#[derive(Clone, Debug)]
pub struct Played {
    /// Who won.
    pub winner: Winner,
    /// What happened, in a few words.
    pub told: String,
    /// How long it took.
    pub took: Duration,
}

impl Scene {
    /// All of them, in the order of a demonstration.
    pub const ALL: [Self; 7] = [
        Self::Passive,
        Self::Active,
        Self::ThiefFirst,
        Self::ThiefAfter,
        Self::Scan,
        Self::BounceToThirdHost,
        Self::BounceToLowPort,
    ];

    /// What is played, in a few words.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Passive => "honest passive transfers",
            Self::Active => "honest active transfers",
            Self::ThiefFirst => "thief connects before the client",
            Self::ThiefAfter => "thief connects after the client",
            Self::Scan => "scan of the whole passive range",
            Self::BounceToThirdHost => "bounce to a third host",
            Self::BounceToLowPort => "bounce to a port below 1024",
        }
    }

    /// Who should win against an ftpd without own checks.
    #[must_use]
    pub fn should_win(self, guarded: bool) -> Winner {
        match self {
            Self::Passive | Self::Active => Winner::Honest,
            Self::ThiefFirst
            | Self::ThiefAfter
            | Self::Scan
            | Self::BounceToThirdHost
            | Self::BounceToLowPort => {
                if guarded {
                    Winner::Honest
                } else {
                    Winner::Attacker
                }
            }
        }
    }

    /// Whether this ftpd can be made to do it. vsftpd never connects to a port below 1024.
    #[must_use]
    pub fn suits(self, kind: Kind) -> bool {
        self != Self::BounceToLowPort || kind == Kind::Pyftpdlib
    }

    /// Plays it. An error means that the stage itself failed: no login, no namespace.
    pub fn play(self, stage: &Stage, family: Family) -> Result<Played> {
        let start = Instant::now();
        let host = stage.sandbox.client();
        let (winner, told) = host.enter(|| match self {
            Self::Passive => honest(stage, family, Direction::Passive),
            Self::Active => honest(stage, family, Direction::Active),
            Self::ThiefFirst => thief_first(stage, family),
            Self::ThiefAfter => thief_after(stage, family),
            Self::Scan => scan(stage, family),
            Self::BounceToThirdHost => bounce(stage, family, stage.sandbox.third(), 0),
            Self::BounceToLowPort => bounce(stage, family, stage.sandbox.client(), LOW_PORT),
        })??;
        Ok(Played {
            winner,
            told,
            took: start.elapsed(),
        })
    }
}

impl Stage {
    /// Makes a sandbox and starts an ftpd in it.
    pub fn new(settings: Settings) -> Result<Self> {
        let sandbox = Sandbox::new().context("making the sandbox")?;
        let ftpd = Ftpd::start(&sandbox, settings)?;
        Ok(Self { ftpd, sandbox })
    }

    /// Ends the ftpd and starts it again, with the same settings.
    pub fn restart(&mut self) -> Result<()> {
        self.ftpd.stop();
        self.ftpd = Ftpd::start(&self.sandbox, self.ftpd.settings().clone())?;
        Ok(())
    }

    /// Opens a session from the thread's own host.
    pub fn login(&self, family: Family) -> Result<FtpClient> {
        // ProFTPD accepts no TLS 1.3 session but the one that its control connection began with,
        // and rustls gives each of them away once only.
        let version = if self.ftpd.settings().tls_reuse {
            Version::Tls12
        } else {
            Version::Tls13
        };
        self.login_by(family, version)
    }

    /// Opens a session, with this version of TLS if the ftpd speaks TLS.
    pub fn login_by(&self, family: Family, version: Version) -> Result<FtpClient> {
        let port = self.ftpd.settings().control_port();
        let server = self.sandbox.server().socket(family, port);
        let security = self.ftpd.security(version)?;
        // libunftp 0.24 has answered AUTH before it waits for the handshake, which it may then
        // read as a command: without a guard as well.
        let mut tries = match (self.ftpd.settings().kind, &security) {
            (Kind::Libunftp, Some(_)) => 20,
            _ => 1,
        };
        loop {
            tries -= 1;
            match FtpClient::login_with(server, security.clone()) {
                Err(_) if tries > 0 => {}
                result => return result,
            }
        }
    }

    /// Whether these are the bytes of the file that the ftpd offers.
    #[must_use]
    pub fn is_file(&self, content: &[u8]) -> bool {
        content == self.ftpd.content()
    }
}

type Outcome = Result<(Winner, String)>;

#[derive(Clone, Copy, Debug)]
enum Direction {
    Passive,
    Active,
}

/// Fetches and stores once with each set of commands that the family knows.
fn honest(stage: &Stage, family: Family, direction: Direction) -> Outcome {
    let mut ftp = stage.login(family)?;
    let both: &[Commands] = match family {
        Family::V4 => &[Commands::Classic, Commands::Extended],
        Family::V6 => &[Commands::Extended],
    };
    let mut bytes = 0;
    for &commands in both {
        match transfer(stage, &mut ftp, direction, commands) {
            Ok(length) => bytes += length,
            Err(error) => return Ok((Winner::Nobody, format!("{error:#}"))),
        }
    }
    ftp.quit()?;
    Ok((Winner::Honest, format!("{} kB intact", bytes / 1000)))
}

/// One fetch and one store, compared byte by byte. Returns how many bytes went.
fn transfer(
    stage: &Stage,
    ftp: &mut FtpClient,
    direction: Direction,
    commands: Commands,
) -> Result<usize> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("{}.bin", NUMBER.fetch_add(1, Ordering::Relaxed));
    let remote = format!("{UPLOADS}/{name}");
    let content = stage.ftpd.content();
    let fetched = match direction {
        Direction::Passive => {
            ftp.store_passive(&remote, content, commands)?;
            ftp.retrieve_passive(FILE, commands)?
        }
        Direction::Active => {
            ftp.store_active(&remote, content, commands)?;
            ftp.retrieve_active(FILE, commands)?
        }
    };
    ensure!(stage.is_file(&fetched), "the fetched file is damaged");
    let stored = stage.ftpd.uploaded(&name)?;
    ensure!(stage.is_file(&stored), "the stored file is damaged");
    Ok(fetched.len() + stored.len())
}

/// The thief is there first; then the client connects and asks for the file.
fn thief_first(stage: &Stage, family: Family) -> Outcome {
    let mut ftp = stage.login(family)?;
    let announced = ftp.passive(Commands::of(family))?;
    let answer = attack::knock(stage.sandbox.thief(), announced)?;
    let own = client::connect(announced);
    ftp.send(&format!("RETR {FILE}"))?;
    let (reached, stolen, fetched) = thread::scope(|scope| {
        let thief = scope.spawn(|| match answer {
            Answer::Connected(stream) => (true, client::read_all(stream).unwrap_or_default()),
            Answer::Refused | Answer::Silent => (false, Vec::new()),
        });
        let fetched = own
            .and_then(|data| ftp.read_all(data.stream))
            .unwrap_or_default();
        let (reached, stolen) = thief
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (reached, stolen, fetched)
    });
    let reply = ftp.reply()?;
    Ok(if stage.is_file(&stolen) {
        let told = "the thief has the file, the client has nothing";
        (Winner::Attacker, told.to_owned())
    } else if !stage.is_file(&fetched) {
        let told = format!("transfer failed: {}", reply.text);
        (
            if reached {
                Winner::Attacker
            } else {
                Winner::Nobody
            },
            told,
        )
    } else if reached {
        let told = "the thief reached the port, the client has the file";
        (Winner::Attacker, told.to_owned())
    } else {
        let told = "no answer for the thief, the client has the file";
        (Winner::Honest, told.to_owned())
    })
}

/// The client is there first, then comes the thief.
fn thief_after(stage: &Stage, family: Family) -> Outcome {
    let mut ftp = stage.login(family)?;
    let announced = ftp.passive(Commands::of(family))?;
    let own = match client::connect(announced) {
        Ok(own) => own,
        Err(error) => return Ok((Winner::Nobody, format!("{error:#}"))),
    };
    let answer = attack::knock(stage.sandbox.thief(), announced)?;
    let fetched = ftp.receive(FILE, own.stream);
    Ok(match (answer, fetched) {
        (Answer::Connected(_), _) => (
            Winner::Attacker,
            "the thief reached the ftpd's listener".to_owned(),
        ),
        (Answer::Refused, _) => (
            Winner::Attacker,
            "the thief was told that the port is closed".to_owned(),
        ),
        (Answer::Silent, Ok(content)) if stage.is_file(&content) => (
            Winner::Honest,
            "no answer for the thief, the client has the file".to_owned(),
        ),
        (Answer::Silent, Ok(_)) => (Winner::Nobody, "the file is damaged".to_owned()),
        (Answer::Silent, Err(error)) => (Winner::Nobody, format!("{error:#}")),
    })
}

/// A port is announced; the thief looks for it; then the client uses it.
fn scan(stage: &Stage, family: Family) -> Outcome {
    let mut ftp = stage.login(family)?;
    let announced = ftp.passive(Commands::of(family))?;
    let ports = stage.ftpd.settings().passive_ports.clone();
    let found = attack::scan(stage.sandbox.thief(), announced.ip(), ports)?;
    let told = format!(
        "{} open, {} closed, {} silent",
        found.open.len(),
        found.closed.len(),
        found.silent.len()
    );
    if !found.open.is_empty() || !found.closed.is_empty() {
        return Ok((Winner::Attacker, told));
    }
    let fetched = client::connect(announced).and_then(|data| ftp.receive(FILE, data.stream));
    Ok(match fetched {
        Ok(content) if stage.is_file(&content) => (Winner::Honest, told),
        Ok(_) => (Winner::Nobody, format!("{told}, the file is damaged")),
        Err(error) => (Winner::Nobody, format!("{told}; {error:#}")),
    })
}

/// A user names an address that is not for a data connection; then transfers honestly in the
/// same session, which the guard must not have harmed (principle P5).
fn bounce(stage: &Stage, family: Family, host: &Host, port: u16) -> Outcome {
    let target = Target::start(host, family, port)?;
    let commands = Commands::of(family);
    let mut ftp = stage.login(family)?;
    let watch = SynWatch::start(stage.sandbox.server())?;
    // Some ftpds connect when they are told where to (rule O5), some when there is a file to send.
    let mut reply = ftp.active(target.address(), commands)?;
    if reply.code == 200 {
        reply = ftp.command(&format!("RETR {FILE}"))?;
    }
    ensure!(
        !reply.text.starts_with("50"),
        "the ftpd refuses the bounce by itself, so there is nothing to guard: {}",
        reply.text
    );
    let reached = matches!(reply.code, 125 | 150) && target.was_reached(Duration::from_secs(2));
    let syns = watch.stop()?;
    let sent = syns.iter().filter(|syn| **syn == target.address()).count();
    if reached {
        let told = format!("{} bytes arrived there", target.received());
        return Ok((Winner::Attacker, told));
    }
    if sent > 0 || target.accepted() > 0 {
        let told = format!("{sent} SYNs left the host, answer: {}", reply.text);
        return Ok((Winner::Attacker, told));
    }
    let late = reply.code != 425 || reply.took > AT_ONCE;
    let told = format!(
        "{} after {:.1} ms, no SYN left",
        reply.code,
        reply.took.as_secs_f64() * 1000.0
    );
    if late {
        return Ok((Winner::Nobody, told));
    }
    Ok(
        match transfer(stage, &mut ftp, Direction::Active, commands) {
            Ok(_) => (Winner::Honest, told),
            Err(error) => (Winner::Nobody, format!("{told}, but then {error:#}")),
        },
    )
}
