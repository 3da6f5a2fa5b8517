//! How large the values of the maps are, and what tells one layout of them from another.

use super::{
    ADDRESS_SLOTS, Advice, Barred, Endpoint, Exception, KernelOffsets, Listener, MAX_LISTENERS,
    OBSERVER_SLOTS, Parent, Peer, Pinhole, PinholeKey, Policy, Process, Refusal, Relaxed, Serving,
    Session, SessionKey, port_word,
};
use crate::{
    event::{EventBudget, Told},
    verdict::COUNTER_COUNT,
};

const _: () = {
    assert!(size_of::<SessionKey>() == 36);
    assert!(size_of::<PinholeKey>() == 36);
    assert!(size_of::<Session>() == 64);
    assert!(size_of::<Advice>() == 8);
    assert!(size_of::<Pinhole>() == 32);
    assert!(size_of::<Endpoint>() == 20);
    assert!(size_of::<Listener>() == 64);
    assert!(size_of::<Process>() == 64);
    assert!(size_of::<Parent>() == 8);
    assert!(size_of::<Serving>() == 56);
    assert!(size_of::<Peer>() == 20);
    assert!(size_of::<Exception>() == 20);
    assert!(size_of::<Barred>() == 20);
    assert!(size_of::<Refusal>() == 16);
    assert!(size_of::<Policy>() == 64);
    assert!(size_of::<Relaxed>() == 16);
    assert!(size_of::<KernelOffsets>() == 52);
    // Each bit of a port's word has one meaning, and foreign listeners are not too many to count.
    assert!(
        port_word::ROLES
            + port_word::GUARDED
            + port_word::FOREIGN
            + port_word::MULTIPATH
            + port_word::CROWDED
            + port_word::LENIENT
            == u64::MAX
    );
    assert!(MAX_LISTENERS as u64 <= port_word::FOREIGN / port_word::ONE_FOREIGN);
    // A per-CPU array of counters stays within one page for each CPU.
    assert!(COUNTER_COUNT <= 512);
};

/// The layout of the maps that outlive a daemon: a number to be raised when an entry comes to
/// mean something else, then the size of each type. Daemons whose layouts differ do not touch
/// each other's maps.
#[expect(clippy::cast_possible_truncation, reason = "sizes of small types")]
pub const LAYOUT: [u32; 21] = [
    4,
    OBSERVER_SLOTS,
    ADDRESS_SLOTS,
    size_of::<SessionKey>() as u32,
    size_of::<Session>() as u32,
    size_of::<Advice>() as u32,
    size_of::<PinholeKey>() as u32,
    size_of::<Pinhole>() as u32,
    size_of::<Endpoint>() as u32,
    size_of::<Listener>() as u32,
    size_of::<Process>() as u32,
    size_of::<Parent>() as u32,
    size_of::<Serving>() as u32,
    size_of::<Peer>() as u32,
    size_of::<Exception>() as u32,
    size_of::<Barred>() as u32,
    size_of::<Refusal>() as u32,
    size_of::<Policy>() as u32,
    size_of::<Relaxed>() as u32,
    size_of::<EventBudget>() as u32,
    size_of::<Told>() as u32,
];
