//! Values the operator may give, parsed once into types that cannot be wrong.

pub mod one_or_many;

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    ops::RangeInclusive,
    str::FromStr,
};

use ftpguard_common::net::Address;
use serde::{Serialize, Serializer};

use crate::kernel::{Destination, Network};

/// What somebody else wrote, on one line and without anything that a terminal would obey.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|letter| match letter {
            '\n' | '\r' | '\t' => ' ',
            letter if letter.is_control() => '?',
            letter => letter,
        })
        .collect()
}

/// A port that exists on the wire: 1 to 65535.
pub fn parse_port(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(0) => Err("port 0 does not exist; give one from 1 to 65535".to_owned()),
        Ok(port) => Ok(port),
        Err(_) => Err(format!(
            "{text:?} is no port; give a number from 1 to 65535"
        )),
    }
}

/// A number of the file as a port.
pub fn check_port(number: i64) -> Result<u16, String> {
    u16::try_from(number)
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| format!("{number} is no port; give a number from 1 to 65535"))
}

/// The ports on which an ftpd listens for passive data connections: 1024 or above, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The ports as a range.
    #[must_use]
    pub const fn ports(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }

    /// Whether a port lies in both ranges.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Whether the port lies in the range.
    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text
            .split_once('-')
            .ok_or_else(|| format!("{text:?} is no range; write FIRST-LAST, as in 50000-50099"))?;
        let (first, last) = (parse_port(first.trim())?, parse_port(last.trim())?);
        if first > last {
            return Err(format!(
                "the range ends before it starts; write {last}-{first}"
            ));
        }
        if first < 1024 {
            return Err(format!(
                "the range starts below 1024, where services live; start it at 1024 or above, \
                 and set the FTP server's own range to the same: {first} is too low"
            ));
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl Serialize for PortRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Destination {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Destination {
            address: self.address,
            prefix: self.prefix,
            port: None,
        })
    }
}

/// As [`parse_destination`] reads it.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address.ip();
        let (bits, length) = match address {
            IpAddr::V4(_) => (32, self.prefix.saturating_sub(96)),
            IpAddr::V6(_) => (128, self.prefix),
        };
        match (address, self.port) {
            (IpAddr::V6(address), Some(_)) => write!(f, "[{address}]")?,
            (address, _) => write!(f, "{address}")?,
        }
        if length < bits {
            write!(f, "/{length}")?;
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

/// Parses `ADDR`, `ADDR/LEN`, `ADDR:PORT` or `ADDR/LEN:PORT`; an IPv6 address in brackets where
/// a port follows without a length.
pub fn parse_destination(text: &str) -> Result<Destination, String> {
    let wrong = |what: &str| {
        format!(
            "{what} in {text:?}; write ADDR[/LEN][:PORT], as in 192.0.2.0/24:389 or [2001:db8::1]:53"
        )
    };
    let (address, after) = split_address(text).ok_or_else(|| wrong("no IP address"))?;
    let (length, port) = match after.strip_prefix('/') {
        Some(after) => match after.split_once(':') {
            Some((length, port)) => (Some(length), Some(port)),
            None => (Some(after), None),
        },
        None if after.is_empty() => (None, None),
        None => (
            None,
            Some(
                after
                    .strip_prefix(':')
                    .ok_or_else(|| wrong("unexpected text"))?,
            ),
        ),
    };
    let (bits, skipped) = match address {
        IpAddr::V4(_) => (32, 96),
        IpAddr::V6(_) => (128, 0),
    };
    let length = match length {
        None => bits,
        Some(length) => length
            .parse::<u8>()
            .ok()
            .filter(|length| *length <= bits)
            .ok_or_else(|| wrong("no prefix length that fits the address"))?,
    };
    Ok(Destination {
        address: Address::from(address),
        prefix: skipped + length,
        port: port.map(parse_port).transpose()?,
    })
}

/// Parses `ADDR` or `ADDR/LEN`.
pub fn parse_network(text: &str) -> Result<Network, String> {
    let Destination {
        address,
        prefix,
        port,
    } = parse_destination(text)?;
    match port {
        None => Ok(Network { address, prefix }),
        Some(port) => Err(format!(
            "{text:?} names the port {port}; data connections come from any port, write ADDR[/LEN]"
        )),
    }
}

/// Parses an address that a client can connect to, without length or port.
pub fn parse_address(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| {
        format!("{text:?} is no IP address; write it without length or port, as in 192.0.2.10")
    })?;
    if address.is_unspecified() {
        return Err(format!(
            "{address} stands for any address; write a real one"
        ));
    }
    Ok(address)
}

/// The address at the start of the text, and what follows it.
fn split_address(text: &str) -> Option<(IpAddr, &str)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, after) = rest.split_once(']')?;
        return Some((address.parse::<Ipv6Addr>().ok()?.into(), after));
    }
    if let Ok(address) = text.parse() {
        return Some((address, ""));
    }
    let end = text.find('/').or_else(|| text.find(':'))?;
    let (address, after) = text.split_at(end);
    Some((address.parse().ok()?, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_in_order_and_above_1023() {
        let range: PortRange = "50000-50099".parse().expect("a range");
        assert_eq!(range.ports(), 50000..=50099);
        assert!(range.contains(50000) && range.contains(50099) && !range.contains(50100));
        assert_eq!(range.to_string(), "50000-50099");
        assert_eq!(
            "1024-65535".parse::<PortRange>().map(PortRange::ports),
            Ok(1024..=65535)
        );

        for (text, named) in [
            ("50099-50000", "write 50000-50099"),
            ("1023-2000", "1023 is too low"),
            ("0-2000", "port 0"),
            ("50000", "FIRST-LAST"),
            ("50000-65536", "65536"),
            ("a-b", "\"a\""),
            ("", "FIRST-LAST"),
            ("-", "\"\""),
        ] {
            let error = text.parse::<PortRange>().expect_err(text);
            assert!(error.contains(named), "{text}: {error}");
            assert!(!error.contains('\n'));
        }
    }

    #[test]
    fn a_destination_has_an_address_and_may_have_length_and_port() {
        let parsed = |text| {
            let found = parse_destination(text).expect(text);
            (found.address.ip().to_string(), found.prefix, found.port)
        };
        for (text, address, prefix, port) in [
            ("192.0.2.7", "192.0.2.7", 128, None),
            ("192.0.2.0/24", "192.0.2.0", 120, None),
            ("192.0.2.7:389", "192.0.2.7", 128, Some(389)),
            ("192.0.2.0/24:389", "192.0.2.0", 120, Some(389)),
            ("2001:db8::1", "2001:db8::1", 128, None),
            ("2001:db8::/32", "2001:db8::", 32, None),
            ("2001:db8::/32:53", "2001:db8::", 32, Some(53)),
            ("[2001:db8::1]:53", "2001:db8::1", 128, Some(53)),
            ("[2001:db8::]/32:53", "2001:db8::", 32, Some(53)),
        ] {
            assert_eq!(parsed(text), (address.to_owned(), prefix, port), "{text}");
            let destination = parse_destination(text).expect(text);
            assert_eq!(
                parse_destination(&destination.to_string()),
                Ok(destination),
                "{text}"
            );
        }
        for text in [
            "",
            "ldap.example",
            "192.0.2.0/33",
            "192.0.2.0/",
            "192.0.2.7:0",
            "192.0.2.7:",
            "[2001:db8::1",
            "[192.0.2.1]:5",
            "[2001:db8::1]53",
            "2001:db8::/129",
        ] {
            assert!(parse_destination(text).is_err(), "{text}");
        }
    }
}
