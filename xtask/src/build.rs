//! `cargo xtask build`: the one file to deploy.

use std::path::PathBuf;

use anyhow::Result;

use crate::exec::{cargo, run, target};

/// Builds the release binary, with the kernel side in it, and returns its path.
pub(crate) fn build() -> Result<PathBuf> {
    run(cargo().args([
        "build",
        "--release",
        "--package",
        "ftpguard",
        "--bin",
        "ftpguard",
    ]))?;
    let binary = target().join("release/ftpguard");
    println!("build: {}", binary.display());
    Ok(binary)
}
