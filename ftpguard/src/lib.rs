//! ftpguard's daemon as a library; the binary only parses arguments and exits.

pub mod kernel;
