//! Where log lines go: to the journal with fields where the service manager has connected this
//! process to it, else to standard error.
//!
//! The service manager names the connection in `JOURNAL_STREAM` (`systemd.exec(5)`). Lines that
//! merely go there arrive without fields; so they are sent to the journal's own socket.
//!
//! The running guard has a thread that writes them, see [`queue`].

mod queue;

use std::{
    env,
    io::{self, Write as _},
    os::fd::AsFd,
    sync::OnceLock,
    thread,
    time::Duration,
};

use env_filter::FilteredLog;
use log::{Level, LevelFilter, Record as LogRecord};
use nix::sys::stat::fstat;
use serde_json::Value;
use systemd_journal_logger::JournalLog;

use self::queue::{Line, Queue, Told, Unwritten};
use crate::{
    events::{Happening, Record},
    privileges::drop_all,
};

/// The name under which the journal files everything.
const IDENTIFIER: &str = "ftpguard";
/// Which lines are logged unless `RUST_LOG` says otherwise.
const DEFAULT: &str = "info";

/// How long the last lines may take to be read when the guard ends.
const LAST_LINES: Duration = Duration::from_secs(2);

/// The lines of a guard that runs.
static QUEUE: OnceLock<Queue> = OnceLock::new();

/// Starts logging; `RUST_LOG` chooses what.
pub fn start() {
    match journal(io::stderr()) {
        Some(journal) => start_with(journal),
        None => {
            // Fails where a test has set a logger already.
            let _ = text().try_init();
        }
    }
}

/// Starts logging for a guard that is to run: nothing that it does waits for whoever reads.
pub fn start_queued() -> io::Result<()> {
    let queue = QUEUE.get_or_init(Queue::default).clone();
    let journal = journal(io::stderr());
    if journal.is_some() {
        start_with(queue.clone());
    } else {
        let target = env_logger::Target::Pipe(Box::new(queue.clone()));
        let _ = text().target(target).try_init();
    }
    thread::Builder::new()
        .name("log".to_owned())
        .stack_size(64 * 1024)
        .spawn(move || {
            if let Err(error) = drop_all() {
                log::warn!("the thread that writes the log: {error:#}");
            }
            write_lines(&queue, journal.as_ref());
        })
        .map(drop)
}

/// Waits for the last lines to be read, but not for ever.
pub fn finish() {
    if let Some(queue) = QUEUE.get() {
        queue.wait_until_written(LAST_LINES);
    }
}

fn text() -> env_logger::Builder {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(DEFAULT))
}

fn start_with(log: impl log::Log + 'static) {
    let choice = env::var("RUST_LOG").unwrap_or_else(|_| DEFAULT.to_owned());
    let filter = env_filter::Builder::new().parse(&choice).build();
    let most = filter.filter();
    if log::set_boxed_logger(Box::new(FilteredLog::new(log, filter))).is_ok() {
        log::set_max_level(most);
    }
}

/// A reader that has gone away, or a full disk, is no reason to stop guarding.
fn write_lines(queue: &Queue, journal: Option<&JournalLog>) -> ! {
    let mut unwritten = Unwritten::default();
    loop {
        unwritten.write(&queue.next(), |line| match (line, journal) {
            (Line::Text(text), _) => io::stderr().lock().write_all(text),
            (Line::Record(record), Some(journal)) => {
                record.give(|record| journal.journal_send(record))
            }
            (Line::Record(record), None) => {
                record.give(|record| writeln!(io::stderr().lock(), "{}", record.args()))
            }
            (Line::Dropped(count), Some(journal)) => send_line(journal, &Told(*count).to_string()),
            (Line::Dropped(count), None) => {
                writeln!(io::stderr().lock(), "ftpguard: {}", Told(*count))
            }
        });
    }
}

/// Tells why the command failed: the last line of standard error, or an error in the journal.
pub fn fatal(line: &str) {
    let to_journal = journal(io::stderr()).is_some() && log::max_level() >= LevelFilter::Error;
    if to_journal {
        log::error!("{line}");
    } else if let Some(queue) = QUEUE.get() {
        queue.add(Line::Text(format!("ftpguard: {line}\n").into_bytes()));
    } else {
        complain(line);
    }
}

/// Writes one line to standard error, if that takes it.
pub fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "ftpguard: {line}");
}

/// The journal, where this output is connected to it and it answers.
#[must_use]
pub fn journal(output: impl AsFd) -> Option<JournalLog> {
    let stream = env::var("JOURNAL_STREAM").ok()?;
    if !leads_to(output, &stream) {
        return None;
    }
    let journal = JournalLog::empty().ok()?;
    Some(journal.with_syslog_identifier(IDENTIFIER.to_owned()))
}

