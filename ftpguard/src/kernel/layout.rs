//! The number that a state of pinned maps goes by.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use ftpguard_common::{abi::LAYOUT, verdict::COUNTER_COUNT};

use super::{Settings, error::KernelError};

/// Everything that a state cannot change once it is in use: how its maps are laid out and how
/// large they are; the ports that were written into them; where it watches. Two daemons that
/// agree on all of it can take over each other's state.
pub(super) fn number(settings: &Settings) -> Result<u64, KernelError> {
    let inode = |path: &Path| fs::metadata(path).map(|metadata| metadata.ino());
    let network =
        inode(Path::new("/proc/thread-self/ns/net")).map_err(KernelError::NetworkNamespace)?;
    let cgroup = inode(&settings.cgroup).map_err(|source: io::Error| KernelError::Cgroup {
        path: settings.cgroup.clone(),
        source,
    })?;
    let mut words: Vec<u64> = LAYOUT.iter().map(|size| u64::from(*size)).collect();
    words.extend([
        u64::from(COUNTER_COUNT),
        u64::from(settings.max_sessions),
        network,
        cgroup,
        u64::from(settings.bounce_shield),
    ]);
    for range in settings.ftpds.iter().flat_map(|ftpd| &ftpd.passive) {
        words.extend([u64::from(*range.start()), u64::from(*range.end())]);
    }
    let control_ports = settings.ftpds.iter().flat_map(|ftpd| &ftpd.control);
    for ports in [
        control_ports.copied().collect(),
        settings.data_source_ports.clone(),
    ] {
        let mut ports: Vec<u16> = ports;
        ports.sort_unstable();
        words.push(u64::MAX);
        words.extend(ports.into_iter().map(u64::from));
    }
    let bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
    Ok(hash(&bytes))
}

/// FNV-1a: the same in every build, which the standard library's hash does not promise.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(hash(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(hash(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
