//! Interfaces and addresses of this network namespace: what there is, and word of every change
//! (rtnetlink).

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
    },
};
use tokio::io::{Interest, unix::AsyncFd};

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR` of `<linux/rtnetlink.h>`.
const GROUPS: u32 = 0x1 | 0x10 | 0x100;

/// How many messages are read before anything else gets its turn.
const BATCH: usize = 1024;

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its number. Names change and are given again; the number stays with the interface.
    pub index: u32,
}

/// Every interface of the caller's network namespace, sorted by name.
pub fn interfaces() -> io::Result<Vec<Interface>> {
    let mut all: Vec<Interface> = nix::net::if_::if_nameindex()?
        .iter()
        .map(|interface| Interface {
            name: interface.name().to_string_lossy().into_owned(),
            index: interface.index(),
        })
        .collect();
    all.sort();
    Ok(all)
}

/// Tells when interfaces or addresses come, go or change.
///
/// What changed is not read from the messages: they can be lost, and interfaces can be gone
/// before their message is read. Whoever is told looks at what there is.
pub struct Changes(AsyncFd<OwnedFd>);

impl Changes {
    /// Watches the caller's network namespace, in the running tokio runtime.
    pub fn watch() -> io::Result<Self> {
        let route = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkRoute,
        )?;
        bind(route.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
        // SAFETY: the socket owns its file descriptor, always gives the same one, and moves into
        // the `AsyncFd`, which deregisters before it drops it.
        let route = unsafe { AsyncFd::register_with_interest(route, Interest::READABLE) };
        route.map(Self).map_err(io::Error::from)
    }

    /// Waits until something has changed. Cancel safe.
    pub async fn readable(&self) -> io::Result<()> {
        // The guard goes without clearing: `drain` clears once all is read.
        self.0.readable().await.map(drop)
    }

    /// Forgets what was told so far.
    pub fn drain(&self) -> io::Result<()> {
        // A message that does not fit is cut, and gone as well.
        let mut message = [0; 16];
        for _ in 0..BATCH {
            let read = self.0.try_io(Interest::READABLE, |route| {
                match recv(route.as_raw_fd(), &mut message, MsgFlags::empty()) {
                    // Some did not fit into the socket's buffer.
                    Ok(_) | Err(Errno::ENOBUFS | Errno::EINTR) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            });
            match read {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_the_first_interface() {
        // LOOPBACK_IFINDEX of <linux/if.h>, in every network namespace.
        let loopback = Interface {
            name: "lo".to_owned(),
            index: 1,
        };
        assert!(interfaces().expect("interfaces").contains(&loopback));
    }

    #[tokio::test]
    async fn nothing_is_told_while_nothing_changes() {
        let changes = Changes::watch().expect("a netlink socket");
        changes.drain().expect("nothing to read");
    }
}
