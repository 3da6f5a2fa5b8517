//! Everything at once, for as long as one likes: honest clients, thieves, bounces and greedy
//! clients, while the daemon is killed, restarted, hung, upgraded and reconfigured, and links flap.
//!
//! What must hold throughout: no honest transfer fails, no first SYN is lost but with its link, no
//! stranger reaches a listener, no bounce arrives, and a daemon that lives on takes no more memory.

mod history;
mod players;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use ftpguard_common::verdict::{Incident, Reason};
use nix::sys::signal::Signal;

pub use self::history::Deed;
use self::players::{HONEST, Phase, Shared, bouncing, greedy, honest};
use crate::{
    Family, Guard,
    attack::Hammer,
    client::Commands,
    ftpd::{CONTROL_PORT, FILE, Kind, Settings},
    guard::{self, Options},
    scenario::Stage,
    target::Target,
};

/// What is soaked.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which one of those that run side by side. Each has ports of its own, because a guard sees all
    /// network namespaces, and the tables that one fills must be its own.
    pub place: u16,
    /// Which ftpd.
    pub kind: Kind,
    /// `--xdp-mode`
    pub xdp_mode: &'static str,
    /// Whether one daemon lives from the beginning to the end.
    pub lives_on: bool,
    /// For how long.
    pub time: Duration,
    /// Where its choices begin; the same number gives the same choices.
    pub seed: u64,
    /// How guards are run otherwise.
    pub options: Options,
    /// Takes a line when something fails, and once a minute.
    pub tell: fn(&str),
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How long it took.
    pub time: Duration,
    /// Whether one daemon lived from the beginning to the end.
    pub lived_on: bool,
    /// Honest transfers that arrived whole.
    pub transfers: u64,
    /// First SYNs of honest clients that were sent again, because the link was lost.
    pub syns_lost: u64,
    /// What went wrong: when, what, and what had been done to the guard.
    pub failures: Vec<String>,
    /// SYNs that strangers sent, over IPv4 and over IPv6.
    pub knocks: [u64; 2],
    /// How often a stranger reached a listener.
    pub thefts: u64,
    /// Bounces that were tried, and refused.
    pub bounces: u64,
    /// Bounces that arrived.
    pub bounced: u64,
    /// Sessions of clients that wanted more than their share.
    pub greedy: u64,
    /// Those that were not served.
    pub greedy_denied: u64,
    /// What was done to the daemon and the links, and how often.
    pub deeds: Vec<(Deed, u32)>,
    /// How many starts were made to fail or to be killed, and how many of them came so far.
    pub broken_starts: [u32; 2],
    /// The daemon's memory.
    pub memory: Memory,
    /// What the maps take in KiB, at the first start and at the end.
    pub tables: [u64; 2],
    /// How many SYNs one transfer counts in the end: one.
    pub counted_by_one: u64,
    /// How many sessions the guard still knows when nobody has one and it has looked twice.
    pub left: u64,
}

/// What a daemon holds in memory, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// At first; of a daemon that lives on, after it has warmed up.
    pub first: u64,
    /// At most, from then on.
    pub most: u64,
    /// At the end.
    pub last: u64,
}

/// How much memory more than after its first minute a daemon may take later, in KiB.
pub const MORE_MEMORY: u64 = 4 * 1024;
/// What has to be tried in each minute, or nothing is shown. Machines do five to fifty times as much.
const EACH_MINUTE: [(&str, u64); 5] = [
    ("honest transfers", 60),
    ("bounces refused", 20),
    ("sessions of the greedy client refused", 10),
    ("SYNs of a thief over IPv4", 2_000),
    ("SYNs of a thief over IPv6", 2_000),
];
/// A soak that long does everything at least once.
const LONG: Duration = Duration::from_secs(110);

