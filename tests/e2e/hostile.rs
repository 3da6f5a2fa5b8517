//! Text that lies (threat T6), from a client that chooses every segment it sends (attacker A4):
//! it wants a pinhole for the port that the ftpd has opened for somebody else. And honest text
//! that comes in odd pieces, which must work (rules S1, S2, R2, R8, S9, C9).

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    panic::{AssertUnwindSafe, catch_unwind},
    process::Command,
    thread,
    time::Duration,
};

use ftpguard_tests::{
    Family, FtpClient, Guard, Sandbox,
    client::{self, Commands},
    ftpd::{CONTROL_PORT, FILE},
    guard::Options,
    scripted::{CONTENT, Scripted},
    shaper::{Flaw, Knock, Shaper},
    tap::{Seen, Tap},
};

use crate::help::is_kind;

/// Time for the daemon to read what was said: in socket tracking it does so 20 times a second.
const READ: Duration = Duration::from_millis(120);

/// A way to have the victim's port named in a 227 or 229 on the liar's own control connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// An error repeats what the client sent.
    Echo,
    /// The same, and the repetition begins a segment.
    EchoBeginsSegment,
    /// The same, because segments are that small.
    EchoWithSmallSegments,
    /// The same, because the client acknowledges what is before it.
    EchoAfterPartialAck,
    /// Text of a multi-line answer.
    Block,
    /// The server says it by itself.
    Unsolicited,
    /// It comes right behind an answer.
    BehindAnswer,
    /// A 229 comes right behind an answer.
    ExtendedBehindAnswer,
    /// The client says it.
    Direction,
    /// A file name with LF is repeated, and PASV waits for its answer.
    FileNameBeforePasv,
    /// The server says it in answer to a command, over which the client has written PASV.
    OverlapAfter,
    /// The same, and PASV came first with a bad checksum.
    OverlapBadChecksum,
    /// The same, and the command comes in IP fragments, of which the first has no text.
    FragmentsBadChecksum,
    /// The server says it by itself, and the client has sent a PASV with a bad checksum.
    BadChecksum,
}

impl Lie {
    const ALL: [Self; 14] = [
        Self::Echo,
        Self::EchoBeginsSegment,
        Self::EchoWithSmallSegments,
        Self::EchoAfterPartialAck,
        Self::Block,
        Self::Unsolicited,
        Self::BehindAnswer,
        Self::ExtendedBehindAnswer,
        Self::Direction,
        Self::FileNameBeforePasv,
        Self::OverlapAfter,
        Self::OverlapBadChecksum,
        Self::FragmentsBadChecksum,
        Self::BadChecksum,
    ];

    /// The largest segment that the liar takes.
    fn mss(self) -> Option<u16> {
        (self == Self::EchoWithSmallSegments).then_some(88)
    }

    /// Has it said.
    fn tell(self, liar: &mut Shaper, victim: SocketAddr) {
        let port = victim.port();
        let text = announcement(victim);
        let unknown = ": unknown\r\n";
        let mut ask = |line: &str, end: &str| liar.ask(line, end).expect("an answer");
        let say = |answer: &str| format!("SITE SAY {}", hex(answer));
        match self {
            Self::Echo => drop(ask(&text, unknown)),
            Self::EchoBeginsSegment => {
                let words = [hex("500 "), hex(&format!("{text}{unknown}"))];
                ask(&format!("SITE SPLIT {}", words.join(" ")), unknown);
            }
            // `500 ` and this fill the first segment.
            Self::EchoWithSmallSegments => {
                ask(&format!("{}{text}", "x".repeat(84)), unknown);
            }
            Self::EchoAfterPartialAck => {
                liar.acknowledges = false;
                let before = liar.expected();
                liar.ask(&text, unknown).expect("an answer");
                liar.acknowledge(before.wrapping_add(4)).expect("an ACK");
                // The rest comes again.
                liar.listen(Duration::from_millis(700)).expect("time");
                liar.acknowledge(liar.expected()).expect("an ACK");
            }
            Self::Block => {
                let answer = format!("211-Status\r\n{text}\r\n211 End\r\n");
                ask(&say(&answer), "211 End\r\n");
            }
            Self::Unsolicited => later(liar, &text),
            Self::BehindAnswer => drop(ask(&say(&format!("200 ok\r\n{text}\r\n")), ")\r\n")),
            Self::ExtendedBehindAnswer => {
                let answer = format!("200 ok\r\n229 Extended (|||{port}|)\r\n");
                ask(&say(&answer), "|)\r\n");
            }
            Self::Direction => {
                ask("SITE MODE mute", "200 so be it\r\n");
                ask(&text, "500 unknown\r\n");
            }
            Self::FileNameBeforePasv => {
                let answer = say(&format!("550 a\n{text}: no such file\r\n"));
                ask(&format!("{answer}\r\nPASV"), ")\r\n");
            }
            Self::OverlapAfter | Self::OverlapBadChecksum | Self::FragmentsBadChecksum => {
                let real = format!("{}\r\n", say(&format!("{text}\r\n")));
                let other = format!("PASV\r\nNOOP {}\r\n", "x".repeat(real.len() - 13));
                assert_eq!(real.len(), other.len());
                liar.clear();
                if self == Self::OverlapAfter {
                    liar.send(real.as_bytes()).expect("a segment");
                    let back = -i32::try_from(real.len()).expect("short");
                    liar.send_at(back, other.as_bytes(), Flaw::None)
                        .expect("a segment");
                } else {
                    liar.send_at(0, other.as_bytes(), Flaw::Checksum)
                        .expect("a segment");
                    if self == Self::OverlapBadChecksum {
                        liar.send(real.as_bytes()).expect("a segment");
                    } else {
                        liar.send_in_fragments(real.as_bytes())
                            .expect("two fragments");
                    }
                }
                liar.wait_for(")\r\n").expect("the answer to what counts");
            }
            Self::BadChecksum => {
                let line = format!("SITE LATER {}", hex(&format!("{text}\r\n")));
                ask(&line, "200 later\r\n");
                liar.send_at(0, b"PASV\r\n", Flaw::Checksum)
                    .expect("a segment");
                liar.wait_for(")\r\n").expect("it comes");
            }
        }
    }
}

