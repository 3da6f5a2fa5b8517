//! What is decided about one SYN or one connect(), and why.
//!
//! Both enums are closed and shared: the kernel side returns a [`Reason`], its entry points turn
//! [`Reason::verdict`] into an action, the daemon names it in events, and it indexes the
//! `COUNTERS` map. A new reason needs a text here, a counter for free, and a test.
#![forbid(unsafe_code)]

/// What happens to the packet or the call.
///
/// In monitor mode the same verdict is computed and counted, and everything passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The packet goes on, the call goes on.
    Pass,
    /// The packet is dropped without an answer; the call fails with `EPERM`.
    Deny,
}

/// What a denial is a sign of. Each has an allowance of events of its own, so that one cannot
/// hide another (rule I6).
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Attack {
    /// Somebody went for a live port that is not his.
    Theft = 0,
    /// Somebody looked for open ports, or for a way around the guard.
    Probe = 1,
    /// Somebody tried to have the ftpd connect where it must not.
    Bounce = 2,
}

impl Attack {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Theft, Self::Probe, Self::Bounce];

    /// The name in events.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Theft => "theft-attempt",
            Self::Probe => "probe",
            Self::Bounce => "bounce",
        }
    }

    /// The kind with this label.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|attack| attack.label() == label)
    }
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident: $verdict:ident, $label:literal, $text:literal;)+) => {
        /// Why a verdict came out as it did. The number indexes the `COUNTERS` map.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// What this reason does to the packet or the call.
            #[inline(always)]
            #[must_use]
            pub const fn verdict(self) -> Verdict {
                match self {
                    $(Self::$name => Verdict::$verdict,)+
                }
            }

            /// The reason's name in events, metrics and status: lower case with dashes.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)+
                }
            }

            /// The reason with this label; another version of the guard may have others.
            #[must_use]
            pub fn from_label(label: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.label() == label)
            }

            /// One line for people.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