impl Outcome {
    /// What did not hold that must, one line each.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut must = |holds: bool, what: String| {
            if !holds {
                faults.push(what);
            }
        };
        let failed = self.failures.len();
        must(failed == 0, format!("{failed} failures"));
        must(self.thefts == 0, format!("{} thefts", self.thefts));
        must(
            self.bounced == 0,
            format!("{} bounces arrived", self.bounced),
        );
        must(
            self.counted_by_one == 1,
            format!("one transfer counts {} times", self.counted_by_one),
        );
        must(
            self.left == 0,
            format!("{} sessions are known that are over", self.left),
        );
        let [v4, v6] = self.knocks;
        let tried = [self.transfers, self.bounces, self.greedy_denied, v4, v6];
        for ((what, least), count) in EACH_MINUTE.into_iter().zip(tried) {
            let least = least * self.time.as_secs() / 60;
            must(
                count > 0 && count >= least,
                format!("only {count} {what}, not {least}: nothing is shown"),
            );
        }
        if self.time >= LONG {
            for (deed, count) in &self.deeds {
                must(*count > 0, format!("never {}", deed.label()));
            }
        }
        let [wanted, broken] = self.broken_starts;
        must(
            wanted < 6 || broken > 0,
            format!("no fault in {wanted} starts"),
        );
        let Memory { first, most, .. } = self.memory;
        must(
            first > 0 && (!self.lived_on || most <= first + MORE_MEMORY),
            format!("the daemon's memory grew from {first} to {most} KiB"),
        );
        faults
    }
}

/// Numbers that look random (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }

    fn pause(&mut self, at_most: u64) {
        thread::sleep(Duration::from_millis(self.roll(at_most)));
    }
}

/// Soaks one ftpd.
pub fn soak(plan: &Plan) -> Result<Outcome> {
    let first = FIRST_PORT + plan.place * PORTS;
    let ports = first..=first + (PORTS - 1);
    let settings = Settings {
        port: Some(CONTROL_PORT + plan.place),
        passive_ports: ports.clone(),
        ..Settings::unchecked(plan.kind)
    };
    let stage = Stage::new(settings)?;
    attackers_can_win(&stage)?;
    let attackers = Attackers::start(&stage)?;
    let file = guard::folder(&stage.sandbox, "etc")?.join("ftpguard.toml");
    let options = Options {
        config: file.clone(),
        xdp_mode: plan.xdp_mode,
        control_port: CONTROL_PORT + plan.place,
        passive_ports: Some(ports),
        ..plan.options.clone()
    };
    let configuration = Configuration {
        file,
        partner: Target::start(stage.sandbox.third(), Family::V4, 0)?,
        excepted: false,
    };
    configuration.write()?;
    let guard = Guard::start(&stage.sandbox, &options)?;
    let shared = Shared::new(plan.kind.label(), plan.tell);
    let shared = shared.asking(&options.binary, guard.runtime_dir());
    let mut outcome = Outcome {
        lived_on: plan.lives_on,
        ..Outcome::default()
    };
    let guard = thread::scope(|scope| {
        let dice = |number| Dice(plan.seed.wrapping_mul(0x9e37_79b9).wrapping_add(number) | 1);
        for (number, family) in (1..).zip(Family::ALL) {
            let (stage, shared, mut dice) = (&stage, &shared, dice(number));
            scope.spawn(move || honest(stage, family, shared, &mut dice));
        }
        scope.spawn(|| bouncing(&stage, &attackers.target, &shared));
        let mut own = dice(9);
        let (one, other) = (&stage, &shared);
        scope.spawn(move || greedy(one, other, &mut own));
        let mut torment = Torment {
            plan,
            stage: &stage,
            options,
            shared: &shared,
            attackers: &attackers,
            configuration,
            outcome: &mut outcome,
            dice: dice(5),
            size: 1_000,
        };
        let ended = torment.go_on(guard);
        shared.end();
        ended
    })?;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    outcome.time = shared.begun.elapsed();
    outcome.transfers = count(&shared.transfers);
    outcome.syns_lost = count(&shared.syns_lost);
    outcome.bounces = count(&shared.bounces);
    outcome.greedy = count(&shared.greedy);
    outcome.greedy_denied = count(&shared.greedy_denied);
    outcome.failures = shared.failures();
    outcome.bounced = attackers.bounced();
    outcome.knocks = attackers.thieves.each_ref().map(Hammer::tried);
    outcome.thefts = attackers.thieves.map(Hammer::stop).iter().sum();
    outcome.counted_by_one = counted_by_one(&stage, &guard)?;
    if !wait(LOOKED_TWICE, || Ok(sessions(&guard)? == 0))? {
        outcome.left = sessions(&guard)?;
    }
    let status = guard.status()?;
    outcome.tables[1] = tables(&status);
    guard.stop(Signal::SIGTERM)?;
    Ok(outcome)
}