fn later(liar: &mut Shaper, text: &str) {
    let line = format!("SITE LATER {}", hex(&format!("{text}\r\n")));
    liar.ask(&line, "200 later\r\n").expect("an answer");
    liar.wait_for(")\r\n").expect("it comes");
}

/// The scripted server in a sandbox. The victim is an honest client with a port of its own.
struct Bed {
    _server: Scripted,
    sandbox: Sandbox,
}

impl Bed {
    fn new() -> Self {
        let sandbox = Sandbox::new().expect("a sandbox");
        // Each segment is one frame, so that a reader of frames sees what a router would.
        let segments = ["link", "set", "eth0", "gso_max_segs", "1"];
        sandbox.server().ip(&segments).expect("ip link");
        let server = Scripted::start(&sandbox).expect("the server");
        Self {
            _server: server,
            sandbox,
        }
    }

    fn liar(&self, mss: Option<u16>) -> Shaper {
        static PORT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(20_000);
        let port = PORT.fetch_add(2, std::sync::atomic::Ordering::Relaxed);
        let (thief, server) = (self.sandbox.thief(), self.sandbox.server());
        let mut liar = Shaper::connect(thief, server, mss, port).expect("a control connection");
        liar.ask("USER liar", "and?\r\n").expect("an answer");
        liar.ask("PASS x", "in\r\n").expect("an answer");
        liar
    }

    /// Plays the lie while a victim waits to use its port. Says what became of the liar's SYN to
    /// that port, and what was on the wire meanwhile. The victim gets its file unless the liar was there first.
    fn play(&self, lie: Lie) -> (Knock, Believed) {
        let server = self.sandbox.server().socket(Family::V4, CONTROL_PORT);
        let client = self.sandbox.client();
        client
            .enter(|| {
                let mut victim = FtpClient::login(server).expect("login");
                let announced = victim.passive(Commands::Classic).expect("PASV");
                let mut liar = self.liar(lie.mss());
                let tap = Tap::start(self.sandbox.server()).expect("a tap");
                lie.tell(&mut liar, announced);
                thread::sleep(READ);
                let believed = Believed::of(&tap.stop(), announced);
                let after = liar.knock(announced.port()).expect("a try");
                if after != Knock::Answered {
                    let data = client::connect(announced).expect("the victim's own port");
                    let content = victim.receive(FILE, data.stream).expect("its file");
                    assert_eq!(content, CONTENT);
                }
                (after, believed)
            })
            .expect("namespace")
    }
}

/// What a reader believes that looks at lines and segments, and at nothing else: on which side of
/// the liar's control connection it saw the victim's port announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Believed {
    server: bool,
    client: bool,
}

impl Believed {
    fn of(seen: &[Seen], announced: SocketAddr) -> Self {
        let [high, low] = announced.port().to_be_bytes();
        let classic = format!(",{high},{low})");
        let extended = format!("(|||{}|)", announced.port());
        let names_it = |seen: &Seen| {
            seen.payload.split(|&byte| byte == b'\n').any(|line| {
                let line = String::from_utf8_lossy(line);
                (line.starts_with("227 ") && line.contains(&classic))
                    || (line.starts_with("229 ") && line.contains(&extended))
            })
        };
        let any = |wanted: fn(&Seen) -> u16| {
            seen.iter()
                .any(|seen| wanted(seen) == CONTROL_PORT && names_it(seen))
        };
        Self {
            server: any(|seen| seen.source.port()),
            client: any(|seen| seen.destination.port()),
        }
    }
}

