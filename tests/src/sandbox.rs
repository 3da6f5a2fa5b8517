//! Four hosts on one bridge, with addresses that nobody else on this machine has.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Deref,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    cgroup::{self, Cgroup},
    guard,
    namespace::{self, Namespace},
    slot::Slot,
};

/// The interface by which each host reaches the others.
pub const INTERFACE: &str = "eth0";

/// Names of control groups and temporary folders begin so; the process id follows.
const PREFIX: &str = "ftpguard-sandbox-";
/// Names of namespaces begin so; the process id follows.
const SHORT_PREFIX: &str = "fg";

/// A network of its own, with a control group and a temporary folder.
///
/// Everything in it goes when it is dropped. What a killed process left behind is removed when
/// the next sandbox is made.
#[derive(Debug)]
pub struct Sandbox {
    // Dropped in this order: the ftpd's processes, then the namespaces they ran in.
    ftpd_cgroup: Cgroup,
    proxy_cgroup: Cgroup,
    _cgroup: Cgroup,
    server: Host,
    client: Host,
    thief: Host,
    third: Host,
    lan: Namespace,
    folder: Folder,
    _slot: Slot,
}

/// One machine in the sandbox.
#[derive(Debug)]
pub struct Host {
    namespace: Namespace,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Sandbox {
    /// Makes the network. Needs root.
    pub fn new() -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "the sandbox of network namespaces needs root (cargo xtask runs it with sudo)"
        );
        sweep();
        let slot = Slot::take()?;
        let owner = process::id();
        let name = format!("{PREFIX}{owner}-{}", slot.serial());
        let short = format!("{SHORT_PREFIX}{owner}-{}", slot.serial());
        let folder = Folder::new(&name)?;
        let cgroup = Cgroup::new(&name)?;
        let ftpd_cgroup = cgroup.child("ftpd")?;
        let proxy_cgroup = cgroup.child("proxy")?;

        let lan = Namespace::new(&format!("{short}-lan"))?;
        // Without multicast snooping neighbour discovery works from the first packet on.
        lan.ip(&[
            "link",
            "add",
            "bridge",
            "type",
            "bridge",
            "mcast_snooping",
            "0",
        ])?;
        lan.ip(&["link", "set", "bridge", "up"])?;
        let host = |label: &str, last: u8| Host::new(&lan, &short, label, slot.number(), last);
        Ok(Self {
            server: host("srv", 1)?,
            client: host("cli", 2)?,
            thief: host("thf", 3)?,
            third: host("trd", 4)?,
            ftpd_cgroup,
            proxy_cgroup,
            _cgroup: cgroup,
            lan,
            folder,
            _slot: slot,
        })
    }

    /// Where the ftpd and the guard run.
    #[must_use]
    pub fn server(&self) -> &Host {
        &self.server
    }

    /// Pulls the plug of the server's interface, or puts it in again.
    pub fn unplug_server(&self, out: bool) -> Result<()> {
        let state = if out { "down" } else { "up" };
        self.lan.ip(&["link", "set", "srv", state]).map(drop)
    }

    /// The honest client.
    #[must_use]
    pub fn client(&self) -> &Host {
        &self.client
    }

    /// A host that has no business with anybody's data connection.
    #[must_use]
    pub fn thief(&self) -> &Host {
        &self.thief
    }

    /// A third host, which a bounce is meant to reach.
    #[must_use]
    pub fn third(&self) -> &Host {
        &self.third
    }

    /// The bridge between the hosts. Its ports are `srv`, `cli`, `thf` and `trd`.
    #[must_use]
    pub fn lan(&self) -> &Namespace {
        &self.lan
    }

    /// Joins a host to the others once more, by an interface without addresses that is up.
    pub fn plug(&self, host: &Host, interface: &str) -> Result<()> {
        // The end at the bridge goes with the interface.
        let last = host.v4.octets()[3];
        let label = format!("p{last}");
        // The same each time, so that the others need not ask for it again.
        let hardware = format!("02:f7:00:00:00:{last:02x}");
        let name = host.name();
        self.lan.ip(&[
            "link", "add", &label, "type", "veth", "peer", "name", interface, "address", &hardware,
            "netns", name,
        ])?;
        self.lan
            .ip(&["link", "set", &label, "master", "bridge", "up"])?;
        host.ip(&["link", "set", interface, "up"])?;
        Ok(())
    }

    /// The control group of the ftpd; the guard's `--cgroup`.
    #[must_use]
    pub fn ftpd_cgroup(&self) -> &Cgroup {
        &self.ftpd_cgroup
    }

    /// The control group of an FTP proxy on the third host.
    #[must_use]
    pub fn proxy_cgroup(&self) -> &Cgroup {
        &self.proxy_cgroup
    }

    /// A folder that every user may read, removed with the sandbox.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder.0
    }
}

