//! A position in a line, for the grammars that read arguments.

use super::argument::{ArgumentError, Fault};

/// A line and how far it has been read.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    line: &'a [u8],
    /// The next byte to read.
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor at the given byte of a line.
    pub(super) fn new(line: &'a [u8], at: usize) -> Self {
        Self { line, at }
    }

    /// The argument of a command, without the spaces around it.
    pub(super) fn argument(line: &'a [u8], at: usize) -> Self {
        let mut end = line.len();
        while end > at && line.get(end - 1) == Some(&b' ') {
            end -= 1;
        }
        let mut cursor = Self::new(line.get(..end).unwrap_or(line), at);
        while cursor.take(b' ') {}
        cursor
    }

    /// The next byte, if there is one.
    pub(super) fn peek(&self) -> Option<u8> {
        self.line.get(self.at).copied()
    }

    /// What has not been read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.line.get(self.at..).unwrap_or_default()
    }

    /// Reads the next byte if it is this one.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Reads this byte, or fails with the fault.
    pub(super) fn expect(&mut self, byte: u8, fault: Fault) -> Result<(), ArgumentError> {
        if self.take(byte) {
            Ok(())
        } else {
            Err(fault.at(self.at))
        }
    }

    /// Fails where anything is left.
    pub(super) fn expect_end(&self) -> Result<(), ArgumentError> {
        if self.peek().is_some() {
            return Err(Fault::TrailingBytes.at(self.at));
        }
        Ok(())
    }

    /// Reads up to this byte, and the byte itself. What lies before it is returned.
    pub(super) fn until(&mut self, byte: u8) -> Option<&'a [u8]> {
        let rest = self.rest();
        let length = rest.iter().position(|&found| found == byte)?;
        self.at += length + 1;
        rest.get(..length)
    }

    /// Reads an unsigned decimal number of at most five digits, and no larger than `largest`.
    pub(super) fn decimal(&mut self, largest: u16) -> Result<u16, ArgumentError> {
        let start = self.at;
        let digits_allowed = if largest > 255 { 5 } else { 3 };
        let mut value = 0u32;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            if self.at - start == digits_allowed {
                return Err(Fault::NumberTooLarge.at(start));
            }
            value = value * 10 + u32::from(digit - b'0');
            self.at += 1;
        }
        if self.at == start {
            let fault = match self.peek() {
                Some(b'+' | b'-') => Fault::Signed,
                _ => Fault::DigitExpected,
            };
            return Err(fault.at(start));
        }
        match u16::try_from(value) {
            Ok(value) if value <= largest => Ok(value),
            _ => Err(Fault::NumberTooLarge.at(start)),
        }
    }

    /// Reads a number from 0 to 255.
    pub(super) fn octet(&mut self) -> Result<u8, ArgumentError> {
        let start = self.at;
        u8::try_from(self.decimal(255)?).map_err(|_| Fault::NumberTooLarge.at(start))
    }
}
