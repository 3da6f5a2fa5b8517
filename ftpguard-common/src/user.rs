//! The shared structs as aya's maps take them.

use crate::{
    abi::{
        Advice, Barred, Endpoint, Exception, KernelOffsets, Listener, Parent, Peer, Pinhole,
        PinholeKey, Policy, Process, Refusal, Relaxed, Serving, Session, SessionKey,
    },
    event::{EventBudget, Told},
    net::Address,
    yardstick::Flood,
};

macro_rules! pod {
    ($($name:ty),+ $(,)?) => {
        $(
            // SAFETY: the type is bytemuck's Pod, which the line below asserts: any bytes are a
            // value, and it has no padding.
            unsafe impl aya::Pod for $name {}
            const _: fn() = assert_pod::<$name>;
        )+
    };
}

const fn assert_pod<T: bytemuck::Pod>() {}

pod!(
    Address,
    Advice,
    Barred,
    Endpoint,
    EventBudget,
    Exception,
    Flood,
    Listener,
    Parent,
    Peer,
    Pinhole,
    PinholeKey,
    Policy,
    Process,
    Refusal,
    Relaxed,
    Serving,
    Session,
    SessionKey,
    KernelOffsets,
    Told,
);
