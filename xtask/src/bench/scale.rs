//! Cost against the number of sessions, pinholes and interfaces; memory and idle time.

use std::{fs, thread, time::Duration};

use anyhow::{Context as _, Result};
use ftpguard_tests::{
    Family, FtpClient, Guard,
    ftpd::{Kind, Settings},
    guard::Options,
    measure,
    scenario::Stage,
};

use super::{
    Bench,
    flood::processor_time,
    micros,
    report::{Bound, Goal, Part},
    stats::quantile,
    table::{Table, alone, compared},
    ways::GUARD,
};

/// Measures with few and with many of everything.
pub(super) fn measure(bench: &Bench, part: &mut Part) -> Result<()> {
    part.name = "scale";
    part.title = "Many sessions, pinholes and interfaces";
    part.about = "The cost of one packet against the number of sessions in the tables, each with \
        a listener and a pinhole (XDP gate, BPF_PROG_TEST_RUN). The set-up of a transfer beside \
        open sessions that idle (pyftpdlib). Start and memory of the guard against the number \
        of interfaces. A cost that does not grow has a ratio of 1.";
    let crowds = bench.pick(&[0, 100][..], &[0, 10, 100, 400]);
    let links = bench.pick(&[1, 20][..], &[1, 10, 100]);
    bench
        .progress
        .begin(part.name, 1 + crowds.len() + links.len());
    tables(bench, part)?;
    sessions(bench, part, crowds)?;
    interfaces(bench, part, links)
}

/// The cost of one packet.
fn tables(bench: &Bench, part: &mut Part) -> Result<()> {
    bench.progress.step("tables");
    let rounds = bench.rounds(5, 15).to_string();
    let packets = bench.pick("100000", "500000");
    let answer = bench.ask_helper(&["tables", "--rounds", &rounds, "--packets", packets])?;
    for path in answer.as_array().context("no rows")? {
        let packet = path["packet"].as_str().unwrap_or_default();
        let sizes = path["sizes"].as_array().context("no sizes")?;
        let names = sizes
            .iter()
            .map(|size| format!("{} sessions", size["sessions"]));
        let mut table = Table::new(
            format!("{packet}, IPv4"),
            &[compared("each packet", "ns")],
            names,
        );
        for (row, size) in sizes.iter().enumerate() {
            for sample in size["ns"].as_array().context("no samples")? {
                table.add(row, 0, sample.as_f64().unwrap_or(f64::NAN));
            }
        }
        let last = sizes.len().saturating_sub(1);
        part.goals.push(Goal::new(
            format!("{packet}: 10,000 sessions against 1"),
            Bound::AtMost(1.25),
            table.ratio(last, 0).map(|ratio| ratio.median),
        ));
        part.tables.push(table);
    }
    Ok(())
}

/// The set-up of a transfer beside other sessions.
fn sessions(bench: &Bench, part: &mut Part, crowds: &[usize]) -> Result<()> {
    let stage = Stage::new(Settings::of(Kind::Pyftpdlib))?;
    // All of them are one client's.
    let options = Options {
        binary: bench.binary.clone(),
        more: vec!["--client-sessions=4096".to_owned()],
        ..Options::default()
    };
    let guard = Guard::start(&stage.sandbox, &options).context("starting ftpguard")?;
    let mut table = Table::new(
        "A transfer beside idle sessions (pyftpdlib, passive, IPv4)",
        &[
            compared("p50", "us"),
            alone("guard's memory", "MiB"),
            alone("guard idle", "% of a processor"),
        ],
        crowds.iter().map(|count| format!("{count} sessions")),
    );
    let mut open: Vec<FtpClient> = Vec::new();
    let mut idle = None;
    for (row, count) in crowds.iter().enumerate() {
        bench.progress.step(&format!("{count} sessions"));
        stage.sandbox.client().enter(|| {
            while open.len() < *count {
                open.push(stage.login(Family::V4)?);
            }
            anyhow::Ok(())
        })??;
        for _ in 0..bench.rounds(3, 7) {
            let limit = Duration::from_secs(20);
            let made = measure::passive(&stage, Family::V4, bench.pick(200, 500), limit)?;
            let times: Vec<f64> = made.times.iter().map(|time| micros(*time)).collect();
            table.add(row, 0, quantile(&times, 0.5).unwrap_or(f64::NAN));
        }
        table.add(row, 1, resident(&guard)?);
        let time = Duration::from_secs(bench.pick(2, 10));
        let before = processor_time(guard.id())?;
        thread::sleep(time);
        let used = processor_time(guard.id())? - before;
        let share = used / 1e9 / time.as_secs_f64() * 100.0;
        idle = idle.or(Some(share));
        table.add(row, 2, share);
    }
    part.goals.push(Goal::new(
        "the guard's memory beside most sessions, MiB",
        Bound::AtMost(15.0),
        table.value(crowds.len() - 1, 1).map(|memory| memory.median),
    ));
    part.goals.push(Goal::new(
        "the idle guard's share of a processor, percent",
        Bound::AtMost(0.1),
        idle,
    ));
    part.tables.push(table);
    Ok(())
}

