//! One control connection: which reply answers which command, and what follows (RFC 959 section
//! 5.4, RFC 2428, RFC 4217). Rules S8, S9, C4 to C9 and R3.

mod event;
mod queue;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a panic fails the test")]
mod tests;
mod tls;

pub use event::{Desynchrony, DialogueEvent, Opacity};

use self::{
    queue::{Awaited, Queue},
    tls::RecordHeader,
};
use super::{
    argument::Fault,
    command::{Command, DataCommand},
    line::{COMMAND_LIMIT, LineReader, REPLY_LIMIT},
    reply::{Blocks, Outcome, Reply, ReplyLine},
};
use crate::event::Direction;

/// How long no answer may be awaited before a dialogue counts as synchronised again (rule S9),
/// in nanoseconds.
pub const QUIET: u64 = 2_000_000_000;

/// The state of one control connection.
///
/// It takes the bytes of both directions in the order in which they passed the host, and tells
/// what they mean. Its memory is what its size says. Once it is [opaque](Self::is_opaque) it
/// will never tell anything again and may be dropped.
#[derive(Debug)]
pub struct Dialogue {
    commands: LineReader<COMMAND_LIMIT>,
    replies: LineReader<REPLY_LIMIT>,
    blocks: Blocks,
    queue: Queue,
    state: State,
    record: RecordHeader,
    /// An `EPSV ALL` was accepted (rule C5).
    epsv_all: bool,
    /// The beginning of the connection is seen, so its first bytes tell whether it is FTP.
    from_start: bool,
    /// The first line of the server is over, or was not seen: from here on TLS may begin.
    past_greeting: bool,
}

const _: () = assert!(size_of::<Dialogue>() <= 13 * 1024 + 256);

/// Where events go.
type Events<'a> = &'a mut dyn FnMut(DialogueEvent);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Each reply answers the command at the head of the queue.
    Synchronised,
    /// Which reply answers which command is not known. The queue is unused.
    Desynchronised {
        /// Since when, in nanoseconds, no answer has been awaited.
        quiet_since: Option<u64>,
        /// An `AUTH` may be unanswered: what the client sends may not be text.
        auth: bool,
    },
    /// Nothing can be read any more.
    Opaque,
}