/// Passive ports. Many, because ftpds have limits of their own: vsftpd gives up after nine ports that
/// are taken, and Pure-FTPd serves half as many users as it has ports.
const PORTS: u16 = 400;
/// Where those of the first ftpd begin.
const FIRST_PORT: u16 = 50_000;
/// How many threads a thief has for each family. They share the ports.
const THREADS: u16 = 16;
/// A greedy client's share.
const CLIENT_SHARE: u32 = 12;
/// Tables that have room for honest clients and for a part of the greedy client's share. What is
/// counted by process and by listener has room for all, so only who comes last feels it.
const SMALL_TABLE: &str = "--max-sessions=14";
/// The daemon looks every half minute for sessions whose end it missed.
const LOOKED_TWICE: Duration = Duration::from_secs(75);
/// How long the clients may take to go where a phase wants them.
const GATHERING: Duration = Duration::from_secs(40);
/// How long a changed configuration may take until it holds.
const RELOADING: Duration = Duration::from_secs(5);

/// The strangers, and where bounces are to arrive.
struct Attackers {
    thieves: [Hammer; 2],
    target: Target,
}

impl Attackers {
    fn start(stage: &Stage) -> Result<Self> {
        let thief = |family| {
            let server = stage.sandbox.server().address(family);
            let ports = stage.ftpd.settings().passive_ports.clone();
            Hammer::walk(stage.sandbox.thief(), server, ports, THREADS)
        };
        Ok(Self {
            thieves: [thief(Family::V4)?, thief(Family::V6)?],
            target: Target::start(stage.sandbox.third(), Family::V4, 0)?,
        })
    }

    fn thefts(&self) -> u64 {
        self.thieves.iter().map(Hammer::reached).sum()
    }

    fn bounced(&self) -> u64 {
        u64::try_from(self.target.accepted()).unwrap_or(u64::MAX)
    }
}

/// Without a guard thieves of both families and bounces arrive, or the soak proves nothing.
fn attackers_can_win(stage: &Stage) -> Result<()> {
    let attackers = Attackers::start(stage)?;
    stage.sandbox.client().enter(|| -> Result<()> {
        for (family, thief) in Family::ALL.into_iter().zip(&attackers.thieves) {
            // Each port that is announced is tried ten times a second.
            for _ in 0..100 {
                if thief.reached() > 0 {
                    break;
                }
                let mut ftp = stage.login(family)?;
                ftp.passive(Commands::of(family))?;
                thread::sleep(Duration::from_millis(50));
            }
            let label = family.label();
            ensure!(thief.reached() > 0, "no thief over {label} without a guard");
        }
        let mut ftp = stage.login(Family::V4)?;
        ensure!(
            players::bounce(&mut ftp, &attackers.target)?,
            "no bounce without a guard"
        );
        Ok(())
    })??;
    ensure!(
        attackers.target.wait_for_accepted(1) > 0,
        "no bounce without a guard"
    );
    Ok(())
}

/// The file that a guard reads, and what it says at the moment.
struct Configuration {
    file: PathBuf,
    /// Whom the ftpd may reach, while the file says so.
    partner: Target,
    excepted: bool,
}

impl Configuration {
    fn write(&self) -> Result<()> {
        let share = CLIENT_SHARE + u32::from(self.excepted);
        let mut text = format!("client_sessions = {share}\n");
        if self.excepted {
            let partner = self.partner.address();
            let _ = writeln!(
                text,
                "[[exception]]\nname = \"partner\"\nconnect_to = \"{partner}\""
            );
        }
        fs::write(&self.file, text).with_context(|| format!("writing {}", self.file.display()))
    }

    /// Waits until the partner can be reached just when the file says so.
    fn wait_until_it_holds(&self, stage: &Stage) -> Result<()> {
        stage.sandbox.client().enter(|| {
            let deadline = Instant::now() + RELOADING;
            loop {
                let mut ftp = stage.login(Family::V4)?;
                let before = self.partner.accepted();
                let told = players::bounce(&mut ftp, &self.partner)?;
                let reached = told && self.partner.wait_for_accepted(before + 1) > before;
                if reached == self.excepted {
                    return Ok(());
                }
                ensure!(
                    Instant::now() < deadline,
                    "after a reload the partner is {}",
                    if reached {
                        "still reached"
                    } else {
                        "not reached"
                    }
                );
                thread::sleep(Duration::from_millis(100));
            }
        })?
    }
}

/// Does one thing after the other to the daemon and the links.
struct Torment<'a> {
    plan: &'a Plan,
    stage: &'a Stage,
    options: Options,
    shared: &'a Shared,
    attackers: &'a Attackers,
    configuration: Configuration,
    outcome: &'a mut Outcome,
    dice: Dice,
    size: u32,
}

