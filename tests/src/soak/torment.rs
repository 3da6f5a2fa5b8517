//! What is done to the daemon, its configuration and the links while everybody else goes on.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ftpguard_common::verdict::Incident;
use nix::sys::signal::Signal;

use super::{
    Attackers, CLIENT_SHARE, Deed, Dice, GATHERING, Outcome, Plan, RELOADING, SMALL_TABLE,
    incidents, memory,
    players::{self, HONEST, Phase, Shared},
    tables, wait,
};
use crate::{Family, Guard, guard::Options, scenario::Stage, target::Target};

/// The file that a guard reads, and what it says at the moment.
pub(super) struct Configuration {
    pub(super) file: PathBuf,
    /// Whom the ftpd may reach, while the file says so.
    pub(super) partner: Target,
    pub(super) excepted: bool,
}

impl Configuration {
    pub(super) fn write(&self) -> Result<()> {
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
pub(super) struct Torment<'a> {
    pub(super) plan: &'a Plan,
    pub(super) stage: &'a Stage,
    pub(super) options: Options,
    pub(super) shared: &'a Shared,
    pub(super) attackers: &'a Attackers,
    pub(super) configuration: Configuration,
    pub(super) outcome: &'a mut Outcome,
    pub(super) dice: Dice,
    pub(super) size: u32,
}

impl Torment<'_> {
    /// Until the time is over. Gives the daemon of the end.
    pub(super) fn go_on(&mut self, mut guard: Guard) -> Result<Guard> {
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
            let stopped = self.plan.stop.load(Ordering::Relaxed);
            if stopped || begun.elapsed() > self.plan.time * if all_done { 1 } else { 2 } {
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
