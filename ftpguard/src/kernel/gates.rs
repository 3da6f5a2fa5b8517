//! Which gates hold: whether the programs still are where they were attached.
//!
//! Others may take them away: `bpftool link detach`, `tc qdisc del`, an interface that goes. The
//! kernel is asked, link by link (`/proc/self/fdinfo`, where a link that holds nothing names place
//! 0) and, before Linux 6.6, filter by filter (`RTM_GETTFILTER`).

use std::{collections::HashSet, fs, io};

use super::{
    Kernel,
    attach::{Attached, CONNECT, IngressHook},
    error::KernelError,
    filter::{Direction, is_there},
    hook::Hook,
};

/// What holds the programs on one interface; they go when this is dropped.
pub(super) struct Hooked {
    /// The guard, where it is an XDP program; `None` until it changes hands.
    pub(super) xdp: Option<Hook>,
    /// The TC program for what comes in.
    pub(super) ingress: Hook,
    /// The TC program for what leaves.
    pub(super) egress: Hook,
}

/// Which gates of one interface hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gates {
    /// SYNs that come in are judged.
    pub ingress: bool,
    /// Control bytes that come in are read.
    pub watcher: bool,
    /// SYNs that leave are judged, and control bytes are read.
    pub egress: bool,
}

impl Gates {
    /// Nothing holds.
    pub const NONE: Self = Self {
        ingress: false,
        watcher: false,
        egress: false,
    };

    /// Whether all hold.
    #[must_use]
    pub const fn all(self) -> bool {
        self.ingress && self.watcher && self.egress
    }
}

/// What this process's links hold, at one moment.
pub struct Held<'a> {
    kernel: &'a Kernel,
    /// A program's id, and the number of the interface, network namespace or cgroup that it is
    /// attached to.
    places: HashSet<(u32, u64)>,
}

impl Kernel {
    /// Asks the kernel which programs are attached where.
    pub fn held(&self) -> Result<Held<'_>, KernelError> {
        Ok(Held {
            kernel: self,
            places: places().map_err(KernelError::Descriptor)?,
        })
    }

    /// Takes every program off an interface; one that is gone has lost them already.
    pub fn detach_interface(&mut self, index: u32) -> Result<(), KernelError> {
        self.hooked.remove(&index);
        super::Maps::forget(&mut self.maps.gates, &index)
    }
}

impl Held<'_> {
    /// The gates of one interface.
    #[must_use]
    pub fn gates(&self, attached: &Attached) -> Gates {
        let Some(hooked) = self.kernel.hooked.get(&attached.index) else {
            return Gates::NONE;
        };
        let on_xdp = |program| self.holds(program, u64::from(attached.index));
        let watcher = self.holds_tc(&hooked.ingress, attached, Direction::Ingress);
        Gates {
            ingress: match attached.ingress {
                IngressHook::XdpNative | IngressHook::XdpGeneric => on_xdp("guard_ingress"),
                IngressHook::Tc => watcher,
            },
            watcher,
            egress: self.holds_tc(&hooked.egress, attached, Direction::Egress),
        }
    }

    /// Whether the lookup gate holds in its network namespace.
    #[must_use]
    pub fn last_gate(&self) -> bool {
        self.holds_somewhere("guard_lookup")
    }

    /// Whether both `connect()` hooks hold on their cgroup.
    #[must_use]
    pub fn connect(&self) -> bool {
        CONNECT
            .into_iter()
            .all(|program| self.holds_somewhere(program))
    }

    fn holds_tc(&self, hook: &Hook, attached: &Attached, direction: Direction) -> bool {
        let program = match (direction, attached.ingress) {
            (Direction::Egress, _) => "guard_and_watch_egress",
            (Direction::Ingress, IngressHook::Tc) => "guard_and_watch_ingress",
            (Direction::Ingress, IngressHook::XdpNative | IngressHook::XdpGeneric) => {
                "watch_ingress"
            }
        };
        match hook.filter_place() {
            Some((priority, handle)) => is_there(attached.index, direction, priority, handle),
            // A tcx link.
            None => self.holds(program, u64::from(attached.index)),
        }
    }

    pub(super) fn holds(&self, program: &str, place: u64) -> bool {
        self.id_of(program)
            .is_some_and(|id| self.places.contains(&(id, place)))
    }

    fn holds_somewhere(&self, program: &str) -> bool {
        self.id_of(program)
            .is_some_and(|id| self.places.iter().any(|(program, _)| *program == id))
    }

    fn id_of(&self, program: &str) -> Option<u32> {
        let program = self.kernel.features.variant(program);
        Some(self.kernel.ebpf.program(program)?.info().ok()?.id())
    }
}

/// The places that this process's links hold.
fn places() -> io::Result<HashSet<(u32, u64)>> {
    let mut places = HashSet::new();
    for file in fs::read_dir("/proc/self/fdinfo")? {
        match fs::read_to_string(file?.path()) {
            Ok(facts) => places.extend(place(&facts)),
            // Closed meanwhile, as the one that lists them is.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(places)
}

/// Program and place of a link, as `bpf_link_show_fdinfo()` in kernel/bpf/syscall.c prints them.
/// `None` for other files, and for links that hold nothing any more.
fn place(facts: &str) -> Option<(u32, u64)> {
    let field = |name: &str| {
        facts.lines().find_map(|line| {
            let (field, value) = line.split_once(':')?;
            (field == name).then(|| value.trim().parse::<u64>().ok())?
        })
    };
    field("link_id")?;
    let program = u32::try_from(field("prog_id")?).ok()?;
    let place = ["ifindex", "netns_ino", "cgroup_id"]
        .into_iter()
        .find_map(field)?;
    (place != 0).then_some((program, place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_holds_nothing_has_no_place() {
        let link = |ifindex| {
            format!(
                "pos:\t0\nflags:\t02000002\nlink_type:\txdp\nlink_id:\t5\nprog_tag:\tab\n\
                 prog_id:\t17\nifindex:\t{ifindex}\n"
            )
        };
        assert_eq!(place(&link(4)), Some((17, 4)));
        assert_eq!(place(&link(0)), None);
        let lookup = "link_id:\t6\nprog_id:\t18\nnetns_ino:\t4026531833\nattach_type:\tsk_lookup\n";
        assert_eq!(place(lookup), Some((18, 4_026_531_833)));
        assert_eq!(place("pos:\t0\nprog_type:\t6\nprog_id:\t17\n"), None);
    }
}
