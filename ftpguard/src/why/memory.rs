//! What the guard remembers of denials.
//!
//! Anyone on the network can cause denials, from any address he likes to forge. So they are summed
//! up, and of the sums the oldest are forgotten when there are too many. Each reason has room of
//! its own: a scan does not displace the one back end that an FTP server was refused.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
};

use ftpguard_common::verdict::Reason;
use serde::{Deserialize, Serialize};

use super::evidence::needs_exception;
use crate::events::{Ends, Happening};

/// How many kinds of denials are remembered of each reason.
const MAX_KINDS: usize = 512;
/// How many clients are remembered of those that a port was open for.
const MAX_OTHERS: usize = 8;
/// How many addresses that clients asked for are remembered.
const MAX_REQUESTS: usize = 256;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attempt {
    /// A SYN that came in.
    Syn,
    /// A connect() of an FTP server.
    Connect,
    /// A SYN on its way out.
    OutgoingSyn,
}

/// Denials of one kind: the same attempt by or to the same address, refused for the same reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denied {
    /// What was asked for.
    pub attempt: Attempt,
    /// A label of [`Reason`].
    pub reason: String,
    /// Whether it passed all the same: monitor mode.
    pub passed: bool,
    /// The other side: the client of a SYN, the destination of a connect().
    pub remote: IpAddr,
    /// The port that was asked for last: this host's for a SYN, the destination's otherwise.
    pub port: u16,
    /// This host's address, where it is known.
    pub server: Option<IpAddr>,
    /// The process that called connect() last.
    pub pid: Option<u32>,
    /// The client whose session that process serves, where it serves one.
    pub serves: Option<Ends>,
    /// The client that asked for this destination with PORT or EPRT.
    pub requested_by: Option<IpAddr>,
    /// Clients for which the port was open.
    pub open_for: Vec<IpAddr>,
    /// Whether the other side held a control connection the last time.
    pub has_session: bool,
    /// How often.
    pub count: u64,
    /// The first time, in milliseconds since 1970-01-01 00:00 UTC.
    pub first: u64,
    /// The last time, likewise.
    pub last: u64,
}

/// What surrounds a denial and is not in its event.
#[derive(Clone, Debug, Default)]
pub struct Around {
    /// The session that the calling process serves.
    pub serves: Option<Ends>,
    /// Whether the other side holds a control connection.
    pub has_session: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Kind {
    attempt: Attempt,
    reason: Reason,
    passed: bool,
    remote: IpAddr,
    /// 0 for SYNs that come in: a scan is one kind.
    port: u16,
}

/// The memory.
#[derive(Debug, Default)]
pub struct Memory {
    kinds: HashMap<Reason, HashMap<Kind, Denied>>,
    requests: VecDeque<(IpAddr, u16, IpAddr)>,
    forgotten: u64,
    /// Those of them that monitor mode let pass and that may need an exception.
    forgotten_evidence: u64,
}

impl Memory {
    /// Remembers what happened at `time`, if it is a denial or explains one to come.
    pub fn note(&mut self, time: u64, what: &Happening, around: &Around) {
        if let Happening::ForeignPortRequest {
            ends,
            requested,
            requested_port,
        } = what
        {
            if self.requests.len() == MAX_REQUESTS {
                self.requests.pop_front();
            }
            self.requests
                .push_back((*requested, *requested_port, ends.client));
            self.name_client(*requested, *requested_port, ends.client);
            return;
        }
        let Some((kind, mut denied)) = read(time, what) else {
            return;
        };
        denied.serves = around.serves;
        denied.has_session = around.has_session;
        denied.requested_by = self.requested_by(&kind);
        self.make_room(&kind);
        self.kinds
            .entry(kind.reason)
            .or_default()
            .entry(kind)
            .and_modify(|known| known.add(&denied))
            .or_insert(denied);
    }

    /// What is remembered of the denials that `wanted` accepts, the latest first.
    #[must_use]
    pub fn find(&self, wanted: impl Fn(&Denied) -> bool) -> Vec<Denied> {
        let mut found: Vec<Denied> = self
            .kinds
            .values()
            .flat_map(HashMap::values)
            .filter(|denied| wanted(denied))
            .cloned()
            .collect();
        found.sort_by(|one, other| {
            (other.last, other.count, other.remote).cmp(&(one.last, one.count, one.remote))
        });
        found
    }

    /// How many kinds were forgotten.
    #[must_use]
    pub const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// How many kinds were forgotten, since monitor mode began, that it let pass and that may
    /// need an exception.
    #[must_use]
    pub const fn forgotten_evidence(&self) -> u64 {
        self.forgotten_evidence
    }

    /// Forgets what monitor mode let pass: it begins anew.
    pub fn begin_monitor(&mut self) {
        for kinds in self.kinds.values_mut() {
            kinds.retain(|kind, _| !kind.passed);
        }
        self.forgotten_evidence = 0;
    }

