//! What the daemon remembers of the kernel's events: names for sessions, and whom each data
//! port is open for. The maps are the truth; this answers without asking them.

mod origins;

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    net::IpAddr,
};

use ftpguard_common::{
    abi::{Pinhole, PinholeKey, SessionKey},
    event::{Event, EventKind},
    net::{Address, Port},
};
use serde::{Deserialize, Serialize};

pub use self::origins::{OriginCounts, Origins};
use crate::kernel::{Kernel, Maps};

/// What happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Control connections, adopted ones included.
    pub sessions: u64,
    /// Pinholes made.
    pub pinholes_made: u64,
    /// Pinholes whose data connection came.
    pub pinholes_used: u64,
    /// Records of the kernel side that made no sense here.
    pub unreadable: u64,
    /// Control connections whose text was not read, because too many others were.
    #[serde(default)]
    pub unread: u64,
    /// Commands that name a data port and whose argument could not be read (rule C1).
    #[serde(default)]
    pub malformed_arguments: u64,
}

/// What the daemon remembers.
#[derive(Debug, Default)]
pub struct State {
    sessions: HashMap<u64, SessionKey>,
    open_for: HashMap<(Address, Port), Vec<Address>>,
    has_changed: bool,
    /// What happened since the start.
    pub tally: Tally,
    /// How surely each ftpd's listeners were attributed.
    pub origins: Origins,
}

impl State {
    /// Every control connection that is open.
    #[must_use]
    pub fn open_sessions(&self) -> HashSet<SessionKey> {
        self.sessions.values().copied().collect()
    }

    /// Follows one event of the kernel side.
    pub fn follow(&mut self, event: &Event) {
        let Some(kind) = EventKind::from_number(event.kind) else {
            return;
        };
        match kind {
            EventKind::SessionOpened => self.session_opened(event.session, session_key(event)),
            EventKind::SessionClosed => self.session_closed(event.session),
            EventKind::PinholeMade => {
                if let Some(session) = self.sessions.get(&event.session) {
                    self.origins.made(session.server_port, event.origin);
                }
                self.tally.pinholes_made += 1;
                self.remember_pinhole(&pinhole_key(event));
            }
            EventKind::PinholeUsed => {
                self.tally.pinholes_used += 1;
                self.pinhole_gone(&pinhole_key(event));
            }
            EventKind::PinholeClosed => self.pinhole_gone(&pinhole_key(event)),
            EventKind::SynDenied
            | EventKind::ConnectRefused
            | EventKind::EgressDenied
            | EventKind::Unattributed
            | EventKind::ForeignListener
            | EventKind::ReaderFound
            | EventKind::ListenerOpened => {}
        }
    }

    /// Whether any control connection is open.
    #[must_use]
    pub fn has_sessions(&self) -> bool {
        !self.sessions.is_empty()
    }

    /// The control connection with this id.
    #[must_use]
    pub fn session(&self, id: u64) -> Option<SessionKey> {
        self.sessions.get(&id).copied()
    }

    /// A control connection is known from now on.
    pub fn session_opened(&mut self, id: u64, key: SessionKey) {
        self.tally.sessions += 1;
        self.sessions.insert(id, key);
    }

    /// A control connection is closed.
    pub fn session_closed(&mut self, id: u64) {
        self.sessions.remove(&id);
    }

    /// A pinhole that the daemon made is open from now on.
    pub fn pinhole_made(&mut self, key: &PinholeKey, pinhole: &Pinhole) {
        self.tally.pinholes_made += 1;
        self.origins.made(pinhole.server_port, pinhole.origin);
        self.remember_pinhole(key);
    }

    /// Whether pinholes came or went since the last call.
    pub fn has_changed(&mut self) -> bool {
        std::mem::take(&mut self.has_changed)
    }

    /// Makes [`Self::has_changed`] true.
    pub fn touch(&mut self) {
        self.has_changed = true;
    }

    /// Every client and port of a live pinhole.
    #[must_use]
    pub fn ways(&self) -> HashSet<(Address, Port)> {
        self.open_for
            .iter()
            .flat_map(|((_, port), clients)| clients.iter().map(|client| (*client, *port)))
            .collect()
    }

    /// A pinhole is open no longer.
    pub fn pinhole_gone(&mut self, key: &PinholeKey) {
        self.has_changed = true;
        if let Entry::Occupied(mut clients) = self.open_for.entry((key.server, key.port)) {
            clients.get_mut().retain(|client| *client != key.client);
            if clients.get().is_empty() {
                clients.remove();
            }
        }
    }

    /// The clients for which a port is open.
    #[must_use]
    pub fn open_for(&self, server: Address, port: Port) -> Vec<IpAddr> {
        self.open_for
            .get(&(server, port))
            .map(|clients| clients.iter().map(|client| client.ip()).collect())
            .unwrap_or_default()
    }

    /// Forgets everything and reads it again from the maps: after events were lost.
    pub fn reload(&mut self, kernel: &Kernel) {
        self.sessions = Maps::entries(&kernel.maps.sessions)
            .into_iter()
            .map(|(key, session)| (session.id, key))
            .collect();
        self.open_for.clear();
        self.has_changed = true;
        for (key, _) in Maps::entries(&kernel.maps.pinholes) {
            self.remember_pinhole(&key);
        }
    }

    fn remember_pinhole(&mut self, key: &PinholeKey) {
        self.has_changed = true;
        let clients = self.open_for.entry((key.server, key.port)).or_default();
        if !clients.contains(&key.client) {
            clients.push(key.client);
        }
    }
}

/// The control connection that an event names.
#[must_use]
pub fn session_key(event: &Event) -> SessionKey {
    SessionKey {
        client: event.remote,
        server: event.local,
        client_port: event.remote_port,
        server_port: event.local_port,
    }
}

/// The pinhole that an event names.
#[must_use]
pub fn pinhole_key(event: &Event) -> PinholeKey {
    PinholeKey {
        client: event.remote,
        server: event.local,
        port: event.local_port,
        pad: 0,
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;

    fn pinhole_event(kind: EventKind, client: u8) -> Event {
        Event {
            kind: kind as u32,
            remote: Address::from(IpAddr::from([10, 0, 0, client])),
            local: Address::from(IpAddr::from([10, 0, 0, 1])),
            local_port: Port::new(50_000),
            ..Event::zeroed()
        }
    }

    #[test]
    fn a_port_may_be_open_for_several_clients() {
        let mut state = State::default();
        let open = |state: &State| {
            state.open_for(
                Address::from(IpAddr::from([10, 0, 0, 1])),
                Port::new(50_000),
            )
        };
        assert!(open(&state).is_empty());
        for client in [2, 3, 3] {
            state.follow(&pinhole_event(EventKind::PinholeMade, client));
        }
        assert_eq!(
            open(&state),
            [IpAddr::from([10, 0, 0, 2]), IpAddr::from([10, 0, 0, 3])]
        );
        state.follow(&pinhole_event(EventKind::PinholeUsed, 2));
        assert_eq!(open(&state), [IpAddr::from([10, 0, 0, 3])]);
        state.follow(&pinhole_event(EventKind::PinholeClosed, 3));
        state.follow(&pinhole_event(EventKind::PinholeClosed, 3));
        assert!(open(&state).is_empty());
        assert!(state.open_for.is_empty());
        assert_eq!(
            (state.tally.pinholes_made, state.tally.pinholes_used),
            (3, 1)
        );
    }
}
