//! Lines out of bytes (RFC 959 section 5.3.1). Rules S1, S3, S4, S5 and S6.

use core::fmt;

use super::telnet::{Step, Telnet};

/// The longest command line, in bytes before its LF (rule S6).
pub const COMMAND_LIMIT: usize = 4096;
/// The longest reply line, in bytes before its LF (rule S6).
pub const REPLY_LIMIT: usize = 8192;
/// How much of a line beyond its limit is kept: a reply's code and what follows it.
pub const KEPT_OF_LONG_LINE: usize = 4;

/// One line, without its LF and the CRs before it, and without Telnet sequences.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// The line; its first [`KEPT_OF_LONG_LINE`] bytes where it is [`Defect::TooLong`].
    pub text: &'a [u8],
    /// What makes the line unfit for reading arguments from it.
    pub defect: Option<Defect>,
}

/// What makes a line unfit for reading arguments from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Defect {
    /// It contains a NUL, which some ftpds take for a line end (rule S4), or a Telnet
    /// subnegotiation without end (rule S5).
    Tainted,
    /// It is longer than the limit (rule S6).
    TooLong,
}

impl<'a> Line<'a> {
    /// A line without defect.
    #[must_use]
    pub const fn of(text: &'a [u8]) -> Self {
        Self { text, defect: None }
    }
}

/// Cuts one direction of a control connection into lines, however the bytes come (rule S1).
///
/// Uses `LIMIT` bytes and a few more, never any other memory. Lines are wiped once they have
/// been parsed, because a line may hold a password (rule S10).
pub struct LineReader<const LIMIT: usize> {
    bytes: [u8; LIMIT],
    /// Bytes of the line in progress; more than `LIMIT` where it is too long.
    length: usize,
    tainted: bool,
    /// The beginning of this line was not seen: it counts for nothing.
    headless: bool,
    telnet: Telnet,
    first: Option<u8>,
}

impl<const LIMIT: usize> LineReader<LIMIT> {
    /// A reader at the beginning of a line.
    #[must_use]
    pub const fn new() -> Self {
        const { assert!(LIMIT >= KEPT_OF_LONG_LINE && LIMIT < u16::MAX as usize) };
        Self {
            bytes: [0; LIMIT],
            length: 0,
            tainted: false,
            headless: false,
            telnet: Telnet::TEXT,
            first: None,
        }
    }

    /// Takes bytes off `input` up to the end of the next line, and has that line parsed.
    ///
    /// `None` once `input` is used up.
    pub fn next<T>(&mut self, input: &mut &[u8], parse: impl FnOnce(Line<'_>) -> T) -> Option<T> {
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            match self.telnet.step(byte) {
                Step::Data(b'\n') if self.headless => self.begin(),
                Step::Data(b'\n') => {
                    self.first.get_or_insert(b'\n');
                    let parsed = parse(self.line());
                    self.begin();
                    return Some(parsed);
                }
                Step::Data(byte) => self.push(byte),
                Step::Sequence => {}
                Step::Endless => self.tainted = true,
            }
        }
        None
    }

    /// Bytes were lost here: nothing counts until the next LF.
    pub fn lose(&mut self) {
        self.begin();
        self.headless = true;
        self.telnet = Telnet::TEXT;
    }

    /// Whether a line has begun and not ended yet.
    #[must_use]
    pub const fn is_within_line(&self) -> bool {
        self.length > 0 || self.headless || self.tainted
    }

    /// The first byte of text that this reader was ever given.
    #[must_use]
    pub const fn first_byte(&self) -> Option<u8> {
        self.first
    }

    fn push(&mut self, byte: u8) {
        self.first.get_or_insert(byte);
        self.tainted |= byte == 0;
        if let Some(slot) = self.bytes.get_mut(self.length) {
            *slot = byte;
        }
        self.length = (self.length + 1).min(LIMIT + 1);
    }

    fn line(&self) -> Line<'_> {
        if self.length > LIMIT {
            return Line {
                text: self.bytes.get(..KEPT_OF_LONG_LINE).unwrap_or_default(),
                defect: Some(Defect::TooLong),
            };
        }
        let mut text = self.bytes.get(..self.length).unwrap_or_default();
        while let Some((b'\r', before)) = text.split_last() {
            text = before;
        }
        Line {
            text,
            defect: self.tainted.then_some(Defect::Tainted),
        }
    }

    fn begin(&mut self) {
        let used = self.length.min(LIMIT);
        if let Some(used) = self.bytes.get_mut(..used) {
            used.fill(0);
        }
        self.length = 0;
        self.tainted = false;
        self.headless = false;
    }
}

impl<const LIMIT: usize> Default for LineReader<LIMIT> {
    fn default() -> Self {
        Self::new()
    }
}

