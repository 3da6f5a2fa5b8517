//! Delimited fields: the argument of `EPRT` and the reply 229 (RFC 2428 sections 2 and 3). Rules
//! C2 and R5.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::{
    argument::{ArgumentError, Fault, Target},
    cursor::Cursor,
};
use crate::net::{Address, Port};

/// Reads the argument of `EPRT`, which begins at the given byte of the line (rule C2).
pub fn argument(line: &[u8], at: usize) -> Result<Target, ArgumentError> {
    let mut cursor = Cursor::argument(line, at);
    let Some(delimiter) = cursor.peek() else {
        return Err(Fault::Missing.at(cursor.at));
    };
    if !is_delimiter(delimiter) {
        return Err(Fault::DelimiterExpected.at(cursor.at));
    }
    cursor.at += 1;
    let family_at = cursor.at;
    let family = cursor.decimal(u16::MAX)?;
    if !matches!(family, 1 | 2) {
        return Err(Fault::UnknownFamily.at(family_at));
    }
    cursor.expect(delimiter, Fault::DelimiterExpected)?;
    let address_at = cursor.at;
    let Some(text) = cursor.until(delimiter) else {
        return Err(Fault::DelimiterExpected.at(line.len()));
    };
    let Some(address) = address(family, text) else {
        return Err(Fault::BadAddress.at(address_at));
    };
    let port = port(&mut cursor)?;
    cursor.expect(delimiter, Fault::DelimiterExpected)?;
    cursor.expect_end()?;
    Ok(Target { address, port })
}

/// Reads a 229 line, code included (rule R5): the port, and nothing else.
pub fn reply(line: &[u8]) -> Result<Port, ArgumentError> {
    let mut cursor = Cursor::new(line, 4);
    let Some(port) = next_tuple(&mut cursor)? else {
        return Err(Fault::Missing.at(line.len()));
    };
    loop {
        let start = cursor.at;
        match next_tuple(&mut cursor) {
            Ok(Some(other)) if other != port => return Err(Fault::Ambiguous.at(start)),
            Ok(Some(_)) => {}
            Ok(None) => return Ok(port),
            Err(_) => cursor.at = cursor.at.max(start + 1),
        }
    }
}

/// Reads the next `(` that begins `(<d><protocol><d><address><d>port<d>)`, and all of it.
///
/// Both fields are empty in a correct reply, and ignored in others. An earlier `(` that does not
/// begin so is text.
fn next_tuple(cursor: &mut Cursor<'_>) -> Result<Option<Port>, ArgumentError> {
    while cursor.until(b'(').is_some() {
        let Some(delimiter) = cursor.peek().filter(|&byte| is_delimiter(byte)) else {
            continue;
        };
        let mut fields = *cursor;
        fields.at += 1;
        if !skip_field(&mut fields, delimiter, |byte| byte.is_ascii_digit())
            || !skip_field(&mut fields, delimiter, is_address_byte)
        {
            continue;
        }
        *cursor = fields;
        let port = port(cursor)?;
        cursor.expect(delimiter, Fault::DelimiterExpected)?;
        cursor.expect(b')', Fault::ParenthesisExpected)?;
        return Ok(Some(port));
    }
    Ok(None)
}

/// Skips bytes of a field up to the delimiter and the delimiter itself, if that is all there is.
fn skip_field(cursor: &mut Cursor<'_>, delimiter: u8, belongs: impl Fn(u8) -> bool) -> bool {
    cursor
        .until(delimiter)
        .is_some_and(|field| field.iter().all(|&byte| belongs(byte)))
}

fn port(cursor: &mut Cursor<'_>) -> Result<Port, ArgumentError> {
    let start = cursor.at;
    match cursor.decimal(u16::MAX)? {
        0 => Err(Fault::PortZero.at(start)),
        number => Ok(Port::new(number)),
    }
}

/// RFC 2428 section 2: ASCII 33 to 126. A digit would be ambiguous.
fn is_delimiter(byte: u8) -> bool {
    byte.is_ascii_graphic() && !byte.is_ascii_digit()
}

fn is_address_byte(byte: u8) -> bool {
    byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.' | b'%')
}

