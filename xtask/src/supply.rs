//! What others wrote and the project is built with: where it comes from, under which licence,
//! and what is known against it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use spdx::{Expression, LicenseReq, ParseMode};

use crate::exec::{cargo, find, output, run};

/// The only registry.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Licences that go with this project's own (MIT or Apache-2.0).
const LICENCES: [&str; 7] = [
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Zlib",
];

/// Crates under another licence: name, licence, and why it is right all the same.
const EXCEPTIONS: [(&str, &str, &str); 3] = [
    (
        "btf-rs",
        "LGPL-2.1-or-later",
        "whoever has the source, which is open, can link the program with another version of it",
    ),
    ("btf-rs-derive", "LGPL-2.1-or-later", "the same"),
    (
        "winx",
        "Apache-2.0 WITH LLVM-exception",
        "of an ftpd in the tests, and on Windows only: it is not built",
    ),
];

/// Crates that are not to come in, and what is there in their place.
const BANNED: [(&str, &str); 4] = [
    ("openssl-sys", "rustls, and only in the tests"),
    ("libbpf-sys", "aya"),
    ("native-tls", "rustls, and only in the tests"),
    ("reqwest", "nothing here asks other hosts"),
];

/// Crates that come in more than one version, because others ask for different ones.
const SEVERAL: [&str; 7] = [
    "erased-serde",
    "getrandom",
    "hashbrown",
    "io-lifetimes",
    "itertools",
    "syn",
    "windows-sys",
];

/// Looks at every crate in Cargo.lock. Returns one line for each fault.
pub(crate) fn failures() -> Vec<String> {
    let mut failures = match metadata() {
        Ok(metadata) => judge(&metadata),
        Err(error) => vec![format!("{error:#}")],
    };
    failures.extend(advisories());
    failures
}

fn metadata() -> Result<Value> {
    let mut command = cargo();
    command.args(["metadata", "--format-version=1", "--locked", "--quiet"]);
    let told = output(&mut command).context("cargo metadata: is Cargo.lock up to date?")?;
    let metadata: Value = serde_json::from_str(&told).context("reading cargo metadata")?;
    ensure!(
        metadata["packages"].is_array(),
        "cargo metadata names no packages"
    );
    Ok(metadata)
}

fn judge(metadata: &Value) -> Vec<String> {
    let mut failures = Vec::new();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let packages = metadata["packages"].as_array();
    for package in packages.into_iter().flatten() {
        let text = |key: &str| package[key].as_str().unwrap_or_default();
        // Without a source it is a package of the workspace.
        let (name, source) = (text("name"), text("source"));
        if source.is_empty() {
            continue;
        }
        versions.entry(name).or_default().insert(text("version"));
        if source != REGISTRY {
            failures.push(format!("{name} comes from {source}, not from crates.io"));
        }
        if let Some((_, instead)) = BANNED.iter().find(|(banned, _)| *banned == name) {
            failures.push(format!("{name} is not wanted; instead: {instead}"));
        }
        let licence = text("license");
        if !is_allowed(name, licence) {
            failures.push(format!("{name} is under {licence:?}, which is not allowed"));
        }
    }
    for (name, versions) in versions {
        if versions.len() > 1 && !SEVERAL.contains(&name) {
            failures.push(format!("{name} comes in several versions: {versions:?}"));
        }
    }
    failures
}

fn is_allowed(name: &str, licence: &str) -> bool {
    if EXCEPTIONS
        .iter()
        .any(|(other, its, _)| (*other, *its) == (name, licence))
    {
        return true;
    }
    // Old crates write a slash for "or".
    let allowed = |asked: &LicenseReq| {
        let id = asked.license.id();
        asked.addition.is_none() && id.is_some_and(|id| LICENCES.contains(&id.name))
    };
    Expression::parse_mode(licence, ParseMode::LAX)
        .is_ok_and(|expression| expression.evaluate(allowed))
}

/// Asks cargo-audit, where it is installed: its database of advisories comes over the network.
fn advisories() -> Option<String> {
    if find("cargo-audit").is_none() {
        println!("check: known advisories are not looked at (cargo install cargo-audit)");
        return None;
    }
    let mut audit = cargo();
    audit.args(["audit", "--deny", "warnings"]);
    // Without network it uses the database that it fetched last.
    let error = run(&mut audit).err()?;
    run(audit.args(["--no-fetch", "--stale"])).err()?;
    Some(format!("{error:#}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn package(name: &str, version: &str, source: Option<&str>, license: &str) -> Value {
        json!({"name": name, "version": version, "source": source, "license": license})
    }

    #[test]
    fn each_fault_is_named() {
        let ours = Some(REGISTRY);
        let git = Some("git+https://example.org/x");
        for (packages, named) in [
            (vec![package("a", "1.0.0", ours, "GPL-3.0-only")], "GPL"),
            (
                vec![package("a", "1.0.0", ours, "MIT AND GPL-3.0-only")],
                "GPL",
            ),
            (vec![package("a", "1.0.0", ours, "")], "not allowed"),
            (vec![package("a", "1.0.0", git, "MIT")], "crates.io"),
            (vec![package("libbpf-sys", "1.0.0", ours, "MIT")], "aya"),
            (
                vec![
                    package("a", "1.0.0", ours, "MIT"),
                    package("a", "2.0.0", ours, "MIT"),
                ],
                "several",
            ),
        ] {
            let failures = judge(&json!({ "packages": packages }));
            assert_eq!(failures.len(), 1, "{failures:?}");
            assert!(failures[0].contains(named), "{failures:?}");
        }
    }

    #[test]
    fn what_is_allowed_is_no_fault() {
        let packages = [
            package("a", "1.0.0", Some(REGISTRY), "MIT/Apache-2.0"),
            package(
                "b",
                "1.0.0",
                Some(REGISTRY),
                "(MIT OR Apache-2.0) AND Unicode-3.0",
            ),
            package("c", "1.0.0", Some(REGISTRY), "MIT OR LGPL-2.1-or-later"),
            package("btf-rs", "2.0.0", Some(REGISTRY), "LGPL-2.1-or-later"),
            package("syn", "1.0.0", Some(REGISTRY), "MIT"),
            package("syn", "2.0.0", Some(REGISTRY), "MIT"),
            package("own", "1.0.0", None, ""),
        ];
        assert_eq!(judge(&json!({ "packages": packages })), [""; 0]);
        // Only this crate, and only under this licence.
        assert!(!is_allowed("a", "LGPL-2.1-or-later"));
        assert!(!is_allowed("btf-rs", "GPL-3.0-only"));
    }
}
