//! Memory that was needed to load the kernel side.

/// Gives what was freed back to the system.
///
/// Reading the kernel's type information takes tens of MiB in small pieces. The C library keeps
/// what is freed of them for later, and there is no later: the daemon needs a tenth of it.
pub(super) fn give_back() {
    // Others give it back by themselves, or have no such call.
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes a number, and touches no memory that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}
