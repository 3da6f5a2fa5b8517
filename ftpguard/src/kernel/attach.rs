//! Attaching the programs, and saying where they sit.

use std::{fs::File, io};

use aya::{
    Ebpf,
    programs::{
        CgroupAttachMode, CgroupSockAddr, LinkOrder, Program, ProgramError, RawTracePoint,
        SchedClassifier, SkLookup, TcAttachType, Xdp, XdpMode, tc,
        tc::{NlOptions, SchedClassifierLink, TcAttachOptions},
        xdp::XdpLink,
    },
    sys::SyscallError,
};

use super::{Kernel, driver::has_device, error::KernelError, features::tc_hook, gates::Hooked};

/// How the operator wants the ingress guard attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpChoice {
    /// Native XDP on interfaces with a device driver behind them, TC elsewhere and where the
    /// driver cannot run XDP.
    Auto,
    /// XDP in the driver, or fail.
    Native,
    /// XDP in the network stack, or fail.
    Generic,
    /// TC ingress.
    Tc,
}

/// Where the ingress guard sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IngressHook {
    /// XDP in the driver.
    XdpNative,
    /// XDP in the network stack.
    XdpGeneric,
    /// TC ingress.
    Tc,
}

impl IngressHook {
    /// The hook's name in status and logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::XdpNative => "xdp-native",
            Self::XdpGeneric => "xdp-generic",
            Self::Tc => "tc",
        }
    }
}

/// How TC programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EgressHook {
    /// A tcx link (Linux 6.6 and later).
    Tcx,
    /// A filter on the clsact qdisc.
    Clsact,
}

impl EgressHook {
    /// The hook's name in status and logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// What sits on one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The interface's number.
    pub index: u32,
    /// The interface's name.
    pub interface: String,
    /// Where SYNs that come in are judged.
    pub ingress: IngressHook,
    /// Where SYNs that leave are judged, and control bytes are read.
    pub egress: EgressHook,
    /// Why the ingress guard is not where it would rather be.
    pub fallback: Option<String>,
}

impl Kernel {
    /// Attaches the socket observer's tracepoints. From now on sessions, processes, listeners
    /// and pinholes are tracked.
    pub fn attach_observer(&mut self) -> Result<(), KernelError> {
        for (program, event) in [
            ("task_new", "task_newtask"),
            ("task_exit", "sched_process_exit"),
            ("control_read", "tcp_rcv_space_adjust"),
            ("socket_state", "inet_sock_set_state"),
            ("socket_called", "inet_sock_set_state"),
        ] {
            let tracepoint: &mut RawTracePoint = find(&mut self.ebpf, program)?;
            tracepoint.attach(event).map_err(refused(program))?;
        }
        Ok(())
    }

    /// Attaches the connect() hooks to the cgroup named in the settings.
    pub fn attach_connect(&mut self) -> Result<(), KernelError> {
        for program in ["guard_connect4", "guard_connect6"] {
            let hook: &mut CgroupSockAddr = find(&mut self.ebpf, program)?;
            // A cgroup link takes no flags; it always shares the hook with others
            // (cgroup_bpf_link_attach() in kernel/bpf/cgroup.c).
            hook.attach(&self.cgroup, CgroupAttachMode::Single)
                .map_err(refused(program))?;
        }
        Ok(())
    }

    /// Attaches the lookup gate to the caller's network namespace: it judges whatever looks for
    /// a listening socket there.
    pub fn attach_lookup(&mut self) -> Result<(), KernelError> {
        const PROGRAM: &str = "guard_lookup";
        let namespace =
            File::open("/proc/thread-self/ns/net").map_err(KernelError::NetworkNamespace)?;
        let gate: &mut SkLookup = find(&mut self.ebpf, self.features.variant(PROGRAM))?;
        gate.attach(&namespace).map_err(refused(PROGRAM))?;
        Ok(())
    }

    /// Attaches ingress guard, egress guard and control watcher to one interface of the
    /// caller's network namespace.
    pub fn attach_interface(
        &mut self,
        interface: &str,
        choice: XdpChoice,
    ) -> Result<Attached, KernelError> {
        if !interface_names().iter().any(|name| name == interface) {
            return Err(KernelError::NoInterface(interface.to_owned()));
        }
        let index = nix::net::if_::if_nametoindex(interface)
            .map_err(|_| KernelError::NoInterface(interface.to_owned()))?;
        let egress = prepare_tc(interface)?;
        let (ingress, xdp, fallback) = self.attach_ingress(interface, choice)?;
        let watcher = match ingress {
            IngressHook::XdpNative | IngressHook::XdpGeneric => "watch_ingress",
            IngressHook::Tc => "guard_and_watch_ingress",
        };
        let hooked = Hooked {
            _xdp: xdp,
            ingress: self.attach_tc(watcher, interface, TcAttachType::Ingress, egress)?,
            egress: self.attach_tc(
                "guard_and_watch_egress",
                interface,
                TcAttachType::Egress,
                egress,
            )?,
        };
        self.hooked.insert(index, hooked);
        self.maps.gates.insert(index, 1, 0)?;
        Ok(Attached {
            index,
            interface: interface.to_owned(),
            ingress,
            egress,
            fallback,
        })
    }

