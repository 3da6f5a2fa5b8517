//! The target of a bounce: a listener that counts who comes.

use std::{
    io::Read as _,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::sandbox::{Family, Host};

/// A listener on some host. It ends when this value is dropped.
#[derive(Debug)]
pub struct Target {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    received: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Target {
    /// Listens on this port of the host; 0 stands for any free one.
    pub fn start(host: &Host, family: Family, port: u16) -> Result<Self> {
        let address = host.socket(family, port);
        let listener = host
            .enter(|| TcpListener::bind(address))?
            .with_context(|| format!("listening on {address}"))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let accepted = Arc::new(AtomicUsize::new(0));
        let received = Arc::new(AtomicUsize::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (accepted, received, stop) = (
                Arc::clone(&accepted),
                Arc::clone(&received),
                Arc::clone(&stop),
            );
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let Ok((mut stream, _)) = listener.accept() else {
                        thread::sleep(Duration::from_millis(1));
                        continue;
                    };
                    accepted.fetch_add(1, Ordering::Relaxed);
                    let _ = stream.set_nonblocking(false);
                    let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
                    let mut bytes = [0; 16_384];
                    while let Ok(length @ 1..) = stream.read(&mut bytes) {
                        received.fetch_add(length, Ordering::Relaxed);
                    }
                }
            }
        });
        Ok(Self {
            address,
            accepted,
            received,
            stop,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it accepted so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Waits until it has accepted this many connections; gives up after five seconds. Returns how
    /// many it has accepted by then.
    #[must_use]
    pub fn wait_for_accepted(&self, count: usize) -> usize {
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.accepted() < count && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        self.accepted()
    }

    /// How many bytes it received so far.
    #[must_use]
    pub fn received(&self) -> usize {
        self.received.load(Ordering::Relaxed)
    }

    /// Waits until it has received something; gives up after `timeout`.
    #[must_use]
    pub fn was_reached(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        while self.received() == 0 {
            if Instant::now() > deadline {
                return false;
            }
            thread::sleep(Duration::from_millis(1));
        }
        true
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
