//! Attaching the programs, and saying where they sit.

use std::{fs::File, io, os::fd::AsFd as _, os::unix::fs::MetadataExt as _};

use aya::{
    Ebpf,
    programs::{
        CgroupAttachMode, CgroupSockAddr, LinkOrder, Program, ProgramError, RawTracePoint,
        SchedClassifier, SkLookup, TcAttachType, Xdp, XdpMode,
        links::{FdLink, LinkError},
        tc,
        tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle},
    },
};

use ftpguard_common::abi::observer_slot;

use super::{
    Kernel,
    driver::{has_device, has_ethernet_header},
    error::{KernelError, errno, io_errno},
    features::tc_hook,
    gates::Hooked,
    handover::Handover,
    hook::Hook,
    step,
};

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
    /// Attaches the socket observer's tracepoints, or puts its programs in the place of those
    /// that are attached already. From now on sessions, processes, listeners and pinholes are
    /// tracked.
    pub fn attach_observer(&mut self) -> Result<(), KernelError> {
        for (program, slot, ..) in OBSERVER {
            step(program)?;
            let observer: &mut RawTracePoint = find(&mut self.ebpf, program)?;
            let descriptor = observer.fd().map_err(refused(program))?;
            self.observers.set(slot, descriptor, 0)?;
        }
        for (_, _, entry, event) in OBSERVER {
            step(entry)?;
            let tracepoint: &mut RawTracePoint = find(&mut self.ebpf, entry)?;
            let descriptor = tracepoint.fd().map_err(refused(entry))?.as_fd();
            self.entries.push(self.home.program(entry, descriptor)?);
            let hook = match self.home.inherit(entry, None, None)? {
                Some(hook) => hook,
                None => {
                    let link = tracepoint.attach(event).map_err(refused(entry))?;
                    let link = tracepoint.take_link(link).map_err(refused(entry))?;
                    self.home.settle(entry, link.into())?
                }
            };
            self.observer.push(hook);
        }
        Ok(())
    }

    /// Attaches the connect() hooks to the watched cgroup, those that do not hold there.
    pub fn attach_connect(&mut self) -> Result<(), KernelError> {
        let cgroup = self
            .cgroup
            .metadata()
            .map_err(KernelError::Descriptor)?
            .ino();
        for program in CONNECT {
            if self.connect.contains_key(program) && self.held()?.holds(program, cgroup) {
                continue;
            }
            // Before another one is pinned in its place: it takes its pin with it.
            self.connect.remove(program);
            step(program)?;
            let hook: &mut CgroupSockAddr = find(&mut self.ebpf, program)?;
            let descriptor = hook.fd().map_err(refused(program))?.as_fd();
            let hook = match self.home.inherit(program, Some(cgroup), Some(descriptor))? {
                Some(hook) => hook,
                None => {
                    // A cgroup link takes no flags; it always shares the hook with others
                    // (cgroup_bpf_link_attach() in kernel/bpf/cgroup.c).
                    let link = hook
                        .attach(&self.cgroup, CgroupAttachMode::Single)
                        .and_then(|link| hook.take_link(link))
                        .map_err(refused(program))?;
                    self.home.settle(program, descriptor_of(link)?)?
                }
            };
            self.connect.insert(program, hook);
        }
        Ok(())
    }

    /// Attaches the lookup gate to the caller's network namespace: it judges whatever looks for
    /// a listening socket there.
    pub fn attach_lookup(&mut self) -> Result<(), KernelError> {
        const PROGRAM: &str = "guard_lookup";
        // As above.
        self.lookup = None;
        step(PROGRAM)?;
        let namespace =
            File::open("/proc/thread-self/ns/net").map_err(KernelError::NetworkNamespace)?;
        let number = namespace
            .metadata()
            .map_err(KernelError::NetworkNamespace)?
            .ino();
        let gate: &mut SkLookup = find(&mut self.ebpf, self.features.variant(PROGRAM))?;
        let descriptor = gate.fd().map_err(refused(PROGRAM))?.as_fd();
        let hook = match self.home.inherit(PROGRAM, Some(number), Some(descriptor))? {
            Some(hook) => hook,
            None => {
                let link = gate
                    .attach(&namespace)
                    .and_then(|link| gate.take_link(link))
                    .map_err(refused(PROGRAM))?;
                self.home.settle(PROGRAM, link.into())?
            }
        };
        self.lookup = Some(hook);
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
        if !has_ethernet_header(interface) {
            return Err(KernelError::NoEthernet(interface.to_owned()));
        }
        let egress = prepare_tc(interface)?;
        let (ingress, xdp, fallback) = self.attach_ingress(interface, index, choice)?;
        let watcher = match ingress {
            IngressHook::XdpNative | IngressHook::XdpGeneric => "watch_ingress",
            IngressHook::Tc => "guard_and_watch_ingress",
        };
        let place = |direction| Place {
            interface,
            index,
            direction,
            hook: egress,
        };
        let hooked = Hooked {
            xdp,
            ingress: self.attach_tc(watcher, &place(TcAttachType::Ingress))?,
            egress: self.attach_tc("guard_and_watch_egress", &place(TcAttachType::Egress))?,
        };
        self.hooked.insert(index, hooked);
        // Without room the last gate judges again what passed here.
        super::Maps::put(&mut self.maps.gates, &index, &1)?;
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
        index: u32,
        choice: XdpChoice,
    ) -> Result<(IngressHook, Option<Hook>, Option<String>), KernelError> {
        let (hook, mode) = match choice {
            XdpChoice::Tc => return Ok((IngressHook::Tc, None, None)),
            XdpChoice::Auto if !has_device(interface) => return Ok((IngressHook::Tc, None, None)),
            XdpChoice::Auto if self.is_generic(index)? => {
                let reason = "XDP was in generic mode; the next start makes it native";
                return Ok((IngressHook::Tc, None, Some(reason.to_owned())));
            }
            XdpChoice::Auto => {
                return Ok(match self.attach_xdp(interface, index, XdpMode::Driver) {
                    Ok(hook) => (IngressHook::XdpNative, hook, None),
                    // TC judges as well, only later.
                    Err(error) => (IngressHook::Tc, None, Some(error.reason())),
                });
            }
            XdpChoice::Native => (IngressHook::XdpNative, XdpMode::Driver),
            XdpChoice::Generic => (IngressHook::XdpGeneric, XdpMode::Skb),
        };
        Ok((hook, self.attach_xdp(interface, index, mode)?, None))
    }

    /// Whether XDP is in force here in generic mode. It would have to end before it can be seen
    /// whether the driver can do better.
    fn is_generic(&self, index: u32) -> Result<bool, KernelError> {
        let name = xdp_name(XdpMode::Skb, index);
        let holder = self.home.holder(&name, u64::from(index), true)?;
        Ok(holder.is_some())
    }

    /// `None` where somebody else holds the hook, a former state or this one in the other mode:
    /// then it changes hands in the end.
    fn attach_xdp(
        &mut self,
        interface: &str,
        index: u32,
        mode: XdpMode,
    ) -> Result<Option<Hook>, KernelError> {
        step(&format!("{XDP} on {interface}"))?;
        let other_mode = other(mode);
        let [name, other_name] = [mode, other_mode].map(|mode| xdp_name(mode, index));
        let target = u64::from(index);
        let program: &mut Xdp = find(&mut self.ebpf, self.features.variant(XDP))?;
        let descriptor = program.fd().map_err(refused(XDP))?.as_fd();
        self.home.keep_xdp(descriptor, false)?;
        if let Some(hook) = self.home.inherit(&name, Some(target), Some(descriptor))? {
            return Ok(Some(hook));
        }
        // An interface takes XDP in one mode only.
        let former = [(&name, mode, false), (&other_name, other_mode, true)];
        // Once everything is in place nothing changes hands: what is held then is taken.
        let is_finished = self.home.is_finished();
        for (name, former_mode, own) in former.into_iter().filter(|_| !is_finished) {
            if let Some(holder) = self.home.holder(name, target, own)? {
                let pin = self.home.hook(&xdp_name(mode, index));
                let modes = [former_mode, mode];
                self.handovers
                    .push(Handover::new(interface, index, modes, holder, pin));
                return Ok(None);
            }
        }
        let link = program
            .attach(interface, mode)
            .map_err(|error| KernelError::xdp(interface, error))?;
        let link = program.take_link(link).map_err(refused(XDP))?;
        self.home.settle(&name, descriptor_of(link)?).map(Some)
    }

    /// Takes the XDP hooks that others hold.
    pub(super) fn take_xdp(&mut self) -> Result<(), KernelError> {
        for handover in &mut self.handovers {
            let program: &mut Xdp = find(&mut self.ebpf, self.features.variant(XDP))?;
            let descriptor = program.fd().map_err(refused(XDP))?.as_fd();
            handover.take(descriptor)?;
        }
        Ok(())
    }

    /// Keeps the XDP hooks that were taken, and the program behind all of them for the next start.
    pub(super) fn settle_xdp(&mut self) -> Result<(), KernelError> {
        for handover in self.handovers.drain(..) {
            if let Some(hooked) = self.hooked.get_mut(&handover.index()) {
                hooked.xdp = Some(handover.finish(&self.fate));
            }
        }
        if self.hooked.values().all(|hooked| hooked.xdp.is_none()) {
            return Ok(());
        }
        let program: &mut Xdp = find(&mut self.ebpf, self.features.variant(XDP))?;
        let descriptor = program.fd().map_err(refused(XDP))?.as_fd();
        self.home.keep_xdp(descriptor, true)
    }

    fn attach_tc(&mut self, program: &'static str, place: &Place<'_>) -> Result<Hook, KernelError> {
        step(&format!("{program} on {}", place.interface))?;
        let classifier: &mut SchedClassifier = find(&mut self.ebpf, program)?;
        let name = place.name();
        match place.hook {
            EgressHook::Tcx => {
                let descriptor = classifier.fd().map_err(refused(program))?.as_fd();
                let target = Some(u64::from(place.index));
                if let Some(hook) = self.home.inherit(&name, target, Some(descriptor))? {
                    return Ok(hook);
                }
                let options = TcAttachOptions::TcxOrder(LinkOrder::default());
                let link = classifier
                    .attach_with_options(place.interface, place.direction, options)
                    .and_then(|link| classifier.take_link(link))
                    .map_err(refused(program))?;
                self.home.settle(&name, descriptor_of(link)?)
            }
            EgressHook::Clsact => {
                let handle = TcHandle::from(self.home.filter_handle());
                let (link, inherited) =
                    attach_filter(classifier, place, handle).map_err(refused(program))?;
                Ok(Hook::filter(link, inherited, &self.fate))
            }
        }
    }
}

