use super::*;
use crate::state::OriginCounts;

fn count(name: &str, verdict: &str, count: u64, text: &str) -> Count {
    Count {
        name: name.to_owned(),
        verdict: verdict.to_owned(),
        count,
        text: text.to_owned(),
    }
}

fn status() -> Status {
    Status {
        version: "0.1.0".to_owned(),
        pid: 4242,
        mode: "enforce".to_owned(),
        ftpd_modes: [("ftpd", 21), ("intern", 990)]
            .map(|(name, port)| FtpdMode {
                name: name.to_owned(),
                control_ports: vec![port],
                mode: "enforce".to_owned(),
            })
            .to_vec(),
        not_enforced: None,
        tracking: "socket".to_owned(),
        active: "client".to_owned(),
        kernel: "6.18.44".to_owned(),
        degraded: vec!["xdp.frags: TC where the MTU is large".to_owned()],
        uptime: 3_725,
        endurance: Endurance {
            pins: Some("/sys/fs/bpf/ftpguard".to_owned()),
            without_daemon: "closed".to_owned(),
            heartbeat_age: 800,
            max_sessions: 100,
            client_sessions: 64,
            memory: 2 << 20,
        },
        cgroup: "/sys/fs/cgroup".to_owned(),
        control_ports: vec![21, 990],
        passive_ports: Some("50000-50099".to_owned()),
        interfaces: vec![
            Hooks {
                interface: "eth0".to_owned(),
                ingress: "xdp-native".to_owned(),
                ingress_holds: true,
                egress: "tcx".to_owned(),
                egress_holds: false,
                note: None,
            },
            Hooks {
                interface: "wg0".to_owned(),
                ingress: "tc".to_owned(),
                ingress_holds: true,
                egress: "tcx".to_owned(),
                egress_holds: true,
                note: Some("another XDP program is attached".to_owned()),
            },
            Hooks {
                interface: "wg1".to_owned(),
                ingress: "none".to_owned(),
                ingress_holds: false,
                egress: "none".to_owned(),
                egress_holds: false,
                note: Some("the kernel refused".to_owned()),
            },
        ],
        last_gate: true,
        last_gate_note: None,
        connect: false,
        connect_note: Some("cgroup /sys/fs/cgroup is gone".to_owned()),
        sessions: 2,
        pinholes: 1,
        guarded_listeners: 3,
        foreign_listeners: 1,
        unsafe_processes: vec![77],
        programs: vec![ProgramRow {
            name: "control_read".to_owned(),
            runs: 3,
            nanoseconds: 301,
        }],
        ftpds: vec![FtpdRow {
            control_port: 21,
            name: "vsftpd".to_owned(),
            pids: vec![812],
            level: "exact".to_owned(),
            why: "the process that listens serves one session".to_owned(),
            origins: OriginCounts {
                exact: 3,
                adopted: 1,
                ..OriginCounts::default()
            },
        }],
        totals: Tally::default(),
        verdicts: vec![
            count("pinhole", "pass", 5, "SYN through a pinhole"),
            count("no-pinhole", "deny", 12, "SYN to the ftpd's listener"),
        ],
        incidents: vec![count("event-lost", "", 1, "event lost")],
    }
}

#[test]
fn a_status_is_aligned() {
    assert_eq!(
        status().render(),
        "\
ftpguard 0.1.0, pid 4242, up for 1 h 2 min
  mode           enforce
  tracking       socket
  active mode    client
  kernel         6.18.44
  without        xdp.frags: TC where the MTU is large
  after a crash  the kernel goes on guarding; what needs the daemon: closed (/sys/fs/bpf/ftpguard)
  heartbeat      800 ms ago
  tables         100 sessions, 64 for each client, 2048 KiB
  interfaces     eth0: ingress xdp-native, egress tcx LOST
                 wg0: ingress tc, egress tcx (another XDP program is attached)
                 wg1: ingress none, egress none (the kernel refused)
  last gate      sk_lookup, for every interface
  cgroup         /sys/fs/cgroup: connect4, connect6 LOST (cgroup /sys/fs/cgroup is gone)
  control ports  21, 990
  passive ports  50000-50099
  sessions       2
  pinholes       1
  listeners      3 guarded, 1 foreign
  ftpds          21: vsftpd, pid 812: exact, the process that listens serves one session
                 pinholes made: 3 exact, 1 adopted
  not exact      pid 77: its threads do not tell whom they serve

passed
  pinhole                            5  SYN through a pinhole

denied
  no-pinhole                        12  SYN to the ftpd's listener

incidents
  event-lost                         1  event lost

programs                        runs  ns each
  control_read                     3      100
"
    );
}

