//! The same bytes cut anywhere give the same events (rule S1), and nothing is announced that
//! nobody asked for (rule P3).

use arbitrary::{Arbitrary, Unstructured};
use ftpguard_common::{
    event::Direction,
    ftp::{Dialogue, DialogueEvent},
};

#[derive(Arbitrary, Debug)]
enum Act<'a> {
    Client(&'a [u8]),
    Server(&'a [u8]),
    Lose(bool),
    Wait(u16),
}

/// Panics unless the property holds for this input.
pub fn check(data: &[u8]) {
    let Ok(input) = <(bool, Vec<Act<'_>>)>::arbitrary_take_rest(Unstructured::new(data)) else {
        return;
    };
    let (adopted, acts) = input;
    let events = play(adopted, &acts, usize::MAX);
    assert_eq!(play(adopted, &acts, 1), events);
    let count = |wanted: fn(&DialogueEvent) -> bool| events.iter().filter(|e| wanted(e)).count();
    let requested = count(|event| {
        matches!(
            event,
            DialogueEvent::PassiveRequested(_) | DialogueEvent::MalformedArgument { .. }
        )
    });
    assert!(count(|event| matches!(event, DialogueEvent::PassiveAnnounced { .. })) <= requested);
    let last = events
        .iter()
        .position(|event| matches!(event, DialogueEvent::Opaque(_)));
    assert!(last.is_none_or(|last| last + 1 == events.len()));
}

fn play(adopted: bool, acts: &[Act], size: usize) -> Vec<DialogueEvent> {
    let mut dialogue = if adopted {
        Dialogue::adopted()
    } else {
        Dialogue::new()
    };
    let mut events = Vec::new();
    let mut tell = |event| events.push(event);
    let mut now = 0;
    for act in acts {
        let (direction, bytes) = match act {
            Act::Client(bytes) => (Direction::ToServer, bytes),
            Act::Server(bytes) => (Direction::ToClient, bytes),
            Act::Lose(true) => {
                dialogue.gap(Direction::ToServer, &mut tell);
                continue;
            }
            Act::Lose(false) => {
                dialogue.gap(Direction::ToClient, &mut tell);
                continue;
            }
            Act::Wait(milliseconds) => {
                now += u64::from(*milliseconds) * 1_000_000;
                continue;
            }
        };
        for piece in bytes.chunks(size) {
            dialogue.feed(direction, piece, now, &mut tell);
        }
    }
    events
}
