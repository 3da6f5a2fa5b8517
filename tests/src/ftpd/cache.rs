//! ftpds that exclude each other as packages: unpacked beside each other instead of installed.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// The Debian packages that `cargo xtask setup` unpacks.
pub const PACKAGES: [&str; 6] = [
    "proftpd-core",
    "proftpd-mod-crypto",
    "pure-ftpd",
    "inetutils-ftpd",
    "openbsd-inetd",
    "ftp-proxy",
];

/// Where they are unpacked.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/ftpds")
}

/// The file that lists the packages once all are unpacked.
#[must_use]
pub fn stamp() -> PathBuf {
    folder().join("unpacked")
}

/// A file of one of the packages, by its path when installed, without the first slash.
pub(crate) fn file(path: &str) -> PathBuf {
    folder().join(path)
}

/// Program and arguments that run a program of root's with a user database in which the home of
/// the user `ftp` is `home`: what anonymous clients see of an ftpd that takes it from there.
///
/// A mount namespace hides the machine's own.
pub(super) fn with_users(users: &Path, program: Vec<OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec![
        "unshare".into(),
        "--mount".into(),
        "--propagation".into(),
        "private".into(),
        "sh".into(),
        "-c".into(),
        "mount --bind \"$0\" /etc/passwd && exec \"$@\"".into(),
        users.into(),
    ];
    words.extend(program);
    words
}

/// The user database for [`with_users`].
pub(super) fn users(home: &Path) -> anyhow::Result<String> {
    use anyhow::Context as _;
    let path = "/etc/passwd";
    let own = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    Ok(own
        .lines()
        .map(|line| {
            let mut fields: Vec<&str> = line.split(':').collect();
            let home = home.display().to_string();
            if fields.len() == 7 && fields[0] == super::USER {
                fields[5] = &home;
                fields[6] = "/bin/sh";
            }
            fields.join(":") + "\n"
        })
        .collect())
}
