//! A flood of SYNs, made in the kernel: `BPF_PROG_TEST_RUN` with live frames, more than ten
//! million a second on one processor.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use aya::{
    maps::Array,
    programs::{TestRun as _, TestRunAttrs, TestRunOptions},
};
use ftpguard_common::yardstick::Flood as Settings;
use serde_json::{Value, json};

use crate::{Flood, frames, yardsticks};

/// Sources are in 198.18.0.0/15, for benchmarks (RFC 2544).
const SOURCE: &str = "198.18.0.0";
/// Sources are in 2001:2::/48, for benchmarks (RFC 5180).
const SOURCE6: &str = "2001:2::";
/// Frames in one call when they are sent as fast as they go. A call itself costs 20 ms.
const AT_ONCE: u32 = 1_000_000;
/// By how many nanoseconds the frames of one batch may leave too early: live frames are sent 64
/// at a time.
const SLACK: u64 = 1_000_000;

/// Sends until the time is over. Returns how many were sent.
pub(crate) fn send(flood: &Flood) -> Value {
    assert!(flood.ports.is_power_of_two());
    let mut ebpf = yardsticks::load();
    let (name, frame, mut settings) = first(flood);
    settings.interface = nix::net::if_::if_nametoindex(flood.interface.as_str()).unwrap();
    settings.interval = u64::from(1_000_000_000_u32.checked_div(flood.rate).unwrap_or(0));
    settings.slack = SLACK;
    let mut map: Array<_, Settings> = Array::try_from(ebpf.take_map("FLOOD").unwrap()).unwrap();
    map.set(0, settings, 0).unwrap();
    let program = yardsticks::program(&mut ebpf, name);
    let repeat = if flood.rate == 0 {
        AT_ONCE
    } else {
        flood.rate / 4
    };
    let context = context(frame.len());
    let (start, limit) = (Instant::now(), Duration::from_secs_f64(flood.seconds));
    println!("ready");
    let mut sent = 0_u64;
    while start.elapsed() < limit {
        let options = TestRunOptions {
            data_in: Some(&frame),
            ctx_in: Some(&context),
            repeat,
            attrs: TestRunAttrs::new().xdp_live_frames(64),
            ..TestRunOptions::new()
        };
        program.test_run(options).unwrap();
        sent += u64::from(repeat);
    }
    json!({ "sent": sent, "seconds": start.elapsed().as_secs_f64() })
}

/// The program, the first frame, and what does not change in those that follow.
fn first(flood: &Flood) -> (&'static str, Vec<u8>, Settings) {
    let destination = flood.destination.to_string();
    let (name, source, ip, tcp) = match flood.destination {
        IpAddr::V4(_) => ("send_syns_v4", SOURCE, 14, 34),
        IpAddr::V6(_) => ("send_syns_v6", SOURCE6, 14, 54),
    };
    let mut frame = frames::syn(source, &destination, flood.first_port);
    for (byte, hex) in frame.iter_mut().zip(flood.to.split(':')) {
        *byte = u8::from_str_radix(hex, 16).unwrap();
    }
    // What the program writes counts as zero.
    let source_at = tcp - if name == "send_syns_v4" { 8 } else { 20 };
    let mut still = frame.clone();
    still[source_at..source_at + 4].fill(0);
    still[tcp..tcp + 4].fill(0);
    still[tcp + 16..tcp + 18].fill(0);
    let mut ip_sum = 0;
    if name == "send_syns_v4" {
        still[ip + 10..ip + 12].fill(0);
        ip_sum = sum(&still[ip..tcp]);
    }
    let addresses = if name == "send_syns_v4" {
        ip + 12
    } else {
        ip + 8
    };
    let length = u16::try_from(frame.len() - tcp).unwrap();
    let pseudo = u32::from(6_u16.to_be()) + u32::from(length.to_be());
    let settings = Settings {
        ip_sum,
        tcp_sum: sum(&still[addresses..]) + pseudo,
        source_base: u16::from_ne_bytes([frame[source_at], frame[source_at + 1]]),
        source_mask: 1_u16.to_be(),
        first_port: flood.first_port,
        port_mask: flood.ports - 1,
        ..Settings::default()
    };
    (name, frame, settings)
}

/// The sum of all two-byte words, as they lie in memory.
fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_ne_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
        .sum()
}

/// `struct xdp_md` of `<linux/bpf.h>` for a frame of this length.
fn context(length: usize) -> Vec<u8> {
    let end = u32::try_from(length).unwrap();
    [0, end, 0, 0, 0, 0]
        .iter()
        .flat_map(|word: &u32| word.to_ne_bytes())
        .collect()
}
