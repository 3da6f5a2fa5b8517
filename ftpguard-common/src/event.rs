//! What the kernel side tells through its ring buffers.
//!
//! `EVENTS` carries [`Event`]s of one size. `CONTROL` carries captured control bytes: a
//! [`ControlHeader`], then [`ControlHeader::captured`] bytes.
#![forbid(unsafe_code)]

use bytemuck::{Pod, Zeroable};

use crate::{
    abi::SessionKey,
    net::{Address, Port},
};

/// One thing that happened. Fields that a kind does not name are zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Event {
    /// When: nanoseconds of `CLOCK_MONOTONIC`; 0 where the clock was not worth reading.
    pub at: u64,
    /// [`crate::abi::Session::id`], 0 where there is no session.
    pub session: u64,
    /// A number of [`EventKind`].
    pub kind: u32,
    /// A number of [`crate::verdict::Reason`], for verdicts.
    pub reason: u32,
    /// The process concerned, 0 where there is none.
    pub tgid: u32,
    /// A number of [`crate::abi::Origin`], for pinholes.
    pub origin: u32,
    /// The other side: client, source of a SYN, destination of a connect().
    pub remote: Address,
    /// This host's side.
    pub local: Address,
    /// The port of the other side.
    pub remote_port: Port,
    /// The port of this host's side.
    pub local_port: Port,
    /// A number of [`crate::abi::Mode`]: whether a denial took effect.
    pub mode: u32,
}

/// What happened.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A control connection was established: `remote` to `local`.
    SessionOpened = 1,
    /// It was closed.
    SessionClosed = 2,
    /// `remote` may reach `local`, port `local_port`.
    PinholeMade = 3,
    /// Its data connection was established from `remote_port`, and the pinhole consumed.
    PinholeUsed = 4,
    /// It ended without (or before) a last use.
    PinholeClosed = 5,
    /// A SYN from `remote` to `local` was denied.
    SynDenied = 6,
    /// A connect() by `tgid` to `remote` was refused.
    ConnectRefused = 7,
    /// A SYN from `local` to `remote` was denied on its way out.
    EgressDenied = 8,
    /// A guarded ftpd listens on `local` and no session could be named (rule P4).
    Unattributed = 9,
    /// Other software listens on `local`, in the declared range (rule I4).
    ForeignListener = 10,
    /// A guarded ftpd opened a listener on `local`. Only with `Tracking::Text`, where no
    /// pinhole says so.
    ListenerOpened = 11,
    /// A process that descends from no known one, `tgid`, reads a control connection: it was
    /// started by a service manager. Its ancestors may belong to the ftpd too (rule F2).
    ReaderFound = 12,
}

impl EventKind {
    /// The kind with this number.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::SessionOpened,
            2 => Self::SessionClosed,
            3 => Self::PinholeMade,
            4 => Self::PinholeUsed,
            5 => Self::PinholeClosed,
            6 => Self::SynDenied,
            7 => Self::ConnectRefused,
            8 => Self::EgressDenied,
            9 => Self::Unattributed,
            10 => Self::ForeignListener,
            11 => Self::ListenerOpened,
            12 => Self::ReaderFound,
            _ => return None,
        })
    }
}

/// One captured piece of a segment of a control connection.
///
/// A segment larger than [`MAX_CAPTURE`] comes in several pieces, in order.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct ControlHeader {
    /// The control connection.
    pub session: SessionKey,
    /// The TCP sequence number of the first byte of this piece (of SYN or FIN where the piece
    /// is empty).
    pub sequence: u32,
    /// The segment's acknowledgment number: the next byte its sender expects from the other
    /// side. What the ftpd's host acknowledges it has accepted.
    pub acknowledgment: u32,
    /// How many bytes of the stream this piece covers.
    pub length: u32,
    /// How many of them follow this header. Fewer than `length` leaves a gap.
    pub captured: u32,
    /// A number of [`Direction`].
    pub direction: u16,
    /// The TCP flags of the segment, as in byte 13 of its header.
    pub flags: u16,
}

impl ControlHeader {
    /// What the segment's sender has accepted of the other side's stream, if it says so: the
    /// number after it (RFC 9293 section 3.1). A RST answers what belongs to no connection.
    #[must_use]
    pub const fn accepted(&self) -> Option<u32> {
        const ACK: u16 = 0x10;
        const RST: u16 = 0x04;
        if self.flags & (ACK | RST) == ACK {
            Some(self.acknowledgment)
        } else {
            None
        }
    }
}

/// The most bytes that one [`ControlHeader`] carries.
pub const MAX_CAPTURE: usize = 4096;

/// How many bytes of the stream a fragment of a segment may stand for: no IP packet is longer.
pub const FRAGMENT_LENGTH: u32 = 1 << 16;

/// The most pieces that one segment is cut into.
pub const MAX_PIECES: usize = 16;

/// Which way control bytes went.
#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Client to ftpd: commands.
    ToServer = 0,
    /// ftpd to client: replies.
    ToClient = 1,
}

/// How many denials one CPU may still tell one by one: the value of `EVENT_BUDGET`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct EventBudget {
    /// Of each kind, by the number of [`crate::verdict::Attack`]; the last is never used.
    pub left: [u32; 4],
    /// Says which second it is, and which sources share a place in `TOLD`. Random, so that
    /// nobody can choose an address that always shares another's.
    pub salt: u32,
    /// Zero.
    pub pad: u32,
}

/// How many denials one CPU has told of the sources that share this place: a value of `TOLD`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Told {
    /// [`EventBudget::salt`] while they were counted.
    pub salt: u32,
    /// How many.
    pub count: u32,
}

/// How many places for sources there are for each kind of attack: a power of two.
pub const SOURCES: u32 = 1_024;
/// How many denials of one source are told one by one each second (rule I6).
pub const TOLD_PER_SOURCE: u32 = 10;

const _: () = {
    assert!(size_of::<EventBudget>() == 24);
    assert!(size_of::<Told>() == 8);
    assert!(size_of::<Event>() == 72);
    assert!(size_of::<ControlHeader>() == 56);
};
