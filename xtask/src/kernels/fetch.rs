//! Kernels from Debian's archive, by the mirror that this machine uses already.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::table::{Entry, Pattern};
use crate::exec::{as_root, output, run};

/// The keys that sign Debian's suites, from the package debian-archive-keyring.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Where a kernel and its modules lie, unpacked.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// The compressed kernel image.
    pub(crate) image: PathBuf,
    /// The folder with its modules, at any depth.
    pub(crate) modules: PathBuf,
}

/// The kernel of this entry, from the cache or from the archive.
pub(crate) fn kernel(entry: &Entry, cache: &Path, refresh: bool) -> Result<Kernel> {
    let folder = cache.join(entry.name);
    // Written last, so that an interrupted download is not taken for a whole one.
    let complete = folder.join("complete");
    if refresh || !complete.exists() {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let packages = download(entry, cache, &folder).with_context(|| {
            format!(
                "fetching kernel {} from Debian {} (--only leaves a kernel out)",
                entry.name, entry.suite
            )
        })?;
        fs::write(&complete, packages.join("\n"))
            .with_context(|| format!("writing {}", complete.display()))?;
    }
    unpacked(&folder)
}

/// Finds the kernel image below a folder.
fn unpacked(folder: &Path) -> Result<Kernel> {
    let mut images = Vec::new();
    walk(folder, &mut |path| {
        if path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"))
        {
            images.push(path.to_owned());
        }
    })?;
    let image = images
        .pop()
        .with_context(|| format!("no vmlinuz below {}", folder.display()))?;
    Ok(Kernel {
        image,
        modules: folder.to_owned(),
    })
}

/// Calls `visit` for every file below a folder.
pub(crate) fn walk(folder: &Path, visit: &mut impl FnMut(&Path)) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("reading {}", folder.display()))?;
        let kind = entry
            .file_type()
            .with_context(|| format!("reading {}", folder.display()))?;
        if kind.is_dir() {
            walk(&entry.path(), visit)?;
        } else {
            visit(&entry.path());
        }
    }
    Ok(())
}

fn download(entry: &Entry, cache: &Path, folder: &Path) -> Result<Vec<String>> {
    let archive = Archive::of(entry.suite, cache)?;
    archive.update()?;
    let mut packages = Vec::new();
    for pattern in entry.packages {
        let package = archive.newest(*pattern)?;
        println!("{:<6} fetching {package}", entry.name);
        run(archive
            .apt("apt-get")
            .args(["--quiet=2", "download", &package])
            .current_dir(folder))?;
        packages.push(package);
    }
    let mut files = Vec::new();
    walk(folder, &mut |path| files.push(path.to_owned()))?;
    for file in files {
        run(Command::new("dpkg").arg("-x").arg(&file).arg(folder))?;
        fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))?;
    }
    Ok(packages)
}

/// One suite of Debian's archive, with lists of its own: what apt knows on this machine is
/// neither used nor changed.
struct Archive {
    suite: &'static str,
    lists: PathBuf,
    sources: PathBuf,
}

impl Archive {
    fn of(suite: &'static str, cache: &Path) -> Result<Self> {
        ensure!(
            Path::new(KEYRING).exists(),
            "{KEYRING} is missing; install debian-archive-keyring, or name a kernel of your own \
             with --kernel and --modules"
        );
        let lists = cache.join("lists").join(suite);
        fs::create_dir_all(lists.join("partial"))
            .with_context(|| format!("making {}", lists.display()))?;
        let sources = cache.join("lists").join(format!("{suite}.list"));
        let line = format!("deb [signed-by={KEYRING}] {} {suite} main\n", mirror()?);
        fs::write(&sources, line).with_context(|| format!("writing {}", sources.display()))?;
        Ok(Self {
            suite,
            lists,
            sources,
        })
    }

    fn update(&self) -> Result<()> {
        run(self
            .apt("apt-get")
            .args(["--quiet=2", "--error-on=any", "update"]))
        .with_context(|| format!("reading the package list of Debian {}", self.suite))
    }

    /// The newest package of this pattern.
    fn newest(&self, pattern: Pattern) -> Result<String> {
        let Pattern(start, end) = pattern;
        let names = output(self.apt("apt-cache").args(["pkgnames", start])).unwrap_or_default();
        names
            .lines()
            .filter(|name| name.starts_with(start) && name.ends_with(end))
            .max_by_key(|name| numbers(name))
            .map(str::to_owned)
            .with_context(|| format!("Debian {} has no package {start}*{end} now", self.suite))
    }

    /// One of apt's programs, on this suite alone.
    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let option = |name: &str, value: &Path| format!("{name}={}", value.display());
        for setting in [
            option("Dir::Etc::SourceList", &self.sources),
            option("Dir::State::Lists", &self.lists),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            "Dir::State::Status=/dev/null".to_owned(),
            "Dir::Cache::PkgCache=".to_owned(),
            "Dir::Cache::SrcPkgCache=".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            // The user who would download otherwise cannot write where this is built.
            "APT::Sandbox::User=root".to_owned(),
        ] {
            command.args(["-o", &setting]);
        }
        command
    }
}

/// The Debian mirror among this machine's own apt sources.
fn mirror() -> Result<String> {
    if let Some(found) = configured_mirror() {
        return Ok(found);
    }
    // Its lists may never have been read.
    run(as_root("apt-get", &[]).args(["--quiet=2", "update"]))?;
    match configured_mirror() {
        Some(found) => Ok(found),
        None => bail!(
            "there is no Debian archive among this machine's apt sources; add one, or name a \
             kernel of your own with --kernel and --modules"
        ),
    }
}

fn configured_mirror() -> Option<String> {
    let format = "$(LABEL)|$(COMPONENT)|$(REPO_URI)";
    let mut command = Command::new("apt-get");
    let targets = output(command.args(["indextargets", "--format", format]))?;
    targets
        .lines()
        .find_map(|line| line.strip_prefix("Debian|main|"))
        .map(str::to_owned)
}

/// The numbers in a package's name, to compare versions by.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|character: char| !character.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_number_by_number() {
        let older = "linux-image-6.12.94+deb13-cloud-amd64-unsigned";
        let newer = "linux-image-6.12.107+deb13-cloud-amd64-unsigned";
        assert!(numbers(older) < numbers(newer));
        assert!(numbers("linux-image-5.10.0-30-cloud") < numbers("linux-image-5.10.0-32-cloud"));
    }
}
