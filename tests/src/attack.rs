//! What a stranger tries: to reach somebody else's data port.

use std::{
    io::ErrorKind,
    net::{IpAddr, Shutdown, SocketAddr, TcpStream},
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::sandbox::Host;

/// How long silence must last to be called so. Hosts in the sandbox answer within a millisecond.
pub const SILENCE: Duration = Duration::from_millis(400);

/// How long a thief waits for an answer.
const PACE: Duration = Duration::from_millis(5);

/// How many connections a scan has under way at once.
const AT_ONCE: usize = 64;

/// What came back for a SYN.
#[derive(Debug)]
pub enum Answer {
    /// SYN-ACK: the connection is established.
    Connected(TcpStream),
    /// RST: there is a host, and no listener.
    Refused,
    /// Nothing.
    Silent,
}

/// What a scan found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Ports that accepted a connection.
    pub open: Vec<u16>,
    /// Ports that refused one.
    pub closed: Vec<u16>,
    /// Ports that gave no answer.
    pub silent: Vec<u16>,
}

/// Tries to connect from `host`.
pub fn knock(host: &Host, target: SocketAddr) -> Result<Answer> {
    host.enter(|| knock_here(target, SILENCE))?
}

/// Tries every port of the range once from `host`, many at a time.
pub fn scan(host: &Host, target: IpAddr, ports: RangeInclusive<u16>) -> Result<Scan> {
    let ports: Vec<u16> = ports.collect();
    host.enter(|| {
        let mut scan = Scan::default();
        for batch in ports.chunks(AT_ONCE) {
            let answers: Vec<(u16, Result<Answer>)> = thread::scope(|scope| {
                let threads: Vec<_> = batch
                    .iter()
                    .map(|&port| {
                        let target = SocketAddr::new(target, port);
                        (port, scope.spawn(move || knock_here(target, SILENCE)))
                    })
                    .collect();
                threads
                    .into_iter()
                    .map(|(port, thread)| {
                        let answer = thread
                            .join()
                            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                        (port, answer)
                    })
                    .collect()
            });
            for (port, answer) in answers {
                match answer? {
                    Answer::Connected(_) => scan.open.push(port),
                    Answer::Refused => scan.closed.push(port),
                    Answer::Silent => scan.silent.push(port),
                }
            }
        }
        Ok(scan)
    })?
}

/// A thief that tries a few ports over and over, as fast as it can, until this value is dropped.
#[derive(Debug)]
pub struct Hammer {
    stop: Arc<AtomicBool>,
    tried: Arc<AtomicU64>,
    reached: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Hammer {
    /// Starts one thread for each port.
    ///
    /// A SYN that is dropped makes its thread wait, as it would a real thief's `connect()`; the
    /// wait is short, and the next try takes a new source port.
    pub fn start(host: &Host, target: IpAddr, ports: RangeInclusive<u16>) -> Result<Self> {
        let each = ports.map(|port| vec![port]).collect();
        Self::share(host, target, each, Duration::from_micros(50))
    }

    /// Starts this many threads, which walk through the ports over and over, each through its own
    /// share of them. They take the same time for a port that is closed as for one that is silent.
    pub fn walk(
        host: &Host,
        target: IpAddr,
        ports: RangeInclusive<u16>,
        threads: u16,
    ) -> Result<Self> {
        let share = |own| ports.clone().filter(|port| port % threads == own).collect();
        let shares = (0..threads).map(share).collect();
        Self::share(host, target, shares, PACE)
    }

    fn share(
        host: &Host,
        target: IpAddr,
        shares: Vec<Vec<u16>>,
        after_refusal: Duration,
    ) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let tried = Arc::new(AtomicU64::new(0));
        let reached = Arc::new(AtomicU64::new(0));
        let threads = host.enter(|| {
            shares
                .into_iter()
                .map(|ports| {
                    let stop = Arc::clone(&stop);
                    let (tried, reached) = (Arc::clone(&tried), Arc::clone(&reached));
                    // The thread is made in the namespace and stays there.
                    thread::spawn(move || {
                        for &port in ports.iter().cycle() {
                            if stop.load(Ordering::Relaxed) {
                                break;
                            }
                            let target = SocketAddr::new(target, port);
                            let Ok(answer) = knock_here(target, PACE) else {
                                thread::sleep(Duration::from_millis(1));
                                continue;
                            };
                            tried.fetch_add(1, Ordering::Relaxed);
                            match answer {
                                Answer::Connected(stream) => {
                                    reached.fetch_add(1, Ordering::Relaxed);
                                    let _ = stream.shutdown(Shutdown::Both);
                                }
                                Answer::Refused => thread::sleep(after_refusal),
                                Answer::Silent => {}
                            }
                        }
                    })
                })
                .collect()
        })?;
        Ok(Self {
            stop,
            tried,
            reached,
            threads,
        })
    }

    /// How many SYNs were answered, or left without an answer, so far. Those that this machine
    /// could not send are not among them.
    #[must_use]
    pub fn tried(&self) -> u64 {
        self.tried.load(Ordering::Relaxed)
    }

    /// How often it reached a listener so far.
    #[must_use]
    pub fn reached(&self) -> u64 {
        self.reached.load(Ordering::Relaxed)
    }

    /// Stops, and returns how often it reached a listener.
    #[must_use]
    pub fn stop(mut self) -> u64 {
        self.end();
        self.reached()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Hammer {
    fn drop(&mut self) {
        self.end();
    }
}

fn knock_here(target: SocketAddr, silence: Duration) -> Result<Answer> {
    match TcpStream::connect_timeout(&target, silence) {
        Ok(stream) => Ok(Answer::Connected(stream)),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(Answer::Refused),
        Err(error) if error.kind() == ErrorKind::TimedOut => Ok(Answer::Silent),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {
            bail!("{target} reset the connection while it was made")
        }
        Err(error) => Err(error).with_context(|| format!("connecting to {target}")),
    }
}
