//! Pinholes that end by what the client says (rules C6, C7). The server keeps the listener of its
//! first answer open, so nothing but the end of the pinhole keeps anybody from it.

use std::net::SocketAddr;

use ftpguard_tests::{
    FtpClient, Guard,
    attack::{self, Answer},
    client::Commands,
    sandbox::Host,
};

use crate::{
    contradictions::{Bed, is_silent},
    help::is_kind,
};

/// What the client says after a PASV whose port it has not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Pasv,
    Port,
    Rein,
    Quit,
}

impl Word {
    fn say(self, ftp: &mut FtpClient) {
        let (line, code) = match self {
            Self::Pasv => ("PASV", 227),
            Self::Port => {
                let own = ftp.local().expect("own address");
                let reply = ftp.active(SocketAddr::new(own.ip(), 40_000), Commands::Classic);
                return drop(
                    reply
                        .and_then(|reply| reply.expect(200, "PORT"))
                        .expect("PORT"),
                );
            }
            Self::Rein => ("REIN", 220),
            Self::Quit => ("QUIT", 221),
        };
        ftp.expect(line, code).expect("an answer");
    }
}

/// A session with a port that it has been told and has not used.
fn ask(bed: &Bed, host: &Host) -> (FtpClient, SocketAddr) {
    let mut ftp = bed.login_from(host);
    ftp.expect("SITE MODE keep", 200).expect("MODE");
    let announced = ftp.passive(Commands::Classic).expect("PASV");
    (ftp, announced)
}

/// Why the guard says that the pinhole for this port ended.
fn ending(guard: &Guard, port: u16) -> String {
    let event = guard
        .wait_for_event("of the end of the pinhole", |event| {
            is_kind(event, "pinhole-closed") && event["port"] == port
        })
        .expect("event");
    event["reason"].as_str().expect("a reason").to_owned()
}

/// In every tracking: after this word nobody reaches the port that was announced before.
fn revokes(word: Word) {
    for tracking in ["socket", "text"] {
        revokes_in(tracking, word);
    }
}

fn revokes_in(tracking: &'static str, word: Word) {
    let bed = Bed::new();
    let (client, thief) = (bed.sandbox.client(), bed.sandbox.thief());
    let (mut ftp, kept) = ask(&bed, client);
    word.say(&mut ftp);
    for host in [client, thief] {
        let answer = attack::knock(host, kept).expect("a try");
        assert!(matches!(answer, Answer::Connected(_)), "without a guard");
    }
    drop(ftp);

    let guard = bed.guard(tracking);
    // The guard reads the announcement before the word that takes it back.
    let (mut ftp, kept) = ask(&bed, client);
    guard
        .wait_for_event("of the pinhole", |event| {
            is_kind(event, "pinhole-made") && event["port"] == kept.port()
        })
        .expect("event");
    guard.settle().expect("it is read");
    word.say(&mut ftp);
    let wanted = match (tracking, word) {
        // The kernel side sees the next listen() before there is an answer.
        ("socket", Word::Pasv) => "closed",
        (_, Word::Pasv | Word::Port) => "replaced",
        (_, Word::Rein | Word::Quit) => "revoked",
    };
    assert_eq!(ending(&guard, kept.port()), wanted, "{}", guard.log());
    for host in [client, thief] {
        assert!(is_silent(host, kept), "{word:?}\n{}", guard.log());
    }
    // And where it reads both at once.
    for _ in 0..5 {
        let (mut ftp, kept) = ask(&bed, client);
        word.say(&mut ftp);
        guard.settle().expect("it is read");
        for host in [client, thief] {
            assert!(is_silent(host, kept), "{word:?} at once\n{}", guard.log());
        }
    }
}

#[test]
fn c6_a_second_pasv_revokes_the_first() {
    revokes(Word::Pasv);
}

#[test]
fn c6_port_revokes_the_port_of_pasv() {
    revokes(Word::Port);
}

#[test]
fn c7_rein_revokes() {
    revokes(Word::Rein);
}

/// The server leaves the control connection open, so its close is not what ends the pinhole.
#[test]
fn c7_quit_revokes() {
    revokes(Word::Quit);
}