fn address(family: u16, text: &[u8]) -> Option<Address> {
    let text = str::from_utf8(text).ok()?;
    if family == 1 {
        return Some(text.parse::<Ipv4Addr>().ok()?.into());
    }
    let address = match text.split_once('%') {
        Some((_, "")) => return None,
        Some((address, _scope)) => address,
        None => text,
    };
    Some(address.parse::<Ipv6Addr>().ok()?.into())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a panic fails the test")]
mod tests {
    extern crate std;
    use std::{format, vec::Vec};

    use proptest::prelude::*;

    use super::*;

    fn v6(text: &str) -> Address {
        text.parse::<Ipv6Addr>().map(Address::from).unwrap()
    }

    #[test]
    fn c2_both_families_and_any_delimiter() {
        let v4 = Address::from(Ipv4Addr::new(192, 0, 2, 1));
        for (text, address, port) in [
            ("EPRT |1|192.0.2.1|6275|", v4, 6275),
            ("EPRT !1!192.0.2.1!6275!", v4, 6275),
            ("EPRT ~1~192.0.2.1~1~", v4, 1),
            ("EPRT  |1|192.0.2.1|65535| ", v4, 65535),
            ("EPRT |2|2001:db8::1|5282|", v6("2001:db8::1"), 5282),
            ("EPRT |2|::1|00022|", v6("::1"), 22),
            ("EPRT |2|::ffff:192.0.2.1|5282|", v4, 5282),
            ("EPRT |2|fe80::1%eth0|5282|", v6("fe80::1"), 5282),
        ] {
            let port = Port::new(port);
            assert_eq!(
                argument(text.as_bytes(), 4),
                Ok(Target { address, port }),
                "{text:?}"
            );
        }
    }

    #[test]
    fn c2_anything_else_is_malformed_and_says_where() {
        for (text, fault, at) in [
            ("EPRT", Fault::Missing, 4),
            ("EPRT 111192.0.2.111", Fault::DelimiterExpected, 5),
            ("EPRT \x7f1\x7f::1\x7f5\x7f", Fault::DelimiterExpected, 5),
            ("EPRT |3|::1|5000|", Fault::UnknownFamily, 6),
            ("EPRT ||::1|5000|", Fault::DigitExpected, 6),
            ("EPRT |1!::1|5000|", Fault::DelimiterExpected, 7),
            ("EPRT |1|::1|5000|", Fault::BadAddress, 8),
            ("EPRT |1|1.2.3|5000|", Fault::BadAddress, 8),
            ("EPRT |1|1.2.3.256|5000|", Fault::BadAddress, 8),
            ("EPRT |1|host|5000|", Fault::BadAddress, 8),
            ("EPRT |2|1.2.3.4|5000|", Fault::BadAddress, 8),
            ("EPRT |2|fe80::1%|5000|", Fault::BadAddress, 8),
            ("EPRT |1|1.2.3.4", Fault::DelimiterExpected, 15),
            ("EPRT |1|1.2.3.4|0|", Fault::PortZero, 16),
            ("EPRT |1|1.2.3.4|65536|", Fault::NumberTooLarge, 16),
            ("EPRT |1|1.2.3.4|000022|", Fault::NumberTooLarge, 16),
            ("EPRT |1|1.2.3.4|-5|", Fault::Signed, 16),
            ("EPRT |1|1.2.3.4|5000", Fault::DelimiterExpected, 20),
            ("EPRT |1|1.2.3.4|5000|x", Fault::TrailingBytes, 21),
        ] {
            let error = argument(text.as_bytes(), 4);
            assert_eq!(error, Err(fault.at(at)), "{text:?}");
        }
    }

    #[test]
    fn r5_the_port_stands_after_three_delimiters() {
        for text in [
            "229 Entering Extended Passive Mode (|||5000|)",
            "229 Entering Extended Passive Mode (|||5000|).",
            "229 (!!!5000!)",
            "229 (|1|10.0.0.1|5000|)",
            "229 (|2|2001:db8::1|5000|)",
            "229 Entering (extended) passive mode (|||5000|)",
            "229 (really) ((|||5000|)",
            "229 (|||5000|) (|||5000|)",
            "229 (|||5000|) (|||0|)",
            "229 (|||05000|)",
        ] {
            assert_eq!(reply(text.as_bytes()), Ok(Port::new(5000)), "{text:?}");
        }
    }

    #[test]
    fn r5_other_ports_and_delimiters_are_refused() {
        for (text, fault, at) in [
            ("229 ", Fault::Missing, 4),
            ("229 no parentheses |||5000|", Fault::Missing, 27),
            ("229 (|||0|)", Fault::PortZero, 8),
            ("229 (|||65536|)", Fault::NumberTooLarge, 8),
            ("229 (|||-1|)", Fault::Signed, 8),
            ("229 (||||)", Fault::DigitExpected, 8),
            ("229 (|||5000)", Fault::DelimiterExpected, 12),
            ("229 (|||5000|", Fault::ParenthesisExpected, 13),
            ("229 (|||5000!)", Fault::DelimiterExpected, 12),
            ("229 (||!5000|)", Fault::Missing, 14),
            ("229 (11150001)", Fault::Missing, 14),
            ("229 (   5000 )", Fault::Missing, 14),
            ("229 (|||0|) (|||5000|)", Fault::PortZero, 8),
            ("229 (|||5000|) (|||5001|)", Fault::Ambiguous, 14),
        ] {
            assert_eq!(reply(text.as_bytes()), Err(fault.at(at)), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_formatted_parses_back(
            v4: Ipv4Addr, v6: Ipv6Addr, number in 1u16.., d in "[!-/:-@G-Z\\[-`g-z{-~]"
        ) {
            let port = Port::new(number);
            // A delimiter that addresses contain would be ambiguous.
            prop_assume!(d != "." && d != ":");
            let line = format!("EPRT {d}1{d}{v4}{d}{number}{d}");
            prop_assert_eq!(argument(line.as_bytes(), 4), Ok(Target { address: v4.into(), port }));
            let line = format!("EPRT {d}2{d}{v6}{d}{number}{d}");
            prop_assert_eq!(argument(line.as_bytes(), 4), Ok(Target { address: v6.into(), port }));
            let line = format!("229 Entering Extended Passive Mode ({d}{d}{d}{number}{d})");
            prop_assert_eq!(reply(line.as_bytes()), Ok(port));
        }

        #[test]
        fn no_bytes_make_it_panic(line: Vec<u8>, at in 0usize..80) {
            let _ = argument(&line, at);
            let _ = reply(&line);
        }

        #[test]
        fn no_delimiters_make_it_panic(line in "229 [0-9|!(). :%a-f-]{0,60}", at in 0usize..80) {
            let _ = argument(line.as_bytes(), at);
            let _ = reply(line.as_bytes());
        }
    }
}
