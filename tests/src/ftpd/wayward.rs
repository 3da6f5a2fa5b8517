//! An ftpd of our own that misbehaves on request (`SITE`), for what no real one can be made to do.

use std::ffi::OsString;

use anyhow::Result;

use super::{Activation, Place, Settings, pyftpdlib::PYTHON};

/// The program.
const PROGRAM: &str = include_str!("wayward.py");

/// Program and arguments.
pub(super) fn command(settings: &Settings, place: &Place<'_>) -> Result<Vec<OsString>> {
    let file = place.write("wayward.py", PROGRAM.to_owned())?;
    let port = match settings.activation {
        Activation::Own => settings.control_port().to_string(),
        Activation::Manager { .. } => "-".to_owned(),
    };
    Ok(vec![
        PYTHON.into(),
        file.into(),
        place.root.into(),
        port.into(),
        settings.passive_ports.start().to_string().into(),
        settings.passive_ports.end().to_string().into(),
    ])
}
