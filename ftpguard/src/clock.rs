//! The two clocks: the kernel's monotonic one, and the one of the wall.

use std::time::{SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

const NANOSECONDS: u64 = 1_000_000_000;

/// Nanoseconds of `CLOCK_MONOTONIC`, as the kernel side stamps with `bpf_ktime_get_ns`.
#[must_use]
pub fn monotonic_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| {
        let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
        let rest = u64::try_from(now.tv_nsec()).unwrap_or(0);
        seconds * NANOSECONDS + rest
    })
}

/// Milliseconds since 1970-01-01 00:00 UTC.
#[must_use]
pub fn wall_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}

/// When something happened, in milliseconds since 1970: its stamp of the monotonic clock turned
/// into wall time, or now where there is no stamp (0).
#[must_use]
pub fn wall_ms_at(stamp: u64) -> u64 {
    let age = if stamp == 0 {
        0
    } else {
        monotonic_ns().saturating_sub(stamp) / 1_000_000
    };
    wall_ms().saturating_sub(age)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_becomes_wall_time() {
        let now = wall_ms();
        assert!(wall_ms_at(0).abs_diff(now) < 1_000);
        let minute_ago = monotonic_ns().saturating_sub(60 * NANOSECONDS);
        assert!(wall_ms_at(minute_ago).abs_diff(now - 60_000) < 1_000);
        // A stamp from the future is now.
        assert!(wall_ms_at(u64::MAX).abs_diff(now) < 1_000);
    }
}
