//! How many denials become events (rule I6).
//!
//! Anybody can cause denials, as many as he likes. Each kind of attack has a budget on each CPU,
//! which the daemon refills ten times a second while it is being used; and of one source not more
//! than [`TOLD_PER_SOURCE`] are told each second. So a flood costs the ring buffer and the daemon no
//! more than the budget, probes do not hide thefts, and one source does not hide another. Beyond
//! the budget nothing more than it is read here.

use ftpguard_common::{
    event::{SOURCES, TOLD_PER_SOURCE, Told},
    net::Address,
    verdict::Attack,
};

use crate::maps::{EVENT_BUDGET, TOLD};

/// Whether one more denial may be told, and counts it if so.
#[inline(always)]
pub(crate) fn takes(attack: Attack, source: Address) -> bool {
    let Some(budget) = EVENT_BUDGET.get_ptr_mut(0) else {
        return false;
    };
    // The mask shows the verifier that the place lies in the array.
    let place = attack as usize & 3;
    // SAFETY: the pointer is to this CPU's element, which the daemon only sets anew; `place` is
    // below 4.
    let left = unsafe { (*budget).left[place] };
    if left == 0 {
        return false;
    }
    // SAFETY: as above.
    let salt = unsafe { (*budget).salt };
    if !source_takes(attack, source, salt) {
        return false;
    }
    // SAFETY: as above.
    unsafe { (*budget).left[place] = left - 1 };
    true
}

#[inline(always)]
fn source_takes(attack: Attack, source: Address, salt: u32) -> bool {
    let place = (attack as u32 & 3) * SOURCES + hash(source, salt) % SOURCES;
    let Some(told) = TOLD.get_ptr_mut(place) else {
        return false;
    };
    // SAFETY: the pointer is to this CPU's element, which nobody else writes; a program that
    // interrupts this one can lose one count.
    let current = unsafe { *told };
    let count = if current.salt == salt {
        current.count
    } else {
        0
    };
    if count >= TOLD_PER_SOURCE {
        return false;
    }
    let after = Told {
        salt,
        count: count + 1,
    };
    // SAFETY: as above.
    unsafe { *told = after };
    true
}

/// Multiplicative hashing (Knuth, The Art of Computer Programming, volume 3, section 6.4). Whoever
/// has an IPv6 address has the /64 around it, so that counts as one source.
#[inline(always)]
fn hash(source: Address, salt: u32) -> u32 {
    let Address([first, second, _, last]) = source;
    let word = if source.is_v4() {
        last
    } else {
        first ^ second.rotate_left(16)
    };
    (word ^ salt).wrapping_mul(0x9e37_79b1) >> 16
}
