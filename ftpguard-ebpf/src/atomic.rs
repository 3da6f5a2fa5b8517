//! Additions that several processors may make at once.
//!
//! `core` has none for this target. The plain form, which gives no result back, is the one that
//! Linux 5.10 knows.

/// Adds to a number in a map's entry; it wraps around.
///
/// # Safety
///
/// The pointer is valid and aligned, and the number is changed by such additions only while
/// programs are attached.
#[inline(always)]
pub(crate) unsafe fn add_u32(number: *mut u32, step: i32) {
    // SAFETY: as the caller says.
    unsafe {
        core::arch::asm!(
            "lock *(u32 *)({number} + 0) += {step}",
            number = in(reg) number,
            step = in(reg) i64::from(step),
            options(nostack),
        );
    }
}

/// The same for a number of 64 bits.
///
/// # Safety
///
/// As for [`add_u32`].
#[inline(always)]
pub(crate) unsafe fn add_u64(number: *mut u64, step: u64) {
    // SAFETY: as the caller says.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({number} + 0) += {step}",
            number = in(reg) number,
            step = in(reg) step,
            options(nostack),
        );
    }
}
