//! Every program through the verifier, and onto every hook.

use anyhow::{Context as _, Result, ensure};
use ftpguard::{
    kernel::{self, Attached, EgressHook, FtpdPorts, IngressHook, Kernel, Settings, XdpChoice},
    preflight,
};
use ftpguard_common::abi::{self, Active, Mode, Policy, Tracking};
use ftpguard_tests::{
    Sandbox,
    sandbox::Host,
    vm::{Feature, Report},
};

use crate::checks::test;

/// Checks the host, loads the kernel side, and attaches each of its programs.
pub(crate) fn check() -> Result<()> {
    let host = test("preflight", || {
        preflight::check(&["lo".to_owned()], None).context("this kernel is refused")
    })?;
    let mut kernel = test("every program is verified", || {
        Kernel::load(&Settings {
            policy: Policy {
                mode: Mode::Enforce as u32,
                tracking: Tracking::Socket as u32,
                active: Active::Client as u32,
                uses: 1,
                serving_age: 1_000_000_000,
                barred_age: 60_000_000_000,
                heartbeat_age: 5_000_000_000,
                without_daemon: 0,
                sessions_per_client: 64,
                wake: 0,
                refused: 0,
                relaxed: 0,
                pad: 0,
            },
            ftpds: vec![FtpdPorts {
                control: vec![21],
                passive: vec![50_000..=50_031],
                mode: None,
            }],
            data_source_ports: vec![20],
            exceptions: Vec::new(),
            relaxations: Vec::new(),
            bounce_shield: false,
            cgroup: host.cgroup.clone(),
            max_sessions: abi::MAX_SESSIONS,
            pins: kernel::Pins::Nowhere,
        })
        .context("loading")
    })?;
    let programs = kernel.verified_instructions();
    let counted = programs.iter().any(|(_, count)| count.is_some());
    for (name, instructions) in programs {
        Report::Program { name, instructions }.print();
    }
    feature(Feature::InstructionCount, counted);
    let used = |feature| kernel.features().has(feature);
    feature(Feature::XdpFragments, used(kernel::Feature::XdpFragments));
    feature(
        Feature::LookupInterface,
        used(kernel::Feature::LookupInterface),
    );

    test("the observer's tracepoints are attached", || {
        kernel.attach_observer().context("attaching")
    })?;
    test("the connect() hooks are attached", || {
        kernel.attach_connect().context("attaching")
    })?;
    let sandbox = Sandbox::new().context("making the sandbox")?;
    test("the last gate before listening sockets is attached", || {
        let server = sandbox.server();
        server
            .enter(|| kernel.attach_lookup())?
            .context("attaching")
    })?;
    let hooks = [
        (XdpChoice::Native, IngressHook::XdpNative),
        (XdpChoice::Generic, IngressHook::XdpGeneric),
        (XdpChoice::Tc, IngressHook::Tc),
        // No device stands behind a veth interface.
        (XdpChoice::Auto, IngressHook::Tc),
    ];
    for (choice, expected) in hooks {
        let name = format!("the packet programs are attached, {choice:?}");
        let attached = test(&name, || {
            attach(&mut kernel, sandbox.server(), choice, expected)
        })?;
        if choice == XdpChoice::Auto {
            feature(Feature::Tcx, attached.egress == EgressHook::Tcx);
        }
    }
    Ok(())
}

/// Attaches to a new interface of the host.
fn attach(
    kernel: &mut Kernel,
    host: &Host,
    choice: XdpChoice,
    expected: IngressHook,
) -> Result<Attached> {
    let interface = format!("veth-{choice:?}");
    let peer = format!("peer-{choice:?}");
    host.ip(&[
        "link", "add", &interface, "type", "veth", "peer", "name", &peer,
    ])?;
    let attached = host
        .enter(|| kernel.attach_interface(&interface, choice))?
        .context("attaching")?;
    ensure!(attached.ingress == expected, "attached as {attached:?}");
    Ok(attached)
}

fn feature(name: Feature, used: bool) {
    Report::Feature { name, used }.print();
}
