//! What arguments that name a data port have in common: the port, and what can be wrong.

use core::{fmt, net::IpAddr};

use crate::net::{Address, Port};

/// Where a client asks the ftpd to connect to: the argument of `PORT`, `EPRT` or `LPRT`.
///
/// Both are what the client claims. The port is never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The address as written.
    pub address: Address,
    /// The port as written.
    pub port: Port,
}

/// How the address of a [`Target`] relates to the client that named it (rule C4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Relation {
    /// The client's own address.
    Peer,
    /// `0.0.0.0` or `::`, which stand for the client's own address.
    Unspecified,
    /// A private address, while the client's is public: a client behind a translator.
    NatClient,
    /// Somebody else's address: a third host.
    Foreign,
}

impl Target {
    /// How this address relates to the client that named it (rule C4).
    #[must_use]
    pub fn relation(&self, peer: Address) -> Relation {
        if self.address == peer {
            Relation::Peer
        } else if self.address.with_one_wildcard() == Address::WILDCARD {
            Relation::Unspecified
        } else if is_private(self.address) && !is_private(peer) {
            Relation::NatClient
        } else {
            Relation::Foreign
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} port {}", self.address, self.port)
    }
}

/// An argument that cannot be read: what is wrong, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ArgumentError {
    /// What is wrong.
    pub fault: Fault,
    /// At which byte of the line, counted from 0 after Telnet sequences were removed.
    pub at: u16,
}

/// What can be wrong with an argument that names a data port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// There is no argument, or no numbers in the reply.
    Missing,
    /// A decimal digit was expected.
    DigitExpected,
    /// A comma was expected.
    CommaExpected,
    /// A delimiter was expected: printable, no digit, the same each time (RFC 2428 section 2).
    DelimiterExpected,
    /// A closing parenthesis was expected.
    ParenthesisExpected,
    /// A number has a sign.
    Signed,
    /// A number is larger than its field allows.
    NumberTooLarge,
    /// More numbers follow than the form has.
    TooManyNumbers,
    /// The port is 0, which is never on the wire.
    PortZero,
    /// The address family is none that the form knows.
    UnknownFamily,
    /// The length of an address or port does not fit its family (RFC 1639).
    LengthMismatch,
    /// The address is none of its family.
    BadAddress,
    /// Other bytes follow the argument.
    TrailingBytes,
    /// A reply names two different ports.
    Ambiguous,
    /// The line contains a NUL (rule S4) or an endless Telnet subnegotiation (rule S5).
    Tainted,
    /// The line is longer than lines may be (rule S6).
    LineTooLong,
}

impl Fault {
    /// The fault's name in events.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::DigitExpected => "digit-expected",
            Self::CommaExpected => "comma-expected",
            Self::DelimiterExpected => "delimiter-expected",
            Self::ParenthesisExpected => "parenthesis-expected",
            Self::Signed => "signed",
            Self::NumberTooLarge => "number-too-large",
            Self::TooManyNumbers => "too-many-numbers",
            Self::PortZero => "port-zero",
            Self::UnknownFamily => "unknown-family",
            Self::LengthMismatch => "length-mismatch",
            Self::BadAddress => "bad-address",
            Self::TrailingBytes => "trailing-bytes",
            Self::Ambiguous => "ambiguous",
            Self::Tainted => "tainted",
            Self::LineTooLong => "line-too-long",
        }
    }

    /// This fault at a byte of the line.
    pub(super) fn at(self, at: usize) -> ArgumentError {
        ArgumentError {
            fault: self,
            at: u16::try_from(at).unwrap_or(u16::MAX),
        }
    }
}

impl fmt::Display for ArgumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.fault.label(), self.at)
    }
}

impl core::error::Error for ArgumentError {}

/// Whether an address is reachable only from networks next to its own: RFC 1918, RFC 3927,
/// RFC 6598, RFC 4193, and link-local IPv6.
fn is_private(address: Address) -> bool {
    match address.ip() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_private() || v4.is_link_local() || (a == 100 && b & 0xc0 == 64)
        }
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn target(address: impl Into<Address>) -> Target {
        Target {
            address: address.into(),
            port: Port::new(5000),
        }
    }

    #[test]
    fn c4_the_peer_and_the_unspecified_address_are_no_foreign_request() {
        let peer = Address::from(Ipv4Addr::new(203, 0, 113, 7));
        assert_eq!(
            target(Ipv4Addr::new(203, 0, 113, 7)).relation(peer),
            Relation::Peer
        );
        assert_eq!(
            target(Ipv4Addr::UNSPECIFIED).relation(peer),
            Relation::Unspecified
        );
        assert_eq!(
            target(Ipv6Addr::UNSPECIFIED).relation(peer),
            Relation::Unspecified
        );
        // Mapped IPv6 is IPv4.
        let mapped = Ipv4Addr::new(203, 0, 113, 7).to_ipv6_mapped();
        assert_eq!(target(mapped).relation(peer), Relation::Peer);
    }

    #[test]
    fn c4_a_private_address_from_a_public_peer_is_a_nat_client() {
        let public = Address::from(Ipv4Addr::new(203, 0, 113, 7));
        let private = Address::from(Ipv4Addr::new(10, 0, 0, 1));
        for inner in [
            [10, 1, 2, 3],
            [172, 16, 0, 1],
            [192, 168, 1, 1],
            [169, 254, 1, 1],
            [100, 64, 0, 1],
        ] {
            let target = target(Ipv4Addr::from(inner));
            assert_eq!(target.relation(public), Relation::NatClient, "{inner:?}");
            assert_eq!(target.relation(private), Relation::Foreign, "{inner:?}");
        }
        let unique_local = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
        assert_eq!(target(unique_local).relation(public), Relation::NatClient);
    }

    #[test]
    fn c4_other_addresses_are_foreign() {
        let peer = Address::from(Ipv4Addr::new(203, 0, 113, 7));
        for other in [[198, 51, 100, 1], [127, 0, 0, 1], [100, 128, 0, 1]] {
            assert_eq!(
                target(Ipv4Addr::from(other)).relation(peer),
                Relation::Foreign,
                "{other:?}"
            );
        }
    }
}
