//! The running guard: starts everything in the order that leaves no gap, then one loop.

mod alarm;
mod answers;
mod firewall;
mod ftpds;
mod hidden;
mod interfaces;
mod latecomers;
mod reload;
mod summary;
mod sweep;
mod text;
mod watchdog;
mod why;

use std::{
    future::pending,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use ftpguard_common::{
    abi::{Active, Mode, Origin, Policy, Tracking, WithoutDaemon},
    event::{Event, EventKind},
    verdict::Reason,
};
use sd_notify::NotifyState;
use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::sleep_until,
};

use self::{
    alarm::Alarm, firewall::Firewall, hidden::Clients, interfaces::Interfaces, sweep::Sweep,
    text::Text, watchdog::Watchdog, why::Monitored,
};
use crate::{
    adopt::{self, decide::Rules, snapshot::Reader},
    cli::RunArgs,
    clock,
    config::{Config, ModeArg, OnStop, TrackingArg},
    control_socket::{ControlSocket, Question, Request},
    doctor::predict::Seen,
    events::{Ends, Happening, read_event},
    journal::Journal,
    kernel::{Attached, Kernel, KernelError, Maps, Pins, Ring, Settings},
    memory, metrics,
    network::Changes,
    nft::NftSet,
    preflight::{self, Host},
    privileges,
    state::{self, State},
    values::PortRange,
    watcher::Watcher,
};

/// How many denials of each kind all CPUs may tell one by one between two refills.
const EVENT_BUDGET: u32 = 64;
/// How long after a denial the budget is refilled.
const REFILL_AFTER: Duration = Duration::from_millis(100);
/// How often the ring buffers are read in socket tracking, where the kernel side wakes the guard
/// for urgent events only.
const READ_EVERY: Duration = Duration::from_millis(50);
/// How often the tables are looked over when nothing else happens.
const LOOK_OVER: Duration = Duration::from_secs(10);
/// How many records of a ring buffer are read before anything else gets its turn.
const BATCH: usize = 256;
/// How many sessions are read at once where text only labels and narrows.
const READ_FOR_LABELS: usize = 256;
/// How many it reads at once to make pinholes: 74 MiB at most ([`crate::watcher::MEMORY`]). A
/// session beyond them is counted, and gets its pinholes from sockets where they can tell.
const READ_FOR_PINHOLES: usize = 4_096;
/// How many questions wait for the main loop.
const QUESTIONS: usize = 16;
/// How long a thread's last read of a control connection may name its session (rule F3). An
/// ftpd that serves several sessions in one process handles a command in one go; a second is a
/// busy host's worth of it.
const SERVING_AGE: Duration = Duration::from_secs(1);
/// How long the egress guard remembers a refused destination.
const BARRED_AGE: Duration = Duration::from_secs(5);

/// How often the kernel side is told that the daemon is alive.
const BEAT_EVERY: Duration = Duration::from_secs(1);
/// How old the last such sign may be before the daemon counts as dead or hung (rule M2).
const HEARTBEAT_AGE: Duration = Duration::from_secs(5);

/// Guards until SIGINT or SIGTERM. When it returns after one of these, nothing is attached, unless
/// `--on-stop keep` was given. After a failed start everything is as it was before; after a
/// failure later on the kernel goes on guarding, where it is pinned.
pub fn run(args: &RunArgs) -> Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the event loop")?;
    let config = args.given.resolve()?;
    runtime.block_on(async {
        // Before anything is attached: from here on a signal ends the guard in good order.
        let stop = Stop::watch()?;
        let metrics = metrics::Endpoint::bind(&config.metrics).await?;
        let (mut guard, rings, questions) = Guard::start(args, config, metrics)?;
        let ended = guard.watch(rings, questions, stop).await;
        let keep = match &ended {
            Ok(Ended::Stopped) => guard.config.on_stop == OnStop::Keep,
            Ok(Ended::Detached) => false,
            Err(_) => true,
        };
        guard.finish(keep);
        ended.map(drop)
    })
}

/// Everything a running guard holds.
struct Guard {
    args: RunArgs,
    /// What is in force.
    config: Config,
    /// What file and command line say; the mode in force may have been switched since.
    configured: Config,
    host: Host,
    kernel: Kernel,
    attached: Vec<Attached>,
    interfaces: Interfaces,
    clients: Clients,
    firewall: Firewall,
    journal: Journal,
    state: State,
    ready_at: Instant,
    /// When the budget of denials is refilled; nothing to refill where `None`.
    refill_at: Option<Instant>,
    look_over_at: Instant,
    /// When the ring buffers are read without being asked.
    read_at: Instant,
    /// When the kernel side is told again that the daemon is alive.
    beat_at: Instant,
    /// When announced ports are looked for again.
    look_at: Option<Instant>,
    /// From here on every control byte is captured: nanoseconds of `CLOCK_MONOTONIC`.
    watching_since: u64,
    watcher: Watcher,
    text: Text,
    sweep: Sweep,
    alarm: Alarm,
    watchdog: Watchdog,
    /// The passive ports that each FTP server chose (rule D1).
    ports: Seen,
    /// Since when monitor mode collects its evidence; `None` where it does not.
    monitored: Option<Monitored>,
}