/// Prints no text: it may be a password (rule S10).
impl<const LIMIT: usize> fmt::Debug for LineReader<LIMIT> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineReader")
            .field("length", &self.length)
            .field("tainted", &self.tainted)
            .field("headless", &self.headless)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::{vec, vec::Vec};

    use super::*;

    type Read = (Vec<u8>, Option<Defect>);

    fn read<const LIMIT: usize>(pieces: &[&[u8]]) -> Vec<Read> {
        let mut reader = LineReader::<LIMIT>::new();
        let mut lines = Vec::new();
        for mut piece in pieces.iter().copied() {
            while let Some(line) = reader.next(&mut piece, |line| (line.text.to_vec(), line.defect))
            {
                lines.push(line);
            }
        }
        lines
    }

    fn fine(text: &[u8]) -> Read {
        (text.to_vec(), None)
    }

    #[test]
    fn s1_cuts_carry_no_meaning() {
        let bytes = b"USER a\r\nPA\xff\xf4\xff\xf2SV\nX\0\r\n";
        let whole = read::<16>(&[bytes]);
        assert_eq!(whole.len(), 3);
        for cut in 0..bytes.len() {
            let (a, b) = bytes.split_at(cut);
            assert_eq!(read::<16>(&[a, b]), whole, "cut at {cut}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(read::<16>(&single), whole);
    }

    #[test]
    fn s3_a_line_ends_at_lf_and_loses_the_crs_before_it() {
        assert_eq!(
            read::<16>(&[b"a\nb\r\nc\r\r\r\nd\re\r\n\n"]),
            [fine(b"a"), fine(b"b"), fine(b"c"), fine(b"d\re"), fine(b"")]
        );
    }

    #[test]
    fn s4_nul_ends_no_line_and_taints_it() {
        assert_eq!(
            read::<16>(&[b"NOOP\0PASV\r\nPASV\n"]),
            [
                (b"NOOP\0PASV".to_vec(), Some(Defect::Tainted)),
                fine(b"PASV")
            ]
        );
    }

    #[test]
    fn s5_telnet_sequences_vanish() {
        for (bytes, text) in [
            (&b"\xff\xf4\xff\xf2ABOR\r\n"[..], &b"ABOR"[..]),
            (b"A\xff\xfb\x01B\xff\xfe\xffC\n", b"ABC"),
            (b"A\xff\xffB\n", b"A\xffB"),
            (b"A\xff\xfa\x18\x00x\ny\xff\xff\xff\xf0B\n", b"AB"),
        ] {
            assert_eq!(read::<16>(&[bytes]), [fine(text)]);
        }
    }

    #[test]
    fn s5_an_endless_subnegotiation_hides_nothing_and_taints_the_line() {
        let mut bytes = b"X\xff\xfa".to_vec();
        bytes.extend(vec![b'x'; 513]);
        bytes.extend(b"PASV\r\nNOOP\r\n");
        assert_eq!(
            read::<16>(&[&bytes]),
            [(b"XPASV".to_vec(), Some(Defect::Tainted)), fine(b"NOOP")]
        );
    }

    #[test]
    fn s6_a_line_at_the_limit_is_whole_and_beyond_it_leaves_four_bytes() {
        assert_eq!(read::<8>(&[b"12345678\n"]), [fine(b"12345678")]);
        // The CR counts.
        assert_eq!(read::<8>(&[b"1234567\r\n"]), [fine(b"1234567")]);
        let long = [(b"1234".to_vec(), Some(Defect::TooLong)), fine(b"next")];
        assert_eq!(read::<8>(&[b"123456789\nnext\n"]), long);
        assert_eq!(read::<8>(&[b"12345678\r\nnext\n"]), long);
        assert_eq!(read::<8>(&[b"123456789\0\nnext\n"]), long);
        assert_eq!((COMMAND_LIMIT, REPLY_LIMIT), (4096, 8192));
    }

    #[test]
    fn s10_a_parsed_line_is_wiped_and_debug_shows_no_text() {
        let mut reader = LineReader::<64>::new();
        let mut bytes = &b"PASS secret\r\nPASS secr"[..];
        assert_eq!(reader.next(&mut bytes, |_| ()), Some(()));
        assert!(reader.bytes.iter().all(|&byte| byte == 0));
        assert_eq!(reader.next(&mut bytes, |_| ()), None);
        let shown = std::format!("{reader:?}");
        assert!(!shown.contains("secr") && !shown.contains("115"), "{shown}");
    }

    #[test]
    fn a_line_with_a_lost_part_counts_for_nothing() {
        let mut reader = LineReader::<64>::new();
        assert_eq!(reader.next(&mut &b"PA"[..], |_| ()), None);
        reader.lose();
        let mut bytes = &b"SV\r\nNOOP\r\n"[..];
        assert_eq!(
            reader.next(&mut bytes, |line| line.text.to_vec()),
            Some(b"NOOP".to_vec())
        );
    }
}
