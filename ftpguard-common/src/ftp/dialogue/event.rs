//! What a dialogue tells.

use core::fmt;

use crate::{
    ftp::{
        argument::{ArgumentError, Target},
        command::DataCommand,
        reply::Code,
    },
    net::{Address, Port},
};

/// One thing that the text of a control connection means.
///
/// Addresses and ports are claims. None of these events may widen what sockets allow (rule P3).
/// The text form ([`fmt::Display`]) contains nothing that an outsider could have chosen but
/// numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialogueEvent {
    /// The client sent `PASV`, `EPSV` or `LPSV`. Nothing is decided yet.
    PassiveRequested(DataCommand),
    /// The ftpd says it listens on this port (227, 228, 229). What the session had before is
    /// over (rule C6). The port may be low, where rule R8 refuses it, but is never 0.
    PassiveAnnounced {
        /// The command that was answered.
        command: DataCommand,
        /// The port.
        port: Port,
        /// The address, for a hint (rule R7); 229 has none.
        address: Option<Address>,
    },
    /// A passive command was answered 2xx, but no port can be read. What the session had before
    /// is over (rule C6).
    PassiveUnread {
        /// The command that was answered.
        command: DataCommand,
        /// What is wrong; [`crate::ftp::Fault::Missing`] at byte 0 where the code announces none.
        error: ArgumentError,
    },
    /// The client asks for an active data connection (rule C4). Nothing is decided yet, but some
    /// ftpds connect before they answer (rule O5).
    ActiveRequested {
        /// `PORT`, `EPRT` or `LPRT`.
        command: DataCommand,
        /// Where to.
        target: Target,
    },
    /// The ftpd accepted it (2xx). What the session had before is over (rule C6).
    ActiveAccepted {
        /// `PORT`, `EPRT` or `LPRT`.
        command: DataCommand,
        /// Where to; `None` where the ftpd accepted an argument that cannot be read here.
        target: Option<Target>,
    },
    /// A command that names a data port has an argument that cannot be read (rule C1).
    MalformedArgument {
        /// The command.
        command: DataCommand,
        /// What is wrong, and where.
        error: ArgumentError,
    },
    /// `EPSV ALL` was accepted (rule C5).
    EpsvAllAccepted,
    /// The client went on to use this command after `EPSV ALL` was accepted (rule C5).
    ProtocolViolation(DataCommand),
    /// `REIN` was accepted: pinholes are revoked (rule C7).
    Reset,
    /// `QUIT` was accepted: pinholes are revoked (rule C7).
    Quit,
    /// A final reply without a command (rule S9). It means nothing.
    UnsolicitedReply(Code),
    /// A command line was longer than 4096 bytes (rule S6).
    LineTooLong,
    /// Which reply answers which command is no longer known: text makes no pinholes.
    Desynchronised(Desynchrony),
    /// It is known again.
    Resynchronised,
    /// Nothing can be read any more. This is the last event.
    Opaque(Opacity),
}

/// Why it is not known which reply answers which command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Desynchrony {
    /// More than 32 commands were unanswered (rule S8).
    QueueOverflow,
    /// A 227, 228 or 229 answered no such command (rule S9).
    UnmatchedAnnouncement,
    /// A multi-line reply was never closed (rule R3).
    BlockLeftOpen,
    /// A multi-line reply had 10 000 lines (rule R3).
    EndlessBlock,
    /// Bytes were lost.
    BytesLost,
}

/// Why nothing can be read any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opacity {
    /// `AUTH` was accepted: TLS, or another mechanism, begins (rule C8).
    AuthAccepted,
    /// The client began with TLS (rule F1).
    ImplicitTls,
    /// The server began with something else than an FTP reply.
    NotFtp,
    /// The server sent a TLS record while the dialogue was desynchronised.
    TlsRecord,
    /// The bytes on the wire contradicted each other (rule S2).
    Untrusted,
}

impl Desynchrony {
    /// The reason's name in events.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::QueueOverflow => "queue-overflow",
            Self::UnmatchedAnnouncement => "unmatched-announcement",
            Self::BlockLeftOpen => "block-left-open",
            Self::EndlessBlock => "endless-block",
            Self::BytesLost => "bytes-lost",
        }
    }
}

impl Opacity {
    /// The reason's name in events.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::AuthAccepted => "auth-accepted",
            Self::ImplicitTls => "implicit-tls",
            Self::NotFtp => "not-ftp",
            Self::TlsRecord => "tls-record",
            Self::Untrusted => "untrusted",
        }
    }
}

impl fmt::Display for DialogueEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::PassiveRequested(command) => write!(f, "passive-requested {command}"),
            Self::PassiveAnnounced {
                command,
                port,
                address: Some(address),
            } => write!(f, "passive-announced {command} {address} port {port}"),
            Self::PassiveAnnounced {
                command,
                port,
                address: None,
            } => write!(f, "passive-announced {command} port {port}"),
            Self::PassiveUnread { command, error } => {
                write!(f, "passive-unread {command} {error}")
            }
            Self::ActiveRequested { command, target } => {
                write!(f, "active-requested {command} {target}")
            }
            Self::ActiveAccepted {
                command,
                target: Some(target),
            } => write!(f, "active-accepted {command} {target}"),
            Self::ActiveAccepted {
                command,
                target: None,
            } => write!(f, "active-accepted {command} unread"),
            Self::MalformedArgument { command, error } => {
                write!(f, "malformed-argument {command} {error}")
            }
            Self::EpsvAllAccepted => f.write_str("epsv-all-accepted"),
            Self::ProtocolViolation(command) => write!(f, "protocol-violation {command}"),
            Self::Reset => f.write_str("reset"),
            Self::Quit => f.write_str("quit"),
            Self::UnsolicitedReply(code) => write!(f, "unsolicited-reply {code}"),
            Self::LineTooLong => f.write_str("line-too-long"),
            Self::Desynchronised(why) => write!(f, "desynchronised {}", why.label()),
            Self::Resynchronised => f.write_str("resynchronised"),
            Self::Opaque(why) => write!(f, "opaque {}", why.label()),
        }
    }
}
