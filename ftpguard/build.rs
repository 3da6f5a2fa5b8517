//! Builds the kernel side with aya-build; `kernel` embeds the guard's object, the benchmark
//! the other one.

use anyhow::{Context as _, Result};

fn main() -> Result<()> {
    let root_dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../ftpguard-ebpf");
    aya_build::build_ebpf(
        [aya_build::Package {
            name: "ftpguard-ebpf",
            root_dir,
            ..Default::default()
        }],
        aya_build::Toolchain::default(),
    )
    .context("building the kernel side (cargo xtask setup installs what it needs)")
}
