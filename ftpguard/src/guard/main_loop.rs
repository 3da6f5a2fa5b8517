//! The main loop: waits, reads what the kernel side tells, answers questions.

use std::{
    future::pending,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use ftpguard_common::{
    event::{Event, EventKind},
    verdict::Reason,
};
use sd_notify::NotifyState;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    task::yield_now,
    time::sleep_until,
};

use super::{
    Guard,
    rest::{self, Next},
};
use crate::{
    config::TrackingArg,
    control_socket::{Question, Request},
    events::{Happening, read_event},
    kernel::{Maps, Ring},
    network::Changes,
    state,
};

/// How long after a denial the budget is refilled.
const REFILL_AFTER: Duration = Duration::from_millis(100);
/// How often the tables are looked over when nothing else happens.
pub(super) const LOOK_OVER: Duration = Duration::from_secs(10);
/// How many records of a ring buffer are read before anything else gets its turn.
const BATCH: usize = 256;
/// How often the kernel side is told that the daemon is alive.
const BEAT_EVERY: Duration = Duration::from_secs(1);

/// What the guard listens to: both ring buffers, and changes of the network.
pub(super) struct Rings {
    pub(super) events: Ring,
    pub(super) control: Ring,
    pub(super) network: Changes,
}

/// The signals that end the guard, or make it read its file again.
pub(super) struct Stop {
    interrupt: Signal,
    terminate: Signal,
    keep: Signal,
    hangup: Signal,
}

impl Stop {
    pub(super) fn watch() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("watching for SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("watching for SIGTERM")?,
            keep: signal(SignalKind::user_defined1()).context("watching for SIGUSR1")?,
            hangup: signal(SignalKind::hangup()).context("watching for SIGHUP")?,
        })
    }
}

/// Why the main loop ended in good order.
pub(super) enum Ended {
    /// By a signal.
    Stopped,
    /// By SIGUSR1: another guard is to take over.
    Kept,
    /// By `ftpguard detach`.
    Detached,
}

/// What the main loop wakes up for.
enum Wake {
    Events,
    Control,
    Network,
    Question(Question),
    Deadline,
    Reload,
    Stop(&'static str),
    Keep,
}

/// Lets everything else have its turn after a batch that did not empty a ring buffer: signals, the
/// clock, and whoever asks. A ring that is readable never waits, and without a wait the runtime looks
/// at nothing else.
async fn give_way(read: bool) {
    if !read {
        yield_now().await;
    }
}

impl Guard {
    pub(super) async fn watch(
        &mut self,
        mut rings: Rings,
        mut questions: mpsc::Receiver<Question>,
        mut stop: Stop,
    ) -> Result<Ended> {
        loop {
            // Here, and not when the clock wakes the loop: it has no say while there is always
            // something to read.
            if self.deadline() <= Instant::now() {
                if self.read_at <= Instant::now() {
                    self.read_rings(&mut rings)?;
                }
                self.on_deadline()?;
            }
            let deadline = self.deadline();
            let wake = tokio::select! {
                ready = rings.events.readable() => {
                    ready.context("waiting for events")?;
                    Wake::Events
                }
                ready = rings.control.readable() => {
                    ready.context("waiting for control bytes")?;
                    Wake::Control
                }
                ready = rings.network.readable() => {
                    ready.context("waiting for changes of the network")?;
                    Wake::Network
                }
                question = questions.recv() => match question {
                    Some(question) => Wake::Question(question),
                    // The socket's task never ends before this loop.
                    None => pending().await,
                },
                () = sleep_until(deadline.into()) => Wake::Deadline,
                _ = stop.hangup.recv() => Wake::Reload,
                _ = stop.interrupt.recv() => Wake::Stop("SIGINT"),
                _ = stop.terminate.recv() => Wake::Stop("SIGTERM"),
                _ = stop.keep.recv() => Wake::Keep,
            };
            match wake {
                Wake::Events => {
                    let read = self.read_events(&mut rings.events);
                    self.read_at = self.read_at.min(Instant::now() + rest::EVERY);
                    give_way(read).await;
                }
                Wake::Control => {
                    let read = self.read_control(&mut rings.control)?;
                    give_way(read).await;
                }
                Wake::Question(question) if question.request == Request::Detach {} => {
                    self.read_rings(&mut rings)?;
                    return Ok(Ended::Detached);
                }
                Wake::Network => {
                    rings
                        .network
                        .drain()
                        .context("reading changes of the network")?;
                    self.interfaces.changed();
                }
                Wake::Question(question) => {
                    // What happened before the question belongs in the answer.
                    self.read_rings(&mut rings)?;
                    self.answer(question);
                }
                // The next turn begins with what is due.
                Wake::Deadline => {}
                Wake::Reload => match self.reload() {
                    Ok(reloaded) => log::info!("SIGHUP: {}", reloaded.render().trim_end()),
                    Err(kept) => log::error!("SIGHUP: {kept}"),
                },
                Wake::Stop(signal) => {
                    log::info!("{signal}: detaching");
                    let _ = sd_notify::notify(&[NotifyState::Stopping]);
                    self.read_rings(&mut rings)?;
                    return Ok(Ended::Stopped);
                }
                Wake::Keep => {
                    match self.kernel.pins() {
                        Some(pins) => log::info!(
                            "SIGUSR1: the kernel goes on guarding, see {}",
                            pins.display()
                        ),
                        None => log::warn!("SIGUSR1: nothing is pinned; detaching"),
                    }
                    let _ = sd_notify::notify(&[NotifyState::Stopping]);
                    self.read_rings(&mut rings)?;
                    return Ok(Ended::Kept);
                }
            }
        }
    }

