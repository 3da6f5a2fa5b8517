//! What happened, as people and programs read it.
//!
//! The kernel side's [`Event`] becomes a [`Happening`]; the daemon's own findings are
//! `Happening`s from the start. Each has one human line (its `Display`) and one JSON object,
//! whose field names are stable.

use std::{borrow::Cow, fmt, net::IpAddr};

use ftpguard_common::{
    abi::{Mode, Origin, SessionKey},
    event::{Event, EventKind},
    net::{Address, Port, socket_addr},
    verdict::Reason,
};
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

impl fmt::Display for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (client, server) = (Address::from(self.client), Address::from(self.server));
        write!(
            f,
            "{} -> {}",
            socket_addr(client, Port::new(self.client_port)),
            socket_addr(server, Port::new(self.port))
        )
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

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.client, end(self.server, self.port))
    }
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
    /// Denials that were counted, and not told one by one.
    DenialsNotTold {
        /// How many.
        count: u64,
    },
    /// Events that were lost because nobody read them in time.
    EventsLost {
        /// How many.
        count: u64,
    },
}

/// Why a pinhole ended without a last use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its listener or its control connection closed.
    Closed,
    /// A later command of its session took its place (rule C6).
    Replaced,
    /// REIN or QUIT ended it (rule C7).
    Revoked,
    /// It outlived the backstop time (rule K5).
    Expired,
}

impl Ending {
    /// The name in events.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Replaced => "replaced",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }
}

/// Why an announced port gets no pinhole from text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phantom {
    /// Nobody listens there, or not the session's ftpd.
    NoListener,
    /// The listener serves another session.
    OtherSession,
    /// The port is below 1024.
    LowPort,
}

impl Phantom {
    /// The name in events.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoListener => "no-listener",
            Self::OtherSession => "other-session",
            Self::LowPort => "low-port",
        }
    }
}

/// Something about a session's dialogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remark {
    /// TLS started: the text is no longer read (rule C8).
    Encrypted,
    /// The captured bytes contradict themselves or lack a part: the text is no longer read
    /// (rule S2).
    Untrusted,
    /// Replies and commands cannot be matched (rule S9).
    Desynchronised,
    /// A command that EPSV ALL forbids (rule C5).
    ProtocolViolation,
    /// The server speaks something else than FTP.
    NotFtp,
}

impl Remark {
    /// The name in events.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Encrypted => "encrypted",
            Self::Untrusted => "untrusted",
            Self::Desynchronised => "desynchronised",
            Self::ProtocolViolation => "protocol-violation",
            Self::NotFtp => "not-ftp",
        }
    }
}

/// Reads one event as the kernel side wrote it. `None` for a record of another size.
#[must_use]
pub fn read_event(record: &[u8]) -> Option<Event> {
    bytemuck::try_pod_read_unaligned(record).ok()
}

