//! The FTP grammar and the state of one control connection (RFC 959, RFC 2428, RFC 1639).
//!
//! Nothing here does io, allocates or reads a clock: bytes and times come in, events go out.
//! One file per syntax, lowest first:
//!
//! - [`stream`]: bytes in order out of captured TCP segments.
//! - [`telnet`], [`line`](mod@line): lines out of bytes.
//! - [`command`], [`reply`]: commands and replies out of lines, with the arguments that name a
//!   port in [`host_port`] (`PORT`, 227), [`extended`] (`EPRT`, 229) and [`long`] (`LPRT`, 228).
//! - [`dialogue`]: which reply answers which command, and what that means.
//!
//! Text never widens what sockets allow (rules P1 to P3): what is read here labels, narrows and
//! revokes. Every address in it is what somebody claimed.
#![forbid(unsafe_code)]

pub mod argument;
pub mod command;
mod cursor;
pub mod dialogue;
pub mod extended;
pub mod host_port;
pub mod line;
pub mod long;
pub mod reply;
pub mod stream;
pub mod telnet;

pub use argument::{ArgumentError, Fault, Target};
pub use command::{Command, DataCommand};
pub use dialogue::{Desynchrony, Dialogue, DialogueEvent, Opacity};
pub use stream::{Received, Segment, Sent, StreamEvent};
