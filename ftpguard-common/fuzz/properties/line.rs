//! The same bytes cut anywhere give the same lines (rule S1), and no line ends within itself.

use arbitrary::{Arbitrary, Unstructured};
use ftpguard_common::ftp::line::{Defect, LineReader};

/// Panics unless the property holds for this input.
pub fn check(data: &[u8]) {
    let Ok(input) = <(usize, &[u8])>::arbitrary_take_rest(Unstructured::new(data)) else {
        return;
    };
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
}

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
