//! Other network namespaces on the same host, with ftpds that are not ours.

use ftpguard_tests::{
    ftpd::{Kind, Settings},
    scenario::{Scene, Winner},
};

use crate::help::{guard, play, stage};

/// Tracepoints see every network namespace. An ftpd in another one listens on the same wildcard
/// address and port; when it ends, ours is still there.
#[test]
fn an_ftpd_elsewhere_that_ends_takes_nothing_from_ours() {
    let ours = stage(Settings::of(Kind::Vsftpd));
    let guard = guard(&ours);
    let theirs = stage(Settings::of(Kind::Vsftpd));
    play(&theirs, Scene::Passive, Winner::Honest, None);
    play(&ours, Scene::Passive, Winner::Honest, Some(&guard));
    drop(theirs);
    play(&ours, Scene::Passive, Winner::Honest, Some(&guard));
    play(&ours, Scene::Active, Winner::Honest, Some(&guard));
}
