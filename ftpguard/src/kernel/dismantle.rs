//! Taking a state apart, in the order in which nothing is ever denied that should not be: first
//! what denies, then what observes, then the maps.

use std::{
    fs, io,
    os::fd::AsFd as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use aya::programs::{
    TcAttachType,
    tc::{SchedClassifierLink, TcHandle},
};

use super::{
    attach::{EgressHook, FILTER_PRIORITY},
    error::KernelError,
    features::tc_hook,
    filter::{Direction, is_there},
    home::{OBSERVER, lock, names, room, states},
    sys::{link_exists, link_info, open_pin},
};

/// What [`detach`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detached {
    /// How many hooks there were.
    pub hooks: usize,
}

/// How long the kernel may take to let go of a link.
const PATIENCE: Duration = Duration::from_secs(5);

/// Removes everything that lies in a pin folder. When this returns it is gone.
pub fn detach(folder: &Path) -> Result<Detached, KernelError> {
    let mut detached = Detached::default();
    let failed = |source| KernelError::Pins {
        path: folder.to_owned(),
        source,
    };
    // Where it cannot be seen, something may be there.
    if !folder.try_exists().map_err(failed)? {
        return Ok(detached);
    }
    let _lock = lock(folder)?;
    for state in states(folder).map_err(failed)? {
        detached.hooks += dismantle(&state).map_err(failed)?;
    }
    fs::remove_dir(folder).map_err(failed)?;
    Ok(detached)
}

/// Takes one state apart; gives how many hooks it had.
pub(super) fn dismantle(state: &Path) -> io::Result<usize> {
    let hooks = state.join(room::HOOKS);
    let mut order = names(&hooks)?;
    order.sort_by_key(|name| name.starts_with(OBSERVER));
    let filters = remove_filters(state);
    let mut links = Vec::new();
    for name in order {
        let path = hooks.join(name);
        let link = open_pin(&path)?;
        links.push(link_info(link.as_fd())?.id);
        // A link ends in the background if its pin is the last to hold it, and at once if it is
        // this descriptor.
        fs::remove_file(&path)?;
        drop(link);
    }
    for room in [room::HOOKS, room::PROGRAMS, room::MAPS] {
        let folder = state.join(room);
        for name in names(&folder)? {
            fs::remove_file(folder.join(name))?;
        }
        if folder.exists() {
            fs::remove_dir(folder)?;
        }
    }
    if state.exists() {
        fs::remove_dir(state)?;
    }
    wait_until_gone(&links)?;
    Ok(links.len() + filters)
}

fn wait_until_gone(links: &[u32]) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    for link in links {
        while link_exists(*link) {
            if Instant::now() > deadline {
                return Err(io::Error::other(format!(
                    "BPF link {link} is still there; `bpftool link show id {link}` tells more"
                )));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

/// What names the TC filters of a state, so that nobody else's is removed: never 0.
pub(super) fn filter_handle(state: &Path) -> u32 {
    let hash = super::layout::hash(state.as_os_str().as_encoded_bytes());
    // The kernel hands out small handles itself.
    (hash.to_ne_bytes().into_iter().take(3))
        .fold(0x40, |handle, byte| handle << 8 | u32::from(byte))
}

/// Filters are no links: they stay until they are removed, and are known by their numbers. They
/// are looked for on every interface: what the state's own table says may be older or newer.
fn remove_filters(state: &Path) -> usize {
    let handle = filter_handle(state);
    nix::net::if_::if_nameindex().map_or(0, |interfaces| {
        interfaces
            .iter()
            .map(|interface| remove_filters_from(interface.index(), handle))
            .sum()
    })
}

/// Removes the filters with this handle from one interface; gives how many there were.
pub(super) fn remove_filters_from(index: u32, handle: u32) -> usize {
    let Some(name) = interface_name(index).filter(|name| tc_hook(name) == EgressHook::Clsact)
    else {
        return 0;
    };
    [
        (Direction::Ingress, TcAttachType::Ingress),
        (Direction::Egress, TcAttachType::Egress),
    ]
    .into_iter()
    .filter(|(direction, _)| is_there(index, *direction, FILTER_PRIORITY, handle))
    .filter(|(_, direction)| {
        let handle = TcHandle::from(handle);
        // Dropping it removes the filter.
        SchedClassifierLink::attached(&name, *direction, FILTER_PRIORITY, handle, None).is_ok()
    })
    .count()
}

fn interface_name(index: u32) -> Option<String> {
    nix::net::if_::if_indextoname(index)
        .ok()
        .and_then(|name| name.into_string().ok())
}
