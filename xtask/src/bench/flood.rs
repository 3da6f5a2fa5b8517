//! A flood of SYNs: what one dropped SYN costs, and what is left for an honest client.

mod rig;

use std::time::Duration;

use anyhow::Result;
use ftpguard_tests::{Family, measure};

pub(super) use self::rig::processor_time;
use self::rig::{Rig, pin};
use super::{
    Bench, micros, number,
    report::{Bound, Goal, Part},
    stats::quantile,
    table::{Table, alone, compared, total},
    ways::{Way, conntrack_is_there},
};

const NATIVE: Way = Way::Guard("socket", "native");
const GENERIC: Way = Way::Guard("socket", "generic");
const TC: Way = Way::Guard("socket", "tc");

/// How many SYNs a second the honest client has to live with.
const RATE: u32 = 1_000_000;

/// Floods the passive range.
pub(super) fn measure(bench: &Bench, part: &mut Part) -> Result<()> {
    part.name = "flood";
    part.title = "A flood of SYNs";
    part.about = "SYNs from random addresses to the passive range, made in the kernel by live \
        frames of BPF_PROG_TEST_RUN and received over veth by a NAPI thread of its own. Only that \
        thread's processor time is counted: what receiving and dropping one SYN costs the \
        server. Then \
        an honest client makes passive transfers while a million SYNs a second arrive. ftpd and \
        receiver share one processor, client and flood another. With no flood, the same SYNs \
        are made and thrown away.";
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        part.note("Not measured: it takes two processors.");
        return Ok(());
    }
    let rig = Rig::new()?;
    let conntrack = conntrack_is_there(&rig.stage.sandbox, bench);
    if let Err(error) = &conntrack {
        part.note(format!(
            "nf_conntrack_ftp is not available on this kernel: {error:#}"
        ));
    }
    let there = |way: &Way| *way != Way::Conntrack || conntrack.is_ok();
    let mut ways = vec![
        Way::DropAll,
        Way::ParseOnly,
        NATIVE,
        TC,
        GENERIC,
        Way::NetdevSet,
        Way::RawDrop,
        Way::Conntrack,
        Way::Nothing,
    ];
    ways.retain(there);
    let six = [Way::DropAll, Way::ParseOnly, NATIVE, TC, Way::NetdevSet];
    let mut honest = vec![
        NATIVE,
        TC,
        Way::NetdevSet,
        Way::RawDrop,
        Way::Conntrack,
        Way::Nothing,
    ];
    honest.retain(there);

    let rounds = bench.rounds(2, 7);
    let honest_rounds = bench.rounds(1, 5);
    let steps = rounds * (ways.len() + six.len()) + honest_rounds * (honest.len() + 1);
    bench.progress.begin(part.name, steps);
    let four = cost(bench, &rig, Family::V4, &ways, rounds)?;
    part.goals.extend(cost_goals(&four, &ways, Family::V4));
    part.tables.push(four);
    let table = cost(bench, &rig, Family::V6, &six, rounds)?;
    part.goals.extend(cost_goals(&table, &six, Family::V6));
    part.tables.push(table);
    let table = meanwhile(bench, &rig, &honest, honest_rounds)?;
    let row = honest.iter().position(|way| *way == NATIVE);
    let share = row.and_then(|row| table.ratio(row + 1, 0));
    part.goals.push(Goal::new(
        "transfers kept under a million SYNs a second, XDP in the driver",
        Bound::AtLeast(0.5),
        share.map(|share| share.median),
    ));
    let daemon = row.and_then(|row| table.value(row + 1, 3));
    part.goals.push(Goal::new(
        "the daemon's share of one processor in that flood, percent",
        Bound::AtMost(5.0),
        daemon.map(|daemon| daemon.median),
    ));
    part.tables.push(table);
    Ok(())
}

