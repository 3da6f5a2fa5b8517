//! A client with a TCP of its own (attacker A4): it chooses every segment that it sends.
//!
//! It uses an address that no kernel owns, so no kernel answers for it.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    os::fd::{AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use etherparse::{PacketBuilder, TcpOptionElement};
use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto,
            setsockopt, socket, sockopt::ReceiveTimeout,
        },
        time::TimeVal,
    },
};
use serde_json::Value;

use crate::{
    attack::SILENCE,
    ftpd::CONTROL_PORT,
    sandbox::{Family, Host, INTERFACE},
    tap::{self, Seen},
};

/// How long an answer may take: a retransmission or two.
const PATIENCE: Duration = Duration::from_secs(3);
/// The last byte of the address.
const LAST: u8 = 99;
/// Where the checksum stands in a packet without IP options.
const CHECKSUM: usize = IP_HEADER + 16;
/// The length of an IP header without options.
const IP_HEADER: usize = 20;
/// Of a TCP header that fills a first fragment, whose length is a multiple of eight.
const PADDED_HEADER: usize = 24;

/// What is wrong with a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Nothing.
    None,
    /// Its checksum, so that the receiving TCP ignores it.
    Checksum,
}

/// What came back for a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knock {
    /// SYN-ACK.
    Answered,
    /// RST.
    Refused,
    /// Nothing.
    Silent,
}

/// A control connection of this client.
#[derive(Debug)]
pub struct Shaper {
    wire: Wire,
    port: u16,
    /// The sequence number of the next byte to send.
    next: u32,
    /// The number after the last byte that came in order.
    expected: u32,
    /// Whether what comes is acknowledged at once.
    pub acknowledges: bool,
    received: Vec<u8>,
}

#[derive(Debug)]
struct Wire {
    sender: OwnedFd,
    receiver: OwnedFd,
    address: Ipv4Addr,
    server: Ipv4Addr,
}

/// Flags, numbers and payload of a segment to send.
struct Segment<'a> {
    ports: (u16, u16),
    sequence: u32,
    acknowledgment: Option<u32>,
    syn: bool,
    rst: bool,
    mss: Option<u16>,
    /// Its header has [`PADDED_HEADER`] bytes.
    padded: bool,
    payload: &'a [u8],
    flaw: Flaw,
}

impl Shaper {
    /// Opens a control connection from `host`'s interface and waits for the greeting. `mss` is
    /// the largest segment that the server may send.
    pub fn connect(host: &Host, server: &Host, mss: Option<u16>, port: u16) -> Result<Self> {
        let wire = Wire::open(host, server)?;
        let initial = u32::from(port) << 16 | 0xfff0;
        wire.send(&Segment {
            sequence: initial,
            syn: true,
            mss,
            ..Segment::between(port, CONTROL_PORT)
        })?;
        let deadline = Instant::now() + PATIENCE;
        let answer = loop {
            let seen = wire.receive(port, CONTROL_PORT)?;
            if let Some(seen) = seen.filter(|seen| seen.syn) {
                break seen;
            }
            ensure!(Instant::now() < deadline, "no answer to the SYN");
        };
        let mut shaper = Self {
            wire,
            port,
            next: initial.wrapping_add(1),
            expected: answer.sequence.wrapping_add(1),
            acknowledges: true,
            received: Vec::new(),
        };
        shaper.acknowledge(shaper.expected)?;
        shaper.wait_for("220 scripted\r\n")?;
        Ok(shaper)
    }

