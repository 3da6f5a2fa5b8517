//! Can this host run the guard? Each missing thing is one error with its remedy.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    mount::{MsFlags, mount},
    sys::{
        resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit},
        statfs::{CGROUP2_SUPER_MAGIC, statfs},
        utsname::uname,
    },
};
use procfs::{process::Process, sys::kernel::Version};

use crate::kernel::interface_names;

/// What the checks found out.
#[derive(Clone, Debug)]
pub struct Host {
    /// The kernel's release, as `uname -r` shows it.
    pub release: String,
    /// The cgroup v2 folder whose processes are watched.
    pub cgroup: PathBuf,
    /// The interfaces to guard; never empty.
    pub interfaces: Vec<String>,
    /// Whether there is a BPF file system to pin things in.
    pub has_bpffs: bool,
}

/// Checks the host, and mounts or raises what is missing and can be had.
///
/// `interfaces` and `cgroup` are the operator's choice; empty and `None` stand for all but
/// loopback, and for the root of the cgroup v2 hierarchy.
pub fn check(interfaces: &[String], cgroup: Option<&Path>) -> Result<Host> {
    let interfaces = choose_interfaces(interfaces, &interface_names())?;
    let release = check_kernel()?;
    check_capabilities()?;
    let has_bpffs = mount_bpffs();
    Ok(Host {
        release,
        cgroup: choose_cgroup(cgroup)?,
        interfaces,
        has_bpffs,
    })
}

/// Checks the host and changes nothing.
pub fn look(interfaces: &[String], cgroup: Option<&Path>) -> Result<Host> {
    let release = check_kernel()?;
    check_capabilities()?;
    Ok(Host {
        release,
        cgroup: choose_cgroup(cgroup)?,
        interfaces: choose_interfaces(interfaces, &interface_names())?,
        has_bpffs: bpffs_is_mounted(),
    })
}

/// Where it belongs.
const BPFFS: &str = "/sys/fs/bpf";

/// Whether a bpffs is mounted.
#[must_use]
pub fn bpffs_is_mounted() -> bool {
    mounts_of("bpf").is_ok_and(|places| !places.is_empty())
}

fn choose_interfaces(wanted: &[String], present: &[String]) -> Result<Vec<String>> {
    for name in wanted {
        ensure!(
            present.contains(name),
            "no interface {name:?} in this network namespace; there are: {}",
            present.join(", ")
        );
    }
    if !wanted.is_empty() {
        return Ok(wanted.to_vec());
    }
    let all: Vec<String> = present
        .iter()
        .filter(|name| *name != "lo")
        .cloned()
        .collect();
    ensure!(
        !all.is_empty(),
        "no interface but lo in this network namespace; name it with --iface lo to guard it"
    );
    Ok(all)
}

/// The oldest kernel with every program type, helper and map that the guard uses.
const OLDEST_KERNEL: Version = Version {
    major: 5,
    minor: 10,
    patch: 0,
};

/// From here on the kernel charges BPF memory to the cgroup and no longer to `RLIMIT_MEMLOCK`.
const CHARGES_CGROUP: Version = Version {
    major: 5,
    minor: 11,
    patch: 0,
};

fn check_kernel() -> Result<String> {
    let release = uname()
        .context("reading the kernel's release")?
        .release()
        .to_string_lossy()
        .into_owned();
    let version = Version::current().context("reading the kernel's version")?;
    ensure!(
        version >= OLDEST_KERNEL,
        "kernel {release} is too old; ftpguard needs Linux 5.10 or later"
    );
    if version < CHARGES_CGROUP {
        setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY)
            .context("raising the limit of locked memory, which BPF maps need before Linux 5.11; run as root")?;
    }
    Ok(release)
}

/// Raises the limit of open files to what may be had: the usual one, 1024, is for programs that
/// call select(). The guard's maps, hooks and whoever asks it need some hundred.
pub fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
        } else {
            Ok(())
        }
    });
    if let Err(error) = raised {
        log::debug!("the limit of open files stays as it is: {error}");
    }
}

/// Capability numbers of `linux/capability.h`.
mod capability {
    pub(super) const DAC_READ_SEARCH: (u8, &str) = (2, "CAP_DAC_READ_SEARCH");
    pub(super) const NET_ADMIN: (u8, &str) = (12, "CAP_NET_ADMIN");
    pub(super) const SYS_PTRACE: (u8, &str) = (19, "CAP_SYS_PTRACE");
    pub(super) const SYS_ADMIN: (u8, &str) = (21, "CAP_SYS_ADMIN");
    pub(super) const PERFMON: (u8, &str) = (38, "CAP_PERFMON");
    pub(super) const BPF: (u8, &str) = (39, "CAP_BPF");
}

