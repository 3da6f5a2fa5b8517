//! A target that was read is one that can be written again and read back.

use ftpguard_common::{
    ftp::{Command, DataCommand, Target, line::Line},
    net::Port,
};

/// Panics unless the property holds for this input.
pub fn check(text: &[u8]) {
    match Command::parse(Line::of(text)) {
        Command::Active(command, target) => {
            assert_ne!(target.port, Port::NONE);
            assert!(!command.is_passive());
            let again = Command::parse(Line::of(eprt(target).as_bytes()));
            assert_eq!(again, Command::Active(DataCommand::Eprt, target));
        }
        Command::Malformed(_, error) => assert!(usize::from(error.at) <= text.len()),
        other => assert!(other.data_command().is_none_or(DataCommand::is_passive)),
    }
}

fn eprt(Target { address, port }: Target) -> String {
    let family = if address.is_v4() { 1 } else { 2 };
    format!("EPRT |{family}|{address}|{port}|")
}
