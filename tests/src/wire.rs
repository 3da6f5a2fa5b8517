//! What leaves a host: SYNs, counted on the wire behind every hook.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result, anyhow};
use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket,
        sockopt::ReceiveTimeout,
    },
    time::TimeVal,
};

use crate::sandbox::{Family, Host};

/// How long the wire must be quiet before the watch ends.
const QUIET: TimeVal = TimeVal::new(0, 50_000);

/// Watches the SYNs that a host sends.
///
/// A packet socket sees outgoing frames after the TC egress hook, so what it sees has left.
#[derive(Debug)]
pub struct SynWatch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<SocketAddr>>>,
}

impl SynWatch {
    /// Starts to watch.
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
        setsockopt(&socket, ReceiveTimeout, &QUIET).context("setting a time limit")?;
        let own = Family::ALL.map(|family| host.address(family));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || watch(&socket, own, &stop)
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Stops, and returns where the SYNs went, in order.
    pub fn stop(mut self) -> Result<Vec<SocketAddr>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .take()
            .and_then(|thread| thread.join().ok())
            .ok_or_else(|| anyhow!("the watch of the wire failed"))
    }
}

impl Drop for SynWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn watch(socket: &OwnedFd, own: [IpAddr; 2], stop: &AtomicBool) -> Vec<SocketAddr> {
    let mut seen = Vec::new();
    let mut frame = [0; 256];
    loop {
        match recv(socket.as_raw_fd(), &mut frame, MsgFlags::empty()) {
            Ok(length) => {
                if let Some((source, destination)) = syn(&frame[..length.min(frame.len())])
                    && own.contains(&source)
                {
                    seen.push(destination);
                }
            }
            // Nothing came for a while: all that was sent before is counted.
            Err(_) if stop.load(Ordering::Relaxed) => return seen,
            Err(_) => {}
        }
    }
}

/// Source and destination of an Ethernet frame that holds a SYN without ACK.
fn syn(frame: &[u8]) -> Option<(IpAddr, SocketAddr)> {
    const TCP: u8 = 6;
    let packet = frame.get(14..)?;
    let (source, destination, segment): (IpAddr, IpAddr, &[u8]) = match frame.get(12..14)? {
        [0x08, 0x00] if *packet.get(9)? == TCP => {
            let header = usize::from(packet.first()? & 0x0f) * 4;
            let address = |at: usize| -> Option<Ipv4Addr> {
                let bytes: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
                Some(bytes.into())
            };
            (
                address(12)?.into(),
                address(16)?.into(),
                packet.get(header..)?,
            )
        }
        [0x86, 0xdd] if *packet.get(6)? == TCP => {
            let address = |at: usize| -> Option<Ipv6Addr> {
                let bytes: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
                Some(bytes.into())
            };
            (address(8)?.into(), address(24)?.into(), packet.get(40..)?)
        }
        _ => return None,
    };
    let flags = segment.get(13)?;
    let port = u16::from_be_bytes(segment.get(2..4)?.try_into().ok()?);
    (flags & 0x12 == 0x02).then_some((source, SocketAddr::new(destination, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_syns_without_ack_count() {
        let mut frame = vec![0; 54];
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
        frame[14] = 0x45;
        frame[23] = 6;
        frame[26..30].copy_from_slice(&[10, 0, 0, 1]);
        frame[30..34].copy_from_slice(&[10, 0, 0, 4]);
        frame[36..38].copy_from_slice(&6000_u16.to_be_bytes());
        frame[47] = 0x02;
        let expected = (
            IpAddr::from([10, 0, 0, 1]),
            "10.0.0.4:6000".parse().expect("address"),
        );
        assert_eq!(syn(&frame), Some(expected));
        frame[47] = 0x12;
        assert_eq!(syn(&frame), None, "SYN-ACK");
        frame[47] = 0x10;
        assert_eq!(syn(&frame), None, "ACK");
        frame[47] = 0x02;
        for length in 0..48 {
            assert_eq!(syn(&frame[..length]), None, "cut at {length}");
        }
    }
}
