//! What each part of the guard adds to the set-up of a transfer.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use ftpguard_tests::{
    Family, Guard,
    ftpd::{Kind, Settings},
    guard::{Options, pins},
    measure,
    scenario::Stage,
};

use super::{
    Bench, micros, number,
    report::Part,
    stats::quantile,
    table::{Table, compared},
};

/// What is there in each row. In monitor mode, so that transfers go on without any of it.
#[derive(Clone, Copy)]
enum Row {
    Nothing,
    Guard,
    /// The kernel side alone, without the hooks whose pins begin so.
    Left(&'static [&'static str]),
}

const ROWS: [(&str, Row); 8] = [
    ("no firewall", Row::Nothing),
    ("no firewall, again", Row::Nothing),
    ("ftpguard", Row::Guard),
    ("its kernel side alone", Row::Left(&[])),
    ("without the TC programs", Row::Left(&["tc-"])),
    ("without the last gate", Row::Left(&["guard_lookup"])),
    ("without both of them", Row::Left(&["tc-", "guard_lookup"])),
    (
        "without the observer too",
        Row::Left(&["tc-", "guard_lookup", "on_"]),
    ),
];

/// How many transfers in a row. Nobody reads what a kernel side without its daemon tells: its ring
/// buffers must not become so full that it tries to wake somebody.
const TRANSFERS: usize = 400;

/// The kernel side of a guard that was killed. It goes when this is dropped.
struct Remains<'a> {
    stage: &'a Stage,
    binary: &'a Path,
    runtime: PathBuf,
}

/// Leaves out one part after the other.
pub(super) fn measure(bench: &Bench, part: &mut Part) -> Result<()> {
    part.name = "share";
    part.title = "What each part of the guard adds";
    part.about = "Setting up transfers as above, with a guard in monitor mode, and with what is left \
        of it where one part after the other is gone: first the daemon, then hooks.";
    let stage = Stage::new(Settings::of(Kind::Vsftpd))?;
    let rounds = bench.rounds(3, 20);
    bench.progress.begin(part.name, rounds);
    let title = "vsftpd, passive, plain, IPv4";
    let measures = [compared("p50", "us"), compared("transfers", "1/s")];
    let mut table = Table::new(title, &measures, ROWS.map(|(name, _)| name));
    for round in 0..rounds {
        bench.progress.step(title);
        for offset in 0..ROWS.len() {
            let place = (round + offset) % ROWS.len();
            let Some((_, row)) = ROWS.get(place) else {
                continue;
            };
            let (_guard, _remains) = row.put(bench, &stage)?;
            let limit = Duration::from_secs(20);
            let made = measure::passive(&stage, Family::V4, TRANSFERS, limit)?;
            let times: Vec<f64> = made.times.iter().map(|time| micros(*time)).collect();
            table.add(place, 0, quantile(&times, 0.5).unwrap_or(f64::NAN));
            let rate = number(times.len()) / made.took.as_secs_f64();
            table.add(place, 1, rate);
        }
    }
    part.tables.push(table);
    Ok(())
}

impl Row {
    fn put<'a>(
        self,
        bench: &'a Bench,
        stage: &'a Stage,
    ) -> Result<(Option<Guard>, Option<Remains<'a>>)> {
        if matches!(self, Self::Nothing) {
            return Ok((None, None));
        }
        let options = Options {
            binary: bench.binary.clone(),
            mode: "monitor",
            ..Options::default()
        };
        let guard = Guard::start(&stage.sandbox, &options).context("starting ftpguard")?;
        let Self::Left(without) = self else {
            return Ok((Some(guard), None));
        };
        let remains = Remains {
            stage,
            binary: &bench.binary,
            runtime: guard.kill()?,
        };
        for prefix in without {
            remains.drop_hooks(prefix)?;
        }
        Ok((None, Some(remains)))
    }
}

impl Remains<'_> {
    /// Nothing but their pins holds the hooks: without them they are gone.
    fn drop_hooks(&self, prefix: &str) -> Result<()> {
        let pins = pins(&self.runtime);
        let mut dropped = 0;
        for state in fs::read_dir(&pins).with_context(|| format!("reading {}", pins.display()))? {
            for hook in fs::read_dir(state?.path().join("hooks"))? {
                let hook = hook?;
                if hook.file_name().to_string_lossy().starts_with(prefix) {
                    fs::remove_file(hook.path())?;
                    dropped += 1;
                }
            }
        }
        ensure!(dropped > 0, "no hook is called {prefix}");
        Ok(())
    }
}

impl Drop for Remains<'_> {
    fn drop(&mut self) {
        let mut command = Command::new(self.binary);
        command.arg("detach");
        command.arg("--runtime-dir").arg(&self.runtime);
        let server = self.stage.sandbox.server();
        let ended = server.run(&mut command, Duration::from_secs(10));
        if let Err(error) = ended.and_then(|ended| ended.success("ftpguard detach")) {
            eprintln!("what follows has hooks of a former guard: {error:#}");
        }
    }
}
