//! Nanoseconds for each packet against the number of sessions, pinholes and listeners.

use ftpguard_common::abi::Mode;
use serde_json::{Value, json};

use crate::{
    bed::{self, CLIENT, LIVE, SERVER, THIEF, UNUSED},
    crowd, frames, packets,
};

const PROGRAM: &str = "guard_ingress";
/// How many sessions there are, each with a listener and a pinhole.
const SIZES: [u32; 5] = [1, 10, 100, 1_000, 10_000];

/// Measures a SYN with a pinhole, one without, and one to an unused port.
pub(crate) fn measure(rounds: usize, runs: u32) -> Value {
    let kernels = SIZES.map(|size| {
        let mut kernel = bed::load(Mode::Enforce, false);
        crowd::add(&mut kernel.maps, 1..size);
        kernel
    });
    let syn = |client, port| frames::syn(client, SERVER, port);
    let paths = [
        ("SYN with pinhole", syn(CLIENT, LIVE)),
        ("SYN without pinhole", syn(THIEF, LIVE)),
        ("SYN to an unused port", syn(THIEF, UNUSED)),
    ];
    let mut times = [const { [const { Vec::new() }; SIZES.len()] }; 3];
    for _ in 0..rounds {
        for ((_, frame), times) in paths.iter().zip(&mut times) {
            for (kernel, times) in kernels.iter().zip(times) {
                times.push(packets::run(kernel, PROGRAM, frame, runs));
            }
        }
    }
    let rows = paths.iter().zip(times).map(|((name, _), times)| {
        let sizes = SIZES.iter().zip(times);
        let sizes = sizes.map(|(size, times)| json!({ "sessions": size, "ns": times }));
        json!({ "packet": name, "sizes": sizes.collect::<Value>() })
    });
    rows.collect()
}
