//! The few calls of bpf(2) that aya does not offer: pins opened as they are, links whose program
//! is replaced, and what a link holds on to.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya::programs::XdpMode;

/// Commands of `enum bpf_cmd` in `<linux/bpf.h>`.
mod command {
    pub(super) const OBJ_PIN: libc::c_long = 6;
    pub(super) const OBJ_GET: libc::c_long = 7;
    pub(super) const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
    pub(super) const LINK_CREATE: libc::c_long = 28;
    pub(super) const LINK_UPDATE: libc::c_long = 29;
    pub(super) const LINK_GET_FD_BY_ID: libc::c_long = 30;
    pub(super) const LINK_DETACH: libc::c_long = 34;
}

/// `struct { ... } /* anonymous struct used by BPF_OBJ_* commands */` of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct ObjectCall {
    path: u64,
    descriptor: u32,
    flags: u32,
}

/// `struct { ... } info` of `union bpf_attr`.
#[repr(C)]
struct InfoCall {
    descriptor: u32,
    length: u32,
    info: u64,
}

/// `struct { ... } link_create` of `union bpf_attr`.
#[repr(C)]
struct LinkCreateCall {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

/// `struct { ... } link_detach` of `union bpf_attr`.
#[repr(C)]
struct LinkDetachCall {
    link: u32,
}

/// `struct { ... } link_update` of `union bpf_attr`.
#[repr(C)]
struct LinkUpdateCall {
    link: u32,
    program: u32,
    flags: u32,
    former_program: u32,
}

/// `struct { ... } /* anonymous struct used by BPF_*_GET_*_ID */` of `union bpf_attr`.
#[repr(C)]
struct IdCall {
    id: u32,
    next: u32,
    flags: u32,
}

/// The beginning of `struct bpf_link_info`, which has not moved since Linux 5.8.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LinkInfo {
    /// `enum bpf_link_type`.
    pub kind: u32,
    /// The link's number.
    pub id: u32,
    /// The number of the program it runs.
    pub program: u32,
    pad: u32,
    /// What it is attached to: the number of a cgroup.
    pub cgroup: u64,
    rest: [u64; 14],
}

impl LinkInfo {
    /// What it is attached to where that is an interface or a network namespace; 0 once that is
    /// gone.
    pub(super) fn target(&self) -> u64 {
        // Both are the first four bytes of the union.
        let [a, b, c, d, ..] = self.cgroup.to_ne_bytes();
        u64::from(u32::from_ne_bytes([a, b, c, d]))
    }
}

/// Opens what is pinned here.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut call = ObjectCall {
        path: address(path.as_ptr()),
        ..ObjectCall::default()
    };
    // SAFETY: the command reads a path that lives until the call returns.
    let number = unsafe { bpf(command::OBJ_GET, &mut call) }?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Pins a link, program or map.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut call = ObjectCall {
        path: address(path.as_ptr()),
        descriptor: number(object),
        flags: 0,
    };
    // SAFETY: the command reads a path that lives until the call returns.
    unsafe { bpf(command::OBJ_PIN, &mut call) }.map(drop)
}

/// Puts another program behind a link. There is no moment without one.
pub(super) fn replace_program(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut call = LinkUpdateCall {
        link: number(link),
        program: number(program),
        flags: 0,
        former_program: 0,
    };
    // SAFETY: the command reads plain numbers.
    unsafe { bpf(command::LINK_UPDATE, &mut call) }.map(drop)
}

/// Takes a link's program off its hook, whoever else holds the link.
pub(super) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut call = LinkDetachCall { link: number(link) };
    // SAFETY: the command reads a plain number.
    unsafe { bpf(command::LINK_DETACH, &mut call) }.map(drop)
}

/// Attaches an XDP program to the interface of this number.
pub(super) fn attach_xdp(
    program: BorrowedFd<'_>,
    interface: u32,
    mode: XdpMode,
) -> io::Result<OwnedFd> {
    /// `BPF_XDP` of `enum bpf_attach_type`.
    const BPF_XDP: u32 = 37;
    /// `XDP_FLAGS_SKB_MODE` and `XDP_FLAGS_DRV_MODE` in `<linux/if_link.h>`.
    const FLAGS: [u32; 2] = [1 << 1, 1 << 2];
    let mut call = LinkCreateCall {
        program: number(program),
        target: interface,
        attach_type: BPF_XDP,
        flags: FLAGS[usize::from(mode == XdpMode::Driver)],
    };
    // SAFETY: the command reads plain numbers.
    let number = unsafe { bpf(command::LINK_CREATE, &mut call) }?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// What a link is.
pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = LinkInfo::default();
    let mut call = InfoCall {
        descriptor: number(link),
        length: u32::try_from(size_of::<LinkInfo>()).map_err(io::Error::other)?,
        info: address(&raw mut info),
    };
    // SAFETY: the command writes at most `length` bytes to `info`, for which any bytes are a
    // value, and which lives until the call returns.
    unsafe { bpf(command::OBJ_GET_INFO_BY_FD, &mut call) }?;
    Ok(info)
}

/// Whether a link of this number still exists. Who may not ask (`CAP_SYS_ADMIN`) is told that it
/// does not.
pub(super) fn link_exists(id: u32) -> bool {
    let mut call = IdCall {
        id,
        next: 0,
        flags: 0,
    };
    // SAFETY: the command reads plain numbers.
    match unsafe { bpf(command::LINK_GET_FD_BY_ID, &mut call) } {
        Ok(number) => {
            // SAFETY: the kernel has just made this descriptor for us.
            drop(unsafe { OwnedFd::from_raw_fd(number) });
            true
        }
        Err(_) => false,
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

fn number(descriptor: BorrowedFd<'_>) -> u32 {
    // A descriptor that is open is never negative.
    descriptor.as_raw_fd().cast_unsigned()
}

fn address<T>(pointer: *const T) -> u64 {
    // Addresses have at most 64 bits.
    pointer.addr() as u64
}

/// bpf(2).
///
/// # Safety
///
/// `attributes` must be what the command expects, and what it points to must be valid.
unsafe fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the caller vouches for the attributes, and their size is their own.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}
