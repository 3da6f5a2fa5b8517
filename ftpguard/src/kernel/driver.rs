//! Which driver stands behind an interface.

use std::{ffi::CStr, mem::zeroed, os::fd::AsRawFd as _};

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

/// Whether a device on a bus stands behind the interface. veth, bridges, bonds, VLANs and
/// tunnels have none: native XDP there exists but costs bulk transfers their segmentation
/// offload.
///
/// Asked of the driver, not of `/sys/class/net`: sysfs shows the network namespace of whoever
/// mounted it. No answer counts as no device.
pub(super) fn has_device(interface: &str) -> bool {
    bus_of(interface).is_some_and(|bus| !bus.is_empty() && bus != "N/A")
}

/// Where the device sits, such as `0000:00:03.0`; empty for software devices.
fn bus_of(interface: &str) -> Option<String> {
    let control = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .ok()?;
    // SAFETY: plain integers and bytes, for which zero is a value.
    let mut info: DriverInfo = unsafe { zeroed() };
    info.command = ETHTOOL_GDRVINFO;
    // SAFETY: as above; its union holds pointers, for which zero is a value too.
    let mut request: libc::ifreq = unsafe { zeroed() };
    let name = request.ifr_name.get_mut(..interface.len())?;
    for (to, from) in name.iter_mut().zip(interface.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
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
    fn loopback_has_no_device() {
        assert!(!has_device("lo"));
        assert!(!has_device("no-such-interface-of-any-length"));
    }
}
