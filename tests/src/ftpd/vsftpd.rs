//! vsftpd: each session has processes of its own, and the privileged one calls `listen()`.

use std::{fmt::Write as _, path::Path};

use super::{CONTROL_PORT, Settings, USER};

/// The configuration file.
pub(super) fn configuration(
    settings: &Settings,
    one_process: bool,
    root: &Path,
    empty: &Path,
) -> String {
    let yes = |on: bool| if on { "YES" } else { "NO" };
    let lines = [
        ("background", "NO".to_owned()),
        // Debian's default: one IPv6 socket for both families.
        ("listen", "NO".to_owned()),
        ("listen_ipv6", "YES".to_owned()),
        ("listen_port", CONTROL_PORT.to_string()),
        ("one_process_model", yes(one_process).to_owned()),
        ("anonymous_enable", "YES".to_owned()),
        ("no_anon_password", "YES".to_owned()),
        ("local_enable", "NO".to_owned()),
        ("ftp_username", USER.to_owned()),
        ("nopriv_user", "nobody".to_owned()),
        ("write_enable", "YES".to_owned()),
        ("anon_upload_enable", "YES".to_owned()),
        ("anon_other_write_enable", "YES".to_owned()),
        ("anon_world_readable_only", "NO".to_owned()),
        ("anon_root", root.display().to_string()),
        ("secure_chroot_dir", empty.display().to_string()),
        ("pasv_min_port", settings.passive_ports.start().to_string()),
        ("pasv_max_port", settings.passive_ports.end().to_string()),
        ("pasv_promiscuous", yes(!settings.own_checks).to_owned()),
        ("port_promiscuous", yes(!settings.own_checks).to_owned()),
        (
            "connect_from_port_20",
            yes(settings.from_port_20).to_owned(),
        ),
        ("accept_timeout", "5".to_owned()),
        ("connect_timeout", "5".to_owned()),
        ("data_connection_timeout", "10".to_owned()),
        ("idle_session_timeout", "120".to_owned()),
        ("xferlog_enable", "NO".to_owned()),
    ];
    lines.iter().fold(String::new(), |mut file, (key, value)| {
        let _ = writeln!(file, "{key}={value}");
        file
    })
}