    fn requested_by(&self, kind: &Kind) -> Option<IpAddr> {
        self.requests
            .iter()
            .rev()
            .find(|(address, port, _)| (*address, *port) == (kind.remote, kind.port))
            .map(|(_, _, client)| *client)
    }

    /// Says of the denials of this destination who asked for it, where that was not known yet: the
    /// text may be read after the event.
    fn name_client(&mut self, remote: IpAddr, port: u16, client: IpAddr) {
        for (reason, kinds) in &mut self.kinds {
            for attempt in [Attempt::Connect, Attempt::OutgoingSyn] {
                for passed in [false, true] {
                    let kind = Kind {
                        attempt,
                        reason: *reason,
                        passed,
                        remote,
                        port,
                    };
                    if let Some(denied) = kinds.get_mut(&kind) {
                        denied.requested_by.get_or_insert(client);
                    }
                }
            }
        }
    }

    /// Forgets the older half of this kind's reason when there are too many: rarely, and then at
    /// once.
    fn make_room(&mut self, new: &Kind) {
        let Some(kinds) = self.kinds.get_mut(&new.reason) else {
            return;
        };
        if kinds.len() < MAX_KINDS || kinds.contains_key(new) {
            return;
        }
        let mut times: Vec<u64> = kinds.values().map(|denied| denied.last).collect();
        let middle = times.len() / 2;
        let (_, median, _) = times.select_nth_unstable(middle);
        let median = *median;
        for (kind, _) in kinds.extract_if(|_, denied| denied.last <= median) {
            self.forgotten += 1;
            if kind.passed && needs_exception(kind.reason) {
                self.forgotten_evidence += 1;
            }
        }
    }
}

impl Denied {
    fn add(&mut self, new: &Self) {
        self.port = new.port;
        self.server = new.server;
        self.pid = new.pid;
        self.serves = new.serves.or(self.serves);
        self.requested_by = new.requested_by.or(self.requested_by);
        self.has_session = new.has_session;
        for client in &new.open_for {
            if self.open_for.len() < MAX_OTHERS && !self.open_for.contains(client) {
                self.open_for.push(*client);
            }
        }
        self.count += new.count;
        self.last = self.last.max(new.last);
    }

    /// The reason, `None` for one that another version of the guard named.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        Reason::from_label(&self.reason)
    }
}