#[test]
fn monitor_says_would() {
    let monitor = Status {
        mode: "monitor".to_owned(),
        ftpd_modes: Vec::new(),
        passive_ports: None,
        ..status()
    };
    let text = monitor.render();
    assert!(text.contains("\nwould be denied\n"));
    assert!(text.contains("none declared: listeners only"));
}

#[test]
fn what_is_not_enforced_says_why() {
    let refused = Status {
        not_enforced: Some("all clients come from 10.0.0.1".to_owned()),
        ..status()
    };
    let text = refused.render();
    assert!(text.contains("\n  NOT ENFORCED   all clients come from 10.0.0.1\n"));
    assert!(text.contains("\nwould be denied\n"));
}

#[test]
fn a_status_survives_its_json() {
    let json = serde_json::to_string(&status()).expect("JSON");
    assert_eq!(
        serde_json::from_str::<Status>(&json).expect("status"),
        status()
    );
}

#[test]
fn sessions_and_pinholes_are_tables() {
    let ends = Ends {
        client: [10, 0, 0, 2].into(),
        client_port: 4711,
        server: [10, 0, 0, 1].into(),
        port: 21,
    };
    let row = SessionRow {
        ends,
        age: 90_061,
        pinhole: Some(50_000),
        active_port: None,
        text: "clear".to_owned(),
        latest: Some("quit".to_owned()),
    };
    assert_eq!(
        render_sessions(&[row]),
        "\
CLIENT         SERVER       AGE      PINHOLE  ACTIVE  TEXT   LATEST
10.0.0.2:4711  10.0.0.1:21  1 d 1 h  50000    -       clear  quit
"
    );
    let pinhole = PinholeRow {
        way: Way {
            client: ends.client,
            server: ends.server,
            port: 50_000,
        },
        origin: "exact".to_owned(),
        age: 61,
        uses: 1,
        client_port: 4711,
        control_port: 21,
    };
    assert_eq!(
        render_pinholes(&[pinhole]),
        "\
CLIENT    MAY REACH       ORIGIN  AGE        USES  SESSION
10.0.0.2  10.0.0.1:50000  exact   1 min 1 s  1     4711 -> 21
"
    );
    assert_eq!(
        render_pinholes(&[]),
        "CLIENT  MAY REACH  ORIGIN  AGE  USES  SESSION\n"
    );
}

/// M1: one FTP server may be watched while the others are enforced, and that is said.
#[test]
fn m1_modes_that_differ_are_told() {
    let mut status = status();
    assert_eq!(status.effect(), Effect::Everywhere);
    status.ftpd_modes[1].mode = "monitor".to_owned();
    assert_eq!(status.effect(), Effect::Partly);
    let text = status.render();
    assert!(
        text.contains("  mode           enforce, monitor for intern\n"),
        "{text}"
    );
    assert!(text.contains("\ndenied, or would be\n"), "{text}");
    status.ftpd_modes[0].mode = "monitor".to_owned();
    status.mode = "monitor".to_owned();
    assert_eq!(status.effect(), Effect::Nowhere);
    assert!(!status.is_refused());
    // Hidden clients keep all of them from enforcing (rule I8).
    status.ftpd_modes[1].mode = "enforce".to_owned();
    assert_eq!(status.effect(), Effect::Partly);
    status.not_enforced = Some("a proxy".to_owned());
    assert_eq!(status.effect(), Effect::Nowhere);
    assert!(status.is_refused());
}
