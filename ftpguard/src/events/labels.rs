//! Words from closed lists.

/// Why a pinhole ended without a last use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its listener or its control connection closed.
    Closed,
    /// A later command of its session took its place (rule C6).
    Replaced,
    /// REIN or QUIT ended it (rule C7).
    Revoked,
    /// It outlived the backstop time (rule K5).
    Expired,
}

impl Ending {
    /// The name in events.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Replaced => "replaced",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }
}

/// Why an announced port gets no pinhole from text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phantom {
    /// Nobody listens there, or not the session's ftpd.
    NoListener,
    /// The listener serves another session.
    OtherSession,
    /// The port is below 1024.
    LowPort,
}

impl Phantom {
    /// The name in events.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoListener => "no-listener",
            Self::OtherSession => "other-session",
            Self::LowPort => "low-port",
        }
    }
}

/// Something about a session's dialogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remark {
    /// TLS started: the text is no longer read (rule C8).
    Encrypted,
    /// The captured bytes contradict themselves or lack a part: the text is no longer read
    /// (rule S2).
    Untrusted,
    /// Replies and commands cannot be matched (rule S9).
    Desynchronised,
    /// A command that EPSV ALL forbids (rule C5).
    ProtocolViolation,
    /// The server speaks something else than FTP.
    NotFtp,
    /// A 227 or 228 names an address that this host does not have (rule R7): a server behind NAT
    /// is meant to, another one is set up wrongly. Told once for each address.
    AddressMismatch,
}

impl Remark {
    /// The name in events.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Encrypted => "encrypted",
            Self::Untrusted => "untrusted",
            Self::Desynchronised => "desynchronised",
            Self::ProtocolViolation => "protocol-violation",
            Self::NotFtp => "not-ftp",
            Self::AddressMismatch => "address-mismatch",
        }
    }
}
