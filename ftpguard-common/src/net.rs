//! Addresses and ports in the order of the wire.
#![forbid(unsafe_code)]

use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use bytemuck::{Pod, Zeroable};

/// An IPv6 address, or an IPv4 address as `::ffff:a.b.c.d` (RFC 4291 section 2.5.5.2).
///
/// The four words lie in memory as the bytes lie on the wire. Words instead of bytes let the
/// kernel side copy and compare four times instead of sixteen; their numeric value means
/// nothing.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
pub struct Address(pub [u32; 4]);

/// The word `0000:ffff` that marks an IPv4-mapped address.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

impl Address {
    /// `::`, which also stands for `0.0.0.0`: a listener bound to no particular address.
    pub const WILDCARD: Self = Self([0; 4]);

    /// An IPv4 address from the word as it lies in an IPv4 header.
    #[inline(always)]
    #[must_use]
    pub const fn from_v4_word(word: u32) -> Self {
        Self([0, 0, MAPPED, word])
    }

    /// An address from its sixteen bytes in wire order.
    #[inline(always)]
    #[must_use]
    pub fn from_octets(bytes: [u8; 16]) -> Self {
        Self(bytemuck::cast(bytes))
    }

    /// The sixteen bytes in wire order.
    #[must_use]
    pub fn octets(self) -> [u8; 16] {
        bytemuck::cast(self.0)
    }

    /// Whether this is an IPv4 address in its mapped form.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(self) -> bool {
        let [a, b, mark, _] = self.0;
        a == 0 && b == 0 && mark == MAPPED
    }

    /// A number below 256 that addresses of one host seldom share.
    #[inline(always)]
    #[must_use]
    pub const fn slot(self) -> u32 {
        let [a, b, c, d] = self.0;
        let mixed = a ^ b ^ c ^ d;
        let mixed = mixed ^ mixed >> 16;
        (mixed ^ mixed >> 8) & 0xff
    }

    /// `::` and `0.0.0.0` in one form, every other address unchanged.
    ///
    /// A listener on either wildcard is found by one lookup.
    #[inline(always)]
    #[must_use]
    pub const fn with_one_wildcard(self) -> Self {
        let [a, b, mark, last] = self.0;
        if a == 0 && b == 0 && mark == MAPPED && last == 0 {
            return Self::WILDCARD;
        }
        self
    }

    /// The address in the form that people read: IPv4 as IPv4.
    #[must_use]
    pub fn ip(self) -> IpAddr {
        Ipv6Addr::from(self.octets()).to_canonical()
    }
}

impl From<Ipv4Addr> for Address {
    fn from(address: Ipv4Addr) -> Self {
        Self::from_octets(address.to_ipv6_mapped().octets())
    }
}

impl From<Ipv6Addr> for Address {
    fn from(address: Ipv6Addr) -> Self {
        Self::from_octets(address.octets())
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => address.into(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip().fmt(f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip().fmt(f)
    }
}

/// A TCP port; its two bytes lie in memory as on the wire.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Port(u16);

impl Port {
    /// No port. Port 0 is never on the wire.
    pub const NONE: Self = Self(0);

    /// A port from its number.
    #[inline(always)]
    #[must_use]
    pub const fn new(number: u16) -> Self {
        Self(number.to_be())
    }

    /// A port from the two bytes as they lie in a TCP header.
    #[inline(always)]
    #[must_use]
    pub const fn from_wire(word: u16) -> Self {
        Self(word)
    }

    /// The port's number.
    #[inline(always)]
    #[must_use]
    pub const fn number(self) -> u16 {
        u16::from_be(self.0)
    }

    /// Whether the port is below 1024, where services live: never a data port (rules O1, R8).
    #[inline(always)]
    #[must_use]
    pub const fn is_low(self) -> bool {
        self.number() < 1024
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

/// One end of a TCP connection, as people read it.
#[must_use]
pub fn socket_addr(address: Address, port: Port) -> SocketAddr {
    SocketAddr::new(address.ip(), port.number())
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn k1_v4_is_stored_mapped_and_read_back_as_v4() {
        let address = Address::from(Ipv4Addr::new(192, 0, 2, 1));
        assert!(address.is_v4());
        assert_eq!(
            address.octets(),
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1]
        );
        assert_eq!(address.ip(), IpAddr::from([192, 0, 2, 1]));
        assert_eq!(
            address,
            Address::from_v4_word(u32::from_ne_bytes([192, 0, 2, 1]))
        );
    }

    #[test]
    fn neighbouring_addresses_have_slots_of_their_own() {
        let slots: std::collections::HashSet<u32> = (0..=255)
            .map(|last| Address::from(Ipv4Addr::new(192, 0, 2, last)).slot())
            .collect();
        assert_eq!(slots.len(), 256);
        assert!(slots.iter().all(|slot| *slot < crate::abi::ADDRESS_SLOTS));
    }

    #[test]
    fn both_wildcards_are_one() {
        assert_eq!(
            Address::from(Ipv4Addr::UNSPECIFIED).with_one_wildcard(),
            Address::WILDCARD
        );
        assert_eq!(
            Address::from(Ipv6Addr::UNSPECIFIED).with_one_wildcard(),
            Address::WILDCARD
        );
        let loopback = Address::from(Ipv4Addr::LOCALHOST);
        assert_eq!(loopback.with_one_wildcard(), loopback);
    }

    #[test]
    fn a_port_lies_in_memory_as_on_the_wire() {
        assert_eq!(bytemuck::bytes_of(&Port::new(0x1234)), [0x12, 0x34]);
        assert_eq!(Port::new(21).number(), 21);
        assert!(Port::new(1023).is_low());
        assert!(!Port::new(1024).is_low());
    }
}
