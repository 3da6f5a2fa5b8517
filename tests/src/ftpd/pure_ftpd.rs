//! `Pure-FTPd`: a process for each session, and one more that keeps root's rights.

use std::{ffi::OsString, os::unix::ffi::OsStringExt as _};

use anyhow::Result;

use super::{Activation, Place, Settings, cache};

/// Program and arguments.
pub(super) fn command(settings: &Settings, place: &Place<'_>) -> Result<Vec<OsString>> {
    let (first, last) = (settings.passive_ports.start(), settings.passive_ports.end());
    let mut words: Vec<OsString> = vec![
        cache::file("usr/sbin/pure-ftpd").into(),
        "--anonymousonly".into(),
        "--anonymouscancreatedirs".into(),
        "--dontresolve".into(),
        "--maxidletime=5".into(),
        "--maxclientsperip=100".into(),
        "--maxclientsnumber=200".into(),
        format!("--passiveportrange={first}:{last}").into(),
        "--pidfile".into(),
        place.folder.join("pure-ftpd.pid").into(),
    ];
    if settings.activation == Activation::Own {
        words.push(format!("--bind={}", settings.control_port()).into());
    }
    if !settings.own_checks {
        words.push("--allowanonymousfxp".into());
    }
    if let Some(certificate) = place.certificate {
        // Control and data connections, or nothing.
        words.push("--tls=3".into());
        let mut file = b"--certfile=".to_vec();
        file.extend(certificate.both.as_os_str().as_encoded_bytes());
        words.push(OsString::from_vec(file));
    }
    let users = place.write("passwd", cache::users(place.root)?)?;
    Ok(cache::with_users(&users, words))
}
