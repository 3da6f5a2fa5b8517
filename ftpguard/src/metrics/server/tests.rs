use std::{
    env,
    io::Read as _,
    net::TcpStream,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use tokio::runtime::Builder;

use super::*;
use crate::metrics::exposition::tests::sample;

/// Runs `client` against an endpoint whose main loop always answers the same, and returns what
/// the client does, and how many questions the main loop got.
fn with_endpoint<T: Send + 'static>(
    address: &MetricsAddress,
    client: impl FnOnce() -> T + Send + 'static,
) -> (T, u32) {
    let asked = Arc::new(AtomicU32::new(0));
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    let result = runtime.block_on(async {
        let endpoint = Endpoint::bind(address).await;
        let endpoint = endpoint.expect("endpoint").expect("not off");
        let (ask, mut questions) = mpsc::channel::<Question>(4);
        tokio::spawn(endpoint.serve(ask));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Some(question) = questions.recv().await {
                assert_eq!(question.request, Request::Status {});
                count.fetch_add(1, Ordering::Relaxed);
                let _ = question.answer.send(Answer {
                    reply: Reply::Status(Box::new(sample())),
                    feed: None,
                });
            }
        });
        tokio::task::spawn_blocking(client).await.expect("client")
    });
    drop(runtime);
    (result, asked.load(Ordering::Relaxed))
}

/// A loopback address with a port that is free now.
fn free() -> (MetricsAddress, std::net::SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    (MetricsAddress::Loopback(address), address)
}

/// A path of its own for a socket.
fn path() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    env::temp_dir().join(format!("ftpguard-metrics-{}-{count}", process::id()))
}

/// Sends bytes and reads to the end.
fn exchange(mut stream: impl io::Read + io::Write, request: &[u8]) -> String {
    // The server may have had enough before it has read all.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn tcp(address: std::net::SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connects");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("timeout");
    stream
}

const GET: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn a_scrape_is_answered_and_the_main_loop_is_spared() {
    let (address, at) = free();
    let (answers, asked) = with_endpoint(&address, move || {
        (0..20).map(|_| exchange(tcp(at), GET)).collect::<Vec<_>>()
    });
    for answer in &answers {
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains(&format!("content-type: {}", exposition::CONTENT_TYPE)));
        assert!(answer.contains("connection: close"), "{answer}");
        assert!(answer.contains("\nftpguard_sessions 2\n"), "{answer}");
        assert!(answer.ends_with("# EOF\n"), "{answer}");
    }
    assert!((1..=5).contains(&asked), "20 scrapes asked {asked} times");
}

#[test]
fn everything_else_is_refused() {
    let (address, at) = free();
    let long = [
        b"GET /metrics?",
        vec![b'a'; 20_000].as_slice(),
        b" HTTP/1.1\r\n\r\n",
    ]
    .concat();
    let mut many = b"GET /metrics HTTP/1.1\r\n".to_vec();
    for number in 0..100 {
        many.extend(format!("X-{number}: y\r\n").into_bytes());
    }
    many.extend(b"\r\n");
    let ((), asked) = with_endpoint(&address, move || {
        for (request, status) in [
            (&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], "404"),
            (b"GET /metrics/../x HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
            (b"POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "405"),
            (b"DELETE /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "405"),
            (b"\0\xff\xfe nonsense\r\n\r\n", "400"),
            (b"PASV\r\n\r\n", "400"),
            (&many, "431"),
            (&long, "4"),
        ] {
            let answer = exchange(tcp(at), request);
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}")),
                "{}: {answer}",
                String::from_utf8_lossy(request)
            );
            assert!(!answer.contains("ftpguard_"), "{answer}");
        }
    });
    assert_eq!(asked, 0);
}

#[test]
fn head_tells_the_headers_only() {
    let (address, at) = free();
    let (answer, _) = with_endpoint(&address, move || {
        exchange(tcp(at), b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    });
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(!answer.contains("# EOF"), "{answer}");
}

#[test]
fn clients_that_say_nothing_lose_their_place() {
    let (address, at) = free();
    let (after, _) = with_endpoint(&address, move || {
        let silent: Vec<TcpStream> = (0..MAX_CLIENTS).map(|_| tcp(at)).collect();
        thread::sleep(Duration::from_millis(200));
        // All places are taken: closed without an answer.
        assert_eq!(exchange(tcp(at), GET), "");
        for stream in silent {
            let mut stream = stream;
            let mut rest = Vec::new();
            // The server ends them; an error would be the 20 seconds of patience here.
            stream.read_to_end(&mut rest).expect("closed by the server");
        }
        exchange(tcp(at), GET)
    });
    assert!(after.starts_with("HTTP/1.1 200 OK"), "{after}");
}

#[test]
fn a_unix_socket_is_for_root_only_and_leaves_nothing() {
    let path = path();
    let address = MetricsAddress::Unix(path.clone());
    let inside = path.clone();
    let ((mode, answer), _) = with_endpoint(&address, move || {
        let mode = fs::metadata(&inside).expect("a file").permissions().mode();
        let stream = UnixStream::connect(&inside).expect("connects");
        (mode, exchange(stream, GET))
    });
    assert_eq!(mode & 0o777, 0o600);
    assert!(answer.contains("ftpguard_sessions 2"), "{answer}");
    assert!(!path.exists());
}

#[test]
fn what_is_in_the_way_is_named() {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    let refused = |address: &MetricsAddress| {
        let error = runtime
            .block_on(Endpoint::bind(address))
            .err()
            .expect("refused");
        format!("{error:#}")
    };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().map(|at| (at, taken)).expect("address");
    let error = refused(&MetricsAddress::Loopback(taken.0));
    assert!(error.contains(&taken.0.to_string()) && error.contains("--metrics"));

    let file = path();
    fs::write(&file, "precious").expect("a file");
    let error = refused(&MetricsAddress::Unix(file.clone()));
    assert!(error.contains("no socket"), "{error}");
    assert_eq!(fs::read(&file).expect("still there"), b"precious");
    fs::remove_file(&file).expect("removed");

    let used = std::os::unix::net::UnixListener::bind(&file).expect("a socket");
    let error = refused(&MetricsAddress::Unix(file.clone()));
    assert!(error.contains("in use"), "{error}");
    drop(used);
    // Nobody answers on it any more: replaced, and removed at the end.
    let bound = runtime.block_on(Endpoint::bind(&MetricsAddress::Unix(file.clone())));
    drop(bound.expect("replaced").expect("not off"));
    assert!(!file.exists());

    let error = refused(&MetricsAddress::Unix("/nonexistent/m.sock".into()));
    assert!(error.contains("/nonexistent/m.sock") && error.contains("folder"));
}
