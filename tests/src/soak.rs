//! Everything at once, for as long as one likes: honest clients, thieves, bounces and greedy
//! clients, while the daemon is killed, restarted, hung, upgraded, and links flap.
//!
//! What must hold throughout: no honest transfer fails, no stranger reaches a listener, no bounce
//! arrives.

use std::{
    fs,
    ops::RangeInclusive,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use ftpguard_common::verdict::Reason;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    Family, Guard,
    attack::Hammer,
    client::{self, Commands},
    ftpd::{FILE, Kind, Settings},
    guard::Options,
    scenario::Stage,
    target::Target,
};

/// What is soaked.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which ftpd.
    pub kind: Kind,
    /// `--xdp-mode`
    pub xdp_mode: &'static str,
    /// For how long.
    pub time: Duration,
    /// Where its choices begin; the same number gives the same choices.
    pub seed: u64,
    /// How guards are run otherwise.
    pub options: Options,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Honest transfers that arrived whole.
    pub transfers: u64,
    /// First SYNs of honest clients that were sent again. Links that flap cost some.
    pub syns_lost: u64,
    /// Honest transfers that did not: when, what, and what was being done to the guard.
    pub failures: Vec<String>,
    /// How often a stranger reached a listener.
    pub thefts: u64,
    /// Bounces that were tried, and refused.
    pub bounces: u64,
    /// Bounces that arrived.
    pub bounced: u64,
    /// Sessions of clients that wanted more than their share.
    pub greedy: u64,
    /// What was done to the daemon and the links, and how often.
    pub deeds: Vec<(&'static str, u32)>,
    /// The daemon's memory in KiB: at the first start, the most, and at the end.
    pub memory: [u64; 3],
    /// What the maps take in KiB, at the first start and at the end.
    pub tables: [u64; 2],
    /// How many SYNs one transfer counts in the end: one.
    pub counted_by_one: u64,
}

impl Outcome {
    /// Whether everything held that must.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.failures.is_empty()
            && self.thefts == 0
            && self.bounced == 0
            && self.counted_by_one == 1
            && self.transfers > 0
    }
}

/// What is done to the daemon, in turn and at random moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Kill,
    KillAtStart,
    FailAtStart,
    StopAndKeep,
    Hang,
    Replace,
    Flap,
    Appear,
}

impl Deed {
    const ALL: [Self; 8] = [
        Self::Kill,
        Self::KillAtStart,
        Self::Flap,
        Self::Replace,
        Self::FailAtStart,
        Self::StopAndKeep,
        Self::Appear,
        Self::Hang,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Kill => "killed, started again",
            Self::KillAtStart => "killed, killed again while starting, started again",
            Self::FailAtStart => "killed, failed to start, started again",
            Self::StopAndKeep => "stopped with --on-stop keep, started again",
            Self::Hang => "hung for a while",
            Self::Replace => "killed, started with tables of another size",
            Self::Flap => "link lost for a moment",
            Self::Appear => "an interface came and went",
        }
    }
}

/// What the threads have in common.
#[derive(Default)]
struct Shared {
    done: AtomicBool,
    transfers: AtomicU64,
    syns_lost: AtomicU64,
    bounces: AtomicU64,
    greedy: AtomicU64,
    failures: Mutex<Vec<String>>,
    deed: Mutex<&'static str>,
}

impl Shared {
    fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }

    fn deed(&self) -> &'static str {
        *self.deed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, begun: Instant, deed: &str, error: &anyhow::Error) {
        self.failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(format!(
                "{:.1} s, {deed} .. {}: {error:#}",
                begun.elapsed().as_secs_f64(),
                self.deed()
            ));
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
    let settings = Settings {
        passive_ports: PORTS,
        ..Settings::unchecked(plan.kind)
    };
    let stage = Stage::new(settings)?;
    let options = Options {
        xdp_mode: plan.xdp_mode,
        passive_ports: Some(PORTS),
        more: vec![CLIENT_SHARE.into()],
        ..plan.options.clone()
    };
    attackers_can_win(&stage)?;
    let guard = Guard::start(&stage.sandbox, &options)?;
    let shared = Shared::default();
    let begun = Instant::now();
    let server = stage.sandbox.server().address(Family::V4);
    let hammer = Hammer::start(stage.sandbox.thief(), server, HAMMERED)?;
    let target = Target::start(stage.sandbox.third(), Family::V4, 0)?;
    let mut outcome = Outcome::default();
    let guard = thread::scope(|scope| {
        let dice = |number| Dice(plan.seed.wrapping_mul(0x9e37_79b9).wrapping_add(number) | 1);
        for (number, family) in (1..).zip(Family::ALL) {
            let (stage, shared, mut dice) = (&stage, &shared, dice(number));
            scope.spawn(move || honest(stage, family, shared, begun, &mut dice));
        }
        scope.spawn(|| bouncing(&stage, &target, &shared));
        let mut own = dice(9);
        let (one, other) = (&stage, &shared);
        scope.spawn(move || greedy(one, other, &mut own));
        let ended = torment(
            plan,
            &stage,
            &options,
            guard,
            &shared,
            &mut outcome,
            &mut dice(5),
        );
        shared.done.store(true, Ordering::Relaxed);
        ended
    })?;
    outcome.thefts = hammer.stop();
    outcome.bounced = u64::try_from(target.accepted()).unwrap_or(u64::MAX);
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    outcome.transfers = count(&shared.transfers);
    outcome.syns_lost = count(&shared.syns_lost);
    outcome.bounces = count(&shared.bounces);
    outcome.greedy = count(&shared.greedy);
    outcome.failures = shared
        .failures
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    outcome.counted_by_one = counted_by_one(&stage, &guard)?;
    let status = guard.status()?;
    outcome.tables[1] = tables(&status);
    guard.stop(Signal::SIGTERM)?;
    Ok(outcome)
}

