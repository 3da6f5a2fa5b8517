//! What ftpguard's kernel programs and its daemon have in common.
//!
//! - [`net`]: addresses and ports as they cross the boundary.
//! - [`abi`]: keys, values and limits of every BPF map.
//! - [`event`]: what the kernel side tells through the ring buffer.
//! - [`verdict`]: what is decided about one SYN or one connect(), and why.
//! - [`packet`]: the walk from an Ethernet frame to a TCP header.
//! - [`yardstick`]: what the benchmark tells its source of SYNs; no part of the guard.
//! - [`ftp`]: the FTP grammar and the state of one control connection.
//!
//! # Byte order
//!
//! Addresses are 16 bytes as on the wire, IPv4 as `::ffff:a.b.c.d`; ports are two bytes as on
//! the wire. Both have types of their own ([`net::Address`], [`net::Port`]), so no number in a
//! shared struct needs a byte order: every other field is in the order of the host.
//!
//! # Layout
//!
//! Shared structs are `repr(C)`, have no implicit padding (bytemuck's `Pod` refuses it), hold
//! no `bool`, `usize` or Rust enum, and have their size asserted where they are declared.
#![no_std]
#![expect(
    clippy::inline_always,
    reason = "the kernel side is one program: what is not inlined costs it a call and its proofs"
)]

pub mod abi;
pub mod event;
pub mod ftp;
pub mod net;
pub mod packet;
#[cfg(feature = "user")]
mod user;
pub mod verdict;
pub mod yardstick;
