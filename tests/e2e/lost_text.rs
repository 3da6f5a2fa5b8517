//! Captured text that is lost because the daemon does not read it in time (rule S9).

use std::{thread, time::Duration};

use ftpguard_tests::{FtpClient, Guard, client::Commands, ftpd::FILE, scripted::CONTENT};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{contradictions::Bed, help::is_kind};

/// More than the ring buffer holds (`abi::CONTROL_BYTES`).
const LINES: usize = 2_000;
const LINE: usize = 2_000;

/// What `ftpguard sessions` says of this session's text.
fn text_of(guard: &Guard, ftp: &FtpClient) -> String {
    let port = ftp.local().expect("own address").port();
    let rows = guard.list("sessions").expect("sessions");
    rows.as_array()
        .and_then(|rows| rows.iter().find(|row| row["client_port"] == port))
        .and_then(|row| row["text"].as_str())
        .unwrap_or_else(|| panic!("no session from port {port} in {rows:#}"))
        .to_owned()
}

fn lost(guard: &Guard) -> u64 {
    let status = guard.status().expect("status");
    let incidents = status["incidents"].as_array().expect("incidents");
    incidents
        .iter()
        .find(|incident| incident["name"] == "control-bytes-lost")
        .and_then(|incident| incident["count"].as_u64())
        .unwrap_or_default()
}

/// One passive transfer whose first SYN is answered.
fn transfer(bed: &Bed, guard: &Guard, ftp: &mut FtpClient) {
    let announced = ftp.passive(Commands::Classic).expect("PASV");
    // With text as the authority a client must not be faster than the guard.
    guard
        .wait_for_pinhole(announced.port())
        .expect("it is made");
    let content = bed.sandbox.client().enter(|| {
        ftp.retrieve_announced(FILE, announced)
            .unwrap_or_else(|error| panic!("{error:#}\n{}", guard.log()))
    });
    assert_eq!(content.expect("namespace"), CONTENT);
}

/// The daemon stands still while one client says more than the ring buffer holds. Once it runs
/// again, the loss is counted and told, nobody's text is believed, and nobody loses a transfer.
fn loses_text(tracking: &'static str) {
    let bed = Bed::new();
    let guard = bed.guard(tracking);
    let mut flooder = bed.login_from(bed.sandbox.thief());
    let mut other = bed.login_from(bed.sandbox.client());
    assert_eq!(text_of(&guard, &other), "clear", "{}", guard.log());
    assert_eq!(lost(&guard), 0);
    guard.signal(Signal::SIGSTOP).expect("it stops");
    let line = format!("NOOP {}", "x".repeat(LINE));
    for _ in 0..LINES {
        flooder.send(&line).expect("sent");
    }
    for _ in 0..LINES {
        let reply = flooder.reply().expect("a reply");
        reply.expect(200, "NOOP").expect("200");
    }
    guard.signal(Signal::SIGCONT).expect("it goes on");
    let told = guard
        .wait_for_event("of lost text", |event| is_kind(event, "control-bytes-lost"))
        .expect("event");
    assert_eq!(told["count"], lost(&guard), "{told}");
    let port = other.local().expect("own address").port();
    let is_doubted =
        |event: &Value| event["remark"] == "desynchronised" && event["client_port"] == port;
    guard
        .wait_for_event("of the other session", is_doubted)
        .expect("event");
    assert_eq!(text_of(&guard, &other), "desynchronised");

    let mut honest = bed.login_from(bed.sandbox.client());
    transfer(&bed, &guard, &mut honest);
    // When it has been quiet, the other one is believed again. The first line may be the end of one
    // whose beginning was lost.
    other.expect("NOOP", 200).expect("NOOP");
    other.expect("NOOP", 200).expect("NOOP");
    thread::sleep(Duration::from_millis(2_200));
    other.expect("NOOP", 200).expect("NOOP");
    assert_eq!(text_of(&guard, &other), "clear", "{}", guard.log());
    transfer(&bed, &guard, &mut other);
    let stopped = guard.stop(Signal::SIGTERM).expect("it stops");
    assert!(stopped.status.success(), "{}", stopped.stderr);
}

#[test]
fn s9_lost_text_is_noticed_in_socket_tracking() {
    loses_text("socket");
}

#[test]
fn s9_lost_text_is_noticed_in_text_tracking() {
    loses_text("text");
}