/// Start and memory against the number of interfaces.
fn interfaces(bench: &Bench, part: &mut Part, links: &[usize]) -> Result<()> {
    let stage = Stage::new(Settings::of(Kind::Vsftpd))?;
    let server = stage.sandbox.server();
    let mut table = Table::new(
        "The guard on many interfaces",
        &[
            compared("until it is ready", "ms"),
            alone("its memory", "MiB"),
            alone("its maps in the kernel", "MiB"),
        ],
        links.iter().map(|count| format!("{count} interfaces")),
    );
    let mut names: Vec<String> = Vec::new();
    for (row, count) in links.iter().enumerate() {
        bench.progress.step(&format!("{count} interfaces"));
        while names.len() + 1 < *count {
            let name = format!("many{}", names.len());
            server.ip(&["link", "add", &name, "type", "veth"])?;
            server.ip(&["link", "set", &name, "up"])?;
            names.push(name);
        }
        for _ in 0..bench.rounds(2, 5) {
            let others: Vec<&str> = names.iter().map(String::as_str).collect();
            let place = GUARD.put_on(bench, &stage.sandbox, &others)?;
            let guard = place.guard.as_ref().context("no guard")?;
            table.add(row, 0, guard.started_in().as_secs_f64() * 1e3);
            table.add(row, 1, resident(guard)?);
            table.add(row, 2, maps(guard)?);
        }
    }
    part.tables.push(table);
    Ok(())
}

/// Resident memory in MiB.
fn resident(guard: &Guard) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", guard.id()));
    let status = status.context("reading the guard's memory")?;
    let kibibytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    Ok(kibibytes.context("no VmRSS")? / 1024.0)
}

/// Memory of its BPF maps in MiB, each counted once.
fn maps(guard: &Guard) -> Result<f64> {
    let folder = format!("/proc/{}/fdinfo", guard.id());
    let mut maps: Vec<(String, f64)> = fs::read_dir(&folder)
        .with_context(|| format!("reading {folder}"))?
        .flatten()
        .filter_map(|entry| map(&fs::read_to_string(entry.path()).ok()?))
        .collect();
    maps.sort_by(|a, b| a.0.cmp(&b.0));
    maps.dedup_by(|a, b| a.0 == b.0);
    let bytes: f64 = maps.iter().map(|(_, bytes)| bytes).sum();
    Ok(bytes / f64::from(1 << 20))
}

/// The number and the size in bytes of the map that a descriptor is of.
fn map(facts: &str) -> Option<(String, f64)> {
    let fact = |name: &str| {
        let value = facts.lines().find_map(|line| line.strip_prefix(name))?;
        Some(value.trim().to_owned())
    };
    let bytes = fact("memlock:")?.parse().ok()?;
    Some((fact("map_id:")?, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_maps_size_is_read_from_its_descriptor() {
        let facts = "pos:\t0\nmap_type:\t1\nmap_id:\t12\nmemlock:\t4096\n";
        assert_eq!(map(facts), Some(("12".to_owned(), 4096.0)));
        assert_eq!(map("prog_id:\t3\nmemlock:\t4096\n"), None);
        assert_eq!(map("pos:\t0\n"), None);
    }
}
