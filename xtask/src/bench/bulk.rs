//! Large transfers: what the guard costs each segment of an established connection.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ftpguard_tests::{
    Family,
    client::{self, Commands},
    ftpd::{Kind, Settings},
    scenario::Stage,
};

use super::{
    Bench,
    report::{Bound, Goal, Part},
    table::{Table, compared},
    ways::{GUARD, Way},
};

const FILE: &str = "large.bin";
/// A port that no ftpd uses.
const PORT: u16 = 6_000;
/// How much is written and read at once.
const PIECE: usize = 128 * 1024;

const WAYS: [Way; 6] = [
    Way::Nothing,
    Way::NothingAgain,
    Way::Conntrack,
    GUARD,
    Way::Guard("socket", "native"),
    Way::Guard("socket", "generic"),
];
/// The row of the guard as it attaches by itself.
const ITSELF: usize = 3;

/// Fetches a large file, and streams in both directions.
pub(super) fn measure(bench: &Bench, part: &mut Part) -> Result<()> {
    part.name = "bulk";
    part.title = "Large transfers";
    part.about = "RETR of a large file from the page cache (vsftpd, passive), and one plain TCP \
        stream in each direction between the same hosts, over veth. On veth the guard chooses \
        TC by itself. XDP in the driver is for network cards: a veth that has it loses \
        segmentation offload, which no network card does.";
    let stage = Stage::new(Settings::of(Kind::Vsftpd))?;
    let size = 512 << 20;
    let times = bench.pick(1, 4);
    let path = stage.sandbox.folder().join("ftp").join(FILE);
    File::create(&path)
        .and_then(|file| file.set_len(size))
        .with_context(|| format!("making {}", path.display()))?;
    let measures = [
        compared("RETR", "MB/s"),
        compared("stream to the client", "MB/s"),
        compared("stream to the server", "MB/s"),
    ];
    let names = WAYS.map(Way::label);
    let mut table = Table::new("IPv4: megabytes a second", &measures, names);
    let rounds = bench.rounds(3, 20);
    bench.progress.begin(part.name, rounds * WAYS.len());
    let time = Duration::from_secs_f64(bench.pick(0.4, 1.5));
    for round in 0..rounds {
        for offset in 0..WAYS.len() {
            let row = (round + offset) % WAYS.len();
            bench.progress.step(WAYS[row].label());
            let _place = WAYS[row].put(bench, &stage.sandbox, None)?;
            table.add(row, 0, retrieve(&stage, size, times)?);
            table.add(row, 1, stream(&stage, time, true)?);
            table.add(row, 2, stream(&stage, time, false)?);
        }
    }
    for (measure, what) in measures.iter().enumerate() {
        part.goals.push(Goal::new(
            format!("{}, as the guard attaches by itself: ratio", what.name),
            Bound::AtLeast(0.98),
            table.ratio(ITSELF, measure).map(|ratio| ratio.median),
        ));
    }
    part.tables.push(table);
    Ok(())
}

/// Megabytes a second of so many RETR.
fn retrieve(stage: &Stage, size: u64, times: u64) -> Result<f64> {
    stage.sandbox.client().enter(|| {
        let mut ftp = stage.login(Family::V4)?;
        let mut took = Duration::ZERO;
        for _ in 0..times {
            let announced = ftp.passive(Commands::Classic)?;
            let data = client::connect(announced)?;
            let start = Instant::now();
            ftp.command(&format!("RETR {FILE}"))?.opens("RETR")?;
            let received = swallow(data.stream, None)?;
            took += start.elapsed();
            ensure!(received == size, "{received} of {size} bytes came");
            ftp.reply()?.expect(226, "RETR")?;
        }
        ftp.quit()?;
        Ok(megabytes(size * times, took))
    })?
}

/// Megabytes a second of one stream.
fn stream(stage: &Stage, time: Duration, to_client: bool) -> Result<f64> {
    let server = stage.sandbox.server();
    let address = server.socket(Family::V4, PORT);
    let listener = server
        .enter(|| TcpListener::bind(address))?
        .context("listening")?;
    let client = stage.sandbox.client();
    let connecting = client.enter(|| TcpStream::connect_timeout(&address, client::TIMEOUT))?;
    let near = connecting.context("connecting")?;
    let (far, _): (TcpStream, SocketAddr) = listener.accept().context("accepting")?;
    let (from, to) = if to_client { (far, near) } else { (near, far) };
    to.set_read_timeout(Some(client::TIMEOUT))?;
    from.set_write_timeout(Some(client::TIMEOUT))?;
    thread::scope(|scope| {
        let start = Instant::now();
        let sender = scope.spawn(move || {
            let mut from = from;
            let piece = vec![7; PIECE];
            while start.elapsed() < time {
                if from.write_all(&piece).is_err() {
                    return;
                }
            }
        });
        let received = swallow(to, Some(start + time))?;
        let took = start.elapsed();
        let _ = sender.join();
        Ok(megabytes(received, took))
    })
}

/// Reads to the end, or until it is time. Returns how much came.
fn swallow(mut data: TcpStream, until: Option<Instant>) -> Result<u64> {
    let mut piece = vec![0; PIECE];
    let mut received = 0;
    loop {
        let length = data.read(&mut piece).context("reading")?;
        received += length as u64;
        if length == 0 || until.is_some_and(|until| Instant::now() > until) {
            return Ok(received);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes far below 2^52")]
fn megabytes(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64()
}
