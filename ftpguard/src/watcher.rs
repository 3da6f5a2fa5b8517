//! The text watcher: captured pieces of control connections in, findings out. Pure: no io.
//!
//! Each control connection has its streams put in order and its dialogue followed by
//! [`ftpguard_common::ftp`]. What a finding changes is decided elsewhere
//! (`guard/text.rs`): text labels, narrows and revokes, and never widens (rules P1 to P3).

use std::collections::{HashMap, HashSet};

use ftpguard_common::{
    abi::SessionKey,
    event::{ControlHeader, Direction},
    ftp::{
        Dialogue, DialogueEvent, Opacity,
        stream::{Received, Segment, Sent, StreamEvent},
    },
};

/// Where a control connection was first seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// From its handshake on.
    Handshake,
    /// Somewhere in the middle (rule K10).
    Middle,
}

/// The control connections whose text is read.
pub struct Watcher {
    sessions: HashMap<SessionKey, Text>,
    /// How many are read at once: each takes its memory.
    limit: usize,
    reading: usize,
    unread: u64,
}

/// What there is of a session's text.
enum Text {
    Read(Box<Conversation>),
    /// Nothing can be read any more.
    Opaque(Opacity),
    /// Too many others were read when it began.
    Refused,
}

struct Conversation {
    sent: Sent,
    received: Received,
    dialogue: Dialogue,
    latest: Option<DialogueEvent>,
    /// The sequence number after the last byte captured from the client.
    client_sequence: u32,
    /// The same after the last byte that was read with no `REIN` unanswered.
    settled: u32,
}

/// What one control connection takes while it is read, in bytes: it owns no other memory.
pub const MEMORY: usize = 18 * 1024 + 512;

const _: () = assert!(size_of::<Conversation>() <= MEMORY);

/// What is known of a session's text, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Label {
    /// `clear`, `desynchronised`, why it cannot be read, or `unread`.
    pub text: &'static str,
    /// The latest thing it said that matters. Nothing an outsider chose but numbers is in it.
    pub latest: Option<String>,
}

impl Watcher {
    /// A watcher that reads at most `limit` control connections at once.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            sessions: HashMap::new(),
            limit,
            reading: 0,
            unread: 0,
        }
    }

    /// Takes one record of the ring buffer. False where it makes no sense.
    ///
    /// `now` is nanoseconds of `CLOCK_MONOTONIC`. `beginning` is asked about sessions not seen
    /// before; `None` for one that is not open (any more). Findings go to `tell`.
    pub fn take(
        &mut self,
        record: &[u8],
        now: u64,
        beginning: impl FnOnce(&SessionKey) -> Option<Beginning>,
        tell: &mut dyn FnMut(SessionKey, DialogueEvent),
    ) -> bool {
        let Some((header, direction, bytes)) = read_record(record) else {
            return false;
        };
        let key = header.session;
        let refused = matches!(self.sessions.get(&key), Some(Text::Refused));
        if refused || !self.sessions.contains_key(&key) {
            let Some(beginning) = beginning(&key) else {
                return true;
            };
            if self.reading >= self.limit {
                self.unread += u64::from(!refused);
                self.sessions.insert(key, Text::Refused);
                return true;
            }
            let beginning = if refused {
                Beginning::Middle
            } else {
                beginning
            };
            self.reading += 1;
            let conversation = Box::new(Conversation::new(beginning));
            self.sessions.insert(key, Text::Read(conversation));
        }
        let Some(text) = self.sessions.get_mut(&key) else {
            return true;
        };
        let Text::Read(conversation) = text else {
            return true;
        };
        if direction == Direction::ToServer && header.length > 0 {
            conversation.client_sequence = header.sequence.wrapping_add(header.length);
        }
        conversation.take(&header, direction, bytes, now, &mut |event| {
            tell(key, event);
        });
        if let Some(DialogueEvent::Opaque(why)) = conversation.latest {
            *text = Text::Opaque(why);
            self.reading -= 1;
        }
        true
    }

    /// Lets time pass for every session: dialogues synchronise again.
    pub fn elapse(&mut self, now: u64, tell: &mut dyn FnMut(SessionKey, DialogueEvent)) {
        for (key, text) in &mut self.sessions {
            if let Text::Read(conversation) = text {
                conversation.elapse(now, &mut |event| tell(*key, event));
                if let Some(DialogueEvent::Opaque(why)) = conversation.latest {
                    *text = Text::Opaque(why);
                    self.reading -= 1;
                }
            }
        }
    }

    /// Captured bytes were lost, and nobody knows whose: every dialogue is desynchronised until
    /// it has been quiet (rule S9).
    pub fn lose(&mut self, tell: &mut dyn FnMut(SessionKey, DialogueEvent)) {
        for (key, text) in &mut self.sessions {
            if let Text::Read(conversation) = text {
                for direction in [Direction::ToServer, Direction::ToClient] {
                    conversation
                        .dialogue
                        .gap(direction, &mut |event| tell(*key, event));
                }
            }
        }
    }

    /// The session is closed.
    pub fn forget(&mut self, key: &SessionKey) {
        if let Some(Text::Read(_)) = self.sessions.remove(key) {
            self.reading -= 1;
        }
    }

    /// Forgets every session that is not among these.
    pub fn keep(&mut self, open: &HashSet<SessionKey>) {
        self.sessions.retain(|key, _| open.contains(key));
        let is_read = |text: &&Text| matches!(text, Text::Read(_));
        self.reading = self.sessions.values().filter(is_read).count();
    }

    /// Whether the session's text cannot be read, or replies cannot be matched to commands. Not
    /// so for a session of which nothing was read yet.
    #[must_use]
    pub fn is_unreadable(&self, key: &SessionKey) -> bool {
        match self.sessions.get(key) {
            None => false,
            Some(Text::Opaque(_) | Text::Refused) => true,
            Some(Text::Read(conversation)) => !conversation.dialogue.is_synchronised(),
        }
    }

    /// How far the client's side has been read: the sequence number after the last byte that
    /// was captured from it. `None` while there may be a request for an active data connection
    /// among what this host has not acknowledged yet. After `EPSV ALL` only `REIN` opens active
    /// mode again (rule C5): there it goes as far as each `REIN` was answered.
    #[must_use]
    pub fn client_sequence(&self, key: &SessionKey) -> Option<u32> {
        let text = self.read(key)?;
        if text.dialogue.is_epsv_all() {
            return Some(text.settled);
        }
        let waiting = text.received.waiting()?;
        text.dialogue
            .asks_nothing(waiting)
            .then_some(text.client_sequence)
    }

    /// Whether the session's `EPSV ALL` is in force (rule C5).
    #[must_use]
    pub fn is_epsv_all(&self, key: &SessionKey) -> bool {
        self.read(key)
            .is_some_and(|text| text.dialogue.is_epsv_all())
    }

    /// Whether a command that names or asks for a data port is unanswered: the ftpd may be
    /// following it already (rule O5).
    #[must_use]
    pub fn awaits_data_command(&self, key: &SessionKey) -> bool {
        self.read(key)
            .is_some_and(|text| text.dialogue.awaits_data_command())
    }

    fn read(&self, key: &SessionKey) -> Option<&Conversation> {
        match self.sessions.get(key) {
            Some(Text::Read(conversation)) => Some(conversation),
            Some(Text::Opaque(_) | Text::Refused) | None => None,
        }
    }

    /// What is known of a session's text.
    #[must_use]
    pub fn label(&self, key: &SessionKey) -> Label {
        match self.sessions.get(key) {
            None | Some(Text::Refused) => Label {
                text: "unread",
                latest: None,
            },
            Some(Text::Opaque(why)) => Label {
                text: why.label(),
                latest: None,
            },
            Some(Text::Read(conversation)) => Label {
                text: if conversation.dialogue.is_synchronised() {
                    "clear"
                } else {
                    "desynchronised"
                },
                latest: conversation.latest.map(|event| event.to_string()),
            },
        }
    }

    /// How many sessions were not read, or not from the beginning, because too many others were.
    #[must_use]
    pub const fn unread(&self) -> u64 {
        self.unread
    }
}

