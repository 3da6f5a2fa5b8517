//! What passes a host's interface: TCP segments, as its own packet sockets see them.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result};
use etherparse::{InternetSlice, SlicedPacket, TransportSlice};
use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket,
        sockopt::{RcvBufForce, ReceiveTimeout},
    },
    time::TimeVal,
};

use crate::sandbox::Host;

/// How long one wait for a frame lasts.
const PAUSE: TimeVal = TimeVal::new(0, 20_000);

/// One TCP segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Who sent it.
    pub source: SocketAddr,
    /// To whom.
    pub destination: SocketAddr,
    /// Its sequence number.
    pub sequence: u32,
    /// Its acknowledgment number, where it has one.
    pub acknowledgment: Option<u32>,
    /// SYN
    pub syn: bool,
    /// RST
    pub rst: bool,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// Listens to an interface until it is stopped or dropped.
#[derive(Debug)]
pub struct Tap {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Seen>>>,
    thread: Option<JoinHandle<()>>,
}

impl Tap {
    /// Starts to listen to everything that this host sends and receives.
    pub fn start(host: &Host) -> Result<Self> {
        let socket = host
            .enter(|| {
                socket(
                    AddressFamily::Packet,
                    SockType::Raw,
                    SockFlag::SOCK_CLOEXEC,
                    SockProtocol::EthAll,
                )
            })?
            .context("opening a packet socket")?;
        setsockopt(&socket, ReceiveTimeout, &PAUSE).context("setting a time limit")?;
        // A transfer of some hundred kilobytes must fit, and the rest of the connection with it.
        setsockopt(&socket, RcvBufForce, &(1 << 25)).context("making room for frames")?;
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let thread = thread::spawn({
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            move || collect(&socket, &stop, &seen)
        });
        Ok(Self {
            stop,
            seen,
            thread: Some(thread),
        })
    }

    /// What was seen so far, in order.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Stops once the interface is quiet; returns everything in order.
    #[must_use]
    pub fn stop(mut self) -> Vec<Seen> {
        self.end();
        self.seen()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.end();
    }
}

fn collect(socket: &OwnedFd, stop: &AtomicBool, seen: &Mutex<Vec<Seen>>) {
    let mut frame = vec![0; 1 << 17];
    loop {
        match recv(socket.as_raw_fd(), &mut frame, MsgFlags::empty()) {
            Ok(length) => {
                if let Some(segment) = read(frame.get(..length).unwrap_or_default()) {
                    seen.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(segment);
                }
            }
            Err(_) if stop.load(Ordering::Relaxed) => return,
            Err(_) => {}
        }
    }
}

/// The TCP segment in an Ethernet frame.
#[must_use]
pub fn read(frame: &[u8]) -> Option<Seen> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (source, destination): (IpAddr, IpAddr) = match packet.net.as_ref()? {
        InternetSlice::Ipv4(ip) => (
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        ),
        InternetSlice::Ipv6(ip) => (
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        ),
        InternetSlice::Arp(_) => return None,
    };
    let Some(TransportSlice::Tcp(tcp)) = packet.transport else {
        return None;
    };
    Some(Seen {
        source: SocketAddr::new(source, tcp.source_port()),
        destination: SocketAddr::new(destination, tcp.destination_port()),
        sequence: tcp.sequence_number(),
        acknowledgment: tcp.ack().then(|| tcp.acknowledgment_number()),
        syn: tcp.syn(),
        rst: tcp.rst(),
        payload: tcp.payload().to_vec(),
    })
}
