//! Values of the file that may stand alone or in a list: `21` or `[21, 990]`.

use std::{fmt, marker::PhantomData, net::IpAddr, str::FromStr};

use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor, value::SeqAccessDeserializer},
};

use super::{PortRange, check_port, parse_address, parse_destination, parse_network};
use crate::kernel::{Destination, Network};

/// Ports from 1 to 65535.
pub fn ports<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u16>, D::Error> {
    deserializer.deserialize_any(OneOrMany::<PortValue>::new("a port or a list of ports"))
}

/// The same for a key that may be missing.
pub fn some_ports<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<u16>>, D::Error> {
    ports(deserializer).map(Some)
}

/// Ranges of passive ports.
pub fn ranges<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PortRange>, D::Error> {
    deserializer.deserialize_any(OneOrMany::<PortRange>::new(
        "a range such as \"50000-50099\" or a list of ranges",
    ))
}

/// Destinations of connect().
pub fn destinations<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Destination>, D::Error> {
    deserializer.deserialize_any(OneOrMany::<Destination>::new(
        "a destination such as \"192.0.2.10:389\" or a list of destinations",
    ))
}

/// Addresses.
pub fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpAddr>, D::Error> {
    deserializer.deserialize_any(OneOrMany::<IpAddr>::new(
        "an address such as \"192.0.2.10\" or a list of addresses",
    ))
}

/// The same for a key that may be missing.
pub fn some_addresses<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<IpAddr>>, D::Error> {
    addresses(deserializer).map(Some)
}

/// Addresses and networks.
pub fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Network>, D::Error> {
    deserializer.deserialize_any(OneOrMany::<Network>::new(
        "a network such as \"192.0.2.0/24\" or a list of networks",
    ))
}

/// What a value of a list is made of.
trait Item: Sized {
    type Given;
    fn from_text(text: &str) -> Result<Self::Given, String>;
    fn from_number(number: i64) -> Result<Self::Given, String>;
}

struct PortValue;

impl Item for PortValue {
    type Given = u16;

    fn from_text(text: &str) -> Result<u16, String> {
        Err(format!("{text:?} is text; write the port without quotes"))
    }

    fn from_number(number: i64) -> Result<u16, String> {
        check_port(number)
    }
}

impl Item for PortRange {
    type Given = Self;

    fn from_text(text: &str) -> Result<Self, String> {
        Self::from_str(text)
    }

    fn from_number(number: i64) -> Result<Self, String> {
        Err(format!(
            "{number} is no range; write \"FIRST-LAST\", as in \"50000-50099\""
        ))
    }
}

impl Item for IpAddr {
    type Given = Self;

    fn from_text(text: &str) -> Result<Self, String> {
        parse_address(text)
    }

    fn from_number(number: i64) -> Result<Self, String> {
        Err(format!(
            "{number} is no address; write it in quotes, as in \"192.0.2.10\""
        ))
    }
}

impl Item for Network {
    type Given = Self;

    fn from_text(text: &str) -> Result<Self, String> {
        parse_network(text)
    }

    fn from_number(number: i64) -> Result<Self, String> {
        Err(format!(
            "{number} is no network; write \"ADDR[/LEN]\", as in \"192.0.2.0/24\""
        ))
    }
}

impl Item for Destination {
    type Given = Self;

    fn from_text(text: &str) -> Result<Self, String> {
        parse_destination(text)
    }

    fn from_number(number: i64) -> Result<Self, String> {
        Err(format!(
            "{number} is no destination; write \"ADDR[/LEN][:PORT]\", as in \"192.0.2.10:389\""
        ))
    }
}

struct OneOrMany<T> {
    expected: &'static str,
    item: PhantomData<T>,
}

impl<T> OneOrMany<T> {
    const fn new(expected: &'static str) -> Self {
        Self {
            expected,
            item: PhantomData,
        }
    }
}

impl<'de, T: Item> Visitor<'de> for OneOrMany<T> {
    type Value = Vec<T::Given>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(vec![T::from_text(text).map_err(E::custom)?])
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(vec![T::from_number(number).map_err(E::custom)?])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
        let elements: Vec<Element<T>> = Vec::deserialize(SeqAccessDeserializer::new(list))?;
        Ok(elements.into_iter().map(|element| element.0).collect())
    }
}

/// One element of a list, so that an error names its place and not that of the list.
struct Element<T: Item>(T::Given);

impl<'de, T: Item> Deserialize<'de> for Element<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct One<T>(PhantomData<T>);

        impl<T: Item> Visitor<'_> for One<T> {
            type Value = Element<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text or a number")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Element<T>, E> {
                T::from_text(text).map(Element).map_err(E::custom)
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Element<T>, E> {
                T::from_number(number).map(Element).map_err(E::custom)
            }
        }

        deserializer.deserialize_any(One(PhantomData))
    }
}
