use bytemuck::bytes_of;
use ftpguard_common::{
    event::FRAGMENT_LENGTH,
    net::{Address, Port},
};

use super::*;

fn key(client_port: u16) -> SessionKey {
    SessionKey {
        client: Address::from(std::net::IpAddr::from([10, 0, 0, 2])),
        server: Address::from(std::net::IpAddr::from([10, 0, 0, 1])),
        client_port: Port::new(client_port),
        server_port: Port::new(21),
    }
}

/// A control connection that sends what it is told to, and a watcher of it.
struct Line {
    watcher: Watcher,
    key: SessionKey,
    to_server: u32,
    to_client: u32,
    told: Vec<String>,
}

impl Line {
    fn new() -> Self {
        Self {
            watcher: Watcher::new(2),
            key: key(4711),
            to_server: 1_000,
            to_client: u32::MAX - 10,
            told: Vec::new(),
        }
    }

    fn record(&mut self, direction: Direction, bytes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(bytes.len()).expect("short");
        let header = ControlHeader {
            session: self.key,
            sequence: match direction {
                Direction::ToServer => self.to_server,
                Direction::ToClient => self.to_client,
            },
            acknowledgment: match direction {
                Direction::ToServer => 0,
                Direction::ToClient => self.to_server,
            },
            length,
            captured: length,
            direction: direction as u16,
            flags: 0x18,
        };
        let sequence = match direction {
            Direction::ToServer => &mut self.to_server,
            Direction::ToClient => &mut self.to_client,
        };
        *sequence = sequence.wrapping_add(length);
        let mut record = bytes_of(&header).to_vec();
        record.extend_from_slice(bytes);
        record
    }

    fn take(&mut self, record: &[u8], beginning: Option<Beginning>) -> bool {
        let told = &mut self.told;
        self.watcher
            .take(record, 0, |_| beginning, &mut |_, event| {
                told.push(event.to_string());
            })
    }

    fn say(&mut self, direction: Direction, text: &str) {
        let record = self.record(direction, text.as_bytes());
        assert!(self.take(&record, Some(Beginning::Handshake)));
    }

    fn client(&mut self, text: &str) {
        self.say(Direction::ToServer, text);
    }

    fn server(&mut self, text: &str) {
        self.say(Direction::ToClient, text);
    }
}

#[test]
fn a_227_is_found_across_segments() {
    let mut line = Line::new();
    line.server("220 hello\r\n");
    line.client("USER joe\r\nPASS secret\r\nPA");
    line.server("331 more\r\n230 in\r\n");
    line.client("SV\r\n");
    line.server("227 Entering (10,0,0,1,195,");
    line.server("80)\r\n");
    assert_eq!(
        line.told,
        [
            "passive-requested PASV",
            "passive-announced PASV 10.0.0.1 port 50000"
        ]
    );
    let label = line.watcher.label(&line.key);
    assert_eq!(label.text, "clear");
    assert_eq!(
        label.latest.as_deref(),
        Some("passive-announced PASV 10.0.0.1 port 50000")
    );
    line.watcher.forget(&line.key);
    assert_eq!(line.watcher.label(&line.key).text, "unread");
    assert_eq!(line.watcher.reading, 0);
}

#[test]
fn c8_after_auth_nothing_is_read() {
    let mut line = Line::new();
    line.server("220 hello\r\n");
    line.client("AUTH TLS\r\n");
    line.server("234 go\r\n");
    assert_eq!(line.told, ["opaque auth-accepted"]);
    line.client("PASV\r\n");
    line.server("227 (10,0,0,1,195,80)\r\n");
    assert_eq!(line.told.len(), 1);
    assert_eq!(line.watcher.label(&line.key).text, "auth-accepted");
    assert_eq!(line.watcher.reading, 0);
    line.watcher.forget(&line.key);
    assert_eq!(line.watcher.reading, 0);
}

#[test]
fn s2_a_contradiction_ends_the_text() {
    let mut line = Line::new();
    line.server("220 hello\r\n");
    line.client("NOOP\r\n");
    line.to_server -= 6;
    line.client("PASV\r\n");
    // Which of them the host took shows in nothing that it says.
    assert!(line.told.is_empty());
    line.server("200 fine\r\n");
    assert_eq!(line.told, ["opaque untrusted"]);
}

#[test]
fn s2_what_the_host_did_not_accept_means_nothing() {
    let mut line = Line::new();
    line.server("220 hello\r\n");
    // A bad checksum, for example.
    line.client("PASV\r\n");
    line.to_server -= 6;
    line.server("227 (10,0,0,1,195,80)\r\n");
    assert_eq!(
        line.told,
        [
            "unsolicited-reply 227",
            "desynchronised unmatched-announcement"
        ]
    );
}

