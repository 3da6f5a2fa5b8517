//! Plays the transcripts of `tests/transcripts` (their README tells the format), in every way in
//! which the same bytes may come.
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use ftpguard_common::{
    event::Direction,
    ftp::{Dialogue, DialogueEvent, Received, Segment, Sent, StreamEvent},
};

/// One line of a transcript and the events that belong to it.
struct Step {
    /// In the file, counted from 1.
    line: usize,
    act: Act,
    events: Vec<String>,
}

enum Act {
    Open,
    Adopt,
    Send(Direction, Vec<u8>),
    Lose(Direction),
    Distrust,
    /// Nanoseconds.
    Wait(u64),
}

#[test]
fn every_transcript_as_written() {
    for_each(|steps| play(steps, whole));
}

#[test]
fn s1_every_transcript_one_byte_at_a_time() {
    for_each(|steps| {
        play(steps, |player, direction, bytes| {
            for byte in bytes {
                player.feed(direction, &[*byte]);
            }
        });
    });
}

#[test]
fn s1_every_transcript_cut_at_every_byte() {
    for_each(|steps| {
        let longest = steps.iter().map(|step| match &step.act {
            Act::Send(_, bytes) => bytes.len(),
            Act::Open | Act::Adopt | Act::Lose(_) | Act::Distrust | Act::Wait(_) => 0,
        });
        // Long lines are as alike as their bytes.
        for cut in 1..longest.max().unwrap_or(0).min(300) {
            play(steps, |player, direction, bytes| {
                let (before, after) = bytes.split_at(cut.min(bytes.len()));
                player.feed(direction, before);
                player.feed(direction, after);
            });
        }
    });
}

#[test]
fn s5_every_transcript_with_telnet_sequences_between_its_bytes() {
    for_each(|steps| {
        // Within a sequence, and among TLS records, they would be something else.
        let binary = |byte: &u8| matches!(byte, 0xff | 0x17);
        let is_binary =
            |step: &Step| matches!(&step.act, Act::Send(_, bytes) if bytes.iter().any(binary));
        if steps.iter().any(is_binary) {
            println!("not played: it holds sequences of its own");
            return;
        }
        play(steps, |player, direction, bytes| {
            for byte in bytes {
                player.feed(direction, b"\xff\xf1\xff\xfb\x01");
                player.feed(direction, &[*byte]);
            }
        });
    });
}

#[test]
fn s2_every_transcript_in_segments_that_come_twice_and_late() {
    for_each(|steps| {
        let mut received = Received::new();
        let mut sent = Sent::new();
        // Close to where sequence numbers wrap.
        let mut next = [u32::MAX - 100, u32::MAX - 50];
        play(steps, |player, direction, bytes| {
            let start = match direction {
                Direction::ToServer => &mut next[0],
                Direction::ToClient => &mut next[1],
            };
            for bytes in bytes.chunks(2000) {
                let mut told = Vec::new();
                let mut events = |event: StreamEvent<'_>| match event {
                    StreamEvent::Bytes(bytes) => told.extend_from_slice(bytes),
                    StreamEvent::PickedUp => {}
                    StreamEvent::Gap(_) | StreamEvent::Contradiction | StreamEvent::End => {
                        panic!("{event:?}")
                    }
                };
                let mut segments: Vec<Segment<'_>> = Vec::new();
                let mut sequence = *start;
                for bytes in bytes.chunks(7) {
                    segments.push(Segment {
                        sequence,
                        bytes,
                        missing: 0,
                        syn: false,
                        fin: false,
                    });
                    sequence = sequence.wrapping_add(u32::try_from(bytes.len()).unwrap());
                }
                // A host says where it stands before a client speaks.
                if direction == Direction::ToServer {
                    received.accept(*start, &mut events);
                    for segment in segments.iter().take(1).chain(segments.iter().rev()) {
                        received.segment(*segment, &mut events);
                    }
                    received.accept(sequence, &mut events);
                }
                for segment in &segments {
                    match direction {
                        Direction::ToServer => {}
                        Direction::ToClient => {
                            sent.segment(*segment, &mut events);
                            sent.segment(*segment, &mut events);
                        }
                    }
                }
                *start = sequence;
                player.feed(direction, &told);
            }
        });
    });
}

