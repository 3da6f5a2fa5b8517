//! vsftpd: each session has processes of its own, and the privileged one calls `listen()`.

use std::{ffi::OsString, fmt::Write as _, path::Path};

use anyhow::Result;

use super::{Activation, Kind, Place, Settings, USER};
use crate::tls::Handshake;

/// Program and arguments.
pub(super) fn command(settings: &Settings, place: &Place<'_>) -> Result<Vec<OsString>> {
    let text = configuration(settings, place, &place.empty()?);
    let file = place.write("vsftpd.conf", text)?;
    Ok(vec!["vsftpd".into(), file.into()])
}

fn configuration(settings: &Settings, place: &Place<'_>, empty: &Path) -> String {
    let own = settings.activation == Activation::Own;
    let v4_only = settings.public_address.is_some();
    let one_process = settings.kind == Kind::VsftpdOneProcess;
    let yes = |on: bool| if on { "YES" } else { "NO" };
    let mut lines = vec![
        ("background", "NO".to_owned()),
        // Debian's default: one IPv6 socket for both families. A session of such a socket names
        // 0.0.0.0 in the place of an IPv4 pasv_address.
        ("listen", yes(own && v4_only).to_owned()),
        ("listen_ipv6", yes(own && !v4_only).to_owned()),
        ("listen_port", settings.control_port().to_string()),
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
        ("anon_root", place.root.display().to_string()),
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
    if let Some(address) = settings.public_address {
        lines.push(("pasv_address", address.to_string()));
    }
    if let Some(certificate) = place.certificate {
        let file = |path: &Path| path.display().to_string();
        lines.extend([
            ("ssl_enable", yes(true).to_owned()),
            (
                "implicit_ssl",
                yes(settings.tls == Some(Handshake::Implicit)).to_owned(),
            ),
            ("allow_anon_ssl", yes(true).to_owned()),
            ("force_anon_logins_ssl", yes(true).to_owned()),
            ("force_anon_data_ssl", yes(true).to_owned()),
            ("require_ssl_reuse", yes(settings.tls_reuse).to_owned()),
            ("ssl_ciphers", "HIGH".to_owned()),
            ("rsa_cert_file", file(&certificate.certificate)),
            ("rsa_private_key_file", file(&certificate.key)),
        ]);
    }
    lines.iter().fold(String::new(), |mut file, (key, value)| {
        let _ = writeln!(file, "{key}={value}");
        file
    })
}
