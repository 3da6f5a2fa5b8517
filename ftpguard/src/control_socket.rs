//! The Unix socket on which a running guard answers questions.
//!
//! One line of JSON asks ([`Request`]), one line answers ([`Reply`]); `events` with `follow` is
//! answered by one [`Record`] a line without end. Only root can open the socket, and the members of a
//! group where one is named; these can change nothing. Everything is bounded: the size of a request, the time it may take, the number of clients.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::{
        fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _},
        net::UnixStream as BlockingStream,
    },
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::stat::{Mode, umask},
    unistd::{Group, chown, geteuid},
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{
        AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader as AsyncBufReader,
    },
    net::{UnixListener, UnixStream, unix::OwnedWriteHalf},
    sync::{Semaphore, broadcast, mpsc, oneshot},
    time::timeout,
};

use crate::{
    config::ModeArg,
    doctor::predict::Sample,
    events::{Happening, Record},
    guard::{Reloaded, Switched},
    status::{PinholeRow, SessionRow, Status},
    why::{Subject, Why},
};

/// The most bytes of one request.
const MAX_REQUEST: u64 = 4_096;
/// How many clients are served at once.
const MAX_CLIENTS: usize = 16;
const NO_PLACE: &str = "too many clients at once; end an `ftpguard events --follow` or `top`";
/// How long a client may take to ask, and to take one line of the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A question to a running guard.
///
/// Variants without fields have braces: serde lets unknown fields pass in those without.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Hooks, modes and counters.
    Status {},
    /// End, and leave nothing in the kernel. There is no answer: the socket goes.
    Detach {},
    /// Open control connections.
    Sessions {},
    /// Open pinholes.
    Pinholes {},
    /// The latest events.
    Events {
        /// And every further one, until the client goes away.
        #[serde(default)]
        follow: bool,
    },
    /// Read the file again.
    Reload {},
    /// The mode in force, or another one.
    Mode {
        /// To be in force from now on.
        #[serde(default)]
        mode: Option<ModeArg>,
    },
    /// The passive ports that the FTP servers chose.
    Ports {},
    /// Why something was refused.
    Why {
        /// What is asked about.
        subject: Subject,
    },
}

