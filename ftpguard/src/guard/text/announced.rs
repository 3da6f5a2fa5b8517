//! Pinholes for announced ports that have a listener of the session's own ftpd (rules P1, R8).

use std::time::Instant;

use ftpguard_common::{
    abi::{Admission, Endpoint, Listener, Origin, Pinhole, Session, SessionKey, process_flags},
    event::Event,
    net::{Address, Port},
    verdict::Incident,
};

use super::{Guard, MAX_WAITING, PATIENCE, Waiting, way};
use crate::{
    clock,
    config::TrackingArg,
    events::{Ending, Happening, Phantom},
    kernel::{KernelError, Maps},
};

impl Guard {
    /// Text tracking: a reply announced a port.
    pub(super) fn announce(&mut self, key: &SessionKey, port: Port) -> Result<(), KernelError> {
        self.text.waiting.retain(|waiting| waiting.session != *key);
        if self.open(key, port, Origin::Text)? {
            return Ok(());
        }
        self.revoke(key, Ending::Replaced)?;
        if self.text.waiting.len() < MAX_WAITING {
            self.text.waiting.push(Waiting {
                session: *key,
                port,
                until: Instant::now() + PATIENCE,
            });
        } else {
            self.phantom(key, port, Phantom::NoListener);
        }
        Ok(())
    }

    /// Looks again for the listeners of announced ports.
    pub(in crate::guard) fn look_for_listeners(&mut self) -> Result<(), KernelError> {
        let now = Instant::now();
        for waiting in std::mem::take(&mut self.text.waiting) {
            if self.open(&waiting.session, waiting.port, Origin::Text)? {
                continue;
            }
            if waiting.until <= now {
                self.phantom(&waiting.session, waiting.port, Phantom::NoListener);
            } else {
                self.text.waiting.push(waiting);
            }
        }
        Ok(())
    }

    fn phantom(&mut self, key: &SessionKey, port: Port, why: Phantom) {
        self.journal.tell(Happening::PhantomPort {
            way: way(&key.pinhole(port)),
            reason: why.label().into(),
        });
    }

    /// Text tracking: a guarded ftpd opened a listener. Where the text of its session cannot be
    /// read, the sockets name the session if they can (rule F2): a session under TLS, or one
    /// that was picked up in the middle, is not left without.
    pub(in crate::guard) fn listener_opened(&mut self, event: &Event) -> Result<(), KernelError> {
        if !self.text.waiting.is_empty() {
            self.look_for_listeners()?;
        }
        let Some(process) = Maps::find(&self.kernel.maps.processes, &event.tgid)? else {
            return Ok(());
        };
        let exact = process.session_id != 0
            && process.flags & process_flags::SHARED == 0
            && !self.kernel.maps.may_serve_unseen(&process);
        if !exact || !self.watcher.is_unreadable(&process.session) {
            return Ok(());
        }
        self.open(&process.session, event.local_port, Origin::Exact)
            .map(drop)
    }

