//! From a denial to its rules, and to what would have allowed it.
//!
//! The ids are those of `docs/threat-model.md`. What would have allowed an attack is said, too:
//! the operator knows who is a partner, the guard does not.

use std::net::{IpAddr, SocketAddr};

use ftpguard_common::{net::Port, verdict::Reason};
use serde::{Deserialize, Serialize};

use super::memory::{Attempt, Denied};

/// Why something was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// What happened, one sentence.
    pub what: String,
    /// Ids of the rules that did it.
    pub rules: Vec<String>,
    /// What the rules say, one sentence.
    pub rule: String,
    /// What would have allowed it, one sentence.
    pub allow: String,
}

/// Explains one kind of denial.
#[must_use]
pub fn explain(denied: &Denied) -> Explanation {
    let Some(reason) = denied.reason() else {
        return Explanation::default();
    };
    let (ids, rule) = rules(reason);
    Explanation {
        what: what(denied, reason),
        rules: ids.iter().map(|id| (*id).to_owned()).collect(),
        rule: rule.to_owned(),
        allow: allow(denied, reason),
    }
}

/// Each reason that denies, the ids of its rules, and what they say. The test below names one that
/// is missing.
const RULES: &[(Reason, &[&str], &str)] = &[
    (
        Reason::NoPinhole,
        &["I2", "K1"],
        "a data port admits the client whose session opened it, once, and nobody else",
    ),
    (
        Reason::DaemonGone,
        &["M2"],
        "while the daemon is dead or hung, ports that need it follow without_daemon",
    ),
    (
        Reason::ClosedPort,
        &["I1", "I2"],
        "unused ports of the passive range are closed to everybody",
    ),
    (
        Reason::Bounced,
        &["O11"],
        "with the bounce shield on, nothing from port 20 reaches this host's ports below 1024",
    ),
    (
        Reason::TinyFragment,
        &["I5"],
        "a fragment that hides the TCP flags is never legitimate",
    ),
    (Reason::ConnectToStranger, &["O1", "O4"], CLIENT_ONLY),
    (Reason::DataToStranger, &["O1", "O4"], CLIENT_ONLY),
    (Reason::ConnectToLowPort, &["O1", "O2"], HIGH_PORTS),
    (Reason::DataToLowPort, &["O1", "O2"], HIGH_PORTS),
    (
        Reason::ConnectToOtherPort,
        &["O10"],
        "an FTP server connects to the port that its client announced with PORT or EPRT",
    ),
    (
        Reason::ConnectWhileOff,
        &["O10"],
        "the configuration allows active mode to nobody, or to exceptions only",
    ),
    (
        Reason::ConnectAfterEpsvAll,
        &["C5"],
        "after EPSV ALL the client opens every data connection, until REIN or the session's end",
    ),
    (
        Reason::DataBarred,
        &["O4"],
        "what connect() was refused leaves no SYN either",
    ),
];

const CLIENT_ONLY: &str =
    "an FTP server connects to its session's client and to exceptions, and to nobody else";

const HIGH_PORTS: &str = "an FTP server connects to its client's ports from 1024 up, and to the \
                          port its control connection comes from";

/// The ids of the rules that a reason belongs to, and what they say. Reasons that pass have none.
fn rules(reason: Reason) -> (&'static [&'static str], &'static str) {
    RULES
        .iter()
        .find(|(known, ..)| *known == reason)
        .map_or((&[], ""), |(_, ids, text)| (ids, text))
}

fn what(denied: &Denied, reason: Reason) -> String {
    let verb = if denied.passed { "would be" } else { "was" };
    let remote = denied.remote;
    match denied.attempt {
        Attempt::Syn => {
            let target = denied.server.map_or_else(
                || format!("port {}", denied.port),
                |server| end(server, denied.port),
            );
            let state = if reason == Reason::ClosedPort {
                ", where nothing listens,".to_owned()
            } else if reason != Reason::NoPinhole {
                String::new()
            } else if denied.open_for.is_empty() {
                ", a data port that is open for nobody or was used already,".to_owned()
            } else {
                let clients = join(&denied.open_for);
                format!(", a data port that was open for {clients},")
            };
            let session = if denied.has_session {
                "a control connection of its own, but not for this port"
            } else {
                "no control connection"
            };
            let holds = if reason == Reason::NoPinhole {
                format!("; {remote} held {session}")
            } else {
                String::new()
            };
            format!("a SYN from {remote} to {target}{state} {verb} dropped{holds}")
        }
        Attempt::Connect => {
            let who = match (denied.serves, denied.pid) {
                (Some(session), Some(pid)) => {
                    format!("process {pid}, which serves {},", session.client)
                }
                (None, Some(pid)) => format!("process {pid}"),
                (_, None) => "an FTP server".to_owned(),
            };
            let asked = denied
                .requested_by
                .map(|client| format!("; {client} had asked for it with PORT or EPRT"))
                .unwrap_or_default();
            format!(
                "connect() to {} by {who} {verb} refused{asked}",
                end(remote, denied.port)
            )
        }
        Attempt::OutgoingSyn => format!(
            "an outgoing SYN from the data source port to {} {verb} dropped",
            end(remote, denied.port)
        ),
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the other reasons pass; the test below names one that does not"
)]
fn allow(denied: &Denied, reason: Reason) -> String {
    let remote = denied.remote;
    let exception = || {
        format!(
            "an exception: [[exception]] name = \"...\", connect_to = [\"{}\"]",
            destination(denied)
        )
    };
    match reason {
        Reason::NoPinhole if denied.has_session => format!(
            "a passive transfer that {remote} asks for itself: PASV or EPSV on its own control \
             connection, then one connection to the port in the answer"
        ),
        Reason::NoPinhole => format!(
            "a control connection from {remote} itself; a client that comes from several \
             addresses (IPv4 and IPv6, several exits of one NAT) has to use one for both \
             connections, or be named: [[exception]] name = \"...\", data_from = [\"{remote}\", ...] \
             (rule I7)"
        ),
        Reason::DaemonGone => {
            "a daemon that runs; without_daemon = \"control-peer\" lets clients with a control \
             connection in, \"open\" everybody"
                .to_owned()
        }
        Reason::ClosedPort => {
            "nothing: nothing listens there; take the port out of passive_ports if other \
             software is to use it"
                .to_owned()
        }
        Reason::Bounced => "bounce_shield = false".to_owned(),
        Reason::TinyFragment => "nothing".to_owned(),
        Reason::ConnectToStranger | Reason::DataToStranger | Reason::DataBarred
            if denied.requested_by.is_some() =>
        {
            format!(
                "if {remote} is a partner for server-to-server transfers (FXP), {}; if not, this is \
                 a bounce attack",
                exception()
            )
        }
        Reason::ConnectToLowPort | Reason::DataToLowPort if denied.port == 113 => format!(
            "{} (ident), or ident switched off in the FTP server",
            exception()
        ),
        Reason::ConnectToStranger
        | Reason::DataToStranger
        | Reason::DataBarred
        | Reason::ConnectToLowPort
        | Reason::DataToLowPort => exception(),
        Reason::ConnectToOtherPort => {
            "the port that the client announced; a client that announces one and expects the \
             connection at another is broken"
                .to_owned()
        }
        Reason::ConnectWhileOff => "active = \"client\"".to_owned(),
        Reason::ConnectAfterEpsvAll => {
            "a client that does not say EPSV ALL before it uses active mode".to_owned()
        }
        _ => String::new(),
    }
}

