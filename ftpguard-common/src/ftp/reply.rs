//! Replies (RFC 959 section 4.2, RFC 1123 section 4.1.2.6, RFC 2428, RFC 1639). Rules S4, S6 and
//! R1 to R6.

use core::fmt;

use super::{
    argument::{ArgumentError, Fault},
    command::DataCommand,
    extended, host_port,
    line::{Defect, Line},
    long,
};
use crate::net::{Address, Port};

/// How many lines a block may have before the dialogue is given up (rule R3).
pub const MAX_BLOCK_LINES: u16 = 10_000;

/// A reply code, 100 to 599.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Code(u16);

impl Code {
    /// The code's number.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }

    /// 1xx: another reply to the same command follows.
    #[must_use]
    pub const fn is_preliminary(self) -> bool {
        self.0 < 200
    }

    /// 2xx: the command was accepted and carried out.
    #[must_use]
    pub const fn is_completion(self) -> bool {
        self.0 / 100 == 2
    }

    /// The command whose port this code announces: 227, 228 or 229.
    #[must_use]
    pub const fn announces(self) -> Option<DataCommand> {
        match self.0 {
            227 => Some(DataCommand::Pasv),
            228 => Some(DataCommand::Lpsv),
            229 => Some(DataCommand::Epsv),
            _ => None,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where the ftpd says it listens: what a 227, 228 or 229 announces. The port is never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The port.
    pub port: Port,
    /// The address; 229 has none. For hints only (rule R7).
    pub address: Option<Address>,
}

/// One line of the ftpd, on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyLine {
    /// `NNN text`: a reply, or the end of a block.
    Ends(Reply),
    /// `NNN-text`: opens a block, unless one is open.
    Opens(Code),
    /// Any other line.
    Text,
}

/// One reply, single line or last line of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its code.
    pub code: Code,
    /// What it announces, where the code is 227, 228 or 229.
    pub announcement: Option<Result<Announcement, ArgumentError>>,
}

impl ReplyLine {
    /// Reads a line of the ftpd (rule R1).
    #[must_use]
    pub fn parse(line: Line<'_>) -> Self {
        let &[
            a @ b'1'..=b'5',
            b @ b'0'..=b'9',
            c @ b'0'..=b'9',
            separator @ (b' ' | b'-'),
            ..,
        ] = line.text
        else {
            return Self::Text;
        };
        let digit = |byte: u8| u16::from(byte - b'0');
        let code = Code(digit(a) * 100 + digit(b) * 10 + digit(c));
        if separator == b'-' {
            return Self::Opens(code);
        }
        let announcement = code.announces().map(|command| announcement(command, line));
        Self::Ends(Reply { code, announcement })
    }
}

fn announcement(command: DataCommand, line: Line<'_>) -> Result<Announcement, ArgumentError> {
    match line.defect {
        Some(Defect::Tainted) => return Err(Fault::Tainted.at(4)),
        Some(Defect::TooLong) => return Err(Fault::LineTooLong.at(4)),
        None => {}
    }
    if command == DataCommand::Epsv {
        return Ok(Announcement {
            port: extended::reply(line.text)?,
            address: None,
        });
    }
    let target = if command == DataCommand::Lpsv {
        long::reply(line.text)?
    } else {
        host_port::reply(line.text)?
    };
    Ok(Announcement {
        port: target.port,
        address: Some(target.address),
    })
}

/// Replies out of lines: nothing within a block counts, whatever it looks like (rule R2).
#[derive(Clone, Copy, Debug, Default)]
pub struct Blocks {
    open: Option<Block>,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    code: Code,
    lines: u16,
    /// The client has sent a command since the block was opened.
    command_seen: bool,
}

/// What one line of the ftpd amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing yet.
    Nothing,
    /// A whole reply.
    Reply(Reply),
    /// A reply that shows that the block before it was never closed (rule R3).
    ReplyAfterOpenBlock(Reply),
    /// The block has become longer than any (rule R3). It stays open.
    EndlessBlock,
}

impl Blocks {
    /// Outside any block.
    pub const OUTSIDE: Self = Self { open: None };

    /// Takes the ftpd's next line.
    pub fn line(&mut self, line: ReplyLine) -> Outcome {
        let Some(block) = &mut self.open else {
            return match line {
                ReplyLine::Ends(reply) => Outcome::Reply(reply),
                ReplyLine::Opens(code) => {
                    self.open = Some(Block {
                        code,
                        lines: 1,
                        command_seen: false,
                    });
                    Outcome::Nothing
                }
                ReplyLine::Text => Outcome::Nothing,
            };
        };
        if let ReplyLine::Ends(reply) = line {
            if reply.code == block.code {
                self.open = None;
                return Outcome::Reply(reply);
            }
            if block.command_seen && !reply.code.is_preliminary() {
                self.open = None;
                return Outcome::ReplyAfterOpenBlock(reply);
            }
        }
        if block.lines == MAX_BLOCK_LINES {
            return Outcome::Nothing;
        }
        block.lines += 1;
        if block.lines == MAX_BLOCK_LINES {
            return Outcome::EndlessBlock;
        }
        Outcome::Nothing
    }

    /// The client has sent a command.
    pub fn command(&mut self) {
        if let Some(block) = &mut self.open {
            block.command_seen = true;
        }
    }

    /// Whether a block is open.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.open.is_some()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a panic fails the test")]
mod tests {
    extern crate std;
    use std::{format, vec::Vec};

    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> ReplyLine {
        ReplyLine::parse(Line::of(text.as_bytes()))
    }