    /// Reads what the kernel side told without waking the guard.
    fn read_rings(&mut self, rings: &mut Rings) -> Result<()> {
        self.read_control(&mut rings.control)?;
        // A pinhole is made before its port is announced: what was read of announcements so far
        // can be compared with pinholes once every event is read, and not before.
        if self.read_events(&mut rings.events) {
            self.rearm()?;
            self.read_anew();
        }
        let now = Instant::now();
        self.read_at = now + rest::EVERY;
        match self.rest.looked(self.state.has_sessions()) {
            Next::Busy => {}
            Next::Announce => self.kernel.rest()?,
            // Not before there is something else to do.
            Next::Rest if self.beat_at > now => self.read_at = self.beat_at,
            Next::Rest => self.read_at = now + BEAT_EVERY,
        }
        Ok(())
    }

    /// Whether every event is read now.
    fn read_events(&mut self, ring: &mut Ring) -> bool {
        let read = ring.drain(BATCH, |record| self.on_event(record));
        self.tell_firewall();
        read
    }

    /// Whether everything that was captured is read now.
    fn read_control(&mut self, ring: &mut Ring) -> Result<bool> {
        let read = ring.drain(BATCH, |record| {
            self.rest.stir();
            self.on_control(record);
        });
        self.settle_text()?;
        self.check_lost_text()?;
        self.look_at = self.look_at.or_else(|| self.text.look_at());
        self.tell_firewall();
        Ok(read)
    }

    fn on_event(&mut self, record: &[u8]) {
        self.rest.stir();
        let Some((event, what)) =
            read_event(record).and_then(|event| Some((event, Happening::from_event(&event)?)))
        else {
            self.state.tally.unreadable += 1;
            return;
        };
        let what = self.with_owner(what, &event);
        if what.attack().is_some() {
            self.refill_at
                .get_or_insert_with(|| Instant::now() + REFILL_AFTER);
            self.remember(&what, &event);
        }
        self.note_port(&what, &event);
        self.state.follow(&event);
        self.count_origin(&event);
        if let Happening::SessionOpened(_) = what {
            self.clients.add(&state::session_key(&event));
            if let Err(error) = self.judge_clients() {
                log::error!("{error}");
            }
        }
        if let Happening::SessionClosed(_) = what {
            self.forget_text(&state::session_key(&event));
        }
        if let Happening::ReaderFound { .. } = what {
            self.latecomers.wait(&event);
        }
        // Told when it has been looked at; where too many wait, it stays what it was taken for.
        if self.is_of_unknown_process(&event) && self.latecomers.wait(&event) {
            return;
        }
        if let Happening::ListenerOpened { .. } = what
            && let Err(error) = self.listener_opened(&event)
        {
            log::error!("{error}");
        }
        self.journal.tell_at(event.at, what);
    }

