//! What happened, as people and programs read it.
//!
//! The kernel side's [`Event`] becomes a [`Happening`]; the daemon's own findings are
//! `Happening`s from the start. Each has one human line (its `Display`) and one JSON object,
//! whose field names are stable.

mod display;
mod labels;
mod read;

use std::{borrow::Cow, net::IpAddr};

#[cfg(doc)]
use ftpguard_common::{
    abi::Origin,
    event::Event,
    verdict::{Incident, Reason},
};
use ftpguard_common::{abi::SessionKey, verdict::Attack};
pub use labels::{Ending, Phantom, Remark};
pub use read::{mode_label, read_event};
use serde::{Deserialize, Serialize};

/// A word from a closed list: static where it is made, owned where it was read from JSON.
pub type Word = Cow<'static, str>;

/// One thing that happened, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Milliseconds since 1970-01-01 00:00 UTC.
    pub time: u64,
    /// What.
    #[serde(flatten)]
    pub what: Happening,
}

/// Both ends of a control connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ends {
    /// The FTP client.
    pub client: IpAddr,
    /// Its port.
    pub client_port: u16,
    /// The ftpd's address.
    pub server: IpAddr,
    /// The control port.
    pub port: u16,
}

impl From<&SessionKey> for Ends {
    fn from(key: &SessionKey) -> Self {
        Self {
            client: key.client.ip(),
            client_port: key.client_port.number(),
            server: key.server.ip(),
            port: key.server_port.number(),
        }
    }
}

