//! Plays what fuzzing has kept (`fuzz/kept`, one input a line) against the properties of the fuzz
//! targets, so that it needs no nightly compiler and no fuzzer.
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

macro_rules! property {
    ($name:ident, $path:literal) => {
        #[path = $path]
        #[allow(
            clippy::pedantic,
            clippy::wildcard_enum_match_arm,
            unreachable_pub,
            reason = "shared with a crate that has its own lints"
        )]
        mod $name;
    };
}

property!(command, "../fuzz/properties/command.rs");
property!(dialogue, "../fuzz/properties/dialogue.rs");
property!(line, "../fuzz/properties/line.rs");
property!(reply, "../fuzz/properties/reply.rs");
property!(stream, "../fuzz/properties/stream.rs");

/// Every input that was kept for a target.
fn kept(text: &str) -> Vec<Vec<u8>> {
    text.lines()
        .map(|line| {
            line.as_bytes()
                .chunks(2)
                .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
                .collect()
        })
        .collect()
}

fn play(text: &str, check: fn(&[u8])) {
    let inputs = kept(text);
    assert!(inputs.len() > 50, "only {} inputs", inputs.len());
    for input in inputs {
        check(&input);
    }
}

#[test]
fn kept_commands() {
    play(include_str!("../fuzz/kept/command.hex"), command::check);
}

#[test]
fn kept_dialogues() {
    play(include_str!("../fuzz/kept/dialogue.hex"), dialogue::check);
}

#[test]
fn kept_lines() {
    play(include_str!("../fuzz/kept/line.hex"), line::check);
}

#[test]
fn kept_replies() {
    play(include_str!("../fuzz/kept/reply.hex"), reply::check);
}

#[test]
fn kept_streams() {
    play(include_str!("../fuzz/kept/stream.hex"), stream::check);
}
