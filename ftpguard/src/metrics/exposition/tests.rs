use std::collections::BTreeSet;

use super::*;
use crate::{
    state::Tally,
    status::{Endurance, FtpdMode, Hooks},
};

/// A guard with something of everything.
pub(crate) fn sample() -> Status {
    let count = |name: &str, count| Count {
        name: name.to_owned(),
        verdict: String::new(),
        count,
        text: String::new(),
    };
    let endurance = Endurance {
        max_sessions: 16_384,
        ..Endurance::default()
    };
    Status {
        endurance,
        version: "0.1.0".to_owned(),
        pid: 1,
        mode: "enforce".to_owned(),
        ftpd_modes: vec![FtpdMode {
            name: "public".to_owned(),
            control_ports: vec![21],
            mode: "enforce".to_owned(),
        }],
        tracking: "socket".to_owned(),
        active: "client".to_owned(),
        kernel: "6.18.44".to_owned(),
        degraded: vec!["tcx: clsact".to_owned()],
        uptime: 61,
        cgroup: "/sys/fs/cgroup".to_owned(),
        control_ports: vec![21],
        passive_ports: None,
        interfaces: vec![Hooks {
            interface: "we\"ird".to_owned(),
            ingress: "xdp-native".to_owned(),
            ingress_holds: true,
            egress: "tcx".to_owned(),
            ..Hooks::default()
        }],
        sessions: 2,
        pinholes: 1,
        guarded_listeners: 3,
        foreign_listeners: 4,
        unsafe_processes: vec![77, 78],
        totals: Tally {
            sessions: 9,
            pinholes_made: 8,
            pinholes_used: 7,
            unreadable: 6,
            unread: 7,
            malformed_arguments: 4,
        },
        verdicts: vec![count("no-pinhole", 12), count("pinhole", 5)],
        incidents: vec![count("event-lost", 1)],
        ..Status::default()
    }
}

fn text() -> String {
    let usage = Usage {
        cpu_seconds: 1.25,
        resident_bytes: 12_345_678,
        open_fds: 42,
    };
    exposition(&sample(), &usage).expect("text")
}

#[test]
fn every_figure_is_in_its_place() {
    let text = text();
    for line in [
        r#"ftpguard_verdicts_total{verdict="deny",reason="no-pinhole"} 12"#,
        r#"ftpguard_verdicts_total{verdict="pass",reason="pinhole"} 5"#,
        // What did not happen is 0, and not missing.
        r#"ftpguard_verdicts_total{verdict="deny",reason="closed-port"} 0"#,
        r#"ftpguard_incidents_total{incident="event-lost"} 1"#,
        r#"ftpguard_incidents_total{incident="pinhole-table-full"} 0"#,
        "ftpguard_sessions_opened_total 9",
        "ftpguard_pinholes_made_total 8",
        "ftpguard_pinholes_used_total 7",
        "ftpguard_unreadable_records_total 6",
        "ftpguard_unread_sessions_total 7",
        "ftpguard_malformed_arguments_total 4",
        "ftpguard_sessions 2",
        "ftpguard_pinholes 1",
        r#"ftpguard_listeners{owner="guarded"} 3"#,
        r#"ftpguard_listeners{owner="foreign"} 4"#,
        r#"ftpguard_table_capacity{table="sessions"} 16384"#,
        r#"ftpguard_mode{mode="enforce"} 1"#,
        r#"ftpguard_table_capacity{table="listeners"} 32768"#,
        r#"ftpguard_mode{mode="monitor"} 0"#,
        r#"ftpguard_ftpd_mode{ftpd="public",mode="enforce"} 1"#,
        r#"ftpguard_ftpd_mode{ftpd="public",mode="monitor"} 0"#,
        "ftpguard_enforcement_refused 0",
        "ftpguard_unguarded_interfaces 0",
        r#"ftpguard_hook_attached{interface="we\"ird",direction="ingress",hook="xdp-native"} 1"#,
        r#"ftpguard_hook_attached{interface="we\"ird",direction="egress",hook="tcx"} 0"#,
        "ftpguard_unsafe_processes 2",
        "ftpguard_missing_kernel_features 1",
        "ftpguard_uptime_seconds 61",
        r#"ftpguard_build_info{version="0.1.0",kernel="6.18.44"} 1"#,
        "process_cpu_seconds_total 1.25",
        "process_resident_memory_bytes 12345678",
        "process_open_fds 42",
    ] {
        assert!(text.lines().any(|other| other == line), "{line}\n{text}");
    }
    assert!(text.ends_with("# EOF\n"), "{text}");
}