struct Player {
    dialogue: Dialogue,
    now: u64,
    told: Vec<String>,
}

impl Player {
    fn feed(&mut self, direction: Direction, bytes: &[u8]) {
        let Self {
            dialogue,
            now,
            told,
        } = self;
        dialogue.feed(direction, bytes, *now, &mut |event| {
            told.push(event.to_string());
        });
    }
}

fn whole(player: &mut Player, direction: Direction, bytes: &[u8]) {
    player.feed(direction, bytes);
}

fn play(steps: &[Step], mut send: impl FnMut(&mut Player, Direction, &[u8])) {
    let mut player = Player {
        dialogue: Dialogue::new(),
        now: 0,
        told: Vec::new(),
    };
    for step in steps {
        let told = &mut player.told;
        let tell = &mut |event: DialogueEvent| told.push(event.to_string());
        match &step.act {
            Act::Open => player.dialogue = Dialogue::new(),
            Act::Adopt => player.dialogue = Dialogue::adopted(),
            Act::Send(direction, bytes) => send(&mut player, *direction, bytes),
            Act::Lose(direction) => player.dialogue.gap(*direction, tell),
            Act::Distrust => player.dialogue.distrust(tell),
            Act::Wait(time) => {
                player.now += time;
                player.dialogue.elapse(player.now, tell);
            }
        }
        let told = std::mem::take(&mut player.told);
        assert_eq!(told, step.events, "line {}", step.line);
    }
}

/// Reads every transcript, and says which one a failure is about.
fn for_each(test: impl Fn(&[Step])) {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/transcripts"));
    let mut files = Vec::new();
    find(folder, &mut files);
    files.sort();
    assert!(files.len() >= 35, "only {} transcripts found", files.len());
    for file in files {
        let name = file.strip_prefix(folder).unwrap().display().to_string();
        let steps: Vec<Step> = parse(&name, &fs::read_to_string(&file).unwrap());
        assert!(
            steps.iter().any(|step| !step.events.is_empty()),
            "{name} expects nothing"
        );
        // Shown with the panic of a failing test.
        println!("{name}");
        test(&steps);
    }
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "txt") {
            files.push(path);
        }
    }
}

fn parse(name: &str, text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (index, text) in text.lines().enumerate() {
        let line = index + 1;
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        if let Some(event) = text.strip_prefix("= ") {
            let step = steps.last_mut().expect("an event belongs to a line");
            step.events.push(event.to_owned());
            continue;
        }
        let act = parse_act(text).unwrap_or_else(|| panic!("{name}, line {line}: {text}"));
        steps.push(Step {
            line,
            act,
            events: Vec::new(),
        });
    }
    steps
}

fn parse_act(text: &str) -> Option<Act> {
    match text {
        "! opened" => return Some(Act::Open),
        "! adopted" => return Some(Act::Adopt),
        "! distrusted" => return Some(Act::Distrust),
        "! lost C" => return Some(Act::Lose(Direction::ToServer)),
        "! lost S" => return Some(Act::Lose(Direction::ToClient)),
        _ => {}
    }
    if let Some(seconds) = text.strip_prefix("+ ") {
        let milliseconds = seconds.parse::<f64>().ok()? * 1000.0;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a few seconds"
        )]
        return Some(Act::Wait(milliseconds.round() as u64 * 1_000_000));
    }
    let (who, bytes) = text.split_once(": ")?;
    let (who, times) = match who.split_once('*') {
        Some((who, times)) => (who, times.parse().ok()?),
        None => (who, 1),
    };
    let direction = match who {
        "C" => Direction::ToServer,
        "S" => Direction::ToClient,
        _ => return None,
    };
    Some(Act::Send(direction, unescape(bytes)?.repeat(times)))
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if !(b' '..=b'~').contains(&byte) {
            return None;
        }
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let (&escape, after) = rest.split_first()?;
        rest = after;
        bytes.push(match escape {
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            b'0' => 0,
            b'\\' => b'\\',
            b'x' => {
                let (digits, after) = rest.split_at_checked(2)?;
                rest = after;
                u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?
            }
            _ => return None,
        });
    }
    Some(bytes)
}
