//! Commands (RFC 959 section 5.3, RFC 2428, RFC 1639, RFC 2228). Rules S4, S6, S7 and C1 to C3.

use core::fmt;

use super::{
    argument::{ArgumentError, Fault, Target},
    cursor::Cursor,
    extended, host_port,
    line::{Defect, Line},
    long,
};

/// One command line, as far as it matters for data connections.
///
/// No argument is kept except the one that names a data port (rule S10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// `PASV`, or `P@SW` as some address-rewriting proxies leave it. Its argument is ignored, as
    /// ftpds do.
    Pasv,
    /// `EPSV`, alone or with a protocol number (RFC 2428 section 3).
    Epsv,
    /// `EPSV ALL` (RFC 2428 section 4).
    EpsvAll,
    /// `LPSV` (RFC 1639).
    Lpsv,
    /// `PORT`, `EPRT` or `LPRT`, and what it asks for.
    Active(DataCommand, Target),
    /// A command that names a data port, with an argument that cannot be read (rule C1). The
    /// ftpd may read it nevertheless.
    Malformed(DataCommand, ArgumentError),
    /// `AUTH` (RFC 2228 section 3).
    Auth,
    /// `CCC` (RFC 2228 section 3).
    Ccc,
    /// `REIN`.
    Rein,
    /// `QUIT`.
    Quit,
    /// `ABOR`.
    Abor,
    /// `USER`.
    User,
    /// `PASS`.
    Pass,
    /// `STAT`.
    Stat,
    /// Any other command, and any line that is none.
    Other,
    /// A line beyond the limit (rule S6).
    TooLong,
}

/// A command that asks for a data connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DataCommand {
    /// `PASV` (RFC 959 section 4.1.2), answered by 227.
    Pasv,
    /// `EPSV` (RFC 2428 section 3), answered by 229.
    Epsv,
    /// `LPSV` (RFC 1639), answered by 228.
    Lpsv,
    /// `PORT` (RFC 959 section 4.1.2).
    Port,
    /// `EPRT` (RFC 2428 section 2).
    Eprt,
    /// `LPRT` (RFC 1639).
    Lprt,
}

impl DataCommand {
    /// The command's verb.
    #[must_use]
    pub const fn verb(self) -> &'static str {
        match self {
            Self::Pasv => "PASV",
            Self::Epsv => "EPSV",
            Self::Lpsv => "LPSV",
            Self::Port => "PORT",
            Self::Eprt => "EPRT",
            Self::Lprt => "LPRT",
        }
    }

    /// Whether the client connects: `PASV`, `EPSV`, `LPSV`.
    #[must_use]
    pub const fn is_passive(self) -> bool {
        matches!(self, Self::Pasv | Self::Epsv | Self::Lpsv)
    }
}

impl fmt::Display for DataCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.verb())
    }
}

impl Command {
    /// Reads a line of the client.
    #[must_use]
    pub fn parse(line: Line<'_>) -> Self {
        match line.defect {
            Some(Defect::TooLong) => return Self::TooLong,
            Some(Defect::Tainted) => return Self::Other,
            None => {}
        }
        let text = line.text;
        let verb_length = text
            .iter()
            .position(|&byte| byte == b' ')
            .unwrap_or(text.len());
        let Some(verb) = text.get(..verb_length).and_then(upper_case) else {
            return Self::Other;
        };
        match &verb {
            b"PASV" | b"P@SW" => Self::Pasv,
            b"EPSV" => extended_passive(text, verb_length),
            b"LPSV" => Self::Lpsv,
            b"PORT" => active(DataCommand::Port, host_port::argument(text, verb_length)),
            b"EPRT" => active(DataCommand::Eprt, extended::argument(text, verb_length)),
            b"LPRT" => active(DataCommand::Lprt, long::argument(text, verb_length)),
            b"AUTH" => Self::Auth,
            b"CCC\0" => Self::Ccc,
            b"REIN" => Self::Rein,
            b"QUIT" => Self::Quit,
            b"ABOR" => Self::Abor,
            b"USER" => Self::User,
            b"PASS" => Self::Pass,
            b"STAT" => Self::Stat,
            _ => Self::Other,
        }
    }

    /// Which data connection this asks for, if it asks for one; `EPSV ALL` does not.
    #[must_use]
    pub const fn data_command(&self) -> Option<DataCommand> {
        match *self {
            Self::Pasv => Some(DataCommand::Pasv),
            Self::Epsv => Some(DataCommand::Epsv),
            Self::Lpsv => Some(DataCommand::Lpsv),
            Self::Active(command, _) | Self::Malformed(command, _) => Some(command),
            Self::EpsvAll
            | Self::Auth
            | Self::Ccc
            | Self::Rein
            | Self::Quit
            | Self::Abor
            | Self::User
            | Self::Pass
            | Self::Stat
            | Self::Other
            | Self::TooLong => None,
        }
    }
}

/// The verb in upper case, filled up with NUL; `None` where it is longer than any known verb.
/// A line with a NUL never gets here, so the filling cannot be written by a client.
fn upper_case(verb: &[u8]) -> Option<[u8; 4]> {
    let mut upper = [0; 4];
    upper.get_mut(..verb.len())?.copy_from_slice(verb);
    upper.make_ascii_uppercase();
    Some(upper)
}

