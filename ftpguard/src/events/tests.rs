use bytemuck::{Zeroable, bytes_of};
use ftpguard_common::{
    abi::{Mode, Origin},
    event::{Event, EventKind},
    net::{Address, Port},
    verdict::{Attack, Reason},
};

use super::*;

fn event(kind: EventKind) -> Event {
    Event {
        kind: kind as u32,
        session: 7,
        tgid: 4242,
        origin: Origin::Exact as u32,
        reason: Reason::NoPinhole as u32,
        mode: Mode::Enforce as u32,
        remote: Address::from(IpAddr::from([10, 0, 0, 2])),
        remote_port: Port::new(4711),
        local: Address::from(IpAddr::from([10, 0, 0, 1])),
        local_port: Port::new(21),
        ..Event::zeroed()
    }
}

#[test]
fn an_event_is_read_at_any_alignment_and_only_whole() {
    let event = event(EventKind::SessionOpened);
    let mut bytes = vec![0];
    bytes.extend_from_slice(bytes_of(&event));
    assert_eq!(read_event(&bytes[1..]), Some(event));
    for short in 1..bytes.len() {
        assert_eq!(read_event(&bytes[1..short]), None, "{short}");
    }
    bytes.push(0);
    assert_eq!(read_event(&bytes[1..]), None);
}

#[test]
fn unknown_numbers_are_not_guessed() {
    let mut unknown = event(EventKind::SessionOpened);
    for kind in [0, EventKind::ReaderFound as u32 + 1, u32::MAX] {
        unknown.kind = kind;
        assert_eq!(Happening::from_event(&unknown), None);
    }
    let mut denied = event(EventKind::SynDenied);
    denied.reason = u32::MAX;
    assert_eq!(Happening::from_event(&denied), None);
    let mut made = event(EventKind::PinholeMade);
    made.origin = 0;
    assert_eq!(Happening::from_event(&made), None);
}

#[test]
fn each_kind_has_its_line_and_its_object() {
    let v6 = |mut event: Event| {
        event.remote = Address::from(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 2]));
        event.local = Address::from(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]));
        event
    };
    let monitor = |mut event: Event| {
        event.mode = Mode::Monitor as u32;
        event
    };
    for (event, line, json) in [
        (
            event(EventKind::SessionOpened),
            "session opened 10.0.0.2:4711 -> 10.0.0.1:21",
            r#"{"time":5,"event":"session-opened","client":"10.0.0.2","client_port":4711,"server":"10.0.0.1","port":21}"#,
        ),
        (
            v6(event(EventKind::SessionClosed)),
            "session closed [2001:db8::2]:4711 -> [2001:db8::1]:21",
            r#"{"time":5,"event":"session-closed","client":"2001:db8::2","client_port":4711,"server":"2001:db8::1","port":21}"#,
        ),
        (
            event(EventKind::PinholeMade),
            "pinhole made 10.0.0.2 -> 10.0.0.1:21 (exact)",
            r#"{"time":5,"event":"pinhole-made","client":"10.0.0.2","server":"10.0.0.1","port":21,"origin":"exact"}"#,
        ),
        (
            event(EventKind::PinholeUsed),
            "pinhole used 10.0.0.2:4711 -> 10.0.0.1:21",
            r#"{"time":5,"event":"pinhole-used","client":"10.0.0.2","server":"10.0.0.1","port":21,"client_port":4711}"#,
        ),
        (
            event(EventKind::PinholeClosed),
            "pinhole closed 10.0.0.2 -> 10.0.0.1:21 (closed)",
            r#"{"time":5,"event":"pinhole-closed","client":"10.0.0.2","server":"10.0.0.1","port":21,"reason":"closed"}"#,
        ),
        (
            event(EventKind::SynDenied),
            "SYN denied 10.0.0.2:4711 -> 10.0.0.1:21: no-pinhole",
            r#"{"time":5,"event":"syn-denied","client":"10.0.0.2","server":"10.0.0.1","port":21,"client_port":4711,"reason":"no-pinhole","attack":"theft-attempt","mode":"enforce","open_for":[]}"#,
        ),
        (
            monitor(event(EventKind::ConnectRefused)),
            "connect would be refused -> 10.0.0.2:4711 (pid 4242): no-pinhole",
            r#"{"time":5,"event":"connect-refused","destination":"10.0.0.2","port":4711,"pid":4242,"reason":"no-pinhole","mode":"monitor"}"#,
        ),
        (
            event(EventKind::EgressDenied),
            "outgoing SYN denied 10.0.0.1:21 -> 10.0.0.2:4711: no-pinhole",
            r#"{"time":5,"event":"egress-denied","destination":"10.0.0.2","port":4711,"server":"10.0.0.1","server_port":21,"reason":"no-pinhole","mode":"enforce"}"#,
        ),
        (
            event(EventKind::Unattributed),
            "listener not attributed 10.0.0.1:21 (pid 4242): open to every client with a session",
            r#"{"time":5,"event":"unattributed","server":"10.0.0.1","port":21,"pid":4242}"#,
        ),
        (
            event(EventKind::ReaderFound),
            "process 4242 found serving 10.0.0.2:4711",
            r#"{"time":5,"event":"reader-found","client":"10.0.0.2","client_port":4711,"pid":4242}"#,
        ),
        (
            event(EventKind::ForeignListener),
            "foreign listener in the passive range 10.0.0.1:21 (pid 4242): left alone",
            r#"{"time":5,"event":"foreign-listener","server":"10.0.0.1","port":21,"pid":4242}"#,
        ),
        (
            event(EventKind::ListenerOpened),
            "listener opened 10.0.0.1:21 (pid 4242)",
            r#"{"time":5,"event":"listener-opened","server":"10.0.0.1","port":21,"pid":4242}"#,
        ),
    ] {
        let what = Happening::from_event(&event).expect(line);
        assert_eq!(what.to_string(), line);
        let record = Record { time: 5, what };
        assert_eq!(serde_json::to_string(&record).expect(line), json);
        assert_eq!(serde_json::from_str::<Record>(json).expect(line), record);
    }
}

#[test]
fn a_theft_names_the_victim() {
    let mut what = Happening::from_event(&event(EventKind::SynDenied)).expect("denied");
    if let Happening::SynDenied { open_for, .. } = &mut what {
        *open_for = vec![[10, 0, 0, 7].into(), [10, 0, 0, 8].into()];
    }
    assert_eq!(
        what.to_string(),
        "SYN denied 10.0.0.2:4711 -> 10.0.0.1:21: no-pinhole, \
         the port is open for 10.0.0.7, 10.0.0.8"
    );
    assert_eq!(
        what.attack(),
        Some((Attack::Theft, IpAddr::from([10, 0, 0, 2])))
    );
}
