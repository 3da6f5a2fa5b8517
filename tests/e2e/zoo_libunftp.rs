//! libunftp: one process with a pool of threads, any of which carries a session on (rule F3). It
//! connects while it handles PORT (rule O5).

use ftpguard_common::verdict::Reason;
use ftpguard_tests::{
    Family, Guard,
    client::Commands,
    ftpd::{FILE, Kind, UPLOADS},
    scenario::{Scene, Stage, Winner},
};

use crate::{
    help::{play, stage},
    zoo::{Tls, distinct, guard_for, origin, origins, settings, strangers_first},
};

fn is_refused(guard: &Guard) -> bool {
    let status = guard.status().expect("status");
    let refused = status["unsafe_processes"].as_array();
    !refused.expect("a list").is_empty()
}

/// Fetched and stored over connections that the ftpd opens: with PORT, as it knows no EPRT.
fn active(stage: &Stage, guard: &Guard) {
    let content = stage.ftpd.content();
    let fetched = stage
        .sandbox
        .client()
        .enter(|| {
            let mut ftp = stage.login(Family::V4)?;
            let remote = format!("{UPLOADS}/active.bin");
            ftp.store_active(&remote, content, Commands::Classic)?;
            ftp.retrieve_active(FILE, Commands::Classic)
        })
        .expect("namespace")
        .unwrap_or_else(|error| panic!("{error:#}\n{}", guard.log()));
    assert!(stage.is_file(&fetched), "the fetched file is damaged");
    let stored = stage.ftpd.uploaded("active.bin").expect("the stored file");
    assert!(stage.is_file(&stored), "the stored file is damaged");
}

#[test]
fn f1_f3_o5_libunftp() {
    for tls in [Tls::Clear, Tls::Explicit] {
        let stage = stage(settings(Kind::Libunftp, tls));
        let guard = guard_for(&stage);
        for family in Family::ALL {
            strangers_first(&stage, family, &guard);
        }
        play(&stage, Scene::Passive, Winner::Honest, Some(&guard));
        active(&stage, &guard);
        let bounce = Scene::BounceToThirdHost
            .play(&stage, Family::V4)
            .expect("the scene can be played");
        assert_eq!(bounce.winner, Winner::Honest, "{}", bounce.told);
        guard
            .wait_for_counter(Reason::ConnectToStranger, 1)
            .expect("the bounce is counted");
        guard
            .wait_for_counter(Reason::NoPinhole, 4)
            .expect("strangers' SYNs are counted");
        let origins = origins(&guard);
        // A session that is still open when the next one begins may be enough to refuse it.
        if !is_refused(&guard) {
            assert!(origins.len() >= 8, "{origins:?}\n{}", guard.log());
        }
        for found in &origins {
            assert!(
                origin(Kind::Libunftp).contains(&found.as_str()),
                "{found}\n{}",
                guard.log()
            );
        }
        println!(
            "libunftp, {tls:?}: {} pinholes, {}",
            origins.len(),
            distinct(&origins).join(" and ")
        );
    }
}

/// Seen without a guard: a stranger reaches the port, the client's transfer is lost (T2); and the
/// bounce arrives (T5).
#[test]
fn t2_t5_libunftp_without_a_guard() {
    let stage = stage(settings(Kind::Libunftp, Tls::Clear));
    for family in Family::ALL {
        let played = Scene::ThiefFirst.play(&stage, family).expect("the scene");
        assert_eq!(played.winner, Winner::Attacker, "{}", played.told);
    }
    let bounce = Scene::BounceToThirdHost
        .play(&stage, Family::V4)
        .expect("the scene");
    assert_eq!(bounce.winner, Winner::Attacker, "{}", bounce.told);
}