/// Whether this output is the one that `JOURNAL_STREAM` names by device and inode.
fn leads_to(output: impl AsFd, stream: &str) -> bool {
    fstat(output).is_ok_and(|stat| format!("{}:{}", stat.st_dev, stat.st_ino) == stream)
}

/// Sends an event to the journal: its line for people as the message, and each field of its JSON
/// as `FTPGUARD_` and the field's name.
pub fn send_event(journal: &JournalLog, record: &Record) -> io::Result<()> {
    let fields = fields(record);
    journal.journal_send(
        &LogRecord::builder()
            .level(level(&record.what))
            .target("ftpguard::events")
            .args(format_args!("{}", record.what))
            .key_values(&fields.as_slice())
            .build(),
    )
}

/// Sends a line that is no event.
pub fn send_line(journal: &JournalLog, line: &str) -> io::Result<()> {
    journal.journal_send(
        &LogRecord::builder()
            .level(Level::Info)
            .target("ftpguard")
            .args(format_args!("{line}"))
            .build(),
    )
}

/// What was refused or lost is a warning; the course of a session is information. (The journal's
/// `info` is the log crate's `Debug`.)
fn level(what: &Happening) -> Level {
    let lost = matches!(
        what,
        Happening::DenialsNotTold { .. }
            | Happening::EventsNotTold { .. }
            | Happening::EventsLost { .. }
            | Happening::ControlBytesLost { .. }
            | Happening::OutOfRoom { .. }
            | Happening::GateLost { .. }
            | Happening::InterfaceUnguarded { .. }
            | Happening::EnforcementRefused { .. }
    );
    if what.attack().is_some() || lost {
        Level::Warn
    } else {
        Level::Debug
    }
}

fn fields(record: &Record) -> Vec<(String, String)> {
    let Ok(Value::Object(object)) = serde_json::to_value(record) else {
        return Vec::new();
    };
    object
        .into_iter()
        .map(|(name, value)| {
            let value = match value {
                Value::String(text) => text,
                Value::Array(items) => items
                    .iter()
                    .map(|item| {
                        item.as_str()
                            .map_or_else(|| item.to_string(), str::to_owned)
                    })
                    .collect::<Vec<_>>()
                    .join(" "),
                other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => {
                    other.to_string()
                }
            };
            (format!("FTPGUARD_{}", name.to_uppercase()), value)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::fs::MetadataExt as _};

    use super::*;
    use crate::events::Way;

    #[test]
    fn an_events_json_becomes_fields() {
        let record = Record {
            time: 5,
            what: Happening::SynDenied {
                way: Way {
                    client: [10, 0, 0, 3].into(),
                    server: [10, 0, 0, 1].into(),
                    port: 50_000,
                },
                client_port: 4711,
                reason: "no-pinhole".into(),
                attack: "theft-attempt".into(),
                mode: "enforce".into(),
                open_for: vec![[10, 0, 0, 2].into(), [10, 0, 0, 4].into()],
            },
        };
        let fields = fields(&record);
        for (name, value) in [
            ("FTPGUARD_EVENT", "syn-denied"),
            ("FTPGUARD_CLIENT", "10.0.0.3"),
            ("FTPGUARD_PORT", "50000"),
            ("FTPGUARD_REASON", "no-pinhole"),
            ("FTPGUARD_OPEN_FOR", "10.0.0.2 10.0.0.4"),
        ] {
            let pair = (name.to_owned(), value.to_owned());
            assert!(fields.contains(&pair), "{name}={value} in {fields:?}");
        }
        assert_eq!(level(&record.what), Level::Warn);
        assert_eq!(level(&Happening::EventsLost { count: 1 }), Level::Warn);
        assert_eq!(
            level(&Happening::ControlBytesLost { count: 1 }),
            Level::Warn
        );
        let out_of_room = Happening::OutOfRoom {
            what: "client-quota".into(),
            count: 1,
        };
        assert_eq!(level(&out_of_room), Level::Warn);
    }

    #[test]
    fn only_the_named_stream_is_the_journals() {
        let file = File::open("/dev/null").expect("a file");
        let data = file.metadata().expect("metadata");
        let stream = format!("{}:{}", data.dev(), data.ino());
        assert!(leads_to(&file, &stream));
        for other in ["", ":", "1:2", "x", &stream[1..]] {
            assert!(!leads_to(&file, other), "{other}");
        }
    }
}