fn active(command: DataCommand, argument: Result<Target, ArgumentError>) -> Command {
    match argument {
        Ok(target) => Command::Active(command, target),
        Err(error) => Command::Malformed(command, error),
    }
}

fn extended_passive(text: &[u8], at: usize) -> Command {
    let mut argument = Cursor::argument(text, at);
    if argument.peek().is_none() {
        return Command::Epsv;
    }
    if argument.rest().eq_ignore_ascii_case(b"ALL") {
        return Command::EpsvAll;
    }
    let start = argument.at;
    let protocol = argument.decimal(u16::MAX);
    match protocol.and_then(|number| argument.expect_end().map(|()| number)) {
        Ok(1 | 2) => Command::Epsv,
        Ok(_) => Command::Malformed(DataCommand::Epsv, Fault::UnknownFamily.at(start)),
        Err(error) => Command::Malformed(DataCommand::Epsv, error),
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::*;
    use crate::net::Port;

    fn parse(text: &str) -> Command {
        Command::parse(Line::of(text.as_bytes()))
    }

    #[test]
    fn s7_verbs_are_read_in_either_case() {
        for (text, command) in [
            ("PASV", Command::Pasv),
            ("pasv", Command::Pasv),
            ("PaSv ", Command::Pasv),
            ("PASV ignored", Command::Pasv),
            ("P@SW", Command::Pasv),
            ("p@sw", Command::Pasv),
            ("LPSV", Command::Lpsv),
            ("AUTH TLS", Command::Auth),
            ("auth tls-c", Command::Auth),
            ("CCC", Command::Ccc),
            ("REIN", Command::Rein),
            ("QUIT", Command::Quit),
            ("ABOR", Command::Abor),
            ("USER anonymous", Command::User),
            ("PASS secret", Command::Pass),
            ("STAT -l", Command::Stat),
            ("RETR PASV", Command::Other),
            ("", Command::Other),
        ] {
            assert_eq!(parse(text), command, "{text:?}");
        }
    }

    #[test]
    fn s7_blanks_tabs_and_8_bit_bytes_make_another_verb() {
        for text in [
            " PASV",
            "\tPASV",
            "PASV\t",
            "PASVX",
            "PAS",
            "P\u{c1}SV",
            "\u{ff}PASV",
            "PASV\r",
        ] {
            assert_eq!(parse(text), Command::Other, "{text:?}");
        }
    }

    #[test]
    fn s4_a_line_with_nul_is_another_command() {
        for text in [&b"PASV\0"[..], b"PASV \0", b"CCC\0", b"PASV"] {
            let defect = Some(Defect::Tainted);
            assert_eq!(Command::parse(Line { text, defect }), Command::Other);
        }
        // The filling of short verbs is no way in.
        assert_eq!(parse("CCC"), Command::Ccc);
        assert_eq!(parse("CC"), Command::Other);
    }

    #[test]
    fn s6_a_long_line_is_told_apart() {
        let line = Line {
            text: b"PASV",
            defect: Some(Defect::TooLong),
        };
        assert_eq!(Command::parse(line), Command::TooLong);
    }

    #[test]
    fn s10_no_argument_is_kept_but_the_one_of_a_data_command() {
        assert_eq!(parse("PASS a"), parse("PASS b"));
        assert_eq!(parse("ACCT a"), parse("ADAT b"));
        let shown = std::format!("{:?}", parse("PASS secret"));
        assert_eq!(shown, "Pass");
    }

    #[test]
    fn c1_c2_c3_active_commands_carry_their_target() {
        let target = Target {
            address: Ipv4Addr::new(192, 0, 2, 1).into(),
            port: Port::new(5001),
        };
        for (text, command) in [
            ("PORT 192,0,2,1,19,137", DataCommand::Port),
            ("eprt |1|192.0.2.1|5001|", DataCommand::Eprt),
            ("Lprt 4,4,192,0,2,1,2,19,137", DataCommand::Lprt),
        ] {
            assert_eq!(parse(text), Command::Active(command, target), "{text}");
        }
        assert_eq!(
            parse("PORT 1,2,3"),
            Command::Malformed(DataCommand::Port, Fault::CommaExpected.at(10))
        );
    }

    #[test]
    fn c5_epsv_all_is_told_from_epsv() {
        for text in ["EPSV", "EPSV ", "EPSV 1", "epsv 2 "] {
            assert_eq!(parse(text), Command::Epsv, "{text:?}");
        }
        for text in ["EPSV ALL", "epsv all", "EPSV  All "] {
            assert_eq!(parse(text), Command::EpsvAll, "{text:?}");
        }
        for (text, fault, at) in [
            ("EPSV 3", Fault::UnknownFamily, 5),
            ("EPSV 1x", Fault::TrailingBytes, 6),
            ("EPSV ALLE", Fault::DigitExpected, 5),
            ("EPSV 65537", Fault::NumberTooLarge, 5),
        ] {
            let error = Command::Malformed(DataCommand::Epsv, fault.at(at));
            assert_eq!(parse(text), error, "{text:?}");
        }
    }

    extern crate std;
}
