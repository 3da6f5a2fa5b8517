//! Metrics for Prometheus: off unless `--metrics` names where they are served.
//!
//! - [`address`]: where, this host only.
//! - [`exposition`](mod@exposition): a guard's state as text.
//! - [`server`]: HTTP, with limits.

pub mod address;
pub mod exposition;
pub mod server;

pub use self::{address::MetricsAddress, server::Endpoint};
