//! FTP servers with modes of their own (rule M1).

use ftpguard::kernel::{FtpdPorts, Kernel, Settings};
use ftpguard_common::{
    abi::{Admission, Endpoint, Mode, Policy},
    net::Port,
    verdict::Reason,
};

use crate::{
    EGRESS, INGRESS,
    bed::{CLIENT, LIVE, OUTSIDE, SERVER, THIEF, UNUSED, address, bar, fill, listen, settings},
    frames::{data_syn, syn},
};

/// The other FTP server.
const CONTROL: u16 = 2121;
/// Its range begins here.
const FIRST: u16 = 31_000;
/// Its listener in its range, and one outside of any.
const ITS_LIVE: u16 = 31_001;
const ITS_OUTSIDE: u16 = 40_002;
/// A listener of the first FTP server in the other's range.
const ASTRAY: u16 = 31_002;
/// Where a connect() of the other one was refused.
const ITS_BARRED: u16 = 7_071;

/// The guard's mode, and that of the second of two FTP servers.
fn two(mode: Mode, own: Option<Mode>) -> Settings {
    let mut settings = settings(mode, false);
    settings.ftpds.push(FtpdPorts {
        control: vec![CONTROL],
        passive: vec![FIRST..=FIRST + 9],
        mode: own,
    });
    settings
}

/// Fails unless the frame is denied, or passes, and in both cases is counted for this reason.
fn check(kernel: &Kernel, program: (&str, u32, u32), frame: &[u8], reason: Reason, mode: Mode) {
    let count = || kernel.maps.counters().unwrap().reason(reason);
    let before = count();
    let (program, pass, deny) = program;
    let action = kernel.test_run(program, frame, 1).unwrap().return_value;
    let wanted = match mode {
        Mode::Monitor => pass,
        Mode::Enforce => deny,
    };
    assert_eq!(action, wanted, "{program}, {reason:?}, {mode:?}");
    assert_eq!(count(), before + 1, "{program}, {reason:?}, {mode:?}");
}

/// What the first and the second FTP server's SYNs meet, and what may be any one's.
fn expect(kernel: &Kernel, first: Mode, second: Mode, shared: Mode) {
    for program in INGRESS {
        for (port, reason, mode) in [
            (LIVE, Reason::NoPinhole, first),
            (OUTSIDE, Reason::NoPinhole, first),
            (UNUSED, Reason::ClosedPort, first),
            (ITS_LIVE, Reason::NoPinhole, second),
            (ITS_OUTSIDE, Reason::NoPinhole, second),
            (FIRST, Reason::ClosedPort, second),
        ] {
            check(kernel, program, &syn(THIEF, SERVER, port), reason, mode);
        }
    }
    let data = |host, port| data_syn(SERVER, 20, host, port);
    for (frame, reason, mode) in [
        (data(THIEF, 5_000), Reason::DataToStranger, shared),
        (data(CLIENT, 7_070), Reason::DataBarred, first),
        (data(CLIENT, ITS_BARRED), Reason::DataBarred, second),
    ] {
        check(kernel, EGRESS, &frame, reason, mode);
    }
}

#[test]
fn m1_each_ftpd_may_have_its_own_mode() {
    use Mode::{Enforce, Monitor};
    let start = two(Enforce, None);
    let mut kernel = Kernel::load(&start).unwrap();
    fill(&mut kernel);
    let maps = &mut kernel.maps;
    let at = |port| Endpoint::new(address(SERVER), Port::new(port));
    listen(maps, at(ITS_LIVE), CONTROL, Admission::Pinhole);
    listen(maps, at(ITS_OUTSIDE), CONTROL, Admission::Pinhole);
    listen(maps, at(ASTRAY), 21, Admission::Pinhole);
    bar(maps, address(CLIENT), ITS_BARRED, CONTROL);
    expect(&kernel, Enforce, Enforce, Enforce);

    // One is only watched: nothing of it is refused, nor what may be its own.
    let watched = two(Enforce, Some(Monitor));
    kernel.change(&start, &watched).unwrap();
    expect(&kernel, Enforce, Monitor, Monitor);
    // An enforced FTP server stays so in a watched one's range.
    let astray = syn(THIEF, SERVER, ASTRAY);
    for program in INGRESS {
        check(&kernel, program, &astray, Reason::NoPinhole, Enforce);
    }

    // One is enforced while the guard watches.
    let enforced = two(Monitor, Some(Enforce));
    kernel.change(&watched, &enforced).unwrap();
    expect(&kernel, Monitor, Enforce, Monitor);

    // The clients are hidden: nothing is refused to anybody (rule I8).
    let hidden = Settings {
        policy: Policy {
            refused: 1,
            ..enforced.policy
        },
        ..enforced.clone()
    };
    kernel.change(&enforced, &hidden).unwrap();
    expect(&kernel, Monitor, Monitor, Monitor);
}
