use std::{
    env, process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use proptest::{
    collection::vec,
    prelude::{Strategy, any, prop_assert, prop_oneof, proptest},
    sample,
    strategy::ValueTree as _,
    test_runner::TestRunner,
};
use tokio::runtime::Builder;

use super::*;
use crate::events::{Ends, Happening};

/// A runtime folder of its own, gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(env::temp_dir().join(format!("ftpguard-socket-{}-{count}", process::id())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn record() -> Record {
    Record {
        time: 5,
        what: Happening::SessionOpened(Ends {
            client: [10, 0, 0, 2].into(),
            client_port: 4711,
            server: [10, 0, 0, 1].into(),
            port: 21,
        }),
    }
}

/// Serves `folder` while `client` runs in a thread of its own; every question is answered with
/// no sessions, `events` with a feed that yields two records and ends.
fn with_server<T: Send + 'static>(
    folder: &Path,
    client: impl FnOnce(PathBuf) -> T + Send + 'static,
) -> T {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    runtime.block_on(async {
        let socket = ControlSocket::bind(folder, "").expect("socket");
        let (questions, mut asked) = mpsc::channel::<Question>(4);
        tokio::spawn(socket.serve(questions));
        tokio::spawn(async move {
            while let Some(question) = asked.recv().await {
                let answer = match question.request {
                    Request::Events { follow: true } => {
                        let (sender, feed) = broadcast::channel(4);
                        for _ in 0..2 {
                            sender.send(Arc::new(record())).expect("a receiver");
                        }
                        Answer {
                            reply: Reply::Events(vec![record()]),
                            feed: Some(feed),
                        }
                    }
                    Request::Events { follow: false }
                    | Request::Status {}
                    | Request::Detach {}
                    | Request::Sessions {}
                    | Request::Pinholes {}
                    | Request::Reload {}
                    | Request::Mode { .. }
                    | Request::Ports {}
                    | Request::Why { .. } => Answer {
                        reply: Reply::Sessions(Vec::new()),
                        feed: None,
                    },
                };
                let _ = question.answer.send(answer);
            }
        });
        let folder = folder.to_owned();
        let (done, result) = oneshot::channel();
        thread::spawn(move || {
            let _ = done.send(client(folder));
        });
        timeout(Duration::from_secs(20), result)
            .await
            .expect("in time")
            .expect("no panic")
    })
}

fn exchange(folder: &Path, request: &[u8]) -> String {
    let mut stream = BlockingStream::connect(socket_path(folder)).expect("connected");
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("timeout");
    // The guard may close before everything is sent.
    let _ = stream.write_all(request);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = String::new();
    let _ = io::Read::read_to_string(&mut stream, &mut answer);
    answer
}

#[test]
fn a_question_is_answered() {
    let folder = Folder::new();
    let reply = with_server(&folder.0, |folder| ask(&folder, &Request::Sessions {}));
    assert_eq!(reply.expect("an answer"), Reply::Sessions(Vec::new()));
    // The socket is gone with the guard, and the folder can be used again.
    assert!(!socket_path(&folder.0).exists());
    with_server(&folder.0, |folder| ask(&folder, &Request::Sessions {})).expect("an answer");
}

#[test]
fn garbage_gets_an_error_and_the_next_client_an_answer() {
    let folder = Folder::new();
    let mut deep = vec![b'['; 4_000];
    deep.push(b'\n');
    let garbage: Vec<Vec<u8>> = vec![
        b"\n".to_vec(),
        b"{}\n".to_vec(),
        b"\"status\"\n".to_vec(),
        b"{\"request\":\"dance\"}\n".to_vec(),
        b"{\"request\":\"status\",\"also\":1}\n".to_vec(),
        b"{\"request\":\"status\"}".to_vec(),
        b"\xff\xfe\x00\n".to_vec(),
        vec![b'x'; 100_000],
        deep,
        Vec::new(),
    ];
    let answers = with_server(&folder.0, move |folder| {
        let answers: Vec<String> = garbage
            .iter()
            .map(|request| exchange(&folder, request))
            .collect();
        ask(&folder, &Request::Sessions {}).expect("still there");
        answers
    });
    for answer in answers {
        // Where more was sent than is read, the answer may be cut off by the reset.
        assert!(
            answer.is_empty() || answer.starts_with("{\"error\":"),
            "{answer}"
        );
    }
}

