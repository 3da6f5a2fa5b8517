//! Pure-FTPd: options of the command line; a file of directives that stand for them; or Debian's
//! folder with one file for each directive.

use std::path::Path;

use super::{Files, Said, first};

const FILES: [&str; 2] = ["/etc/pure-ftpd/pure-ftpd.conf", "/etc/pure-ftpd.conf"];

/// Debian's wrapper reads each file in it as one directive.
const FOLDER: &str = "/etc/pure-ftpd/conf";

pub(super) fn read(arguments: &[String], files: &dyn Files) -> Said {
    let mut said = Said::default();
    let mut rest = arguments.iter();
    let mut seen = false;
    let mut name = None;
    while let Some(argument) = rest.next() {
        let Some((option, value)) = split(argument) else {
            if !argument.starts_with('-') {
                name = Some(argument.as_str());
            }
            continue;
        };
        seen = true;
        let value = match value {
            Some(value) => value.to_owned(),
            None => rest.next().cloned().unwrap_or_default(),
        };
        directive(&mut said, option, &value);
    }
    if seen {
        return said;
    }
    let found = match name {
        Some(name) => first(files, [name]),
        None => first(files, FILES),
    };
    if let Some((path, text)) = found {
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some((key, value)) = line.split_once(char::is_whitespace) {
                directive(&mut said, key, value.trim());
            }
        }
        said.file = Some(path);
        return said;
    }
    for key in [
        "PassivePortRange",
        "ForcePassiveIP",
        "Bind",
        "AllowUserFXP",
        "AllowAnonymousFXP",
    ] {
        let path = Path::new(FOLDER).join(key);
        if let Some(text) = files.read(&path) {
            directive(&mut said, key, text.trim());
            said.file = Some(FOLDER.into());
        }
    }
    said
}

/// An option that matters as the directive that it stands for, and its value where it is joined
/// to it.
fn split(argument: &str) -> Option<(&'static str, Option<&str>)> {
    let (long, joined) = match argument.split_once('=') {
        Some((long, value)) => (long, Some(value)),
        None => (argument, None),
    };
    let long = match long {
        "--passiveportrange" => Some("PassivePortRange"),
        "--forcepassiveip" => Some("ForcePassiveIP"),
        "--bind" => Some("Bind"),
        "--allowuserfxp" => return Some(("AllowUserFXP", Some("yes"))),
        "--allowanonymousfxp" => return Some(("AllowAnonymousFXP", Some("yes"))),
        _ => None,
    };
    if let Some(name) = long {
        return Some((name, joined));
    }
    for (short, name) in [
        ("-p", "PassivePortRange"),
        ("-P", "ForcePassiveIP"),
        ("-S", "Bind"),
    ] {
        if let Some(value) = argument.strip_prefix(short) {
            return Some((name, (!value.is_empty()).then_some(value)));
        }
    }
    match argument {
        "-w" => Some(("AllowUserFXP", Some("yes"))),
        "-W" => Some(("AllowAnonymousFXP", Some("yes"))),
        _ => None,
    }
}

fn directive(said: &mut Said, name: &str, value: &str) {
    match name {
        "PassivePortRange" => {
            let mut words = value
                .split([':', ' ', '\t'])
                .filter(|word| !word.is_empty());
            if let (Some(first), Some(last)) = (words.next(), words.next()) {
                said.range(first, last);
            }
        }
        "ForcePassiveIP" => said.public_address = Some(value.to_owned()),
        // [ADDRESS,]PORT
        "Bind" => {
            let port = value.rsplit(',').next().unwrap_or(value);
            said.control_port = match port.trim() {
                "ftp" => Some(21),
                port => port.parse().ok(),
            };
        }
        "AllowUserFXP" | "AllowAnonymousFXP" if value.eq_ignore_ascii_case("yes") => {
            said.weak.push(format!(
                "{name} lets users have it connect to third hosts; switch it off"
            ));
        }
        _ => {}
    }
}
