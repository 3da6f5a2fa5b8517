//! What the live view knows: made of the guard's answers and events, without a terminal.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    time::Instant,
};

use crate::{
    events::{Happening, Record},
    status::{PinholeRow, SessionRow, Status},
};

/// For how many seconds the rate of refusals is remembered.
pub(super) const HISTORY: usize = 120;
/// How many attackers are remembered; the one not seen for longest makes room.
const MAX_ATTACKERS: usize = 1_024;

/// The guard's answers of one moment.
#[derive(Clone, Debug)]
pub(super) struct Answers {
    pub(super) status: Status,
    pub(super) sessions: Vec<SessionRow>,
    pub(super) pinholes: Vec<PinholeRow>,
}

/// One reason for refusing, with what was counted.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Refused {
    pub(super) reason: String,
    pub(super) total: u64,
    pub(super) per_second: f64,
}

/// One address that was refused something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attacker {
    pub(super) address: IpAddr,
    /// How many events told of it. Not every denial becomes an event.
    pub(super) seen: u64,
    /// Milliseconds since 1970.
    pub(super) last_at: u64,
    /// What was refused last.
    pub(super) last: String,
}

/// Everything that is shown.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) answers: Option<Answers>,
    /// Why there are no answers now.
    pub(super) trouble: Option<String>,
    /// Whether the screen stands still.
    pub(super) paused: bool,
    /// By reason, most frequent now first, then most frequent ever.
    pub(super) refused: Vec<Refused>,
    /// Refusals of each second, latest last.
    pub(super) history: VecDeque<u64>,
    attackers: HashMap<IpAddr, Attacker>,
    counted_at: Option<Instant>,
}

impl Model {
    /// Takes the guard's answers, which it gave at `now`.
    pub(super) fn take_answers(&mut self, now: Instant, answers: Answers) {
        self.trouble = None;
        if self.paused {
            return;
        }
        let same_guard = self
            .answers
            .as_ref()
            .is_some_and(|before| before.status.pid == answers.status.pid);
        // The first answer, also of a guard that was started again, says nothing of a rate.
        let elapsed = self
            .counted_at
            .filter(|_| same_guard)
            .map(|at| now.saturating_duration_since(at).as_secs_f64())
            .filter(|elapsed| *elapsed > 0.0);
        self.count_refused(&answers.status, elapsed);
        self.counted_at = Some(now);
        self.answers = Some(answers);
    }

    fn count_refused(&mut self, status: &Status, elapsed: Option<f64>) {
        let mut new = 0;
        let mut refused = Vec::new();
        for count in &status.verdicts {
            if count.verdict != "deny" {
                continue;
            }
            let before = self
                .refused
                .iter()
                .find(|other| other.reason == count.name)
                .map_or(0, |other| other.total);
            let more = count.count.saturating_sub(before);
            new += more;
            refused.push(Refused {
                reason: count.name.clone(),
                total: count.count,
                per_second: elapsed.map_or(0.0, |elapsed| rate(more, elapsed)),
            });
        }
        refused.sort_by(|a, b| {
            b.per_second
                .total_cmp(&a.per_second)
                .then(b.total.cmp(&a.total))
        });
        self.refused = refused;
        if let Some(elapsed) = elapsed {
            if self.history.len() == HISTORY {
                self.history.pop_front();
            }
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a rate is not negative, and a counter's increase fits"
            )]
            let per_second = rate(new, elapsed).round() as u64;
            self.history.push_back(per_second);
        }
    }

    /// Takes one event.
    pub(super) fn take_event(&mut self, record: &Record) {
        if self.paused {
            return;
        }
        if let Happening::SynDenied {
            way,
            reason,
            open_for,
            ..
        } = &record.what
        {
            let whose = if open_for.is_empty() {
                ""
            } else {
                " of another"
            };
            let last = format!("{reason}, port {}{whose}", way.port);
            self.attacked(way.client, record.time, last);
        } else if let Happening::ForeignPortRequest {
            ends,
            requested,
            requested_port,
        } = &record.what
        {
            let last = format!("asked for {requested} port {requested_port}");
            self.attacked(ends.client, record.time, last);
        }
    }

    fn attacked(&mut self, address: IpAddr, at: u64, last: String) {
        if !self.attackers.contains_key(&address)
            && self.attackers.len() >= MAX_ATTACKERS
            && let Some(oldest) = self
                .attackers
                .values()
                .min_by_key(|attacker| attacker.last_at)
                .map(|attacker| attacker.address)
        {
            self.attackers.remove(&oldest);
        }
        let attacker = self.attackers.entry(address).or_insert(Attacker {
            address,
            seen: 0,
            last_at: at,
            last: String::new(),
        });
        attacker.seen += 1;
        attacker.last_at = attacker.last_at.max(at);
        attacker.last = last;
    }

    /// The attackers, those seen last first.
    pub(super) fn attackers(&self) -> Vec<&Attacker> {
        let mut all: Vec<&Attacker> = self.attackers.values().collect();
        all.sort_by_key(|attacker| (std::cmp::Reverse(attacker.last_at), attacker.address));
        all
    }

    /// All refusals, and how many there were in the last second.
    pub(super) fn refusals(&self) -> (u64, f64) {
        (
            self.refused.iter().map(|refused| refused.total).sum(),
            self.refused.iter().map(|refused| refused.per_second).sum(),
        )
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a figure for people, of three digits"
)]
fn rate(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}
