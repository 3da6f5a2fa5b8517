//! Which driver stands behind an interface, and what its packets begin with.

use std::{
    ffi::CStr,
    mem::zeroed,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// `ETHTOOL_GDRVINFO` of `<linux/ethtool.h>`.
const ETHTOOL_GDRVINFO: u32 = 0x0000_0003;

/// `struct ethtool_drvinfo` of `<linux/ethtool.h>`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [libc::c_char; 32],
    version: [libc::c_char; 32],
    firmware: [libc::c_char; 32],
    bus: [libc::c_char; 32],
    rom: [libc::c_char; 32],
    reserved: [libc::c_char; 12],
    counts: [u32; 5],
}

nix::ioctl_readwrite_bad!(ethtool, libc::SIOCETHTOOL, libc::ifreq);
nix::ioctl_readwrite_bad!(hardware_address, libc::SIOCGIFHWADDR, libc::ifreq);

/// Whether a device on a bus stands behind the interface. veth, bridges, bonds, VLANs and
/// tunnels have none: native XDP there exists but costs bulk transfers their segmentation
/// offload.
///
/// Asked of the driver, not of `/sys/class/net`: sysfs shows the network namespace of whoever
/// mounted it. No answer counts as no device.
pub(super) fn has_device(interface: &str) -> bool {
    bus_of(interface).is_some_and(|bus| !bus.is_empty() && bus != "N/A")
}

/// Whether the interface's packets begin with an Ethernet header. Those of WireGuard, tun, PPP and
/// most tunnels begin with the IP header. No answer counts as Ethernet.
pub(super) fn has_ethernet_header(interface: &str) -> bool {
    let Some(mut request) = request(interface) else {
        return true;
    };
    let Some(control) = control() else {
        return true;
    };
    // SAFETY: the kernel writes the hardware address into the request, which lives until the call
    // returns.
    if unsafe { hardware_address(control.as_raw_fd(), &raw mut request) }.is_err() {
        return true;
    }
    // SAFETY: this command fills this member, with the device's type for a family
    // (netdevice(7)).
    let kind = unsafe { request.ifr_ifru.ifru_hwaddr.sa_family };
    [libc::ARPHRD_ETHER, libc::ARPHRD_LOOPBACK].contains(&kind)
}

/// Any socket answers for any interface of its network namespace.
fn control() -> Option<OwnedFd> {
    socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .ok()
}

/// A request about this interface.
fn request(interface: &str) -> Option<libc::ifreq> {
    // SAFETY: bytes and a union of integers and pointers, for which zero is a value.
    let mut request: libc::ifreq = unsafe { zeroed() };
    let name = request.ifr_name.get_mut(..interface.len())?;
    for (to, from) in name.iter_mut().zip(interface.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    Some(request)
}

/// Where the device sits, such as `0000:00:03.0`; empty for software devices.
fn bus_of(interface: &str) -> Option<String> {
    let control = control()?;
    // SAFETY: plain integers and bytes, for which zero is a value.
    let mut info: DriverInfo = unsafe { zeroed() };
    info.command = ETHTOOL_GDRVINFO;
    let mut request = request(interface)?;
    request.ifr_ifru.ifru_data = (&raw mut info).cast();
    // SAFETY: the request names a buffer of the size that this command fills, and both live
    // until the call returns.
    unsafe { ethtool(control.as_raw_fd(), &raw mut request) }.ok()?;
    let bus: Vec<u8> = info.bus.iter().map(|byte| byte.to_ne_bytes()[0]).collect();
    let bus = CStr::from_bytes_until_nul(&bus).ok()?;
    Some(bus.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_begins_like_ethernet() {
        assert!(has_ethernet_header("lo"));
    }

    #[test]
    fn loopback_has_no_device() {
        assert!(!has_device("lo"));
        assert!(!has_device("no-such-interface-of-any-length"));
    }
}
