//! The control connection is nobody's business but the ftpd's and its client's (rule P5).

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
    time::Duration,
};

use ftpguard_tests::{
    Family, Guard, Sandbox, ftpd::CONTROL_PORT, guard::Options, scripted::Scripted,
};

/// Everything that a reader of the dialogue could stumble over, one line each.
fn lines() -> Vec<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = [
        &b"PORT 300,1,2,3,4,5"[..],
        b"PORT 10,0,0,1,0,22",
        b"EPRT |9|::|0|",
        b"\xff\xf4\xff\xf2ABOR",
        b"\xff\xfaABOR",
        b"227 Entering Passive Mode (1,2,3,4,5,6)",
        b"a\0PASV",
        b" PASV",
        b"NOOP\r",
        b"USER x\tPASV",
        b"\x16\x03\x01\x02\x00\x01",
        b"QUIT\xe9",
    ]
    .into_iter()
    .map(<[u8]>::to_vec)
    .collect();
    // Longer than any reader keeps (rule S6).
    lines.push(vec![b'x'; 100_000]);
    lines.extend((0..40).map(|number| format!("XNOP {number}").into_bytes()));
    lines
}

/// What the server answers to each line: what it received, as it does not know the command.
fn answers(sandbox: &Sandbox) -> Vec<Vec<u8>> {
    let server = sandbox.server().socket(Family::V4, CONTROL_PORT);
    let talk = || -> std::io::Result<Vec<Vec<u8>>> {
        let mut stream = TcpStream::connect(server)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut answers = vec![Vec::new()];
        reader.read_until(b'\n', &mut answers[0])?;
        for mut line in lines() {
            line.extend(b"\r\n");
            stream.write_all(&line)?;
            let mut answer = Vec::new();
            reader.read_until(b'\n', &mut answer)?;
            answers.push(answer);
        }
        Ok(answers)
    };
    let answers = sandbox.client().enter(talk).expect("namespace");
    answers.expect("an answer to each line")
}

#[test]
fn p5_both_sides_hear_every_byte_of_the_other() {
    let sandbox = Sandbox::new().expect("a sandbox");
    let _server = Scripted::start(&sandbox).expect("the server");
    let without = answers(&sandbox);
    assert_eq!(without.len(), lines().len() + 1);
    assert!(without.iter().any(|answer| answer.len() > 100_000));
    for tracking in ["socket", "text"] {
        let options = Options {
            tracking,
            ..Options::default()
        };
        let guard = Guard::start(&sandbox, &options).expect("ftpguard becomes ready");
        let with = answers(&sandbox);
        assert!(
            with == without,
            "{tracking}: other answers\n{}",
            guard.log()
        );
    }
}
