use super::*;
use crate::doctor::conf::{Product, Said};

fn found(program: &str, control_ports: &[u16], passive_ports: Option<&str>) -> Found {
    Found {
        pid: 4242,
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
    let proposal = propose(&Config::default(), &servers).expect("a proposal");
    assert_eq!(proposal.mode, ModeArg::Monitor);
    let names: Vec<&str> = proposal
        .ftpd
        .iter()
        .map(|ftpd| ftpd.name.as_str())
        .collect();
    assert_eq!(names, ["vsftpd", "proftpd", "vsftpd at 990"]);
    assert_eq!(proposal.control_ports(), [21, 990, 2121]);
    assert_eq!(proposal.passive_ports().len(), 2);
    assert_eq!(propose(&Config::default(), &[]), None);
}

#[test]
fn what_cannot_be_declared_is_not_proposed() {
    // vsftpd's own default, which holds the other's control port.
    let servers = [
        found("vsftpd", &[21], Some("1024-65535")),
        found("proftpd", &[2121], None),
    ];
    let proposal = propose(&Config::default(), &servers).expect("a proposal");
    assert_eq!(proposal.control_ports(), [21, 2121]);
    assert!(proposal.passive_ports().is_empty());
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
