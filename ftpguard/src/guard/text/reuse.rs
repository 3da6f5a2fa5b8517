//! Listeners that an ftpd keeps and announces again (rule F4).
//!
//! The socket observer makes a pinhole inside listen(), and it is used up by the first data
//! connection. Where the ftpd announces the same listener once more there is no listen() to see;
//! then the reply makes the next pinhole, for the session that the listener belongs to by its
//! sockets (rule P1). The client may be faster than the daemon, and send its first SYN twice.

use std::collections::{HashMap, HashSet};

use ftpguard_common::{
    abi::{Origin, SessionKey},
    net::Port,
};

use super::{Guard, find_listener};
use crate::{
    config::TrackingArg,
    kernel::{KernelError, Maps},
};

/// How often each session's ports were announced, and pinholes made for it.
#[derive(Default)]
pub(super) struct Reuse {
    sessions: HashMap<SessionKey, Counts>,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    announced: u64,
    made: u64,
    /// The latest port, until it has been looked at.
    port: Option<Port>,
}

impl Reuse {
    /// A reply announced a port.
    pub(super) fn announced(&mut self, session: SessionKey, port: Port) {
        let counts = self.sessions.entry(session).or_default();
        counts.announced += 1;
        counts.port = Some(port);
    }

    /// The observer made a pinhole.
    pub(super) fn made(&mut self, session: SessionKey) {
        self.sessions.entry(session).or_default().made += 1;
    }

    /// Nothing is due any more.
    fn settle(&mut self, session: &SessionKey) {
        if let Some(counts) = self.sessions.get_mut(session) {
            counts.made = counts.announced;
        }
    }

    pub(super) fn forget(&mut self, session: &SessionKey) {
        self.sessions.remove(session);
    }

    /// Forgets every session that is not among these.
    pub(super) fn keep(&mut self, open: &HashSet<SessionKey>) {
        self.sessions.retain(|key, _| open.contains(key));
    }

    /// Sessions with more announcements than pinholes, and the port announced last. From now on
    /// both counts are even.
    fn take(&mut self) -> Vec<(SessionKey, Port)> {
        self.sessions
            .iter_mut()
            .filter_map(|(key, counts)| {
                let port = counts.port.take()?;
                let more = counts.announced > counts.made;
                // Listeners that were never announced make up for nothing later.
                counts.made = counts.announced;
                more.then_some((*key, port))
            })
            .collect()
    }
}

impl Guard {
    /// Makes pinholes for listeners that were announced again. Both rings are read: a pinhole
    /// that the observer made before the reply is known.
    pub(in crate::guard) fn rearm(&mut self) -> Result<(), KernelError> {
        for (key, port) in self.text.reuse.take() {
            // There every announcement makes a pinhole.
            if self.config.tracking == TrackingArg::Text {
                continue;
            }
            let maps = &self.kernel.maps;
            let Some(session) = Maps::find(&maps.sessions, &key)? else {
                continue;
            };
            let Some((_, listener)) = find_listener(maps, key.server, port)? else {
                continue;
            };
            let open = Maps::find(&maps.pinholes, &key.pinhole(port))?.is_some();
            if listener.session == session.id && listener.socket != 0 && !open {
                self.open(&key, port, Origin::Text)?;
                self.text.reuse.settle(&key);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ftpguard_common::net::Address;

    use super::*;

    fn session(client_port: u16) -> SessionKey {
        SessionKey {
            client: Address::from(std::net::IpAddr::from([10, 0, 0, 2])),
            server: Address::from(std::net::IpAddr::from([10, 0, 0, 1])),
            client_port: Port::new(client_port),
            server_port: Port::new(21),
        }
    }

    #[test]
    fn f4_only_an_announcement_without_a_listen_counts() {
        let (one, other) = (session(1), session(2));
        let mut reuse = Reuse::default();
        let port = Port::new(50_000);
        reuse.made(one);
        reuse.announced(one, port);
        reuse.made(other);
        assert!(reuse.take().is_empty());
        // Announced twice in what was read at once.
        reuse.made(one);
        reuse.announced(one, port);
        reuse.announced(one, port);
        assert_eq!(reuse.take(), [(one, port)]);
        assert!(reuse.take().is_empty());
        reuse.announced(one, port);
        assert_eq!(reuse.take(), [(one, port)]);
        reuse.keep(&HashSet::from([other]));
        reuse.made(one);
        reuse.announced(one, port);
        assert!(reuse.take().is_empty());
    }
}
