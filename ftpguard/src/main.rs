//! The `ftpguard` command.

fn main() {}
