//! Setting up data connections: how long it takes, and how often a first SYN is lost.

use std::{process::Command, time::Duration};

use anyhow::{Result, ensure};
use ftpguard_tests::{
    Family,
    ftpd::{Kind, Settings},
    measure::{self, Sequence},
    scenario::Stage,
    tls::Handshake,
};

use super::{
    Bench, micros, number,
    report::{Bound, Goal, Part},
    stats::quantile,
    table::{Table, compared, total},
    ways::{GUARD, Way, conntrack_is_there},
};

/// What is set up.
#[derive(Clone, Copy)]
struct Subject {
    kind: Kind,
    tls: bool,
    active: bool,
    family: Family,
}

const TEXT: Way = Way::Guard("text", "auto");

/// Which of the measures counts lost SYNs.
const LOST: usize = 4;

const SHORT: Duration = Duration::from_secs(5);

/// The most time that one way may take in one round. A lost SYN costs a second.
const LIMIT: Duration = Duration::from_secs(20);

/// The same for text tracking, which loses many when client and daemon share the processors.
const LIMIT_OF_TEXT: Duration = Duration::from_secs(4);

/// Transfers one small file after the other, in each way in turn.
pub(super) fn measure(bench: &Bench, part: &mut Part) -> Result<()> {
    part.name = "set-up";
    part.title = "Setting up a transfer";
    part.about = "Many transfers of a small file, one after the other in one session, from a \
        client on the same machine, which leaves the guard the least time. Passive: from sending \
        PASV or EPSV to the connected socket. Active: from sending PORT or EPRT and RETR to the \
        accepted connection. A lost first SYN costs its client a second. Client, ftpd and guard \
        share the processors.";
    let subjects = subjects(bench);
    let rounds = bench.rounds(3, 10);
    bench.progress.begin(part.name, subjects.len() * rounds);
    for subject in subjects {
        one(bench, part, subject, rounds)?;
    }
    Ok(())
}

/// Both ftpds, plain and under TLS, passive and active, over IPv4; the first of them over IPv6
/// too. Of these, three for a first impression.
fn subjects(bench: &Bench) -> Vec<Subject> {
    let mut subjects = Vec::new();
    for kind in [Kind::Vsftpd, Kind::Pyftpdlib] {
        for tls in [false, true] {
            for active in [false, true] {
                let subject = Subject {
                    kind,
                    tls,
                    active,
                    family: Family::V4,
                };
                subjects.push(subject);
            }
        }
    }
    if bench.quick {
        subjects.truncate(3);
        return subjects;
    }
    subjects.insert(
        1,
        Subject {
            kind: Kind::Vsftpd,
            tls: false,
            active: false,
            family: Family::V6,
        },
    );
    subjects
}

fn one(bench: &Bench, part: &mut Part, subject: Subject, rounds: usize) -> Result<()> {
    let settings = Settings {
        tls: subject.tls.then_some(Handshake::Explicit),
        ..Settings::of(subject.kind)
    };
    let stage = Stage::new(settings)?;
    let mut ways = vec![Way::Nothing, GUARD, Way::NothingAgain];
    if !subject.tls {
        ways.push(Way::Conntrack);
        // In active mode nobody waits for the daemon.
        if !subject.active {
            ways.push(TEXT);
        }
    }
    if subject.active {
        // Else thousands of connections from port 20 use up the client's ports: each would keep one
        // for a minute.
        let mut command = Command::new("sysctl");
        command.args(["-qw", "net.ipv4.tcp_max_tw_buckets=0"]);
        let finished = stage.sandbox.server().run(&mut command, SHORT)?;
        ensure!(finished.status.success(), "sysctl: {}", finished.stderr);
    }
    if ways.contains(&Way::Conntrack)
        && let Err(error) = conntrack_is_there(&stage.sandbox, bench)
    {
        ways.retain(|way| *way != Way::Conntrack);
        part.note(format!(
            "nf_conntrack_ftp is not available on this kernel: {error:#}"
        ));
    }
    if subject.tls {
        part.note(
            "Under TLS nf_conntrack_ftp and text tracking have nothing to read: with them every \
             passive transfer to a closed range fails, so they are not measured.",
        );
    }
    let measures = [
        compared("p50", "us"),
        compared("p99", "us"),
        compared("transfers", "1/s"),
        total("transfers made"),
        total("first SYNs lost"),
    ];
    // Of active connections the ftpd would know.
    let measures = &measures[..if subject.active { LOST } else { LOST + 1 }];
    let title = subject.title();
    let mut table = Table::new(title.clone(), measures, ways.iter().map(|way| way.label()));
    let count = bench.pick(150, 1_000);
    for round in 0..rounds {
        bench.progress.step(&title);
        for offset in 0..ways.len() {
            // No way comes always first.
            let row = (round + offset) % ways.len();
            let way = ways[row];
            let _place = way.put(bench, &stage.sandbox, None)?;
            let limit = if way == TEXT { LIMIT_OF_TEXT } else { LIMIT };
            let sequence = if subject.active {
                measure::active(&stage, subject.family, count, limit)
            } else {
                measure::passive(&stage, subject.family, count, limit)
            }?;
            add(&mut table, row, &sequence);
        }
    }
    goals(part, &table, &ways, subject);
    part.tables.push(table);
    Ok(())
}

fn add(table: &mut Table, row: usize, sequence: &Sequence) {
    let times: Vec<f64> = sequence.times.iter().map(|time| micros(*time)).collect();
    let count = number(times.len());
    for (measure, value) in [
        quantile(&times, 0.5).unwrap_or(f64::NAN),
        quantile(&times, 0.99).unwrap_or(f64::NAN),
        count / sequence.took.as_secs_f64(),
        count,
        number(sequence.lost),
    ]
    .into_iter()
    .enumerate()
    {
        table.add(row, measure, value);
    }
}

fn goals(part: &mut Part, table: &Table, ways: &[Way], subject: Subject) {
    let Some(guard) = ways.iter().position(|way| *way == GUARD) else {
        return;
    };
    let title = subject.title();
    let ratio = |measure| table.ratio(guard, measure).map(|ratio| ratio.median);
    part.goals.extend([
        Goal::new(format!("{title}: p50 ratio"), Bound::AtMost(1.05), ratio(0)),
        Goal::new(format!("{title}: rate"), Bound::AtLeast(0.97), ratio(2)),
    ]);
    // Of active connections the ftpd would know.
    if !subject.active {
        part.goals.push(Goal::new(
            format!("{title}: first SYNs lost"),
            Bound::AtMost(0.0),
            table.value(guard, LOST).map(|lost| lost.median),
        ));
    }
}

impl Subject {
    fn title(self) -> String {
        format!(
            "{}, {}, {}, {}",
            self.kind.label(),
            if self.active { "active" } else { "passive" },
            if self.tls { "TLS" } else { "plain" },
            self.family.label(),
        )
    }
}
