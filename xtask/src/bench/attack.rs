//! An honest client's transfers while a thief hammers the passive range.

use std::{io::Read as _, net::TcpStream, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use ftpguard_tests::{
    Family, FtpClient,
    attack::Hammer,
    client::Commands,
    ftpd::{Kind, SMALL_FILE, Settings},
    scenario::Stage,
};

use super::{
    Bench, number,
    report::{Bound, Goal, Part},
    table::{Table, alone, total},
    ways::{GUARD, Way, conntrack_is_there},
};

/// How many ports the ftpd has for passive mode, all of which the thief tries.
const PORTS: u16 = 8;
/// How long a client waits for its connection and its file before it gives up.
const PATIENCE: Duration = Duration::from_secs(1);

/// Lets thief and client compete.
pub(super) fn measure(bench: &Bench, part: &mut Part) -> Result<()> {
    part.name = "attack";
    part.title = "Transfers under attack";
    part.about = "A thief connects to every passive port over and over. The ftpds are set up as \
        they come: they turn away a stranger themselves, but the client whose connection he \
        took has lost its transfer. The further away the client, the more time the thief has: \
        the client waits for the round-trip time between the reply to PASV and its SYN.";
    let kinds = [Kind::Vsftpd, Kind::Proftpd];
    let rounds = bench.rounds(1, 3);
    let tries = bench.pick(6, 40);
    let distances = bench.pick(&[2][..], &[0, 2, 20]);
    bench
        .progress
        .begin(part.name, kinds.len() * rounds * distances.len());
    for kind in kinds {
        let stage = Stage::new(Settings {
            passive_ports: 50_000..=50_000 + PORTS - 1,
            ..Settings::of(kind)
        })?;
        let mut ways = vec![Way::Nothing, Way::Conntrack, GUARD];
        if let Err(error) = conntrack_is_there(&stage.sandbox, bench) {
            ways.retain(|way| *way != Way::Conntrack);
            part.note(format!(
                "nf_conntrack_ftp is not available on this kernel: {error:#}"
            ));
        }
        for &distance in distances {
            let title = format!("{}, client {distance} ms away", kind.label());
            let measures = [
                alone("transfers that fail", "%"),
                total("transfers tried"),
                total("the thief connected"),
            ];
            let names = ways.iter().map(|way| way.label());
            let mut table = Table::new(title.clone(), &measures, names);
            for _ in 0..rounds {
                bench.progress.step(&title);
                for (row, way) in ways.iter().enumerate() {
                    let _place = way.put(bench, &stage.sandbox, None)?;
                    let (failed, reached) = compete(&stage, tries, distance)?;
                    table.add(row, 0, number(failed) / number(tries) * 100.0);
                    table.add(row, 1, number(tries));
                    #[expect(clippy::cast_precision_loss, reason = "a count far below 2^52")]
                    table.add(row, 2, reached as f64);
                }
            }
            let guard = table.value(ways.len() - 1, 0);
            part.goals.push(Goal::new(
                format!("{title}: percent of transfers that fail"),
                Bound::AtMost(0.0),
                guard.map(|failed| failed.most),
            ));
            part.tables.push(table);
        }
    }
    Ok(())
}

/// How many of the client's transfers fail, and how often the thief reached a listener.
fn compete(stage: &Stage, tries: usize, distance: u64) -> Result<(usize, u64)> {
    let sandbox = &stage.sandbox;
    let server = sandbox.server().address(Family::V4);
    let ports = stage.ftpd.settings().passive_ports.clone();
    let hammer = Hammer::start(sandbox.thief(), server, ports)?;
    let failed = sandbox.client().enter(|| {
        let mut session: Option<FtpClient> = None;
        let mut failed = 0;
        for _ in 0..tries {
            let ftp = match session.take() {
                Some(ftp) => ftp,
                None => stage.login(Family::V4)?,
            };
            // A session that failed may be anywhere in its dialogue: the next transfer takes a
            // new one.
            match transfer(stage, ftp, Duration::from_millis(distance)) {
                Ok(ftp) => session = Some(ftp),
                Err(_) => failed += 1,
            }
        }
        anyhow::Ok(failed)
    })??;
    Ok((failed, hammer.stop()))
}

fn transfer(stage: &Stage, mut ftp: FtpClient, distance: Duration) -> Result<FtpClient> {
    let announced = ftp.passive(Commands::Classic)?;
    thread::sleep(distance);
    let mut data = TcpStream::connect_timeout(&announced, PATIENCE).context("connecting")?;
    data.set_read_timeout(Some(PATIENCE))?;
    ftp.send(&format!("RETR {SMALL_FILE}"))?;
    let mut content = Vec::new();
    data.read_to_end(&mut content).context("reading the file")?;
    ensure!(
        stage.ftpd.content().starts_with(&content) && content.len() == 100,
        "somebody else has the file"
    );
    ftp.reply()?.opens("RETR")?;
    ftp.reply()?.expect(226, "RETR")?;
    Ok(ftp)
}