    /// Whether this tells of a listener whose process the kernel side did not know.
    fn is_of_unknown_process(&self, event: &Event) -> bool {
        let processes = &self.kernel.maps.processes;
        event.kind == EventKind::ForeignListener as u32
            || event.kind == EventKind::Unattributed as u32
                && matches!(Maps::find(processes, &event.tgid), Ok(None))
    }

    /// What the event says of how surely listeners are attributed.
    fn count_origin(&mut self, event: &Event) {
        if event.kind == EventKind::PinholeMade as u32 {
            if let Some(session) = self.state.session(event.session) {
                self.text.pinhole_made(session);
            }
        } else if event.kind == EventKind::Unattributed as u32
            && let Ok(Some(process)) = Maps::find(&self.kernel.maps.processes, &event.tgid)
        {
            self.state.origins.unattributed(process.control_port);
        }
    }

    /// Says whose port it was that a SYN went for.
    fn with_owner(&self, mut what: Happening, event: &Event) -> Happening {
        if let Happening::SynDenied { open_for, .. } = &mut what
            && event.reason == Reason::NoPinhole as u32
            && event.kind == EventKind::SynDenied as u32
        {
            *open_for = self.state.open_for(event.local, event.local_port);
        }
        what
    }

    fn deadline(&self) -> Instant {
        let read_at = match self.config.tracking {
            TrackingArg::Socket => Some(self.read_at),
            TrackingArg::Text => None,
        };
        [
            self.refill_at,
            self.look_at,
            read_at,
            self.interfaces.follow_at,
            self.latecomers.look_at(Instant::now()),
            self.watchdog.due(),
            Some(self.beat_at),
        ]
        .into_iter()
        .flatten()
        .fold(self.look_over_at, Instant::min)
    }

    fn on_deadline(&mut self) -> Result<()> {
        let now = Instant::now();
        if self.beat_at <= now {
            self.beat_at = now + BEAT_EVERY;
            self.kernel.beat()?;
            self.follow_cgroup();
            self.check_room()?;
        }
        self.watchdog.on_deadline(now);
        if self.refill_at.is_some_and(|at| at <= now) {
            self.refill_at = None;
            self.refill()?;
        }
        if self.look_at.is_some_and(|at| at <= now) {
            self.look_for_listeners()?;
            self.look_at = self.text.look_at();
        }
        if self.latecomers.look_at(now).is_some_and(|at| at <= now) {
            self.look_at_latecomers();
        }
        if self.interfaces.follow_at.is_some_and(|at| at <= now) {
            self.follow_network()?;
        }
        if self.look_over_at <= now {
            self.look_over_at = now + LOOK_OVER;
            self.look_over()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use tokio::{runtime::Builder, time::sleep};

    use super::*;

    /// While rings are never empty the clock goes on all the same, and tasks have their turn.
    #[test]
    fn a_loop_that_never_waits_starves_nothing() {
        let runtime = Builder::new_current_thread().enable_all().build();
        let rang = Arc::new(AtomicBool::new(false));
        runtime.expect("a runtime").block_on(async {
            let clock = Arc::clone(&rang);
            tokio::spawn(async move {
                sleep(Duration::from_millis(20)).await;
                clock.store(true, Ordering::Relaxed);
            });
            let end = Instant::now() + Duration::from_secs(10);
            while !rang.load(Ordering::Relaxed) {
                assert!(Instant::now() < end, "the clock never rang");
                give_way(false).await;
            }
        });
    }
}
