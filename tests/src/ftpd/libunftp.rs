//! libunftp: a library, for programs that serve FTP themselves. A pool of threads carries every
//! session of the process. It connects while it handles PORT, and knows no EPRT.

use std::{env, ffi::OsString, path::PathBuf};

use anyhow::{Context as _, Result};

use super::{Place, Settings};

/// The program, `tests/examples/unftpd.rs`.
const PROGRAM: &str = "examples/unftpd";

/// Program and arguments.
pub(super) fn command(settings: &Settings, place: &Place<'_>) -> Result<Vec<OsString>> {
    let mut words: Vec<OsString> = vec![
        program()?.into(),
        place.root.into(),
        settings.passive_ports.start().to_string().into(),
        settings.passive_ports.end().to_string().into(),
    ];
    match place.certificate {
        Some(certificate) => {
            words.extend([&certificate.certificate, &certificate.key].map(OsString::from));
        }
        None => words.extend([OsString::new(), OsString::new()]),
    }
    words.extend(place.addresses.map(|address| address.to_string().into()));
    Ok(words)
}

/// Cargo puts examples beside the folder in which test programs lie.
fn program() -> Result<PathBuf> {
    let own = env::current_exe().context("finding this program")?;
    own.ancestors()
        .skip(1)
        .map(|folder| folder.join(PROGRAM))
        .find(|path| path.is_file())
        .context("unftpd is not built; cargo build -p ftpguard-tests --example unftpd builds it")
}
