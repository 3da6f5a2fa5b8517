//! Numbers for sandboxes: no two that exist at once on this machine have the same.

use std::{
    fs::{File, OpenOptions},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    fcntl::{FcntlArg, fcntl},
    libc,
};

/// One byte of this file is locked for each sandbox. The kernel releases the lock when the
/// process ends, however it ends.
const LOCK_FILE: &str = "/run/ftpguard-sandbox.lock";

/// A number that is ours as long as this value lives.
#[derive(Debug)]
pub(crate) struct Slot {
    number: u16,
    serial: u32,
    _lock: File,
}

impl Slot {
    /// Takes a free number. Starts to look at a place that depends on the process, so that
    /// numbers are not used again at once.
    pub(crate) fn take() -> Result<Self> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(LOCK_FILE)
            .with_context(|| format!("opening {LOCK_FILE} (the sandbox needs root)"))?;
        let start = std::process::id()
            .wrapping_mul(31)
            .wrapping_add(serial.wrapping_mul(7));
        for step in 0..=u32::from(u16::MAX) {
            let number = (start.wrapping_add(step) & 0xffff) as u16;
            if try_lock(&lock, number) {
                return Ok(Self {
                    number,
                    serial,
                    _lock: lock,
                });
            }
        }
        bail!("no free sandbox number in {LOCK_FILE}")
    }

    /// The number: two bytes of each address in the sandbox.
    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    /// How many sandboxes this process made before.
    pub(crate) fn serial(&self) -> u32 {
        self.serial
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "small constants, declared wider than the field that holds them"
)]
const WRITE_LOCK: libc::c_short = libc::F_WRLCK as libc::c_short;
#[expect(clippy::cast_possible_truncation, reason = "as above")]
const FROM_START: libc::c_short = libc::SEEK_SET as libc::c_short;

/// Locks the byte at `number`, for as long as the open file lives.
fn try_lock(file: &File, number: u16) -> bool {
    let range = libc::flock {
        l_type: WRITE_LOCK,
        l_whence: FROM_START,
        l_start: libc::off_t::from(number),
        l_len: 1,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_OFD_SETLK(&range)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_slots_at_once_differ() {
        let one = Slot::take().expect("first slot");
        let two = Slot::take().expect("second slot");
        assert_ne!(one.number(), two.number());
        assert_ne!(one.serial(), two.serial());
        let file = File::options()
            .read(true)
            .write(true)
            .open(LOCK_FILE)
            .expect("lock file");
        assert!(!try_lock(&file, one.number()), "a taken slot is locked");
        let number = one.number();
        drop(one);
        assert!(try_lock(&file, number), "a dropped slot is free again");
    }
}