impl Torment<'_> {
    /// Until the time is over. Gives the daemon of the end.
    fn go_on(&mut self, mut guard: Guard) -> Result<Guard> {
        let begun = Instant::now();
        self.shared.reads(guard.transcript());
        thread::sleep(Duration::from_secs(1));
        self.outcome.tables[0] = tables(&guard.status()?);
        let deeds: &[Deed] = if self.plan.lives_on {
            &Deed::NEVER_KILLED
        } else {
            &Deed::OFTEN_KILLED
        };
        // Until then it may grow: the longest lists of what happened lately are not full yet.
        let warm_up = if self.plan.lives_on {
            Duration::from_mins(1).min(self.plan.time / 3)
        } else {
            Duration::ZERO
        };
        let mut counts = vec![0; deeds.len()];
        let (mut minutes, mut thefts, mut bounced) = (0, 0, 0);
        for (place, &deed) in deeds.iter().enumerate().cycle() {
            let all_done = counts.iter().all(|&count| count > 0);
            if begun.elapsed() > self.plan.time * if all_done { 1 } else { 2 } {
                break;
            }
            // The first one is done in each round.
            if counts[place] * deed.one_turn_in() >= counts[0] && place > 0 {
                continue;
            }
            counts[place] += 1;
            self.shared.history.begin(deed, Instant::now());
            guard = self
                .act(deed, guard)
                .with_context(|| format!("{} s, {}", begun.elapsed().as_secs(), deed.label()))?;
            self.shared.history.end(Instant::now());
            self.dice.pause(2_000);
            if begun.elapsed() >= warm_up {
                self.outcome.memory.add(memory(&guard)?);
            }
            self.tell_of(&mut thefts, self.attackers.thefts(), "thefts");
            self.tell_of(&mut bounced, self.attackers.bounced(), "bounces arrived");
            let now = begun.elapsed().as_secs() / 60;
            if now > minutes {
                minutes = now;
                self.progress(minutes, &guard)?;
            }
        }
        self.outcome.deeds = deeds.iter().copied().zip(counts).collect();
        Ok(guard)
    }

    /// Tells what must not happen, if it did since the last time.
    fn tell_of(&self, before: &mut u64, now: u64, what: &str) {
        if now > *before {
            let what = format!("{} {what}", now - *before);
            self.shared.fail(Instant::now(), &what);
            *before = now;
        }
    }

    fn progress(&self, minutes: u64, guard: &Guard) -> Result<()> {
        (self.plan.tell)(&format!(
            "{} after {minutes} min: {} honest transfers, {} failures, {} SYNs lost with the link, \
             {} bounces refused, daemon {} KiB",
            self.shared.name,
            self.shared.transfers.load(Ordering::Relaxed),
            self.shared.failures().len(),
            self.shared.syns_lost.load(Ordering::Relaxed),
            self.shared.bounces.load(Ordering::Relaxed),
            memory(guard)?,
        ));
        Ok(())
    }

    fn start(&self, options: &Options, runtime: &Path) -> Result<Guard> {
        let guard = Guard::start_in(&self.stage.sandbox, options, runtime)?;
        self.shared.reads(guard.transcript());
        Ok(guard)
    }

    fn act(&mut self, deed: Deed, guard: Guard) -> Result<Guard> {
        let stage = self.stage;
        match deed {
            Deed::Kill => {
                let runtime = guard.kill()?;
                self.dice.pause(1_500);
                self.start(&self.options, &runtime)
            }
            Deed::KillAtStart => self.broken_start(guard, "kill:"),
            Deed::FailAtStart => self.broken_start(guard, ""),
            Deed::Replace => {
                self.resize();
                let runtime = guard.kill()?;
                self.start(&self.options, &runtime)
            }
            Deed::Crowd => self.crowd(guard),
            Deed::StopAndKeep => {
                // The one that runs was not told to keep: one that was takes its place first.
                let runtime = guard.kill()?;
                let mut keeping = self.options.clone();
                keeping.more.push("--on-stop=keep".into());
                self.start(&keeping, &runtime)?.stop(Signal::SIGTERM)?;
                self.dice.pause(500);
                self.start(&self.options, &runtime)
            }
            Deed::Hang => {
                guard.signal(Signal::SIGSTOP)?;
                thread::sleep(Duration::from_secs(6));
                guard.signal(Signal::SIGCONT)?;
                Ok(guard)
            }
            Deed::Reload => {
                self.configuration.excepted ^= true;
                self.configuration.write()?;
                guard.signal(Signal::SIGHUP)?;
                let since = Instant::now();
                if let Err(error) = self.configuration.wait_until_it_holds(stage) {
                    self.shared.fail(since, &format!("reload: {error:#}"));
                }
                Ok(guard)
            }
            Deed::Flap => {
                stage.sandbox.unplug_server(true)?;
                self.dice.pause(200);
                stage.sandbox.unplug_server(false)?;
                Ok(guard)
            }
            Deed::Appear => {
                let server = stage.sandbox.server();
                server.ip(&[
                    "link", "add", "passing0", "type", "veth", "peer", "name", "passing1",
                ])?;
                server.ip(&["link", "set", "passing0", "up"])?;
                self.dice.pause(300);
                server.ip(&["link", "delete", "passing0"])?;
                Ok(guard)
            }
        }
    }

    /// Kills the daemon, lets the next one fail or be killed at some step of its start, and starts
    /// one that is not.
    fn broken_start(&mut self, guard: Guard, prefix: &str) -> Result<Guard> {
        let runtime = guard.kill()?;
        let step = 1 + self.dice.roll(MOST_STEPS);
        let broken = Options {
            fault: Some(format!("{prefix}{step}")),
            ..self.options.clone()
        };
        self.outcome.broken_starts[0] += 1;
        match self.start(&broken, &runtime) {
            // A start has fewer steps than that.
            Ok(guard) => drop(guard.kill()?),
            Err(error) => {
                ensure!(
                    format!("{error:#}").contains(&format!("fault {step} injected")),
                    "a start failed by itself: {error:#}"
                );
                self.outcome.broken_starts[1] += 1;
            }
        }
        self.start(&self.options, &runtime)
    }

    /// The server's ends of control connections, one line each.
    fn sockets(&self) -> Result<String> {
        let port = format!(":{}", self.options.control_port);
        let mut command = Command::new("ss");
        command.args(["-Hnt", "state", "established", "sport", "=", &port]);
        let server = self.stage.sandbox.server();
        let finished = server.run(&mut command, GATHERING)?;
        Ok(finished.success("ss")?.stdout)
    }

    /// Options with tables of a size that was not there before.
    fn resize(&mut self) {
        self.size += 1;
        self.options.more = vec![format!("--max-sessions={}", self.size)];
    }

    /// Tables that the greedy client fills. Honest clients are there before it comes, and stay: who
    /// comes late has no room, whoever it is (rule K9).
    fn crowd(&mut self, guard: Guard) -> Result<Guard> {
        let shared = self.shared;
        let since = Instant::now();
        shared.enter(Phase::Gather);
        let gathered = wait(GATHERING, || {
            Ok(shared.staying.load(Ordering::SeqCst) == HONEST
                && shared.held.load(Ordering::SeqCst) == 0
                && self.sockets()?.lines().count() <= HONEST)
        })?;
        if !gathered {
            shared.enter(Phase::Open);
            let staying = shared.staying.load(Ordering::SeqCst);
            let held = shared.held.load(Ordering::SeqCst);
            let what = format!(
                "clients did not gather: {staying} honest ones stay, the greedy one holds {held} \
                 sessions; there are\n{}",
                self.sockets()?
            );
            shared.fail(since, &what);
            return Ok(guard);
        }
        let runtime = guard.kill()?;
        let small = Options {
            more: vec![SMALL_TABLE.into()],
            ..self.options.clone()
        };
        let guard = self.start(&small, &runtime)?;
        let rounds = shared.rounds.load(Ordering::SeqCst);
        shared.enter(Phase::Crowd);
        let filled = wait(GATHERING, || {
            Ok(shared.rounds.load(Ordering::SeqCst) > rounds
                && incidents(&guard.status()?, Incident::SessionTableFull) > 0)
        })?;
        if !filled {
            shared.fail(since, "the greedy client did not fill the tables");
        }
        // A full table is taken over, too.
        let runtime = guard.kill()?;
        let guard = self.start(&small, &runtime)?;
        self.dice.pause(2_000);
        self.resize();
        let runtime = guard.kill()?;
        let guard = self.start(&self.options, &runtime)?;
        shared.enter(Phase::Open);
        Ok(guard)
    }
}

