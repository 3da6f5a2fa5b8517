//! The only file that turns packet offsets into references.

use aya_ebpf::programs::{TcContext, XdpContext};
use ftpguard_common::packet::{View, Walk, walk};

/// A frame at the XDP hook: its linear part.
pub(crate) struct XdpFrame<'a>(pub &'a XdpContext);

impl View for XdpFrame<'_> {
    #[inline(always)]
    fn pairs<const N: usize>(&self, offset: usize) -> Option<[u16; N]> {
        direct(self.0.data(), self.0.data_end(), offset)
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.0.data_end() - self.0.data()
    }
}

/// A packet at a TC hook, read by a helper wherever its bytes lie.
pub(crate) struct TcFrame<'a>(pub &'a TcContext);

impl View for TcFrame<'_> {
    #[inline(always)]
    fn pairs<const N: usize>(&self, offset: usize) -> Option<[u16; N]> {
        self.0.load::<[u16; N]>(offset).ok()
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.0.len() as usize
    }
}

/// Walks the headers of a packet at a TC hook: in its linear part, where they nearly always
/// are, and once more with the helper where they go on beyond it.
///
/// Two walks, because choosing at each header doubles the ways through the program: Linux 6.18
/// verified 107,000 instructions of the egress guard then, and loading took as long.
#[inline(always)]
pub(crate) fn walk_tc(ctx: &TcContext) -> Walk {
    match walk(&LinearTcFrame(ctx)) {
        Walk::Malformed | Walk::TinyFragment => walk(&TcFrame(ctx)),
        found @ (Walk::Tcp(_) | Walk::Other | Walk::TooDeep) => found,
    }
}

/// A packet at a TC hook: its linear part.
struct LinearTcFrame<'a>(&'a TcContext);

impl View for LinearTcFrame<'_> {
    #[inline(always)]
    fn pairs<const N: usize>(&self, offset: usize) -> Option<[u16; N]> {
        direct(self.0.data(), self.0.data_end(), offset)
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.0.len() as usize
    }
}

/// Reads from the packet's linear part. The check stands right before the access and in this
/// form because the verifier of Linux 5.10 recognises no other.
#[inline(always)]
fn direct<const N: usize>(data: usize, data_end: usize, offset: usize) -> Option<[u16; N]> {
    let at = data + offset;
    if at + size_of::<[u16; N]>() > data_end {
        return None;
    }
    // SAFETY: `at` up to `at + N * 2` lies between the packet's data pointers, as just checked
    // here and once more by the verifier; the frame's headers are aligned to two bytes.
    Some(unsafe { *(at as *const [u16; N]) })
}
