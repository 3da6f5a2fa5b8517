//! What the text of control connections changes.
//!
//! In socket tracking it labels, narrows and revokes (rule P3). In text tracking it also makes
//! pinholes, which need a listener of the session's own ftpd (rule P1) and take their address
//! from the control connection (rules P2, K3).

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::Result;
use ftpguard_common::{
    abi::{
        Admission, Advice, Endpoint, Listener, Origin, Pinhole, PinholeKey, Session, SessionKey,
        advice_flags, process_flags,
    },
    event::Event,
    ftp::{
        DialogueEvent, Opacity,
        argument::{Relation, Target},
    },
    net::{Address, Port},
};

use super::{Guard, USES};
use crate::{
    cli::TrackingArg,
    clock,
    events::{Ending, Ends, Happening, Phantom, Remark, Way},
    kernel::{KernelError, Maps},
    watcher::Beginning,
};

/// How long an announced port may wait for its listener (rule R8).
const PATIENCE: Duration = Duration::from_millis(200);
/// How often it is looked for meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// The most announced ports that wait at once.
const MAX_WAITING: usize = 1_024;

/// What text made the guard remember.
#[derive(Default)]
pub(super) struct Text {
    /// The last word of each session in the batch being read.
    last_words: HashMap<SessionKey, DialogueEvent>,
    /// Announced ports without a listener so far.
    waiting: Vec<Waiting>,
    /// The pinhole that the text of a session last spoke of, as it was then.
    spoken_of: HashMap<SessionKey, (PinholeKey, u64)>,
    /// Sessions whose active mode is narrowed to one port (rule O10), and how far the client's
    /// side was read when the kernel side was last told.
    narrowed: HashMap<SessionKey, (Port, u32)>,
}

struct Waiting {
    session: SessionKey,
    port: Port,
    until: Instant,
}

impl Text {
    /// When the waiting ports are looked at again.
    pub(super) fn look_at(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then(|| Instant::now() + LOOK_AGAIN)
    }

    pub(super) fn forget(&mut self, session: &SessionKey) {
        self.waiting.retain(|waiting| waiting.session != *session);
        self.spoken_of.remove(session);
        self.narrowed.remove(session);
    }

    /// The only port that the session's active mode may reach.
    pub(super) fn active_port(&self, session: &SessionKey) -> Option<Port> {
        self.narrowed.get(session).map(|(port, _)| *port)
    }
}

impl Guard {
    /// A session closed.
    pub(super) fn forget_text(&mut self, session: &SessionKey) {
        self.watcher.forget(session);
        self.text.forget(session);
    }

    /// One record of captured bytes.
    pub(super) fn on_control(&mut self, record: &[u8]) {
        let Self {
            watcher,
            text,
            journal,
            kernel,
            watching_since,
            state,
            ..
        } = self;
        let beginning = |key: &SessionKey| {
            let session = Maps::find(&kernel.maps.sessions, key).ok().flatten()?;
            Some(if session.opened_at > *watching_since {
                Beginning::Handshake
            } else {
                Beginning::Middle
            })
        };
        let mut tell = |key: SessionKey, event: DialogueEvent| {
            log::trace!("session {}: {event}", Ends::from(&key));
            if let Some(what) = remark(&key, &event) {
                journal.tell(what);
            }
            if changes_something(&event) {
                text.last_words.insert(key, event);
            }
        };
        if !watcher.take(record, clock::monotonic_ns(), beginning, &mut tell) {
            state.tally.unreadable += 1;
        }
    }

    /// Everything captured so far is read: now the last word of each session counts. What it
    /// said before is over, and the kernel side may have acted on it already.
    pub(super) fn settle_text(&mut self) -> Result<(), KernelError> {
        for (key, event) in std::mem::take(&mut self.text.last_words) {
            let Some(session) = Maps::find(&self.kernel.maps.sessions, &key)? else {
                continue;
            };
            self.settle_session(&key, &session, event)?;
        }
        self.keep_narrow()
    }

