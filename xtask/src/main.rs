//! `cargo xtask`: builds and proves ftpguard.

fn main() {}
