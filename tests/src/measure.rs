//! Many transfers in a row: how long a data connection takes, and how often a first SYN is lost.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::{
    client::{self, Commands, TIMEOUT},
    ftpd::SMALL_FILE,
    sandbox::Family,
    scenario::Stage,
};

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct Sequence {
    /// From sending PASV or EPSV to the established data connection, for each transfer.
    pub times: Vec<Duration>,
    /// How many first SYNs were lost.
    pub lost: usize,
}

/// Makes `count` passive transfers one after the other in one session, as fast as they go; stops
/// early when they take longer than `limit` altogether.
pub fn passive(stage: &Stage, family: Family, count: usize, limit: Duration) -> Result<Sequence> {
    stage.sandbox.client().enter(|| {
        let deadline = Instant::now() + limit.min(TIMEOUT * 100);
        let commands = Commands::of(family);
        let mut ftp = stage.login(family)?;
        let mut sequence = Sequence::default();
        while sequence.times.len() < count && Instant::now() < deadline {
            let start = Instant::now();
            let announced = ftp.passive(commands)?;
            let data = client::connect(announced)?;
            sequence.times.push(start.elapsed());
            sequence.lost += usize::from(data.syns_lost > 0);
            let content = ftp.receive(SMALL_FILE, data.stream)?;
            ensure!(
                stage.ftpd.content().starts_with(&content) && content.len() == 100,
                "a transfer was damaged"
            );
        }
        ftp.quit()?;
        Ok(sequence)
    })?
}

impl Sequence {
    /// Puts both together.
    pub fn extend(&mut self, other: &Self) {
        self.times.extend(&other.times);
        self.lost += other.lost;
    }

    /// The time that this share of the transfers, between 0 and 1, did not exceed.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Duration {
        let mut times = self.times.clone();
        times.sort_unstable();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index far below 2^52"
        )]
        let place = (times.len() as f64 * share) as usize;
        times
            .get(place.min(times.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_a_known_sequence() {
        let sequence = Sequence {
            times: (0..100).rev().map(Duration::from_millis).collect(),
            lost: 0,
        };
        assert_eq!(sequence.quantile(0.5), Duration::from_millis(50));
        assert_eq!(sequence.quantile(0.99), Duration::from_millis(99));
        assert_eq!(sequence.quantile(1.0), Duration::from_millis(99));
        assert_eq!(Sequence::default().quantile(0.5), Duration::ZERO);
    }
}