    fn codes(lines: &[&str]) -> Vec<u16> {
        let mut blocks = Blocks::OUTSIDE;
        lines
            .iter()
            .filter_map(|line| match blocks.line(parse(line)) {
                Outcome::Reply(reply) => Some(reply.code.number()),
                Outcome::Nothing => None,
                Outcome::ReplyAfterOpenBlock(_) | Outcome::EndlessBlock => panic!("{line}"),
            })
            .collect()
    }

    #[test]
    fn r1_a_reply_is_a_code_and_a_separator() {
        for (text, number) in [("220 ready", 220), ("199 ", 199), ("599 x", 599)] {
            let ReplyLine::Ends(reply) = parse(text) else {
                panic!("{text:?}");
            };
            assert_eq!(reply.code.number(), number);
        }
        assert_eq!(parse("220-x"), ReplyLine::Opens(Code(220)));
        assert_eq!(parse("220-"), ReplyLine::Opens(Code(220)));
        for text in [
            "", "220", "22 x", "2200 x", " 220 x", "020 x", "620 x", "22a x", "220\tx", "abc x",
        ] {
            assert_eq!(parse(text), ReplyLine::Text, "{text:?}");
        }
    }

    #[test]
    fn r2_a_block_ends_only_at_its_own_code_and_a_space() {
        assert_eq!(
            codes(&[
                "211-Status",
                " 211 indented",
                "211-211 again",
                "227 (1,2,3,4,5,6)",
                "212 other",
                "211",
                "211 End",
                "226 Done",
            ]),
            [211, 226]
        );
    }

    #[test]
    fn r1_lines_outside_a_block_that_are_no_reply_are_ignored() {
        assert_eq!(codes(&["hello", "(1,2,3,4,5,6)", "200 ok"]), [200]);
    }

    #[test]
    fn r2_the_last_line_of_a_block_is_the_reply() {
        let mut blocks = Blocks::OUTSIDE;
        assert_eq!(blocks.line(parse("227-(9,9,9,9,9,9)")), Outcome::Nothing);
        let Outcome::Reply(reply) = blocks.line(parse("227 (1,2,3,4,5,6)")) else {
            panic!();
        };
        let announcement = reply.announcement.unwrap().unwrap();
        assert_eq!(announcement.port.number(), 0x0506);
    }

    #[test]
    fn r3_another_code_after_a_command_closes_an_open_block() {
        let mut blocks = Blocks::OUTSIDE;
        assert_eq!(blocks.line(parse("230-Welcome")), Outcome::Nothing);
        assert_eq!(blocks.line(parse("226 end")), Outcome::Nothing);
        assert!(blocks.is_open());
        blocks.command();
        assert_eq!(blocks.line(parse("text")), Outcome::Nothing);
        assert_eq!(blocks.line(parse("150 preliminary")), Outcome::Nothing);
        assert!(matches!(
            blocks.line(parse("200 ok")),
            Outcome::ReplyAfterOpenBlock(_)
        ));
        assert!(!blocks.is_open());
    }

    #[test]
    fn r3_a_block_of_ten_thousand_lines_is_reported_once_and_stays_open() {
        let mut blocks = Blocks::OUTSIDE;
        blocks.line(parse("211-Status"));
        for _ in 2..MAX_BLOCK_LINES {
            assert_eq!(blocks.line(parse("file")), Outcome::Nothing);
        }
        assert_eq!(blocks.line(parse("file")), Outcome::EndlessBlock);
        assert_eq!(blocks.line(parse("file")), Outcome::Nothing);
        assert!(matches!(blocks.line(parse("211 End")), Outcome::Reply(_)));
    }

    #[test]
    fn r4_r5_r6_each_code_has_its_own_form() {
        let read = |text| match parse(text) {
            ReplyLine::Ends(reply) => reply.announcement.map(|read| read.map(|read| read.port)),
            ReplyLine::Opens(_) | ReplyLine::Text => panic!("{text}"),
        };
        let port = Some(Ok(Port::new(5001)));
        assert_eq!(read("227 (192,0,2,1,19,137)"), port);
        assert_eq!(read("228 (4,4,192,0,2,1,2,19,137)"), port);
        assert_eq!(read("229 (|||5001|)"), port);
        assert_eq!(read("226 (|||5001|)"), None);
        assert!(matches!(read("229 (192,0,2,1,19,137)"), Some(Err(_))));
        assert!(matches!(read("227 (|||5001|)"), Some(Err(_))));
    }

    #[test]
    fn s4_s6_a_line_with_a_defect_counts_but_announces_nothing() {
        for (defect, fault) in [
            (Defect::Tainted, Fault::Tainted),
            (Defect::TooLong, Fault::LineTooLong),
        ] {
            let line = ReplyLine::parse(Line {
                text: b"227 (1,2,3,4,5,6)",
                defect: Some(defect),
            });
            let expected = Reply {
                code: Code(227),
                announcement: Some(Err(fault.at(4))),
            };
            assert_eq!(line, ReplyLine::Ends(expected));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(lines: Vec<(Vec<u8>, bool)>) {
            let mut blocks = Blocks::OUTSIDE;
            for (line, command) in lines {
                blocks.line(ReplyLine::parse(Line::of(&line)));
                if command {
                    blocks.command();
                }
            }
        }

        #[test]
        fn codes_are_read_as_written(number in 100u16..600) {
            prop_assert_eq!(parse(&format!("{number}-x")), ReplyLine::Opens(Code(number)));
        }
    }
}