impl Conversation {
    fn new(beginning: Beginning) -> Self {
        Self {
            sent: Sent::new(),
            received: Received::new(),
            dialogue: match beginning {
                Beginning::Handshake => Dialogue::new(),
                Beginning::Middle => Dialogue::adopted(),
            },
            latest: None,
            client_sequence: 0,
            settled: 0,
        }
    }

    fn take(
        &mut self,
        header: &ControlHeader,
        direction: Direction,
        bytes: &[u8],
        now: u64,
        tell: &mut dyn FnMut(DialogueEvent),
    ) {
        let Self {
            sent,
            received,
            dialogue,
            latest,
            settled,
            ..
        } = self;
        let segment = Segment::captured(header, bytes);
        let mut follow = |direction, event: StreamEvent<'_>| {
            follow_stream(dialogue, latest, direction, event, now, tell);
        };
        match direction {
            Direction::ToServer => {
                received.segment(segment, &mut |event| follow(direction, event));
            }
            Direction::ToClient => {
                // What this host has accepted, its ftpd may have answered.
                if let Some(accepted) = header.accepted() {
                    received.accept(accepted, &mut |event| follow(Direction::ToServer, event));
                }
                sent.segment(segment, &mut |event| follow(direction, event));
            }
        }
        if !dialogue.awaits_rein() {
            *settled = received.accepted();
        }
    }

    fn elapse(&mut self, now: u64, tell: &mut dyn FnMut(DialogueEvent)) {
        let Self {
            dialogue, latest, ..
        } = self;
        dialogue.elapse(now, &mut |event| {
            *latest = Some(event);
            tell(event);
        });
    }
}

fn follow_stream(
    dialogue: &mut Dialogue,
    latest: &mut Option<DialogueEvent>,
    direction: Direction,
    event: StreamEvent<'_>,
    now: u64,
    tell: &mut dyn FnMut(DialogueEvent),
) {
    let mut note = |event| {
        *latest = Some(event);
        tell(event);
    };
    match event {
        StreamEvent::Bytes(bytes) => dialogue.feed(direction, bytes, now, &mut note),
        StreamEvent::Gap(_) => dialogue.gap(direction, &mut note),
        StreamEvent::Contradiction => dialogue.distrust(&mut note),
        // The handshake itself is never captured; a session picked up in the middle began with
        // a dialogue that knows.
        StreamEvent::PickedUp | StreamEvent::End => {}
    }
}

/// Header, direction and bytes of one record; `None` where they do not fit each other.
fn read_record(record: &[u8]) -> Option<(ControlHeader, Direction, &[u8])> {
    let (header, bytes) = record.split_at_checked(size_of::<ControlHeader>())?;
    let header: ControlHeader = bytemuck::try_pod_read_unaligned(header).ok()?;
    let direction = match header.direction {
        number if number == Direction::ToServer as u16 => Direction::ToServer,
        number if number == Direction::ToClient as u16 => Direction::ToClient,
        _ => return None,
    };
    let captured = usize::try_from(header.captured).ok()?;
    if header.captured > header.length {
        return None;
    }
    Some((header, direction, bytes.get(..captured)?))
}

#[cfg(test)]
mod tests;
