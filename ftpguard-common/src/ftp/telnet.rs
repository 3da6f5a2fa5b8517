//! Telnet sequences, which may stand anywhere in a control connection (RFC 854, RFC 855, RFC 959
//! section 4.1.3, RFC 1123 section 4.1.2.12). Rule S5.

/// "Interpret as command": begins every sequence.
pub const IAC: u8 = 255;
/// Begins a subnegotiation, after [`IAC`].
pub const SB: u8 = 250;
/// Ends a subnegotiation, after [`IAC`].
pub const SE: u8 = 240;

/// The most bytes of a subnegotiation. RFC 855 sets no limit; options of FTP clients need few.
pub const MAX_SUBNEGOTIATION: u16 = 512;

/// Removes Telnet sequences from one direction, however the bytes are cut.
#[derive(Clone, Copy, Debug, Default)]
pub struct Telnet {
    state: State,
}

/// What one byte turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A byte of text.
    Data(u8),
    /// A part of a sequence.
    Sequence,
    /// A part of a subnegotiation that does not end. What follows counts as text again, but
    /// nobody can know what the other side made of it.
    Endless,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Text,
    /// After IAC.
    Command,
    /// After IAC WILL, WONT, DO or DONT: the option follows.
    Option,
    /// After IAC SB, and how many bytes since.
    Subnegotiation(u16),
    /// After IAC within a subnegotiation.
    SubnegotiationCommand(u16),
}

impl Telnet {
    /// Outside any sequence.
    pub const TEXT: Self = Self { state: State::Text };

    /// Takes the next byte.
    pub fn step(&mut self, byte: u8) -> Step {
        let (state, step) = match (self.state, byte) {
            (State::Text, IAC) => (State::Command, Step::Sequence),
            (State::Text, _) => (State::Text, Step::Data(byte)),
            (State::Command, IAC) => (State::Text, Step::Data(IAC)),
            (State::Command, 251..=254) => (State::Option, Step::Sequence),
            (State::Command, SB) => (State::Subnegotiation(0), Step::Sequence),
            (State::Command | State::Option, _) | (State::SubnegotiationCommand(_), SE) => {
                (State::Text, Step::Sequence)
            }
            (
                State::Subnegotiation(MAX_SUBNEGOTIATION..)
                | State::SubnegotiationCommand(MAX_SUBNEGOTIATION..),
                _,
            ) => (State::Text, Step::Endless),
            (State::Subnegotiation(length), IAC) => {
                (State::SubnegotiationCommand(length + 1), Step::Sequence)
            }
            (State::Subnegotiation(length) | State::SubnegotiationCommand(length), _) => {
                (State::Subnegotiation(length + 1), Step::Sequence)
            }
        };
        self.state = state;
        step
    }
}