/// What the guard listens to: both ring buffers, and changes of the network.
struct Rings {
    events: Ring,
    control: Ring,
    network: Changes,
}

pub use self::reload::{Reloaded, Switched};

/// The signals that end the guard, or make it read its file again.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Stop {
    fn watch() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("watching for SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("watching for SIGTERM")?,
            hangup: signal(SignalKind::hangup()).context("watching for SIGHUP")?,
        })
    }
}

/// Why the main loop ended in good order.
enum Ended {
    /// By a signal.
    Stopped,
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
}

impl Guard {
    fn start(
        args: &RunArgs,
        config: Config,
        metrics: Option<metrics::Endpoint>,
    ) -> Result<(Self, Rings, mpsc::Receiver<Question>)> {
        // Before the interfaces are listed, so that none is missed.
        let network = Changes::watch().context("watching interfaces and addresses")?;
        let host = preflight::check(&config.interfaces, config.cgroup())?;
        let firewall = Firewall::open(&config.nft_set)?;
        // Before anything is attached: a second guard on the same folder ends here.
        let socket = ControlSocket::bind(&args.runtime_dir, &config.socket_group)?;
        let settings = settings(&config, &host, args.pins(&config));
        let mut kernel = Kernel::load(&settings)?;
        let rings = Rings {
            events: Ring::new(kernel.take_events()?).context("watching the event ring buffer")?,
            control: Ring::new(kernel.take_control()?)
                .context("watching the ring buffer of control bytes")?,
            network,
        };
        kernel
            .maps
            .refill_event_budget(EVENT_BUDGET, sweep::salt())?;
        let now = Instant::now();
        let mut guard = Self {
            args: args.clone(),
            host,
            kernel,
            attached: Vec::new(),
            interfaces: Interfaces::default(),
            clients: Clients::default(),
            firewall,
            journal: Journal::start(args.json).context("starting the output thread")?,
            state: State::default(),
            ready_at: now,
            refill_at: None,
            look_over_at: now + LOOK_OVER,
            read_at: now + READ_EVERY,
            beat_at: now,
            look_at: None,
            watching_since: u64::MAX,
            watcher: Watcher::new(match config.tracking {
                TrackingArg::Socket => READ_FOR_LABELS,
                TrackingArg::Text => READ_FOR_PINHOLES,
            }),
            text: Text::default(),
            sweep: Sweep::default(),
            alarm: Alarm::default(),
            watchdog: Watchdog::from_environment(),
            ports: Seen::default(),
            monitored: None,
            configured: config.clone(),
            config,
        };
        guard.attach()?;
        guard.kernel.commit(&settings)?;
        privileges::drop_the_rest()?;
        memory::give_back();
        if guard.config.mode == ModeArg::Monitor {
            guard.begin_monitor()?;
        }
        let (ask, questions) = mpsc::channel(QUESTIONS);
        if let Some(metrics) = metrics {
            tokio::spawn(metrics.serve(ask.clone()));
        }
        tokio::spawn(socket.serve(ask));
        guard.journal.line(guard.ready_line());
        // Without a service manager there is nobody to tell.
        let _ = sd_notify::notify(&[NotifyState::Ready]);
        Ok((guard, rings, questions))
    }

    /// First the observer, so that nothing that happens from now on is missed; then what was
    /// there before; the hooks that deny come last, when the tables are complete.
    fn attach(&mut self) -> Result<()> {
        self.kernel.attach_observer()?;
        self.adopt(&self.config.clone(), None)?;
        if self.kernel.is_inherited() {
            adopt::resume(&mut self.kernel)?;
        }
        self.kernel.attach_connect()?;
        self.kernel.attach_lookup()?;
        for interface in &self.host.interfaces {
            let choice = self.config.xdp_mode.into();
            let attached = match self.kernel.attach_interface(interface, choice) {
                // No reason to refuse the others; it is told when interfaces are followed.
                Err(error @ KernelError::NoEthernet(_)) => {
                    log::warn!("{error}");
                    self.interfaces.changed();
                    continue;
                }
                attached => attached?,
            };
            if let Some(reason) = &attached.fallback {
                log::warn!("{interface}: no native XDP, {reason}; TC judges instead");
            }
            self.attached.push(attached);
        }
        self.watching_since = clock::monotonic_ns();
        Ok(())
    }

    /// Reads which sockets there are.
    fn reader(&self, config: &Config) -> Reader {
        Reader {
            cgroup: self.host.cgroup.clone(),
            control_ports: config.control_ports(),
        }
    }