/// Passive ports. Many, because ftpds have limits of their own: vsftpd gives up after nine ports that
/// are taken, and Pure-FTPd serves half as many users as it has ports.
const PORTS: RangeInclusive<u16> = 50_000..=50_399;
/// Those that the thief hammers.
const HAMMERED: RangeInclusive<u16> = 50_000..=50_039;
/// A greedy client's share.
const CLIENT_SHARE: &str = "--client-sessions=12";

/// Without a guard thieves and bounces arrive, or the soak proves nothing.
fn attackers_can_win(stage: &Stage) -> Result<()> {
    let server = stage.sandbox.server().address(Family::V4);
    let hammer = Hammer::start(stage.sandbox.thief(), server, HAMMERED)?;
    let target = Target::start(stage.sandbox.third(), Family::V4, 0)?;
    stage.sandbox.client().enter(|| -> Result<()> {
        // Each port that is announced may be one that the thief tries.
        for _ in 0..60 {
            let mut ftp = stage.login(Family::V4)?;
            ftp.passive(Commands::Classic)?;
            thread::sleep(Duration::from_millis(30));
        }
        let mut ftp = stage.login(Family::V4)?;
        ftp.active(target.address(), Commands::Classic)?;
        ftp.command(&format!("RETR {FILE}")).map(drop)
    })??;
    ensure!(target.wait_for_accepted(1) > 0, "no bounce without a guard");
    ensure!(hammer.stop() > 0, "no thief without a guard");
    Ok(())
}

/// Transfers in every way, with pauses in between. Whatever fails is written down.
fn honest(stage: &Stage, family: Family, shared: &Shared, begun: Instant, dice: &mut Dice) {
    let told = stage.sandbox.client().enter(|| {
        while !shared.is_done() {
            let deed = shared.deed();
            if let Err(error) = one_session(stage, family, shared, dice) {
                shared.fail(begun, deed, &error);
                thread::sleep(Duration::from_millis(200));
            }
        }
    });
    if let Err(error) = told {
        shared.fail(begun, "", &error);
    }
}

fn one_session(stage: &Stage, family: Family, shared: &Shared, dice: &mut Dice) -> Result<()> {
    let commands = Commands::of(family);
    let mut ftp = stage.login(family).context("login")?;
    for _ in 0..dice.roll(12) {
        if shared.is_done() {
            break;
        }
        let content = if dice.roll(4) == 0 {
            ftp.retrieve_active(FILE, commands)?
        } else {
            let announced = ftp.passive(commands)?;
            if dice.roll(3) == 0 {
                dice.pause(400);
            }
            let data = client::connect(announced).with_context(|| format!("to {announced}"))?;
            shared
                .syns_lost
                .fetch_add(u64::from(data.syns_lost), Ordering::Relaxed);
            ftp.receive(FILE, data.stream)?
        };
        ensure!(stage.is_file(&content), "the file is damaged");
        shared.transfers.fetch_add(1, Ordering::Relaxed);
        if dice.roll(5) == 0 {
            dice.pause(300);
        }
    }
    if dice.roll(3) > 0 {
        ftp.quit().context("QUIT")?;
    }
    Ok(())
}

