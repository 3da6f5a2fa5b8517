//! `ftpguard top`: a live view of a running guard, by way of its control socket alone.
//!
//! One thread asks for the state once a second, one follows the events; the main thread draws
//! and reads keys. A guard that goes away is waited for.

mod model;
mod view;

use std::{
    io::{IsTerminal as _, stdout},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
};

use self::model::{Answers, Model};
use crate::{
    cli::TopArgs,
    clock,
    control_socket::{Reply, Request, ask, follow},
    events::Record,
};

/// How often the guard is asked.
const EVERY: Duration = Duration::from_secs(1);
/// How long a key may wait, and how often the screen is drawn.
const TICK: Duration = Duration::from_millis(200);

/// What the other threads found out.
enum Update {
    Answers(Box<Answers>),
    Event(Box<Record>),
    Trouble(String),
}

/// Shows the view until `q`, Escape or Ctrl-C.
pub fn top(args: &TopArgs) -> Result<()> {
    ensure!(
        stdout().is_terminal(),
        "top needs a terminal; `ftpguard status --json` and `ftpguard events --follow --json` are for pipes"
    );
    // No guard, no permission: said in one line, without a screen.
    let first = answers(&args.runtime_dir)?;
    let (sender, updates) = channel();
    spawn("asking", &args.runtime_dir, &sender, keep_asking)?;
    spawn("following", &args.runtime_dir, &sender, keep_following)?;
    let mut model = Model::default();
    model.take_answers(Instant::now(), first);
    // Puts the terminal back also when this panics.
    let mut terminal = ratatui::init();
    let shown = show(&mut terminal, &mut model, &updates);
    ratatui::restore();
    shown
}

fn show(
    terminal: &mut DefaultTerminal,
    model: &mut Model,
    updates: &Receiver<Update>,
) -> Result<()> {
    loop {
        for update in updates.try_iter() {
            match update {
                Update::Answers(answers) => model.take_answers(Instant::now(), *answers),
                Update::Event(record) => model.take_event(&record),
                Update::Trouble(trouble) => model.trouble = Some(trouble),
            }
        }
        terminal
            .draw(|frame| view::draw(frame, model, clock::wall_ms()))
            .context("drawing on the terminal")?;
        if event::poll(TICK).context("waiting for keys")? {
            // Anything but a key, such as a new size, is answered by drawing again.
            if let Event::Key(key) = event::read().context("reading a key")?
                && key.kind == KeyEventKind::Press
            {
                let control = key.modifiers.contains(KeyModifiers::CONTROL);
                let code = key.code;
                if matches!(code, KeyCode::Char('q') | KeyCode::Esc)
                    || (control && code == KeyCode::Char('c'))
                {
                    return Ok(());
                }
                if code == KeyCode::Char(' ') {
                    model.paused = !model.paused;
                }
            }
        }
    }
}

/// Starts a thread that works until the view ends.
fn spawn(
    name: &str,
    folder: &Path,
    updates: &Sender<Update>,
    work: impl FnOnce(PathBuf, Sender<Update>) + Send + 'static,
) -> Result<()> {
    let (folder, updates) = (folder.to_owned(), updates.clone());
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || work(folder, updates))
        .context("starting a thread")?;
    Ok(())
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "a thread owns what it works with"
)]
fn keep_asking(folder: PathBuf, updates: Sender<Update>) {
    loop {
        thread::sleep(EVERY);
        let update = match answers(&folder) {
            Ok(answers) => Update::Answers(Box::new(answers)),
            Err(error) => Update::Trouble(format!("{error:#}")),
        };
        if updates.send(update).is_err() {
            return;
        }
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "a thread owns what it works with"
)]
fn keep_following(folder: PathBuf, updates: Sender<Update>) {
    let mut latest = 0;
    loop {
        let mut watched = true;
        // After a break the guard tells its latest events once more.
        let known = latest;
        // What fails here, asking fails at as well, and says so.
        let _ = follow(&folder, |record| {
            if record.time <= known {
                return true;
            }
            latest = record.time.max(latest);
            watched = updates.send(Update::Event(Box::new(record))).is_ok();
            watched
        });
        if !watched {
            return;
        }
        thread::sleep(EVERY);
    }
}

fn answers(folder: &Path) -> Result<Answers> {
    let (Reply::Status(status), Reply::Sessions(sessions), Reply::Pinholes(pinholes)) = (
        ask(folder, &Request::Status {})?,
        ask(folder, &Request::Sessions {})?,
        ask(folder, &Request::Pinholes {})?,
    ) else {
        bail!("the guard answered something else; is it of the same version?");
    };
    Ok(Answers {
        status: *status,
        sessions,
        pinholes,
    })
}

#[cfg(test)]
mod tests;
