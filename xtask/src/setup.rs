//! `cargo xtask setup`: installs what this machine lacks, and says what and why.

use std::{env, path::Path, process::Command, time::Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    exec::{NIGHTLY, as_root, find, output, run},
    ftpds,
};

/// The linker that joins the kernel side's crates, and the only series that is known to work.
const LINKER: &str = "0.13";
const LINKER_VERSION: &str = "0.13.0";
/// The LLVM it is built against: at least that of the nightly compiler.
const LLVM: u32 = 22;
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// What the linker is built from.
const LLVM_PACKAGES: [&str; 4] = [
    "llvm-22-dev",
    "libpolly-22-dev",
    "zlib1g-dev",
    "libzstd-dev",
];

/// Programs that the tests call, by whether they are there.
pub(crate) struct Tool {
    /// How to see that it is there.
    probe: Probe,
    /// The Debian package that has it.
    package: &'static str,
    why: &'static str,
}

enum Probe {
    /// A program of this name.
    Program(&'static str),
    /// A Python module of the system's interpreter.
    Module(&'static str),
}

const TOOLS: &[Tool] = &[
    tool("ip", "iproute2", "makes the sandbox's network namespaces"),
    tool("tc", "iproute2", "shows what is attached to an interface"),
    tool(
        "nft",
        "nftables",
        "is the firewall beside the guard, and what the benchmark compares with",
    ),
    tool(
        "ethtool",
        "ethtool",
        "turns an interface's offloads on and off",
    ),
    tool(
        "c++",
        "g++",
        "builds libFuzzer, which the fuzz targets run in",
    ),
    tool("setpriv", "util-linux", "runs a test without root's rights"),
    tool("systemctl", "systemd", "runs the unit in the sandbox"),
    tool(
        "nsenter",
        "util-linux",
        "runs commands beside systemd in the sandbox",
    ),
    tool(
        "tmux",
        "tmux",
        "is the terminal in which `ftpguard top` is looked at",
    ),
    tool("vsftpd", "vsftpd", "is the ftpd to guard in the sandbox"),
    Tool {
        probe: Probe::Module("pyftpdlib"),
        package: "python3-pyftpdlib",
        why: "is an ftpd that connects anywhere, for bounces",
    },
    Tool {
        probe: Probe::Module("OpenSSL"),
        package: "python3-openssl",
        why: "is how pyftpdlib speaks TLS",
    },
    tool("openssl", "openssl", "makes the ftpds' certificates"),
    tool("curl", "curl", "is one of the honest clients"),
    tool("lftp", "lftp", "is one of the honest clients"),
    tool(
        "python3",
        "python3",
        "has ftplib, one of the honest clients",
    ),
];

/// A tool that is there when a program of this name is.
pub(crate) const fn tool(program: &'static str, package: &'static str, why: &'static str) -> Tool {
    Tool {
        probe: Probe::Program(program),
        package,
        why,
    }
}

/// Installs packages. An ftpd that comes with them must not be started, now or at the next
/// boot: only the sandbox runs it. Debian asks policy-rc.d before it starts a service.
const INSTALL: &str = r#"
set -e
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet=2
apt-get install --quiet=2 --yes --no-install-recommends "$@"
for package in "$@"; do
    if [ "$package" = vsftpd ] && command -v systemctl > /dev/null; then
        systemctl disable vsftpd.service
    fi
done
"#;

/// Installs what is missing. Says nothing of what is there.
pub(crate) fn setup() -> Result<()> {
    let start = Instant::now();
    let linker = linker_version();
    let linker_is_good = linker.as_deref().is_some_and(is_good_linker);

    let mut packages = missing_tools(TOOLS);
    if !linker_is_good {
        let has = linker.as_deref().unwrap_or("none");
        println!("setup: bpf-linker {LINKER} is needed to link the kernel side; here is {has}");
        if !Path::new(LLVM_PREFIX).join("bin/llvm-config").exists() {
            println!("setup: LLVM {LLVM} is missing, which bpf-linker is built with");
            packages.extend(LLVM_PACKAGES);
        }
    }
    install_missing(packages, TOOLS)?;
    ftpds::unpack()?;
    toolchain()?;
    if !linker_is_good {
        install_linker()?;
    }
    println!(
        "setup: everything is there ({:.1} s)",
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Installs those of these tools that are not there.
pub(crate) fn require(tools: &[Tool]) -> Result<()> {
    install_missing(missing_tools(tools), tools)
}

fn install_missing(mut packages: Vec<&'static str>, tools: &[Tool]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    packages.sort_unstable();
    packages.dedup();
    install(&packages)?;
    let missing = missing_tools(tools);
    ensure!(missing.is_empty(), "still missing: {}", missing.join(", "));
    Ok(())
}

/// The packages of the tools that are not there; prints each.
fn missing_tools(tools: &[Tool]) -> Vec<&'static str> {
    let mut packages = Vec::new();
    for Tool {
        probe,
        package,
        why,
    } in tools
    {
        let (name, is_there) = match probe {
            Probe::Program(name) => (name, find(name).is_some()),
            Probe::Module(name) => (name, has_module(name)),
        };
        if !is_there {
            println!("setup: {name} is missing, which {why} (package {package})");
            packages.push(*package);
        }
    }
    packages
}

fn has_module(name: &str) -> bool {
    let find = format!("import importlib.util as u, sys; sys.exit(u.find_spec('{name}') is None)");
    output(Command::new("/usr/bin/python3").args(["-c", &find])).is_some()
}

pub(crate) fn install(packages: &[&str]) -> Result<()> {
    ensure!(
        find("apt-get").is_some(),
        "this machine has no apt-get; install what these Debian packages hold: {}",
        packages.join(" ")
    );
    println!("setup: apt-get install {}", packages.join(" "));
    run(as_root("sh", &[])
        .args(["-c", INSTALL, "setup"])
        .args(packages))
    .context("installing packages")
}

/// The nightly toolchain, with the sources of `core` to build the kernel side from, and clippy.
fn toolchain() -> Result<()> {
    ensure!(
        find("rustup").is_some(),
        "rustup is missing: it installs the nightly compiler that builds the kernel side"
    );
    let sysroot = || {
        let mut rustc = Command::new("rustup");
        output(rustc.args(["run", NIGHTLY, "rustc", "--print", "sysroot"]))
    };
    if sysroot().is_none() {
        println!("setup: the {NIGHTLY} compiler is missing, which builds the kernel side");
        run(Command::new("rustup").args([
            "toolchain",
            "install",
            NIGHTLY,
            "--profile",
            "minimal",
        ]))?;
    }
    let sysroot = sysroot().with_context(|| format!("the {NIGHTLY} compiler does not run"))?;
    let sysroot = Path::new(sysroot.trim());
    for (component, file, why) in [
        (
            "rust-src",
            "lib/rustlib/src/rust/library/core/src/lib.rs",
            "core is built for the kernel from it",
        ),
        ("clippy", "bin/cargo-clippy", "it lints the kernel side"),
    ] {
        if !sysroot.join(file).exists() {
            println!("setup: {component} of {NIGHTLY} is missing: {why}");
            run(Command::new("rustup").args([
                "component",
                "add",
                component,
                "--toolchain",
                NIGHTLY,
            ]))?;
        }
    }
    let version =
        output(Command::new("rustup").args(["run", NIGHTLY, "rustc", "-vV"])).unwrap_or_default();
    match llvm_major(&version) {
        Some(major) if major <= LLVM => Ok(()),
        Some(major) => bail!(
            "the {NIGHTLY} compiler uses LLVM {major}, bpf-linker here LLVM {LLVM}, and it must \
             not be older; install a {NIGHTLY} with LLVM {LLVM} (rustc 1.97)"
        ),
        None => bail!("the {NIGHTLY} compiler does not tell its LLVM version"),
    }
}

fn install_linker() -> Result<()> {
    println!("setup: cargo install bpf-linker (about a minute)");
    let mut path = Path::new(LLVM_PREFIX).join("bin").into_os_string();
    path.push(":");
    path.push(env::var_os("PATH").unwrap_or_default());
    let mut cargo = Command::new("cargo");
    cargo
        .args(["install", "bpf-linker", "--version", LINKER_VERSION])
        .args(["--force", "--no-default-features", "--features"])
        .arg(format!("llvm-{LLVM}"))
        .env("LLVM_PREFIX", LLVM_PREFIX)
        .env("PATH", path);
    run(&mut cargo)?;
    let version = linker_version();
    ensure!(
        version.as_deref().is_some_and(is_good_linker),
        "bpf-linker was installed and does not run; is cargo's bin folder in PATH?"
    );
    Ok(())
}

/// The version of bpf-linker, if it is there and runs.
fn linker_version() -> Option<String> {
    let version = output(Command::new("bpf-linker").arg("--version"))?;
    Some(version.split_whitespace().nth(1)?.to_owned())
}

fn is_good_linker(version: &str) -> bool {
    version
        .strip_prefix(LINKER)
        .is_some_and(|rest| rest.starts_with('.'))
}

/// The major LLVM version in the output of `rustc -vV`.
fn llvm_major(version: &str) -> Option<u32> {
    let line = version
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))?;
    line.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_tools_print_them() {
        let rustc = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)\nhost: x\nLLVM version: 22.1.2\n";
        assert_eq!(llvm_major(rustc), Some(22));
        assert_eq!(llvm_major("rustc 1.97.0"), None);
        assert!(is_good_linker("0.13.0"));
        assert!(!is_good_linker("0.130.0"));
        assert!(!is_good_linker("0.12.9"));
    }
}