/// The socket observer: program, its slot, what is attached in its stead, and where.
pub(super) const OBSERVER: [(&str, u32, &str, &str); 5] = [
    (
        "task_new",
        observer_slot::TASK_NEW,
        "on_task_new",
        "task_newtask",
    ),
    (
        "task_exit",
        observer_slot::TASK_EXIT,
        "on_task_exit",
        "sched_process_exit",
    ),
    (
        "control_read",
        observer_slot::CONTROL_READ,
        "on_control_read",
        "tcp_rcv_space_adjust",
    ),
    (
        "socket_state",
        observer_slot::SOCKET_STATE,
        "on_socket_state",
        "inet_sock_set_state",
    ),
    (
        "socket_called",
        observer_slot::SOCKET_CALLED,
        "on_socket_called",
        "inet_sock_set_state",
    ),
];

/// The connect() hooks.
pub(super) const CONNECT: [&str; 2] = ["guard_connect4", "guard_connect6"];

/// The ingress guard where it is an XDP program.
const XDP: &str = "guard_ingress";

/// The name of an interface's XDP hook.
fn xdp_name(mode: XdpMode, index: u32) -> String {
    let kind = if mode == XdpMode::Driver {
        "native"
    } else {
        "generic"
    };
    format!("xdp-{kind}-{index}")
}

