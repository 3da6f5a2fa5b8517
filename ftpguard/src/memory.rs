//! The daemon's own memory.

/// Gives back what the start needed and nothing needs any more: reading the kernel's types and the
/// verifier's log takes ten times what the guard takes afterwards.
pub fn give_back() {
    // SAFETY: the call takes no pointers, and may be made at any time.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
