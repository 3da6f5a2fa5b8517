//! vsftpd.conf(5): `key=value`, nothing around the sign.

use super::{Files, Said, first};

/// Where vsftpd looks when its command line names no file, and where distributions put it.
const FILES: [&str; 2] = ["/etc/vsftpd.conf", "/etc/vsftpd/vsftpd.conf"];

pub(super) fn read(arguments: &[String], files: &dyn Files) -> Said {
    let mut said = Said::default();
    let mut names: Vec<&str> = Vec::new();
    let mut options: Vec<&str> = Vec::new();
    for argument in arguments {
        if let Some(option) = argument.strip_prefix("-o") {
            options.push(option);
        } else if !argument.starts_with('-') {
            names.push(argument);
        }
    }
    if names.is_empty() {
        names.extend(FILES);
    }
    let found = first(files, names);
    let text = found.as_ref().map_or("", |(_, text)| text);
    let mut range = (None, None);
    // Options of the command line stand over the file: they come last.
    for line in text.lines().chain(options) {
        let line = line.trim_end();
        if line.starts_with('#') {
            continue;
        }
        if let Some((key, value)) = line.split_once('=') {
            setting(&mut said, &mut range, key.trim(), value.trim());
        }
    }
    if let (Some(first), Some(last)) = &range {
        // 0 stands for any port.
        if first != "0" && last != "0" {
            said.range(first, last);
        }
    }
    said.file = found.map(|(path, _)| path);
    said
}

fn setting(said: &mut Said, range: &mut (Option<String>, Option<String>), key: &str, value: &str) {
    let on =
        value.eq_ignore_ascii_case("yes") || value.eq_ignore_ascii_case("true") || value == "1";
    match key {
        "listen_port" => said.control_port = value.parse().ok(),
        "ftp_data_port" => said.data_source_port = value.parse().ok(),
        "pasv_min_port" => range.0 = Some(value.to_owned()),
        "pasv_max_port" => range.1 = Some(value.to_owned()),
        "pasv_address" => said.public_address = Some(value.to_owned()),
        "pasv_promiscuous" | "port_promiscuous" if on => said.weak.push(format!(
            "{key}={value} turns its own check of addresses off; drop the line"
        )),
        _ => {}
    }
}