    /// Sends the next bytes in one segment.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.send_at(0, bytes, Flaw::None)?;
        self.next = self.next.wrapping_add(u32::try_from(bytes.len())?);
        Ok(())
    }

    /// Sends a segment so many bytes from the next one, and stays where it is.
    pub fn send_at(&self, offset: i32, bytes: &[u8], flaw: Flaw) -> Result<()> {
        self.wire.send(&Segment {
            sequence: self.next.wrapping_add_signed(offset),
            acknowledgment: Some(self.expected),
            payload: bytes,
            flaw,
            ..Segment::between(self.port, CONTROL_PORT)
        })
    }

    /// Sends bytes in order, in two IP fragments of which the first is a TCP header and no more.
    pub fn send_in_fragments(&mut self, bytes: &[u8]) -> Result<()> {
        self.wire.send_in_fragments(&Segment {
            sequence: self.next,
            acknowledgment: Some(self.expected),
            payload: bytes,
            ..Segment::between(self.port, CONTROL_PORT)
        })?;
        self.next = self.next.wrapping_add(u32::try_from(bytes.len())?);
        Ok(())
    }

    /// Sends a line, and waits for an answer that ends so.
    pub fn ask(&mut self, line: &str, end: &str) -> Result<String> {
        self.received.clear();
        self.send(format!("{line}\r\n").as_bytes())?;
        self.wait_for(end)
    }

    /// Waits until what came since the last question ends so; returns it.
    pub fn wait_for(&mut self, end: &str) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        while !self.received.ends_with(end.as_bytes()) {
            if Instant::now() > deadline {
                bail!(
                    "waited for {end:?}, got {:?}",
                    String::from_utf8_lossy(&self.received)
                );
            }
            self.take()?;
        }
        Ok(String::from_utf8_lossy(&self.received).into_owned())
    }

    /// Forgets what came since the last question.
    pub fn clear(&mut self) {
        self.received.clear();
    }

    /// Takes what comes for this long.
    pub fn listen(&mut self, time: Duration) -> Result<()> {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline {
            self.take()?;
        }
        Ok(())
    }

    /// Acknowledges everything before this number.
    pub fn acknowledge(&self, number: u32) -> Result<()> {
        self.wire.send(&Segment {
            sequence: self.next,
            acknowledgment: Some(number),
            ..Segment::between(self.port, CONTROL_PORT)
        })
    }

    /// The number after the last byte that came.
    #[must_use]
    pub fn expected(&self) -> u32 {
        self.expected
    }

    /// Tries to open a connection to this port of the server.
    pub fn knock(&self, port: u16) -> Result<Knock> {
        let own = self.port.wrapping_add(1);
        let syn = Segment {
            sequence: 7,
            syn: true,
            ..Segment::between(own, port)
        };
        self.wire.send(&syn)?;
        let deadline = Instant::now() + SILENCE;
        while Instant::now() < deadline {
            let Some(seen) = self.wire.receive(own, port)? else {
                continue;
            };
            if seen.syn {
                self.wire.send(&Segment {
                    sequence: 8,
                    rst: true,
                    ..Segment::between(own, port)
                })?;
                return Ok(Knock::Answered);
            }
            if seen.rst {
                return Ok(Knock::Refused);
            }
        }
        Ok(Knock::Silent)
    }

    fn take(&mut self) -> Result<()> {
        let Some(seen) = self.wire.receive(self.port, CONTROL_PORT)? else {
            return Ok(());
        };
        ensure!(!seen.rst, "the server reset the connection");
        let old = self.expected.wrapping_sub(seen.sequence);
        let fresh = usize::try_from(old)
            .ok()
            .and_then(|old| seen.payload.get(old..))
            .unwrap_or_default();
        if !fresh.is_empty() {
            self.received.extend_from_slice(fresh);
            self.expected = self.expected.wrapping_add(u32::try_from(fresh.len())?);
        }
        if self.acknowledges && !seen.payload.is_empty() {
            self.acknowledge(self.expected)?;
        }
        Ok(())
    }
}

impl Drop for Shaper {
    fn drop(&mut self) {
        let _ = self.wire.send(&Segment {
            sequence: self.next,
            rst: true,
            ..Segment::between(self.port, CONTROL_PORT)
        });
    }
}

impl Segment<'_> {
    fn between(source: u16, destination: u16) -> Self {
        Self {
            ports: (source, destination),
            sequence: 0,
            acknowledgment: None,
            syn: false,
            rst: false,
            mss: None,
            padded: false,
            payload: &[],
            flaw: Flaw::None,
        }
    }
}