fn check_capabilities() -> Result<()> {
    let effective = Process::myself()
        .and_then(|process| process.status())
        .context("reading this process's capabilities from /proc/self/status")?
        .capeff;
    let missing = missing_capabilities(effective);
    ensure!(
        missing.is_empty(),
        "not enough permission: {} missing; run as root (sudo) or grant them",
        missing.join(", ")
    );
    for capability in [capability::SYS_PTRACE, capability::DAC_READ_SEARCH] {
        if !has(effective, capability) {
            log::warn!(
                "without {}, FTP sessions of other users that are open already cannot be adopted",
                capability.1
            );
        }
    }
    Ok(())
}

/// What loading and attaching needs and this mask of effective capabilities lacks.
/// `CAP_SYS_ADMIN` contains `CAP_BPF` and `CAP_PERFMON`, as before Linux 5.8.
fn missing_capabilities(effective: u64) -> Vec<&'static str> {
    let mut needed = vec![capability::NET_ADMIN];
    if !has(effective, capability::SYS_ADMIN) {
        needed.extend([capability::BPF, capability::PERFMON]);
    }
    needed
        .into_iter()
        .filter(|capability| !has(effective, *capability))
        .map(|(_, name)| name)
        .collect()
}

fn has(effective: u64, (number, _): (u8, &str)) -> bool {
    effective & (1 << number) != 0
}

/// Without a BPF file system the kernel side ends with the daemon, which is no reason to stop.
fn mount_bpffs() -> bool {
    if bpffs_is_mounted() {
        return true;
    }
    let mounted = mount(
        Some("bpf"),
        BPFFS,
        Some("bpf"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        // As systemd mounts it: by default everybody may make files in it.
        Some("mode=0700"),
    );
    match mounted {
        Ok(()) => log::info!("mounted bpf at {BPFFS}, where it was missing"),
        Err(error) => log::warn!(
            "bpf is not mounted and cannot be: {error}; mount it: mount -t bpf bpf {BPFFS}; until \
             then the host is unguarded when the daemon dies"
        ),
    }
    mounted.is_ok()
}

fn choose_cgroup(wanted: Option<&Path>) -> Result<PathBuf> {
    wanted.map_or_else(find_cgroup_root, check_cgroup)
}

fn check_cgroup(folder: &Path) -> Result<PathBuf> {
    let folder = fs::canonicalize(folder).with_context(|| {
        format!(
            "cgroup {} cannot be used; make it or name another with --cgroup",
            folder.display()
        )
    })?;
    let kind = statfs(&folder)
        .with_context(|| format!("looking at cgroup {}", folder.display()))?
        .filesystem_type();
    ensure!(
        kind == CGROUP2_SUPER_MAGIC,
        "{} is no cgroup v2 folder; name one below {} with --cgroup",
        folder.display(),
        find_cgroup_root().map_or_else(
            |_| "a cgroup2 mount".to_owned(),
            |root| root.display().to_string()
        )
    );
    Ok(folder)
}

fn find_cgroup_root() -> Result<PathBuf> {
    let Some(root) = mounts_of("cgroup2")?.into_iter().next() else {
        bail!(
            "cgroup v2 is not mounted, so connect() cannot be guarded; \
             mount it: mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified"
        );
    };
    Ok(root)
}

/// Where file systems of this type are mounted.
fn mounts_of(kind: &str) -> Result<Vec<PathBuf>> {
    let mounts = Process::myself()
        .and_then(|process| process.mountinfo())
        .context("reading /proc/self/mountinfo")?;
    Ok(mounts
        .into_iter()
        .filter(|mount| mount.fs_type == kind)
        .map(|mount| mount.mount_point)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn every_interface_but_loopback_unless_named() {
        let present = names(&["eth0", "eth1", "lo"]);
        assert_eq!(
            choose_interfaces(&[], &present).expect("all"),
            names(&["eth0", "eth1"])
        );
        assert_eq!(
            choose_interfaces(&names(&["lo"]), &present).expect("lo"),
            names(&["lo"])
        );
        let error = choose_interfaces(&names(&["eth9"]), &present).expect_err("missing");
        assert!(error.to_string().contains("\"eth9\""));
        assert!(error.to_string().contains("eth0, eth1, lo"));
        assert!(choose_interfaces(&[], &names(&["lo"])).is_err());
    }

    #[test]
    fn missing_capabilities_are_named() {
        let bits = |numbers: &[u8]| numbers.iter().fold(0, |mask, number| mask | 1 << number);
        assert!(missing_capabilities(u64::MAX).is_empty());
        assert!(missing_capabilities(bits(&[12, 21])).is_empty());
        assert!(missing_capabilities(bits(&[12, 38, 39])).is_empty());
        assert_eq!(missing_capabilities(bits(&[12, 38])), ["CAP_BPF"]);
        assert_eq!(missing_capabilities(bits(&[21])), ["CAP_NET_ADMIN"]);
        assert_eq!(
            missing_capabilities(0),
            ["CAP_NET_ADMIN", "CAP_BPF", "CAP_PERFMON"]
        );
    }
}