    fn settle_session(
        &mut self,
        key: &SessionKey,
        session: &Session,
        event: DialogueEvent,
    ) -> Result<(), KernelError> {
        match event {
            // The ftpd may act on the request before it answers (rule O5): until it is
            // answered, nothing narrows.
            DialogueEvent::PassiveRequested(_) | DialogueEvent::ActiveRequested { .. } => {
                self.narrow(key, Port::NONE)
            }
            DialogueEvent::PassiveAnnounced { port, .. } => {
                self.narrow(key, Port::NONE)?;
                if self.args.tracking == TrackingArg::Text {
                    return self.announce(key, port);
                }
                self.compare(key, session, port)
            }
            DialogueEvent::PassiveUnread { .. } => {
                self.narrow(key, Port::NONE)?;
                self.revoke(key, Ending::Replaced)
            }
            DialogueEvent::ActiveAccepted { target, .. } => {
                self.narrow(key, own_port(key, target))?;
                self.revoke(key, Ending::Replaced)
            }
            DialogueEvent::Reset | DialogueEvent::Quit => {
                self.narrow(key, Port::NONE)?;
                self.revoke(key, Ending::Revoked)
            }
            DialogueEvent::Opaque(_) => {
                self.text.narrowed.remove(key);
                let opaque = Advice {
                    flags: advice_flags::OPAQUE,
                    ..Advice::default()
                };
                self.advise(key, opaque)
            }
            DialogueEvent::MalformedArgument { .. }
            | DialogueEvent::EpsvAllAccepted
            | DialogueEvent::ProtocolViolation(_)
            | DialogueEvent::UnsolicitedReply(_)
            | DialogueEvent::LineTooLong
            | DialogueEvent::Desynchronised(_)
            | DialogueEvent::Resynchronised => Ok(()),
        }
    }

    /// Narrows the session's active mode to one port (rule O10), or widens it again where the
    /// port is [`Port::NONE`].
    fn narrow(&mut self, key: &SessionKey, port: Port) -> Result<(), KernelError> {
        if port == Port::NONE {
            return match self.text.narrowed.remove(key) {
                Some(_) => Maps::forget(&mut self.kernel.maps.advice, key),
                None => Ok(()),
            };
        }
        let read = self.watcher.client_sequence(key).unwrap_or_default();
        self.text.narrowed.insert(*key, (port, read));
        self.tell_narrow(key, port, read)
    }

    /// Tells the kernel side how far narrowed sessions are read by now: it binds them only while
    /// there is nothing unread.
    fn keep_narrow(&mut self) -> Result<(), KernelError> {
        let mut news = Vec::new();
        for (key, (port, told)) in &mut self.text.narrowed {
            if let Some(read) = self.watcher.client_sequence(key)
                && read != *told
            {
                *told = read;
                news.push((*key, *port, read));
            }
        }
        for (key, port, read) in news {
            self.tell_narrow(&key, port, read)?;
        }
        Ok(())
    }

    fn tell_narrow(&mut self, key: &SessionKey, port: Port, read: u32) -> Result<(), KernelError> {
        let advice = Advice {
            active_port: port,
            flags: 0,
            client_sequence: read,
        };
        self.advise(key, advice)
    }

    fn advise(&mut self, key: &SessionKey, advice: Advice) -> Result<(), KernelError> {
        Ok(self.kernel.maps.advice.insert(key, advice, 0)?)
    }

    /// Socket tracking: remembers which pinhole the reply spoke of; says so where it names
    /// another port (rule R9).
    fn compare(
        &mut self,
        key: &SessionKey,
        session: &Session,
        announced: Port,
    ) -> Result<(), KernelError> {
        if self.is_unattributed(key, announced)? {
            return self.open(key, announced, Origin::Text).map(drop);
        }
        let pinhole = session.pinhole;
        if pinhole.port == Port::NONE {
            return Ok(());
        }
        if pinhole.port != announced {
            self.journal.tell(Happening::TextMismatch {
                way: way(&pinhole),
                announced: announced.number(),
            });
            return Ok(());
        }
        if let Some(known) = Maps::find(&self.kernel.maps.pinholes, &pinhole)? {
            self.text.spoken_of.insert(*key, (pinhole, known.made_at));
        }
        Ok(())
    }