/// A denial on its own.
fn read(time: u64, what: &Happening) -> Option<(Kind, Denied)> {
    let plain = |attempt, reason: &str, mode: &str, remote, port| {
        let reason = Reason::from_label(reason)?;
        let passed = mode == "monitor";
        let kind = Kind {
            attempt,
            reason,
            passed,
            remote,
            port: if attempt == Attempt::Syn { 0 } else { port },
        };
        let denied = Denied {
            attempt,
            reason: reason.label().to_owned(),
            passed,
            remote,
            port,
            server: None,
            pid: None,
            serves: None,
            requested_by: None,
            open_for: Vec::new(),
            has_session: false,
            count: 1,
            first: time,
            last: time,
        };
        Some((kind, denied))
    };
    if let Happening::SynDenied {
        way,
        reason,
        mode,
        open_for,
        ..
    } = what
    {
        let (kind, mut denied) = plain(Attempt::Syn, reason, mode, way.client, way.port)?;
        denied.server = Some(way.server);
        denied.open_for = open_for.iter().copied().take(MAX_OTHERS).collect();
        return Some((kind, denied));
    }
    if let Happening::ConnectRefused {
        destination,
        port,
        pid,
        reason,
        mode,
    } = what
    {
        let (kind, mut denied) = plain(Attempt::Connect, reason, mode, *destination, *port)?;
        denied.pid = Some(*pid);
        return Some((kind, denied));
    }
    if let Happening::EgressDenied {
        destination,
        port,
        server,
        reason,
        mode,
        ..
    } = what
    {
        let (kind, mut denied) = plain(Attempt::OutgoingSyn, reason, mode, *destination, *port)?;
        denied.server = Some(*server);
        return Some((kind, denied));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Way;

    fn syn(client: [u8; 4], port: u16, mode: &'static str) -> Happening {
        Happening::SynDenied {
            way: Way {
                client: client.into(),
                server: [10, 0, 0, 1].into(),
                port,
            },
            client_port: 4711,
            reason: Reason::NoPinhole.label().into(),
            mode: mode.into(),
            attack: "theft-attempt".into(),
            open_for: vec![[10, 0, 0, 2].into()],
        }
    }

    #[test]
    fn denials_of_one_kind_are_summed_up() {
        let mut memory = Memory::default();
        let around = Around::default();
        memory.note(5, &syn([10, 0, 0, 3], 50_000, "enforce"), &around);
        memory.note(9, &syn([10, 0, 0, 3], 50_001, "enforce"), &around);
        memory.note(7, &syn([10, 0, 0, 4], 50_001, "enforce"), &around);
        memory.note(8, &syn([10, 0, 0, 3], 50_001, "monitor"), &around);
        let all = memory.find(|_| true);
        let shown: Vec<_> = all
            .iter()
            .map(|denied| {
                (
                    denied.remote.to_string(),
                    denied.passed,
                    denied.count,
                    denied.first,
                    denied.last,
                    denied.port,
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("10.0.0.3".to_owned(), false, 2, 5, 9, 50_001),
                ("10.0.0.3".to_owned(), true, 1, 8, 8, 50_001),
                ("10.0.0.4".to_owned(), false, 1, 7, 7, 50_001),
            ]
        );
        memory.begin_monitor();
        assert_eq!(memory.find(|denied| denied.passed), []);
        assert_eq!(memory.find(|_| true).len(), 2);
    }

    #[test]
    fn a_flood_of_forged_addresses_is_bounded_and_the_latest_stay() {
        let mut memory = Memory::default();
        let around = Around::default();
        for number in 0..100_000_u32 {
            let [_, b, c, d] = number.to_be_bytes();
            memory.note(
                u64::from(number),
                &syn([10, b, c, d], 50_000, "enforce"),
                &around,
            );
        }
        let kept = |memory: &Memory| memory.find(|_| true).len();
        assert!(kept(&memory) <= MAX_KINDS);
        assert_eq!(
            memory.forgotten() + u64::try_from(kept(&memory)).expect("few"),
            100_000
        );
        let [_, b, c, d] = 99_999_u32.to_be_bytes();
        let latest: IpAddr = [10, b, c, d].into();
        assert_eq!(
            memory.find(|_| true).first().map(|denied| denied.remote),
            Some(latest)
        );
        // All in one millisecond.
        for number in 0..100_000_u32 {
            let [_, b, c, d] = number.to_be_bytes();
            memory.note(200_000, &syn([11, b, c, d], 50_000, "enforce"), &around);
        }
        assert!(kept(&memory) <= MAX_KINDS);
    }

    /// M1: whoever scans a host in monitor mode does not make it forget the back end that its FTP
    /// server connects to once a day.
    #[test]
    fn m1_a_scan_does_not_displace_what_other_reasons_denied() {
        let mut memory = Memory::default();
        let around = Around::default();
        let backend: IpAddr = [192, 0, 2, 10].into();
        memory.note(
            1,
            &Happening::ConnectRefused {
                destination: backend,
                port: 389,
                pid: 4242,
                reason: Reason::ConnectToStranger.label().into(),
                mode: "monitor".into(),
            },
            &around,
        );
        for number in 0..2_000_u32 {
            let [_, b, c, d] = number.to_be_bytes();
            memory.note(9, &syn([10, b, c, d], 50_000, "monitor"), &around);
        }
        let connects = memory.find(|denied| denied.attempt == Attempt::Connect);
        assert_eq!(
            connects.first().map(|denied| denied.remote),
            Some(backend),
            "the scan displaced it"
        );
        // What was forgotten needs no exception: strangers at data ports.
        assert!(memory.forgotten() > 0);
        assert_eq!(memory.forgotten_evidence(), 0);
        for number in 0..2_000_u32 {
            let [_, b, c, d] = number.to_be_bytes();
            let what = Happening::ConnectRefused {
                destination: [10, b, c, d].into(),
                port: 6667,
                pid: 4242,
                reason: Reason::ConnectToStranger.label().into(),
                mode: "monitor".into(),
            };
            memory.note(9, &what, &around);
        }
        assert!(memory.forgotten_evidence() > 0);
        memory.begin_monitor();
        assert_eq!(memory.forgotten_evidence(), 0);
    }

    #[test]
    fn a_connect_names_the_client_that_asked_for_it() {
        let mut memory = Memory::default();
        let ends = Ends {
            client: [10, 0, 0, 2].into(),
            client_port: 4711,
            server: [10, 0, 0, 1].into(),
            port: 21,
        };
        memory.note(
            1,
            &Happening::ForeignPortRequest {
                ends,
                requested: [10, 0, 0, 9].into(),
                requested_port: 6667,
            },
            &Around::default(),
        );
        let refused = |port| Happening::ConnectRefused {
            destination: [10, 0, 0, 9].into(),
            port,
            pid: 4242,
            reason: Reason::ConnectToStranger.label().into(),
            mode: "enforce".into(),
        };
        let around = Around {
            serves: Some(ends),
            has_session: false,
        };
        memory.note(2, &refused(6667), &around);
        memory.note(3, &refused(6668), &around);
        let found = memory.find(|_| true);
        let [other, asked] = found.as_slice() else {
            panic!("{found:?}");
        };
        assert_eq!(other.requested_by, None);
        assert_eq!(asked.requested_by, Some(ends.client));
        assert_eq!((asked.pid, asked.serves), (Some(4242), Some(ends)));
        // Text is read after the event: its ring buffer is another one.
        memory.note(
            4,
            &Happening::ForeignPortRequest {
                ends,
                requested: [10, 0, 0, 9].into(),
                requested_port: 6668,
            },
            &Around::default(),
        );
        let found = memory.find(|denied| denied.requested_by == Some(ends.client));
        assert_eq!(found.len(), 2, "{found:?}");
    }
}
