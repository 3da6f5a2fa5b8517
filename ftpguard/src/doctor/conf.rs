//! What FTP servers say about themselves: their own configuration files and command lines.
//!
//! Only the few settings that the guard needs are read; everything else is passed over. A file
//! that cannot be understood is one that says nothing.

mod proftpd;
mod pure_ftpd;
mod vsftpd;

use std::path::{Path, PathBuf};

use crate::values::PortRange;

/// FTP servers whose configuration is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// vsftpd.
    Vsftpd,
    /// ProFTPD.
    Proftpd,
    /// Pure-FTPd.
    PureFtpd,
    /// Anything else that accepts connections on a control port.
    Other,
}

impl Product {
    /// The product that a program of this name is.
    #[must_use]
    pub fn of(program: &str) -> Self {
        match program {
            "vsftpd" => Self::Vsftpd,
            "proftpd" => Self::Proftpd,
            name if name.starts_with("pure-ftpd") => Self::PureFtpd,
            _ => Self::Other,
        }
    }

    /// What precedes the version in the program's file.
    pub(super) const fn version_marks(self) -> &'static [&'static str] {
        match self {
            Self::Vsftpd => &["vsftpd: version "],
            Self::Proftpd => &["ProFTPD Version ", "ProFTPD "],
            Self::PureFtpd => &["Pure-FTPd ", "pure-ftpd v"],
            Self::Other => &[],
        }
    }
}

/// What an FTP server says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// Its control port, where it names one.
    pub control_port: Option<u16>,
    /// Its passive range.
    pub passive_ports: Option<PortRange>,
    /// The address that it puts into its 227 replies instead of its own.
    pub public_address: Option<String>,
    /// The port from which it opens active data connections, where it names one.
    pub data_source_port: Option<u16>,
    /// Settings that make it weaker than it need be.
    pub weak: Vec<String>,
    /// What is odd about its settings.
    pub odd: Vec<String>,
}

impl Said {
    /// Notes a passive range; one that the guard cannot take is odd.
    fn range(&mut self, first: &str, last: &str) {
        match format!("{}-{}", first.trim(), last.trim()).parse() {
            Ok(range) => self.passive_ports = Some(range),
            Err(error) => self.odd.push(format!("its passive range: {error}")),
        }
    }
}

/// Where files are read from: the process's own root.
pub trait Files {
    /// The text of a file, `None` where it cannot be read.
    fn read(&self, path: &Path) -> Option<String>;
}

/// What a product with this command line says; `arguments` begins after the program's name.
#[must_use]
pub fn read(product: Product, arguments: &[String], files: &dyn Files) -> Said {
    match product {
        Product::Vsftpd => vsftpd::read(arguments, files),
        Product::Proftpd => proftpd::read(arguments, files),
        Product::PureFtpd => pure_ftpd::read(arguments, files),
        Product::Other => Said::default(),
    }
}

/// The first of these files that can be read.
fn first<'a>(
    files: &dyn Files,
    paths: impl IntoIterator<Item = &'a str>,
) -> Option<(PathBuf, String)> {
    paths.into_iter().find_map(|path| {
        let path = Path::new(path);
        Some((path.to_owned(), files.read(path)?))
    })
}

#[cfg(test)]
mod tests;
