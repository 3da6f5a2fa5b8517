//! What the text of control connections changes.
//!
//! In socket tracking it labels, narrows and revokes (rule P3). In text tracking it also makes
//! pinholes, which need a listener of the session's own ftpd (rule P1) and take their address
//! from the control connection (rules P2, K3).

mod announced;
mod narrow;
mod reuse;
mod words;

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use anyhow::Result;
use ftpguard_common::{
    abi::{
        Admission, Advice, Origin, PinholeKey, Session, SessionKey, advice_flags, process_flags,
    },
    ftp::DialogueEvent,
    net::{Address, Port},
};

pub(super) use self::words::{remark, way};
use self::{announced::find_listener, narrow::own_port, reuse::Reuse, words::changes_something};
use super::Guard;
use crate::{
    clock,
    config::TrackingArg,
    events::{Ending, Ends, Happening, Remark},
    kernel::{KernelError, Maps},
    watcher::Beginning,
};

/// How long an announced port may wait for its listener (rule R8).
const PATIENCE: Duration = Duration::from_millis(200);
/// How often it is looked for meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// The most announced ports that wait at once.
const MAX_WAITING: usize = 1_024;
/// The most addresses of others that are told (rule R7).
const MAX_ELSEWHERE: usize = 16;

/// What text made the guard remember.
#[derive(Default)]
pub(super) struct Text {
    /// The last word of each session in the batch being read.
    last_words: HashMap<SessionKey, DialogueEvent>,
    /// The last port that each session announced in the batch being read.
    announced: HashMap<SessionKey, Port>,
    /// Announced ports without a listener so far.
    waiting: Vec<Waiting>,
    /// The pinhole that the text of a session last spoke of, as it was then.
    spoken_of: HashMap<SessionKey, (PinholeKey, u64)>,
    /// Sessions whose active mode is narrowed, as the kernel side was last told.
    narrowed: HashMap<SessionKey, Advice>,
    /// Listeners that are announced again.
    reuse: Reuse,
    /// Addresses that replies named and this host does not have; so many are told, and no more.
    elsewhere: HashSet<Address>,
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

    /// The observer made a pinhole.
    pub(super) fn pinhole_made(&mut self, session: SessionKey) {
        self.reuse.made(session);
    }

    /// Remembers the last word of a session that changes something, until everything is read.
    pub(super) fn hear(&mut self, key: SessionKey, event: DialogueEvent) {
        if let DialogueEvent::PassiveAnnounced { port, .. } = event {
            self.reuse.announced(key, port);
            self.announced.insert(key, port);
        }
        if changes_something(&event) {
            self.last_words.insert(key, event);
        }
    }

    /// Whether a reply names an address of somebody else that was not told yet (rule R7).
    fn is_elsewhere(
        &mut self,
        event: &DialogueEvent,
        is_ours: impl FnOnce(Address) -> bool,
    ) -> bool {
        let DialogueEvent::PassiveAnnounced {
            address: Some(address),
            ..
        } = *event
        else {
            return false;
        };
        !is_ours(address) && self.elsewhere.len() < MAX_ELSEWHERE && self.elsewhere.insert(address)
    }

    pub(super) fn forget(&mut self, session: &SessionKey) {
        self.waiting.retain(|waiting| waiting.session != *session);
        self.spoken_of.remove(session);
        self.narrowed.remove(session);
        self.reuse.forget(session);
    }

    /// Forgets every session that is not among these.
    pub(super) fn keep(&mut self, open: &HashSet<SessionKey>) {
        self.waiting
            .retain(|waiting| open.contains(&waiting.session));
        self.spoken_of.retain(|key, _| open.contains(key));
        self.narrowed.retain(|key, _| open.contains(key));
        self.reuse.keep(open);
    }

