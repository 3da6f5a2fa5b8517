//! ftpguard's daemon as a library; the binary only calls [`run_command`] and exits.
//!
//! - [`cli`], [`config`], [`values`]: what the operator may say.
//! - [`preflight`]: can this host run the guard?
//! - [`guard`]: the running guard: starts everything, then one loop.
//! - [`kernel`]: the one place that touches aya.
//! - [`nft`]: live pinholes in a set of nftables.
//! - [`network`]: interfaces and addresses, and word of their changes.
//! - [`adopt`]: sessions and listeners that were open before the guard.
//! - [`watcher`]: control bytes in, what they mean out.
//! - [`events`], [`journal`], [`output`], [`logging`]: what happened, and where it is told.
//! - [`metrics`]: a running guard's counters, for Prometheus.
//! - [`state`]: what the daemon remembers.
//! - [`doctor`]: is this host fit, and which FTP servers run here?
//! - [`why`]: why something was refused, and what would have allowed it.
//! - [`control_socket`], [`status`], [`client`], [`mod@top`]: questions to a running guard.

pub mod adopt;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod control_socket;
pub mod doctor;
pub mod events;
pub mod fault;
pub mod guard;
pub mod journal;
pub mod kernel;
pub mod logging;
pub mod memory;
pub mod metrics;
pub mod network;
pub mod nft;
pub mod output;
pub mod preflight;
pub mod privileges;
pub mod state;
pub mod status;
pub mod top;
pub mod values;
pub mod watcher;
pub mod why;

#[cfg(test)]
mod packaging;

use std::{
    ffi::OsString,
    io::{self, Write as _},
};

use anyhow::{Context as _, Result};

use self::{
    cli::{Cli, Command, Exit, Refusal},
    config::Unusable,
};

/// Carries out a command line, program name first.
///
/// Errors are printed here, as one line on standard error.
pub fn run_command<I>(arguments: I) -> Exit
where
    I: IntoIterator,
    I::Item: Into<OsString> + Clone,
{
    let cli = match cli::parse(arguments) {
        Ok(cli) => cli,
        Err(Refusal::Help(text)) => {
            // Who reads no further has what they wanted.
            let _ = write!(io::stdout(), "{text}");
            return Exit::Done;
        }
        Err(Refusal::Usage(line)) => {
            logging::complain(&line);
            return Exit::Usage;
        }
    };
    let started = if matches!(cli.command, Command::Run(_)) {
        logging::start_queued().context("starting the thread of the log")
    } else {
        logging::start();
        Ok(())
    };
    let exit = match started.and_then(|()| carry_out(cli)) {
        Ok(()) => Exit::Done,
        Err(error) => {
            log::debug!("{error:?}");
            logging::fatal(&one_line(&error));
            exit_of(&error)
        }
    };
    logging::finish();
    exit
}

fn exit_of(error: &anyhow::Error) -> Exit {
    match error.downcast_ref::<Unusable>() {
        Some(Unusable::File(_)) => Exit::Configuration,
        Some(Unusable::CommandLine(_)) => Exit::Usage,
        None => Exit::Failed,
    }
}

fn carry_out(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Run(run) => guard::run(&run),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Check(check) => config::say(&check),
        Command::Status(ask) => client::status(&ask),
        Command::Detach(ask) => client::detach(&ask),
        Command::Reload(ask) => client::reload(&ask),
        Command::Why(why) => client::why(&why),
        Command::Mode(mode) => client::mode(&mode),
        Command::Sessions(ask) => client::sessions(&ask),
        Command::Pinholes(ask) => client::pinholes(&ask),
        Command::Events(events) => client::events(&events),
        Command::Top(args) => top::top(&args),
    }
}

/// The most characters of an error line; a verifier's log can be a million.
const MAX_ERROR: usize = 1_000;

/// The error and its causes on one line, long ones without their middle.
fn one_line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let words: Vec<&str> = text.split_whitespace().collect();
    let line: String = words
        .join(" ")
        .chars()
        .filter(|character| !character.is_control())
        .collect();
    let length = line.chars().count();
    if length <= MAX_ERROR {
        return line;
    }
    let start: String = line.chars().take(MAX_ERROR / 4).collect();
    let end: String = line.chars().skip(length - MAX_ERROR / 2).collect();
    format!("{start} [...] {end} (RUST_LOG=debug shows it whole)")
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn an_error_is_one_line_with_its_causes() {
        let error = anyhow!("the\n\tverifier\x1b said no").context("loading x");
        assert_eq!(one_line(&error), "loading x: the verifier said no");
        let long = anyhow!("{} the end", "verifier log\n".repeat(10_000)).context("loading x");
        let line = one_line(&long);
        assert!(line.len() < MAX_ERROR && !line.contains('\n'));
        assert!(line.starts_with("loading x: verifier") && line.contains("the end (RUST_LOG"));
    }
}
