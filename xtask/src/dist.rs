//! `cargo xtask dist`: what users install: a tarball, a .deb and an .rpm, and proof that the .deb
//! comes, stays and goes as it should, and that the quick start works with it.

mod install;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use ftpguard_tests::quick_start::{self, Package};

use crate::exec::{as_root, cargo, output, run, target, workspace};

/// The target of a program that needs no library of the system it runs on.
const TARGET: &str = "x86_64-unknown-linux-musl";
/// The package whose metadata describes the packages.
const PACKAGE: &str = "ftpguard";
/// cargo's subcommands that make packages, with the versions that were tried.
const TOOLS: [(&str, &str); 2] = [("cargo-deb", "3.8.0"), ("cargo-generate-rpm", "0.21.1")];

/// What goes into the tarball besides the program, the manual and the completions: where it lies,
/// and where it comes to lie.
const TARBALL: [(&str, &str); 6] = [
    ("README.md", ""),
    ("CHANGELOG.md", ""),
    ("LICENSE-MIT", ""),
    ("LICENSE-APACHE", ""),
    ("docs", "docs"),
    ("packaging", "packaging"),
];

/// What `dist` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Make the packages, and do not try the .deb
    #[arg(long)]
    no_try: bool,
}

/// What the part that carries out the quick start takes.
#[derive(clap::Args)]
pub(crate) struct QuickStart {
    /// The .deb
    deb: PathBuf,
    /// Where the transcript comes to lie
    transcript: PathBuf,
}

/// Carries docs/quick-start.md out on a machine on which the .deb is installed with apt.
pub(crate) fn quick_start(arguments: &QuickStart) -> Result<()> {
    let transcript = quick_start::play(&Package::Deb(arguments.deb.clone()))?;
    let path = &arguments.transcript;
    fs::write(path, transcript).with_context(|| format!("writing {}", path.display()))
}

/// Makes everything below target/dist, and tries the .deb.
pub(crate) fn dist(arguments: &Arguments) -> Result<()> {
    let tools = tools()?;
    // The packages' metadata names files there, so it is not moved by CARGO_TARGET_DIR.
    let folder = workspace().join("target/dist");
    remove(&folder)?;
    let files = folder.join("files");
    fs::create_dir_all(&files).with_context(|| format!("making {}", files.display()))?;

    let binary = build()?;
    run(cargo()
        .args([
            "run",
            "--quiet",
            "--package",
            PACKAGE,
            "--example",
            "pages",
            "--",
        ])
        .arg(&files))?;
    let version = version(&binary)?;

    let made = [
        tarball(&folder, &files, &binary, &version)?,
        deb(&tools[0], &folder, None)?,
        rpm(&tools[1], &folder)?,
    ];
    if !arguments.no_try {
        let older = deb(&tools[0], &folder.join("older"), Some("0.0.1-1"))?;
        install::try_deb(&older, &made[1])?;
        let this = env::current_exe().context("finding this program")?;
        let transcript = folder.join("quick-start.md");
        run(as_root(this, &[])
            .arg("quick-start")
            .args([&made[1], &transcript]))
        .context("docs/quick-start.md, carried out with the .deb")?;
        println!(
            "dist: docs/quick-start.md works with the .deb; {} tells how it went",
            transcript.display()
        );
    }
    for path in &made {
        let size = fs::metadata(path).map_or(0, |file| file.len());
        println!("dist: {} ({} KiB)", path.display(), size / 1_024);
    }
    Ok(())
}

/// The static program.
fn build() -> Result<PathBuf> {
    run(Command::new("rustup").args(["target", "add", TARGET]))
        .context("the compiler's files for static programs")?;
    let mut build = cargo();
    build.args(["build", "--release", "--target", TARGET]);
    build.args(["--package", PACKAGE, "--bin", PACKAGE]);
    run(&mut build)?;
    Ok(target().join(TARGET).join("release").join(PACKAGE))
}

/// The version, as the program says it: it also shows that it runs.
fn version(binary: &Path) -> Result<String> {
    let told = output(Command::new(binary).arg("--version")).context("the program does not run")?;
    let version = told.split_whitespace().nth(1);
    version.map(str::to_owned).context("it tells no version")
}

/// Installs what makes packages, into the target folder.
fn tools() -> Result<Vec<PathBuf>> {
    let root = target().join("tools");
    TOOLS
        .into_iter()
        .map(|(name, version)| {
            let path = root.join("bin").join(name);
            if !is_installed(&root, name, version) {
                println!("dist: cargo install {name} {version} (some minutes)");
                run(cargo()
                    .args(["install", name, "--version", version, "--locked", "--root"])
                    .arg(&root))?;
            }
            ensure!(path.exists(), "{} is not there", path.display());
            Ok(path)
        })
        .collect()
}

/// Whether cargo has installed this version of the tool there.
fn is_installed(root: &Path, name: &str, version: &str) -> bool {
    let listed = output(cargo().args(["install", "--list", "--root"]).arg(root));
    listed.is_some_and(|listed| listed.contains(&format!("{name} v{version}:")))
}

fn tarball(folder: &Path, files: &Path, binary: &Path, version: &str) -> Result<PathBuf> {
    let name = format!("ftpguard-{version}-x86_64-linux");
    let content = folder.join(&name);
    copy(binary, &content.join("ftpguard"))?;
    for part in ["man", "completions"] {
        copy(&files.join(part), &content.join(part))?;
    }
    for (from, to) in TARBALL {
        let from = workspace().join(from);
        let to = content.join(to);
        if from.is_dir() {
            copy(&from, &to)?;
        } else {
            let name = from.file_name().context("a name")?;
            copy(&from, &to.join(name))?;
        }
    }
    let path = folder.join(format!("{name}.tar.gz"));
    run(Command::new("tar")
        .args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner"])
        .arg("--directory")
        .arg(folder)
        .args(["--create", "--gzip", "--file"])
        .arg(&path)
        .arg(&name))?;
    remove(&content)?;
    Ok(path)
}

/// Makes the .deb, of another version where one is named.
fn deb(tool: &Path, folder: &Path, version: Option<&str>) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let mut command = Command::new(tool);
    command.current_dir(workspace());
    command.args(["--package", PACKAGE, "--target", TARGET, "--no-build"]);
    command.args(["--strip", "--quiet", "--output"]).arg(folder);
    if let Some(version) = version {
        // Nobody but the trial installs it.
        command.args(["--fast", "--deb-version", version]);
    }
    run(&mut command)?;
    only(folder, "deb")
}

fn rpm(tool: &Path, folder: &Path) -> Result<PathBuf> {
    let mut command = Command::new(tool);
    command.current_dir(workspace());
    command.args(["--package", PACKAGE, "--target", TARGET, "--output"]);
    run(command.arg(folder))?;
    only(folder, "rpm")
}

/// The one file with this extension.
fn only(folder: &Path, extension: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let found: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|other| other == extension))
        .collect();
    ensure!(found.len() == 1, "not one .{extension}: {found:?}");
    Ok(found[0].clone())
}

/// Copies a file, or a folder with what is in it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let parent = to.parent().unwrap_or(to);
    fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    run(Command::new("cp")
        .args(["--recursive", "--no-target-directory"])
        .arg(from)
        .arg(to))
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", folder.display()))
        }
        _ => Ok(()),
    }
}
