//! A sandbox of network namespaces with real FTP servers and clients in it.
//!
//! A [`Sandbox`] is a small network of its own: a server, an honest client, a thief and a third
//! host (the target of bounces), joined by a bridge, with IPv4 and IPv6 addresses that no other
//! sandbox on this machine has. A real ftpd ([`Ftpd`]) and the guard ([`Guard`]) run on the
//! server. [`scenario`] plays one honest transfer or one attack and says who got what they
//! wanted. The end-to-end tests and `cargo xtask run` play the same scenarios.
//!
//! Everything here needs root, iproute2 and a cgroup v2 mount, and cleans up after itself when
//! it is dropped, also when a test panics.
#![forbid(unsafe_code)]

pub mod attack;
pub mod cgroup;
pub mod client;
pub mod dress;
pub mod flood;
pub mod ftpd;
pub mod guard;
pub mod measure;
pub mod namespace;
pub mod process;
pub mod proxy;
pub mod quick_start;
pub mod raw;
pub mod record;
pub mod sandbox;
pub mod scenario;
pub mod scripted;
pub mod service_manager;
pub mod shaper;
pub mod soak;
pub mod tap;
pub mod target;
pub mod terminal;
pub mod tls;
pub mod tool;
pub mod vm;
pub mod wire;

mod machine;
mod slot;

pub use client::FtpClient;
pub use ftpd::Ftpd;
pub use guard::Guard;
pub use sandbox::{Family, Host, Sandbox};
