//! What is checked on each kernel.

use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use ftpguard_tests::{
    ftpd::{Kind, Settings},
    guard::Options,
    vm::Report,
};

use crate::{devices, programs, scenes, tls};

/// One check; it reports one test or several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// Every program is verified, and attached wherever it can be.
    Programs,
    /// Honest clients and attackers, vsftpd as it comes, on a veth pair (TC).
    Vsftpd,
    /// The same with one process for each session.
    VsftpdOneProcess,
    /// The ingress guard at XDP in the driver.
    XdpNative,
    /// The ingress guard at XDP in the network stack.
    XdpGeneric,
    /// Pinholes from text.
    TextTracking,
    /// Everything is counted, nothing is denied.
    Monitor,
    /// Sessions that are open when the guard starts, also when it starts again.
    Adoption,
    /// curl as the client.
    Curl,
    /// curl and vsftpd with TLS on both connections.
    Tls,
    /// By a VLAN device.
    Vlan,
    /// By a bond of two interfaces.
    Bond,
}

impl Check {
    /// All of them, in order. Without the first nothing else can work.
    pub(crate) const ALL: [Self; 12] = [
        Self::Programs,
        Self::Vsftpd,
        Self::VsftpdOneProcess,
        Self::XdpNative,
        Self::XdpGeneric,
        Self::TextTracking,
        Self::Monitor,
        Self::Adoption,
        Self::Curl,
        Self::Tls,
        Self::Vlan,
        Self::Bond,
    ];

    /// Its name in reports and on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Programs => "programs",
            Self::Vsftpd => "vsftpd",
            Self::VsftpdOneProcess => "vsftpd, one process",
            Self::XdpNative => "native XDP",
            Self::XdpGeneric => "generic XDP",
            Self::TextTracking => "text tracking",
            Self::Monitor => "monitor mode",
            Self::Adoption => "adoption",
            Self::Curl => "curl",
            Self::Tls => "curl with TLS",
            Self::Vlan => "VLAN",
            Self::Bond => "bond",
        }
    }

    fn carry_out(self) -> Result<()> {
        let name = self.name();
        let unchecked = Settings::unchecked;
        let xdp = |xdp_mode| Options {
            xdp_mode,
            ..Options::default()
        };
        match self {
            Self::Programs => programs::check(),
            Self::Vsftpd => scenes::all(name, unchecked(Kind::Vsftpd)),
            Self::VsftpdOneProcess => scenes::all(name, unchecked(Kind::VsftpdOneProcess)),
            Self::XdpNative => scenes::ingress(name, &xdp("native")),
            Self::XdpGeneric => scenes::ingress(name, &xdp("generic")),
            Self::TextTracking => scenes::ingress(
                name,
                &Options {
                    tracking: "text",
                    ..Options::default()
                },
            ),
            Self::Monitor => scenes::monitor(name),
            Self::Adoption => scenes::adoption(name),
            Self::Curl => scenes::curl(name),
            Self::Tls => tls::check(name),
            Self::Vlan => devices::vlan(name),
            Self::Bond => devices::bond(name),
        }
    }
}

/// Carries out one check, named on the command line.
pub(crate) fn run(name: &str) -> Result<()> {
    let Some(check) = Check::ALL.into_iter().find(|check| check.name() == name) else {
        bail!("there is no check {name:?}");
    };
    check.carry_out().with_context(|| format!("check {name}"))
}

/// Runs one test, and reports how it went. Its failure is returned too, and ends the check:
/// what comes after it relies on it.
pub(crate) fn test<T>(name: &str, body: impl FnOnce() -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    let result = body();
    match &result {
        Ok(_) => Report::Passed {
            test: name.to_owned(),
            seconds: begun.elapsed().as_secs_f64(),
        },
        Err(error) => Report::Failed {
            test: name.to_owned(),
            why: first_line(error),
        },
    }
    .print();
    result
}

/// The error on one line of moderate length. The log has it whole: a verifier's can be endless.
fn first_line(error: &anyhow::Error) -> String {
    const LONGEST: usize = 300;
    let text = format!("{error:#}");
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(LONGEST).collect()
}