/// The other of both modes.
fn other(mode: XdpMode) -> XdpMode {
    if mode == XdpMode::Driver {
        XdpMode::Skb
    } else {
        XdpMode::Driver
    }
}

/// The priority of TC filters. With their handle it names them for good: a daemon finds its
/// predecessor's.
pub(super) const FILTER_PRIORITY: u16 = 18_247;

/// A TC hook of one interface.
struct Place<'a> {
    interface: &'a str,
    index: u32,
    direction: TcAttachType,
    hook: EgressHook,
}

impl Place<'_> {
    fn name(&self) -> String {
        let way = if self.direction == TcAttachType::Egress {
            "out"
        } else {
            "in"
        };
        format!("tc-{way}-{}", self.index)
    }
}

/// Attaches a filter, or puts the program in the place of the one that an earlier daemon left;
/// whether it did that.
fn attach_filter(
    classifier: &mut SchedClassifier,
    place: &Place<'_>,
    handle: TcHandle,
) -> Result<(SchedClassifierLink, bool), ProgramError> {
    let options = NlOptions {
        priority: FILTER_PRIORITY,
        handle,
        ..NlOptions::default()
    };
    let attached = classifier.attach_with_options(
        place.interface,
        place.direction,
        TcAttachOptions::Netlink(options),
    );
    let (link, inherited) = match attached {
        Ok(link) => (link, false),
        Err(error) if errno(&error) == Some(libc::EEXIST) => {
            let former = SchedClassifierLink::attached(
                place.interface,
                place.direction,
                FILTER_PRIORITY,
                handle,
                None,
            )
            .map_err(ProgramError::IOError)?;
            (classifier.attach_to_link(former)?, true)
        }
        Err(error) => return Err(error),
    };
    Ok((classifier.take_link(link)?, inherited))
}

fn descriptor_of<L>(link: L) -> Result<FdLink, KernelError>
where
    FdLink: TryFrom<L, Error = LinkError>,
{
    FdLink::try_from(link).map_err(|error| KernelError::Descriptor(io::Error::other(error)))
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
