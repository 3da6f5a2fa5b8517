//! Nanoseconds for each packet of each program and path (`BPF_PROG_TEST_RUN`).
//!
//! Rounds are interleaved, because the machine's speed drifts: every path once, then every path
//! again.

use aya::Ebpf;
use ftpguard::kernel::Kernel;
use ftpguard_common::abi::Mode;
use serde_json::{Value, json};

use crate::{
    bed::{
        self, CLIENT, CLIENT6, FOREIGN, LIVE, OUTSIDE, SERVER, SERVER6, THIEF, THIEF6, UNKNOWN,
        UNUSED,
    },
    crowd, frames, yardsticks,
};

/// How many entries make a table full: as many sessions as a large server has.
const FULL: u32 = 10_000;

/// One program on one frame.
struct Path {
    program: &'static str,
    name: &'static str,
    family: &'static str,
    frame: Vec<u8>,
}

/// Measures every path with tables that are nearly empty and with full ones.
pub(crate) fn measure(rounds: usize, packets: u32) -> Value {
    let mut yardsticks = yardsticks::load();
    let empty = bed::load(Mode::Enforce, false);
    let mut full = bed::load(Mode::Enforce, false);
    crowd::add(&mut full.maps, 0..FULL);
    let paths = paths();
    let mut times = vec![[const { Vec::new() }; 2]; paths.len()];
    for _ in 0..rounds {
        for (times, path) in times.iter_mut().zip(&paths) {
            for (times, kernel) in times.iter_mut().zip([&empty, &full]) {
                times.push(time(&mut yardsticks, kernel, path, packets));
            }
        }
    }
    let rows = paths.iter().zip(times).map(|(path, [empty, full])| {
        json!({
            "program": path.program,
            "packet": path.name,
            "family": path.family,
            "empty": empty,
            "full": full,
        })
    });
    rows.collect()
}

fn time(yardsticks: &mut Ebpf, kernel: &Kernel, path: &Path, packets: u32) -> f64 {
    if matches!(path.program, "parse_only" | "drop_all") {
        return yardsticks::time(yardsticks, path.program, &path.frame, packets);
    }
    run(kernel, path.program, &path.frame, packets)
}

/// Nanoseconds for each of `packets` runs of one of the guard's programs.
pub(crate) fn run(kernel: &Kernel, program: &str, frame: &[u8], packets: u32) -> f64 {
    let result = kernel.test_run(program, frame, packets).unwrap();
    // The kernel divides by the number of packets and rounds to whole nanoseconds.
    result.duration.as_secs_f64() * 1e9
}

fn paths() -> Vec<Path> {
    let families = [
        ("IPv4", SERVER, CLIENT, THIEF),
        ("IPv6", SERVER6, CLIENT6, THIEF6),
    ];
    let mut paths = Vec::new();
    for (family, server, client, thief) in families {
        let mut add = |program, name, frame: Vec<u8>| {
            paths.push(Path {
                program,
                name,
                family,
                frame,
            });
        };
        let syn = |client, port| frames::syn(client, server, port);
        let data = || frames::tcp_frame(client, server, LIVE, 0x10, &[7; 1000]);
        add("parse_only", "SYN", syn(thief, LIVE));
        add("parse_only", "data segment", data());
        add("drop_all", "SYN", syn(thief, LIVE));
        for program in ["guard_ingress", "guard_and_watch_ingress"] {
            add(program, "data segment", data());
            add(program, "SYN to another port", syn(thief, 8080));
            add(program, "SYN with pinhole", syn(client, LIVE));
            add(
                program,
                "SYN with pinhole, outside range",
                syn(client, OUTSIDE),
            );
            add(program, "SYN without pinhole", syn(thief, LIVE));
            add(program, "SYN to an unused port", syn(thief, UNUSED));
            add(program, "SYN to a foreign listener", syn(thief, FOREIGN));
            add(program, "SYN of a control peer", syn(client, UNKNOWN));
        }
        add("watch_ingress", "data segment", data());
        add(
            "guard_and_watch_egress",
            "data segment",
            frames::tcp_frame(server, client, 50_000, 0x10, &[7; 1000]),
        );
        add(
            "guard_and_watch_egress",
            "SYN of other software",
            frames::data_syn(server, 40_000, thief, 443),
        );
    }
    paths
}