impl Host {
    fn new(lan: &Namespace, short: &str, label: &str, slot: u16, last: u8) -> Result<Self> {
        let [high, low] = slot.to_be_bytes();
        let v4 = Ipv4Addr::new(10, high, low, last);
        let v6 = Ipv6Addr::new(0xfd00, 0xf7, 0, slot, 0, 0, 0, u16::from(last));
        let namespace = Namespace::new(&format!("{short}-{label}"))?;
        let name = namespace.name();
        lan.ip(&[
            "link", "add", label, "type", "veth", "peer", "name", INTERFACE, "netns", name,
        ])?;
        lan.ip(&["link", "set", label, "master", "bridge", "up"])?;
        let (cidr4, cidr6) = (format!("{v4}/24"), format!("{v6}/64"));
        namespace.ip(&["address", "add", &cidr4, "dev", INTERFACE])?;
        namespace.ip(&["address", "add", &cidr6, "dev", INTERFACE, "nodad"])?;
        namespace.ip(&["link", "set", INTERFACE, "up"])?;
        Ok(Self { namespace, v4, v6 })
    }

    /// Its address of this family.
    #[must_use]
    pub fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }

    /// Its address of this family, with a port.
    #[must_use]
    pub fn socket(&self, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(self.address(family), port)
    }
}

impl Deref for Host {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// `IPv4` or `IPv6`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// A temporary folder.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(name);
        fs::DirBuilder::new()
            .mode(0o755)
            .create(&path)
            .with_context(|| format!("making {}", path.display()))?;
        let folder = Self(path);
        // The ftpd's unprivileged user reads below it, whatever the umask is here.
        fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("opening {} to all", folder.0.display()))?;
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        unpin(&self.0);
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes what sandboxes of processes that no longer exist left behind.
fn sweep() {
    for name in namespace::named(SHORT_PREFIX) {
        if is_abandoned(&name, SHORT_PREFIX) {
            namespace::remove(&name);
        }
    }
    if let Ok(root) = cgroup::mount() {
        for path in entries(&root, PREFIX) {
            for child in entries(&path, "") {
                if child.is_dir() {
                    cgroup::remove(&child);
                }
            }
            cgroup::remove(&path);
        }
    }
    for path in entries(&std::env::temp_dir(), PREFIX) {
        unpin(&path);
        let _ = fs::remove_dir_all(path);
    }
}

/// Removes what guards that were killed left pinned, those with a runtime folder in this one.
fn unpin(folder: &Path) {
    let prefix = guard::pins(&folder.join(""));
    let prefix = prefix.file_name().unwrap_or_default().to_string_lossy();
    for entry in fs::read_dir(guard::PINS).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&*prefix) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The entries of a directory that begin with `prefix` and belong to no living process. With an
/// empty prefix, all of them.
fn entries(directory: &Path, prefix: &str) -> Vec<PathBuf> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            prefix.is_empty()
                || entry
                    .file_name()
                    .to_str()
                    .is_some_and(|name| is_abandoned(name, prefix))
        })
        .map(|entry| entry.path())
        .collect()
}

/// Whether `name` is `prefix`, a process id, a dash and more, and that process is gone.
fn is_abandoned(name: &str, prefix: &str) -> bool {
    let Some((owner, _)) = name
        .strip_prefix(prefix)
        .and_then(|rest| rest.split_once('-'))
    else {
        return false;
    };
    owner.parse::<u32>().is_ok() && !Path::new("/proc").join(owner).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_dead_owners_are_abandoned() {
        // No process id is that large (PID_MAX_LIMIT is 2^22).
        assert!(is_abandoned("fg4194999-0-srv", "fg"));
        assert!(!is_abandoned(&format!("fg{}-0-srv", process::id()), "fg"));
        assert!(!is_abandoned("fgspike-srv", "fg"));
        assert!(!is_abandoned("eth0", "fg"));
        assert!(!is_abandoned("fg12", "fg"));
    }
}
