//! The initial file system of a virtual machine, with everything that runs in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use cpio::newc::{self, ModeFileType};

use super::fetch::walk;
use crate::exec::{find, output, shown};

/// What is built once, and runs on every kernel: no library of the host is needed.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// The daemon.
    pub(crate) ftpguard: PathBuf,
    /// Process 1 and the checks.
    pub(crate) vm: PathBuf,
    /// The suite of program runs in the kernel.
    pub(crate) suite: PathBuf,
}

/// Programs of this machine that are taken along, with their libraries.
const HOST_PROGRAMS: [&str; 4] = ["ip", "vsftpd", "curl", "sh"];

/// Modules that are needed where they are not built in: the sandbox's network, TC, and devices
/// that stand on others.
const MODULES: [&str; 6] = [
    "veth",
    "bridge",
    "sch_ingress",
    "cls_bpf",
    "8021q",
    "bonding",
];

const USERS: &str = "root:x:0:0::/:/bin/sh
ftp:x:101:101::/tmp:/bin/false
nobody:x:65534:65534::/:/bin/false
";
const GROUPS: &str = "root:x:0:
ftp:x:101:
nogroup:x:65534:
";

/// Everything but the modules, which differ from kernel to kernel: path and content.
#[derive(Clone, Debug, Default)]
pub(crate) struct Base {
    files: BTreeMap<String, (u32, Vec<u8>)>,
}

impl Base {
    /// Reads the programs, their libraries, and what vsftpd needs. `cache` keeps the certificate.
    pub(crate) fn collect(programs: &Programs, cache: &Path) -> Result<Self> {
        let mut base = Self::default();
        base.add("init", 0o755, &programs.vm)?;
        base.add("bin/ftpguard", 0o755, &programs.ftpguard)?;
        base.add("bin/programs", 0o755, &programs.suite)?;
        for program in HOST_PROGRAMS {
            let path = find(program).with_context(|| format!("{program} is not installed"))?;
            base.add(&format!("bin/{program}"), 0o755, &path)?;
            for library in libraries(&path)? {
                let inside = library.to_string_lossy().trim_start_matches('/').to_owned();
                base.add(&inside, 0o755, &library)?;
            }
        }
        base.add("etc/vsftpd.pem", 0o600, &certificate(cache)?)?;
        for (path, text) in [("etc/passwd", USERS), ("etc/group", GROUPS)] {
            let content = text.as_bytes().to_vec();
            base.files.insert(path.to_owned(), (0o644, content));
        }
        Ok(base)
    }

    fn add(&mut self, inside: &str, mode: u32, path: &Path) -> Result<()> {
        let content = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        self.files.insert(inside.to_owned(), (mode, content));
        Ok(())
    }

    /// Writes the image for a kernel with these modules.
    pub(crate) fn write(&self, modules: &Path, image: &Path) -> Result<()> {
        let mut files = self.files.clone();
        for (place, (name, content)) in needed_modules(modules)?.into_iter().enumerate() {
            files.insert(format!("modules/{place:02}-{name}.ko"), (0o644, content));
        }
        let file = File::create(image).with_context(|| format!("making {}", image.display()))?;
        write_archive(&files, BufWriter::new(file))
            .with_context(|| format!("writing {}", image.display()))
    }
}

/// Writes a cpio archive in the format that the kernel unpacks
/// (Documentation/driver-api/early-userspace/buffer-format.rst).
fn write_archive(files: &BTreeMap<String, (u32, Vec<u8>)>, mut out: impl Write) -> Result<()> {
    let mut folders = BTreeSet::from(["dev", "modules"].map(str::to_owned));
    for path in files.keys() {
        let parents = Path::new(path).ancestors().skip(1);
        folders.extend(
            parents
                .map(|folder| folder.to_string_lossy().into_owned())
                .filter(|folder| !folder.is_empty()),
        );
    }
    let mut inode = 0;
    let mut next = |name: &str, mode: u32, kind: ModeFileType| {
        inode += 1;
        newc::Builder::new(name)
            .ino(inode)
            .mode(mode)
            .set_mode_file_type(kind)
    };
    for folder in &folders {
        let header = next(folder, 0o755, ModeFileType::Directory);
        header.write(&mut out, 0).finish()?;
    }
    // Before devtmpfs is mounted, process 1 already writes to it.
    let console = next("dev/console", 0o600, ModeFileType::Char);
    console
        .rdev_major(5)
        .rdev_minor(1)
        .write(&mut out, 0)
        .finish()?;
    for (name, (mode, content)) in files {
        let size = u32::try_from(content.len()).with_context(|| format!("{name} is too large"))?;
        let header = next(name, *mode, ModeFileType::Regular);
        let mut writer = header.write(&mut out, size);
        writer.write_all(content)?;
        writer.finish()?;
    }
    newc::trailer(&mut out)?;
    out.flush()?;
    Ok(())
}

