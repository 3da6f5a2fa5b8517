//! ftpds that exclude each other as packages: unpacked into target/, not installed.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use ftpguard_tests::ftpd::cache::{PACKAGES, folder, stamp};

use crate::{
    exec::{as_root, output, run},
    setup::install,
};

/// Unpacks the ftpds that are missing, and installs the libraries they need. Quick and silent
/// when all is there.
pub(crate) fn unpack() -> Result<()> {
    let wanted = PACKAGES.join("\n");
    if fs::read_to_string(stamp()).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    println!(
        "setup: unpacking ftpds to guard in the sandbox: {}",
        PACKAGES.join(" ")
    );
    let folder = folder();
    let _ = fs::remove_dir_all(&folder);
    let archives = folder.join("archives");
    fs::create_dir_all(&archives).with_context(|| format!("making {}", archives.display()))?;
    if download(&archives).is_err() {
        // The lists of packages may be missing, or older than what the archive holds.
        run(as_root("apt-get", &[]).args(["update", "--quiet=2"]))?;
        download(&archives)?;
    }
    let archives = entries(&archives)?;
    ensure!(
        archives.len() == PACKAGES.len(),
        "{} of {} packages were downloaded",
        archives.len(),
        PACKAGES.len()
    );
    for archive in &archives {
        run(Command::new("dpkg")
            .arg("--extract")
            .args([archive, &folder]))?;
    }
    let libraries = missing_libraries(&archives)?;
    if !libraries.is_empty() {
        let libraries: Vec<&str> = libraries.iter().map(String::as_str).collect();
        println!("setup: libraries of these ftpds are missing");
        install(&libraries)?;
    }
    let stamp = stamp();
    fs::write(&stamp, wanted).with_context(|| format!("writing {}", stamp.display()))
}

fn download(into: &Path) -> Result<()> {
    let mut download = Command::new("apt-get");
    download
        // Apt's own user may not be allowed to write here.
        .args(["--quiet=2", "--option", "APT::Sandbox::User=", "download"])
        .args(PACKAGES)
        .current_dir(into);
    run(&mut download)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .with_context(|| format!("reading {}", folder.display()))
}

/// The libraries that the packages depend on and that are not installed.
fn missing_libraries(archives: &[PathBuf]) -> Result<BTreeSet<String>> {
    let mut missing = BTreeSet::new();
    for archive in archives {
        let mut field = Command::new("dpkg-deb");
        let field = output(field.arg("--field").arg(archive).arg("Depends"))
            .with_context(|| format!("reading what {} depends on", archive.display()))?;
        missing.extend(libraries(&field).filter(|name| !is_installed(name)));
    }
    Ok(missing)
}

/// The libraries in a `Depends` field. What else is in there, the sandbox does without.
fn libraries(depends: &str) -> impl Iterator<Item = String> + '_ {
    depends
        .split(',')
        .filter_map(|alternatives| alternatives.split(['|', '(']).next())
        .map(|name| name.trim().to_owned())
        .filter(|name| name.starts_with("lib") && !name.ends_with("-runtime"))
}

fn is_installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}", package]);
    output(query.stderr(std::process::Stdio::null())).is_some_and(|state| state == "installed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_among_dependencies() {
        let field = "adduser, libpam-runtime, libacl1 (>= 2.2.23), libevent-2.1-7 | libevent, \
                     openbsd-inetd | inet-superserver, libssl3\n";
        let found: Vec<String> = libraries(field).collect();
        assert_eq!(found, ["libacl1", "libevent-2.1-7", "libssl3"]);
    }
}
