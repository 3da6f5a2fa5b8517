//! Who uses the ftpd: honest clients, a user who tries bounces, and a greedy client.

use std::{
    fmt::Write as _,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{Dice, history::History};
use crate::{
    Family, FtpClient, Host,
    attack::{self, Answer},
    client::{self, Commands},
    ftpd::FILE,
    process::{self, Transcript},
    scenario::Stage,
    target::Target,
};

/// How many sessions the greedy client opens at once.
pub(super) const GREEDY_SESSIONS: usize = 18;
/// Two honest clients, and the user who tries bounces.
pub(super) const HONEST: usize = 3;

/// A first SYN and the one a second later have passed by then, or never will.
const PATIENCE: Duration = Duration::from_millis(1_800);

/// What the clients are to do beside what they always do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// Sessions come and go.
    Open = 0,
    /// Honest sessions stay open, and the greedy client goes away.
    Gather = 1,
    /// Honest sessions stay open, and the greedy client's, too.
    Crowd = 2,
}

/// What the threads have in common.
pub(super) struct Shared {
    pub(super) name: &'static str,
    pub(super) begun: Instant,
    pub(super) history: History,
    pub(super) tell: fn(&str),
    done: AtomicBool,
    phase: AtomicU8,
    /// Sessions that stay open because of the phase.
    pub(super) staying: AtomicUsize,
    /// The greedy client's open sessions.
    pub(super) held: AtomicU64,
    /// How often the greedy client opened its sessions.
    pub(super) rounds: AtomicU64,
    pub(super) transfers: AtomicU64,
    /// First SYNs that were sent again around a lost link.
    pub(super) syns_lost: AtomicU64,
    pub(super) bounces: AtomicU64,
    pub(super) greedy: AtomicU64,
    pub(super) greedy_denied: AtomicU64,
    failures: Mutex<Vec<String>>,
    /// The binary and its runtime folder, to be asked what the guard knows.
    asked: Option<(PathBuf, PathBuf)>,
    /// What the last daemons write.
    transcripts: Mutex<Vec<Transcript>>,
}

impl Shared {
    pub(super) fn new(name: &'static str, tell: fn(&str)) -> Self {
        Self {
            name,
            begun: Instant::now(),
            history: History::default(),
            tell,
            done: AtomicBool::new(false),
            phase: AtomicU8::new(Phase::Open as u8),
            staying: AtomicUsize::new(0),
            held: AtomicU64::new(0),
            rounds: AtomicU64::new(0),
            transfers: AtomicU64::new(0),
            syns_lost: AtomicU64::new(0),
            bounces: AtomicU64::new(0),
            greedy: AtomicU64::new(0),
            greedy_denied: AtomicU64::new(0),
            failures: Mutex::default(),
            asked: None,
            transcripts: Mutex::default(),
        }
    }

    /// Whom to ask when something fails.
    pub(super) fn asking(mut self, binary: &Path, runtime: &Path) -> Self {
        self.asked = Some((binary.to_owned(), runtime.to_owned()));
        self
    }

    /// There is another daemon.
    pub(super) fn reads(&self, transcript: Transcript) {
        let mut transcripts = self
            .transcripts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        transcripts.push(transcript);
        let surplus = transcripts.len().saturating_sub(4);
        transcripts.drain(..surplus);
    }

    pub(super) fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }

    pub(super) fn end(&self) {
        self.done.store(true, Ordering::Relaxed);
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::SeqCst);
    }

    fn is_in(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::SeqCst) == phase as u8 && !self.is_done()
    }

    /// Writes a failure down, and tells it at once with what was done before.
    pub(super) fn fail(&self, since: Instant, what: &str) {
        let now = Instant::now();
        // What happened shortly before it began may be its cause.
        let since = since.checked_sub(Duration::from_secs(5)).unwrap_or(since);
        let failure = format!(
            "{} {:.1} s: {what}\n    before: {}",
            self.name,
            self.begun.elapsed().as_secs_f64(),
            self.history.told(since, now)
        );
        (self.tell)(&format!("FAILED {failure}"));
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.push(failure);
    }

    pub(super) fn failures(&self) -> Vec<String> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.clone()
    }

    /// What the guard knows of a session and its port: its answers, and the last lines it wrote
    /// about either.
    fn evidence(&self, session: u16, port: u16) -> String {
        let mut told = String::new();
        if let Some((binary, runtime)) = &self.asked {
            for question in ["sessions", "pinholes"] {
                let mut command = Command::new(binary);
                command.arg(question).arg("--runtime-dir").arg(runtime);
                let answer = process::run(&mut command, Duration::from_secs(3));
                let answer = match answer {
                    Ok(answer) => answer.stdout,
                    Err(error) => format!("{error:#}"),
                };
                let names = |line: &&str| mentions(line, session) || mentions(line, port);
                let lines: Vec<&str> = answer.lines().filter(names).collect();
                let _ = write!(told, "\n    {question}: {}", lines.join(" | "));
            }
        }
        let transcripts = self
            .transcripts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (number, transcript) in (1..).zip(transcripts.iter()) {
            let lines = transcript.lines(|line| {
                mentions(line, session) || mentions(line, port) || !line.starts_with('{')
            });
            for line in lines.iter().skip(lines.len().saturating_sub(12)) {
                let _ = write!(
                    told,
                    "\n    daemon {number} of {}: {line}",
                    transcripts.len()
                );
            }
        }
        told
    }
}