/// The shared libraries that a program of this machine is linked with; none for a static one.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let Some(listed) = output(Command::new("ldd").arg(program)) else {
        return Ok(Vec::new());
    };
    if listed.contains("not found") {
        bail!("{} lacks a library:\n{listed}", program.display());
    }
    Ok(listed
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect())
}

/// A self-signed certificate with its key, made once.
fn certificate(cache: &Path) -> Result<PathBuf> {
    let path = cache.join("vsftpd.pem");
    if !path.exists() {
        let (key, certificate) = (cache.join("key.pem"), cache.join("certificate.pem"));
        let mut command = Command::new("openssl");
        command
            .args(["req", "-x509", "-newkey", "rsa:2048", "-noenc"])
            .args(["-days", "3650", "-subj", "/CN=ftpguard-vm", "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&certificate);
        if output(&mut command).is_none() {
            bail!("no certificate: {}", shown(&command));
        }
        let mut both = fs::read(&key).context("reading the key")?;
        both.extend(fs::read(&certificate).context("reading the certificate")?);
        fs::write(&path, both).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(path)
}

/// The modules to load, decompressed, each after those that it depends on. One that has no file
/// is built into the kernel; were it missing, the first check in the machine would fail.
fn needed_modules(folder: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut found = BTreeMap::new();
    walk(folder, &mut |path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if let Some((module, _)) = name.split_once(".ko") {
            found.insert(module.replace('-', "_"), path.to_owned());
        }
    })?;
    let mut modules = Vec::new();
    for name in MODULES {
        add_module(name, &found, &mut modules)?;
    }
    Ok(modules)
}

fn add_module(
    name: &str,
    found: &BTreeMap<String, PathBuf>,
    modules: &mut Vec<(String, Vec<u8>)>,
) -> Result<()> {
    let Some(path) = found.get(name) else {
        return Ok(());
    };
    if modules.iter().any(|(other, _)| other == name) {
        return Ok(());
    }
    let content = decompress(path)?;
    for other in dependencies(&content) {
        add_module(&other, found, modules)?;
    }
    modules.push((name.to_owned(), content));
    Ok(())
}

fn decompress(path: &Path) -> Result<Vec<u8>> {
    let program = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return fs::read(path).with_context(|| format!("reading {}", path.display())),
    };
    let unpacked = Command::new(program)
        .arg("-dc")
        .arg(path)
        .output()
        .with_context(|| format!("starting {program}"))?;
    if !unpacked.status.success() {
        bail!("{program} cannot unpack {}", path.display());
    }
    Ok(unpacked.stdout)
}

/// The names in a module's `depends=` line (section .modinfo).
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|bytes| bytes == KEY) else {
        return Vec::new();
    };
    let rest = &module[at + KEY.len()..];
    let end = rest.iter().position(|&byte| byte == 0).unwrap_or(0);
    String::from_utf8_lossy(&rest[..end])
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_the_module() {
        let module = b"\x7fELF\0license=GPL\0depends=stp,llc\0retpoline=Y\0";
        assert_eq!(dependencies(module), ["stp", "llc"]);
        assert!(dependencies(b"\0depends=\0name=veth\0").is_empty());
        assert!(dependencies(b"no module").is_empty());
    }

    #[test]
    fn an_archive_has_its_folders_before_its_files() {
        let mut files = BTreeMap::new();
        files.insert("usr/lib/a".to_owned(), (0o644, b"content".to_vec()));
        let mut archive = Vec::new();
        write_archive(&files, &mut archive).expect("an archive");
        let mut names = Vec::new();
        let mut rest = archive.as_slice();
        loop {
            let reader = newc::Reader::new(rest).expect("an entry");
            if reader.entry().is_trailer() {
                break;
            }
            names.push(reader.entry().name().to_owned());
            rest = reader.finish().expect("the next entry");
        }
        let expected = [
            "dev",
            "modules",
            "usr",
            "usr/lib",
            "dev/console",
            "usr/lib/a",
        ];
        assert_eq!(names, expected);
    }
}
