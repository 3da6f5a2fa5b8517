//! Everything at once, for as long as one likes: honest clients, thieves, bounces and greedy
//! clients, while the daemon is killed, restarted, hung, upgraded and reconfigured, and links flap.
//!
//! What must hold throughout: no honest transfer fails, no first SYN is lost but with its link, no
//! stranger reaches a listener, no bounce arrives, and a daemon that lives on takes no more memory.

mod history;
mod players;
mod torment;

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use ftpguard_common::verdict::{Incident, Reason};
use nix::sys::signal::Signal;

pub use self::history::Deed;
use self::{
    players::{Shared, bouncing, greedy, honest},
    torment::{Configuration, Torment},
};
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
    /// Ends the soak early when it becomes true.
    pub stop: Arc<AtomicBool>,
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
        if let Err(error) = &ended {
            // The other parts go on, maybe for an hour.
            (plan.tell)(&format!("FAILED {}: {error:#}", plan.kind.label()));
        }
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
/// How many threads a thief has for each family. They share the ports. With more of them two
/// processors knock all the time, and the starts of daemons take half a minute.
const THREADS: u16 = 4;
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
            // Each port that is announced is tried twice a second.
            for _ in 0..200 {
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
