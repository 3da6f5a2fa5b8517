//! Tables that are full and clients that have had their share: told at once, and not more often
//! than once a second (rule K9).

use ftpguard_common::verdict::Incident;

use super::Guard;
use crate::{events::Happening, kernel::KernelError};

/// What leaves somebody out.
const WATCHED: [Incident; 6] = [
    Incident::SessionTableFull,
    Incident::PinholeTableFull,
    Incident::ListenerTableFull,
    Incident::ProcessTableFull,
    Incident::PeerTableFull,
    Incident::ClientQuota,
];

/// What was counted when it was last looked at.
#[derive(Default)]
pub(super) struct Alarm {
    seen: [u64; WATCHED.len()],
}

impl Guard {
    /// Tells what was left out since the last time.
    pub(super) fn check_room(&mut self) -> Result<(), KernelError> {
        for (incident, seen) in WATCHED.into_iter().zip(&mut self.alarm.seen) {
            let now = self.kernel.maps.incident(incident)?;
            let new = now.saturating_sub(*seen);
            if new > 0 {
                *seen = now;
                self.journal.tell(Happening::OutOfRoom {
                    what: incident.label().into(),
                    count: new,
                });
            }
        }
        Ok(())
    }
}