#[test]
fn silent_clients_do_not_keep_others_out_for_ever() {
    let folder = Folder::new();
    let (refused, later) = with_server(&folder.0, |folder| {
        let silent: Vec<_> = (0..MAX_CLIENTS)
            .map(|_| BlockingStream::connect(socket_path(&folder)).expect("connected"))
            .collect();
        thread::sleep(Duration::from_millis(200));
        let refused = ask(&folder, &Request::Sessions {});
        thread::sleep(PATIENCE);
        let later = ask(&folder, &Request::Sessions {});
        drop(silent);
        (refused, later)
    });
    let refused = refused.expect_err("no place").to_string();
    assert!(refused.starts_with("too many clients"), "{refused}");
    later.expect("an answer");
}

#[test]
fn events_are_followed_to_the_end() {
    let folder = Folder::new();
    let records = with_server(&folder.0, |folder| {
        let mut records = Vec::new();
        follow(&folder, |record| {
            records.push(record);
            true
        })
        .map(|()| records)
    });
    assert_eq!(records.expect("records"), [record(), record(), record()]);
}

#[test]
fn a_second_guard_is_refused_and_a_stale_socket_is_not() {
    let folder = Folder::new();
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    let _context = runtime.enter();
    let first = ControlSocket::bind(&folder.0, "").expect("first");
    let refused = ControlSocket::bind(&folder.0, "")
        .map(drop)
        .expect_err("second");
    assert!(refused.to_string().contains("--runtime-dir"), "{refused}");
    drop(first);
    // What a guard that was killed leaves.
    drop(std::os::unix::net::UnixListener::bind(socket_path(&folder.0)).expect("stale"));
    assert!(socket_path(&folder.0).exists());
    let again = ControlSocket::bind(&folder.0, "").expect("again");
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(socket_path(&folder.0))
            .expect("socket")
            .permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    drop(again);
    // A file that is no socket is not ours to remove.
    fs::write(socket_path(&folder.0), "precious").expect("written");
    let refused = ControlSocket::bind(&folder.0, "")
        .map(drop)
        .expect_err("a file");
    assert!(refused.to_string().contains("no socket"), "{refused}");
    assert!(socket_path(&folder.0).exists());
}

#[test]
fn nobody_answers_is_one_line_with_the_remedy() {
    let folder = Folder::new();
    let error = ask(&folder.0, &Request::Status {}).expect_err("nobody");
    let line = format!("{error:#}");
    assert!(
        line.contains("ftpguard run") && !line.contains('\n'),
        "{line}"
    );
}

/// Requests that are understood, to be damaged.
const UNDERSTOOD: &[&str] = &[
    r#"{"request":"status"}"#,
    r#"{"request":"events","follow":true}"#,
    r#"{"request":"mode","mode":"enforce"}"#,
    r#"{"request":"why","subject":{"address":"10.0.0.3"}}"#,
    r#"{"request":"why","subject":"last"}"#,
    r#"{"request":"reload"}"#,
];

/// A line that was meant to be a request: noise, or a request with some bytes changed.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let noise = vec(any::<u8>(), 0..5_000);
    let changed = (
        sample::select(UNDERSTOOD),
        vec((any::<sample::Index>(), any::<u8>()), 0..6),
    )
        .prop_map(|(line, changes)| {
            let mut line = line.as_bytes().to_vec();
            for (place, byte) in changes {
                let place = place.index(line.len());
                if let Some(old) = line.get_mut(place) {
                    *old = byte;
                }
            }
            line
        });
    prop_oneof![noise, changed]
}

