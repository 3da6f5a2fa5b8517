//! proftpd.conf: one directive a line, in any case, with sections in angle brackets.
//!
//! What stands in `<Global>`, `<VirtualHost>` and the server itself is read alike: a range is a
//! range, wherever it is declared. `Include` of single files is followed.

use std::path::Path;

use super::{Files, Said, first};

const FILES: [&str; 3] = [
    "/etc/proftpd/proftpd.conf",
    "/etc/proftpd.conf",
    "/usr/local/etc/proftpd.conf",
];

/// How deep includes are followed.
const MAX_DEPTH: usize = 4;

pub(super) fn read(arguments: &[String], files: &dyn Files) -> Said {
    let mut said = Said::default();
    let found = match named(arguments) {
        Some(name) => first(files, [name]),
        None => first(files, FILES),
    };
    if let Some((path, text)) = found {
        directives(&mut said, &text, files, 0);
        said.file = Some(path);
    }
    said
}

/// The file of `-c FILE`, `-cFILE`, `--config FILE` or `--config=FILE`.
fn named(arguments: &[String]) -> Option<&str> {
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "-c" || argument == "--config" {
            return rest.next().map(String::as_str);
        }
        let joined = argument
            .strip_prefix("--config=")
            .or_else(|| argument.strip_prefix("-c"));
        if let Some(name) = joined {
            return Some(name);
        }
    }
    None
}

fn directives(said: &mut Said, text: &str, files: &dyn Files, depth: usize) {
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some(name) = words.next().map(str::to_ascii_lowercase) else {
            continue;
        };
        match name.as_str() {
            "port" => {
                if let Some(port) = words.next().and_then(|word| word.parse().ok()) {
                    // The server's own comes first; virtual hosts follow.
                    said.control_port.get_or_insert(port);
                }
            }
            "passiveports" => {
                if let (Some(first), Some(last)) = (words.next(), words.next()) {
                    said.range(first, last);
                }
            }
            "masqueradeaddress" => said.public_address = words.next().map(str::to_owned),
            "allowforeignaddress" => {
                let value = words.next().unwrap_or("");
                if matches!(
                    value.to_ascii_lowercase().as_str(),
                    "on" | "yes" | "true" | "1"
                ) {
                    said.weak.push(format!(
                        "AllowForeignAddress {value} turns its own check of addresses off; drop \
                         the line"
                    ));
                }
            }
            "include" if depth < MAX_DEPTH => {
                if let Some(included) = words.next().and_then(|path| files.read(Path::new(path))) {
                    directives(said, &included, files, depth + 1);
                }
            }
            _ => {}
        }
    }
}
