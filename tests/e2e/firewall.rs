//! A firewall that drops by default, opened for live pinholes only (option `nft_set`).

use std::{
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use ftpguard_common::verdict::Reason;
use ftpguard_tests::{
    Family, Guard,
    attack::{self, Answer},
    client::{self, Commands},
    ftpd::{Kind, Settings},
    guard::Options,
    scenario::{Scene, Stage, Winner},
};

use crate::help::{guard_with, play, stage};

const SET: &str = "inet filter ftp";
const RULES: &str = "
table inet filter {
    set ftp4 { type ipv4_addr . inet_service; flags timeout; }
    set ftp6 { type ipv6_addr . inet_service; flags timeout; }
    chain input {
        type filter hook input priority 0; policy drop;
        iif lo accept
        ct state established,related accept
        meta l4proto ipv6-icmp accept
        tcp dport 21 accept
        ip saddr . tcp dport @ftp4 accept
        ip6 saddr . tcp dport @ftp6 accept
    }
}
";
/// Transfers for the measurement of lost first SYNs.
const TRANSFERS: usize = 100;

/// Runs `nft` on the server with this as its input.
fn nft(stage: &Stage, script: &str) -> String {
    let file = stage.sandbox.folder().join("rules.nft");
    std::fs::write(&file, script).expect("the rules");
    let mut command = Command::new("nft");
    command.arg("--file").arg(&file).stdin(Stdio::null());
    let done = stage
        .sandbox
        .server()
        .run(&mut command, Duration::from_secs(5));
    done.and_then(|done| done.success("nft"))
        .expect("nft")
        .stdout
}

/// What is in both sets.
fn elements(stage: &Stage) -> Vec<String> {
    let sets = ["4", "6"].map(|family| nft(stage, &format!("list set {SET}{family}")));
    sets.iter()
        .flat_map(|set| set.lines())
        .filter(|line| line.contains(" . ") && line.contains("expires"))
        .map(|line| line.trim().to_owned())
        .collect()
}

fn wait_until_empty(stage: &Stage) {
    wait_for_elements(stage, 0);
}

/// Waits until the sets have this many elements, and gives them.
fn wait_for_elements(stage: &Stage, count: usize) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let there = elements(stage);
        if there.len() == count {
            return there;
        }
        assert!(Instant::now() < deadline, "{there:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn with_set() -> Options {
    Options {
        nft_set: Some(SET),
        ..Options::default()
    }
}

/// The firewall keeps everybody out without the guard; with it, it lets exactly the clients of live
/// pinholes in, and nobody once they are gone.
#[test]
fn a_closed_firewall_opens_for_live_pinholes() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    play(&stage, Scene::ThiefFirst, Winner::Attacker, None);
    nft(&stage, RULES);
    let open = |guard: &Guard| {
        for family in Family::ALL {
            let client = stage.sandbox.client();
            let mut ftp = client
                .enter(|| stage.login(family))
                .expect("namespace")
                .expect("a session");
            let announced = ftp.passive(Commands::Extended).expect("a port");
            let theft = attack::knock(stage.sandbox.thief(), announced).expect("a try");
            assert!(matches!(theft, Answer::Silent), "{theft:?}");
            let there = wait_for_elements(&stage, 1);
            let (address, port) = (client.address(family).to_string(), announced.port());
            assert!(
                matches!(&there[..], [one] if one.contains(&address) && one.contains(&port.to_string())),
                "{there:?}\n{}",
                guard.log()
            );
            let data = client.enter(|| client::connect(announced).map(drop));
            data.expect("namespace").expect("the client connects");
            // Used: the session is still open.
            wait_until_empty(&stage);
            ftp.passive(Commands::Extended).expect("a port");
            wait_for_elements(&stage, 1);
            drop(ftp);
            wait_until_empty(&stage);
        }
    };
    let client = stage.sandbox.client();
    let mut ftp = client
        .enter(|| stage.login(Family::V4))
        .expect("namespace")
        .expect("a session");
    let announced = ftp.passive(Commands::Classic).expect("a port");
    let kept_out = attack::knock(client, announced).expect("a try");
    assert!(matches!(kept_out, Answer::Silent), "no guard: {kept_out:?}");
    drop(ftp);

    let guard = guard_with(&stage, &with_set());
    open(&guard);
    play(&stage, Scene::Passive, Winner::Honest, Some(&guard));
    play(&stage, Scene::Active, Winner::Honest, Some(&guard));
    // Somebody loads the rules anew: the set is empty, until the guard looks.
    let mut ftp = client
        .enter(|| stage.login(Family::V4))
        .expect("namespace")
        .expect("a session");
    ftp.passive(Commands::Classic).expect("a port");
    nft(&stage, &format!("flush set {SET}4"));
    let deadline = Instant::now() + Duration::from_secs(15);
    while elements(&stage).is_empty() {
        assert!(Instant::now() < deadline, "{}", guard.log());
        thread::sleep(Duration::from_millis(100));
    }
    // And nothing stays open behind the guard.
    drop(guard);
    assert_eq!(elements(&stage), Vec::<String>::new());
}