/// Which client may reach which address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Way {
    /// The FTP client.
    pub client: IpAddr,
    /// The ftpd's address.
    pub server: IpAddr,
    /// The data port.
    pub port: u16,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Happening {
    /// A control connection was established.
    SessionOpened(Ends),
    /// A control connection that was open already when the guard started (rule K10).
    SessionAdopted(Ends),
    /// A control connection was closed.
    SessionClosed(Ends),
    /// A client may reach a port.
    PinholeMade {
        /// Who and where.
        #[serde(flatten)]
        way: Way,
        /// Who made it: a label of [`Origin`].
        origin: Word,
    },
    /// The data connection of a pinhole was established.
    PinholeUsed {
        /// Who and where.
        #[serde(flatten)]
        way: Way,
        /// The client's port of the data connection.
        client_port: u16,
    },
    /// A pinhole ended without a last use.
    PinholeClosed {
        /// Who and where.
        #[serde(flatten)]
        way: Way,
        /// Why: a label of [`Ending`].
        reason: Word,
    },
    /// A SYN was denied.
    SynDenied {
        /// Who and where.
        #[serde(flatten)]
        way: Way,
        /// The source port.
        client_port: u16,
        /// A label of [`Reason`].
        reason: Word,
        /// What it is a sign of: a label of [`Attack`].
        attack: Word,
        /// `monitor` where it passed all the same.
        mode: Word,
        /// The clients for which the port is open: the SYN would have taken their transfer.
        open_for: Vec<IpAddr>,
    },
    /// A `connect()` of the ftpd was refused.
    ConnectRefused {
        /// Where to.
        destination: IpAddr,
        /// The destination's port.
        port: u16,
        /// The process.
        pid: u32,
        /// A label of [`Reason`].
        reason: Word,
        /// `monitor` where it went on all the same.
        mode: Word,
    },
    /// A SYN of the ftpd was denied on its way out.
    EgressDenied {
        /// Where to.
        destination: IpAddr,
        /// The destination's port.
        port: u16,
        /// Its source.
        server: IpAddr,
        /// Its source port.
        server_port: u16,
        /// A label of [`Reason`].
        reason: Word,
        /// `monitor` where it passed all the same.
        mode: Word,
    },
    /// A guarded ftpd listens, and no session could be named for it (rule P4).
    Unattributed {
        /// The listener's address.
        server: IpAddr,
        /// The listener's port.
        port: u16,
        /// The process.
        pid: u32,
    },
    /// A process that a service manager started serves a session (rule F2).
    ReaderFound {
        /// The client it serves.
        client: IpAddr,
        /// The client's port.
        client_port: u16,
        /// The process.
        pid: u32,
    },
    /// Other software listens in the declared passive range (rule I4).
    ForeignListener {
        /// The listener's address.
        server: IpAddr,
        /// The listener's port.
        port: u16,
        /// The process, 0 where it is not known.
        pid: u32,
    },
    /// A guarded ftpd listens (text tracking).
    ListenerOpened {
        /// The listener's address.
        server: IpAddr,
        /// The listener's port.
        port: u16,
        /// The process.
        pid: u32,
    },
    /// A reply announced a port on which the session's ftpd does not listen (rule R8).
    PhantomPort {
        /// Who and where.
        #[serde(flatten)]
        way: Way,
        /// Why it gets no pinhole: a label of [`Phantom`].
        reason: Word,
    },
    /// A reply announced another port than the one the session's ftpd listens on (rule R9).
    TextMismatch {
        /// Who, and the port that the sockets show.
        #[serde(flatten)]
        way: Way,
        /// The port that the text names.
        announced: u16,
    },
    /// A client asked the ftpd to connect to somebody else (rule C4).
    ForeignPortRequest {
        /// The session.
        #[serde(flatten)]
        ends: Ends,
        /// The address that the command names.
        requested: IpAddr,
        /// The port that the command names.
        requested_port: u16,
    },
    /// Something about a session's dialogue that has no fields of its own.
    Dialogue {
        /// The session.
        #[serde(flatten)]
        ends: Ends,
        /// What: a label of [`Remark`].
        remark: Word,
    },
    /// Newcomers were left out: a table is full, or a client has had its share (rule K9).
    OutOfRoom {
        /// What there is no room in: a label of [`Incident`].
        what: Word,
        /// How often in the last second.
        count: u64,
    },
    /// An interface that appeared is guarded now.
    InterfaceGuarded {
        /// Its name.
        interface: String,
        /// Where SYNs that come in are judged.
        ingress: Word,
        /// Where SYNs that leave are judged.
        egress: Word,
    },
    /// An interface that appeared, or lost its gates, has no early gate; the last gate judges.
    InterfaceUnguarded {
        /// Its name.
        interface: String,
        /// Why, and what would help.
        reason: Word,
    },
    /// A guarded interface is gone.
    InterfaceGone {
        /// Its name.
        interface: String,
    },
    /// Somebody detached a program of the guard.
    GateLost {
        /// The interface, where it sat on one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        interface: Option<String>,
        /// The hook.
        hook: Word,
    },
    /// The file was read again.
    ConfigurationReloaded {
        /// The keys whose values are new, with blanks between them.
        changed: String,
    },
    /// The mode was switched while the guard runs.
    ModeSwitched {
        /// `monitor` or `enforce`.
        mode: Word,
    },
    /// All clients have one address that cannot be theirs: nothing is enforced (rule I8).
    EnforcementRefused {
        /// The address.
        client: IpAddr,
        /// Why, and what would help.
        reason: Word,
    },
    /// A client with an address of its own came: denials take effect again.
    EnforcementResumed {},
    /// Denials that were counted, and not told one by one.
    DenialsNotTold {
        /// How many.
        count: u64,
    },
    /// Other events that were not told: one client, or all together, caused too many.
    EventsNotTold {
        /// How many.
        count: u64,
    },
    /// Events that were lost because nobody read them in time.
    EventsLost {
        /// How many.
        count: u64,
    },
    /// Pieces of control connections that were lost because nobody read them in time: no text is
    /// believed until it has been quiet (rule S9).
    ControlBytesLost {
        /// How many.
        count: u64,
    },
}

impl Happening {
    /// The client whose words it tells of.
    #[must_use]
    pub fn speaker(&self) -> Option<IpAddr> {
        if let Self::ForeignPortRequest { ends, .. } | Self::Dialogue { ends, .. } = self {
            return Some(ends.client);
        }
        if let Self::PhantomPort { way, .. } | Self::TextMismatch { way, .. } = self {
            return Some(way.client);
        }
        None
    }

    /// What a denial is a sign of, and whose it is. Anybody on the network can cause denials as
    /// often as he likes; everything else has none.
    #[must_use]
    pub fn attack(&self) -> Option<(Attack, IpAddr)> {
        if let Self::SynDenied { way, attack, .. } = self {
            return Some((Attack::from_label(attack)?, way.client));
        }
        if let Self::ConnectRefused { destination, .. } | Self::EgressDenied { destination, .. } =
            self
        {
            return Some((Attack::Bounce, *destination));
        }
        None
    }
}

#[cfg(test)]
mod tests;
