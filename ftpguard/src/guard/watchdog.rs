//! Tells the service manager that the main loop is alive, where it wants to know.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// When the next sign of life is due.
pub(super) struct Watchdog {
    every: Duration,
    due: Option<Instant>,
}

impl Watchdog {
    /// As the service manager asks for it (`WATCHDOG_USEC`): a sign of life at half the time
    /// after which it restarts the guard. No service manager, or no `WatchdogSec=`: never.
    pub(super) fn from_environment() -> Self {
        Self::new(sd_notify::watchdog_enabled(), Instant::now())
    }

    fn new(limit: Option<Duration>, now: Instant) -> Self {
        let every = limit.unwrap_or_default() / 2;
        Self {
            every,
            due: (!every.is_zero()).then(|| now + every),
        }
    }

    /// When the main loop has to wake up for it.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Gives the sign of life if it is due.
    pub(super) fn on_deadline(&mut self, now: Instant) {
        if self.due.is_some_and(|due| due <= now) {
            self.due = Some(now + self.every);
            if let Err(error) = sd_notify::notify(&[NotifyState::Watchdog]) {
                log::warn!("the service manager's watchdog cannot be told: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_of_life_at_half_time() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(Watchdog::new(None, now).due(), None);
        assert_eq!(Watchdog::new(Some(Duration::ZERO), now).due(), None);
        let mut watchdog = Watchdog::new(Some(30 * second), now);
        assert_eq!(watchdog.due(), Some(now + 15 * second));
        watchdog.on_deadline(now + 14 * second);
        assert_eq!(watchdog.due(), Some(now + 15 * second));
        watchdog.on_deadline(now + 16 * second);
        assert_eq!(watchdog.due(), Some(now + 31 * second));
    }
}