reasons! {
    /// A SYN to a port that no rule covers.
    PortNotGuarded: Pass, "port-not-guarded", "SYN to a port that is not guarded";
    /// A SYN to a control port. Anyone may open a control connection.
    ControlPort: Pass, "control-port", "SYN to a control port";
    /// The client holds a pinhole for this address and port (rule I2).
    Pinhole: Pass, "pinhole", "SYN through a pinhole";
    /// The client's listener has a pinhole for another client, and a relaxation names both (rule
    /// I7).
    Relaxation: Pass, "relaxation", "SYN through another client's pinhole, as a configured relaxation allows";
    /// A listener in the declared range that belongs to other software (rule I4).
    ForeignListener: Pass, "foreign-listener", "SYN to a listener in the range that is not the ftpd's";
    /// The listener's session is not known, and the client holds a control connection (rule P4).
    ControlPeer: Pass, "control-peer", "SYN from a client with a control connection, to a listener whose session is not known";
    /// A listener of a guarded ftpd, and the client holds no pinhole for it (rule I2).
    NoPinhole: Deny, "no-pinhole", "SYN to the ftpd's listener from a client without a pinhole";
    /// The listener needs the daemon, which is dead or hung, and the policy is `open` (rule M2).
    FailedOpen: Pass, "failed-open", "SYN to a listener that needs the daemon, which is dead; the policy is open";
    /// The listener needs the daemon, which is dead or hung, and the policy does not let this
    /// client in (rule M2).
    DaemonGone: Deny, "daemon-gone", "SYN to a listener that needs the daemon, which is dead";
    /// A port of the declared range, at an address that is not this host's: routed traffic.
    NotOurAddress: Pass, "not-our-address", "SYN to the range at an address that is not this host's";
    /// No listener on a port of the declared range (rule I1).
    ClosedPort: Deny, "closed-port", "SYN to an unused port of the passive range";
    /// A SYN from port 20, where only an ftpd's data connection comes from, to a port below 1024,
    /// where no FTP client listens (rule O11).
    Bounced: Deny, "bounced", "SYN from an ftpd's data port to a service of this host";
    /// A TCP first fragment too short to show its flags, or one that would overwrite them.
    /// Never legitimate (RFC 1858, RFC 3128).
    TinyFragment: Deny, "tiny-fragment", "TCP fragment that hides or overwrites the header";
    /// The frame ends inside a header, or a header contradicts itself. The kernel discards it.
    Malformed: Pass, "malformed", "packet with a malformed header, left to the kernel";
    /// More VLAN tags or IPv6 extension headers than the early hook follows (rule I5).
    TooDeep: Pass, "too-deep", "packet with more nested headers than the hook follows";

    /// connect() to the peer of the session, port 1024 or above (rule O1).
    ConnectToPeer: Pass, "connect-to-peer", "connect() to the session's client";
    /// connect() to the peer's control source port, the default data port of RFC 959 section 3.2 (rule O2).
    ConnectToControlSource: Pass, "connect-to-control-source", "connect() to the client's control source port";
    /// connect() to a destination that the operator listed (rule O3).
    ConnectListed: Pass, "connect-listed", "connect() to a configured exception";
    /// connect() by a process of the ftpd that has read no control connection: no client can have asked for it.
    ConnectUnprompted: Pass, "connect-unprompted", "connect() by an ftpd process that serves no client";
    /// connect() to anyone but the peer (rule O4).
    ConnectToStranger: Deny, "connect-to-stranger", "connect() to a host other than the session's client";
    /// connect() to a port of the peer below 1024 (rule O4).
    ConnectToLowPort: Deny, "connect-to-low-port", "connect() to a port below 1024";
    /// connect() to a port of the peer other than the one it announced (rule O10).
    ConnectToOtherPort: Deny, "connect-to-other-port", "connect() to a port that the client did not announce";
    /// connect() for a session whose client asked for `EPSV ALL`: it will open every data
    /// connection itself (rule C5).
    ConnectAfterEpsvAll: Deny, "connect-after-epsv-all", "connect() to a client that asked for EPSV ALL";
    /// connect() to a client while active mode is off, or for exceptions only (rule O10).
    ConnectWhileOff: Deny, "connect-while-off", "connect() while active mode is off";

    /// A SYN leaves from the data source port to a client's port 1024 or above.
    DataToPeer: Pass, "data-to-peer", "SYN from the data source port to a client";
    /// A SYN leaves to a listed destination from the data source port.
    DataListed: Pass, "data-listed", "SYN from the data source port to a configured exception";
    /// A SYN leaves from the data source port to a host without a control connection.
    DataToStranger: Deny, "data-to-stranger", "SYN from the data source port to a host that is no client";
    /// A SYN leaves from the data source port to a port below 1024.
    DataToLowPort: Deny, "data-to-low-port", "SYN from the data source port to a port below 1024";
    /// A SYN of a guarded ftpd that the connect() hook should have refused.
    DataBarred: Deny, "data-barred", "SYN of a connect() that missed the hook and is refused";
}

