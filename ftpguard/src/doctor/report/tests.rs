use super::*;
use crate::{
    config::Config,
    doctor::{
        conf::{Product, Said},
        predict::{Sample, measure},
    },
};

fn report() -> Report {
    let found = Found {
        pid: 4242,
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
        proposal: Some(Config::default().render("x").expect("TOML")),
        written: None,
    }
}

#[test]
fn everything_is_told() {
    insta::assert_snapshot!("everything", report().render());
    assert_eq!(report().bad(), 1);
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