/// Address and port, IPv6 in brackets.
pub(super) fn end(address: IpAddr, port: u16) -> String {
    SocketAddr::new(address, port).to_string()
}

/// What an exception for this denial has to name: of a partner that a client asked for the address
/// alone, because each transfer takes another port.
pub(super) fn destination(denied: &Denied) -> String {
    if denied.requested_by.is_some() && !Port::new(denied.port).is_low() {
        denied.remote.to_string()
    } else {
        end(denied.remote, denied.port)
    }
}

fn join(addresses: &[IpAddr]) -> String {
    addresses
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use ftpguard_common::verdict::Verdict;

    use super::*;

    /// Each reason that denies has a rule that stands in the threat model, and says what would
    /// have allowed it (principle P6); no other has one.
    #[test]
    fn p6_every_denial_is_explained() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/threat-model.md");
        let model = fs::read_to_string(path).expect("the threat model");
        for reason in Reason::ALL.iter().copied() {
            let denies = reason.verdict() == Verdict::Deny;
            let (ids, _) = rules(reason);
            assert_eq!(!ids.is_empty(), denies, "{reason:?}");
            for id in ids {
                assert!(model.contains(&format!("- **{id}** ")), "{id}");
            }
            let explanation = explain(&denied(Attempt::Syn, reason));
            for text in [&explanation.rule, &explanation.allow] {
                assert_eq!(!text.is_empty(), denies, "{reason:?}");
            }
        }
    }

    fn denied(attempt: Attempt, reason: Reason) -> Denied {
        Denied {
            attempt,
            reason: reason.label().to_owned(),
            passed: false,
            remote: [10, 0, 0, 3].into(),
            port: 50_000,
            server: Some([10, 0, 0, 1].into()),
            pid: Some(4242),
            serves: None,
            requested_by: None,
            open_for: Vec::new(),
            has_session: false,
            count: 1,
            first: 0,
            last: 0,
        }
    }

    #[test]
    fn a_theft_names_the_victim() {
        let denied = Denied {
            open_for: vec![[10, 0, 0, 2].into()],
            ..denied(Attempt::Syn, Reason::NoPinhole)
        };
        assert_eq!(
            explain(&denied).what,
            "a SYN from 10.0.0.3 to 10.0.0.1:50000, a data port that was open for 10.0.0.2, was \
             dropped; 10.0.0.3 held no control connection"
        );
    }

    #[test]
    fn a_bounce_is_told_from_infrastructure() {
        let asked = Denied {
            requested_by: Some([10, 0, 0, 2].into()),
            ..denied(Attempt::Connect, Reason::ConnectToStranger)
        };
        let explanation = explain(&asked);
        assert_eq!(
            explanation.what,
            "connect() to 10.0.0.3:50000 by process 4242 was refused; 10.0.0.2 had asked for it \
             with PORT or EPRT"
        );
        assert!(explanation.allow.contains("bounce attack"));
        assert!(
            explanation.allow.contains("connect_to = [\"10.0.0.3\"]"),
            "{}",
            explanation.allow
        );
        let own = Denied {
            port: 389,
            passed: true,
            ..denied(Attempt::Connect, Reason::ConnectToStranger)
        };
        let explanation = explain(&own);
        assert_eq!(
            explanation.what,
            "connect() to 10.0.0.3:389 by process 4242 would be refused"
        );
        assert_eq!(
            explanation.allow,
            "an exception: [[exception]] name = \"...\", connect_to = [\"10.0.0.3:389\"]"
        );
    }
}