    /// Socket tracking: whether the listener belongs to a process whose threads do not tell for
    /// whom they listen. Then the reply that announces it does: from now on it admits the client
    /// of that reply only, instead of all who hold control connections (rules P3, P4).
    ///
    /// Listeners that were there before the guard may serve several clients, and stay as they are.
    fn is_unattributed(&self, key: &SessionKey, port: Port) -> Result<bool, KernelError> {
        let maps = &self.kernel.maps;
        let Some((_, listener)) = find_listener(maps, key.server, port)? else {
            return Ok(false);
        };
        let process = Maps::find(&maps.processes, &listener.tgid)?;
        Ok(listener.socket != 0
            && process.is_some_and(|process| process.flags & process_flags::UNSAFE != 0))
    }

    /// Ends the pinhole that the session's text last spoke of; never one that the kernel side
    /// has made since, of which the text has not spoken yet.
    fn revoke(&mut self, key: &SessionKey, why: Ending) -> Result<(), KernelError> {
        self.text.waiting.retain(|waiting| waiting.session != *key);
        let Some((pinhole, made_at)) = self.text.spoken_of.remove(key) else {
            return Ok(());
        };
        let known = Maps::find(&self.kernel.maps.pinholes, &pinhole)?;
        if known.is_some_and(|known| known.made_at == made_at) {
            self.close_pinhole(&pinhole, why)?;
        }
        Ok(())
    }

    /// Removes a pinhole, from its session too, and says so.
    pub(super) fn close_pinhole(
        &mut self,
        pinhole: &PinholeKey,
        why: Ending,
    ) -> Result<(), KernelError> {
        let maps = &mut self.kernel.maps;
        let Some(known) = Maps::find(&maps.pinholes, pinhole)? else {
            return Ok(());
        };
        Maps::forget(&mut maps.pinholes, pinhole)?;
        let session = SessionKey {
            client: pinhole.client,
            server: pinhole.server,
            client_port: known.client_port,
            server_port: known.server_port,
        };
        // In socket tracking the kernel side alone writes sessions: it may be making the next
        // pinhole now, and does not mind one that is gone.
        if self.args.tracking == TrackingArg::Text
            && let Some(known) = Maps::find(&maps.sessions, &session)?
            && known.pinhole == *pinhole
        {
            let without = Session {
                pinhole: PinholeKey::NONE,
                ..known
            };
            Maps::change(&mut maps.sessions, &session, &without)?;
        }
        self.state.pinhole_gone(pinhole);
        self.journal.tell(Happening::PinholeClosed {
            way: way(pinhole),
            reason: why.label().into(),
        });
        Ok(())
    }

