//! docs/quick-start.md does what it says.

use std::{env, fs, path::Path};

use ftpguard_tests::{
    guard::binary,
    quick_start::{self, Package},
};

/// With the files that the packages put into place; `cargo xtask dist` plays it with the .deb.
/// Rules T1, I1 and M1: a theft succeeds unguarded and in monitor mode, which tells it, and fails
/// once it is enforced.
#[test]
fn the_quick_start_works_as_it_is_written() {
    let package = Package::Files {
        program: binary(),
        packaging: Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging"),
    };
    let transcript = quick_start::play(&package).expect("every command of the page works");
    if let Some(path) = env::var_os("FTPGUARD_TRANSCRIPT") {
        fs::write(path, transcript).expect("written");
    }
}
