//! Standard output, written by a thread of its own: a reader that stalls must not stall the
//! guard. What does not fit into the queue is dropped and counted.

use std::{
    io::{self, Write as _},
    sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel},
    thread,
    time::Duration,
};

/// How many lines may wait for a reader of standard output.
const QUEUE: usize = 4_096;

/// How long the last lines may take to be read when the guard ends.
const LAST_LINES: Duration = Duration::from_secs(2);

/// The queue to standard output.
pub struct Output {
    lines: SyncSender<String>,
    done: Receiver<()>,
    dropped: u64,
}

impl Output {
    /// Starts the writing thread.
    pub fn start() -> io::Result<Self> {
        let (lines, queue) = sync_channel(QUEUE);
        let (told, done) = channel();
        thread::Builder::new()
            .name("output".to_owned())
            .stack_size(64 * 1024)
            .spawn(move || write_lines(&queue, &told))?;
        Ok(Self {
            lines,
            done,
            dropped: 0,
        })
    }

    /// Queues one line.
    pub fn line(&mut self, line: String) {
        match self.lines.try_send(line) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.dropped += 1,
        }
    }

    /// How many lines found the queue full.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Waits until the queue is written, but not for ever.
    pub fn finish(self) {
        drop(self.lines);
        // Whoever does not read by then misses the rest; the guard ends all the same.
        let _ = self.done.recv_timeout(LAST_LINES);
    }
}

fn write_lines(queue: &Receiver<String>, told: &Sender<()>) {
    let stdout = io::stdout();
    while let Ok(mut line) = queue.recv() {
        line.push('\n');
        // A reader that has gone away is no reason to stop guarding.
        let _ = stdout.lock().write_all(line.as_bytes());
    }
    let _ = stdout.lock().flush();
    let _ = told.send(());
}
