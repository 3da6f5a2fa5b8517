//! End to end: a real vsftpd, real clients and real attackers, with the guard off and on.
//!
//! Run by `cargo xtask test`, as root and one at a time. Without root, BPF or the binary these
//! tests fail and say so; none is skipped. Rule ids (I1, O4, K2, ...) are those of the threat
//! model in `docs/`.
#![expect(
    clippy::tests_outside_test_module,
    reason = "the whole target is tests"
)]

mod active;
mod bounds;
mod contradictions;
mod control;
mod counts;
mod detours;
mod doctor;
mod dresses;
mod endurance;
mod fast_open;
mod faults;
mod firewall;
mod flood;
mod gates;
mod help;
mod hidden;
mod hostile;
mod interfaces;
mod levels;
mod lifecycle;
mod listeners;
mod lost_text;
mod metrics;
mod multipath;
mod narrowing;
mod neighbours;
mod networks;
mod others;
mod passive;
mod pinholes;
mod privacy;
mod proxy;
mod quick_start;
mod refusals;
mod relaxation;
mod revocation;
mod service;
mod settings;
mod stage;
mod strangers;
mod text;
mod top;
mod translated;
mod uses;
mod zoo;
mod zoo_clients;
mod zoo_libunftp;
mod zoo_lifecycle;
mod zoo_listeners;
mod zoo_stress;
