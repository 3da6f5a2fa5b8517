//! A shape of ftpd that cannot be attributed: who reads is not who listens.

use std::ffi::OsString;

use anyhow::Result;

use super::{Place, Settings, pyftpdlib::PYTHON};

/// The program.
const PROGRAM: &str = include_str!("reactor.py");

/// Program and arguments.
pub(super) fn command(settings: &Settings, place: &Place<'_>) -> Result<Vec<OsString>> {
    let file = place.write("reactor.py", PROGRAM.to_owned())?;
    let certificate = place
        .certificate
        .map_or_else(OsString::new, |certificate| certificate.both.clone().into());
    Ok(vec![
        PYTHON.into(),
        file.into(),
        place.root.into(),
        settings.control_port().to_string().into(),
        settings.passive_ports.start().to_string().into(),
        settings.passive_ports.end().to_string().into(),
        certificate,
    ])
}