/// The element comes a moment after the pinhole. How many clients are faster is measured, not
/// promised: here client, ftpd and guard share the machine's processors.
#[test]
fn how_often_a_client_is_faster_than_the_set() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    nft(&stage, RULES);
    let guard = guard_with(&stage, &with_set());
    for away in [0, 2, 20].map(Duration::from_millis) {
        let (lost, done) = count_lost(&stage, away);
        println!("client {away:?} away: {lost} of {done} first SYNs came before the element");
        assert!(done > 0, "{}", guard.log());
    }
}

/// How many first SYNs were lost in how many transfers. Each lost one costs its client a second.
fn count_lost(stage: &Stage, away: Duration) -> (usize, usize) {
    let counted = stage.sandbox.client().enter(|| -> anyhow::Result<_> {
        let mut ftp = stage.login(Family::V4)?;
        let start = Instant::now();
        let (mut lost, mut done) = (0, 0);
        while done < TRANSFERS && start.elapsed() < Duration::from_secs(3) {
            let announced = ftp.passive(Commands::Classic)?;
            thread::sleep(away);
            lost += usize::from(client::connect(announced)?.syns_lost > 0);
            done += 1;
        }
        Ok((lost, done))
    });
    counted.expect("namespace").expect("every transfer works")
}

/// The kernel's own helper, as its manual recommends it.
const HELPER: &str = "
table inet helper {
    ct helper ftp { type \"ftp\" protocol tcp; }
    chain prerouting {
        type filter hook prerouting priority -150;
        tcp dport 21 ct helper set \"ftp\"
    }
    chain input {
        type filter hook input priority 0;
        ct state established,related accept
        tcp dport 50000-50031 drop
    }
}
";

/// nf_conntrack_ftp beside the guard: it opens what it reads, and the guard lets in whom it knows.
#[test]
fn the_kernels_helper_beside_the_guard() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    play(&stage, Scene::ThiefFirst, Winner::Attacker, None);
    nft(&stage, HELPER);
    // Nothing but the helper opens the range.
    play(&stage, Scene::Passive, Winner::Honest, None);
    for xdp_mode in ["native", "generic", "tc"] {
        let options = Options {
            xdp_mode,
            ..Options::default()
        };
        let guard = guard_with(&stage, &options);
        for scene in [Scene::Passive, Scene::Active, Scene::ThiefFirst] {
            play(&stage, scene, Winner::Honest, Some(&guard));
        }
        let denied = guard.counter(Reason::NoPinhole).expect("a counter");
        assert!(denied > 0, "the guard judged nobody in {xdp_mode}");
    }
}

/// A set that is not there is said at the start, with its remedy.
#[test]
fn a_set_that_is_missing() {
    let stage = stage(Settings::of(Kind::Vsftpd));
    let refused = Guard::start(&stage.sandbox, &with_set()).expect_err("there is no set");
    let told = format!("{refused:#}");
    assert!(told.contains("nft add set inet filter ftp4"), "{told}");
}