fn announcement(place: SocketAddr) -> String {
    let IpAddr::V4(ip) = place.ip() else {
        panic!("no IPv4 address");
    };
    let [a, b, c, d] = ip.octets();
    let [high, low] = place.port().to_be_bytes();
    format!("227 Entering Passive Mode ({a},{b},{c},{d},{high},{low})")
}

fn hex(text: &str) -> String {
    text.bytes().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn guard(bed: &Bed, tracking: &'static str) -> Guard {
    let options = Options {
        tracking,
        ..Options::default()
    };
    Guard::start(&bed.sandbox, &options).expect("ftpguard becomes ready")
}

/// Without a guard the liar need not even lie; and a naive reader believes every lie: from the
/// server, but for two that only the client says at the beginning of a line or segment.
#[test]
fn t6_lies_work_without_a_guard() {
    let bed = Bed::new();
    for lie in Lie::ALL {
        let (knock, believed) = bed.play(lie);
        assert_eq!(knock, Knock::Answered, "{lie:?}");
        let client_only = matches!(lie, Lie::Echo | Lie::Direction);
        assert_eq!(believed.server, !client_only, "{lie:?}");
        assert!(believed.server || believed.client, "{lie:?}");
    }
}

#[test]
fn p1_t6_lies_open_nothing_in_text_tracking() {
    let bed = Bed::new();
    let guard = guard(&bed, "text");
    let mut refused = 0;
    for lie in Lie::ALL {
        let (knock, _) = bed.play(lie);
        assert_eq!(knock, Knock::Silent, "{lie:?}\n{}", guard.log());
        // What is believed is refused all the same, as the port was promised to the victim. No lie
        // needs that, but the one that is the server's answer to a command of the liar's.
        let events = guard.all_events().expect("events");
        let phantoms = events.iter().filter(|event| is_kind(event, "phantom-port"));
        let before = std::mem::replace(&mut refused, phantoms.count());
        assert!(
            refused == before || lie == Lie::FileNameBeforePasv,
            "{lie:?} is believed\n{}",
            guard.log()
        );
    }
}

#[test]
fn p1_t6_lies_open_nothing_in_socket_tracking() {
    let bed = Bed::new();
    let guard = guard(&bed, "socket");
    for lie in Lie::ALL {
        let (knock, _) = bed.play(lie);
        assert_eq!(knock, Knock::Silent, "{lie:?}\n{}", guard.log());
    }
}

/// How honest text comes.
#[derive(Clone, Copy, Debug)]
enum Form {
    Whole,
    /// Each byte in a segment of its own, both ways.
    Bytes,
    /// Segments of 88 bytes, and an answer that fills several.
    SmallSegments,
    /// A multi-line 227.
    Block,
    /// Two commands in one segment.
    Pipelined,
    /// The command comes twice.
    Again,
    /// Its end comes before its beginning.
    OutOfOrder,
    /// It comes with a bad checksum first.
    BadChecksumFirst,
    /// The first half of the answer is acknowledged, the second comes again.
    PartialAck,
}

impl Form {
    const ALL: [Self; 9] = [
        Self::Whole,
        Self::Bytes,
        Self::SmallSegments,
        Self::Block,
        Self::Pipelined,
        Self::Again,
        Self::OutOfOrder,
        Self::BadChecksumFirst,
        Self::PartialAck,
    ];

    /// Asks for a port; returns it, or `None` where no answer comes.
    fn ask(self, client: &mut Shaper) -> Option<u16> {
        let mode = match self {
            Self::Bytes => "bytes",
            Self::SmallSegments => "long",
            Self::Block => "block",
            Self::Whole
            | Self::Pipelined
            | Self::Again
            | Self::OutOfOrder
            | Self::BadChecksumFirst
            | Self::PartialAck => "whole",
        };
        let mode = format!("SITE MODE {mode}");
        client.ask(&mode, "so be it\r\n").expect("an answer");
        client.clear();
        let mut send = |bytes: &[u8]| client.send(bytes).expect("a segment");
        match self {
            Self::Whole | Self::SmallSegments | Self::Block => send(b"PASV\r\n"),
            Self::Bytes => b"PASV\r\n".iter().for_each(|byte| send(&[*byte])),
            Self::Pipelined => send(b"NOOP\r\nPASV\r\n"),
            Self::Again => {
                send(b"PASV\r\n");
                client.send_at(-6, b"PASV\r\n", Flaw::None).expect("again");
            }
            Self::OutOfOrder => {
                client.send_at(2, b"SV\r\n", Flaw::None).expect("the end");
                client.send(b"PA").expect("the beginning");
                client.send(b"SV\r\n").expect("the end again");
            }
            Self::BadChecksumFirst => {
                let bad = client.send_at(0, b"PASV\r\n", Flaw::Checksum);
                bad.expect("a segment");
                client.send(b"PASV\r\n").expect("a segment");
            }
            Self::PartialAck => {
                client.acknowledges = false;
                client.send(b"PASV\r\n").expect("a segment");
                let answer = client.wait_for(")\r\n").expect("an answer");
                let half = u32::try_from(answer.len() / 2).expect("short");
                let middle = client.expected().wrapping_sub(half);
                client.acknowledge(middle).expect("an ACK");
                client.listen(Duration::from_millis(500)).expect("time");
                client.acknowledge(client.expected()).expect("an ACK");
                client.acknowledges = true;
                return Some(announced(&answer));
            }
        }
        client.wait_for(")\r\n").ok().map(|text| announced(&text))
    }

    /// The largest segment that the client takes.
    fn mss(self) -> Option<u16> {
        matches!(self, Self::SmallSegments).then_some(88)
    }
}

/// The port in the last 227 of an answer.
fn announced(answer: &str) -> u16 {
    let (_, numbers) = answer.rsplit_once('(').expect("a list of numbers");
    let numbers: Vec<u16> = numbers
        .trim_end_matches(")\r\n")
        .split(',')
        .map(|number| number.parse().expect("a number"))
        .collect();
    numbers[4] << 8 | numbers[5]
}

#[test]
fn s1_s2_honest_text_in_odd_pieces_opens_the_port() {
    let bed = Bed::new();
    let guard = guard(&bed, "text");
    for form in Form::ALL {
        let mut client = bed.liar(form.mss());
        let port = form.ask(&mut client).expect("an answer");
        guard.wait_for_pinhole(port).expect("it is read");
        let knock = client.knock(port).expect("a try");
        assert_eq!(knock, Knock::Answered, "{form:?}\n{}", guard.log());
    }
}

#[test]
fn s1_an_answer_cut_at_every_byte_opens_the_port() {
    let bed = Bed::new();
    let guard = guard(&bed, "text");
    let mut client = bed.liar(None);
    let length = client.ask("PASV", ")\r\n").expect("an answer").len();
    for cut in 1..length {
        let mode = format!("SITE MODE cut {cut}");
        client.ask(&mode, "so be it\r\n").expect("an answer");
        let port = announced(&client.ask("PASV", ")\r\n").expect("an answer"));
        guard.wait_for_pinhole(port).expect("it is read");
        let knock = client.knock(port).expect("a try");
        assert_eq!(knock, Knock::Answered, "cut at {cut}\n{}", guard.log());
    }
}

/// The kernel's own connection tracking with its FTP helper, in the guard's place.
const CONNTRACK: &str = "
table ip ftpguard_test {
    ct helper control { type \"ftp\" protocol tcp; }
    chain helper {
        type filter hook prerouting priority filter;
        tcp dport 21 ct helper set \"control\"
    }
    chain input {
        type filter hook input priority filter; policy drop;
        iif \"lo\" accept
        ct state established,related accept
        tcp dport 21 accept
    }
}";

/// As the table in docs/hostile-text.md says.
#[test]
fn t6_what_conntrack_makes_of_the_same_text() {
    let bed = Bed::new();
    let rules = bed.sandbox.folder().join("rules.nft");
    std::fs::write(&rules, CONNTRACK).expect("a file");
    let mut nft = Command::new("nft");
    let loaded = bed
        .sandbox
        .server()
        .run(nft.arg("-f").arg(&rules), Duration::from_secs(10));
    loaded
        .and_then(|finished| finished.success("nft"))
        .expect("the kernel's FTP helper (nf_conntrack_ftp)");
    for lie in Lie::ALL {
        // It knows no commands, and takes a 227 at the beginning of a segment that begins a line.
        let believed = matches!(
            lie,
            Lie::Unsolicited
                | Lie::OverlapAfter
                | Lie::OverlapBadChecksum
                | Lie::FragmentsBadChecksum
                | Lie::BadChecksum
        );
        // On a busy machine it drops the victim's own reply for good now and then.
        let is_so = || {
            let played = catch_unwind(AssertUnwindSafe(|| bed.play(lie)));
            played.is_ok_and(|(knock, _)| (knock == Knock::Answered) == believed)
        };
        assert!((0..3).any(|_| is_so()), "{lie:?}, believed: {believed}");
    }
    for form in Form::ALL {
        let mut client = bed.liar(form.mss());
        let knock = form
            .ask(&mut client)
            .map(|port| client.knock(port).expect("a try"));
        // How honest answers fare depends on how they are cut, which is not ours to say: it holds
        // back segments that end within an announcement.
        println!("{form:?}: {knock:?}");
    }
}
