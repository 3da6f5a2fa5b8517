//! Data connections from another address than the client's, where the configuration names both
//! (rule I7).

use ftpguard::kernel::{Kernel, Network, Relaxation, Settings};
use ftpguard_common::{
    abi::{Endpoint, Mode, PinholeKey},
    net::Port,
    verdict::Reason,
};

use crate::{
    INGRESS,
    bed::{CLIENT, CLIENT6, LIVE, SERVER, SERVER6, THIEF, THIEF6, UNUSED, address, fill, settings},
    frames::syn,
};

/// Settings with these relaxations: clients, and where their data connections may come from.
fn relaxed(rules: &[(&[&str], &[&str])]) -> Settings {
    let networks = |texts: &[&str]| -> Vec<Network> {
        texts
            .iter()
            .map(|text| ftpguard::values::parse_network(text).unwrap())
            .collect()
    };
    let mut settings = settings(Mode::Enforce, false);
    settings.policy.relaxed = u32::from(!rules.is_empty());
    settings.relaxations = rules
        .iter()
        .map(|(clients, data_from)| Relaxation {
            clients: networks(clients),
            data_from: networks(data_from),
        })
        .collect();
    settings
}

/// Both programs judge the frame so and count it.
fn check(kernel: &Kernel, frame: &[u8], reason: Reason) {
    let count = || kernel.maps.counters().unwrap().reason(reason);
    for (program, pass, deny) in INGRESS {
        let before = count();
        let action = kernel.test_run(program, frame, 1).unwrap().return_value;
        let passes = reason.verdict() == ftpguard_common::verdict::Verdict::Pass;
        assert_eq!(
            action,
            if passes { pass } else { deny },
            "{program} {reason:?}"
        );
        assert_eq!(count(), before + 1, "{program} {reason:?}");
    }
}

#[test]
fn i7_only_who_is_named_may_use_the_pinhole_of_whom() {
    const SIDES: [(&str, &str, &str); 2] = [(SERVER, CLIENT, THIEF), (SERVER6, CLIENT6, THIEF6)];
    let strict = relaxed(&[]);
    let mut kernel = Kernel::load(&strict).unwrap();
    fill(&mut kernel);
    // As the socket observer leaves it: a listener names the pinhole that was made for it.
    for (server, client, _) in SIDES {
        let maps = &mut kernel.maps;
        let endpoint = Endpoint::new(address(server), Port::new(LIVE));
        let mut listener = maps.listeners.get(&endpoint, 0).unwrap();
        listener.pinhole = PinholeKey {
            client: address(client),
            server: address(server),
            port: Port::new(LIVE),
            pad: 0,
        };
        maps.listeners.insert(endpoint, listener, 0).unwrap();
    }
    let expect = |kernel: &Kernel, reason| {
        for (server, client, thief) in SIDES {
            check(kernel, &syn(client, server, LIVE), Reason::Pinhole);
            check(kernel, &syn(thief, server, LIVE), reason);
            check(kernel, &syn(thief, server, UNUSED), Reason::ClosedPort);
        }
    };
    expect(&kernel, Reason::NoPinhole);

    // A partner of one client, and networks around both.
    let mut before = strict;
    for rules in [
        [(&[CLIENT][..], &[THIEF][..]), (&[CLIENT6], &[THIEF6])],
        [
            (&["0.0.0.0/0"], &["203.0.113.0/24"]),
            (&["::/0"], &["2001:db8::/32"]),
        ],
        [
            (&[CLIENT, THIEF], &[THIEF, CLIENT]),
            (&[CLIENT6, THIEF6], &[CLIENT6, THIEF6]),
        ],
    ] {
        let after = relaxed(&rules);
        kernel.change(&before, &after).unwrap();
        expect(&kernel, Reason::Relaxation);
        before = after;
    }

    // One that names the thief for others, and the client for others; the longest match hides
    // neither.
    for rules in [
        [
            (&["192.0.2.77"][..], &[THIEF][..]),
            (&["2001:db8:7::/48"], &[THIEF6]),
        ],
        [
            (&[CLIENT], &["192.0.2.77"]),
            (&[CLIENT6], &["2001:db8:7::/48"]),
        ],
        [
            (&[CLIENT, CLIENT6], &["192.0.2.77"]),
            (&["192.0.2.77"], &[THIEF, THIEF6]),
        ],
    ] {
        let after = relaxed(&rules);
        kernel.change(&before, &after).unwrap();
        expect(&kernel, Reason::NoPinhole);
        before = after;
    }

    // Nobody may use a pinhole that is gone.
    let after = relaxed(&[(&[CLIENT], &[THIEF])]);
    kernel.change(&before, &after).unwrap();
    check(&kernel, &syn(THIEF, SERVER, LIVE), Reason::Relaxation);
    let key = PinholeKey {
        client: address(CLIENT),
        server: address(SERVER),
        port: Port::new(LIVE),
        pad: 0,
    };
    kernel.maps.pinholes.remove(&key).unwrap();
    check(&kernel, &syn(THIEF, SERVER, LIVE), Reason::NoPinhole);
}
