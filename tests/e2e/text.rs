//! `--tracking text`: the daemon reads the replies on the wire and makes the pinholes.

use std::time::Duration;

use ftpguard_common::verdict::Reason;
use ftpguard_tests::{
    Family,
    ftpd::{Kind, Settings},
    guard::Options,
    measure,
    scenario::{Scene, Winner},
    tool::Way,
};

use crate::help::{guard_with, is_kind, off_then_on, play, stage, transfer_with_all_tools};

fn text() -> Options {
    Options {
        tracking: "text",
        ..Options::default()
    }
}

/// Honest clients may lose a first SYN and one second with it, and no transfer.
#[test]
fn honest_clients_reach_announced_ports() {
    for kind in Kind::ALL {
        let stage = stage(Settings::of(kind));
        let guard = guard_with(&stage, &text());
        play(&stage, Scene::Passive, Winner::Honest, Some(&guard));
        play(&stage, Scene::Active, Winner::Honest, Some(&guard));
        let event = guard
            .wait_for_event("of a pinhole", |event| is_kind(event, "pinhole-made"))
            .expect("event");
        assert_eq!(event["origin"], "text", "{event}");
    }
}

#[test]
fn every_client_works() {
    let stage = stage(Settings::of(Kind::Vsftpd));
    let guard = guard_with(&stage, &text());
    transfer_with_all_tools(&stage, Way::Passive, Some(&guard));
    transfer_with_all_tools(&stage, Way::Active, Some(&guard));
}

#[test]
fn i2_thieves_reach_nothing() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let guard = off_then_on(&stage, Scene::ThiefFirst, &text());
    guard
        .wait_for_counter(Reason::NoPinhole, 2)
        .expect("it is counted");
    for scene in [Scene::ThiefAfter, Scene::Scan, Scene::BounceToThirdHost] {
        play(&stage, scene, Winner::Honest, Some(&guard));
    }
}

/// What this tracking costs is a figure, not a promise; that every transfer ends well is one.
#[test]
fn sequential_transfers_all_arrive() {
    let stage = stage(Settings::of(Kind::Vsftpd));
    let _guard = guard_with(&stage, &text());
    let sequence = measure::passive(&stage, Family::V4, 50, Duration::from_mins(3))
        .expect("sequential transfers");
    assert_eq!(sequence.times.len(), 50);
    println!("{} of 50 first SYNs lost", sequence.lost);
}
