//! Nanoseconds per packet of each program and path, beside programs that only parse or only
//! drop (`BPF_PROG_TEST_RUN`). Needs root.
//!
//! Rounds are interleaved, because the machine's speed drifts: every path once, then every path
//! again; the median of each path's ratio to parse-only in the same round counts.
#![expect(clippy::unwrap_used, reason = "a benchmark stops where it fails")]

#[path = "../tests/programs/bed.rs"]
mod bed;
#[expect(
    dead_code,
    reason = "the tests dress frames in more ways than are measured"
)]
#[path = "../tests/programs/frames.rs"]
mod frames;

use bed::{
    CLIENT, CLIENT6, FOREIGN, LIVE, OUTSIDE, SERVER, SERVER6, THIEF, THIEF6, UNKNOWN, UNUSED,
};
use ftpguard::kernel::Kernel;
use ftpguard_common::abi::Mode;

const ROUNDS: usize = 15;
const PACKETS: u32 = 200_000;

fn main() {
    let kernel = bed::load(Mode::Enforce, false);
    let paths = paths();
    let mut times = vec![Vec::with_capacity(ROUNDS); paths.len()];
    for _ in 0..ROUNDS {
        for (times, path) in times.iter_mut().zip(&paths) {
            times.push(measure(&kernel, path));
        }
    }
    println!(
        "{:<26} {:<34} {:>8} {:>8} {:>8} {:>12}",
        "program", "packet", "min ns", "median", "max ns", "x parse-only"
    );
    for (own, path) in times.iter().zip(&paths) {
        let reference = &times[path.reference];
        let ratios = own.iter().zip(reference).map(|(a, b)| a / b).collect();
        let mut sorted = own.clone();
        sorted.sort_by(f64::total_cmp);
        println!(
            "{:<26} {:<34} {:>8.1} {:>8.1} {:>8.1} {:>12.2}",
            path.program,
            path.name,
            sorted[0],
            median(own.clone()),
            sorted[ROUNDS - 1],
            median(ratios)
        );
    }
}

/// One program on one frame.
struct Path {
    program: &'static str,
    name: String,
    frame: Vec<u8>,
    /// Index of the path to compare with: parse-only on the same family.
    reference: usize,
}

fn paths() -> Vec<Path> {
    let families = [
        ("IPv4", SERVER, CLIENT, THIEF),
        ("IPv6", SERVER6, CLIENT6, THIEF6),
    ];
    let mut paths = Vec::new();
    for (family, server, client, thief) in families {
        let reference = paths.len();
        let mut add = |program, name: &str, frame: Vec<u8>| {
            paths.push(Path {
                program,
                name: format!("{family} {name}"),
                frame,
                reference,
            });
        };
        let syn = |client, port| frames::syn(client, server, port);
        let data = || frames::tcp_frame(client, server, LIVE, 0x10, &[7; 1000]);
        add("parse_only", "SYN", syn(thief, LIVE));
        add("parse_only", "data segment", data());
        add("drop_all", "SYN", syn(thief, LIVE));
        for program in ["guard_ingress", "guard_and_watch_ingress"] {
            add(program, "data segment", data());
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
            add(program, "SYN to another port", syn(thief, 8080));
        }
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

fn measure(kernel: &Kernel, path: &Path) -> f64 {
    let result = kernel.test_run(path.program, &path.frame, PACKETS).unwrap();
    // The kernel divides by the number of packets and rounds to whole nanoseconds.
    result.duration.as_secs_f64() * 1e9
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
