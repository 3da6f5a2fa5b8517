//! What is shown while machines run: a spinner for each on a terminal, else a line for each test.

use std::{
    io::{IsTerminal as _, stdout},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// All machines.
pub(super) struct Progress {
    /// `None` where standard output is no terminal.
    spinners: Option<MultiProgress>,
}

/// One machine.
pub(super) struct Line {
    name: String,
    spinner: Option<ProgressBar>,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            spinners: stdout().is_terminal().then(MultiProgress::new),
        }
    }

    /// A line for the machine of this name.
    pub(super) fn line(&self, name: &str) -> Line {
        let spinner = self.spinners.as_ref().map(|spinners| {
            let style = ProgressStyle::with_template(
                "{spinner} {prefix:<6} {elapsed:>4}  {pos:>3} passed  {msg}",
            )
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
            let spinner = spinners.add(ProgressBar::new_spinner().with_style(style));
            spinner.set_prefix(name.to_owned());
            spinner.set_message("boots");
            spinner.enable_steady_tick(Duration::from_millis(200));
            spinner
        });
        Line {
            name: name.to_owned(),
            spinner,
        }
    }
}

impl Line {
    /// Says something that stays to be read.
    pub(super) fn say(&self, text: &str) {
        let line = format!("{:<6} {text}", self.name);
        match &self.spinner {
            Some(spinner) => spinner.suspend(|| println!("{line}")),
            None => println!("{line}"),
        }
    }

    /// One more test has passed.
    pub(super) fn passed(&self, test: &str, seconds: f64) {
        match &self.spinner {
            Some(spinner) => {
                spinner.inc(1);
                spinner.set_message(test.to_owned());
            }
            None => self.say(&format!("ok      {test} ({seconds:.1} s)")),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_with_message("done");
        }
    }
}
