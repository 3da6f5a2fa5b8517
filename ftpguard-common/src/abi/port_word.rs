//! What is known of one port, as one word so that it is read and counted at once.
//!
//! The lowest byte holds the roles that the daemon declares. Above them lie two counts of
//! listeners and marks, which the kernel side keeps as hints: with them most SYNs are judged
//! without a lookup of the listener. A control port has a mark of its own.

/// A port of the declared passive range.
pub const PASSIVE: u64 = 1;
/// A control port.
pub const CONTROL: u64 = 2;
/// A configured data source port, 20 by default (RFC 959 section 3.2).
pub const DATA_SOURCE: u64 = 4;
/// A port below 1024 that other people's ftpds are kept away from (rule O11).
pub const SHIELDED: u64 = 8;
/// A port of an ftpd for which denials take no effect, whatever the guard's mode is
/// (rule M1). It goes before [`ENFORCED`].
pub const MONITORED: u64 = 16;
/// A port of an ftpd for which denials take effect, whatever the guard's mode is.
pub const ENFORCED: u64 = 32;
/// Every declared role.
pub const ROLES: u64 = 0xff;
/// One listener of a guarded ftpd.
pub const ONE_GUARDED: u64 = 1 << 8;
/// The count of guarded listeners.
pub const GUARDED: u64 = 0xff_ffff << 8;
/// One listener of other software.
pub const ONE_FOREIGN: u64 = 1 << 32;
/// The count of foreign listeners, which are counted only while there is room for them.
pub const FOREIGN: u64 = 0xffff << 32;
/// A control connection over Multipath TCP.
pub const ONE_MULTIPATH: u64 = 1 << 48;
/// Not zero once a control port had such a connection: nobody is seen to read those, so a
/// process may serve clients that it is not known to serve. Never taken back.
pub const MULTIPATH: u64 = 0xf << 48;
/// A guarded listener that there was no room for among the listeners (rule K9).
pub const ONE_CROWDED: u64 = 1 << 52;
/// Not zero once there was such a listener: while guarded ones are counted, a listener that is
/// not known is one of them. Never taken back.
pub const CROWDED: u64 = 0xf << 52;
/// A guarded listener that admits clients without a pinhole too.
pub const ONE_LENIENT: u64 = 1 << 56;
/// Not zero once there was such a listener: the listeners themselves must be asked whom they
/// admit. Never taken back, so that it cannot be missing; all it costs is that lookup.
pub const LENIENT: u64 = 0xff << 56;

/// Whether a listener that is not known may be one that there was no room for (rule K9).
#[inline(always)]
#[must_use]
pub const fn is_crowded(word: u64) -> bool {
    word & CROWDED != 0 && word & GUARDED != 0
}