    /// Text tracking: a reply announced a port.
    fn announce(&mut self, key: &SessionKey, port: Port) -> Result<(), KernelError> {
        self.text.waiting.retain(|waiting| waiting.session != *key);
        if port.is_low() {
            self.revoke(key, Ending::Replaced)?;
            self.phantom(key, port, Phantom::LowPort);
            return Ok(());
        }
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
    pub(super) fn look_for_listeners(&mut self) -> Result<(), KernelError> {
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
    pub(super) fn listener_opened(&mut self, event: &Event) -> Result<(), KernelError> {
        if !self.text.waiting.is_empty() {
            self.look_for_listeners()?;
        }
        let Some(process) = Maps::find(&self.kernel.maps.processes, &event.tgid)? else {
            return Ok(());
        };
        let exact = process.session_id != 0 && process.flags & process_flags::SHARED == 0;
        if !exact || event.local_port.is_low() || !self.watcher.is_unreadable(&process.session) {
            return Ok(());
        }
        self.open(&process.session, event.local_port, Origin::Exact)
            .map(drop)
    }

    /// Makes the pinhole for an announced port. False while there is no listener for it.
    fn open(&mut self, key: &SessionKey, port: Port, origin: Origin) -> Result<bool, KernelError> {
        let maps = &mut self.kernel.maps;
        let Some(session) = Maps::find(&maps.sessions, key)? else {
            return Ok(true);
        };
        let Some((endpoint, listener)) = find_listener(maps, key.server, port)? else {
            return Ok(false);
        };
        if listener.control_port == Port::NONE
            || self.args.control_ports.contains(&port.number())
            || !serves(maps, &listener, &session)?
        {
            self.revoke(key, Ending::Replaced)?;
            self.phantom(key, port, Phantom::OtherSession);
            return Ok(true);
        }
        let wanted = key.pinhole(port);
        let pinhole = Pinhole {
            session: session.id,
            made_at: clock::monotonic_ns(),
            uses: USES,
            origin: origin as u32,
            client_port: key.client_port,
            server_port: key.server_port,
            pad: 0,
        };
        // The client's SYN may be on its way already: the pinhole first.
        let maps = &mut self.kernel.maps;
        maps.pinholes
            .insert(wanted, pinhole, 0)
            .map_err(KernelError::from)?;
        self.text.spoken_of.insert(*key, (wanted, pinhole.made_at));
        self.state.pinhole_made(&wanted);
        self.journal.tell(Happening::PinholeMade {
            way: way(&wanted),
            origin: origin.label().into(),
        });
        let maps = &mut self.kernel.maps;
        let admission = if listener.socket == 0 {
            listener.admission
        } else {
            Admission::Pinhole as u16
        };
        let listener_open = Maps::change(
            &mut maps.listeners,
            &endpoint,
            &Listener {
                session: session.id,
                pinhole: wanted,
                admission,
                ..listener
            },
        )?;
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
fn find_listener(
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
        || process.flags & process_flags::SHARED != 0)
}

/// The port to which an accepted active command narrows: the client's own, or none where the
/// command names somebody else, a low port, or cannot be read (rules C4, O1).
fn own_port(key: &SessionKey, target: Option<Target>) -> Port {
    match target {
        Some(target)
            if !target.port.is_low()
                && matches!(
                    target.relation(key.client),
                    Relation::Peer | Relation::Unspecified
                ) =>
        {
            target.port
        }
        Some(_) | None => Port::NONE,
    }
}

fn changes_something(event: &DialogueEvent) -> bool {
    match event {
        DialogueEvent::PassiveRequested(_)
        | DialogueEvent::PassiveAnnounced { .. }
        | DialogueEvent::PassiveUnread { .. }
        | DialogueEvent::ActiveRequested { .. }
        | DialogueEvent::ActiveAccepted { .. }
        | DialogueEvent::Reset
        | DialogueEvent::Quit
        | DialogueEvent::Opaque(_) => true,
        DialogueEvent::MalformedArgument { .. }
        | DialogueEvent::EpsvAllAccepted
        | DialogueEvent::ProtocolViolation(_)
        | DialogueEvent::UnsolicitedReply(_)
        | DialogueEvent::LineTooLong
        | DialogueEvent::Desynchronised(_)
        | DialogueEvent::Resynchronised => false,
    }
}

/// What an operator is told at once.
pub(super) fn remark(key: &SessionKey, event: &DialogueEvent) -> Option<Happening> {
    let ends = Ends::from(key);
    let dialogue = |remark: Remark| {
        Some(Happening::Dialogue {
            ends,
            remark: remark.label().into(),
        })
    };
    match event {
        DialogueEvent::ActiveRequested { target, .. }
            if target.relation(key.client) == Relation::Foreign =>
        {
            Some(Happening::ForeignPortRequest {
                ends,
                requested: target.address.ip(),
                requested_port: target.port.number(),
            })
        }
        DialogueEvent::ProtocolViolation(_) => dialogue(Remark::ProtocolViolation),
        DialogueEvent::Desynchronised(_) => dialogue(Remark::Desynchronised),
        DialogueEvent::Opaque(
            Opacity::AuthAccepted | Opacity::ImplicitTls | Opacity::TlsRecord,
        ) => dialogue(Remark::Encrypted),
        DialogueEvent::Opaque(Opacity::Untrusted) => dialogue(Remark::Untrusted),
        DialogueEvent::Opaque(Opacity::NotFtp) => dialogue(Remark::NotFtp),
        DialogueEvent::ActiveRequested { .. }
        | DialogueEvent::PassiveRequested(_)
        | DialogueEvent::PassiveAnnounced { .. }
        | DialogueEvent::PassiveUnread { .. }
        | DialogueEvent::ActiveAccepted { .. }
        | DialogueEvent::MalformedArgument { .. }
        | DialogueEvent::EpsvAllAccepted
        | DialogueEvent::Reset
        | DialogueEvent::Quit
        | DialogueEvent::UnsolicitedReply(_)
        | DialogueEvent::LineTooLong
        | DialogueEvent::Resynchronised => None,
    }
}

pub(super) fn way(key: &PinholeKey) -> Way {
    Way {
        client: key.client.ip(),
        server: key.server.ip(),
        port: key.port.number(),
    }
}
