//! Versions of FTP servers, read from the program's file without running it, and their known
//! faults.

use std::{
    fs::File,
    io::{self, BufReader, Read as _},
    path::Path,
};

use super::conf::Product;

/// The most bytes of a program that are looked through.
const MAX_PROGRAM: u64 = 64 << 20;
/// The most bytes of a version.
const MAX_VERSION: usize = 16;

/// The version in the program's file.
pub fn of_program(product: Product, program: &Path) -> io::Result<Option<String>> {
    let marks = product.version_marks();
    if marks.is_empty() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    BufReader::new(File::open(program)?.take(MAX_PROGRAM)).read_to_end(&mut bytes)?;
    Ok(marks.iter().find_map(|mark| find(&bytes, mark)))
}

/// The version after the mark: it begins with a digit.
fn find(bytes: &[u8], mark: &str) -> Option<String> {
    let mark = mark.as_bytes();
    bytes
        .windows(mark.len())
        .enumerate()
        .find_map(|(at, window)| {
            if window != mark {
                return None;
            }
            let version: String = bytes
                .get(at + mark.len()..)?
                .iter()
                .take(MAX_VERSION)
                .map(|byte| char::from(*byte))
                .take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '.')
                .collect();
            version
                .starts_with(|letter: char| letter.is_ascii_digit())
                .then_some(version)
        })
}

/// What is known to be wrong with this version, as far as it concerns data connections.
#[must_use]
pub fn faults(product: Product, version: &str) -> Vec<String> {
    let mut faults = Vec::new();
    // Threat T1: read in its sources.
    if product == Product::Proftpd
        && let Some(number) = Number::read(version)
        && Number(1, 3, 7, Some('d')) <= number
        && number <= Number(1, 3, 9, Some('c'))
    {
        faults.push(format!(
            "ProFTPD {version} does not check by default who connects to a passive port: whoever \
             is first gets the file (1.3.7d to 1.3.9c; threat T1)"
        ));
    }
    faults
}

/// `MAJOR.MINOR.PATCH`, and a letter of ProFTPD's maintenance releases, in their order: a
/// release without a letter comes before `a`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Number(u32, u32, u32, Option<char>);

impl Number {
    fn read(version: &str) -> Option<Self> {
        let mut parts = version.splitn(3, '.');
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next()?.parse().ok()?;
        let rest = parts.next()?;
        let digits = rest.trim_end_matches(|letter: char| !letter.is_ascii_digit());
        // A release candidate, `0rc4`, comes before its release; the number before it counts.
        let (patch, letters) = match rest.split_once("rc") {
            Some((patch, _)) => (patch, ""),
            None => (digits, rest.strip_prefix(digits)?),
        };
        Some(Self(
            major,
            minor,
            patch.parse().ok()?,
            letters.chars().next(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_a_program() {
        let program = b"\0ProFTPD Server ready.\0ProFTPD Version 1.3.8\0x\0vsftpd: version 3.0.3\n\0Pure-FTPd 1.0.50\0";
        for (product, version) in [
            (Product::Proftpd, "1.3.8"),
            (Product::Vsftpd, "3.0.3"),
            (Product::PureFtpd, "1.0.50"),
        ] {
            let found = product
                .version_marks()
                .iter()
                .find_map(|mark| find(program, mark));
            assert_eq!(found.as_deref(), Some(version));
        }
        assert_eq!(find(b"ProFTPD Version ", "ProFTPD Version "), None);
        assert_eq!(find(b"", "x"), None);
    }

    #[test]
    fn t1_versions_of_proftpd_without_a_peer_check() {
        for (version, faulty) in [
            ("1.3.7c", false),
            ("1.3.7d", true),
            ("1.3.7f", true),
            ("1.3.8", true),
            ("1.3.8rc2", true),
            ("1.3.8b", true),
            ("1.3.9", true),
            ("1.3.9c", true),
            ("1.3.9d", false),
            ("1.3.10rc4", false),
            ("1.3.6e", false),
            ("1.4", false),
            ("x", false),
        ] {
            assert_eq!(
                !faults(Product::Proftpd, version).is_empty(),
                faulty,
                "{version}"
            );
        }
        assert!(faults(Product::Vsftpd, "1.3.8").is_empty());
    }
}
