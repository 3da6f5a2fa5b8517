use ftpguard_common::verdict::Reason;

use super::*;
use crate::{
    events::{Ends, Way},
    status::{Count, PinholeRow, SessionRow},
    why::{evidence::propose, explain::explain},
};

const NOW: u64 = 100_000;

fn denied(reason: Reason, remote: [u8; 4], port: u16) -> Denied {
    Denied {
        attempt: Attempt::Syn,
        reason: reason.label().to_owned(),
        passed: false,
        remote: remote.into(),
        port,
        server: Some([10, 0, 0, 1].into()),
        pid: None,
        serves: None,
        requested_by: None,
        open_for: Vec::new(),
        has_session: false,
        count: 1,
        first: NOW - 60_000,
        last: NOW - 3_000,
    }
}

fn connect(remote: [u8; 4], port: u16) -> Denied {
    Denied {
        attempt: Attempt::Connect,
        server: None,
        pid: Some(4242),
        ..denied(Reason::ConnectToStranger, remote, port)
    }
}

fn why(subject: Subject, denials: Vec<Denied>) -> Why {
    Why {
        subject,
        mode: "enforce".to_owned(),
        uptime: 3_725,
        denials: denials
            .into_iter()
            .map(|denied| Refusal {
                explanation: explain(&denied),
                denied,
            })
            .collect(),
        forgotten: 0,
        sessions: Vec::new(),
        pinholes: Vec::new(),
        port: None,
    }
}

#[test]
fn the_last_refusal() {
    let theft = Denied {
        open_for: vec![[10, 0, 0, 2].into()],
        count: 3,
        ..denied(Reason::NoPinhole, [10, 0, 0, 3], 50_000)
    };
    insta::assert_snapshot!("last", why(Subject::Last, vec![theft]).render(NOW));
    insta::assert_snapshot!("last_none", why(Subject::Last, vec![]).render(NOW));
}

#[test]
fn an_address_with_what_it_holds_now() {
    let client = [10, 0, 0, 3].into();
    let ends = Ends {
        client,
        client_port: 4711,
        server: [10, 0, 0, 1].into(),
        port: 21,
    };
    let mut answer = why(
        Subject::Address(client),
        vec![
            Denied {
                has_session: true,
                open_for: vec![[10, 0, 0, 2].into(), [10, 0, 0, 4].into()],
                ..denied(Reason::NoPinhole, [10, 0, 0, 3], 50_000)
            },
            Denied {
                count: 99,
                ..denied(Reason::ClosedPort, [10, 0, 0, 3], 50_031)
            },
            Denied {
                requested_by: Some([10, 0, 0, 2].into()),
                serves: Some(ends),
                ..connect([10, 0, 0, 3], 6667)
            },
        ],
    );
    answer.sessions = vec![SessionRow {
        ends,
        age: 61,
        pinhole: Some(50_001),
        active_port: None,
        text: "clear".to_owned(),
        latest: Some("227".to_owned()),
    }];
    answer.pinholes = vec![PinholeRow {
        way: Way {
            client,
            server: [10, 0, 0, 1].into(),
            port: 50_001,
        },
        origin: "exact".to_owned(),
        age: 2,
        uses: 1,
        client_port: 4711,
        control_port: 21,
    }];
    answer.forgotten = 512;
    insta::assert_snapshot!("address", answer.render(NOW));
    let nothing = why(Subject::Address([192, 0, 2, 7].into()), vec![]);
    insta::assert_snapshot!("address_none", nothing.render(NOW));
}

#[test]
fn a_port_and_what_it_is() {
    let mut answer = why(Subject::Port(50_000), vec![]);
    answer.port = Some(PortState {
        declared: Some("ftpd".to_owned()),
        guarded: vec![[10, 0, 0, 1].into()],
        ..PortState::default()
    });
    insta::assert_snapshot!("port", answer.render(NOW));
    for (state, named) in [
        (
            PortState {
                control: true,
                ..PortState::default()
            },
            "a control port",
        ),
        (PortState::default(), "not guarded"),
        (
            PortState {
                declared: Some("x".to_owned()),
                ..PortState::default()
            },
            "closed to everybody",
        ),
        (
            PortState {
                foreign: vec![[10, 0, 0, 1].into()],
                ..PortState::default()
            },
            "left alone",
        ),
    ] {
        assert!(state.describe().contains(named), "{}", state.describe());
    }
}

/// Every reason that denies, as `why` words it.
#[test]
fn every_reason() {
    let all = Reason::ALL
        .iter()
        .filter(|reason| reason.verdict() == ftpguard_common::verdict::Verdict::Deny)
        .map(|reason| {
            let label = reason.label();
            if label.starts_with("connect") {
                Denied {
                    reason: label.to_owned(),
                    passed: true,
                    ..connect([192, 0, 2, 10], 113)
                }
            } else if label.starts_with("data") {
                Denied {
                    attempt: Attempt::OutgoingSyn,
                    ..denied(*reason, [192, 0, 2, 10], 6667)
                }
            } else {
                denied(*reason, [192, 0, 2, 10], 50_000)
            }
        });
    let mut text = String::new();
    for denied in all {
        Refusal {
            explanation: explain(&denied),
            denied,
        }
        .render(&mut text, NOW);
    }
    insta::assert_snapshot!("every_reason", text);
}

#[test]
fn evidence_and_what_it_proposes() {
    let passed = |denied| Denied {
        passed: true,
        ..denied
    };
    let sources = vec![
        passed(Denied {
            count: 512,
            ..denied(Reason::ClosedPort, [198, 51, 100, 7], 50_031)
        }),
        passed(connect([192, 0, 2, 10], 389)),
        passed(Denied {
            requested_by: Some([10, 0, 0, 2].into()),
            ..connect([192, 0, 2, 11], 6667)
        }),
    ];
    let count = |reason: Reason, count| Count {
        name: reason.label().to_owned(),
        verdict: "deny".to_owned(),
        count,
        text: reason.text().to_owned(),
    };
    let evidence = Evidence {
        since: 7_261,
        reasons: vec![
            count(Reason::ClosedPort, 600),
            count(Reason::ConnectToStranger, 2),
        ],
        proposals: propose(&sources, &[]),
        sources,
        forgotten: 0,
    };
    insta::assert_snapshot!("evidence", evidence.render(NOW));
    let quiet = Evidence {
        since: 61,
        ..Evidence::default()
    };
    insta::assert_snapshot!("evidence_none", quiet.render(NOW));
    // M1: that nothing is needed is said only where all of it is known.
    let nothing_needed = "no exception is needed";
    let scanned = Evidence {
        reasons: vec![count(Reason::ClosedPort, 600)],
        ..quiet
    };
    assert!(scanned.render(NOW).contains(nothing_needed));
    for incomplete in [
        Evidence {
            forgotten: 1,
            ..scanned.clone()
        },
        Evidence {
            reasons: vec![count(Reason::ConnectToStranger, 1)],
            ..scanned
        },
    ] {
        let text = incomplete.render(NOW);
        assert!(!text.contains(nothing_needed), "{text}");
        assert!(text.contains("stay in monitor mode"), "{text}");
    }
}
