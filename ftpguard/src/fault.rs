//! Faults on purpose: what remains when any step of the start fails, or the daemon is killed in
//! it?
//!
//! `FTPGUARD_FAULT=7` lets the seventh step fail, `FTPGUARD_FAULT=kill:7` ends the process there
//! as SIGKILL does. For tests of the very binary that ships; without the variable a step costs a
//! comparison.

use std::{
    env, io,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// The environment variable.
pub const VARIABLE: &str = "FTPGUARD_FAULT";

#[derive(Clone, Copy, Debug)]
enum Plan {
    Fail(u32),
    Kill(u32),
}

/// One step that may fail. `what` names it in the error.
pub fn step(what: &str) -> io::Result<()> {
    static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
    static DONE: AtomicU32 = AtomicU32::new(0);
    let Some(plan) = PLAN.get_or_init(read) else {
        return Ok(());
    };
    let number = DONE.fetch_add(1, Ordering::Relaxed) + 1;
    match *plan {
        Plan::Fail(at) if at == number => {
            Err(io::Error::other(format!("fault {number} injected: {what}")))
        }
        Plan::Kill(at) if at == number => {
            eprintln!("ftpguard: fault {number} injected: killed at: {what}");
            let _ = kill(Pid::this(), Signal::SIGKILL);
            Ok(())
        }
        Plan::Fail(_) | Plan::Kill(_) => Ok(()),
    }
}

fn read() -> Option<Plan> {
    let text = env::var(VARIABLE).ok()?;
    match text.strip_prefix("kill:") {
        Some(number) => number.parse().ok().map(Plan::Kill),
        None => text.parse().ok().map(Plan::Fail),
    }
}
