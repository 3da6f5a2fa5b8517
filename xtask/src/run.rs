//! `cargo xtask run`: ftpguard at work in a sandbox, or on this host.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use ftpguard_tests::{
    Family, Guard,
    ftpd::{Kind, Settings},
    guard::Options,
    scenario::{Played, Scene, Stage, Winner},
};

use crate::{
    build,
    exec::{as_root, replace, run as execute},
    setup,
};

/// What `run` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Arguments of ftpguard, to run it on this host; none to see it at work in a sandbox
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    ftpguard: Vec<OsString>,
}

/// What the part that needs root takes.
#[derive(clap::Args)]
pub(crate) struct Demo {
    /// The ftpguard binary
    binary: PathBuf,
}

/// One line of the table.
struct Line {
    step: String,
    off: Option<Played>,
    on: Option<Played>,
    expected: [Winner; 2],
}

/// The ftpds that are played with, and with which scenes.
const PARTS: [(Kind, &[Scene]); 2] = [
    (
        Kind::Vsftpd,
        &[
            Scene::Passive,
            Scene::Active,
            Scene::ThiefFirst,
            Scene::ThiefAfter,
            Scene::Scan,
            Scene::BounceToThirdHost,
        ],
    ),
    // vsftpd never connects below port 1024; pyftpdlib does.
    (Kind::Pyftpdlib, &[Scene::BounceToLowPort]),
];

/// Sets up, builds, and shows or runs ftpguard.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    setup::setup()?;
    let binary = build::build()?;
    if !arguments.ftpguard.is_empty() {
        // Signals from the terminal reach ftpguard itself, so that it can detach and report.
        return Err(replace(as_root(binary, &[]).args(&arguments.ftpguard)));
    }
    if crate::exec::is_root() {
        return demo(&Demo { binary });
    }
    let this = env::current_exe().context("finding this program")?;
    execute(as_root(this, &[]).arg("demo").arg(binary))?;
    Ok(ExitCode::SUCCESS)
}

/// Plays every step with the guard off and on. Succeeds only if each went as it should.
pub(crate) fn demo(arguments: &Demo) -> Result<ExitCode> {
    let start = Instant::now();
    let mut lines = Vec::new();
    for (kind, scenes) in PARTS {
        play_part(&arguments.binary, kind, scenes, &mut lines)?;
    }
    print_table(&lines);
    let wrong = lines.iter().filter(|line| !line.is_right()).count();
    println!(
        "\n{} of {} steps as they should be, {:.1} s",
        lines.len() - wrong,
        lines.len(),
        start.elapsed().as_secs_f64()
    );
    Ok(if wrong == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn play_part(binary: &Path, kind: Kind, scenes: &[Scene], lines: &mut Vec<Line>) -> Result<()> {
    let stage = Stage::new(Settings::unchecked(kind))?;
    println!(
        "\n{} on {}, its own address checks off; client {}, thief {}, third host {}",
        kind.label(),
        stage.sandbox.server().address(Family::V4),
        stage.sandbox.client().address(Family::V4),
        stage.sandbox.thief().address(Family::V4),
        stage.sandbox.third().address(Family::V4),
    );
    let steps = || {
        scenes
            .iter()
            .flat_map(|&scene| Family::ALL.map(|family| (scene, family)))
    };
    println!("guard off");
    let off: Vec<_> = steps().map(|step| play(&stage, step)).collect();

    let options = Options {
        binary: binary.to_owned(),
        ..Options::default()
    };
    let guard = Guard::start(&stage.sandbox, &options).context("starting ftpguard")?;
    println!(
        "guard on after {}: {}",
        time(guard.started_in()),
        guard.ready()
    );
    let on: Vec<_> = steps().map(|step| play(&stage, step)).collect();
    let stopped = guard.stop(nix::sys::signal::Signal::SIGTERM)?;
    println!(
        "guard off again after {}: {}",
        time(stopped.took),
        stopped.totals
    );

    for (((scene, family), off), on) in steps().zip(off).zip(on) {
        lines.push(Line {
            step: format!("{}, {}", scene.title(), family.label()),
            off,
            on,
            expected: [scene.should_win(false), scene.should_win(true)],
        });
    }
    Ok(())
}

/// Plays one step, and prints it. A step that cannot be played goes as nothing should.
fn play(stage: &Stage, (scene, family): (Scene, Family)) -> Option<Played> {
    let result = scene.play(stage, family);
    let told = match &result {
        Ok(played) => format!("{} ({})", played.told, time(played.took)),
        Err(error) => format!("cannot be played: {error:#}"),
    };
    println!("  {}, {}: {told}", scene.title(), family.label());
    result.ok()
}

impl Line {
    fn is_right(&self) -> bool {
        let winner = |played: &Option<Played>| played.as_ref().map(|played| played.winner);
        [winner(&self.off), winner(&self.on)] == self.expected.map(Some)
    }
}

fn print_table(lines: &[Line]) {
    let told = |played: &Option<Played>| {
        played
            .as_ref()
            .map_or("cannot be played", |played| played.told.as_str())
            .to_owned()
    };
    let head = ["step", "with guard off", "with guard on", "time", ""].map(str::to_owned);
    let mut rows = vec![head];
    rows.extend(lines.iter().map(|line| {
        [
            line.step.clone(),
            told(&line.off),
            told(&line.on),
            line.on
                .as_ref()
                .map_or_else(|| "-".to_owned(), |played| time(played.took)),
            if line.is_right() { "ok" } else { "WRONG" }.to_owned(),
        ]
    }));
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or_default()
    };
    let widths = [0, 1, 2, 3].map(width);
    println!();
    for [step, off, on, took, right] in &rows {
        println!(
            "{step:0$}  {off:1$}  {on:2$}  {took:>3$}  {right}",
            widths[0], widths[1], widths[2], widths[3]
        );
    }
}

fn time(duration: Duration) -> String {
    format!("{:.0} ms", duration.as_secs_f64() * 1000.0)
}
