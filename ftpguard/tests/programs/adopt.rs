//! What the daemon writes when it adopts.

use std::process::{self, Command};

use ftpguard::{
    adopt::{
        apply::{apply, disown},
        decide::Plan,
    },
    kernel::{Kernel, Maps},
};
use ftpguard_common::{
    abi::{Mode, Process, SessionKey},
    net::{Address, Port},
};

use crate::bed::settings;

/// F2: a process that ended between being read and being written leaves nothing behind that the
/// next one with its id would inherit.
#[test]
fn f2_a_process_that_is_gone_is_not_adopted() {
    let mut kernel = Kernel::load(&settings(Mode::Enforce, false)).unwrap();
    let mut gone = Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let alive = process::id();
    let entry = Process {
        session_id: 7,
        session: SessionKey {
            client: Address::WILDCARD,
            server: Address::WILDCARD,
            client_port: Port::new(1000),
            server_port: Port::new(21),
        },
        parent: 1,
        control_port: Port::new(21),
        flags: 0,
        reader: 0,
    };
    let plan = Plan {
        processes: vec![(gone.id(), entry), (alive, entry)],
        ..Plan::default()
    };
    let applied = apply(&mut kernel, &plan).unwrap();
    assert_eq!(applied.added, 1);
    let known: Vec<u32> = Maps::entries(&kernel.maps.processes)
        .into_iter()
        .map(|(pid, _)| pid)
        .collect();
    assert_eq!(known, [alive]);

    // Another ftpd's, whose settings did not come into force.
    assert!(disown(&mut kernel, &[990]).unwrap().is_empty());
    assert_eq!(Maps::entries(&kernel.maps.processes).len(), 1);
    disown(&mut kernel, &[21]).unwrap();
    assert!(Maps::entries(&kernel.maps.processes).is_empty());
}
