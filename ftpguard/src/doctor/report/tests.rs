use super::*;
use crate::doctor::{
    conf::{Product, Said},
    predict::{Sample, measure},
};

fn report() -> Report {
    let found = Found {
        pid: 4242,
        uid: Some(0),
        program: "proftpd".to_owned(),
        product: Product::Proftpd,
        version: Some("1.3.8".to_owned()),
        control_ports: vec![21],
        said: Said {
            file: Some("/etc/proftpd/proftpd.conf".into()),
            passive_ports: Some("50000-50099".parse().expect("a range")),
            public_address: Some("192.0.2.1".to_owned()),
            weak: vec!["AllowForeignAddress on turns its own check of addresses off".to_owned()],
            ..Said::default()
        },
    };
    let bare = Found {
        pid: 77,
        uid: None,
        program: "vsftpd".to_owned(),
        product: Product::Vsftpd,
        version: None,
        control_ports: vec![990, 2121],
        said: Said::default(),
    };
    Report {
        host: vec![
            Finding::good("kernel 6.18.44".to_owned()),
            Finding::odd("bpffs is not mounted".to_owned(), "the guard mounts it"),
            Finding::bad("cgroup v2 is not mounted".to_owned(), "mount it"),
        ],
        servers: vec![FoundServer::of(&found), FoundServer::of(&bare)],
        running: true,
        ports: measure(&Sample {
            control_port: 21,
            range: Some(100),
            ports: (50_000..50_100).collect(),
        })
        .into_iter()
        .collect(),
        too_few: vec![(990, 3)],
        proposal: Some(
            "# Explained.\n\n# The mode.\nmode = \"monitor\"\n\n# Servers.\n\n[[ftpd]]\nname = \"x\"\n".to_owned(),
        ),
        written: None,
    }
}

#[test]
fn everything_is_told() {
    insta::assert_snapshot!("everything", report().render());
    assert_eq!(report().bad(), 1);
}

/// Anybody on this host can give a program any name and any settings.
#[test]
fn no_name_or_setting_reaches_the_terminal_as_it_is() {
    let odd = "x\u{1b}]0;owned\u{7}\n  ok    all is well\u{9b}31m";
    let found = Found {
        pid: 4242,
        uid: Some(0),
        program: format!("pure-ftpd{odd}"),
        product: Product::PureFtpd,
        version: Some(odd.to_owned()),
        control_ports: vec![21],
        said: Said {
            file: Some(odd.into()),
            public_address: Some(odd.to_owned()),
            weak: vec![odd.to_owned()],
            odd: vec![odd.to_owned()],
            ..Said::default()
        },
    };
    let report = Report {
        servers: vec![FoundServer::of(&found)],
        ..Report::default()
    };
    let text = report.render();
    let lines = text.lines().count();
    assert!(
        !text.contains(|letter: char| letter.is_control() && letter != '\n'),
        "{text:?}"
    );
    let plain = Report {
        servers: vec![FoundServer::of(&Found {
            program: "pure-ftpd".to_owned(),
            version: Some("x".to_owned()),
            said: Said {
                file: Some("x".into()),
                public_address: Some("x".to_owned()),
                weak: vec!["x".to_owned()],
                odd: vec!["x".to_owned()],
                ..Said::default()
            },
            ..found
        })],
        ..Report::default()
    };
    assert_eq!(lines, plain.render().lines().count(), "{text}");
}

#[test]
fn nothing_is_told_as_nothing() {
    insta::assert_snapshot!("nothing", Report::default().render());
    let written = Report {
        written: Some("/etc/ftpguard/ftpguard.toml".to_owned()),
        ..report()
    };
    assert!(
        written
            .render()
            .ends_with("\nthe proposed configuration was written to /etc/ftpguard/ftpguard.toml\n")
    );
}
