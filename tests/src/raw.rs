//! Frames that a host sends past its own network stack, and what comes back.

use std::{
    collections::HashMap,
    os::fd::{AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use etherparse::{SlicedPacket, TransportSlice};
use nix::{
    ifaddrs::getifaddrs,
    sys::{
        socket::{
            AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send,
            setsockopt, socket, sockopt::ReceiveTimeout,
        },
        time::TimeVal,
    },
};

use crate::sandbox::{Host, INTERFACE};

/// What came back for a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// SYN-ACK: a listener took it.
    Accepted,
    /// RST.
    Refused,
    /// Nothing.
    Silent,
}

/// A packet socket on a host's interface.
#[derive(Debug)]
pub struct RawWire(OwnedFd);

impl RawWire {
    /// Opens it on the host's first interface.
    pub fn open(host: &Host) -> Result<Self> {
        let wire = host.enter(|| -> Result<OwnedFd> {
            let wire = socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::EthAll,
            )
            .context("opening a packet socket")?;
            bind(wire.as_raw_fd(), &link_address()?).context("binding it")?;
            Ok(wire)
        })??;
        setsockopt(&wire, ReceiveTimeout, &TimeVal::new(0, 5_000)).context("a time limit")?;
        Ok(Self(wire))
    }

    /// Sends one frame.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        send(self.0.as_raw_fd(), frame, MsgFlags::empty()).context("sending a frame")?;
        Ok(())
    }

    /// Collects TCP answers for as long as `quiet` says: what came to each port of this host.
    #[must_use]
    pub fn replies(&self, quiet: Duration) -> HashMap<u16, Reply> {
        let mut replies = HashMap::new();
        let deadline = Instant::now() + quiet;
        let mut frame = [0; 512];
        while Instant::now() < deadline {
            let Ok(length) = recv(self.0.as_raw_fd(), &mut frame, MsgFlags::empty()) else {
                continue;
            };
            if let Some((port, reply)) = answer(&frame[..length.min(frame.len())]) {
                // A SYN-ACK may be sent again, and ends with this host's own RST.
                replies.entry(port).or_insert(reply);
            }
        }
        replies
    }
}

/// The port that an answer goes to, and what it says.
fn answer(frame: &[u8]) -> Option<(u16, Reply)> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let Some(TransportSlice::Tcp(tcp)) = packet.transport else {
        return None;
    };
    let reply = match (tcp.syn(), tcp.rst(), tcp.ack()) {
        (true, false, true) => Reply::Accepted,
        (_, true, _) => Reply::Refused,
        _ => return None,
    };
    Some((tcp.destination_port(), reply))
}

/// The hardware address of a host's first interface.
pub fn hardware_address(host: &Host) -> Result<[u8; 6]> {
    host.enter(link_address)??
        .addr()
        .context("the interface has no hardware address")
}

/// The first interface of the thread's host, as packet sockets name it.
fn link_address() -> Result<LinkAddr> {
    getifaddrs()
        .context("listing interfaces")?
        .filter(|interface| interface.interface_name == INTERFACE)
        .find_map(|interface| interface.address?.as_link_addr().copied())
        .with_context(|| format!("no interface {INTERFACE}"))
}
