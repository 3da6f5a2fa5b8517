//! The same bytes cut anywhere give the same lines (rule S1), and no line ends within itself.
#![no_main]

use ftpguard_common::ftp::line::{Defect, LineReader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (usize, &[u8])| {
    let (cut, bytes) = input;
    let whole = lines(&[bytes]);
    let (before, after) = bytes.split_at(cut % (bytes.len() + 1));
    assert_eq!(lines(&[before, after]), whole);
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(lines(&single), whole);
    for (text, defect) in whole {
        assert!(!text.contains(&b'\n'));
        assert!(text.len() <= 64);
        assert!(!text.contains(&0) || defect.is_some());
    }
});

fn lines(pieces: &[&[u8]]) -> Vec<(Vec<u8>, Option<Defect>)> {
    let mut reader = LineReader::<64>::new();
    let mut lines = Vec::new();
    for mut piece in pieces.iter().copied() {
        while let Some(line) = reader.next(&mut piece, |line| (line.text.to_vec(), line.defect)) {
            lines.push(line);
        }
    }
    lines
}