    /// Adopts what is open already: everything, or with `new_control_ports` what belongs to
    /// these, and other software's listeners in the passive ranges.
    fn adopt(&mut self, config: &Config, new_control_ports: Option<Vec<u16>>) -> Result<()> {
        let first = new_control_ports.is_none();
        let reader = self.reader(config);
        let rules = Rules {
            control_ports: config.control_ports(),
            passive_ports: config.passive_ports(),
            new_control_ports,
            uses: u32::from(config.uses),
            now: clock::monotonic_ns(),
        };
        for (id, key) in adopt::adopt(&mut self.kernel, &reader, &rules)? {
            self.state.session_opened(id, key);
            self.clients.add(&key);
            self.journal
                .tell(Happening::SessionAdopted(Ends::from(&key)));
        }
        // Pinholes for listeners that were open already.
        self.state.reload(&self.kernel);
        for (_, pinhole) in Maps::entries(&self.kernel.maps.pinholes) {
            if first && pinhole.origin == Origin::Adopted as u32 {
                self.state.origins.made(pinhole.server_port, pinhole.origin);
            }
        }
        self.judge_clients()?;
        Ok(())
    }

    async fn watch(
        &mut self,
        mut rings: Rings,
        mut questions: mpsc::Receiver<Question>,
        mut stop: Stop,
    ) -> Result<Ended> {
        loop {
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
            };
            match wake {
                Wake::Events => {
                    self.read_events(&mut rings.events);
                }
                Wake::Control => self.read_control(&mut rings.control)?,
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
                Wake::Deadline => {
                    if self.read_at <= Instant::now() {
                        self.read_rings(&mut rings)?;
                    }
                    self.on_deadline()?;
                }
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
            }
        }
    }

    /// Reads what the kernel side told without waking the guard.
    fn read_rings(&mut self, rings: &mut Rings) -> Result<()> {
        self.read_at = Instant::now() + READ_EVERY;
        self.read_control(&mut rings.control)?;
        // A pinhole is made before its port is announced: what was read of announcements so far
        // can be compared with pinholes once every event is read, and not before.
        if self.read_events(&mut rings.events) {
            self.rearm()?;
        }
        Ok(())
    }

    /// Whether every event is read now.
    fn read_events(&mut self, ring: &mut Ring) -> bool {
        let read = ring.drain(BATCH, |record| self.on_event(record));
        self.tell_firewall();
        read
    }

    fn read_control(&mut self, ring: &mut Ring) -> Result<()> {
        ring.drain(BATCH, |record| self.on_control(record));
        self.settle_text()?;
        self.look_at = self.look_at.or_else(|| self.text.look_at());
        self.tell_firewall();
        Ok(())
    }

    fn on_event(&mut self, record: &[u8]) {
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
        if let Happening::ReaderFound { pid, .. } = what {
            self.adopt_ancestors(pid, &event);
        }
        if let Happening::ForeignListener { pid, .. } = what
            && !self.is_foreign(pid, &event)
        {
            return;
        }
        if let Happening::ListenerOpened { .. } = what
            && let Err(error) = self.listener_opened(&event)
        {
            log::error!("{error}");
        }
        self.journal.tell_at(event.at, what);
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
        if self.interfaces.follow_at.is_some_and(|at| at <= now) {
            self.follow_network()?;
        }
        if self.look_over_at <= now {
            self.look_over_at = now + LOOK_OVER;
            self.look_over()?;
        }
        Ok(())
    }

    /// Detaches everything, unless the kernel is to go on guarding; then tells the totals.
    fn finish(self, keep: bool) {
        let counters = self.kernel.counters();
        if keep {
            self.kernel.keep();
        }
        let Self {
            args,
            kernel,
            mut journal,
            state,
            ..
        } = self;
        drop(kernel);
        match counters {
            Ok(counters) => {
                journal.line(summary::totals(&state.tally, &counters, args.json));
            }
            Err(error) => log::error!("the totals cannot be read: {error}"),
        }
        if journal.dropped_lines() > 0 {
            log::warn!(
                "{} lines were not taken by the reader of standard output",
                journal.dropped_lines()
            );
        }
        journal.finish();
    }
}

pub(crate) fn settings(config: &Config, host: &Host, pins: Pins) -> Settings {
    Settings {
        policy: policy(config),
        control_ports: config.control_ports(),
        passive_ports: config
            .passive_ports()
            .into_iter()
            .map(PortRange::ports)
            .collect(),
        data_source_ports: config.data_source_ports.clone(),
        exceptions: config.destinations().collect(),
        bounce_shield: config.bounce_shield,
        cgroup: host.cgroup.clone(),
        max_sessions: config.max_sessions,
        pins: if host.has_bpffs { pins } else { Pins::Nowhere },
    }
}

fn policy(config: &Config) -> Policy {
    Policy {
        mode: Mode::from(config.mode) as u32,
        tracking: Tracking::from(config.tracking) as u32,
        active: Active::from(config.active) as u32,
        uses: u32::from(config.uses),
        serving_age: nanoseconds(SERVING_AGE),
        barred_age: nanoseconds(BARRED_AGE),
        heartbeat_age: nanoseconds(HEARTBEAT_AGE),
        without_daemon: WithoutDaemon::from(config.without_daemon) as u32,
        sessions_per_client: config.client_sessions,
        wake: u32::from(config.nft_set != NftSet::Off),
        pad: 0,
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