/// The kernel side's record of a segment that comes in fragments: that there is one, and nothing of
/// what it says. A copy that this host did not accept is not believed in its place, whichever of
/// them came first.
#[test]
fn s2_a_fragment_hides_what_the_host_accepted() {
    for fragment_first in [false, true] {
        let mut line = Line::new();
        line.server("220 hello\r\n");
        let fragment = ControlHeader {
            length: FRAGMENT_LENGTH,
            captured: 0,
            ..bytemuck::pod_read_unaligned(&line.record(Direction::ToServer, b""))
        };
        let see = |line: &mut Line| assert!(line.take(bytes_of(&fragment), None));
        if fragment_first {
            see(&mut line);
            line.client("PASV\r\n");
        } else {
            line.client("PASV\r\n");
            see(&mut line);
        }
        assert_eq!(line.watcher.client_sequence(&line.key), None);
        line.server("227 (10,0,0,1,195,80)\r\n");
        let why = if fragment_first {
            "desynchronised bytes-lost"
        } else {
            "opaque untrusted"
        };
        assert_eq!(line.told, [why]);
    }
}

#[test]
fn o10_what_is_not_accepted_yet_must_not_hide_a_request() {
    let mut line = Line::new();
    line.server("220 hello\r\n");
    line.client("PORT 10,0,0,2,195,80\r\n");
    assert_eq!(line.watcher.client_sequence(&line.key), None);
    line.server("200 fine\r\n");
    let read = |line: &Line| line.watcher.client_sequence(&line.key);
    assert_eq!(read(&line), Some(line.to_server));
    line.client("RETR data.bin\r\n");
    assert_eq!(read(&line), Some(line.to_server));
    line.client("PORT 10,0,0,2,195,81\r\n");
    assert_eq!(read(&line), None);
}

/// C5: REIN ends an EPSV ALL, and the ftpd may have followed it before its answer is read. One
/// that was refused ends nothing.
#[test]
fn c5_reading_stops_before_a_rein_until_it_is_answered() {
    let mut line = Line::new();
    line.server("220 hello\r\n");
    line.client("EPSV ALL\r\n");
    line.server("200 fine\r\n");
    let read = |line: &Line| line.watcher.client_sequence(&line.key);
    let before = line.to_server;
    assert_eq!(read(&line), Some(before));
    line.client("REIN\r\n");
    assert_eq!(read(&line), Some(before));
    // Accepted by this host, with an answer to come.
    line.server("120 wait\r\n");
    assert_eq!(read(&line), Some(before));
    line.server("502 what\r\n");
    assert!(line.watcher.is_epsv_all(&line.key));
    assert_eq!(read(&line), Some(line.to_server));
    let before = line.to_server;
    line.client("REIN\r\n");
    assert_eq!(read(&line), Some(before));
    line.server("220 anew\r\n");
    assert!(!line.watcher.is_epsv_all(&line.key));
}

#[test]
fn lost_records_desynchronise_everybody() {
    let mut line = Line::new();
    line.server("220 hello\r\n");
    let told = &mut line.told;
    line.watcher
        .lose(&mut |_, event| told.push(event.to_string()));
    assert_eq!(line.told, ["desynchronised bytes-lost"]);
    line.client("PASV\r\n");
    line.server("227 (10,0,0,1,195,80)\r\n");
    assert!(!line.told.iter().any(|event| event.contains("announced")));
}

#[test]
fn k10_a_connection_picked_up_in_the_middle_is_not_believed_at_once() {
    let mut line = Line::new();
    let record = line.record(Direction::ToServer, b"PASV\r\n");
    assert!(line.take(&record, Some(Beginning::Middle)));
    let record = line.record(Direction::ToClient, b"227 (10,0,0,1,195,80)\r\n");
    assert!(line.take(&record, None));
    assert!(!line.told.iter().any(|event| event.contains("announced")));
    assert_eq!(line.watcher.label(&line.key).text, "desynchronised");
}

#[test]
fn bytes_of_closed_sessions_are_not_kept() {
    let mut line = Line::new();
    let record = line.record(Direction::ToServer, b"PASV\r\n");
    assert!(line.take(&record, None));
    assert!(line.watcher.sessions.is_empty());
}