impl Request {
    /// Whether it changes anything.
    #[must_use]
    pub const fn changes(&self) -> bool {
        match self {
            Self::Ports {}
            | Self::Status {}
            | Self::Sessions {}
            | Self::Pinholes {}
            | Self::Events { .. }
            | Self::Why { .. } => false,
            Self::Reload {} | Self::Detach {} => true,
            Self::Mode { mode } => mode.is_some(),
        }
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Sessions`].
    Sessions(Vec<SessionRow>),
    /// To [`Request::Pinholes`].
    Pinholes(Vec<PinholeRow>),
    /// To [`Request::Events`]; with `follow`, further records follow one a line.
    Events(Vec<Record>),
    /// To [`Request::Reload`].
    Reloaded(Reloaded),
    /// To [`Request::Mode`].
    Mode(Switched),
    /// To [`Request::Ports`].
    Ports(Vec<Sample>),
    /// To [`Request::Why`].
    Why(Box<Why>),
    /// The request made no sense or cannot be answered.
    Error(String),
}

/// A request on its way to the guard's main loop, and the way back.
pub struct Question {
    /// What is asked.
    pub request: Request,
    /// Takes the answer, with the further events where they were asked for.
    pub answer: oneshot::Sender<Answer>,
}

/// The main loop's answer.
pub struct Answer {
    /// The answer itself.
    pub reply: Reply,
    /// Further events to stream, where they were asked for.
    pub feed: Option<broadcast::Receiver<Arc<Record>>>,
}

/// The listening socket; its file goes when this is dropped.
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    _lock: Flock<File>,
}

impl ControlSocket {
    /// Makes folder and socket, which root can open and, where one is named, the members of a
    /// group. Refuses when another guard uses the folder.
    pub fn bind(folder: &Path, group: &str) -> Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(folder)
            .with_context(|| {
                format!(
                    "making the runtime folder {}; name another with --runtime-dir",
                    folder.display()
                )
            })?;
        let lock = lock(folder)?;
        let path = socket_path(folder);
        remove_stale(&path, || in_use(folder))?;
        let before = umask(Mode::from_bits_truncate(0o177));
        let listener = UnixListener::bind(&path);
        umask(before);
        let listener =
            listener.with_context(|| format!("making the control socket {}", path.display()))?;
        if !group.is_empty() {
            open_to(&path, group)?;
        }
        Ok(Self {
            listener,
            path,
            _lock: lock,
        })
    }

    /// Serves clients until dropped.
    pub async fn serve(self, questions: mpsc::Sender<Question>) {
        let places = Arc::new(Semaphore::new(MAX_CLIENTS));
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, most likely: it passes or it does not.
                    log::warn!("control socket: {error}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                turn_away(stream);
                continue;
            };
            let questions = questions.clone();
            tokio::spawn(async move {
                if let Err(error) = serve_client(stream, questions).await {
                    log::debug!("control socket client: {error}");
                }
                drop(place);
            });
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // It may be gone already, with its folder.
        let _ = fs::remove_file(&self.path);
    }
}

/// Asks the guard that uses this runtime folder to end, and waits until it has. Whether there was
/// one; an error where it does not end, or cannot be asked.
pub fn end(folder: &Path, patience: Duration) -> Result<bool> {
    let mut reader = match send(folder, &Request::Detach {}) {
        Ok(reader) => reader,
        Err(error) if says_nobody(&error) => return Ok(false),
        Err(error) => return Err(error),
    };
    // Nothing comes but the end, or a refusal.
    let mut line = String::new();
    let _ = reader.read_line(&mut line);
    if let Ok(Reply::Error(refusal)) = serde_json::from_str(&line) {
        bail!(refusal);
    }
    let deadline = Instant::now() + patience;
    loop {
        // Nothing is made here: whoever removes the folder meanwhile must not find it anew.
        match take_lock(folder, false) {
            Ok(_) => return Ok(true),
            // A service manager removes the folder as soon as its daemon has ended.
            Err(error) if is_missing(&error) => return Ok(true),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context("the guard does not end"));
            }
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Whether nobody listens on the socket: it is not there, or its guard has died.
fn says_nobody(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    kind == Some(io::ErrorKind::ConnectionRefused) || is_missing(error)
}

/// Whether what was to be opened is not there.
fn is_missing(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    kind == Some(io::ErrorKind::NotFound)
}

fn socket_path(folder: &Path) -> PathBuf {
    folder.join("control.sock")
}

/// Holds `lock` in the folder for as long as the guard runs, so that two guards that start at
/// the same time cannot take each other's socket away.
fn lock(folder: &Path) -> Result<Flock<File>> {
    take_lock(folder, true)
}

fn take_lock(folder: &Path, make: bool) -> Result<Flock<File>> {
    let path = folder.join("lock");
    let file = File::options()
        .create(make)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        if errno == Errno::EWOULDBLOCK {
            in_use(folder)
        } else {
            anyhow!(errno).context(format!("locking {}", path.display()))
        }
    })
}

/// Lets the members of a group ask.
fn open_to(path: &Path, group: &str) -> Result<()> {
    let id = Group::from_name(group)
        .with_context(|| format!("looking up the group {group:?}"))?
        .with_context(|| {
            format!("no group {group:?} on this host; make it (groupadd) or name another with --socket-group")
        })?
        .gid;
    chown(path, None, Some(id))
        .and_then(|()| {
            fs::set_permissions(path, Permissions::from_mode(0o660))
                .map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
        })
        .with_context(|| {
            format!(
                "giving {} to the group {group:?}, which needs CAP_CHOWN",
                path.display()
            )
        })
}

fn in_use(folder: &Path) -> anyhow::Error {
    anyhow!(
        "another ftpguard uses {}; stop it, or give this one a folder of its own with --runtime-dir",
        folder.display()
    )
}

/// Removes a socket that nobody answers on any more; fails with `in_use` where somebody does.
pub(crate) fn remove_stale(path: &Path, in_use: impl FnOnce() -> anyhow::Error) -> Result<()> {
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("looking at {}", path.display())),
    };
    if !kind.is_socket() {
        bail!("{} is in the way and no socket; remove it", path.display());
    }
    if BlockingStream::connect(path).is_ok() {
        return Err(in_use());
    }
    fs::remove_file(path).with_context(|| format!("removing the stale {}", path.display()))
}

/// Says that there is no place. A client that does not read at once gets no answer.
fn turn_away(stream: UnixStream) {
    let told = stream.into_std().and_then(|mut stream| {
        let mut line = serde_json::to_vec(&Reply::Error(NO_PLACE.to_owned()))?;
        line.push(b'\n');
        stream.write_all(&line)
    });
    if let Err(error) = told {
        log::debug!("control socket client: {error}");
    }
}

async fn serve_client(stream: UnixStream, questions: mpsc::Sender<Question>) -> io::Result<()> {
    let asker = stream.peer_cred()?.uid();
    let (reader, mut writer) = stream.into_split();
    let mut reader = AsyncBufReader::new(reader.take(MAX_REQUEST));
    let mut line = Vec::new();
    timeout(PATIENCE, reader.read_until(b'\n', &mut line))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let request = match parse_request(&line) {
        Ok(request) => request,
        Err(error) => return write_line(&mut writer, &Reply::Error(error)).await,
    };
    // Members of the socket's group may look, and no more.
    if request.changes() && asker != 0 && asker != geteuid().as_raw() {
        let refusal = "only root may change a running guard; use sudo".to_owned();
        return write_line(&mut writer, &Reply::Error(refusal)).await;
    }
    let (answer, answered) = oneshot::channel();
    let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
    questions
        .send(Question { request, answer })
        .await
        .map_err(|_| gone())?;
    let Answer { reply, feed } = answered.await.map_err(|_| gone())?;
    write_line(&mut writer, &reply).await?;
    let Some(mut feed) = feed else {
        return Ok(());
    };
    let mut rest = reader.into_inner().into_inner();
    let mut byte = [0];
    loop {
        let record = tokio::select! {
            record = feed.recv() => record,
            // Whatever the client still sends or closes, it has had enough.
            _ = rest.read(&mut byte) => return Ok(()),
        };
        match record {
            Ok(record) => write_line(&mut writer, &*record).await?,
            Err(broadcast::error::RecvError::Lagged(count)) => {
                let lost = Record {
                    time: crate::clock::wall_ms(),
                    what: Happening::EventsLost { count },
                };
                write_line(&mut writer, &lost).await?;
            }
            Err(broadcast::error::RecvError::Closed) => return Ok(()),
        }
    }
}

fn parse_request(line: &[u8]) -> Result<Request, String> {
    if line.last() != Some(&b'\n') {
        return Err(format!(
            "no line of JSON within {MAX_REQUEST} bytes; send {{\"request\":\"status\"}} and a newline"
        ));
    }
    serde_json::from_slice(line).map_err(|error| format!("request not understood: {error}"))
}

async fn write_line<T: Serialize>(writer: &mut OwnedWriteHalf, value: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    timeout(PATIENCE, writer.write_all(&line))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Asks the guard that uses this runtime folder.
pub fn ask(folder: &Path, request: &Request) -> Result<Reply> {
    read_reply(&mut send(folder, request)?)
}

/// Asks for events and hands over each until `take` says that it is enough, or the guard ends.
pub fn follow(folder: &Path, mut take: impl FnMut(Record) -> bool) -> Result<()> {
    let mut reader = send(folder, &Request::Events { follow: true })?;
    let Reply::Events(latest) = read_reply(&mut reader)? else {
        bail!("the guard answered something else");
    };
    for record in latest {
        if !take(record) {
            return Ok(());
        }
    }
    reader.get_ref().set_read_timeout(None)?;
    for line in reader.lines() {
        let line = line.context("reading events")?;
        if !take(serde_json::from_str(&line).context("reading an event")?) {
            return Ok(());
        }
    }
    Ok(())
}

fn send(folder: &Path, request: &Request) -> Result<BufReader<BlockingStream>> {
    let path = socket_path(folder);
    let mut stream = BlockingStream::connect(&path).map_err(|error| {
        let what = if error.kind() == io::ErrorKind::PermissionDenied {
            format!(
                "no permission to ask at {}; run as root (sudo), or name a group of yours as \
                 socket_group in the guard's configuration",
                path.display()
            )
        } else {
            format!(
                "no ftpguard answers at {}; start it with `ftpguard run`, or name its folder with --runtime-dir",
                path.display()
            )
        };
        anyhow::Error::new(error).context(what)
    })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    match stream.write_all(&line) {
        // It may have answered before it was asked: that there is no place.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written.context("asking the guard")?,
    }
    Ok(BufReader::new(stream))
}

fn read_reply(reader: &mut BufReader<BlockingStream>) -> Result<Reply> {
    let mut line = String::new();
    reader
        .read_line(&mut line)
        .context("reading the guard's answer")?;
    if line.is_empty() {
        bail!("the guard closed the connection without an answer");
    }
    let reply = serde_json::from_str(&line).context("reading the guard's answer")?;
    if let Reply::Error(error) = reply {
        bail!(error);
    }
    Ok(reply)
}

#[cfg(test)]
mod tests;
