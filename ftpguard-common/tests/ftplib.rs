//! Replies as Python's ftplib reads them, an independent reading of the same grammar (R4, R5).
//!
//! ftplib is laxer: `parse227` takes six numbers of any size and sign-free digits wherever they
//! stand, `parse229` anything between the first and the last parenthesis. So: what the guard
//! reads, ftplib reads alike; and what ftplib reads and the guard refuses is one of a few known
//! kinds.
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use std::{
    fmt::Write as _,
    io::Write as _,
    process::{Command, Stdio},
};

use ftpguard_common::ftp::{
    line::Line,
    reply::{Announcement, ReplyLine},
};

/// Reads hex lines, answers with the port that ftplib reads, or `-`.
const SCRIPT: &str = "
import sys
from ftplib import parse227, parse229
for line in sys.stdin:
    text = bytes.fromhex(line).decode('latin-1')
    try:
        if text.startswith('227'):
            host, port = parse227(text)
        else:
            host, port = parse229(text, ('192.0.2.1', 21))
        print(host, port)
    except Exception:
        print('-')
";

/// Numbers without a pattern, the same in every run (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        let index = self.below(from.len() as u64);
        from[usize::try_from(index).unwrap()]
    }
}

/// The host and port that the guard reads.
fn guard(text: &str) -> Option<(Option<String>, u16)> {
    let ReplyLine::Ends(reply) = ReplyLine::parse(Line::of(text.as_bytes())) else {
        return None;
    };
    let Announcement { port, address } = reply.announcement?.ok()?;
    Some((address.map(|address| address.to_string()), port.number()))
}

/// The host and port that ftplib reads, for each text.
fn ftplib(texts: &[String]) -> Vec<Option<(String, i64)>> {
    let mut python = Command::new("python3")
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3, whose ftplib is compared with");
    let mut lines = String::new();
    for text in texts {
        for byte in text.bytes() {
            write!(lines, "{byte:02x}").unwrap();
        }
        lines.push('\n');
    }
    let mut input = python.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = python.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    let answers = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<_> = answers
        .lines()
        .map(|line| {
            let (host, port) = line.split_once(' ')?;
            // It takes over what it reads, zeros and all.
            let bare = host.split('.').map(|number| {
                let digits = number.trim_start_matches('0');
                if digits.is_empty() { "0" } else { digits }
            });
            let bare: Vec<&str> = bare.collect();
            Some((bare.join("."), port.parse().unwrap()))
        })
        .collect();
    assert_eq!(answers.len(), texts.len());
    answers
}

fn well_formed_227(random: &mut Random) -> String {
    let mut numbers: Vec<u64> = (0..6).map(|_| random.below(256)).collect();
    // Port 0 is none.
    numbers[5] = numbers[5].max(1);
    let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
    let numbers = numbers.join(",");
    let intro = random.pick(&["Entering Passive Mode ", "Passive mode: ", "", "=", "ok "]);
    let (open, close) = [("(", ")"), ("(", ")."), ("", ""), ("", "."), ("[", "]")]
        [usize::try_from(random.below(5)).unwrap()];
    format!("227 {intro}{open}{numbers}{close}")
}

fn well_formed_229(random: &mut Random) -> String {
    let port = random.below(65_535) + 1;
    let delimiter = random.pick(&["|", "!", "#", "~", "/"]);
    let intro = random.pick(&["Entering Extended Passive Mode ", "Extended ", "", "ok: "]);
    let end = random.pick(&["", ".", " "]);
    format!("229 {intro}({delimiter}{delimiter}{delimiter}{port}{delimiter}){end}")
}

/// Changes one thing.
fn spoilt(text: &str, random: &mut Random) -> String {
    let mut bytes: Vec<char> = text.chars().collect();
    let at = usize::try_from(random.below(bytes.len() as u64 - 4)).unwrap() + 4;
    let new = random
        .pick(&[
            "0", "9", "1", ",", " ", "-", "+", "(", ")", "|", ".", "x", "256", "\t",
        ])
        .chars();
    match random.below(3) {
        0 => drop(bytes.remove(at)),
        1 => drop(bytes.splice(at..=at, new)),
        _ => drop(bytes.splice(at..at, new)),
    }
    bytes.into_iter().collect()
}