impl Happening {
    /// What a kernel event says. `None` where its kind, reason or origin is not known here.
    #[must_use]
    pub fn from_event(event: &Event) -> Option<Self> {
        let kind = EventKind::from_number(event.kind)?;
        let ends = Ends {
            client: event.remote.ip(),
            client_port: event.remote_port.number(),
            server: event.local.ip(),
            port: event.local_port.number(),
        };
        let way = Way {
            client: ends.client,
            server: ends.server,
            port: ends.port,
        };
        let pid = event.tgid;
        let reason = || Reason::from_number(event.reason).map(|reason| reason.label().into());
        let mode: Word = mode_label(event.mode).into();
        Some(match kind {
            EventKind::SessionOpened => Self::SessionOpened(ends),
            EventKind::SessionClosed => Self::SessionClosed(ends),
            EventKind::PinholeMade => Self::PinholeMade {
                way,
                origin: Origin::from_number(event.origin)?.label().into(),
            },
            EventKind::PinholeUsed => Self::PinholeUsed {
                way,
                client_port: ends.client_port,
            },
            EventKind::PinholeClosed => Self::PinholeClosed {
                way,
                reason: Ending::Closed.label().into(),
            },
            EventKind::SynDenied => Self::SynDenied {
                way,
                client_port: ends.client_port,
                reason: reason()?,
                mode,
                open_for: Vec::new(),
            },
            EventKind::ConnectRefused => Self::ConnectRefused {
                destination: ends.client,
                port: ends.client_port,
                pid,
                reason: reason()?,
                mode,
            },
            EventKind::EgressDenied => Self::EgressDenied {
                destination: ends.client,
                port: ends.client_port,
                server: ends.server,
                server_port: ends.port,
                reason: reason()?,
                mode,
            },
            EventKind::Unattributed => Self::Unattributed {
                server: ends.server,
                port: ends.port,
                pid,
            },
            EventKind::ReaderFound => Self::ReaderFound {
                client: ends.client,
                client_port: ends.client_port,
                pid,
            },
            EventKind::ForeignListener => Self::ForeignListener {
                server: ends.server,
                port: ends.port,
                pid,
            },
            EventKind::ListenerOpened => Self::ListenerOpened {
                server: ends.server,
                port: ends.port,
                pid,
            },
        })
    }

    /// Whether anybody on the network can cause this as often as he likes.
    #[must_use]
    pub const fn is_denial(&self) -> bool {
        matches!(
            self,
            Self::SynDenied { .. } | Self::ConnectRefused { .. } | Self::EgressDenied { .. }
        )
    }
}

/// The mode's name, `enforce` for any number but that of monitor.
#[must_use]
pub const fn mode_label(number: u32) -> &'static str {
    if number == Mode::Monitor as u32 {
        "monitor"
    } else {
        "enforce"
    }
}

impl fmt::Display for Happening {
    #[expect(clippy::too_many_lines, reason = "one arm for each kind")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SessionOpened(ends) => write!(f, "session opened {ends}"),
            Self::SessionAdopted(ends) => write!(f, "session adopted {ends}"),
            Self::SessionClosed(ends) => write!(f, "session closed {ends}"),
            Self::PinholeMade { way, origin } => write!(f, "pinhole made {way} ({origin})"),
            Self::PinholeUsed { way, client_port } => write!(
                f,
                "pinhole used {} -> {}",
                end(way.client, *client_port),
                end(way.server, way.port)
            ),
            Self::PinholeClosed { way, reason } => write!(f, "pinhole closed {way} ({reason})"),
            Self::SynDenied {
                way,
                client_port,
                reason,
                mode,
                open_for,
            } => {
                write!(
                    f,
                    "SYN {} {} -> {}: {reason}",
                    effect(mode, "denied"),
                    end(way.client, *client_port),
                    end(way.server, way.port)
                )?;
                for (place, client) in open_for.iter().enumerate() {
                    let before = if place == 0 {
                        ", the port is open for "
                    } else {
                        ", "
                    };
                    write!(f, "{before}{client}")?;
                }
                Ok(())
            }
            Self::ConnectRefused {
                destination,
                port,
                pid,
                reason,
                mode,
            } => write!(
                f,
                "connect {} -> {} (pid {pid}): {reason}",
                effect(mode, "refused"),
                end(*destination, *port)
            ),
            Self::EgressDenied {
                destination,
                port,
                server,
                server_port,
                reason,
                mode,
            } => write!(
                f,
                "outgoing SYN {} {} -> {}: {reason}",
                effect(mode, "denied"),
                end(*server, *server_port),
                end(*destination, *port)
            ),
            Self::Unattributed { server, port, pid } => write!(
                f,
                "listener not attributed {} (pid {pid}): open to every client with a session",
                end(*server, *port)
            ),
            Self::ReaderFound {
                client,
                client_port,
                pid,
            } => write!(
                f,
                "process {pid} found serving {}",
                end(*client, *client_port)
            ),
            Self::ForeignListener { server, port, pid } => {
                write!(
                    f,
                    "foreign listener in the passive range {}",
                    end(*server, *port)
                )?;
                if *pid != 0 {
                    write!(f, " (pid {pid})")?;
                }
                f.write_str(": left alone")
            }
            Self::ListenerOpened { server, port, pid } => {
                write!(f, "listener opened {} (pid {pid})", end(*server, *port))
            }
            Self::PhantomPort { way, reason } => {
                write!(f, "announced port gets no pinhole {way}: {reason}")
            }
            Self::TextMismatch { way, announced } => write!(
                f,
                "reply names port {announced}, the sockets say {way}: the sockets count"
            ),
            Self::ForeignPortRequest {
                ends,
                requested,
                requested_port,
            } => write!(
                f,
                "session {ends} asks for a data connection to {}",
                end(*requested, *requested_port)
            ),
            Self::Dialogue { ends, remark } => write!(f, "session {ends}: {remark}"),
            Self::DenialsNotTold { count } => {
                write!(f, "{count} more denials, not told one by one")
            }
            Self::EventsLost { count } => write!(f, "{count} events lost"),
        }
    }
}