/// As many SYNs as go, in each way in turn.
fn cost(bench: &Bench, rig: &Rig, family: Family, ways: &[Way], rounds: usize) -> Result<Table> {
    let mut table = Table::new(
        format!("{}: one SYN, as many as go", family.label()),
        &[
            compared("processor time for each SYN", "ns"),
            alone("SYNs a whole processor would drop", "1/s"),
        ],
        ways.iter().map(|way| way.label()),
    );
    let seconds = bench.pick(0.6, 2.0);
    for round in 0..rounds {
        for offset in 0..ways.len() {
            let row = (round + offset) % ways.len();
            let way = ways[row];
            bench
                .progress
                .step(&format!("{}, {}", family.label(), way.label()));
            let _place = way.put(bench, &rig.stage.sandbox, Some(rig.interface()))?;
            let received = rig.flood(bench, family, seconds)?;
            table.add(row, 0, received.nanoseconds / received.packets);
            table.add(row, 1, received.packets / (received.nanoseconds / 1e9));
        }
    }
    Ok(table)
}

fn cost_goals(table: &Table, ways: &[Way], family: Family) -> Vec<Goal> {
    let ratio = |way| {
        let row = ways.iter().position(|other| *other == way)?;
        table.ratio(row, 0).map(|ratio| ratio.median)
    };
    let guard = ratio(NATIVE);
    let times = |way| Some(ratio(way)? / guard?);
    let family = family.label();
    let mut goals = vec![Goal::new(
        format!("{family}, a dropped SYN, XDP in the driver: ratio to dropping all"),
        Bound::AtMost(1.9),
        guard,
    )];
    for (way, goal) in [(Way::NetdevSet, 4.0), (Way::Conntrack, 11.0)] {
        if ways.contains(&way) {
            goals.push(Goal::new(
                format!(
                    "{family}, a dropped SYN: times cheaper than {}",
                    way.label()
                ),
                Bound::AtLeast(goal),
                times(way),
            ));
        }
    }
    goals
}

/// An honest client in the flood, in each way in turn; first without a flood.
fn meanwhile(bench: &Bench, rig: &Rig, ways: &[Way], rounds: usize) -> Result<Table> {
    let labels = ways.iter().map(|way| way.label());
    let mut table = Table::new(
        "Honest passive transfers while a million SYNs a second arrive (vsftpd, IPv4)",
        &[
            compared("transfers", "1/s"),
            alone("p99", "us"),
            total("first SYNs lost"),
            alone("guard daemon", "% of a processor"),
            total("failed"),
        ],
        std::iter::once("no flood, no firewall").chain(labels),
    );
    let limit = Duration::from_secs_f64(bench.pick(1.5, 4.0));
    let without = [(Way::Nothing, false)].into_iter();
    let ways: Vec<_> = without.chain(ways.iter().map(|way| (*way, true))).collect();
    for round in 0..rounds {
        for offset in 0..ways.len() {
            let row = (round + offset) % ways.len();
            let (way, flooded) = ways[row];
            bench
                .progress
                .step(&format!("honest client, {}", way.label()));
            let place = way.put(bench, &rig.stage.sandbox, Some(rig.interface()))?;
            let flood = rig.start(bench, flooded, RATE, limit + Duration::from_secs(2))?;
            let before = place.guard.as_ref().map(|guard| processor_time(guard.id()));
            let sequence = measure::persistent(&rig.stage, Family::V4, limit, || pin(0, 1))?;
            if let (Some(guard), Some(before)) = (&place.guard, before) {
                let used = processor_time(guard.id())? - before?;
                table.add(row, 3, used / 1e9 / sequence.took.as_secs_f64() * 100.0);
            }
            drop(flood);
            let times: Vec<f64> = sequence.times.iter().map(|time| micros(*time)).collect();
            table.add(row, 0, number(times.len()) / sequence.took.as_secs_f64());
            table.add(row, 1, quantile(&times, 0.99).unwrap_or(f64::NAN));
            table.add(row, 2, number(sequence.lost));
            table.add(row, 4, number(sequence.failed));
        }
    }
    Ok(table)
}