proptest! {
    /// A request is understood, or refused in one line.
    #[test]
    fn any_line_is_a_request_or_one_line_of_error(mut line in damaged()) {
        line.push(b'\n');
        if let Err(error) = parse_request(&line) {
            prop_assert!(!error.is_empty() && !error.contains('\n'), "{error:?}");
        }
    }
}

#[test]
fn undamaged_requests_are_understood() {
    for line in UNDERSTOOD {
        let request = parse_request(format!("{line}\n").as_bytes()).expect(line);
        let changes = line.contains("reload") || line.contains("mode");
        assert_eq!(request.changes(), changes, "{line}");
    }
}

/// Whatever many clients send, the next one gets an answer.
#[test]
fn damaged_requests_through_the_socket_leave_it_working() {
    let mut runner = TestRunner::deterministic();
    let lines: Vec<Vec<u8>> = (0..150)
        .map(|_| damaged().new_tree(&mut runner).expect("a line").current())
        .collect();
    let folder = Folder::new();
    with_server(&folder.0, move |folder| {
        for line in lines {
            let answer = exchange(&folder, &line);
            // One line, or nothing where the client was cut off while it still sent.
            assert!(answer.lines().count() <= 3, "{answer}");
        }
        assert_eq!(
            ask(&folder, &Request::Sessions {}).expect("an answer"),
            Reply::Sessions(Vec::new())
        );
    });
}

/// Only what cannot be there counts as no guard: what cannot be asked may be.
#[test]
fn a_guard_that_cannot_be_asked_is_not_taken_for_none() {
    let folder = Folder::new();
    let end = || end(&folder.0, Duration::ZERO);
    assert!(!end().expect("there is no folder"));
    fs::create_dir(&folder.0).expect("a folder");
    assert!(!end().expect("there is no socket"));
    drop(std::os::unix::net::UnixListener::bind(socket_path(&folder.0)).expect("a socket"));
    assert!(!end().expect("nobody answers on it"));
    fs::remove_dir_all(&folder.0).expect("it goes");
    // As where the folder cannot be entered: something else than "no such file".
    fs::write(&folder.0, "").expect("a file");
    end().expect_err("it cannot be asked");
    fs::remove_file(&folder.0).expect("it goes");
}

/// What the server says to a member of its group, or where it has no place.
#[test]
fn a_refusal_to_end_is_told_at_once() {
    let folder = Folder::new();
    fs::create_dir(&folder.0).expect("a folder");
    let listener =
        std::os::unix::net::UnixListener::bind(socket_path(&folder.0)).expect("a socket");
    // The folder is in use, as with a guard.
    let _lock = lock(&folder.0).expect("nobody has it");
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        stream
            .write_all(b"{\"error\":\"only root\"}\n")
            .expect("told");
    });
    let refused = end(&folder.0, Duration::ZERO).expect_err("refused");
    assert_eq!(refused.to_string(), "only root");
    server.join().expect("no panic");
}

/// Under a service manager the folder goes with the guard, before anybody can see its lock free.
#[test]
fn a_folder_that_is_gone_means_that_the_guard_has_ended() {
    let folder = Folder::new();
    fs::create_dir(&folder.0).expect("a folder");
    let lock = lock(&folder.0).expect("nobody else uses it");
    let guard = std::os::unix::net::UnixListener::bind(socket_path(&folder.0)).expect("a socket");
    let gone = folder.0.clone();
    let ends = thread::spawn(move || {
        let (asked, _) = guard.accept().expect("a question");
        let mut line = String::new();
        BufReader::new(&asked).read_line(&mut line).expect("a line");
        fs::remove_dir_all(&gone).expect("the folder goes");
        // The lock is never seen free.
        (asked.shutdown(std::net::Shutdown::Both), lock)
    });
    let begun = Instant::now();
    let ended = end(&folder.0, Duration::from_secs(5)).expect("it has ended");
    assert!(ended);
    assert!(begun.elapsed() < Duration::from_secs(4), "at once");
    assert!(!folder.0.exists(), "nothing was made anew");
    drop(ends.join().expect("no panic"));
}