#[test]
fn s6_no_more_sessions_than_the_limit_are_read() {
    let mut line = Line::new();
    for port in 1..=5 {
        line.key = key(port);
        line.server("220 hello\r\n");
    }
    line.client("PASV\r\n");
    line.server("227 (10,0,0,1,195,80)\r\n");
    assert_eq!((line.watcher.reading, line.watcher.unread()), (2, 3));
    assert!(line.told.is_empty());
    assert_eq!(line.watcher.label(&key(5)).text, "unread");
    assert!(line.watcher.is_unreadable(&key(5)));
    // One that is refused holds nobody's place, and is picked up in the middle.
    line.watcher.forget(&key(4));
    assert_eq!(line.watcher.reading, 2);
    line.watcher.forget(&key(1));
    line.server("220 hello\r\n");
    assert_eq!((line.watcher.reading, line.watcher.unread()), (2, 3));
    assert_eq!(line.watcher.label(&key(5)).text, "desynchronised");
}

/// The close of a session was lost with other events: its place is free again.
#[test]
fn a_session_whose_close_was_missed_keeps_no_place() {
    let mut line = Line::new();
    for port in 1..=3 {
        line.key = key(port);
        line.server("220 hello\r\n");
    }
    assert_eq!(line.watcher.reading, 2);
    line.watcher.keep(&HashSet::from([key(2), key(3)]));
    assert_eq!(line.watcher.reading, 1);
    line.server("220 hello\r\n");
    assert_eq!(line.watcher.reading, 2);
}

#[test]
fn records_that_make_no_sense_are_refused() {
    let mut line = Line::new();
    let whole = line.record(Direction::ToServer, b"PASV\r\n");
    for end in 0..whole.len() {
        assert!(
            !line.take(&whole[..end], Some(Beginning::Handshake)),
            "{end}"
        );
    }
    let mut header: ControlHeader =
        bytemuck::pod_read_unaligned(&whole[..size_of::<ControlHeader>()]);
    header.direction = 2;
    assert!(!line.take(bytes_of(&header), Some(Beginning::Handshake)));
    header.direction = 0;
    header.captured = header.length + 1;
    let mut record = bytes_of(&header).to_vec();
    record.extend_from_slice(&[0; 100]);
    assert!(!line.take(&record, Some(Beginning::Handshake)));
    assert!(line.watcher.sessions.is_empty());
}

/// O5, O10: what was not read may name another port, also where what came after it was.
#[test]
fn o10_reading_goes_no_further_than_the_first_hole() {
    let mut line = Line::new();
    line.server("220 hello\r\n");
    line.client("PORT 10,0,0,2,19,136\r\n");
    line.server("200 yes\r\n");
    let read = line.watcher.client_sequence(&line.key);
    assert_eq!(read, Some(line.to_server));
    // Overtaken by the RETR that follows it.
    let late = line.record(Direction::ToServer, b"PORT 10,0,0,2,19,137\r\n");
    line.client("RETR a\r\n");
    assert_eq!(line.watcher.client_sequence(&line.key), None);
    // The hole is filled, with a command that asks: not until it is answered.
    assert!(line.take(&late, None));
    assert_eq!(line.watcher.client_sequence(&line.key), None);
    line.server("200 yes\r\n");
    assert!(line.watcher.client_sequence(&line.key).is_some());
}

/// O5, O10: the ftpd may be following the second PORT when it has answered the first.
#[test]
fn o10_a_pipelined_port_is_awaited() {
    let mut line = Line::new();
    line.server("220 hello\r\n");
    line.client("PORT 10,0,0,2,19,136\r\nPORT 10,0,0,2,19,137\r\nRETR a\r\n");
    line.server("200 yes\r\n");
    assert!(line.watcher.awaits_data_command(&line.key));
    line.server("200 yes\r\n");
    assert!(!line.watcher.awaits_data_command(&line.key));
}

/// C5: it is forgotten where a REIN may have been missed.
#[test]
fn c5_epsv_all_ends_with_rein_and_with_lost_bytes() {
    let mut line = Line::new();
    line.server("220 hello\r\n");
    let all = |line: &mut Line| {
        line.client("EPSV ALL\r\n");
        line.server("200 yes\r\n");
        assert!(line.watcher.is_epsv_all(&line.key));
    };
    all(&mut line);
    line.client("REIN\r\n");
    assert!(line.watcher.is_epsv_all(&line.key));
    line.server("220 anew\r\n");
    assert!(!line.watcher.is_epsv_all(&line.key));
    all(&mut line);
    line.watcher.lose(&mut |_, _| {});
    assert!(!line.watcher.is_epsv_all(&line.key));
}
