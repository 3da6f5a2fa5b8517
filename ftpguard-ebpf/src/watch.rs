//! Captures the bytes of control connections for the daemon's text watcher.

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_skb_load_bytes, generated::bpf_ringbuf_output},
    programs::TcContext,
};
use ftpguard_common::{
    abi::{CONTROL_BYTES, Session, SessionKey, advice_flags, port_word},
    event::{ControlHeader, Direction, FRAGMENT_LENGTH, MAX_CAPTURE, MAX_PIECES},
    packet::{Segment, View as _, flags},
    verdict::Incident,
};

use crate::{
    access::TcFrame,
    maps::{ADVICE, CONTROL, PIECE, PORTS, Piece, SESSIONS},
    report::{note, wakeup},
};

/// Captures a segment if it belongs to a control connection whose text is wanted.
#[inline(always)]
pub(crate) fn capture(ctx: &TcContext, segment: &Segment, direction: Direction) {
    let key = match direction {
        Direction::ToServer => SessionKey {
            client: segment.source,
            server: segment.destination,
            client_port: segment.source_port,
            server_port: segment.destination_port,
        },
        Direction::ToClient => SessionKey {
            client: segment.destination,
            server: segment.source,
            client_port: segment.destination_port,
            server_port: segment.source_port,
        },
    };
    let word = PORTS
        .get(u32::from(key.server_port.number()))
        .copied()
        .unwrap_or(0);
    if word & port_word::CONTROL == 0 {
        return;
    }
    let Some(session) = SESSIONS.get_ptr_mut(&key) else {
        return;
    };
    // SAFETY: one field is read once.
    let flags = unsafe { ADVICE.get(&key) }.map_or(0, |advice| advice.flags);
    if flags & advice_flags::OPAQUE != 0 {
        return;
    }
    // SAFETY: the entry stays valid for the time of this program.
    let session = unsafe { &mut *session };
    let urgent = flags & advice_flags::EPSV_ALL != 0;
    copy_out(ctx, segment, key, direction, session, urgent);
}

/// Cuts the payload into pieces and hands them over.
#[inline(always)]
fn copy_out(
    ctx: &TcContext,
    segment: &Segment,
    key: SessionKey,
    direction: Direction,
    session: &mut Session,
    urgent: bool,
) {
    // Sequence and acknowledgment numbers, data offset: bytes 4 to 13 (RFC 9293 section 3.1).
    let Some([a, b, c, d, offset_and_flags]) = TcFrame(ctx).pairs::<5>(segment.tcp + 4) else {
        return;
    };
    let [data_offset, _] = offset_and_flags.to_ne_bytes();
    let start = segment.tcp + usize::from(data_offset >> 4) * 4;
    let length = ctx.len() as usize;
    let end = if segment.end == 0 || segment.end > length {
        length
    } else {
        segment.end
    };
    let Some(piece) = PIECE.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: the pointer is to this CPU's element, and programs of this type do not interrupt
    // each other on one CPU while they hold it.
    let piece = unsafe { &mut *piece };
    piece.urgent = u32::from(urgent);
    piece.header = ControlHeader {
        session: key,
        sequence: wire_u32(a, b),
        acknowledgment: wire_u32(c, d),
        length: 0,
        captured: 0,
        direction: direction as u16,
        flags: u16::from(segment.flags),
    };
    if segment.is_fragment {
        // Its other fragments are not looked at. So none of what this host may take from it is
        // known, and other copies of it are not to be believed.
        piece.header.length = FRAGMENT_LENGTH;
        if let Direction::ToServer = direction {
            session.client_sequence = wire_u32(a, b).wrapping_add(FRAGMENT_LENGTH);
        }
        hand_over(piece, 0);
        return;
    }
    if start >= end {
        if segment.flags & (flags::SYN | flags::FIN | flags::RST) != 0 {
            hand_over(piece, 0);
        }
        return;
    }
    if let Direction::ToServer = direction {
        // Before the ftpd can read it: until the daemon has read as far, nothing narrows.
        let after = wire_u32(a, b).wrapping_add((end - start) as u32);
        session.client_sequence = after;
        if begins_with_rein(ctx, start) {
            session.rein_sequence = after;
        }
    }
    // Through memory, so that the verifier forgets by which headers it came here: it would
    // otherwise walk the loop once for each way.
    piece.at = start as u32;
    piece.end = end as u32;
    for _ in 0..MAX_PIECES {
        if !copy_piece(ctx, piece) {
            return;
        }
    }
    note(Incident::ControlBytesLost);
}

/// Copies and hands over the next piece. Returns whether another may follow.
#[inline(always)]
fn copy_piece(ctx: &TcContext, piece: &mut Piece) -> bool {
    // SAFETY: plain fields of this CPU's piece; volatile, or the compiler keeps them in
    // registers, whose bounds the verifier remembers.
    let at = unsafe { core::ptr::read_volatile(&raw const piece.at) };
    // SAFETY: as above.
    let end = unsafe { core::ptr::read_volatile(&raw const piece.end) };
    let left = end.wrapping_sub(at) as usize;
    // Counted from zero: the verifiers of Linux 5.10 and 6.1 learn nothing from `size != 0`, and
    // refuse a helper's length that might be zero. An empty rest wraps around to a huge number.
    let last = core::hint::black_box(if left > MAX_CAPTURE {
        MAX_CAPTURE - 1
    } else {
        left.wrapping_sub(1)
    });
    if last >= MAX_CAPTURE {
        return false;
    }
    let size = last + 1;
    // SAFETY: `size` lies between 1 and the size of `bytes`.
    let loaded =
        unsafe { bpf_skb_load_bytes(ctx.as_ptr(), at, (&raw mut piece.bytes).cast(), size as u32) };
    if loaded != 0 {
        note(Incident::ControlBytesLost);
        return false;
    }
    piece.header.length = size as u32;
    piece.header.captured = size as u32;
    hand_over(piece, size);
    piece.header.sequence = piece.header.sequence.wrapping_add(size as u32);
    piece.at = at + size as u32;
    left > MAX_CAPTURE
}

/// Writes header and the first `size` bytes to the ring buffer.
#[inline(always)]
fn hand_over(piece: &mut Piece, size: usize) {
    let total = (size_of::<ControlHeader>() + size) as u64;
    // SAFETY: a plain field of this CPU's piece; volatile, as in `copy_piece`.
    let urgent = unsafe { core::ptr::read_volatile(&raw const piece.urgent) } != 0;
    // SAFETY: `size` is at most MAX_CAPTURE, so `total` bytes lie within the piece.
    let written = unsafe {
        bpf_ringbuf_output(
            (&raw const CONTROL).cast_mut().cast(),
            (&raw mut *piece).cast(),
            total,
            wakeup(&CONTROL, CONTROL_BYTES, urgent),
        )
    };
    if written != 0 {
        note(Incident::ControlBytesLost);
    }
}

/// Whether these are the first letters of `REIN` (RFC 959 section 4.1.1), in either case.
#[inline(always)]
fn begins_with_rein(ctx: &TcContext, start: usize) -> bool {
    let Some([first, second]) = TcFrame(ctx).pairs::<2>(start) else {
        return false;
    };
    // Bit 5 tells a letter's case.
    wire_u32(first, second) & 0xdfdf_dfdf == u32::from_be_bytes(*b"REIN")
}

/// Two pairs of bytes of the wire as a number.
#[inline(always)]
fn wire_u32(first: u16, second: u16) -> u32 {
    u32::from(u16::from_be(first)) << 16 | u32::from(u16::from_be(second))
}
