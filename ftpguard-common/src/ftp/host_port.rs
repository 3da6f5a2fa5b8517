//! Six decimals: the argument of `PORT` (RFC 959 section 4.1.2) and the reply 227 (RFC 1123
//! section 4.1.2.6). Rules C1 and R4.

use core::net::Ipv4Addr;

use super::{
    argument::{ArgumentError, Fault, Target},
    cursor::Cursor,
};
use crate::net::Port;

/// Reads the argument of `PORT`, which begins at the given byte of the line (rule C1).
///
/// Six decimals from 0 to 255 and five commas, with spaces around them and nothing else.
pub fn argument(line: &[u8], at: usize) -> Result<Target, ArgumentError> {
    let mut cursor = Cursor::argument(line, at);
    if cursor.peek().is_none() {
        return Err(Fault::Missing.at(cursor.at));
    }
    let target = six_decimals(&mut cursor, Blanks::Refused)?;
    if cursor.peek() == Some(b',') {
        return Err(Fault::TooManyNumbers.at(cursor.at));
    }
    cursor.expect_end()?;
    Ok(target)
}

/// Reads a 227 line, code included (rule R4).
///
/// The address is what the ftpd says of itself; it is used for nothing but a hint (rule R7).
pub fn reply(line: &[u8]) -> Result<Target, ArgumentError> {
    let mut cursor = Cursor::new(line, 4);
    if !skip_to_digit(&mut cursor) {
        return Err(Fault::Missing.at(cursor.at));
    }
    let before = cursor.at.checked_sub(1).and_then(|at| line.get(at));
    if let Some(b'+' | b'-') = before {
        return Err(Fault::Signed.at(cursor.at - 1));
    }
    let target = reply_tuple(&mut cursor)?;
    // Clients differ in which of two tuples they take.
    while skip_to_digit(&mut cursor) {
        let start = cursor.at;
        match reply_tuple(&mut cursor) {
            Ok(other) if other != target => return Err(Fault::Ambiguous.at(start)),
            Ok(_) => {}
            Err(_) => {
                cursor.at = start;
                skip_digits(&mut cursor);
            }
        }
    }
    Ok(target)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Blanks {
    Refused,
    /// One after each comma.
    Tolerated,
}

fn six_decimals(cursor: &mut Cursor<'_>, blanks: Blanks) -> Result<Target, ArgumentError> {
    let mut numbers = [0; 6];
    let mut port_at = cursor.at;
    for (index, number) in numbers.iter_mut().enumerate() {
        if index > 0 {
            cursor.expect(b',', Fault::CommaExpected)?;
            if blanks == Blanks::Tolerated {
                cursor.take(b' ');
            }
        }
        if index == 4 {
            port_at = cursor.at;
        }
        *number = cursor.octet()?;
    }
    let [a, b, c, d, high, low] = numbers;
    let port = Port::new(u16::from_be_bytes([high, low]));
    if port == Port::NONE {
        return Err(Fault::PortZero.at(port_at));
    }
    Ok(Target {
        address: Ipv4Addr::new(a, b, c, d).into(),
        port,
    })
}

fn reply_tuple(cursor: &mut Cursor<'_>) -> Result<Target, ArgumentError> {
    let target = six_decimals(cursor, Blanks::Tolerated)?;
    let mut after = *cursor;
    if after.take(b',') {
        after.take(b' ');
        if matches!(after.peek(), Some(b'0'..=b'9')) {
            return Err(Fault::TooManyNumbers.at(after.at));
        }
    }
    Ok(target)
}

fn skip_to_digit(cursor: &mut Cursor<'_>) -> bool {
    let skipped = cursor.rest().iter().position(u8::is_ascii_digit);
    cursor.at += skipped.unwrap_or(cursor.rest().len());
    skipped.is_some()
}

fn skip_digits(cursor: &mut Cursor<'_>) {
    while let Some(b'0'..=b'9') = cursor.peek() {
        cursor.at += 1;
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::format;

    use proptest::prelude::*;

    use super::*;

    fn target(address: [u8; 4], port: u16) -> Target {
        Target {
            address: Ipv4Addr::from(address).into(),
            port: Port::new(port),
        }
    }

    #[test]
    fn c1_six_decimals_with_spaces_around_them() {
        for text in [
            "PORT 1,2,3,4,5,6",
            "PORT   1,2,3,4,5,6  ",
            "PORT 001,02,3,4,5,006",
        ] {
            assert_eq!(
                argument(text.as_bytes(), 4),
                Ok(target([1, 2, 3, 4], 0x0506)),
                "{text:?}"
            );
        }
    }

    #[test]
    fn c1_anything_else_is_malformed_and_says_where() {
        for (text, fault, at) in [
            ("PORT", Fault::Missing, 4),
            ("PORT   ", Fault::Missing, 4),
            ("PORT a,127,0,0,1,0,22", Fault::DigitExpected, 5),
            ("PORT 1,2,3,4,5", Fault::CommaExpected, 14),
            ("PORT 1,2,3,4,5,", Fault::DigitExpected, 15),
            ("PORT 1,2,3,4,5,256", Fault::NumberTooLarge, 15),
            ("PORT 1,2,3,4,5,0006", Fault::NumberTooLarge, 15),
            ("PORT 1,2,3,4,5,99999999999", Fault::NumberTooLarge, 15),
            ("PORT 1,2,3,4,5,6,7", Fault::TooManyNumbers, 16),
            ("PORT 1,2,3,4,5,6 7", Fault::TrailingBytes, 16),
            ("PORT 1,2,3,4,5,6\r", Fault::TrailingBytes, 16),
            ("PORT (1,2,3,4,5,6)", Fault::DigitExpected, 5),
            ("PORT 1, 2,3,4,5,6", Fault::DigitExpected, 7),
            ("PORT 1 ,2,3,4,5,6", Fault::CommaExpected, 6),
            ("PORT +1,2,3,4,5,6", Fault::Signed, 5),
            ("PORT 1,-2,3,4,5,6", Fault::Signed, 7),
            ("PORT 1,,3,4,5,6", Fault::DigitExpected, 7),
            ("PORT 1,2,3,4,0,0", Fault::PortZero, 13),
        ] {
            let error = argument(text.as_bytes(), 4);
            assert_eq!(error, Err(fault.at(at)), "{text:?}");
        }
    }

    #[test]
    fn r4_parentheses_and_prefixes_are_optional() {
        for text in [
            "227 Entering Passive Mode (1,2,3,4,5,6)",
            "227 Entering Passive Mode (1,2,3,4,5,6).",
            "227 Entering Passive Mode 1,2,3,4,5,6",
            "227 =1,2,3,4,5,6",
            "227 1, 2, 3, 4, 5, 6",
            "227 (001,002,003,4,5,006) port 1286 is yours",
            "227 (1,2,3,4,5,6), thank you",
            "227 (1,2,3,4,5,6) (1,2,3,4,5,6)",
            "227 (1,2,3,4,5,6) 7,8,9",
            "227 (1,2,3,4,5,6) 300,2,3,4,5,6 and 1,2,3,4,5,x",
        ] {
            assert_eq!(
                reply(text.as_bytes()),
                Ok(target([1, 2, 3, 4], 0x0506)),
                "{text:?}"
            );
        }
    }

    #[test]
    fn r4_signs_large_missing_and_second_numbers_are_refused() {
        for (text, fault, at) in [
            ("227 ", Fault::Missing, 4),
            ("227 Entering Passive Mode", Fault::Missing, 25),
            ("227 (-1,2,3,4,5,6)", Fault::Signed, 5),
            ("227 +1,2,3,4,5,6", Fault::Signed, 4),
            ("227 1,-2,3,4,5,6", Fault::Signed, 6),
            ("227 (256,2,3,4,5,6)", Fault::NumberTooLarge, 5),
            ("227 (1,2,3,4,5,1000)", Fault::NumberTooLarge, 15),
            ("227 (1,2,3,4,5)", Fault::CommaExpected, 14),
            ("227 1,  2,3,4,5,6", Fault::DigitExpected, 7),
            ("227 1 ,2,3,4,5,6", Fault::CommaExpected, 5),
            ("227 1,2,3,4,5,6,7", Fault::TooManyNumbers, 16),
            ("227 v2 (1,2,3,4,5,6)", Fault::CommaExpected, 6),
            ("227 1,2,3,4,5,6 1,2,3,4,5,7", Fault::Ambiguous, 16),
            ("227 1,2,3,4,5,6 9,1,2,3,4,5,6,8", Fault::Ambiguous, 20),
            ("227 1,2,3,4,0,0", Fault::PortZero, 12),
        ] {
            assert_eq!(reply(text.as_bytes()), Err(fault.at(at)), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_formatted_parses_back(address: [u8; 4], port in 1u16.., spaces in 0usize..3) {
            let [a, b, c, d] = address;
            let [high, low] = port.to_be_bytes();
            let tuple = format!("{a},{b},{c},{d},{high},{low}");
            let blanks = " ".repeat(spaces);
            let port_line = format!("PORT {blanks}{tuple}{blanks}");
            prop_assert_eq!(argument(port_line.as_bytes(), 4), Ok(target(address, port)));
            for line in [
                format!("227 Entering Passive Mode ({tuple})"),
                format!("227 ={tuple}"),
                format!("227 {}", tuple.replace(',', ", ")),
            ] {
                prop_assert_eq!(reply(line.as_bytes()), Ok(target(address, port)));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(line: std::vec::Vec<u8>, at in 0usize..80) {
            let _ = argument(&line, at);
            let _ = reply(&line);
        }

        #[test]
        fn no_numbers_make_it_panic(line in "227 [0-9, +()-]{0,60}", at in 0usize..80) {
            let _ = argument(line.as_bytes(), at);
            let _ = reply(line.as_bytes());
        }
    }
}