macro_rules! incidents {
    ($($(#[doc = $doc:literal])+ $name:ident: $label:literal, $text:literal;)+) => {
        /// Something that happened to the guard itself. Counted in the `COUNTERS` map, after
        /// the reasons.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Incident {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Incident {
            /// Every incident, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The incident's name in metrics and status: lower case with dashes.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)+
                }
            }

            /// One line for people.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

incidents! {
    /// An event did not fit into the ring buffer.
    EventLost: "event-lost", "event lost: the ring buffer was full";
    /// Control bytes did not fit into the ring buffer.
    ControlBytesLost: "control-bytes-lost", "control bytes lost: the ring buffer was full";
    /// Denials that were counted but not reported one by one.
    EventSuppressed: "event-suppressed", "denial counted without an event: too many at once";
    /// `PINHOLES` was full; the newcomer got none (rule K9).
    PinholeTableFull: "pinhole-table-full", "no pinhole made: the table is full";
    /// `SESSIONS` was full; the newcomer is not tracked (rule K9).
    SessionTableFull: "session-table-full", "control connection not tracked: the table is full";
    /// `LISTENERS` was full; a listener is not known.
    ListenerTableFull: "listener-table-full", "listener not tracked: the table is full";
    /// `PEERS` was full; a client's control connections are not counted (rule K9).
    PeerTableFull: "peer-table-full", "client not known as such: the table is full";
    /// A client holds as many control connections as it may; a further one is not tracked
    /// (rule K9).
    ClientQuota: "client-quota", "control connection not tracked: its client holds too many";
    /// `PROCESSES` was full; a process of the ftpd is not known.
    ProcessTableFull: "process-table-full", "process not tracked: the table is full";
    /// A guarded ftpd opened a listener and no session could be named for it (rule P4).
    Unattributed: "unattributed", "listener that could not be attributed to a session";
    /// A guarded ftpd opened a passive listener on a port below 1024, which gets no pinhole.
    LowListener: "low-listener", "passive listener below port 1024, left closed";
    /// A socket of a guarded ftpd reached SYN-SENT although its connect() is refused.
    HookMissed: "hook-missed", "connect() that missed the hook";
    /// A field of a socket or task could not be read.
    SocketUnread: "socket-unread", "socket or task of the kernel that could not be read";
    /// The kernel left the observer out, because it would have interrupted itself. The kernel
    /// counts these; the daemon asks it.
    ObserverSkipped: "observer-skipped", "change of a socket or process that the kernel did not show";
}

/// How many counters there are: one for each reason, then one for each incident.
pub const COUNTER_COUNT: u32 = REASON_COUNT + INCIDENT_COUNT;
const REASON_COUNT: u32 = length(Reason::ALL);
const INCIDENT_COUNT: u32 = length(Incident::ALL);

/// How many there are, in the type of a map's index.
#[expect(clippy::cast_possible_truncation, reason = "a few dozen at most")]
const fn length<T>(all: &[T]) -> u32 {
    all.len() as u32
}

impl Reason {
    /// What a denial for this reason is a sign of.
    #[inline(always)]
    #[must_use]
    pub const fn attack(self) -> Attack {
        match self {
            Self::NoPinhole | Self::DaemonGone => Attack::Theft,
            Self::PortNotGuarded
            | Self::ControlPort
            | Self::Pinhole
            | Self::Relaxation
            | Self::ForeignListener
            | Self::ControlPeer
            | Self::FailedOpen
            | Self::NotOurAddress
            | Self::ClosedPort
            | Self::Bounced
            | Self::TinyFragment
            | Self::Malformed
            | Self::TooDeep => Attack::Probe,
            Self::ConnectToPeer
            | Self::ConnectToControlSource
            | Self::ConnectListed
            | Self::ConnectUnprompted
            | Self::ConnectToStranger
            | Self::ConnectToLowPort
            | Self::ConnectToOtherPort
            | Self::ConnectWhileOff
            | Self::ConnectAfterEpsvAll
            | Self::DataToPeer
            | Self::DataListed
            | Self::DataToStranger
            | Self::DataToLowPort
            | Self::DataBarred => Attack::Bounce,
        }
    }

    /// Where this reason is counted in the `COUNTERS` map.
    #[inline(always)]
    #[must_use]
    pub const fn counter(self) -> u32 {
        self as u32
    }

    /// The reason with this number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }
}

impl Incident {
    /// Where this incident is counted in the `COUNTERS` map.
    #[inline(always)]
    #[must_use]
    pub const fn counter(self) -> u32 {
        REASON_COUNT + self as u32
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn numbers_are_places_in_all() {
        for (place, reason) in (0..).zip(Reason::ALL) {
            assert_eq!(*reason as u32, place);
            assert_eq!(Reason::from_number(place), Some(*reason));
        }
        for (place, incident) in Incident::ALL.iter().enumerate() {
            assert_eq!(*incident as usize, place);
        }
        assert_eq!(Reason::from_number(COUNTER_COUNT), None);
    }

    #[test]
    fn counters_and_labels_are_unique() {
        let mut counters = HashSet::new();
        let mut labels = HashSet::new();
        for reason in Reason::ALL {
            assert!(counters.insert(reason.counter()));
            assert!(labels.insert(reason.label()));
        }
        for incident in Incident::ALL {
            assert!(counters.insert(incident.counter()));
            assert!(labels.insert(incident.label()));
        }
        assert_eq!(u32::try_from(counters.len()), Ok(COUNTER_COUNT));
    }
}
