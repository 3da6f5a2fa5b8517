//! How far the benchmark is: a bar on a terminal, else a line for each step.

use std::{
    io::{IsTerminal as _, stderr},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

/// One bar for the part that is being measured.
pub(super) struct Progress {
    /// `None` where standard error is no terminal.
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(super) fn new() -> Self {
        let bar = stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(
                "{spinner} {prefix:<12} [{bar:30}] {pos:>4}/{len:<4} {elapsed:>4}  {wide_msg}",
            );
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(1).with_style(style);
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { bar }
    }

    /// A part begins, of so many steps.
    pub(super) fn begin(&self, part: &str, steps: usize) {
        match &self.bar {
            Some(bar) => {
                bar.reset();
                bar.set_length(steps as u64);
                bar.set_prefix(part.to_owned());
            }
            None => eprintln!("bench: {part}, {steps} steps"),
        }
    }

    /// The next step begins.
    pub(super) fn step(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
            bar.set_message(what.to_owned());
        }
    }

    /// Says something that stays to be read.
    pub(super) fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| println!("{text}")),
            None => println!("{text}"),
        }
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
