//! The words of the `PORTS` map as memory.
//!
//! The kernel side counts listeners in these words while the guard changes roles in them. A
//! system call would read a word and write it back, and lose what was counted in between. The map
//! is mapped into memory instead (`BPF_F_MMAPABLE`, Linux 5.5), where both sides use atomic
//! instructions on the same word.

use std::{
    ffi::c_void,
    num::NonZeroUsize,
    os::fd::AsFd,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use ftpguard_common::abi::port_word;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// How many ports there are, 0 included.
pub(super) const PORTS: usize = 1 << 16;
/// The bytes of the map.
const LENGTH: NonZeroUsize = match NonZeroUsize::new(PORTS * size_of::<u64>()) {
    Some(length) => length,
    None => unreachable!(),
};

/// One word for each port, see [`port_word`].
pub(super) struct PortWords(NonNull<c_void>);

// SAFETY: the memory belongs to no thread, and is read and changed by atomic instructions only.
unsafe impl Send for PortWords {}
// SAFETY: as above.
unsafe impl Sync for PortWords {}

impl PortWords {
    /// Maps the map with this descriptor, which has one 8-byte element for each port. The
    /// kernel refuses a map that is smaller or was not made to be mapped.
    pub(super) fn map(map: impl AsFd) -> nix::Result<Self> {
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the kernel chooses a free address, so no other memory is touched.
        let start = unsafe { mmap(None, LENGTH, access, MapFlags::MAP_SHARED, map, 0) }?;
        Ok(Self(start))
    }

    /// Gives the port exactly these roles. The counts in its word stay as they are.
    pub(super) fn set_roles(&mut self, port: u16, roles: u64) {
        let roles = roles & port_word::ROLES;
        let word = self.word(port);
        // Nobody else writes roles: what is read stays true.
        let before = word.load(Ordering::Relaxed) & port_word::ROLES;
        word.fetch_xor(before ^ roles, Ordering::Relaxed);
    }

    /// Adds to the port's word.
    pub(super) fn add(&self, port: u16, count: u64) {
        self.word(port).fetch_add(count, Ordering::Relaxed);
    }

    /// Sets bits of the port's word.
    pub(super) fn mark(&self, port: u16, bits: u64) {
        self.word(port).fetch_or(bits, Ordering::Relaxed);
    }

    /// The roles of the port.
    pub(super) fn roles(&self, port: u16) -> u64 {
        self.get(port) & port_word::ROLES
    }

    /// The port's word.
    pub(super) fn get(&self, port: u16) -> u64 {
        self.word(port).load(Ordering::Relaxed)
    }

    fn word(&self, port: u16) -> &AtomicU64 {
        let first: NonNull<AtomicU64> = self.0.cast();
        // SAFETY: a port is below 65536, and so many words are mapped.
        let word = unsafe { first.add(usize::from(port)) };
        // SAFETY: it is mapped for as long as `self` lives, page-aligned at its start, and both
        // sides change it by atomic instructions only.
        unsafe { word.as_ref() }
    }
}

impl Drop for PortWords {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length; no reference outlives `self`.
        let unmapped = unsafe { munmap(self.0, LENGTH.get()) };
        if let Err(error) = unmapped {
            log::error!("the port map cannot be unmapped: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn roles_change_and_counts_stay() {
        let path = std::env::temp_dir().join(format!("ftpguard-words-{}", std::process::id()));
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .expect("a file");
        std::fs::remove_file(&path).expect("removed");
        file.set_len(LENGTH.get() as u64).expect("long enough");
        let mut words = PortWords::map(&file).expect("mapped");
        let counts = 3 * port_word::ONE_GUARDED + 5 * port_word::ONE_FOREIGN;
        for port in [0, 1, 21, u16::MAX] {
            words.word(port).store(counts, Ordering::Relaxed);
            for roles in [
                port_word::PASSIVE,
                port_word::PASSIVE | port_word::SHIELDED,
                port_word::CONTROL,
                0,
                // What is no role is left out.
                port_word::CONTROL | port_word::ONE_GUARDED,
            ] {
                words.set_roles(port, roles);
                assert_eq!(words.roles(port), roles & port_word::ROLES);
                assert_eq!(
                    words.word(port).load(Ordering::Relaxed),
                    counts | (roles & port_word::ROLES)
                );
            }
        }
    }
}