impl Wire {
    fn open(host: &Host, server: &Host) -> Result<Self> {
        let (IpAddr::V4(own), IpAddr::V4(server_address)) =
            (host.address(Family::V4), server.address(Family::V4))
        else {
            bail!("no IPv4 address");
        };
        let [a, b, c, _] = own.octets();
        let address = Ipv4Addr::new(a, b, c, LAST);
        // Nobody answers for this address, so the server is told where it is.
        let hardware = hardware_address(host)?;
        let own = address.to_string();
        server.ip(&[
            "neighbour",
            "replace",
            &own,
            "lladdr",
            &hardware,
            "dev",
            INTERFACE,
        ])?;
        let raw = |family, protocol| {
            host.enter(|| socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol))?
                .context("opening a raw socket")
        };
        let receiver = raw(AddressFamily::Packet, SockProtocol::EthAll)?;
        setsockopt(&receiver, ReceiveTimeout, &TimeVal::new(0, 20_000)).context("a time limit")?;
        Ok(Self {
            sender: raw(AddressFamily::Inet, SockProtocol::Raw)?,
            receiver,
            address,
            server: server_address,
        })
    }

    fn send(&self, segment: &Segment<'_>) -> Result<()> {
        self.put(&self.packet(segment)?)
    }

    /// Sends it as two IP fragments: the TCP header, and all the rest.
    fn send_in_fragments(&self, segment: &Segment<'_>) -> Result<()> {
        let packet = self.packet(&Segment {
            padded: true,
            ..*segment
        })?;
        let (header, rest) = packet.split_at(IP_HEADER);
        let (first, second) = rest.split_at(PADDED_HEADER);
        let more = 0x2000;
        let offset = u16::try_from(PADDED_HEADER / 8)?;
        for (place, part) in [(more, first), (offset, second)] {
            let mut fragment = [header, part].concat();
            // The same identification for both; length and checksum are the kernel's (raw(7)).
            if let Some(fields) = fragment.get_mut(4..8) {
                fields[..2].copy_from_slice(&segment.ports.0.to_be_bytes());
                fields[2..].copy_from_slice(&place.to_be_bytes());
            }
            self.put(&fragment)?;
        }
        Ok(())
    }

    fn packet(&self, segment: &Segment<'_>) -> Result<Vec<u8>> {
        let (source, destination) = segment.ports;
        let mut tcp = PacketBuilder::ipv4(self.address.octets(), self.server.octets(), 64).tcp(
            source,
            destination,
            segment.sequence,
            65_000,
        );
        if let Some(number) = segment.acknowledgment {
            tcp = tcp.ack(number);
        }
        if segment.syn {
            tcp = tcp.syn();
        }
        if segment.rst {
            tcp = tcp.rst();
        }
        if !segment.payload.is_empty() {
            tcp = tcp.psh();
        }
        if let Some(mss) = segment.mss {
            tcp = tcp
                .options(&[TcpOptionElement::MaximumSegmentSize(mss)])
                .context("the option")?;
        }
        if segment.padded {
            let nothing = [const { TcpOptionElement::Noop }; PADDED_HEADER - 20];
            tcp = tcp.options(&nothing).context("the option")?;
        }
        let mut packet = Vec::with_capacity(tcp.size(segment.payload.len()));
        tcp.write(&mut packet, segment.payload)
            .context("building a segment")?;
        if segment.flaw == Flaw::Checksum
            && let Some(byte) = packet.get_mut(CHECKSUM)
        {
            *byte ^= 0x55;
        }
        Ok(packet)
    }

    fn put(&self, packet: &[u8]) -> Result<()> {
        let server = SockaddrIn::from(SocketAddrV4::new(self.server, 0));
        sendto(self.sender.as_raw_fd(), packet, &server, MsgFlags::empty())
            .context("sending a segment")?;
        Ok(())
    }

    /// The next segment from this port of the server to this port here; `None` where none came
    /// for a while, or another one.
    fn receive(&self, own: u16, port: u16) -> Result<Option<Seen>> {
        let mut frame = vec![0; 1 << 16];
        let length = match recv(self.receiver.as_raw_fd(), &mut frame, MsgFlags::empty()) {
            Ok(length) => length,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
            Err(error) => return Err(error).context("receiving a frame"),
        };
        let seen = tap::read(frame.get(..length).unwrap_or_default());
        Ok(seen.filter(|seen| {
            seen.destination == (IpAddr::V4(self.address), own).into()
                && seen.source == (IpAddr::V4(self.server), port).into()
        }))
    }
}

/// The hardware address of a host's interface.
fn hardware_address(host: &Host) -> Result<String> {
    let shown = host.ip(&["-json", "link", "show", INTERFACE])?.stdout;
    let shown: Value = serde_json::from_str(&shown).context("reading what ip shows")?;
    let address = shown[0]["address"].as_str().context("no address")?;
    Ok(address.to_owned())
}
