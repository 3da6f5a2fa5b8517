//! Log lines on their way to a thread that writes them: whoever reads them slowly, or not at all,
//! must not stall the guard. What does not fit is dropped and counted.

use std::{
    collections::VecDeque,
    fmt,
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use log::{Level, Log, Metadata, Record};

/// How many lines may wait.
const ROOM: usize = 1_024;

/// One line.
pub(super) enum Line {
    /// As it is.
    Text(Vec<u8>),
    /// With its fields, to the journal.
    Record(Box<Owned>),
    /// So many were dropped here.
    Dropped(u64),
}

/// A record of the log crate that outlives its call.
pub(super) struct Owned {
    level: Level,
    target: String,
    module: Option<&'static str>,
    file: Option<&'static str>,
    line: Option<u32>,
    message: String,
}

/// The lines that wait. Its clones are the same queue.
#[derive(Clone, Default)]
pub(super) struct Queue(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Line>,
    dropped: u64,
    is_writing: bool,
}

impl State {
    fn is_written(&self) -> bool {
        self.lines.is_empty() && self.dropped == 0 && !self.is_writing
    }
}

impl Queue {
    /// Adds a line, if there is room.
    pub(super) fn add(&self, line: Line) {
        let mut state = self.lock();
        if state.lines.len() < ROOM {
            state.lines.push_back(line);
        } else {
            state.dropped += 1;
        }
        drop(state);
        self.0.changed.notify_all();
    }

    /// Waits for the next line. The one before counts as written.
    pub(super) fn next(&self) -> Line {
        let mut state = self.lock();
        state.is_writing = false;
        self.0.changed.notify_all();
        loop {
            // Those that were dropped came after those that wait.
            let next = state.lines.pop_front().or_else(|| {
                let dropped = std::mem::take(&mut state.dropped);
                (dropped > 0).then_some(Line::Dropped(dropped))
            });
            if let Some(line) = next {
                state.is_writing = true;
                return line;
            }
            state = self
                .0
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until everything is written, but no longer than this. Whether it is.
    pub(super) fn wait_until_written(&self, limit: Duration) -> bool {
        let (state, _) = self
            .0
            .changed
            .wait_timeout_while(self.lock(), limit, |state| !state.is_written())
            .unwrap_or_else(PoisonError::into_inner);
        state.is_written()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A logger that formats lines itself writes each with one call.
impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.add(Line::Text(line.to_owned()));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log for Queue {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        self.add(Line::Record(Box::new(Owned::new(record))));
    }

    fn flush(&self) {}
}

impl Owned {
    fn new(record: &Record<'_>) -> Self {
        Self {
            level: record.level(),
            target: record.target().to_owned(),
            module: record.module_path_static(),
            file: record.file_static(),
            line: record.line(),
            message: record.args().to_string(),
        }
    }

    /// Hands it on as it was logged.
    pub(super) fn give<T>(&self, take: impl FnOnce(&Record<'_>) -> T) -> T {
        take(
            &Record::builder()
                .level(self.level)
                .target(&self.target)
                .module_path_static(self.module)
                .file_static(self.file)
                .line(self.line)
                .args(format_args!("{}", self.message))
                .build(),
        )
    }
}

/// Lines that could not be written, until that can be told: the disk is full, say.
#[derive(Default)]
pub(super) struct Unwritten(u64);

impl Unwritten {
    /// Writes a line, and before it how many could not be written.
    pub(super) fn write(&mut self, line: &Line, write: impl Fn(&Line) -> io::Result<()>) {
        if self.0 > 0 && write(&Line::Dropped(self.0)).is_ok() {
            self.0 = 0;
        }
        if write(line).is_err() {
            self.0 += match line {
                Line::Text(_) | Line::Record(_) => 1,
                Line::Dropped(count) => *count,
            };
        }
    }
}

/// What is said of lines that were dropped.
pub(super) struct Told(pub(super) u64);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count) = self;
        write!(
            f,
            "{count} lines of the log were dropped: nobody read them, or they could not be written"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    fn text(line: &Line) -> String {
        match line {
            Line::Text(text) => String::from_utf8_lossy(text).into_owned(),
            Line::Record(owned) => owned.message.clone(),
            Line::Dropped(count) => Told(*count).to_string(),
        }
    }

    /// Nobody reads: the first lines wait, the others are counted, and it is told when the first
    /// are written.
    #[test]
    fn what_does_not_fit_is_dropped_and_told() {
        let mut queue = Queue::default();
        for number in 0..ROOM + 3 {
            let line = format!("{number}\n");
            queue.write_all(line.as_bytes()).expect("it takes all");
        }
        assert!(!queue.wait_until_written(Duration::from_millis(1)));
        for number in 0..ROOM {
            assert_eq!(text(&queue.next()), format!("{number}\n"));
        }
        let told = text(&queue.next());
        assert_eq!(told, Told(3).to_string());
        queue.add(Line::Text(b"later".to_vec()));
        assert_eq!(text(&queue.next()), "later");
    }

    /// The disk is full for three lines, and it is told before the next one.
    #[test]
    fn what_cannot_be_written_is_counted_and_told() {
        let (room, written) = (Cell::new(1), RefCell::new(Vec::new()));
        let write = |line: &Line| {
            if room.get() == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            room.set(room.get() - 1);
            written.borrow_mut().push(text(line));
            Ok(())
        };
        let mut unwritten = Unwritten::default();
        for name in ["a", "b", "c"] {
            unwritten.write(&Line::Text(name.into()), write);
        }
        unwritten.write(&Line::Dropped(5), write);
        room.set(9);
        for name in ["d", "e"] {
            unwritten.write(&Line::Text(name.into()), write);
        }
        let lost = Told(7).to_string();
        assert_eq!(*written.borrow(), ["a", lost.as_str(), "d", "e"]);
    }

    /// A line that is being written is not written.
    #[test]
    fn it_waits_for_the_last_line() {
        let queue = Queue::default();
        assert!(queue.wait_until_written(Duration::ZERO));
        queue.add(Line::Text(Vec::new()));
        queue.next();
        assert!(!queue.wait_until_written(Duration::from_millis(1)));
        let reader = queue.clone();
        // Ends with the test.
        std::thread::spawn(move || reader.next());
        assert!(queue.wait_until_written(Duration::from_secs(10)));
    }

    #[test]
    fn a_record_keeps_its_fields() {
        let queue = Queue::default();
        let record = Record::builder()
            .level(Level::Warn)
            .target("there")
            .module_path_static(Some("module"))
            .file_static(Some("file.rs"))
            .line(Some(7))
            .args(format_args!("what"))
            .build();
        queue.log(&record);
        let Line::Record(owned) = queue.next() else {
            panic!("not a record");
        };
        owned.give(|record| {
            assert_eq!(record.level(), Level::Warn);
            assert_eq!(record.target(), "there");
            assert_eq!(record.module_path(), Some("module"));
            assert_eq!(record.file(), Some("file.rs"));
            assert_eq!(record.line(), Some(7));
            assert_eq!(record.args().to_string(), "what");
        });
    }
}
