//! Transcripts of real control connections, as `tests/transcripts/README.md` defines them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    net::SocketAddr,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use ftpguard_common::{
    event::Direction,
    ftp::{Dialogue, DialogueEvent},
};

use crate::{
    client::Commands,
    ftpd::{FILE, Kind, Settings},
    sandbox::{Family, Sandbox},
    scenario::Stage,
    tap::{Seen, Tap},
    tls::Handshake,
    tool::{Tool, Transfer, Way},
};

/// How long one client may take.
const LIMIT: Duration = Duration::from_secs(20);

/// The ftpds that are recorded: one of each program.
pub const FTPDS: [Kind; 5] = [
    Kind::Vsftpd,
    Kind::Proftpd,
    Kind::PureFtpd,
    Kind::Pyftpdlib,
    Kind::Inetutils,
];

/// Python's FTP over TLS.
const SCRIPT: &str = "
import ssl, sys
from ftplib import FTP_TLS
ftp = FTP_TLS(sys.argv[1], context=ssl._create_unverified_context(), timeout=10)
ftp.login()
ftp.quit()
";

/// Records what this client and this ftpd say to each other: files fetched and stored, passive
/// and active, with the classic and the extended commands, and the way into TLS where the ftpd
/// knows it. Returns the transcript.
pub fn record(kind: Kind, tool: Tool) -> Result<String> {
    let mut text = format!(
        "# {} and {}, recorded by `cargo xtask record`.\n",
        kind.label(),
        name(tool)
    );
    let stage = Stage::new(Settings::of(kind))?;
    for way in [Way::Passive, Way::Active] {
        for transfer in Transfer::all(way) {
            if transfer.tool != tool || !can(kind, transfer) {
                continue;
            }
            let title = format!(
                "{way:?}, {:?} commands, {}",
                transfer.commands,
                transfer.family.label()
            )
            .to_lowercase()
            .replace("ipv", "IPv");
            let fetched = session(&stage, &format!("fetch: {title}"), &mut text, || {
                let content = transfer.fetch(&stage.sandbox)?;
                ensure!(stage.is_file(&content), "other bytes were fetched");
                Ok(())
            });
            fetched.with_context(|| format!("{kind:?}: {transfer:?}"))?;
        }
    }
    let store = Transfer {
        tool,
        family: Family::V4,
        way: Way::Passive,
        commands: Commands::Classic,
    };
    session(&stage, "store: passive", &mut text, || {
        store.store(&stage.sandbox, "recorded", b"some bytes")
    })?;
    if kind != Kind::Inetutils {
        let stage = Stage::new(Settings {
            tls: Some(Handshake::Explicit),
            ..Settings::of(kind)
        })?;
        // What comes of it under TLS is not seen anyway.
        session(&stage, "the way into TLS", &mut text, || {
            stage
                .sandbox
                .client()
                .run(&mut under_tls(tool, &stage.sandbox), LIMIT)
                .map(drop)
        })?;
    }
    Ok(text)
}

/// `vsftpd-curl` for the first of each.
#[must_use]
pub fn file_name(kind: Kind, tool: Tool) -> String {
    let ftpd = kind.label().to_lowercase();
    format!("{ftpd}-{}.txt", name(tool))
}

fn name(tool: Tool) -> &'static str {
    match tool {
        Tool::Curl => "curl",
        Tool::Lftp => "lftp",
        Tool::Ftplib => "ftplib",
    }
}

/// Whether this client gets through to this ftpd in this way.
fn can(kind: Kind, transfer: Transfer) -> bool {
    // GNU inetutils' ftpd knows no EPRT over IPv4.
    !(kind == Kind::Inetutils
        && transfer.way == Way::Active
        && transfer.commands == Commands::Extended
        && transfer.family == Family::V4)
}

fn under_tls(tool: Tool, sandbox: &Sandbox) -> Command {
    let server = sandbox.server().address(Family::V4);
    match tool {
        Tool::Curl => {
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--max-time", "15", "--insecure", "--ssl-reqd"])
                .args(["--output", "/dev/null"])
                .arg(format!("ftp://{server}/{FILE}"));
            curl
        }
        Tool::Lftp => {
            let mut lftp = Command::new("lftp");
            lftp.env("HOME", "/nonexistent")
                .args(["--norc", "-e"])
                .arg(
                    "set net:timeout 5; set net:max-retries 1; set ssl:verify-certificate no; \
                     set ftp:ssl-force on; set ftp:ssl-protect-data on; ls; exit",
                )
                .arg(format!("ftp://anonymous:nobody@{server}"));
            lftp
        }
        Tool::Ftplib => {
            let mut python = Command::new("/usr/bin/python3");
            python.args(["-c", SCRIPT, &server.to_string()]);
            python
        }
    }
}

/// Plays something that opens one control connection (or several, one after the other), and
/// appends what was said.
fn session(
    stage: &Stage,
    title: &str,
    text: &mut String,
    play: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let tap = Tap::start(stage.sandbox.server())?;
    let played = play();
    let seen = tap.stop();
    played?;
    let port = stage.ftpd.settings().control_port();
    let mut control: BTreeMap<usize, (SocketAddr, Vec<&Seen>)> = BTreeMap::new();
    let mut numbers: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    for segment in &seen {
        let client = if segment.destination.port() == port {
            segment.source
        } else if segment.source.port() == port {
            segment.destination
        } else {
            continue;
        };
        // What is left of an earlier one is none.
        if !segment.syn && !numbers.contains_key(&client) {
            continue;
        }
        let next = numbers.len();
        let number = *numbers.entry(client).or_insert(next);
        let connection = control.entry(number).or_insert((client, Vec::new()));
        connection.1.push(segment);
    }
    ensure!(!control.is_empty(), "no control connection was seen");
    let scrub = Scrub::new(&stage.sandbox)?;
    for (client, segments) in control.values() {
        let _ = writeln!(text, "\n# {title}\n! opened");
        let events = transcribe(*client, segments, &scrub, text)?;
        agrees_with_the_wire(&events, &seen, *client)?;
    }
    Ok(())
}

