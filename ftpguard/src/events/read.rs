//! What the kernel side wrote.

use ftpguard_common::{
    abi::{Mode, Origin},
    event::{Event, EventKind},
    verdict::Reason,
};

use super::{Ending, Ends, Happening, Way, Word};

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
                attack: Reason::from_number(event.reason)?.attack().label().into(),
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
