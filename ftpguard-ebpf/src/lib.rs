//! Empty: gives the daemon's build script something to depend on, so that cargo rebuilds the
//! embedded object when this package changes.
#![no_std]
