//! Listeners: of the ftpd outside its range, of other software inside it, of other namespaces.

use std::net::TcpListener;

use ftpguard_tests::{
    ftpd::{CONTROL_PORT, Kind},
    scenario::{Scene, Winner},
};

use crate::{
    help::{play, stage},
    zoo::{Tls, guard_for, settings},
};

/// A container with its own ftpd on port 21 stops it: this host's ftpd has not closed anything.
#[test]
fn i1_the_same_port_closes_in_another_namespace() {
    let stage = stage(settings(Kind::Vsftpd, Tls::Clear));
    let guard = guard_for(&stage);
    let other = stage.sandbox.third();
    other
        .enter(|| {
            let _listener = TcpListener::bind(("::", CONTROL_PORT)).expect("listening");
        })
        .expect("namespace");
    play(&stage, Scene::Passive, Winner::Honest, Some(&guard));
    play(&stage, Scene::ThiefFirst, Winner::Honest, Some(&guard));
}
