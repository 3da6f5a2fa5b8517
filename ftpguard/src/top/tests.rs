use ratatui::{Terminal, backend::TestBackend};

use super::{model::HISTORY, view, *};
use crate::{
    events::{Ends, Happening, Way},
    metrics::exposition::tests::sample,
    status::{Count, PinholeRow, SessionRow},
};

/// The screen's rows, without blanks at their ends.
fn screen(model: &Model, width: u16, height: u16) -> String {
    let backend = TestBackend::new(width, height);
    let mut terminal = Terminal::new(backend).expect("terminal");
    terminal
        .draw(|frame| view::draw(frame, model, 1_000_000))
        .expect("drawn");
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for row in 0..height {
        let line: String = (0..width)
            .map(|column| buffer[(column, row)].symbol())
            .collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Fails unless this is the screen kept under that name. After a change that is meant,
/// `FTPGUARD_KEEP_SCREENS=1` keeps the new ones; look at them before they are committed.
fn compare(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/top/screens")
        .join(name);
    if std::env::var_os("FTPGUARD_KEEP_SCREENS").is_some() {
        std::fs::write(&path, text).expect("written");
    }
    let kept = std::fs::read_to_string(&path).expect("a screen");
    assert_eq!(text, kept, "{name}");
}

fn session(client: &str, port: u16, age: u64, pinhole: Option<u16>, text: &str) -> SessionRow {
    SessionRow {
        ends: Ends {
            client: client.parse().expect("an address"),
            client_port: port,
            server: [10, 0, 0, 1].into(),
            port: 21,
        },
        age,
        pinhole,
        active_port: None,
        text: text.to_owned(),
        latest: None,
    }
}

fn pinhole(client: &str, port: u16, age: u64, origin: &str) -> PinholeRow {
    PinholeRow {
        way: Way {
            client: client.parse().expect("an address"),
            server: [10, 0, 0, 1].into(),
            port,
        },
        origin: origin.to_owned(),
        age,
        uses: 1,
        client_port: 40_000,
        control_port: 21,
    }
}

fn denied(name: &str, count: u64) -> Count {
    Count {
        name: name.to_owned(),
        verdict: "deny".to_owned(),
        count,
        text: String::new(),
    }
}

fn answers(denials: u64) -> Answers {
    let mut status = sample();
    status.interfaces[0].interface = "eth0".to_owned();
    status.verdicts = vec![
        denied("no-pinhole", denials),
        denied("closed-port", denials * 10),
        denied("connect-to-stranger", 3),
    ];
    Answers {
        status,
        sessions: vec![
            session("10.0.0.2", 54_321, 75, Some(50_007), "clear"),
            session("192.168.100.200", 54_321, 3_725, None, "encrypted"),
            session(
                "2001:db8:1234:5678:9abc:def0:1234:5678",
                54_321,
                90_000,
                None,
                "clear",
            ),
        ],
        pinholes: vec![
            pinhole("10.0.0.2", 50_007, 1, "exact"),
            pinhole(
                "2001:db8:1234:5678:9abc:def0:1234:5678",
                50_008,
                7_000,
                "candidate",
            ),
        ],
    }
}

fn theft(client: [u8; 4], time: u64, open_for: bool) -> Record {
    Record {
        time,
        what: Happening::SynDenied {
            way: Way {
                client: client.into(),
                server: [10, 0, 0, 1].into(),
                port: 50_007,
            },
            client_port: 4_711,
            reason: "no-pinhole".into(),
            attack: "theft-attempt".into(),
            mode: "enforce".into(),
            open_for: if open_for {
                vec![[10, 0, 0, 2].into()]
            } else {
                Vec::new()
            },
        },
    }
}

/// A guard under attack for two minutes.
fn model() -> Model {
    let mut model = Model::default();
    let start = Instant::now();
    let mut count = 0;
    for second in 0..130 {
        count += second % 20;
        model.take_answers(start + Duration::from_secs(second), answers(count));
    }
    for (number, address) in (0..).zip([9, 8, 9, 7, 9, 6, 5]) {
        model.take_event(&theft(
            [203, 0, 113, address],
            990_000 + number * 1_000,
            number == 4,
        ));
    }
    model.take_event(&Record {
        time: 900_000,
        what: Happening::ForeignPortRequest {
            ends: model.answers.as_ref().expect("answers").sessions[2].ends,
            requested: [198, 51, 100, 7].into(),
            requested_port: 25,
        },
    });
    model
}

#[test]
fn a_window_of_80_by_24() {
    compare("80x24.txt", &screen(&model(), 80, 24));
}

#[test]
fn a_larger_window_shows_more() {
    compare("132x40.txt", &screen(&model(), 132, 40));
}

#[test]
fn monitor_mode_says_would() {
    let mut model = model();
    let status = &mut model.answers.as_mut().expect("answers").status;
    status.mode = "monitor".to_owned();
    let text = screen(&model, 80, 24);
    assert!(text.contains("  enforce in part  "), "{text}");
    assert!(text.contains(" Refused or would be/s, most 209 "), "{text}");
    // Nor is the one server enforced that had a mode of its own.
    let status = &mut model.answers.as_mut().expect("answers").status;
    status.ftpd_modes.clear();
    let text = screen(&model, 80, 24);
    assert!(text.contains("  monitor  "), "{text}");
    assert!(text.contains(" Would be refused/s, most 209 "), "{text}");
    assert!(text.contains("would be refused"), "{text}");
}

/// I8: a mode that takes no effect does not look like one that does.
#[test]
fn i8_what_is_not_enforced_does_not_look_enforced() {
    let mut model = model();
    let status = &mut model.answers.as_mut().expect("answers").status;
    status.not_enforced = Some("all clients come from 10.0.0.1".to_owned());
    let text = screen(&model, 80, 24);
    assert!(text.contains("  NOT ENFORCED  "), "{text}");
    assert!(text.contains("would be refused"), "{text}");
    assert!(!text.contains("  enforce  "), "{text}");
}

#[test]
fn no_window_is_too_small_or_too_large() {
    let model = model();
    for (width, height) in [
        (1, 1),
        (20, 5),
        (59, 24),
        (60, 15),
        (60, 16),
        (300, 100),
        (500, 2),
    ] {
        let text = screen(&model, width, height);
        assert_eq!(text.lines().count(), usize::from(height));
    }
    assert!(screen(&model, 59, 24).contains("60 x 16"));
    assert!(screen(&Model::default(), 80, 24).contains("waiting"));
}

#[test]
fn a_guard_that_does_not_answer_is_said_so_until_it_does() {
    let mut model = model();
    model.trouble = Some("no ftpguard answers at /run/ftpguard".to_owned());
    assert!(screen(&model, 80, 24).contains("no ftpguard answers"));
    model.take_answers(Instant::now(), answers(0));
    assert!(!screen(&model, 80, 24).contains("no ftpguard answers"));
}

#[test]
fn rates_are_of_one_guard_and_one_time() {
    let mut model = Model::default();
    let start = Instant::now();
    let second = Duration::from_secs(1);
    // What was counted before the view began is no rate.
    model.take_answers(start, answers(1_000));
    assert!(model.history.is_empty());
    model.take_answers(start + 2 * second, answers(1_004));
    // 4 and 40 in two seconds.
    assert_eq!(model.history, [22]);
    assert!((model.refusals().1 - 22.0).abs() < 0.01);
    // A guard that was started again counts from 0.
    let mut other = answers(5);
    other.status.pid += 1;
    model.take_answers(start + 3 * second, other);
    assert_eq!(model.history, [22]);
    for number in 0..300 {
        let mut next = answers(5);
        next.status.pid += 1;
        model.take_answers(start + (4 + number) * second, next);
    }
    assert_eq!(model.history.len(), HISTORY);
}

#[test]
fn a_pause_stands_still() {
    let mut model = model();
    model.paused = true;
    let before = screen(&model, 80, 24);
    assert!(before.contains("paused"), "{before}");
    model.take_answers(Instant::now(), answers(0));
    model.take_event(&theft([1, 2, 3, 4], 1, false));
    assert_eq!(screen(&model, 80, 24), before);
}

#[test]
fn attackers_are_bounded() {
    let mut model = Model::default();
    for number in 0..5_000_u64 {
        let [.., high, low] = number.to_be_bytes();
        model.take_event(&theft([198, 51, high, low], number, false));
    }
    let attackers = model.attackers();
    assert_eq!(attackers.len(), 1_024);
    assert_eq!(attackers[0].last_at, 4_999);
    assert_eq!(
        attackers.last().map(|oldest| oldest.last_at),
        Some(5_000 - 1_024)
    );
}