/// I8: while everything passes because a proxy hides the clients, nothing is enforced.
#[test]
fn i8_what_is_not_enforced_is_not_told_as_enforced() {
    let status = Status {
        not_enforced: Some("all clients come from 10.0.0.1".to_owned()),
        ..sample()
    };
    let text = exposition(&status, &Usage::default()).expect("text");
    for line in [
        r#"ftpguard_mode{mode="enforce"} 0"#,
        r#"ftpguard_mode{mode="monitor"} 1"#,
        r#"ftpguard_ftpd_mode{ftpd="public",mode="enforce"} 0"#,
        r#"ftpguard_ftpd_mode{ftpd="public",mode="monitor"} 1"#,
        "ftpguard_enforcement_refused 1",
    ] {
        assert!(text.lines().any(|other| other == line), "{line}\n{text}");
    }
}

#[test]
fn capacities_are_those_of_this_guard() {
    let mut status = sample();
    status.endurance.max_sessions = 1_000;
    let text = exposition(&status, &Usage::default()).expect("text");
    for line in [
        r#"ftpguard_table_capacity{table="sessions"} 1000"#,
        r#"ftpguard_table_capacity{table="pinholes"} 1000"#,
        r#"ftpguard_table_capacity{table="listeners"} 2000"#,
    ] {
        assert!(text.lines().any(|other| other == line), "{line}\n{text}");
    }
}

/// An interface that never could be guarded has no hook that somebody could have detached.
#[test]
fn an_unguarded_interface_lost_no_hook() {
    let mut status = sample();
    status.interfaces.push(Hooks {
        interface: "odd0".to_owned(),
        ingress: "none".to_owned(),
        egress: "none".to_owned(),
        ..Hooks::default()
    });
    let text = exposition(&status, &Usage::default()).expect("text");
    assert!(!text.contains("odd0"), "{text}");
    assert!(
        text.lines()
            .any(|line| line == "ftpguard_unguarded_interfaces 1"),
        "{text}"
    );
}

#[test]
fn every_reason_and_incident_has_a_series() {
    let text = text();
    for label in Reason::ALL
        .iter()
        .map(|reason| reason.label())
        .chain(Incident::ALL.iter().map(|incident| incident.label()))
    {
        assert!(text.contains(&format!("\"{label}\"}} ")), "{label}");
    }
}

/// The names of all metrics, as a query has to write them.
fn names() -> BTreeSet<String> {
    text()
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let end = line.find(['{', ' ']).expect("a name");
            line[..end].to_owned()
        })
        .collect()
}

/// The words of a text that begin like one of our metrics.
fn mentioned(text: &str) -> BTreeSet<String> {
    text.split(|character: char| !character.is_ascii_alphanumeric() && character != '_')
        .filter(|word| {
            ["ftpguard_", "process_"]
                .iter()
                .any(|prefix| word.len() > prefix.len() && word.starts_with(prefix))
        })
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_documentation_lists_exactly_these() {
    let page = include_str!("../../../../docs/metrics.md");
    assert_eq!(mentioned(page), names());
}

#[test]
fn dashboard_and_alerts_ask_for_metrics_that_exist() {
    let dashboard = include_str!("../../../../packaging/grafana-dashboard.json");
    let alerts = include_str!("../../../../packaging/prometheus-alerts.yml");
    serde_json::from_str::<serde_json::Value>(dashboard).expect("the dashboard is JSON");
    for (file, text) in [("dashboard", dashboard), ("alerts", alerts)] {
        let asked = mentioned(text);
        assert!(asked.len() > 3, "{file}: {asked:?}");
        let unknown: Vec<_> = asked.difference(&names()).cloned().collect();
        assert_eq!(unknown, Vec::<String>::new(), "{file}");
    }
}

/// Label values in queries, `{reason="..."}`, are labels of reasons and incidents.
#[test]
fn dashboard_and_alerts_ask_for_labels_that_exist() {
    let dashboard = include_str!("../../../../packaging/grafana-dashboard.json").replace('\\', "");
    let alerts = include_str!("../../../../packaging/prometheus-alerts.yml");
    let text = text();
    let mut found = 0;
    for file in [&dashboard, alerts] {
        for key in ["reason", "incident", "verdict", "mode", "owner", "table"] {
            for (start, _) in file.match_indices(&format!("{key}=\"")) {
                let rest = &file[start..];
                let end = rest.match_indices('"').nth(1).expect("a closing quote").0;
                let pair = &rest[..=end];
                assert!(text.contains(pair), "{pair} is in no series");
                found += 1;
            }
        }
    }
    assert!(found > 5, "{found} labels looked at");
}

#[test]
fn this_process_uses_something() {
    let usage = Usage::of_this_process();
    assert!(usage.resident_bytes > 100_000, "{usage:?}");
    assert!(usage.open_fds > 2, "{usage:?}");
    assert!(usage.cpu_seconds >= 0.0, "{usage:?}");
}
