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
pub(super) struct Alarm {
    seen: [u64; WATCHED.len()],
}

impl Alarm {
    /// From here on; what an earlier daemon's counters hold was told by that one.
    pub(super) fn begin<E>(count: impl Fn(Incident) -> Result<u64, E>) -> Result<Self, E> {
        let mut seen = [0; WATCHED.len()];
        for (incident, seen) in WATCHED.into_iter().zip(&mut seen) {
            *seen = count(incident)?;
        }
        Ok(Self { seen })
    }

    /// What was left out since the last time, and how often.
    fn look<E>(
        &mut self,
        count: impl Fn(Incident) -> Result<u64, E>,
    ) -> Result<Vec<(Incident, u64)>, E> {
        let mut news = Vec::new();
        for (incident, seen) in WATCHED.into_iter().zip(&mut self.seen) {
            let now = count(incident)?;
            let new = now.saturating_sub(*seen);
            if new > 0 {
                *seen = now;
                news.push((incident, new));
            }
        }
        Ok(news)
    }
}

impl Guard {
    /// Tells what was left out since the last time.
    pub(super) fn check_room(&mut self) -> Result<(), KernelError> {
        let maps = &self.kernel.maps;
        for (incident, count) in self.alarm.look(|incident| maps.incident(incident))? {
            self.journal.tell(Happening::OutOfRoom {
                what: incident.label().into(),
                count,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// K9, K10: a daemon that takes over tells what happens from then on.
    #[test]
    fn k10_what_was_counted_before_is_no_news() {
        let old = |_| Ok::<_, Infallible>(5_000);
        let Ok(mut alarm) = Alarm::begin(old);
        assert_eq!(alarm.look(old), Ok(Vec::new()));
        let new =
            |incident| Ok::<_, Infallible>(5_000 + u64::from(incident == Incident::ClientQuota));
        assert_eq!(alarm.look(new), Ok(vec![(Incident::ClientQuota, 1)]));
        assert_eq!(alarm.look(new), Ok(Vec::new()));
    }
}
