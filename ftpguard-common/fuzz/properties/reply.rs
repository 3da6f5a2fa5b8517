//! A port that was read is one, and whatever was read of a line is read of it with a full stop.

use ftpguard_common::{
    ftp::{
        line::Line,
        reply::{Blocks, ReplyLine},
    },
    net::Port,
};

/// Panics unless the property holds for this input.
pub fn check(text: &[u8]) {
    let mut blocks = Blocks::OUTSIDE;
    for line in text.split(|&byte| byte == b'\n') {
        let parsed = ReplyLine::parse(Line::of(line));
        blocks.line(parsed);
        let ReplyLine::Ends(reply) = parsed else {
            continue;
        };
        match reply.announcement {
            Some(Ok(announcement)) => {
                assert_ne!(announcement.port, Port::NONE);
                let mut stopped = line.to_vec();
                stopped.push(b'.');
                assert_eq!(ReplyLine::parse(Line::of(&stopped)), parsed);
            }
            Some(Err(error)) => assert!(usize::from(error.at) <= line.len()),
            None => {}
        }
    }
}
