//! Whether a filter still sits on an interface's clsact qdisc (before Linux 6.6, which has links
//! for TC programs).

use std::os::fd::{AsRawFd as _, OwnedFd};

use bytemuck::{Pod, Zeroable};
use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto,
        setsockopt, socket, sockopt::ReceiveTimeout,
    },
    time::TimeVal,
};

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// In.
    Ingress,
    /// Out.
    Egress,
}

impl Direction {
    /// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)` and the like of `<linux/pkt_sched.h>`.
    const fn parent(self) -> u32 {
        match self {
            Self::Ingress => 0xffff_fff2,
            Self::Egress => 0xffff_fff3,
        }
    }
}

/// `struct nlmsghdr` of `<linux/netlink.h>`, then `struct tcmsg` of `<linux/rtnetlink.h>`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Question {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
    family: u8,
    pad: [u8; 3],
    interface: u32,
    handle: u32,
    parent: u32,
    info: u32,
}

/// How long the kernel may take; it answers within the call.
const LIMIT: TimeVal = TimeVal::new(1, 0);

/// Whether there is a filter with this priority and handle. Where the kernel cannot be
/// asked, what was attached is taken to be there.
pub(super) fn is_there(interface: u32, direction: Direction, priority: u16, handle: u32) -> bool {
    let question = Question {
        length: LENGTH,
        kind: libc::RTM_GETTFILTER,
        flags: NLM_F_REQUEST,
        sequence: 1,
        port: 0,
        family: 0,
        pad: [0; 3],
        interface,
        handle,
        parent: direction.parent(),
        // Priority, then the protocol in network order: aya attaches for all protocols.
        info: u32::from(priority) << 16 | u32::from(ALL_PROTOCOLS.to_be()),
    };
    ask(&question).map_or(true, |kind| kind == libc::RTM_NEWTFILTER)
}

const LENGTH: u32 = 36;
const _: () = assert!(size_of::<Question>() == 36);
const NLM_F_REQUEST: u16 = 1;
/// `ETH_P_ALL` of `<linux/if_ether.h>`.
const ALL_PROTOCOLS: u16 = 3;

/// The kind of the kernel's answer: `RTM_NEWTFILTER`, or `NLMSG_ERROR`.
fn ask(question: &Question) -> nix::Result<u16> {
    let route: OwnedFd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    setsockopt(&route, ReceiveTimeout, &LIMIT)?;
    let kernel = NetlinkAddr::new(0, 0);
    sendto(
        route.as_raw_fd(),
        bytemuck::bytes_of(question),
        &kernel,
        MsgFlags::empty(),
    )?;
    let mut answer = [0; 4096];
    let length = recv(route.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    match answer.get(..length) {
        Some([_, _, _, _, low, high, ..]) => Ok(u16::from_ne_bytes([*low, *high])),
        _ => Err(nix::Error::EBADMSG),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_filter_where_there_is_no_interface() {
        // Interface indices are positive `int`s.
        assert!(!is_there(u32::MAX, Direction::Ingress, 1, 1));
    }
}