    /// Where the ingress guard sits now, what holds it there if it is XDP, and why it is not
    /// where it would rather be.
    fn attach_ingress(
        &mut self,
        interface: &str,
        choice: XdpChoice,
    ) -> Result<(IngressHook, Option<XdpLink>, Option<String>), KernelError> {
        let (hook, mode) = match choice {
            XdpChoice::Tc => return Ok((IngressHook::Tc, None, None)),
            XdpChoice::Auto if !has_device(interface) => return Ok((IngressHook::Tc, None, None)),
            XdpChoice::Auto => {
                return Ok(match self.attach_xdp(interface, XdpMode::Driver) {
                    Ok(link) => (IngressHook::XdpNative, Some(link), None),
                    // TC judges as well, only later.
                    Err(error) => (IngressHook::Tc, None, Some(error.reason())),
                });
            }
            XdpChoice::Native => (IngressHook::XdpNative, XdpMode::Driver),
            XdpChoice::Generic => (IngressHook::XdpGeneric, XdpMode::Skb),
        };
        Ok((hook, Some(self.attach_xdp(interface, mode)?), None))
    }

    fn attach_xdp(&mut self, interface: &str, mode: XdpMode) -> Result<XdpLink, KernelError> {
        const PROGRAM: &str = "guard_ingress";
        let program: &mut Xdp = find(&mut self.ebpf, self.features.variant(PROGRAM))?;
        let error = match program.attach(interface, mode) {
            Ok(link) => return program.take_link(link).map_err(refused(PROGRAM)),
            Err(error) => error,
        };
        Err(match errno(&error) {
            // EBUSY: the hook is taken; EEXIST: it is taken in the other mode.
            Some(libc::EBUSY | libc::EEXIST) => KernelError::HookTaken {
                interface: interface.to_owned(),
            },
            Some(libc::EOPNOTSUPP) => KernelError::NoNativeXdp(interface.to_owned()),
            Some(_) => KernelError::XdpRefused {
                interface: interface.to_owned(),
                source: Box::new(error),
            },
            None => refused(PROGRAM)(error),
        })
    }

    fn attach_tc(
        &mut self,
        program: &'static str,
        interface: &str,
        direction: TcAttachType,
        hook: EgressHook,
    ) -> Result<SchedClassifierLink, KernelError> {
        let options = match hook {
            EgressHook::Tcx => TcAttachOptions::TcxOrder(LinkOrder::default()),
            EgressHook::Clsact => TcAttachOptions::Netlink(NlOptions::default()),
        };
        let classifier: &mut SchedClassifier = find(&mut self.ebpf, program)?;
        let link = classifier
            .attach_with_options(interface, direction, options)
            .map_err(refused(program))?;
        classifier.take_link(link).map_err(refused(program))
    }
}

/// The names of every interface in the caller's network namespace, sorted.
#[must_use]
pub fn interface_names() -> Vec<String> {
    let mut names: Vec<String> = nix::net::if_::if_nameindex()
        .map(|interfaces| {
            interfaces
                .iter()
                .map(|interface| interface.name().to_string_lossy().into_owned())
                .collect()
        })
        .unwrap_or_default();
    names.sort();
    names
}

/// Adds the clsact qdisc where the kernel has no tcx.
fn prepare_tc(interface: &str) -> Result<EgressHook, KernelError> {
    if tc_hook(interface) == EgressHook::Tcx {
        return Ok(EgressHook::Tcx);
    }
    match tc::qdisc_add_clsact(interface) {
        Ok(()) => {}
        // Already there: ours from before, or another tool's.
        Err(error) if io_errno(&error) == Some(libc::EEXIST) => {}
        Err(error) => return Err(refused("clsact qdisc")(error.into())),
    }
    Ok(EgressHook::Clsact)
}

fn find<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, KernelError>
where
    &'a mut P: TryFrom<&'a mut Program>,
{
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| KernelError::Missing(name.to_owned()))
}

fn refused(program: &'static str) -> impl FnOnce(ProgramError) -> KernelError {
    move |source| KernelError::Program {
        name: program.to_owned(),
        source: Box::new(source),
    }
}

fn errno(error: &ProgramError) -> Option<i32> {
    if let ProgramError::SyscallError(SyscallError { io_error, .. }) = error {
        return io_error.raw_os_error();
    }
    io_errno(error)
}

/// The first operating system error in the chain.
fn io_errno(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(code) = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error)
        {
            return Some(code);
        }
        next = error.source();
    }
    None
}