    /// Makes the pinhole for an announced port: every one that text asks for is made here. False
    /// while there is no listener for it.
    pub(super) fn open(
        &mut self,
        key: &SessionKey,
        port: Port,
        origin: Origin,
    ) -> Result<bool, KernelError> {
        let maps = &mut self.kernel.maps;
        let Some(session) = Maps::find(&maps.sessions, key)? else {
            return Ok(true);
        };
        // The ftpd may have such a listener, and for whom it is only text would say (rule R8).
        if port.is_low() {
            self.revoke(key, Ending::Replaced)?;
            self.phantom(key, port, Phantom::LowPort);
            return Ok(true);
        }
        let Some((endpoint, listener)) = find_listener(maps, key.server, port)? else {
            return Ok(false);
        };
        if listener.control_port == Port::NONE
            || self.config.control_ports().contains(&port.number())
            || !serves(maps, &listener, &session)?
            || is_promised(maps, &listener, &session)?
        {
            self.revoke(key, Ending::Replaced)?;
            self.phantom(key, port, Phantom::OtherSession);
            return Ok(true);
        }
        let wanted = key.pinhole(port);
        let uses = u32::from(self.config.uses);
        let pinhole = Pinhole::of(key, session.id, clock::monotonic_ns(), uses, origin);
        // The client's SYN may be on its way already: the pinhole first.
        let maps = &mut self.kernel.maps;
        if !Maps::put(&mut maps.pinholes, &wanted, &pinhole)? {
            // As in the kernel: the newcomer gets none (rule K9).
            maps.leave_out(Incident::PinholeTableFull);
            return Ok(true);
        }
        self.text.spoken_of.insert(*key, (wanted, pinhole.made_at));
        self.state.pinhole_made(&wanted, &pinhole);
        self.text.pinhole_made(*key);
        self.journal.tell(Happening::PinholeMade {
            way: way(&wanted),
            origin: origin.label().into(),
        });
        let maps = &mut self.kernel.maps;
        let admission = if listener.socket == 0 {
            listener.admission
        } else if self.config.tracking == TrackingArg::Text {
            // It may be announced again, and then needs the daemon again.
            Admission::Daemon as u16
        } else {
            Admission::Pinhole as u16
        };
        let announced = Listener {
            session: session.id,
            pinhole: wanted,
            admission,
            ..listener
        };
        maps.mark_lenient(port, &announced);
        let listener_open = Maps::change(&mut maps.listeners, &endpoint, &announced)?;
        let session_open = Maps::change(
            &mut maps.sessions,
            key,
            &Session {
                pinhole: wanted,
                ..session
            },
        )?;
        if session.pinhole.port != Port::NONE && session.pinhole != wanted {
            // One at a time (rule K4).
            self.close_pinhole(&session.pinhole, Ending::Replaced)?;
        }
        let maps = &mut self.kernel.maps;
        // Closed meanwhile, by somebody who did not find the pinhole yet.
        if !session_open
            || !listener_open
            || Maps::find(&maps.sessions, key)?.is_none()
            || Maps::find(&maps.listeners, &endpoint)?.is_none()
        {
            // Used already, most likely; what is left of it goes.
            self.close_pinhole(&wanted, Ending::Closed)?;
        }
        Ok(true)
    }
}

/// The listener that a SYN to this address and port would meet.
pub(super) fn find_listener(
    maps: &Maps,
    address: Address,
    port: Port,
) -> Result<Option<(Endpoint, Listener)>, KernelError> {
    for address in [address, Address::WILDCARD] {
        let endpoint = Endpoint::new(address, port);
        if let Some(listener) = Maps::find(&maps.listeners, &endpoint)? {
            return Ok(Some((endpoint, listener)));
        }
    }
    Ok(None)
}

/// Whether the listener may be this session's: not where sockets know for certain that its
/// process serves another one (rules P1, R9).
fn serves(maps: &Maps, listener: &Listener, session: &Session) -> Result<bool, KernelError> {
    let Some(process) = Maps::find(&maps.processes, &listener.tgid)? else {
        return Ok(true);
    };
    Ok(process.session_id == 0
        || process.session_id == session.id
        || process.flags & process_flags::SHARED != 0
        || maps.may_serve_unseen(&process))
}

/// Whether the listener was announced to another session, which has not used it yet. What that
/// session was told first is not undone by what another one's text says later: an ftpd that
/// repeats file names can be made to announce anything (threat T6).
///
/// A listener that was there before the guard may serve several clients (rule K8).
fn is_promised(maps: &Maps, listener: &Listener, session: &Session) -> Result<bool, KernelError> {
    if listener.socket == 0 || listener.session == 0 || listener.session == session.id {
        return Ok(false);
    }
    let known = Maps::find(&maps.pinholes, &listener.pinhole)?;
    Ok(known.is_some_and(|known| known.session == listener.session))
}
