//! Which denials become events, and which are only counted (rule I6).

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use aya::maps::{MapData, RingBuf};
use ftpguard_common::{
    abi::Mode,
    event::{Event, TOLD_PER_SOURCE},
    net::Address,
    verdict::{Incident, Reason},
};
use nix::{
    sched::{CpuSet, sched_getcpu, sched_setaffinity},
    unistd::Pid,
};

use crate::{
    Bed,
    bed::{LIVE, SERVER, THIEF, UNUSED, address},
    frames::syn,
};

/// How many denials of each kind each CPU may tell.
const BUDGET: u32 = 30;
const PER_SOURCE: usize = TOLD_PER_SOURCE as usize;

#[test]
fn events_of_denials_i6() {
    let mut bed = Bed::new(Mode::Enforce);
    let mut events = bed.kernel.take_events().unwrap();
    // Each CPU has its own books.
    let mut here = CpuSet::new();
    here.set(sched_getcpu().unwrap()).unwrap();
    sched_setaffinity(Pid::from_raw(0), &here).unwrap();

    // Within the budget one by one, with all that is known; beyond it counted.
    let suppressed = |bed: &Bed| {
        let counters = bed.kernel.maps.counters().unwrap();
        counters.incident(Incident::EventSuppressed)
    };
    let before = suppressed(&bed);
    refill(&mut bed, 3, 1);
    flood(&bed, &syn(THIEF, SERVER, LIVE), 10);
    let told = read(&mut events);
    assert_eq!(told.len(), 3);
    for event in told {
        assert_eq!(event.reason, Reason::NoPinhole as u32);
        assert_eq!(event.remote, address(THIEF));
        assert_eq!(event.local, address(SERVER));
        assert_eq!(event.local_port.number(), LIVE);
    }
    assert_eq!(suppressed(&bed) - before, 7);

    // One source does not hide another.
    refill(&mut bed, BUDGET, 2);
    flood(&bed, &syn(THIEF, SERVER, LIVE), 100_000);
    let quiet = "198.18.0.1";
    flood(&bed, &syn(quiet, SERVER, LIVE), 5);
    let told = by_source(&read(&mut events));
    assert_eq!(told[&address(THIEF).ip()], PER_SOURCE);
    assert_eq!(told[&address(quiet).ip()], 5);

    // A refill within the same second gives nothing to who was told of enough; the next does.
    refill(&mut bed, BUDGET, 2);
    flood(&bed, &syn(THIEF, SERVER, LIVE), 100);
    assert_eq!(read(&mut events).len(), 0);
    refill(&mut bed, BUDGET, 3);
    flood(&bed, &syn(THIEF, SERVER, LIVE), 100);
    assert_eq!(read(&mut events).len(), PER_SOURCE);

    // Random sources that look for ports use up the budget of probes, and not that of thefts.
    refill(&mut bed, BUDGET, 4);
    for source in 0..2_000_u32 {
        let source = Ipv4Addr::from_bits(0xc612_0000 + source * 7).to_string();
        flood(&bed, &syn(&source, SERVER, UNUSED), 1);
    }
    flood(&bed, &syn(THIEF, SERVER, LIVE), 1);
    let told = read(&mut events);
    assert_eq!(told.len(), BUDGET as usize + 1);
    let reasons: Vec<u32> = told.iter().map(|event| event.reason).collect();
    assert_eq!(reasons[0], Reason::ClosedPort as u32);
    assert_eq!(reasons[BUDGET as usize], Reason::NoPinhole as u32);
}

/// Gives each CPU this budget.
fn refill(bed: &mut Bed, budget: u32, salt: u32) {
    let cpus = bed.kernel.maps.event_budget.get(&0, 0).unwrap().len();
    let all = budget * u32::try_from(cpus).unwrap();
    bed.kernel.maps.refill_event_budget(all, salt).unwrap();
}

fn flood(bed: &Bed, frame: &[u8], times: u32) {
    bed.kernel.test_run("guard_ingress", frame, times).unwrap();
}

fn read(events: &mut RingBuf<MapData>) -> Vec<Event> {
    let mut all = Vec::new();
    while let Some(item) = events.next() {
        all.push(bytemuck::pod_read_unaligned(&item));
    }
    all
}

fn by_source(events: &[Event]) -> BTreeMap<IpAddr, usize> {
    let mut counts = BTreeMap::new();
    for event in events {
        *counts.entry(Address::ip(event.remote)).or_default() += 1;
    }
    counts
}
