//! Standard output, written by a thread of its own: a reader that stalls must not stall the
//! guard. What does not fit into the queue is dropped and counted. Where the service manager has
//! connected standard output to the journal, events are sent there with their fields.

use std::{
    io::{self, Write as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, channel, sync_channel},
    },
    thread,
    time::Duration,
};

use systemd_journal_logger::JournalLog;

use crate::{
    events::Record,
    logging::{journal, send_event, send_line},
    privileges::drop_all,
};

/// How many lines may wait for a reader of standard output.
const QUEUE: usize = 4_096;

/// How long the last lines may take to be read when the guard ends.
const LAST_LINES: Duration = Duration::from_secs(2);

/// The queue to standard output.
pub struct Output {
    lines: SyncSender<Line>,
    done: Receiver<()>,
    dropped: Arc<AtomicU64>,
    json: bool,
    to_journal: bool,
}

/// What is written.
enum Line {
    /// As it is.
    Text(String),
    /// With its fields, to the journal.
    Event(Box<Record>),
}

impl Output {
    /// Starts the writing thread. Events are written as JSON or for people; to the journal they
    /// go with their fields, whatever `json` says.
    pub fn start(json: bool) -> io::Result<Self> {
        let journal = journal(io::stdout());
        let to_journal = journal.is_some();
        let (lines, queue) = sync_channel(QUEUE);
        let (told, done) = channel();
        let dropped = Arc::new(AtomicU64::new(0));
        let unwritten = Arc::clone(&dropped);
        thread::Builder::new()
            .name("output".to_owned())
            .stack_size(64 * 1024)
            .spawn(move || {
                if let Err(error) = drop_all() {
                    log::warn!("the output thread: {error:#}");
                }
                write_lines(&queue, journal.as_ref(), &unwritten);
                let _ = told.send(());
            })?;
        Ok(Self {
            lines,
            done,
            dropped,
            json,
            to_journal,
        })
    }

    /// Queues one line that is no event.
    pub fn line(&mut self, line: String) {
        self.queue(Line::Text(line));
    }

    /// Queues one event.
    pub fn event(&mut self, record: &Record) {
        let line = if self.to_journal {
            Line::Event(Box::new(record.clone()))
        } else if self.json {
            match serde_json::to_string(record) {
                Ok(line) => Line::Text(line),
                Err(error) => {
                    log::error!("event cannot be written as JSON: {error}");
                    return;
                }
            }
        } else {
            Line::Text(record.what.to_string())
        };
        self.queue(line);
    }

    fn queue(&mut self, line: Line) {
        match self.lines.try_send(line) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// How many lines found the queue full, or could not be written.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until the queue is written, but not for ever.
    pub fn finish(self) {
        drop(self.lines);
        // Whoever does not read by then misses the rest; the guard ends all the same.
        let _ = self.done.recv_timeout(LAST_LINES);
    }
}

/// Until the guard ends. A reader that has gone away, or a full disk, is no reason to stop guarding.
fn write_lines(queue: &Receiver<Line>, journal: Option<&JournalLog>, unwritten: &AtomicU64) {
    let stdout = io::stdout();
    while let Ok(line) = queue.recv() {
        let written = match (line, journal) {
            (Line::Event(record), Some(journal)) => send_event(journal, &record),
            (Line::Text(line), Some(journal)) => send_line(journal, &line),
            (Line::Event(record), None) => writeln!(stdout.lock(), "{}", record.what),
            (Line::Text(line), None) => writeln!(stdout.lock(), "{line}"),
        };
        if written.is_err() {
            unwritten.fetch_add(1, Ordering::Relaxed);
        }
    }
    let _ = stdout.lock().flush();
}