#[test]
fn r4_r5_well_formed_replies_are_read_alike() {
    let mut random = Random(1);
    let mut texts: Vec<String> = (0..5_000).map(|_| well_formed_227(&mut random)).collect();
    texts.extend((0..5_000).map(|_| well_formed_229(&mut random)));
    for (text, theirs) in texts.iter().zip(ftplib(&texts)) {
        let (host, port) = guard(text).unwrap_or_else(|| panic!("not read: {text}"));
        let (their_host, their_port) = theirs.unwrap_or_else(|| panic!("ftplib: {text}"));
        assert_eq!(i64::from(port), their_port, "{text}");
        // For 229 it tells its peer.
        assert!(host.is_none_or(|host| host == their_host), "{text}");
    }
}

#[test]
fn r4_r5_what_is_read_of_spoilt_replies_is_read_alike() {
    let mut random = Random(2);
    let texts: Vec<String> = (0..20_000)
        .map(|index| {
            let whole = if index % 2 == 0 {
                well_formed_227(&mut random)
            } else {
                well_formed_229(&mut random)
            };
            spoilt(&whole, &mut random)
        })
        .collect();
    let mut both = 0;
    let mut stricter = 0;
    for (text, theirs) in texts.iter().zip(ftplib(&texts)) {
        let ours = guard(text);
        match (&ours, &theirs) {
            (Some((host, port)), Some((their_host, their_port))) => {
                both += 1;
                let alike = i64::from(*port) == *their_port
                    && host.as_ref().is_none_or(|host| host == their_host);
                assert!(alike, "{text}: {ours:?}, ftplib {theirs:?}");
            }
            (Some(_), None) => assert!(is_laxer(text), "{text}: {ours:?}, ftplib nothing"),
            (None, Some(_)) => {
                stricter += 1;
                assert!(
                    is_stricter(text, theirs.as_ref()),
                    "{text}: ftplib {theirs:?}"
                );
            }
            (None, None) => {}
        }
    }
    println!("{both} read alike, {stricter} refused that ftplib takes");
    assert!(both > 4_000 && stricter > 500);
}

/// What the guard takes and ftplib does not.
fn is_laxer(text: &str) -> bool {
    if text.starts_with("227") {
        // One blank after a comma.
        return text.contains(", ");
    }
    // ftplib takes the first parentheses, the guard the first behind which a list begins.
    let (intro, rest) = text.split_once('(').unwrap_or((text, ""));
    intro.contains(')') || rest.contains('(')
}

/// What ftplib takes and the guard does not.
fn is_stricter(text: &str, theirs: Option<&(String, i64)>) -> bool {
    let Some((_, port)) = theirs else {
        return false;
    };
    if text.as_bytes().get(3) != Some(&b' ') || !(1..=65_535).contains(port) {
        return true;
    }
    if text.starts_with("229") {
        // It takes anything for the first two fields, and whatever Python takes for a number.
        return !is_plain_229(text);
    }
    // It takes numbers of any size and length, signs before the first one, and more numbers about the six.
    let numbers: Vec<&str> = text[3..]
        .split(|c: char| !c.is_ascii_digit())
        .filter(|part| !part.is_empty())
        .collect();
    let large = |number: &&str| number.len() > 3 || number.parse::<u8>().is_err();
    numbers.iter().any(large) || text.contains(['-', '+']) || numbers.len() != 6
}

/// Three times the same delimiter, a plain number without zeros that make it longer than any
/// port, the delimiter.
fn is_plain_229(text: &str) -> bool {
    let Some((_, list)) = text.split_once('(') else {
        return false;
    };
    let Some(delimiter) = list.chars().next() else {
        return false;
    };
    let parts: Vec<&str> = list.split(delimiter).collect();
    let digits = |part: &str| {
        (1..=5).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    matches!(parts[..], ["", "", "", port, end, ..] if digits(port) && end.starts_with(')'))
        && delimiter.is_ascii_graphic()
        && !delimiter.is_ascii_digit()
}
