//! inetutils' ftpd under OpenBSD's inetd: who accepts is no ftpd, and each session is a program
//! of its own.

use std::ffi::OsString;

use anyhow::Result;

use super::{Activation, Place, Settings, cache};

/// Program and arguments.
pub(super) fn command(settings: &Settings, place: &Place<'_>) -> Result<Vec<OsString>> {
    let ftpd = cache::file("usr/sbin/ftpd");
    let users = place.write("passwd", cache::users(place.root)?)?;
    if settings.activation != Activation::Own {
        return Ok(cache::with_users(&users, vec![ftpd.into()]));
    }
    let lines: String = ["tcp4", "tcp6"]
        .map(|protocol| {
            format!(
                "{} stream {protocol} nowait.1000 root {} ftpd\n",
                settings.control_port(),
                ftpd.display()
            )
        })
        .concat();
    let file = place.write("inetd.conf", lines)?;
    let inetd = vec![
        cache::file("usr/sbin/inetd").into(),
        "-i".into(),
        file.into(),
    ];
    Ok(cache::with_users(&users, inetd))
}
