//! The commands that ask a running guard.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use crate::{
    cli::{AskArgs, EnduringAskArgs, EventsArgs, ModeArgs, WhyArgs},
    clock,
    control_socket::{Reply, Request, ask, end, follow},
    events::Record,
    kernel::{self, Detached, Orphan},
    status::{Orphaned, render_pinholes, render_sessions},
    why::Subject,
};

/// `ftpguard status`. Where no daemon answers, what the kernel says by itself.
pub fn status(args: &EnduringAskArgs) -> Result<()> {
    let reply = match ask(&args.ask.runtime_dir, &Request::Status {}) {
        Ok(reply) => reply,
        Err(error) => {
            let pins = args.pin_folder();
            let Ok(Some(orphan)) = Orphan::read(&pins) else {
                return Err(error);
            };
            let orphan = Orphaned::of(&orphan, &pins);
            show(&args.ask, &orphan, || orphan.render())?;
            bail!(
                "no daemon runs; start it with `ftpguard run`, or end it all with `ftpguard detach`"
            );
        }
    };
    let Reply::Status(status) = reply else {
        bail!(OTHER);
    };
    show(&args.ask, &status, || status.render())
}

/// `ftpguard detach`. When it returns, nothing is left in the kernel.
pub fn detach(args: &EnduringAskArgs) -> Result<()> {
    let ended = end(&args.ask.runtime_dir, PATIENCE)?;
    let pins = args.pin_folder();
    let Detached { hooks } = kernel::detach(&pins)?;
    let told = Removed {
        daemon_ended: ended,
        hooks,
    };
    show(&args.ask, &told, || told.render())
}

/// How long a daemon may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// What `detach` did.
#[derive(Serialize)]
struct Removed {
    daemon_ended: bool,
    hooks: usize,
}

impl Removed {
    /// For people.
    fn render(&self) -> String {
        let daemon = if self.daemon_ended {
            "the daemon has ended"
        } else {
            "no daemon was running"
        };
        let hooks = self.hooks;
        format!("{daemon}; {hooks} further hooks removed; nothing is attached\n")
    }
}

/// `ftpguard reload`.
pub fn reload(args: &AskArgs) -> Result<()> {
    let Reply::Reloaded(reloaded) = ask(&args.runtime_dir, &Request::Reload {})? else {
        bail!(OTHER);
    };
    show(args, &reloaded, || reloaded.render())
}

/// `ftpguard mode`.
pub fn mode(args: &ModeArgs) -> Result<()> {
    let request = Request::Mode { mode: args.mode };
    let Reply::Mode(switched) = ask(&args.ask.runtime_dir, &request)? else {
        bail!(OTHER);
    };
    show(&args.ask, &switched, || switched.render(clock::wall_ms()))
}

/// `ftpguard why`.
pub fn why(args: &WhyArgs) -> Result<()> {
    let subject = args.subject.unwrap_or(Subject::Last);
    let Reply::Why(why) = ask(&args.ask.runtime_dir, &Request::Why { subject })? else {
        bail!(OTHER);
    };
    show(&args.ask, &why, || why.render(clock::wall_ms()))
}

/// `ftpguard sessions`.
pub fn sessions(args: &AskArgs) -> Result<()> {
    let Reply::Sessions(rows) = ask(&args.runtime_dir, &Request::Sessions {})? else {
        bail!(OTHER);
    };
    show(args, &rows, || render_sessions(&rows))
}

/// `ftpguard pinholes`.
pub fn pinholes(args: &AskArgs) -> Result<()> {
    let Reply::Pinholes(rows) = ask(&args.runtime_dir, &Request::Pinholes {})? else {
        bail!(OTHER);
    };
    show(args, &rows, || render_pinholes(&rows))
}

/// `ftpguard events`.
pub fn events(args: &EventsArgs) -> Result<()> {
    let json = args.ask.json;
    if args.follow {
        // Ends when the reader of standard output goes away.
        return follow(&args.ask.runtime_dir, |record| {
            event_line(&record, json)
                .and_then(|line| write(&line))
                .is_ok()
        });
    }
    let Reply::Events(records) = ask(&args.ask.runtime_dir, &Request::Events { follow: false })?
    else {
        bail!(OTHER);
    };
    for record in &records {
        write(&event_line(record, json)?)?;
    }
    Ok(())
}

const OTHER: &str = "the guard answered something else; is it of the same version?";

fn event_line(record: &Record, json: bool) -> Result<String> {
    Ok(if json {
        format!("{}\n", serde_json::to_string(record)?)
    } else {
        format!("{}\n", record.what)
    })
}

fn show<T: Serialize>(args: &AskArgs, value: &T, people: impl FnOnce() -> String) -> Result<()> {
    if args.json {
        write(&format!("{}\n", serde_json::to_string(value)?))
    } else {
        write(&people())
    }
}

fn write(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .context("writing to standard output")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_detach_did_is_one_line() {
        for (daemon_ended, hooks, line) in [
            (
                true,
                0,
                "the daemon has ended; 0 further hooks removed; nothing is attached\n",
            ),
            (
                false,
                17,
                "no daemon was running; 17 further hooks removed; nothing is attached\n",
            ),
        ] {
            let removed = Removed {
                daemon_ended,
                hooks,
            };
            assert_eq!(removed.render(), line);
        }
    }
}
