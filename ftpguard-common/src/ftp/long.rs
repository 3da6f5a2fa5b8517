//! Addresses of any length: the argument of `LPRT` and the reply 228 (RFC 1639). Rules C3 and R6.

use core::net::Ipv4Addr;

use super::{
    argument::{ArgumentError, Fault, Target},
    cursor::Cursor,
};
use crate::net::{Address, Port};

/// Reads the argument of `LPRT`, which begins at the given byte of the line (rule C3).
///
/// `af,hal,h1,..,pal,p1,p2` with address family 4 or 6 and ports of two bytes.
pub fn argument(line: &[u8], at: usize) -> Result<Target, ArgumentError> {
    let mut cursor = Cursor::argument(line, at);
    if cursor.peek().is_none() {
        return Err(Fault::Missing.at(cursor.at));
    }
    let target = long_address(&mut cursor)?;
    if cursor.peek() == Some(b',') {
        return Err(Fault::TooManyNumbers.at(cursor.at));
    }
    cursor.expect_end()?;
    Ok(target)
}

/// Reads a 228 line, code included (rule R6): what stands in the first parentheses that begin
/// with a number.
///
/// The address is used for nothing but a hint (rule R7).
pub fn reply(line: &[u8]) -> Result<Target, ArgumentError> {
    let mut cursor = Cursor::new(line, 4);
    while cursor.until(b'(').is_some() {
        if matches!(cursor.peek(), Some(b'0'..=b'9')) {
            let target = long_address(&mut cursor)?;
            cursor.expect(b')', Fault::ParenthesisExpected)?;
            return Ok(target);
        }
    }
    Err(Fault::Missing.at(line.len()))
}

fn long_address(cursor: &mut Cursor<'_>) -> Result<Target, ArgumentError> {
    let family_at = cursor.at;
    let family = cursor.octet()?;
    let length_at = cursor.at + 1;
    let length = next_octet(cursor)?;
    let address = match (family, length) {
        (4, 4) => Ipv4Addr::from(octets(cursor)?).into(),
        (6, 16) => Address::from_octets(octets(cursor)?),
        (4 | 6, _) => return Err(Fault::LengthMismatch.at(length_at)),
        _ => return Err(Fault::UnknownFamily.at(family_at)),
    };
    let port_length_at = cursor.at + 1;
    if next_octet(cursor)? != 2 {
        return Err(Fault::LengthMismatch.at(port_length_at));
    }
    let port_at = cursor.at + 1;
    let port = Port::new(u16::from_be_bytes(octets(cursor)?));
    if port == Port::NONE {
        return Err(Fault::PortZero.at(port_at));
    }
    Ok(Target { address, port })
}

fn octets<const N: usize>(cursor: &mut Cursor<'_>) -> Result<[u8; N], ArgumentError> {
    let mut octets = [0; N];
    for octet in &mut octets {
        *octet = next_octet(cursor)?;
    }
    Ok(octets)
}

fn next_octet(cursor: &mut Cursor<'_>) -> Result<u8, ArgumentError> {
    cursor.expect(b',', Fault::CommaExpected)?;
    cursor.octet()
}

#[cfg(test)]
mod tests {
    extern crate std;
    use core::net::Ipv6Addr;
    use std::{
        format,
        string::{String, ToString},
        vec::Vec,
    };

    use proptest::prelude::*;

    use super::*;

    fn loopback_v6() -> Target {
        Target {
            address: Ipv6Addr::LOCALHOST.into(),
            port: Port::new(5001),
        }
    }

    fn v4() -> Target {
        Target {
            address: Ipv4Addr::new(192, 0, 2, 1).into(),
            port: Port::new(5001),
        }
    }

    #[test]
    fn c3_families_4_and_6() {
        for (text, target) in [
            ("LPRT 4,4,192,0,2,1,2,19,137", v4()),
            ("LPRT  4,4,192,0,2,1,2,19,137 ", v4()),
            (
                "LPRT 6,16,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,1,2,19,137",
                loopback_v6(),
            ),
        ] {
            assert_eq!(argument(text.as_bytes(), 4), Ok(target), "{text:?}");
        }
    }

    #[test]
    fn c3_anything_else_is_malformed_and_says_where() {
        for (text, fault, at) in [
            ("LPRT", Fault::Missing, 4),
            ("LPRT 5,4,192,0,2,1,2,19,137", Fault::UnknownFamily, 5),
            ("LPRT 4,16,192,0,2,1,2,19,137", Fault::LengthMismatch, 7),
            ("LPRT 6,4,192,0,2,1,2,19,137", Fault::LengthMismatch, 7),
            ("LPRT 4,4,192,0,2,1,4,0,0,19,137", Fault::LengthMismatch, 19),
            ("LPRT 4,4,192,0,2,1,2,0,0", Fault::PortZero, 21),
            ("LPRT 4,4,192,0,2,256,2,19,137", Fault::NumberTooLarge, 17),
            ("LPRT 4,4,192,0,2,1,2,19", Fault::CommaExpected, 23),
            ("LPRT 4,4,192,0,2,1,2,19,137,1", Fault::TooManyNumbers, 27),
            ("LPRT 4,4,192,0,2,1,2,19,137x", Fault::TrailingBytes, 27),
            ("LPRT 4,4,-192,0,2,1,2,19,137", Fault::Signed, 9),
        ] {
            let error = argument(text.as_bytes(), 4);
            assert_eq!(error, Err(fault.at(at)), "{text:?}");
        }
    }

    #[test]
    fn r6_the_long_address_stands_in_parentheses() {
        for text in [
            "228 Entering Long Passive Mode (4,4,192,0,2,1,2,19,137)",
            "228 Entering (long) Passive Mode (4,4,192,0,2,1,2,19,137).",
        ] {
            assert_eq!(reply(text.as_bytes()), Ok(v4()), "{text:?}");
        }
        let text = "228 (6,16,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,1,2,19,137)";
        assert_eq!(reply(text.as_bytes()), Ok(loopback_v6()));
        for (text, fault, at) in [
            ("228 4,4,192,0,2,1,2,19,137", Fault::Missing, 26),
            ("228 (4,4,192,0,2,1,2,0,0)", Fault::PortZero, 21),
            ("228 (4,4,192,0,2,1,1,19)", Fault::LengthMismatch, 19),
            (
                "228 (4,4,192,0,2,1,2,19,137",
                Fault::ParenthesisExpected,
                27,
            ),
        ] {
            assert_eq!(reply(text.as_bytes()), Err(fault.at(at)), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_formatted_parses_back(v4: [u8; 4], v6: [u8; 16], number in 1u16..) {
            let port = Port::new(number);
            let [high, low] = number.to_be_bytes();
            let numbers = |bytes: &[u8]| {
                let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
                numbers.join(",")
            };
            for (text, address) in [
                (format!("4,4,{},2,{high},{low}", numbers(&v4)), Ipv4Addr::from(v4).into()),
                (format!("6,16,{},2,{high},{low}", numbers(&v6)), Address::from_octets(v6)),
            ] {
                let target = Ok(Target { address, port });
                prop_assert_eq!(argument(format!("LPRT {text}").as_bytes(), 4), target);
                prop_assert_eq!(reply(format!("228 Mode ({text})").as_bytes()), target);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(line: Vec<u8>, at in 0usize..80) {
            let _ = argument(&line, at);
            let _ = reply(&line);
        }
    }
}
