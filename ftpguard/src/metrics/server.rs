//! `GET /metrics` over HTTP/1.1.
//!
//! Whoever may connect may ask, so everything is bounded: the number of clients, the time each
//! may take, the size of a request, and how often the guard's main loop is bothered.

use std::{
    convert::Infallible,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use http_body_util::Full;
use hyper::{
    Method, Request as HttpRequest, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::stat::{Mode, umask};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{Mutex, Semaphore, mpsc, oneshot},
    time::{sleep, timeout},
};

use super::{
    address::MetricsAddress,
    exposition::{self, Usage, exposition},
};
use crate::control_socket::{Answer, Question, Reply, Request, remove_stale};

/// How many clients are served at once.
const MAX_CLIENTS: usize = 8;
/// How long a client may take for its request and to read the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most bytes of a request's head; the least that hyper takes.
const MAX_HEAD: usize = 8_192;
/// The most header lines of a request.
const MAX_HEADERS: usize = 32;
/// For how long an answer is given again: the main loop is asked once in this time at most.
const KEEP: Duration = Duration::from_secs(1);

/// The listening socket of the metrics; a Unix socket's file goes when this is dropped.
pub struct Endpoint {
    listener: Listener,
    _file: Option<SocketFile>,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Removes the file of a Unix socket.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may be gone already, with its folder.
        let _ = fs::remove_file(&self.0);
    }
}

impl Endpoint {
    /// Makes the socket. A Unix socket that nobody answers on any more is replaced; only root
    /// can open the new one. `None` where metrics are off.
    pub async fn bind(address: &MetricsAddress) -> Result<Option<Self>> {
        Ok(Some(match address {
            MetricsAddress::Off => return Ok(None),
            MetricsAddress::Loopback(address) => {
                let listener = TcpListener::bind(address).await.with_context(|| {
                    format!("listening on {address} for metrics; choose another with --metrics")
                })?;
                Self {
                    listener: Listener::Tcp(listener),
                    _file: None,
                }
            }
            MetricsAddress::Unix(path) => Self {
                listener: Listener::Unix(bind_unix(path)?),
                _file: Some(SocketFile(path.clone())),
            },
        }))
    }

    /// Answers until dropped.
    pub async fn serve(self, questions: mpsc::Sender<Question>) {
        let source = Arc::new(Source {
            questions,
            latest: Mutex::new(None),
        });
        let places = Arc::new(Semaphore::new(MAX_CLIENTS));
        loop {
            let accepted = match &self.listener {
                Listener::Tcp(listener) => listener
                    .accept()
                    .await
                    .map(|(stream, _)| Box::new(stream) as Box<dyn Stream>),
                Listener::Unix(listener) => listener
                    .accept()
                    .await
                    .map(|(stream, _)| Box::new(stream) as Box<dyn Stream>),
            };
            match accepted {
                Ok(stream) => {
                    // No place: the connection is closed, which the client reports.
                    if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                        let source = Arc::clone(&source);
                        tokio::spawn(async move {
                            serve_client(stream, source).await;
                            drop(place);
                        });
                    }
                }
                Err(error) => {
                    log::warn!("metrics: {error}");
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

/// A client's connection, of whichever kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

fn bind_unix(path: &Path) -> Result<UnixListener> {
    remove_stale(path, || {
        anyhow!(
            "{} is in use; name another place with --metrics",
            path.display()
        )
    })?;
    let before = umask(Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(path);
    umask(before);
    listener.with_context(|| {
        format!(
            "making the socket {} for metrics; its folder must exist, or choose another with --metrics",
            path.display()
        )
    })
}

async fn serve_client(stream: Box<dyn Stream>, source: Arc<Source>) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .keep_alive(false)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(
            TokioIo::new(stream),
            service_fn(move |request| {
                let source = Arc::clone(&source);
                async move { Ok::<_, Infallible>(respond(&request, &source).await) }
            }),
        );
    match timeout(PATIENCE * 2, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => log::debug!("metrics client: {error}"),
        Err(_) => log::debug!("metrics client: too slow"),
    }
}

async fn respond(request: &HttpRequest<Incoming>, source: &Source) -> Response<Full<Bytes>> {
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "metrics are at /metrics\n");
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        let methods = hyper::header::HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, methods);
        return response;
    }
    match source.text().await {
        Ok(text) => {
            let mut response = Response::new(Full::new(text));
            let headers = response.headers_mut();
            for (name, value) in [
                (CONTENT_TYPE, exposition::CONTENT_TYPE),
                (CACHE_CONTROL, "no-store"),
            ] {
                headers.insert(name, hyper::header::HeaderValue::from_static(value));
            }
            response
        }
        Err(error) => {
            log::warn!("metrics: {error}");
            plain(
                StatusCode::SERVICE_UNAVAILABLE,
                "the guard cannot tell now; its log says why\n",
            )
        }
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}

/// Asks the main loop, and remembers what it said last.
struct Source {
    questions: mpsc::Sender<Question>,
    latest: Mutex<Option<(Instant, Bytes)>>,
}

impl Source {
    async fn text(&self) -> io::Result<Bytes> {
        // Held over the question: clients that come meanwhile wait for the same answer.
        let mut latest = self.latest.lock().await;
        if let Some((at, text)) = latest.as_ref()
            && at.elapsed() < KEEP
        {
            return Ok(text.clone());
        }
        let text = Bytes::from(self.ask().await?);
        *latest = Some((Instant::now(), text.clone()));
        Ok(text)
    }

    async fn ask(&self) -> io::Result<String> {
        let gone = || io::Error::other("the guard is ending");
        let (answer, answered) = oneshot::channel();
        self.questions
            .send(Question {
                request: Request::Status {},
                answer,
            })
            .await
            .map_err(|_| gone())?;
        let Answer { reply, .. } = answered.await.map_err(|_| gone())?;
        match reply {
            Reply::Status(status) => {
                exposition(&status, &Usage::of_this_process()).map_err(io::Error::other)
            }
            Reply::Error(error) => Err(io::Error::other(error)),
            Reply::Sessions(_)
            | Reply::Pinholes(_)
            | Reply::Events(_)
            | Reply::Reloaded(_)
            | Reply::Mode(_)
            | Reply::Ports(_)
            | Reply::Why(_) => Err(io::Error::other("the guard answered something else")),
        }
    }
}

#[cfg(test)]
mod tests;
