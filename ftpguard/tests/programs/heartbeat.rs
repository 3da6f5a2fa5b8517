//! What happens to listeners that need the daemon while it is dead or hung (rule M2).

use ftpguard_common::{
    abi::{Admission, Endpoint, Listener, Mode, Policy, WithoutDaemon},
    net::{Address, Port},
    verdict::Reason,
};

use crate::{
    Bed,
    bed::{CLIENT, CLIENT6, LIVE, SERVER, SERVER6, THIEF, THIEF6, UNKNOWN},
    frames::syn,
};

const SIDES: [(&str, &str, &str); 2] = [(SERVER, CLIENT, THIEF), (SERVER6, CLIENT6, THIEF6)];

/// Changes policy and the unknown listener for the time of one test.
struct Change<'a> {
    bed: &'a mut Bed,
    policy: Policy,
    listener: Listener,
}

fn endpoint() -> Endpoint {
    Endpoint::new(Address::WILDCARD, Port::new(UNKNOWN))
}

impl<'a> Change<'a> {
    fn new(bed: &'a mut Bed) -> Self {
        let policy = bed.kernel.maps.policy.get(&0, 0).unwrap();
        let listener = bed.kernel.maps.listeners.get(&endpoint(), 0).unwrap();
        Self {
            bed,
            policy,
            listener,
        }
    }

    /// The last heartbeat was `age` seconds ago; five are the limit.
    fn set(&mut self, age: u64, without_daemon: WithoutDaemon, admission: Admission) {
        const SECOND: u64 = 1_000_000_000;
        let maps = &mut self.bed.kernel.maps;
        let beat = ftpguard::clock::monotonic_ns() - age * SECOND;
        maps.heartbeat.set(0, beat, 0).unwrap();
        let policy = Policy {
            without_daemon: without_daemon as u32,
            heartbeat_age: 5 * SECOND,
            ..self.policy
        };
        maps.policy.set(0, policy, 0).unwrap();
        let listener = Listener {
            admission: admission as u16,
            ..self.listener
        };
        maps.listeners.insert(endpoint(), listener, 0).unwrap();
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        let maps = &mut self.bed.kernel.maps;
        maps.policy.set(0, self.policy, 0).unwrap();
        maps.listeners.insert(endpoint(), self.listener, 0).unwrap();
    }
}

#[test]
fn what_needs_the_daemon_follows_the_policy_m2() {
    use Admission::{ControlPeer, Daemon};
    let mut bed = Bed::new(Mode::Enforce);
    let mut change = Change::new(&mut bed);
    // Age, policy, what the listener needs; reasons for a client and for a stranger.
    let cases = [
        (
            0,
            WithoutDaemon::Open,
            Daemon,
            Reason::NoPinhole,
            Reason::NoPinhole,
        ),
        (
            4,
            WithoutDaemon::Open,
            Daemon,
            Reason::NoPinhole,
            Reason::NoPinhole,
        ),
        (
            0,
            WithoutDaemon::Closed,
            ControlPeer,
            Reason::ControlPeer,
            Reason::NoPinhole,
        ),
        (
            6,
            WithoutDaemon::ControlPeer,
            Daemon,
            Reason::ControlPeer,
            Reason::DaemonGone,
        ),
        (
            6,
            WithoutDaemon::ControlPeer,
            ControlPeer,
            Reason::ControlPeer,
            Reason::DaemonGone,
        ),
        (
            6,
            WithoutDaemon::Closed,
            Daemon,
            Reason::DaemonGone,
            Reason::DaemonGone,
        ),
        (
            6,
            WithoutDaemon::Closed,
            ControlPeer,
            Reason::DaemonGone,
            Reason::DaemonGone,
        ),
        (
            6,
            WithoutDaemon::Open,
            Daemon,
            Reason::FailedOpen,
            Reason::FailedOpen,
        ),
        (
            6,
            WithoutDaemon::Open,
            ControlPeer,
            Reason::FailedOpen,
            Reason::FailedOpen,
        ),
    ];
    for (age, policy, admission, client_reason, thief_reason) in cases {
        println!("{age} s, {policy:?}, {admission:?}");
        change.set(age, policy, admission);
        for (server, client, thief) in SIDES {
            change
                .bed
                .ingress(&syn(client, server, UNKNOWN), client_reason);
            change
                .bed
                .ingress(&syn(thief, server, UNKNOWN), thief_reason);
        }
    }
}

/// What the kernel side knows by itself does not depend on the daemon, whatever the policy.
#[test]
fn what_does_not_need_the_daemon_stays_as_it_is_m2() {
    let mut bed = Bed::new(Mode::Enforce);
    let mut change = Change::new(&mut bed);
    for policy in [
        WithoutDaemon::ControlPeer,
        WithoutDaemon::Closed,
        WithoutDaemon::Open,
    ] {
        change.set(60, policy, Admission::Daemon);
        for (server, client, thief) in SIDES {
            change
                .bed
                .ingress(&syn(client, server, LIVE), Reason::Pinhole);
            change
                .bed
                .ingress(&syn(thief, server, LIVE), Reason::NoPinhole);
        }
    }
}
