//! The programs that the guard is compared with.

use std::{thread, time::Duration};

use aya::{
    Ebpf,
    programs::{TestRun as _, TestRunOptions, Xdp, XdpMode},
};

/// The object as built by `build.rs`.
const OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/yardsticks"));

/// The longest that one of them is attached.
const LIMIT: Duration = Duration::from_mins(10);

/// The loaded object.
pub(crate) fn load() -> Ebpf {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this loads BPF programs: run it as root"
    );
    Ebpf::load(OBJECT).unwrap()
}

/// One of its programs, loaded into the kernel.
pub(crate) fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> &'a mut Xdp {
    let program: &mut Xdp = ebpf.program_mut(name).unwrap().try_into().unwrap();
    if program.fd().is_err() {
        program.load().unwrap();
    }
    program
}

/// Nanoseconds for each of `packets` runs on this frame.
pub(crate) fn time(ebpf: &mut Ebpf, name: &str, frame: &[u8], packets: u32) -> f64 {
    let options = TestRunOptions {
        data_in: Some(frame),
        repeat: packets,
        ..TestRunOptions::new()
    };
    let result = program(ebpf, name).test_run(options).unwrap();
    result.duration.as_secs_f64() * 1e9
}

/// Attaches one of them until this process is ended.
pub(crate) fn hold(name: &str, interface: &str) {
    let mut ebpf = load();
    program(&mut ebpf, name)
        .attach(interface, XdpMode::Driver)
        .unwrap();
    println!("ready");
    thread::sleep(LIMIT);
}
