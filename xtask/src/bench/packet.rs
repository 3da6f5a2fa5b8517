//! Nanoseconds for each packet, by `BPF_PROG_TEST_RUN`.

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{
    Bench,
    report::{Bound, Goal, Part},
    table::{Table, compared},
};

const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

/// The goals, for both families: program, packet, nanoseconds where parse-only takes 6.
const GOALS: [(&str, &str, f64); 2] = [
    ("guard_ingress", "SYN without pinhole", 20.0),
    ("guard_ingress", "SYN with pinhole", 24.0),
];
/// What parse-only took where the goals were set.
const PARSE_ONLY: f64 = 6.0;

/// Runs every program on every kind of packet.
pub(super) fn measure(bench: &Bench, part: &mut Part) -> Result<()> {
    part.name = "per-packet";
    part.title = "Each packet";
    part.about = "Nanoseconds that one run of a program takes on one packet, without a network \
        (BPF_PROG_TEST_RUN). parse_only walks to the TCP header and does nothing else: what any \
        program has to do at least. guard_ingress is the XDP gate, guard_and_watch_ingress the \
        TC gate, watch_ingress what reads control connections behind XDP. Tables are nearly empty, or hold 10,000 sessions with a listener and a pinhole \
        each. The kernel gives whole nanoseconds.";
    bench.progress.begin(part.name, 1);
    bench.progress.step("all programs");
    let rounds = bench.rounds(7, 25).to_string();
    let packets = bench.pick("100000", "500000");
    let answer = bench.ask_helper(&["packets", "--rounds", &rounds, "--packets", packets])?;
    let rows = answer.as_array().context("no rows")?;
    for family in FAMILIES {
        let rows: Vec<&Value> = rows.iter().filter(|row| row["family"] == family).collect();
        let mut table = table(family, &rows);
        for (number, row) in rows.iter().enumerate() {
            for (measure, field) in ["empty", "full"].into_iter().enumerate() {
                for sample in row[field].as_array().context("no samples")? {
                    table.add(number, measure, sample.as_f64().unwrap_or(f64::NAN));
                }
            }
        }
        for (program, packet, nanoseconds) in GOALS {
            let row = position(&rows, program, packet);
            let ratio = row.and_then(|row| table.ratio(row, 0));
            part.goals.push(Goal::new(
                format!("{family}, {packet}: ratio to parse-only"),
                Bound::AtMost(nanoseconds / PARSE_ONLY),
                ratio.map(|ratio| ratio.median),
            ));
        }
        let data = position(&rows, "guard_ingress", "data segment");
        let ratio = data.and_then(|row| table.ratio(row, 0));
        part.goals.push(Goal::new(
            format!("{family}, data segment: ratio to parse-only"),
            Bound::AtMost(1.2),
            ratio.map(|ratio| ratio.median),
        ));
        part.tables.push(table);
    }
    Ok(())
}

fn table(family: &str, rows: &[&Value]) -> Table {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let names = rows
        .iter()
        .map(|row| format!("{}: {}", text(&row["program"]), text(&row["packet"])));
    Table::new(
        format!("{family}: nanoseconds for each run"),
        &[
            compared("small tables", "ns"),
            compared("full tables", "ns"),
        ],
        names,
    )
}

fn position(rows: &[&Value], program: &str, packet: &str) -> Option<usize> {
    rows.iter()
        .position(|row| row["program"] == program && row["packet"] == packet)
}