    /// The only port that the session's active mode may reach.
    pub(super) fn active_port(&self, session: &SessionKey) -> Option<Port> {
        self.narrowed
            .get(session)
            .map(|advice| advice.active_port)
            .filter(|port| *port != Port::NONE)
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
            config,
            ..
        } = self;
        let mut malformed = 0;
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
            if let DialogueEvent::MalformedArgument { .. } = event {
                malformed += 1;
            }
            let is_ours = |address: Address| {
                let found = Maps::find(&kernel.maps.addresses, &address);
                address == key.server
                    || config.is_public(address, key.server_port.number())
                    // Where that cannot be looked up, nothing is hinted at.
                    || found.map_or(true, |found| found.is_some())
            };
            if text.is_elsewhere(&event, is_ours) {
                journal.tell(Happening::Dialogue {
                    ends: Ends::from(&key),
                    remark: Remark::AddressMismatch.label().into(),
                });
            }
            text.hear(key, event);
        };
        if !watcher.take(record, clock::monotonic_ns(), beginning, &mut tell) {
            state.tally.unreadable += 1;
        }
        state.tally.malformed_arguments += malformed;
        state.tally.unread = watcher.unread();
    }

    /// Captured bytes may have been lost since this was last asked, and nobody knows whose. Then no
    /// dialogue is believed until it has been quiet (rule S9), and nothing stays narrow.
    pub(super) fn check_lost_text(&mut self) -> Result<(), KernelError> {
        let count = self.newly_lost_bytes()?;
        if count == 0 {
            return Ok(());
        }
        let Self {
            watcher,
            text,
            journal,
            ..
        } = self;
        journal.tell(Happening::ControlBytesLost { count });
        watcher.lose(&mut |key, event| {
            if let Some(what) = remark(&key, &event) {
                journal.tell(what);
            }
            text.hear(key, event);
        });
        self.settle_text()?;
        self.widen_all()
    }

    /// Everything captured so far is read: now the last word of each session counts. What it
    /// said before is over, and the kernel side may have acted on it already: in socket tracking
    /// it has made the pinhole of an announcement that is over.
    pub(super) fn settle_text(&mut self) -> Result<(), KernelError> {
        let announced = std::mem::take(&mut self.text.announced);
        for (key, event) in std::mem::take(&mut self.text.last_words) {
            let Some(session) = Maps::find(&self.kernel.maps.sessions, &key)? else {
                continue;
            };
            if let Some(port) = announced.get(&key)
                && self.config.tracking == TrackingArg::Socket
                && session.pinhole.port == *port
            {
                self.speak_of(&key, session.pinhole)?;
            }
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
            // What is not known for certain narrows nothing either.
            DialogueEvent::PassiveRequested(_)
            | DialogueEvent::ActiveRequested { .. }
            | DialogueEvent::EpsvAllAccepted
            | DialogueEvent::Desynchronised(_) => self.narrow(key, Port::NONE),
            DialogueEvent::PassiveAnnounced { port, .. } => {
                self.narrow(key, Port::NONE)?;
                if self.config.tracking == TrackingArg::Text {
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
            | DialogueEvent::ProtocolViolation(_)
            | DialogueEvent::UnsolicitedReply(_)
            | DialogueEvent::LineTooLong
            | DialogueEvent::Resynchronised => Ok(()),
        }
    }

    /// Socket tracking: says so where the reply names another port than the sockets (rule R9).
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
        if pinhole.port != Port::NONE && pinhole.port != announced {
            self.journal.tell(Happening::TextMismatch {
                way: way(&pinhole),
                announced: announced.number(),
            });
        }
        Ok(())
    }

    /// The session's text has announced this pinhole, as it is now.
    fn speak_of(&mut self, key: &SessionKey, pinhole: PinholeKey) -> Result<(), KernelError> {
        if let Some(known) = Maps::find(&self.kernel.maps.pinholes, &pinhole)? {
            self.text.spoken_of.insert(*key, (pinhole, known.made_at));
        }
        Ok(())
    }

    /// Socket tracking: whether the listener belongs to a process of which nobody can tell for whom
    /// it listens: its threads do not tell, or it is not seen to read. Then the reply that announces
    /// it does: from now on it admits the client of that reply only, instead of all who hold control
    /// connections (rules P3, P4).
    ///
    /// Listeners that were there before the guard may serve several clients, and stay as they are.
    fn is_unattributed(&self, key: &SessionKey, port: Port) -> Result<bool, KernelError> {
        let maps = &self.kernel.maps;
        let Some((_, listener)) = find_listener(maps, key.server, port)? else {
            return Ok(false);
        };
        let process = Maps::find(&maps.processes, &listener.tgid)?;
        let is_for_all = listener.admission == Admission::ControlPeer as u16;
        Ok(listener.socket != 0
            && process.is_some_and(|process| {
                process.flags & process_flags::UNSAFE != 0
                    || is_for_all && maps.may_serve_unseen(&process)
            }))
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
        if self.config.tracking == TrackingArg::Text
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
}
