//! Data connections from another address than the client's, where the configuration names both
//! (rule I7).

use std::fs;

use ftpguard_common::verdict::Reason;
use ftpguard_tests::{
    Family, FtpClient, Guard,
    attack::{self, Answer},
    client::{self, Commands},
    ftpd::{FILE, Kind, Settings},
    guard,
    sandbox::Host,
    scenario::Stage,
};

use crate::help::{is_kind, stage};

fn login(stage: &Stage, host: &Host, family: Family) -> FtpClient {
    host.enter(|| stage.login(family))
        .expect("namespace")
        .expect("login")
}

/// The client has a NAT with two exits: its control connection takes one, its data connections the
/// other. Whoever is behind neither gets nothing, and nobody behind them gets at others' transfers.
#[test]
fn i7_a_nat_with_several_exits() {
    for kind in [Kind::Vsftpd, Kind::Pyftpdlib] {
        let stage = stage(Settings::unchecked(kind));
        let sandbox = &stage.sandbox;
        let (client, exit, thief) = (sandbox.client(), sandbox.third(), sandbox.thief());
        let file = guard::folder(sandbox, "etc")
            .expect("a folder")
            .join("ftpguard.toml");
        let ftpd = "[[ftpd]]\npassive_ports = \"50000-50031\"\n";
        fs::write(&file, ftpd).expect("the file is written");
        let guard = Guard::start_with_file(sandbox, &file).expect("ftpguard becomes ready");
        let is_silent = |host: &Host, port| {
            let answer = attack::knock(host, port).expect("a try");
            matches!(answer, Answer::Silent)
        };
        for family in Family::ALL {
            let mut ftp = login(&stage, client, family);
            let announced = ftp.passive(Commands::of(family)).expect("a port");
            assert!(is_silent(exit, announced), "{kind:?}: {}", guard.log());
        }
        let exits: Vec<String> = [client, exit]
            .iter()
            .flat_map(|host| Family::ALL.map(|family| format!("\"{}\"", host.address(family))))
            .collect();
        let exits = exits.join(", ");
        let exception = format!("{ftpd}[[exception]]\nname = \"nat\"\ndata_from = [{exits}]\n");
        fs::write(&file, exception).expect("the file is written");
        let told = guard.ask(&["reload"]).expect("it ends");
        assert!(told.status.success(), "{told:?}");

        for family in Family::ALL {
            let mut ftp = login(&stage, client, family);
            let announced = ftp.passive(Commands::of(family)).expect("a port");
            assert!(is_silent(thief, announced), "{kind:?}: {}", guard.log());
            let data = exit
                .enter(|| client::connect(announced))
                .expect("namespace")
                .unwrap_or_else(|error| panic!("{kind:?}: {error:#}\n{}", guard.log()));
            assert_eq!(data.syns_lost, 0, "{kind:?}");
            // It is used up, whoever used it.
            guard
                .wait_for_event("of the use", |event| {
                    is_kind(event, "pinhole-used") && event["port"] == announced.port()
                })
                .expect("an event");
            for host in [exit, thief] {
                assert!(is_silent(host, announced), "{kind:?}: {}", guard.log());
            }
            let content = ftp.receive(FILE, data.stream).expect("the file");
            assert!(stage.is_file(&content), "{kind:?}");

            // Nobody named the thief, whose own transfers are his alone.
            let mut ftp = login(&stage, thief, family);
            let announced = ftp.passive(Commands::of(family)).expect("a port");
            for host in [client, exit] {
                assert!(is_silent(host, announced), "{kind:?}: {}", guard.log());
            }
        }
        guard
            .wait_for_counter(Reason::Relaxation, 2)
            .expect("counted");
    }
}
