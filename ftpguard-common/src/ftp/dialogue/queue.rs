//! Commands that have not been answered yet, oldest first (rule S8).

use crate::ftp::command::Command;

/// How many commands may be unanswered (rule S8).
pub(super) const MAX_UNANSWERED: usize = 32;

/// What a final reply may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaited {
    /// The greeting, which answers the connection itself (RFC 959 section 5.4).
    Greeting,
    /// The answer to a command.
    Answer(Command),
}

/// A ring of what is awaited.
#[derive(Debug)]
pub(super) struct Queue {
    entries: [Awaited; MAX_UNANSWERED],
    head: usize,
    length: usize,
}

impl Queue {
    /// Only the greeting is awaited.
    pub(super) const fn awaiting_greeting() -> Self {
        Self {
            entries: [Awaited::Greeting; MAX_UNANSWERED],
            head: 0,
            length: 1,
        }
    }

    /// Awaits something more; false where that is too much.
    #[must_use]
    pub(super) fn push(&mut self, awaited: Awaited) -> bool {
        if self.length == MAX_UNANSWERED {
            return false;
        }
        let tail = (self.head + self.length) % MAX_UNANSWERED;
        if let Some(entry) = self.entries.get_mut(tail) {
            *entry = awaited;
        }
        self.length += 1;
        true
    }

    /// What has been awaited longest, and is no more.
    pub(super) fn pop(&mut self) -> Option<Awaited> {
        let awaited = self.iter().next()?;
        self.head = (self.head + 1) % MAX_UNANSWERED;
        self.length -= 1;
        Some(awaited)
    }

    /// Awaits nothing.
    pub(super) fn clear(&mut self) {
        self.length = 0;
    }

    /// Whether such a command is unanswered.
    pub(super) fn holds(&self, command: Command) -> bool {
        self.iter()
            .any(|awaited| awaited == Awaited::Answer(command))
    }

    /// Whether a command that names or asks for a data port is unanswered.
    pub(super) fn holds_data_command(&self) -> bool {
        self.iter().any(
            |awaited| matches!(awaited, Awaited::Answer(command) if command.data_command().is_some()),
        )
    }

    /// Visits the unanswered commands before the next `AUTH`, oldest first.
    pub(super) fn until_auth(&self, visit: &mut dyn FnMut(Command)) {
        for awaited in self.iter() {
            match awaited {
                Awaited::Answer(Command::Auth) => return,
                Awaited::Answer(command) => visit(command),
                Awaited::Greeting => {}
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = Awaited> + '_ {
        (0..self.length).filter_map(|offset| {
            let index = (self.head + offset) % MAX_UNANSWERED;
            self.entries.get(index).copied()
        })
    }
}