/// Whether this number stands in the line. Port 0 stands for none.
fn mentions(line: &str, number: u16) -> bool {
    if number == 0 {
        return false;
    }
    let number = number.to_string();
    line.split(|one: char| !one.is_ascii_digit())
        .any(|word| word == number)
}

/// A session that stays open for as long as the phase lasts. It is counted.
struct Stay<'a>(&'a Shared, bool);

impl<'a> Stay<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self(shared, false)
    }

    /// Whether the session is to stay open now.
    fn is_wanted(&mut self) -> bool {
        let wanted = self.0.is_in(Phase::Gather) || self.0.is_in(Phase::Crowd);
        if wanted && !self.1 {
            self.1 = true;
            self.0.staying.fetch_add(1, Ordering::SeqCst);
        }
        wanted
    }
}

impl Drop for Stay<'_> {
    fn drop(&mut self) {
        if self.1 {
            self.0.staying.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Transfers in every way, with pauses in between. Whatever fails is written down.
pub(super) fn honest(stage: &Stage, family: Family, shared: &Shared, dice: &mut Dice) {
    play(shared, stage.sandbox.client(), || {
        let since = Instant::now();
        if let Err(error) = one_session(stage, family, shared, dice) {
            shared.fail(since, &format!("{}: {error:#}", family.label()));
            thread::sleep(Duration::from_millis(200));
        }
    });
}

/// Does it over and over on that host until the soak is over. If it cannot, that is a failure.
fn play(shared: &Shared, host: &Host, mut act: impl FnMut() + Send) {
    let played = host.enter(|| {
        while !shared.is_done() {
            act();
        }
    });
    if let Err(error) = played {
        shared.fail(Instant::now(), &format!("a client cannot play: {error:#}"));
    }
}

fn one_session(stage: &Stage, family: Family, shared: &Shared, dice: &mut Dice) -> Result<()> {
    let commands = Commands::of(family);
    let mut ftp = stage.login(family).context("login")?;
    let mut stay = Stay::new(shared);
    let mut left = dice.roll(12);
    while !shared.is_done() && (stay.is_wanted() || left > 0) {
        left = left.saturating_sub(1);
        let content = if dice.roll(4) == 0 {
            let own = ftp.local()?.port();
            ftp.retrieve_active(FILE, commands)
                .with_context(|| format!("active{}", shared.evidence(own, 0)))?
        } else {
            let announced = ftp.passive(commands)?;
            if dice.roll(3) == 0 {
                dice.pause(400);
            }
            let data = connect(&ftp, announced, shared)?;
            ftp.receive(FILE, data)?
        };
        ensure!(stage.is_file(&content), "the file is damaged");
        shared.transfers.fetch_add(1, Ordering::Relaxed);
        if dice.roll(5) == 0 {
            dice.pause(300);
        }
    }
    drop(stay);
    if dice.roll(3) > 0 {
        ftp.quit().context("QUIT")?;
    }
    Ok(())
}

/// Opens a data connection. A first SYN that is lost without a lost link is a failure, also when
/// the next one arrives: what the guard knew is looked up before that is over.
fn connect(ftp: &FtpClient, announced: SocketAddr, shared: &Shared) -> Result<TcpStream> {
    let since = Instant::now();
    let own = ftp.local()?.port();
    let evidence = || shared.evidence(own, announced.port());
    let (data, lost) = match client::connect_within(announced, PATIENCE) {
        Ok(data) => (data.stream, data.syns_lost > 0),
        Err(error) if !shared.history.link_was_lost(since) => {
            bail!(
                "{error:#} after {:.1} s{}",
                since.elapsed().as_secs_f64(),
                evidence()
            );
        }
        // It may have been the link; the second try has a new source port.
        Err(_) => {
            let data = client::connect(announced);
            (data.with_context(evidence)?.stream, true)
        }
    };
    if lost && shared.history.link_was_lost(since) {
        shared.syns_lost.fetch_add(1, Ordering::Relaxed);
    } else if lost {
        let took = since.elapsed().as_secs_f64();
        shared.fail(
            since,
            &format!(
                "a first SYN to {announced} was lost ({took:.1} s){}",
                evidence()
            ),
        );
    }
    Ok(data)
}

/// A user who wants the ftpd to connect to somebody else.
pub(super) fn bouncing(stage: &Stage, target: &Target, shared: &Shared) {
    play(shared, stage.sandbox.client(), || {
        let since = Instant::now();
        if let Err(error) = bounces(stage, target, shared) {
            shared.fail(since, &format!("bouncing user: {error:#}"));
            thread::sleep(Duration::from_millis(200));
        }
    });
}

fn bounces(stage: &Stage, target: &Target, shared: &Shared) -> Result<()> {
    let mut ftp = stage.login(Family::V4).context("login")?;
    let mut stay = Stay::new(shared);
    loop {
        ensure!(!bounce(&mut ftp, target)?, "a bounce was answered with 150");
        shared.bounces.fetch_add(1, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(100));
        if !stay.is_wanted() {
            return Ok(());
        }
    }
}

/// Tries one bounce; whether the ftpd says that it arrived. Any refusal but 425 is an error: then
/// it was not tried.
pub(super) fn bounce(ftp: &mut FtpClient, target: &Target) -> Result<bool> {
    ftp.active(target.address(), Commands::Classic)?
        .expect(200, "PORT")?;
    let reply = ftp.command(&format!("RETR {FILE}"))?;
    match reply.code {
        125 | 150 => {
            // The end of it: 226, or 426 where the target does not take all.
            ftp.reply()?;
            Ok(true)
        }
        425 => Ok(false),
        _ => bail!("a bounce was answered with: {}", reply.text),
    }
}

/// A client that opens more sessions than its share, asks for a port in each, and goes away.
pub(super) fn greedy(stage: &Stage, shared: &Shared, dice: &mut Dice) {
    play(shared, stage.sandbox.third(), || {
        if shared.is_in(Phase::Gather) {
            thread::sleep(Duration::from_millis(50));
            return;
        }
        let since = Instant::now();
        if let Err(error) = one_round(stage, shared, dice) {
            shared.fail(since, &format!("greedy client: {error:#}"));
            thread::sleep(Duration::from_millis(200));
        }
        shared.held.store(0, Ordering::SeqCst);
    });
}

fn one_round(stage: &Stage, shared: &Shared, dice: &mut Dice) -> Result<()> {
    let mut sessions = Vec::new();
    while sessions.len() < GREEDY_SESSIONS && !shared.is_done() {
        // Its control connections are welcome, however many it has (rule P5).
        sessions.push(stage.login(Family::V4).context("login")?);
        shared.held.fetch_add(1, Ordering::SeqCst);
        shared.greedy.fetch_add(1, Ordering::Relaxed);
    }
    for ftp in &mut sessions {
        let port = ftp.passive(Commands::Classic)?;
        match attack::knock(stage.sandbox.third(), port) {
            Ok(Answer::Connected(_)) => {}
            Ok(Answer::Refused | Answer::Silent) => {
                shared.greedy_denied.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => return Err(error),
        }
        if shared.is_done() || shared.is_in(Phase::Gather) {
            return Ok(());
        }
    }
    shared.rounds.fetch_add(1, Ordering::SeqCst);
    while shared.is_in(Phase::Crowd) {
        thread::sleep(Duration::from_millis(50));
    }
    if !shared.is_in(Phase::Gather) {
        dice.pause(2_000);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_as_whole_numbers() {
        assert!(mentions("10.0.0.1:50001", 50_001));
        assert!(mentions(r#"{"port":50001}"#, 50_001));
        assert!(!mentions("port 150001", 50_001));
        assert!(!mentions("nothing", 1));
        assert!(!mentions("0 s", 0));
    }
}
