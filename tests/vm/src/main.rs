//! The only program of a virtual machine of the kernel matrix (`cargo xtask kernels`).
//!
//! As process 1 it makes the machine usable, runs the checks, and powers the machine off. Each
//! check runs as a process of its own, so that one that panics or hangs takes no other with it.
#![forbid(unsafe_code)]

mod checks;
mod devices;
mod init;
mod programs;
mod run;
mod scenes;
mod tls;

use std::process::{self, ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        _ if process::id() == 1 => init::start(),
        ["all"] => run::all(),
        ["check", name] => checks::run(name),
        _ => {
            eprintln!("usage: ftpguard-vm all | check NAME (as process 1: no arguments)");
            return ExitCode::FAILURE;
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:?}");
            ExitCode::FAILURE
        }
    }
}
