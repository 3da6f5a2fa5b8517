//! How much is told: anyone on the network can cause denials (rule I6).

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use ftpguard_common::{event::TOLD_PER_SOURCE, verdict::Attack};

/// How many denials of each kind are told at once, and how many a second in the long run. The
/// rest is counted and told as a number.
const DENIALS: Allowance = Allowance {
    burst: 200,
    per_second: 20,
};

/// The same for everything else, which takes an established control connection to cause.
const OTHERS: Allowance = Allowance {
    burst: 4_000,
    per_second: 1_000,
};

/// How much is told a second of what one client says. It needs no login to say it over and over.
const TALK_PER_CLIENT: u32 = 20;

#[derive(Clone, Copy)]
struct Allowance {
    burst: u32,
    per_second: u32,
}

/// What may be told of denials: so much of each kind, and so much of each source.
pub(super) struct Denials {
    /// By the number of [`Attack`].
    kinds: [Bucket; Attack::ALL.len()],
    sources: Sources,
    held_back: u64,
}

impl Denials {
    pub(super) fn new() -> Self {
        Self {
            kinds: Attack::ALL.map(|_| Bucket::new(DENIALS)),
            sources: Sources::new(TOLD_PER_SOURCE),
            held_back: 0,
        }
    }

    /// Whether one more may be told; one that may not is counted.
    pub(super) fn take(&mut self, attack: Attack, source: IpAddr, now: Instant) -> bool {
        // A source that is told of enough takes nothing from the others; and one of a kind that is
        // told of enough is not remembered, so that there are few to remember.
        let sources = &mut self.sources;
        let is_told = self.kinds.get_mut(attack as usize).is_some_and(|kind| {
            kind.fill(now);
            kind.has_one() && sources.take(Some(attack), source, now) && kind.take(now)
        });
        if !is_told {
            self.held_back += 1;
        }
        is_told
    }

    /// How many were held back since the last call.
    pub(super) fn held_back(&mut self) -> u64 {
        std::mem::take(&mut self.held_back)
    }
}

/// What may be told of everything else.
pub(super) struct Others {
    all: Bucket,
    clients: Sources,
}

impl Others {
    pub(super) fn new() -> Self {
        Self {
            all: Bucket::new(OTHERS),
            clients: Sources::new(TALK_PER_CLIENT),
        }
    }

    /// Whether one more may be told; one that may not is counted. `speaker`: the client whose
    /// words it tells of.
    pub(super) fn take(&mut self, speaker: Option<IpAddr>, now: Instant) -> bool {
        if speaker.is_some_and(|client| !self.clients.take(None, client, now)) {
            self.all.held_back += 1;
            return false;
        }
        self.all.take(now)
    }

    /// How many were held back since the last call.
    pub(super) fn held_back(&mut self) -> u64 {
        self.all.held_back()
    }
}

/// How much of each source was told in this second.
struct Sources {
    told: HashMap<(Option<Attack>, IpAddr), u32>,
    since: Instant,
    most: u32,
}

impl Sources {
    fn new(most: u32) -> Self {
        Self {
            told: HashMap::new(),
            since: Instant::now(),
            most,
        }
    }

    fn take(&mut self, attack: Option<Attack>, source: IpAddr, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            self.told.clear();
            self.since = now;
        }
        let count = self.told.entry((attack, network(source))).or_default();
        *count += 1;
        *count <= self.most
    }
}

/// What counts as one source: whoever has an IPv6 address has the /64 around it.
fn network(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(_) => source,
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
    }
}

/// A token bucket.
struct Bucket {
    allowance: Allowance,
    tokens: f64,
    filled: Instant,
    held_back: u64,
}

impl Bucket {
    fn new(allowance: Allowance) -> Self {
        Self {
            allowance,
            tokens: f64::from(allowance.burst),
            filled: Instant::now(),
            held_back: 0,
        }
    }

    /// Whether one more may be told; one that may not is counted.
    fn take(&mut self, now: Instant) -> bool {
        self.fill(now);
        if !self.has_one() {
            self.held_back += 1;
            return false;
        }
        self.tokens -= 1.0;
        true
    }

    fn fill(&mut self, now: Instant) {
        let since: Duration = now.saturating_duration_since(self.filled);
        self.filled = now;
        self.tokens = (self.tokens + since.as_secs_f64() * f64::from(self.allowance.per_second))
            .min(f64::from(self.allowance.burst));
    }

    fn has_one(&self) -> bool {
        self.tokens >= 1.0
    }

    /// How many were held back since the last call.
    fn held_back(&mut self) -> u64 {
        std::mem::take(&mut self.held_back)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_tells_a_burst_then_a_trickle_and_counts_the_rest() {
        let mut bucket = Bucket::new(Allowance {
            burst: 3,
            per_second: 2,
        });
        let start = bucket.filled;
        let told = |bucket: &mut Bucket, after| {
            (0..10)
                .filter(|_| bucket.take(start + Duration::from_millis(after)))
                .count()
        };
        assert_eq!(told(&mut bucket, 0), 3);
        assert_eq!(bucket.held_back(), 7);
        assert_eq!(told(&mut bucket, 1_000), 2);
        assert_eq!(told(&mut bucket, 1_000), 0);
        // A long pause saves up no more than the burst.
        assert_eq!(told(&mut bucket, 3_600_000), 3);
        assert_eq!(bucket.held_back(), 8 + 10 + 7);
        assert_eq!(bucket.held_back(), 0);
    }

    /// A client that talks a lot is cut short; what is told of others goes on.
    #[test]
    fn one_talker_does_not_silence_the_rest() {
        let mut others = Others::new();
        let now = Instant::now();
        let [loud, quiet] = [1, 2].map(|last| IpAddr::from([192, 0, 2, last]));
        let told = (0..50_000).filter(|_| others.take(Some(loud), now)).count();
        assert_eq!(told, 20);
        assert!(others.take(Some(quiet), now));
        assert!(others.take(None, now));
        assert_eq!(others.held_back(), 50_000 - 20);
    }

    /// I6: neither a loud source nor a loud kind of attack hides a quiet one.
    #[test]
    fn the_loud_do_not_hide_the_quiet() {
        let mut denials = Denials::new();
        let now = Instant::now();
        let address = |last: u32| IpAddr::from((0xc000_0200 + last).to_be_bytes());
        let told = |denials: &mut Denials, attack, source, times| {
            (0..times)
                .filter(|_| denials.take(attack, source, now))
                .count()
        };
        let limit = usize::try_from(TOLD_PER_SOURCE).expect("small");
        assert_eq!(told(&mut denials, Attack::Theft, address(1), 1_000), limit);
        assert_eq!(told(&mut denials, Attack::Theft, address(2), 5), 5);
        // Random sources use a kind's burst up, and that kind's only.
        let probes = (0..100_000).filter(|last| denials.take(Attack::Probe, address(*last), now));
        assert!(probes.count() <= 200);
        assert_eq!(told(&mut denials, Attack::Theft, address(3), 5), 5);
        assert!(denials.sources.told.len() <= 203);
        assert_eq!(denials.held_back(), 1_000 - 10 + 100_000 - 200);
    }

    #[test]
    fn a_network_of_ipv6_addresses_is_one_source() {
        let mut denials = Denials::new();
        let now = Instant::now();
        let told = (0..1_000_u128).filter(|last| {
            let address = Ipv6Addr::from_bits(0x2001_0db8 << 96 | last);
            denials.take(Attack::Theft, address.into(), now)
        });
        assert_eq!(
            told.count(),
            usize::try_from(TOLD_PER_SOURCE).expect("small")
        );
    }
}