/// One control connection, up to its end or to TLS.
fn transcribe(
    client: SocketAddr,
    segments: &[&Seen],
    scrub: &Scrub,
    text: &mut String,
) -> Result<Vec<DialogueEvent>> {
    let mut dialogue = Dialogue::new();
    let mut all = Vec::new();
    let mut next: [Option<u32>; 2] = [None, None];
    for segment in segments {
        let (who, direction, next) = if segment.source == client {
            ("C", Direction::ToServer, &mut next[0])
        } else {
            ("S", Direction::ToClient, &mut next[1])
        };
        if segment.syn {
            *next = Some(segment.sequence.wrapping_add(1));
            continue;
        }
        let expected = next.context("its beginning was not seen")?;
        if segment.payload.is_empty() || segment.sequence != expected {
            let old = expected.wrapping_sub(segment.sequence).cast_signed() > 0;
            ensure!(
                old || segment.payload.is_empty(),
                "segments are missing before {}; record again",
                escape(&segment.payload)
            );
            continue;
        }
        *next = Some(expected.wrapping_add(u32::try_from(segment.payload.len())?));
        let _ = writeln!(text, "{who}: {}", escape(&scrub.clean(&segment.payload)));
        let mut events = Vec::new();
        dialogue.feed(direction, &segment.payload, 0, &mut |event| {
            events.push(event);
        });
        for event in &events {
            let line = scrub.clean(event.to_string().as_bytes());
            let _ = writeln!(text, "= {}", String::from_utf8_lossy(&line));
        }
        all.extend(events);
        if dialogue.is_opaque() {
            let _ = writeln!(text, "# Under TLS from here on.");
            break;
        }
    }
    Ok(all)
}

/// What the text says must be what the wire shows: each data connection goes to the port that
/// was announced for it, and there are no others.
fn agrees_with_the_wire(events: &[DialogueEvent], seen: &[Seen], client: SocketAddr) -> Result<()> {
    let announced: BTreeSet<(bool, u16)> = events
        .iter()
        .filter_map(|event| {
            if let DialogueEvent::PassiveAnnounced { port, .. } = event {
                Some((false, port.number()))
            } else if let DialogueEvent::ActiveAccepted {
                target: Some(target),
                ..
            } = event
            {
                Some((true, target.port.number()))
            } else {
                None
            }
        })
        .collect();
    let opaque = events
        .iter()
        .any(|event| matches!(event, DialogueEvent::Opaque(_)));
    // To the client, or to the server.
    let connected: BTreeSet<(bool, u16)> = seen
        .iter()
        .filter(|segment| segment.syn && segment.acknowledgment.is_none())
        .filter(|segment| !matches!(segment.destination.port(), 21 | 990 | 113))
        .map(|segment| {
            let to_client = segment.destination.ip() == client.ip();
            (to_client, segment.destination.port())
        })
        .collect();
    if !opaque && announced != connected {
        bail!("the text announces {announced:?}, the wire shows {connected:?}");
    }
    Ok(())
}

/// Takes out what is another one in each sandbox and on each machine.
struct Scrub(Vec<(Vec<u8>, &'static [u8])>);

impl Scrub {
    fn new(sandbox: &Sandbox) -> Result<Self> {
        let mut all = Vec::new();
        for (host, v4, commas, v6) in [
            (sandbox.server(), "192.0.2.1", "192,0,2,1", "2001:db8::1"),
            (sandbox.client(), "192.0.2.2", "192,0,2,2", "2001:db8::2"),
        ] {
            let address = host.address(Family::V4).to_string();
            all.push((address.replace('.', ",").into_bytes(), commas.as_bytes()));
            all.push((address.into_bytes(), v4.as_bytes()));
            let address = host.address(Family::V6).to_string();
            all.push((address.into_bytes(), v6.as_bytes()));
        }
        let name = fs::read_to_string("/proc/sys/kernel/hostname").context("the host's name")?;
        all.push((name.trim().as_bytes().to_vec(), b"server.example"));
        Ok(Self(all))
    }

    fn clean(&self, bytes: &[u8]) -> Vec<u8> {
        let mut cleaned = Vec::new();
        let mut rest = bytes;
        'bytes: while let Some((first, after)) = rest.split_first() {
            for (from, to) in &self.0 {
                if let Some(behind) = rest.strip_prefix(from.as_slice()) {
                    // Not the beginning of a longer number.
                    if !behind.first().is_some_and(u8::is_ascii_digit) {
                        cleaned.extend_from_slice(to);
                        rest = behind;
                        continue 'bytes;
                    }
                }
            }
            cleaned.push(*first);
            rest = after;
        }
        cleaned
    }
}

fn escape(bytes: &[u8]) -> String {
    let mut text = String::new();
    let last = bytes.len().saturating_sub(1);
    for (index, &byte) in bytes.iter().enumerate() {
        match byte {
            b'\r' => text.push_str("\\r"),
            b'\n' => text.push_str("\\n"),
            b'\t' => text.push_str("\\t"),
            b'\\' => text.push_str("\\\\"),
            b' ' if index == 0 || index == last => text.push_str("\\x20"),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
    }
    text
}