/// A user who wants the ftpd to connect to somebody else.
fn bouncing(stage: &Stage, target: &Target, shared: &Shared) {
    let _ = stage.sandbox.client().enter(|| {
        while !shared.is_done() {
            let tried = stage.login(Family::V4).and_then(|mut ftp| {
                let reply = ftp.active(target.address(), Commands::Classic)?;
                if reply.code == 200 {
                    ftp.command(&format!("RETR {FILE}"))?;
                }
                Ok(())
            });
            if tried.is_ok() {
                shared.bounces.fetch_add(1, Ordering::Relaxed);
            }
            thread::sleep(Duration::from_millis(100));
        }
    });
}

/// A client that opens more sessions than its share, asks for a port in each, and goes away.
fn greedy(stage: &Stage, shared: &Shared, dice: &mut Dice) {
    let _ = stage.sandbox.third().enter(|| {
        while !shared.is_done() {
            let mut sessions = Vec::new();
            for _ in 0..18 {
                if let Ok(mut ftp) = stage.login(Family::V4) {
                    let _ = ftp.send("PASV");
                    sessions.push(ftp);
                    shared.greedy.fetch_add(1, Ordering::Relaxed);
                }
            }
            dice.pause(2_000);
        }
    });
}

/// Does one thing after the other to the daemon and the links. Gives the daemon of the end.
fn torment(
    plan: &Plan,
    stage: &Stage,
    options: &Options,
    mut guard: Guard,
    shared: &Shared,
    outcome: &mut Outcome,
    dice: &mut Dice,
) -> Result<Guard> {
    let begun = Instant::now();
    let mut options = options.clone();
    thread::sleep(Duration::from_secs(1));
    outcome.tables[0] = tables(&guard.status()?);
    outcome.memory[0] = memory(&guard)?;
    let mut size = 1_000;
    let mut counts = [0; Deed::ALL.len()];
    for (place, deed) in Deed::ALL.into_iter().enumerate().cycle() {
        if begun.elapsed() > plan.time {
            break;
        }
        // Hanging takes seconds in which nothing else happens.
        if deed == Deed::Hang && counts[place] * 3 > counts[0] {
            continue;
        }
        counts[place] += 1;
        *shared.deed.lock().unwrap_or_else(PoisonError::into_inner) = deed.label();
        guard = match deed {
            Deed::Kill => {
                let runtime = guard.kill()?;
                dice.pause(1_500);
                Guard::start_in(&stage.sandbox, &options, &runtime)?
            }
            Deed::KillAtStart | Deed::FailAtStart => {
                let runtime = guard.kill()?;
                let prefix = if deed == Deed::KillAtStart {
                    "kill:"
                } else {
                    ""
                };
                let broken = Options {
                    fault: Some(format!("{prefix}{}", 1 + dice.roll(25))),
                    ..options.clone()
                };
                // It may not come to that step.
                drop(Guard::start_in(&stage.sandbox, &broken, &runtime).and_then(Guard::kill));
                Guard::start_in(&stage.sandbox, &options, &runtime)?
            }
            Deed::Replace => {
                size += 1;
                options.more = vec![CLIENT_SHARE.into(), format!("--max-sessions={size}")];
                let runtime = guard.kill()?;
                Guard::start_in(&stage.sandbox, &options, &runtime)?
            }
            Deed::StopAndKeep => {
                // The one that runs was not told to keep: one that was takes its place first.
                let runtime = guard.kill()?;
                let mut keeping = options.clone();
                keeping.more.push("--on-stop=keep".into());
                let guard = Guard::start_in(&stage.sandbox, &keeping, &runtime)?;
                guard.stop(Signal::SIGTERM)?;
                dice.pause(500);
                Guard::start_in(&stage.sandbox, &options, &runtime)?
            }
            Deed::Hang => {
                let id = Pid::from_raw(guard.id().cast_signed());
                kill(id, Signal::SIGSTOP)?;
                thread::sleep(Duration::from_secs(6));
                kill(id, Signal::SIGCONT)?;
                guard
            }
            Deed::Flap => {
                stage.sandbox.unplug_server(true)?;
                dice.pause(200);
                stage.sandbox.unplug_server(false)?;
                guard
            }
            Deed::Appear => {
                let server = stage.sandbox.server();
                server.ip(&[
                    "link", "add", "passing0", "type", "veth", "peer", "name", "passing1",
                ])?;
                server.ip(&["link", "set", "passing0", "up"])?;
                dice.pause(300);
                server.ip(&["link", "delete", "passing0"])?;
                guard
            }
        };
        dice.pause(2_000);
        outcome.memory[2] = memory(&guard)?;
        outcome.memory[1] = outcome.memory[1].max(outcome.memory[2]);
    }
    outcome.deeds = Deed::ALL.into_iter().map(Deed::label).zip(counts).collect();
    Ok(guard)
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