fn end(address: IpAddr, port: u16) -> impl fmt::Display {
    socket_addr(address.into(), Port::new(port))
}

/// What happened, or in monitor mode would have.
fn effect(mode: &str, done: &'static str) -> Cow<'static, str> {
    if mode == "monitor" {
        format!("would be {done}").into()
    } else {
        done.into()
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::{Zeroable, bytes_of};

    use super::*;

    fn event(kind: EventKind) -> Event {
        Event {
            kind: kind as u32,
            session: 7,
            tgid: 4242,
            origin: Origin::Exact as u32,
            reason: Reason::NoPinhole as u32,
            mode: Mode::Enforce as u32,
            remote: Address::from(IpAddr::from([10, 0, 0, 2])),
            remote_port: Port::new(4711),
            local: Address::from(IpAddr::from([10, 0, 0, 1])),
            local_port: Port::new(21),
            ..Event::zeroed()
        }
    }

    #[test]
    fn an_event_is_read_at_any_alignment_and_only_whole() {
        let event = event(EventKind::SessionOpened);
        let mut bytes = vec![0];
        bytes.extend_from_slice(bytes_of(&event));
        assert_eq!(read_event(&bytes[1..]), Some(event));
        for short in 1..bytes.len() {
            assert_eq!(read_event(&bytes[1..short]), None, "{short}");
        }
        bytes.push(0);
        assert_eq!(read_event(&bytes[1..]), None);
    }

    #[test]
    fn unknown_numbers_are_not_guessed() {
        let mut unknown = event(EventKind::SessionOpened);
        for kind in [0, EventKind::ReaderFound as u32 + 1, u32::MAX] {
            unknown.kind = kind;
            assert_eq!(Happening::from_event(&unknown), None);
        }
        let mut denied = event(EventKind::SynDenied);
        denied.reason = u32::MAX;
        assert_eq!(Happening::from_event(&denied), None);
        let mut made = event(EventKind::PinholeMade);
        made.origin = 0;
        assert_eq!(Happening::from_event(&made), None);
    }

    #[test]
    fn each_kind_has_its_line_and_its_object() {
        let v6 = |mut event: Event| {
            event.remote = Address::from(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 2]));
            event.local = Address::from(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]));
            event
        };
        let monitor = |mut event: Event| {
            event.mode = Mode::Monitor as u32;
            event
        };
        for (event, line, json) in [
            (
                event(EventKind::SessionOpened),
                "session opened 10.0.0.2:4711 -> 10.0.0.1:21",
                r#"{"time":5,"event":"session-opened","client":"10.0.0.2","client_port":4711,"server":"10.0.0.1","port":21}"#,
            ),
            (
                v6(event(EventKind::SessionClosed)),
                "session closed [2001:db8::2]:4711 -> [2001:db8::1]:21",
                r#"{"time":5,"event":"session-closed","client":"2001:db8::2","client_port":4711,"server":"2001:db8::1","port":21}"#,
            ),
            (
                event(EventKind::PinholeMade),
                "pinhole made 10.0.0.2 -> 10.0.0.1:21 (exact)",
                r#"{"time":5,"event":"pinhole-made","client":"10.0.0.2","server":"10.0.0.1","port":21,"origin":"exact"}"#,
            ),
            (
                event(EventKind::PinholeUsed),
                "pinhole used 10.0.0.2:4711 -> 10.0.0.1:21",
                r#"{"time":5,"event":"pinhole-used","client":"10.0.0.2","server":"10.0.0.1","port":21,"client_port":4711}"#,
            ),
            (
                event(EventKind::PinholeClosed),
                "pinhole closed 10.0.0.2 -> 10.0.0.1:21 (closed)",
                r#"{"time":5,"event":"pinhole-closed","client":"10.0.0.2","server":"10.0.0.1","port":21,"reason":"closed"}"#,
            ),
            (
                event(EventKind::SynDenied),
                "SYN denied 10.0.0.2:4711 -> 10.0.0.1:21: no-pinhole",
                r#"{"time":5,"event":"syn-denied","client":"10.0.0.2","server":"10.0.0.1","port":21,"client_port":4711,"reason":"no-pinhole","mode":"enforce","open_for":[]}"#,
            ),
            (
                monitor(event(EventKind::ConnectRefused)),
                "connect would be refused -> 10.0.0.2:4711 (pid 4242): no-pinhole",
                r#"{"time":5,"event":"connect-refused","destination":"10.0.0.2","port":4711,"pid":4242,"reason":"no-pinhole","mode":"monitor"}"#,
            ),
            (
                event(EventKind::EgressDenied),
                "outgoing SYN denied 10.0.0.1:21 -> 10.0.0.2:4711: no-pinhole",
                r#"{"time":5,"event":"egress-denied","destination":"10.0.0.2","port":4711,"server":"10.0.0.1","server_port":21,"reason":"no-pinhole","mode":"enforce"}"#,
            ),
            (
                event(EventKind::Unattributed),
                "listener not attributed 10.0.0.1:21 (pid 4242): open to every client with a session",
                r#"{"time":5,"event":"unattributed","server":"10.0.0.1","port":21,"pid":4242}"#,
            ),
            (
                event(EventKind::ReaderFound),
                "process 4242 found serving 10.0.0.2:4711",
                r#"{"time":5,"event":"reader-found","client":"10.0.0.2","client_port":4711,"pid":4242}"#,
            ),
            (
                event(EventKind::ForeignListener),
                "foreign listener in the passive range 10.0.0.1:21 (pid 4242): left alone",
                r#"{"time":5,"event":"foreign-listener","server":"10.0.0.1","port":21,"pid":4242}"#,
            ),
            (
                event(EventKind::ListenerOpened),
                "listener opened 10.0.0.1:21 (pid 4242)",
                r#"{"time":5,"event":"listener-opened","server":"10.0.0.1","port":21,"pid":4242}"#,
            ),
        ] {
            let what = Happening::from_event(&event).expect(line);
            assert_eq!(what.to_string(), line);
            let record = Record { time: 5, what };
            assert_eq!(serde_json::to_string(&record).expect(line), json);
            assert_eq!(serde_json::from_str::<Record>(json).expect(line), record);
        }
    }

    #[test]
    fn a_theft_names_the_victim() {
        let mut what = Happening::from_event(&event(EventKind::SynDenied)).expect("denied");
        if let Happening::SynDenied { open_for, .. } = &mut what {
            *open_for = vec![[10, 0, 0, 7].into(), [10, 0, 0, 8].into()];
        }
        assert_eq!(
            what.to_string(),
            "SYN denied 10.0.0.2:4711 -> 10.0.0.1:21: no-pinhole, \
             the port is open for 10.0.0.7, 10.0.0.8"
        );
        assert!(what.is_denial());
    }
}
