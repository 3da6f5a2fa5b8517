use super::*;
use crate::doctor::conf::{Product, Said};

fn found(program: &str, control_ports: &[u16], passive_ports: Option<&str>) -> Found {
    Found {
        pid: 4242,
        uid: Some(0),
        program: program.to_owned(),
        product: Product::of(program),
        version: None,
        control_ports: control_ports.to_vec(),
        said: Said {
            passive_ports: passive_ports.map(|range| range.parse().expect("a range")),
            ..Said::default()
        },
    }
}

#[test]
fn every_server_found_is_proposed_once() {
    let servers = [
        found("vsftpd", &[21], Some("50000-50099")),
        found("proftpd", &[2121], Some("51000-51099")),
        // A second one of the same name, and a process that shares a port.
        found("vsftpd", &[990], None),
        found("proftpd", &[2121], None),
    ];
    let Proposal {
        config: proposal,
        left_out,
    } = propose(&Config::default(), &[], &servers).expect("a proposal");
    assert_eq!(proposal.mode, ModeArg::Monitor);
    let names: Vec<&str> = proposal
        .ftpd
        .iter()
        .map(|ftpd| ftpd.name.as_str())
        .collect();
    assert_eq!(names, ["vsftpd", "proftpd", "vsftpd at 990"]);
    assert_eq!(proposal.control_ports(), [21, 990, 2121]);
    assert_eq!(proposal.passive_ports().len(), 2);
    assert_eq!(left_out, []);
    assert!(propose(&Config::default(), &[], &[]).is_none());
}

/// The address by which clients know a server is taken over; a name is not.
#[test]
fn r7_public_addresses_are_proposed() {
    for (said, proposed) in [
        (Some("192.0.2.1"), vec!["192.0.2.1"]),
        (Some("ftp.example.net"), Vec::new()),
        (None, Vec::new()),
    ] {
        let mut server = found("vsftpd", &[21], None);
        server.said.public_address = said.map(str::to_owned);
        let proposal = propose(&Config::default(), &[], &[server]).expect("a proposal");
        let addresses: Vec<String> = proposal
            .config
            .ftpd
            .iter()
            .flat_map(|ftpd| &ftpd.public_addresses)
            .map(ToString::to_string)
            .collect();
        assert_eq!(addresses, proposed);
    }
}

/// M3: a server that was never seen before is watched first, and takes nothing from the others.
#[test]
fn m3_a_server_that_is_new_is_watched_first() {
    let config = Config::default();
    let servers = [
        found("vsftpd", &[21], Some("50000-50099")),
        found("proftpd", &[2121], Some("51000-51099")),
    ];
    let Proposal { config, .. } = propose(&config, &config.ftpd, &servers).expect("a proposal");
    let modes: Vec<ModeArg> = config.modes().map(|(_, mode)| mode).collect();
    assert_eq!(modes, [ModeArg::Enforce, ModeArg::Monitor]);
    // And where the ranges leave no choice, all are.
    let servers = [
        found("vsftpd", &[21], Some("50000-50099")),
        found("proftpd", &[2121], Some("50050-51099")),
    ];
    let Proposal { config, .. } = propose(&config, &config.ftpd, &servers).expect("a proposal");
    assert!(!config.enforces());
}

#[test]
fn what_cannot_be_declared_is_not_proposed() {
    // vsftpd's own default, which holds the other's control port.
    let servers = [
        found("vsftpd", &[21], Some("1024-65535")),
        found("proftpd", &[2121], None),
    ];
    let Proposal {
        config: proposal,
        left_out,
    } = propose(&Config::default(), &[], &servers).expect("a proposal");
    assert_eq!(proposal.control_ports(), [21, 2121]);
    assert!(proposal.passive_ports().is_empty());
    let [(0, finding)] = left_out.as_slice() else {
        panic!("{left_out:?}");
    };
    assert_eq!(
        finding.what,
        "its passive range 1024-65535 holds 2121, a control port of proftpd, pid 4242: it is not \
         proposed"
    );
}

/// Anybody on this host can run something called `vsftpd`: that does not open, or take away, what
/// others say.
#[test]
fn an_impossible_range_takes_no_other_ones_range_away() {
    let servers = [
        found("proftpd", &[21], Some("50000-50099")),
        found("vsftpd", &[2121], Some("1024-65535")),
    ];
    let Proposal {
        config: proposal,
        left_out,
    } = propose(&Config::default(), &[], &servers).expect("a proposal");
    let ranges: Vec<String> = proposal
        .passive_ports()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(ranges, ["50000-50099"]);
    let [(1, finding)] = left_out.as_slice() else {
        panic!("{left_out:?}");
    };
    assert!(
        finding.what.contains("2121, its own control port"),
        "{finding:?}"
    );
}

#[test]
fn no_name_keeps_a_proposal_from_being_made() {
    let servers = [
        found("pure-ftpd", &[21], None),
        found("pure-ftpd at 2121", &[2122], None),
        found("pure-ftpd", &[2121], None),
        found("pure-ftpd\u{1b}[2J\nmode = 1", &[2123], None),
    ];
    let Proposal { config, .. } = propose(&Config::default(), &[], &servers).expect("a proposal");
    let names: Vec<&str> = config.ftpd.iter().map(|ftpd| ftpd.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "pure-ftpd",
            "pure-ftpd at 2121",
            "pure-ftpd at 2121, pid 4242",
            "pure-ftpd?[2J mode = 1"
        ]
    );
}

#[test]
fn a_file_that_is_there_is_replaced_only_by_force() {
    let folder = std::env::temp_dir().join(format!("ftpguard-doctor-{}", std::process::id()));
    let file = folder.join("etc/ftpguard.toml");
    write(&file, "first", false).expect("written");
    let error = write(&file, "second", false).expect_err("refused");
    assert!(error.to_string().contains("--force"), "{error}");
    assert_eq!(fs::read_to_string(&file).expect("read"), "first");
    write(&file, "2nd", true).expect("written");
    assert_eq!(fs::read_to_string(&file).expect("read"), "2nd");
    fs::remove_dir_all(folder).expect("removed");
}

/// Else nobody who installed a package could use `--write` as the quick start says.
#[test]
fn the_file_as_it_was_installed_is_replaced() {
    let folder = std::env::temp_dir().join(format!("ftpguard-shipped-{}", std::process::id()));
    let file = folder.join("ftpguard.toml");
    write(&file, SHIPPED, false).expect("as installed");
    write(&file, "proposal", false).expect("in its place");
    assert_eq!(fs::read_to_string(&file).expect("read"), "proposal");
    fs::write(&file, format!("{SHIPPED}# mine\n")).expect("written");
    write(&file, "proposal", false).expect_err("somebody's own");
    fs::remove_dir_all(folder).expect("removed");
}