impl Dialogue {
    /// A control connection seen from its beginning: a greeting is due.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            commands: LineReader::new(),
            replies: LineReader::new(),
            blocks: Blocks::OUTSIDE,
            queue: Queue::awaiting_greeting(),
            state: State::Synchronised,
            record: RecordHeader::START,
            epsv_all: false,
            from_start: true,
            past_greeting: false,
        }
    }

    /// A control connection picked up in the middle, desynchronised and perhaps within a line
    /// (rules K10 and F5).
    #[must_use]
    pub fn adopted() -> Self {
        let mut dialogue = Self::new();
        dialogue.from_start = false;
        dialogue.past_greeting = true;
        dialogue.queue.clear();
        dialogue.commands.lose();
        dialogue.replies.lose();
        dialogue.state = State::Desynchronised {
            quiet_since: None,
            auth: false,
        };
        dialogue
    }

    /// Takes the next bytes of one direction. `now` is any clock that never goes back, in
    /// nanoseconds; it must be the same clock each time.
    pub fn feed(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        now: u64,
        events: &mut dyn FnMut(DialogueEvent),
    ) {
        self.elapse(now, events);
        match direction {
            Direction::ToServer => self.feed_commands(bytes, events),
            Direction::ToClient => self.feed_replies(bytes, now, events),
        }
    }

    /// Bytes of one direction were lost here. Lines count again after the next LF, and replies
    /// are matched again after a time of quiet (rule S9).
    pub fn gap(&mut self, direction: Direction, events: &mut dyn FnMut(DialogueEvent)) {
        self.from_start = false;
        match direction {
            Direction::ToServer => self.commands.lose(),
            Direction::ToClient => {
                self.replies.lose();
                self.blocks = Blocks::OUTSIDE;
                self.record = RecordHeader::START;
                self.past_greeting = true;
            }
        }
        self.desynchronise(Desynchrony::BytesLost, events);
    }

    /// The bytes of this connection contradict each other (rule S2): text rules stop for good.
    pub fn distrust(&mut self, events: &mut dyn FnMut(DialogueEvent)) {
        self.end(Opacity::Untrusted, events);
    }

    /// Lets time pass, which may [resynchronise](DialogueEvent::Resynchronised) the dialogue.
    /// [`feed`](Self::feed) does so as well; this is for those who want to know at once.
    pub fn elapse(&mut self, now: u64, events: &mut dyn FnMut(DialogueEvent)) {
        if let State::Desynchronised {
            quiet_since: Some(since),
            ..
        } = self.state
            && now.saturating_sub(since) >= QUIET
            && !self.blocks.is_open()
        {
            self.queue.clear();
            self.state = State::Synchronised;
            events(DialogueEvent::Resynchronised);
        }
    }

    /// Whether replies are matched to commands now.
    #[must_use]
    pub fn is_synchronised(&self) -> bool {
        self.state == State::Synchronised
    }

    /// Whether nothing can be read any more.
    #[must_use]
    pub fn is_opaque(&self) -> bool {
        self.state == State::Opaque
    }

    /// Whether an accepted `EPSV ALL` is in force (rule C5). Not after the dialogue lost track:
    /// there may have been a `REIN`.
    #[must_use]
    pub const fn is_epsv_all(&self) -> bool {
        self.epsv_all
    }

    /// Whether a command that names or asks for a data port is unanswered. The ftpd may be
    /// following it already (rule O5).
    #[must_use]
    pub fn awaits_data_command(&self) -> bool {
        self.queue.holds_data_command()
    }

    /// Whether a `REIN` is unanswered, or may be what the client has begun to write: the ftpd may
    /// have followed it already (rule C5).
    #[must_use]
    pub fn awaits_rein(&self) -> bool {
        self.commands.is_within_line() || self.queue.holds(Command::Rein)
    }

    /// Whether the client, if it went on with these bytes, would ask for no active data
    /// connection. It errs on the side of caution: it looks for the commands' names anywhere, and
    /// believes nothing that is not whole lines of plain text.
    pub fn asks_nothing(&self, mut bytes: impl Iterator<Item = u8>) -> bool {
        if self.commands.is_within_line() {
            return bytes.next().is_none();
        }
        let mut last = b'\n';
        let mut word = [0; 4];
        for byte in bytes {
            last = byte;
            word.rotate_left(1);
            let [.., end] = &mut word;
            *end = byte.to_ascii_uppercase();
            if !byte.is_ascii() || byte == 0 || matches!(&word, b"PORT" | b"EPRT" | b"LPRT") {
                return false;
            }
        }
        last == b'\n'
    }

    fn feed_commands(&mut self, mut bytes: &[u8], events: Events<'_>) {
        while !self.is_opaque() {
            let command = self.commands.next(&mut bytes, Command::parse);
            // A TLS ClientHello is the first thing a client sends (rule F1).
            if self.from_start && self.commands.first_byte() == Some(tls::HANDSHAKE) {
                return self.end(Opacity::ImplicitTls, events);
            }
            match command {
                Some(command) => self.command(command, events),
                None => return,
            }
        }
    }

    fn feed_replies(&mut self, mut bytes: &[u8], now: u64, events: Events<'_>) {
        while !self.is_opaque() {
            let before = bytes;
            let line = self.replies.next(&mut bytes, ReplyLine::parse);
            let (taken, _) = before.split_at(before.len() - bytes.len());
            let record = self.record.find(taken);
            if record && self.past_greeting && !self.is_synchronised() {
                return self.end(Opacity::TlsRecord, events);
            }
            let first = self.replies.first_byte();
            if self.from_start && first.is_some_and(|byte| !byte.is_ascii_digit()) {
                return self.end(Opacity::NotFtp, events);
            }
            let Some(line) = line else { return };
            self.past_greeting = true;
            self.reply_line(line, now, events);
        }
    }

    fn command(&mut self, command: Command, events: Events<'_>) {
        self.blocks.command();
        match &mut self.state {
            State::Opaque => {}
            State::Desynchronised { quiet_since, auth } => {
                *quiet_since = None;
                let held = *auth;
                *auth |= command == Command::Auth;
                if !held {
                    request(command, events);
                }
            }
            State::Synchronised => {
                let held = self.queue.holds(Command::Auth);
                if !self.queue.push(Awaited::Answer(command)) {
                    self.desynchronise(Desynchrony::QueueOverflow, events);
                } else if !held {
                    request(command, events);
                }
            }
        }
    }

    fn reply_line(&mut self, line: ReplyLine, now: u64, events: Events<'_>) {
        match self.blocks.line(line) {
            Outcome::Nothing => {}
            Outcome::Reply(reply) => self.reply(reply, now, events),
            Outcome::ReplyAfterOpenBlock(reply) => {
                self.desynchronise(Desynchrony::BlockLeftOpen, events);
                self.reply(reply, now, events);
            }
            Outcome::EndlessBlock => self.desynchronise(Desynchrony::EndlessBlock, events),
        }
    }

    fn reply(&mut self, reply: Reply, now: u64, events: Events<'_>) {
        if reply.code.is_preliminary() {
            // Its command is yet to be answered.
            if let State::Desynchronised { quiet_since, .. } = &mut self.state {
                *quiet_since = None;
            }
            return;
        }
        let accepts_auth = matches!(reply.code.number(), 234 | 334);
        match self.state {
            State::Opaque => {}
            // No other command is answered so, and the AUTH itself may have been lost.
            State::Desynchronised { .. } if accepts_auth => {
                self.end(Opacity::AuthAccepted, events);
            }
            State::Desynchronised { .. } => self.quiet(now),
            State::Synchronised if accepts_auth && self.queue.holds(Command::Auth) => {
                self.end(Opacity::AuthAccepted, events);
            }
            State::Synchronised => {
                let awaited = self.queue.pop();
                self.answer(awaited, reply, now, events);
            }
        }
    }

    /// Rule S9, then rules C5 to C8: a final reply answers the head of the queue.
    fn answer(&mut self, awaited: Option<Awaited>, reply: Reply, now: u64, events: Events<'_>) {
        let command = match awaited {
            Some(Awaited::Answer(command)) => Some(command),
            Some(Awaited::Greeting) => None,
            None => {
                events(DialogueEvent::UnsolicitedReply(reply.code));
                None
            }
        };
        let asked = command.and_then(|command| command.data_command());
        if let Some(announced) = reply.code.announces()
            && asked != Some(announced)
            && command != Some(Command::EpsvAll)
        {
            self.desynchronise(Desynchrony::UnmatchedAnnouncement, events);
            self.quiet(now);
            return;
        }
        let Some(command) = command else { return };
        if let Some(asked) = asked
            && self.epsv_all
            && asked != DataCommand::Epsv
        {
            events(DialogueEvent::ProtocolViolation(asked));
        }
        if command == Command::Auth {
            // It was refused: what came after it in clear counts.
            self.queue
                .until_auth(&mut |command| request(command, events));
        }
        if reply.code.is_completion() {
            self.accept(command, reply, events);
        }
    }

    fn accept(&mut self, command: Command, reply: Reply, events: Events<'_>) {
        match command {
            Command::Active(command, target) => events(DialogueEvent::ActiveAccepted {
                command,
                target: Some(target),
            }),
            Command::EpsvAll => {
                self.epsv_all = true;
                events(DialogueEvent::EpsvAllAccepted);
            }
            Command::Rein => {
                self.epsv_all = false;
                events(DialogueEvent::Reset);
            }
            Command::Quit => events(DialogueEvent::Quit),
            Command::Pasv | Command::Epsv | Command::Lpsv | Command::Malformed(..) => {
                let Some(command) = command.data_command() else {
                    return;
                };
                if !command.is_passive() {
                    events(DialogueEvent::ActiveAccepted {
                        command,
                        target: None,
                    });
                    return;
                }
                let missing = Err(Fault::Missing.at(0));
                match reply.announcement.unwrap_or(missing) {
                    Ok(announcement) => events(DialogueEvent::PassiveAnnounced {
                        command,
                        port: announcement.port,
                        address: announcement.address,
                    }),
                    Err(error) => events(DialogueEvent::PassiveUnread { command, error }),
                }
            }
            Command::Auth
            | Command::Ccc
            | Command::Abor
            | Command::User
            | Command::Pass
            | Command::Stat
            | Command::Other
            | Command::TooLong => {}
        }
    }

    fn desynchronise(&mut self, why: Desynchrony, events: Events<'_>) {
        let auth = match self.state {
            State::Opaque => return,
            State::Synchronised => {
                events(DialogueEvent::Desynchronised(why));
                self.queue.holds(Command::Auth)
            }
            State::Desynchronised { auth, .. } => auth,
        };
        self.queue.clear();
        self.epsv_all = false;
        self.state = State::Desynchronised {
            quiet_since: None,
            auth,
        };
    }

    /// A final reply came while desynchronised. How many answers are due is not known; if there
    /// are more, they will come before long.
    fn quiet(&mut self, now: u64) {
        if let State::Desynchronised { quiet_since, auth } = &mut self.state {
            *quiet_since = Some(now);
            *auth = false;
        }
    }

    fn end(&mut self, why: Opacity, events: Events<'_>) {
        if !self.is_opaque() {
            self.state = State::Opaque;
            events(DialogueEvent::Opaque(why));
        }
    }
}

impl Default for Dialogue {
    fn default() -> Self {
        Self::new()
    }
}

/// Tells what a command asks for, before it is answered.
fn request(command: Command, events: Events<'_>) {
    match command {
        Command::Active(command, target) => {
            events(DialogueEvent::ActiveRequested { command, target });
        }
        Command::Malformed(command, error) => {
            events(DialogueEvent::MalformedArgument { command, error });
        }
        Command::Pasv | Command::Epsv | Command::Lpsv => {
            if let Some(command) = command.data_command() {
                events(DialogueEvent::PassiveRequested(command));
            }
        }
        Command::TooLong => events(DialogueEvent::LineTooLong),
        Command::EpsvAll
        | Command::Auth
        | Command::Ccc
        | Command::Rein
        | Command::Quit
        | Command::Abor
        | Command::User
        | Command::Pass
        | Command::Stat
        | Command::Other => {}
    }
}
