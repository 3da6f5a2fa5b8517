//! The scenes of the end-to-end tests, with a real vsftpd.

use anyhow::{Result, bail, ensure};
use ftpguard_common::verdict::Reason;
use ftpguard_tests::{
    Family, Guard,
    client::{self, Commands},
    ftpd::{FILE, Kind, Settings},
    guard::Options,
    scenario::{Scene, Stage, Winner},
    tool::{Tool, Transfer, Way},
};
use nix::sys::signal::Signal;

use crate::checks::test;

/// What vsftpd can be made to do.
const SCENES: [Scene; 6] = [
    Scene::Passive,
    Scene::Active,
    Scene::ThiefFirst,
    Scene::ThiefAfter,
    Scene::Scan,
    Scene::BounceToThirdHost,
];

/// Plays every scene with the guard off, where the attackers must win, then with the guard on.
pub(crate) fn all(name: &str, settings: Settings) -> Result<()> {
    let stage = Stage::new(settings)?;
    for scene in SCENES {
        play(name, &stage, scene, scene.should_win(false), None)?;
    }
    let guard = start(name, &stage, &Options::default())?;
    for scene in SCENES {
        play(name, &stage, scene, scene.should_win(true), Some(&guard))?;
    }
    test(&format!("{name}: denials are counted"), || {
        for reason in [
            Reason::Pinhole,
            Reason::NoPinhole,
            Reason::ClosedPort,
            Reason::ConnectToPeer,
            Reason::ConnectToStranger,
        ] {
            guard.wait_for_counter(reason, 2)?;
        }
        Ok(())
    })?;
    test(&format!("{name}: the guard ends when told to"), || {
        let stopped = guard.stop(Signal::SIGTERM)?;
        ensure!(stopped.status.success(), "{stopped:?}");
        Ok(())
    })
}

/// Plays what the ingress guard decides with a guard that is set up differently.
pub(crate) fn ingress(name: &str, options: &Options) -> Result<()> {
    let stage = Stage::new(Settings::unchecked(Kind::Vsftpd))?;
    let guard = start(name, &stage, options)?;
    for scene in [
        Scene::Passive,
        Scene::Active,
        Scene::ThiefFirst,
        Scene::Scan,
    ] {
        play(name, &stage, scene, scene.should_win(true), Some(&guard))?;
    }
    Ok(())
}

/// In monitor mode everything goes as without a guard, and what would be denied is counted.
pub(crate) fn monitor(name: &str) -> Result<()> {
    let stage = Stage::new(Settings::unchecked(Kind::Vsftpd))?;
    let options = Options {
        mode: "monitor",
        ..Options::default()
    };
    let guard = start(name, &stage, &options)?;
    for scene in SCENES {
        play(name, &stage, scene, scene.should_win(false), Some(&guard))?;
    }
    test(&format!("{name}: what would be denied is counted"), || {
        for reason in [
            Reason::NoPinhole,
            Reason::ClosedPort,
            Reason::ConnectToStranger,
        ] {
            guard.wait_for_counter(reason, 2)?;
        }
        Ok(())
    })
}

/// Sessions that are open before the guard starts go on, and so they do when the guard is
/// started again (rule K10).
pub(crate) fn adoption(name: &str) -> Result<()> {
    let stage = Stage::new(Settings::unchecked(Kind::Vsftpd))?;
    stage.sandbox.client().enter(|| -> Result<()> {
        let mut sessions = Vec::new();
        for family in Family::ALL {
            sessions.push((family, stage.login(family)?));
        }
        for round in ["late start", "restart"] {
            // One session has a port announced already, the other asks for one later.
            let mut announced = Vec::new();
            for family in Family::ALL {
                let mut session = stage.login(family)?;
                let port = session.passive(Commands::of(family))?;
                announced.push((session, port));
            }
            let guard = start(&format!("{name}, {round}"), &stage, &Options::default())?;
            let tell = |_: &anyhow::Error| println!("{}", guard.log());
            test(&format!("{name}, {round}: announced ports"), || {
                for (session, port) in &mut announced {
                    let data = client::connect(*port).inspect_err(tell)?;
                    let content = session.receive(FILE, data.stream).inspect_err(tell)?;
                    ensure!(stage.is_file(&content), "the file is damaged");
                }
                Ok(())
            })?;
            test(&format!("{name}, {round}: open sessions"), || {
                for (family, session) in &mut sessions {
                    let commands = Commands::of(*family);
                    for content in [
                        session.retrieve_passive(FILE, commands).inspect_err(tell)?,
                        session.retrieve_active(FILE, commands).inspect_err(tell)?,
                    ] {
                        ensure!(stage.is_file(&content), "the file is damaged");
                    }
                }
                Ok(())
            })?;
            let name = format!("{name}, {round}");
            play(
                &name,
                &stage,
                Scene::ThiefFirst,
                Winner::Honest,
                Some(&guard),
            )?;
        }
        Ok(())
    })?
}

/// Transfers with a client that others wrote.
pub(crate) fn curl(name: &str) -> Result<()> {
    let stage = Stage::new(Settings::of(Kind::Vsftpd))?;
    let guard = start(name, &stage, &Options::default())?;
    for way in [Way::Passive, Way::Active] {
        test(&format!("{name}: {way:?}"), || {
            let transfers = Transfer::all(way);
            for (number, transfer) in transfers.into_iter().enumerate() {
                if transfer.tool != Tool::Curl {
                    continue;
                }
                let tell = |_: &anyhow::Error| println!("{}", guard.log());
                let content = transfer.fetch(&stage.sandbox).inspect_err(tell)?;
                ensure!(stage.is_file(&content), "{transfer:?}: damaged");
                let stored = format!("curl-{way:?}-{number}");
                transfer
                    .store(&stage.sandbox, &stored, stage.ftpd.content())
                    .inspect_err(tell)?;
                ensure!(
                    stage.is_file(&stage.ftpd.uploaded(&stored)?),
                    "{transfer:?}"
                );
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Starts a guard; that it becomes ready is a test.
pub(crate) fn start(name: &str, stage: &Stage, options: &Options) -> Result<Guard> {
    let guard = test(&format!("{name}: the guard starts"), || {
        Guard::start(&stage.sandbox, options)
    })?;
    println!("{}", guard.ready());
    Ok(guard)
}

/// Plays a scene over both families; one test.
fn play(
    name: &str,
    stage: &Stage,
    scene: Scene,
    wanted: Winner,
    guard: Option<&Guard>,
) -> Result<()> {
    let guarded = if guard.is_some() { "on" } else { "off" };
    test(
        &format!("{name}: {}, guard {guarded}", scene.title()),
        || {
            for family in Family::ALL {
                let played = scene.play(stage, family)?;
                println!(
                    "{}, {}, guard {guarded}: {}",
                    scene.title(),
                    family.label(),
                    played.told
                );
                if played.winner != wanted {
                    println!("{}", guard.map(Guard::log).unwrap_or_default());
                    bail!("{}: {}", family.label(), played.told);
                }
            }
            Ok(())
        },
    )
}