/// A start has 30 to 36 steps at which it can fail.
const MOST_STEPS: u64 = 40;

impl Memory {
    fn add(&mut self, now: u64) {
        if self.first == 0 {
            self.first = now;
        }
        self.most = self.most.max(now);
        self.last = now;
    }
}

/// Asks until the answer is yes; no if the time is over before.
fn wait(timeout: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<bool> {
    let deadline = Instant::now() + timeout;
    loop {
        if holds()? {
            return Ok(true);
        }
        if Instant::now() > deadline {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// How many sessions the guard knows.
fn sessions(guard: &Guard) -> Result<u64> {
    let sessions = guard.list("sessions")?;
    let sessions = sessions.as_array().context("no list of sessions")?;
    u64::try_from(sessions.len()).context("many sessions")
}

/// How often this was counted.
fn incidents(status: &serde_json::Value, incident: Incident) -> u64 {
    let incidents = status["incidents"].as_array();
    incidents
        .and_then(|incidents| incidents.iter().find(|one| one["name"] == incident.label()))
        .and_then(|one| one["count"].as_u64())
        .unwrap_or_default()
}

/// How many SYNs one honest transfer counts: two, if gates are attached twice.
fn counted_by_one(stage: &Stage, guard: &Guard) -> Result<u64> {
    let before = guard.counter(Reason::Pinhole)?;
    stage.sandbox.client().enter(|| {
        let mut ftp = stage.login(Family::V4)?;
        let content = ftp.retrieve_passive(FILE, Commands::Classic)?;
        ensure!(stage.is_file(&content), "the file is damaged");
        Ok(())
    })??;
    Ok(guard.counter(Reason::Pinhole)? - before)
}

fn tables(status: &serde_json::Value) -> u64 {
    status["endurance"]["memory"].as_u64().unwrap_or_default() / 1024
}

/// What the daemon holds in memory, in KiB.
fn memory(guard: &Guard) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", guard.id()))?;
    let Some(line) = status.lines().find_map(|line| line.strip_prefix("VmRSS:")) else {
        bail!("no VmRSS");
    };
    let number = line.trim().trim_end_matches("kB").trim();
    number
        .parse()
        .with_context(|| format!("reading {number:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a soak brings in which everything was tried and held.
    fn right() -> Outcome {
        Outcome {
            time: Duration::from_mins(2),
            lived_on: true,
            transfers: 1_000,
            knocks: [100_000, 100_000],
            bounces: 500,
            greedy: 300,
            greedy_denied: 100,
            deeds: vec![(Deed::Reload, 9), (Deed::Flap, 9), (Deed::Appear, 9)],
            memory: Memory {
                first: 16_000,
                most: 17_000,
                last: 16_500,
            },
            counted_by_one: 1,
            ..Outcome::default()
        }
    }

    #[test]
    fn a_soak_that_holds_has_no_fault() {
        assert_eq!(right().faults(), [""; 0]);
    }

    #[test]
    fn whatever_does_not_hold_is_a_fault() {
        type Change = fn(&mut Outcome);
        let changes: [(&str, Change); 13] = [
            ("1 failures", |it| it.failures.push("x".into())),
            ("2 thefts", |it| it.thefts = 2),
            ("3 bounces arrived", |it| it.bounced = 3),
            ("counts 2 times", |it| it.counted_by_one = 2),
            ("4 sessions", |it| it.left = 4),
            ("119 honest transfers", |it| it.transfers = 119),
            ("39 bounces refused", |it| it.bounces = 39),
            ("19 sessions", |it| it.greedy_denied = 19),
            ("0 SYNs of a thief over IPv4", |it| it.knocks[0] = 0),
            ("3999 SYNs of a thief over IPv6", |it| it.knocks[1] = 3_999),
            ("never link lost", |it| it.deeds[1].1 = 0),
            ("no fault in 6 starts", |it| it.broken_starts = [6, 0]),
            ("grew from 16000 to 20097", |it| it.memory.most = 20_097),
        ];
        for (expected, change) in changes {
            let mut outcome = right();
            change(&mut outcome);
            let faults = outcome.faults();
            assert_eq!(faults.len(), 1, "{expected}: {faults:?}");
            assert!(faults[0].contains(expected), "{expected}: {faults:?}");
        }
    }

    #[test]
    fn nothing_is_shown_by_a_soak_that_does_nothing() {
        assert!(Outcome::default().faults().len() > 5);
    }

    /// A daemon that is killed all the time shows nothing about its memory.
    #[test]
    fn memory_is_judged_where_the_daemon_lives_on() {
        let mut outcome = right();
        outcome.lived_on = false;
        outcome.memory.most = 1_000_000;
        assert_eq!(outcome.faults(), [""; 0]);
    }
}
