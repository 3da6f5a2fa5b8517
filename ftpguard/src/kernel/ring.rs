//! A ring buffer, read when the kernel says that there is something in it.

use std::io;

use aya::maps::{MapData, RingBuf};
use tokio::io::{Interest, unix::AsyncFd};

/// The reading end of a ring buffer.
pub struct Ring(AsyncFd<RingBuf<MapData>>);

impl Ring {
    /// Registers the ring buffer with the running tokio runtime.
    pub fn new(ring: RingBuf<MapData>) -> io::Result<Self> {
        // SAFETY: the ring buffer owns its file descriptor, always gives the same one, and moves
        // into the `AsyncFd`, which deregisters before it drops it.
        unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }
            .map(Self)
            .map_err(io::Error::from)
    }

    /// Waits until there is a record. Cancel safe.
    pub async fn readable(&mut self) -> io::Result<()> {
        // The guard goes without clearing: `drain` clears once the ring is empty.
        self.0.readable_mut().await.map(drop)
    }

    /// Hands over at most `limit` records, oldest first. Whether the ring is empty now.
    pub fn drain(&mut self, limit: usize, mut read: impl FnMut(&[u8])) -> bool {
        for _ in 0..limit {
            let Some(record) = self.0.get_mut().next() else {
                self.clear();
                return true;
            };
            read(&record);
        }
        false
    }

    /// Sleep until the kernel's next wake-up, which comes for the next record: the kernel sends
    /// one whenever the reader had caught up.
    fn clear(&mut self) {
        let _ = self
            .0
            .try_io_mut(Interest::READABLE, |_| -> io::Result<()> {
                Err(io::ErrorKind::WouldBlock.into())
            });
    }
}
