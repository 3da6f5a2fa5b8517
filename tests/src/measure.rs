//! Many transfers in a row: how long a data connection takes, and how often a first SYN is lost.

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::{
    socket::{setsockopt, sockopt},
    time::{TimeVal, TimeValLike as _},
};

use crate::{
    client::{self, Commands, FtpClient, TIMEOUT},
    ftpd::SMALL_FILE,
    sandbox::Family,
    scenario::Stage,
};

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct Sequence {
    /// From asking for the data connection to having it, for each transfer.
    pub times: Vec<Duration>,
    /// How long all took together, with their transfers.
    pub took: Duration,
    /// How many first SYNs were lost.
    pub lost: usize,
    /// How many transfers and logins failed, where that does not end the measurement.
    pub failed: usize,
}

/// Makes `count` passive transfers one after the other in one session, as fast as they go; stops
/// early when they take longer than `limit` altogether. A transfer's time begins before PASV or
/// EPSV is sent.
pub fn passive(stage: &Stage, family: Family, count: usize, limit: Duration) -> Result<Sequence> {
    sequence(stage, family, count, limit, |ftp, commands, sequence| {
        let start = Instant::now();
        let announced = ftp.passive(commands)?;
        let data = client::connect(announced)?;
        sequence.times.push(start.elapsed());
        sequence.lost += usize::from(data.syns_lost > 0);
        ftp.receive(SMALL_FILE, data.stream)
    })
}

/// The same with active transfers. A transfer's time begins before PORT or EPRT is sent. SYNs
/// that the ftpd lost are not counted.
pub fn active(stage: &Stage, family: Family, count: usize, limit: Duration) -> Result<Sequence> {
    sequence(stage, family, count, limit, |ftp, commands, sequence| {
        let listener = TcpListener::bind((ftp.local()?.ip(), 0)).context("listening")?;
        // Accepting waits no longer than reading may.
        let timeout = TimeVal::seconds(TIMEOUT.as_secs().cast_signed());
        setsockopt(&listener, sockopt::ReceiveTimeout, &timeout).context("setting a time limit")?;
        let start = Instant::now();
        ftp.active(listener.local_addr()?, commands)?
            .expect(200, "PORT or EPRT")?;
        ftp.send(&format!("RETR {SMALL_FILE}"))?;
        let (data, _) = listener.accept().context("waiting for the server")?;
        sequence.times.push(start.elapsed());
        ftp.reply()?.opens("RETR")?;
        let content = ftp.read_all(data)?;
        ftp.reply()?.expect(226, "RETR")?;
        Ok(content)
    })
}

/// Makes passive transfers until the time is over. One that fails is counted, and the next one
/// takes a new session. `prepare` is called on the client's thread first.
pub fn persistent(
    stage: &Stage,
    family: Family,
    limit: Duration,
    prepare: impl Fn() -> Result<()> + Sync,
) -> Result<Sequence> {
    stage.sandbox.client().enter(|| {
        prepare()?;
        let commands = Commands::of(family);
        let mut sequence = Sequence::default();
        let mut session: Option<FtpClient> = None;
        let start = Instant::now();
        while start.elapsed() < limit {
            let attempt = match session.take() {
                Some(ftp) => Ok(ftp),
                None => stage.login(family),
            };
            let attempt = attempt.and_then(|mut ftp| {
                let begun = Instant::now();
                let announced = ftp.passive(commands)?;
                let data = client::connect(announced)?;
                let took = begun.elapsed();
                let lost = usize::from(data.syns_lost > 0);
                ftp.receive(SMALL_FILE, data.stream)?;
                Ok((ftp, took, lost))
            });
            match attempt {
                Ok((ftp, took, lost)) => {
                    sequence.times.push(took);
                    sequence.lost += lost;
                    session = Some(ftp);
                }
                Err(_) => sequence.failed += 1,
            }
        }
        sequence.took = start.elapsed();
        Ok(sequence)
    })?
}

/// Makes transfers one after the other in one session.
fn sequence(
    stage: &Stage,
    family: Family,
    count: usize,
    limit: Duration,
    transfer: impl Fn(&mut FtpClient, Commands, &mut Sequence) -> Result<Vec<u8>> + Sync,
) -> Result<Sequence> {
    stage.sandbox.client().enter(|| {
        let commands = Commands::of(family);
        let mut ftp = stage.login(family)?;
        let mut sequence = Sequence::default();
        let start = Instant::now();
        while sequence.times.len() < count && start.elapsed() < limit {
            let content = transfer(&mut ftp, commands, &mut sequence)?;
            ensure!(
                stage.ftpd.content().starts_with(&content) && content.len() == 100,
                "a transfer was damaged"
            );
        }
        sequence.took = start.elapsed();
        ftp.quit()?;
        Ok(sequence)
    })?
}
