//! The running guard: starts everything in the order that leaves no gap, then one loop.

mod alarm;
mod answers;
mod firewall;
mod ftpds;
mod hidden;
mod interfaces;
mod latecomers;
mod main_loop;
mod reload;
mod rest;
mod settings;
mod summary;
mod sweep;
mod text;
mod watchdog;
mod why;

use std::time::Instant;

use anyhow::{Context as _, Result};
use ftpguard_common::abi::Origin;
use sd_notify::NotifyState;
use tokio::{runtime, sync::mpsc};

use self::{
    alarm::Alarm,
    firewall::Firewall,
    hidden::Clients,
    interfaces::Interfaces,
    latecomers::Latecomers,
    main_loop::{Ended, LOOK_OVER, Rings, Stop},
    rest::Rest,
    sweep::Sweep,
    text::Text,
    watchdog::Watchdog,
    why::Monitored,
};
use crate::{
    adopt::{self, decide::Rules, snapshot::Reader},
    cli::RunArgs,
    clock,
    config::{Config, OnStop, TrackingArg},
    control_socket::{ControlSocket, Question},
    doctor::predict::Seen,
    events::{Ends, Happening},
    fault,
    journal::Journal,
    kernel::{Attached, Kernel, KernelError, Maps, Ring},
    memory, metrics,
    network::Changes,
    preflight::{self, Host},
    privileges,
    state::State,
    watcher::Watcher,
};

/// How many denials of each kind all CPUs may tell one by one between two refills.
const EVENT_BUDGET: u32 = 64;
/// How many sessions are read at once where text only labels and narrows.
const READ_FOR_LABELS: usize = 256;
/// How many it reads at once to make pinholes: 74 MiB at most ([`crate::watcher::MEMORY`]). A
/// session beyond them is counted, and gets its pinholes from sockets where they can tell.
const READ_FOR_PINHOLES: usize = 4_096;
/// How many questions wait for the main loop.
const QUESTIONS: usize = 16;

/// Guards until SIGINT, SIGTERM or SIGUSR1. When it returns after one of the first two, nothing is
/// attached, unless `--on-stop keep` was given; after SIGUSR1 the kernel goes on guarding. After a failed start everything is as it was before; after a
/// failure later on the kernel goes on guarding, where it is pinned.
pub fn run(args: &RunArgs) -> Result<()> {
    preflight::raise_file_limit();
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
            Ok(Ended::Kept) | Err(_) => true,
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
    rest: Rest,
    /// When the kernel side is told again that the daemon is alive.
    beat_at: Instant,
    /// When announced ports are looked for again.
    look_at: Option<Instant>,
    /// From here on every control byte is captured: nanoseconds of `CLOCK_MONOTONIC`.
    watching_since: u64,
    watcher: Watcher,
    text: Text,
    latecomers: Latecomers,
    sweep: Sweep,
    alarm: Alarm,
    watchdog: Watchdog,
    /// The passive ports that each FTP server chose (rule D1).
    ports: Seen,
    /// Since when monitor mode collects its evidence; `None` where it does not.
    monitored: Option<Monitored>,
}

pub use self::reload::{Reloaded, Switched};
pub(crate) use self::settings::settings;

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
        let mut settings = settings(&config, &host, args.pins(&config));
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
        let count = |incident| kernel.maps.incident(incident);
        let (sweep, alarm) = (Sweep::begin(count)?, Alarm::begin(count)?);
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
            read_at: now,
            rest: Rest::default(),
            beat_at: now,
            look_at: None,
            watching_since: u64::MAX,
            watcher: Watcher::new(match config.tracking {
                TrackingArg::Socket => READ_FOR_LABELS,
                TrackingArg::Text => READ_FOR_PINHOLES,
            }),
            text: Text::default(),
            latecomers: Latecomers::default(),
            sweep,
            alarm,
            watchdog: Watchdog::from_environment(),
            ports: Seen::default(),
            monitored: None,
            configured: config.clone(),
            config,
        };
        let follows_another = guard.kernel.follows_another();
        guard.attach()?;
        guard.mode_changed()?;
        settings.policy.refused = guard.clients.refusal().is_some().into();
        guard.kernel.commit(&settings)?;
        // Not earlier: who takes over has to see the former links go.
        if let Err(error) = drop_privileges() {
            if follows_another {
                // What was there before is replaced: this stands in its place.
                guard.kernel.keep();
            }
            return Err(error);
        }
        memory::give_back();
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
            max_sessions: config.max_sessions,
            client_sessions: config.client_sessions,
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
        if first && self.kernel.is_inherited() {
            // The former settings are in force until everything is in place.
            self.notice_hidden();
            return Ok(());
        }
        self.judge_clients()?;
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
        journal.tell_lost_lines();
        journal.finish();
    }
}

fn drop_privileges() -> Result<()> {
    fault::step("giving up privileges")?;
    privileges::drop_the_rest()
}
