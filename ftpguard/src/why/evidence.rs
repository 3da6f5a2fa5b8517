//! What monitor mode would have refused, and the exceptions that it would need (rules M1, O3).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ftpguard_common::verdict::Reason;
use serde::{Deserialize, Serialize};

use super::{
    explain::{destination, end},
    memory::{Attempt, Denied},
};
use crate::{config::ExceptionRule, status::Count};

/// What monitor mode would have refused since it began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Seconds since it began.
    pub since: u64,
    /// How often, by reason. These counts are complete, unless some FTP servers are enforced: then
    /// only what was told one by one is counted.
    pub reasons: Vec<Count>,
    /// By reason and address, the most frequent first. In a flood not every denial is told one
    /// by one, so these counts may be too low.
    pub sources: Vec<Denied>,
    /// How many kinds that may need an exception are not among the sources any more, because there
    /// were too many.
    #[serde(default)]
    pub forgotten: u64,
    /// What to think about before enforcing.
    pub proposals: Vec<Proposal>,
}

/// An exception or a setting that would let honest traffic through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// What was seen, and what it may be; a line for each denial.
    pub reason: String,
    /// What to write into the file; empty where nothing helps there.
    pub setting: String,
}

/// Whether honest traffic that was denied for this reason needs an exception, one for each
/// destination.
pub(super) const fn needs_exception(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::ConnectToStranger
            | Reason::DataToStranger
            | Reason::ConnectToLowPort
            | Reason::DataToLowPort
    )
}

impl Evidence {
    /// Whether something that may need an exception was counted and is not among the sources: it
    /// was forgotten, or never told because too much else was.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        let is_missing = |label: &str| !self.sources.iter().any(|denied| denied.reason == label);
        self.forgotten > 0
            || Reason::ALL
                .iter()
                .filter(|reason| needs_exception(**reason))
                .map(|reason| reason.label())
                .any(|label| {
                    self.reasons.iter().any(|count| count.name == label) && is_missing(label)
                })
    }
}

/// What is written into the file, or not; in the order in which a file takes it: keys come before
/// tables.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Remedy {
    /// A line that sets a key.
    Key(&'static str),
    /// An exception of this name.
    Exception(String),
    /// Nothing in the file helps this client.
    Nothing(IpAddr),
}

/// How many denials are told of one proposal.
const MAX_REASONS: usize = 4;

/// Why a remedy is proposed, and for an exception what it has to name.
#[derive(Default)]
struct Need {
    reasons: Vec<String>,
    destinations: BTreeSet<String>,
}

impl Need {
    fn reason(mut self) -> String {
        self.reasons.dedup();
        let more = self.reasons.len().saturating_sub(MAX_REASONS);
        self.reasons.truncate(MAX_REASONS);
        if more > 0 {
            self.reasons.push(format!("and {more} more like these"));
        }
        self.reasons.join("\n")
    }

    fn table(&self, name: &str) -> String {
        let destinations: Vec<String> = self
            .destinations
            .iter()
            .map(|destination| format!("\"{destination}\""))
            .collect();
        format!(
            "[[exception]]\nname = \"{name}\"\nconnect_to = [{}]",
            destinations.join(", ")
        )
    }
}

/// What these would need, in an order and under names that the file takes beside the exceptions
/// that are there.
#[must_use]
pub fn propose(sources: &[Denied], there: &[ExceptionRule]) -> Vec<Proposal> {
    let mut needs: BTreeMap<Remedy, Need> = BTreeMap::new();
    for denied in sources.iter().filter(|denied| denied.passed) {
        if let Some((remedy, reason)) = remedy(denied) {
            let need = needs.entry(remedy).or_default();
            need.reasons.push(reason);
            need.destinations.insert(destination(denied));
        }
    }
    needs
        .into_iter()
        .map(|(remedy, need)| Proposal {
            setting: match remedy {
                Remedy::Key(line) => line.to_owned(),
                Remedy::Exception(name) => need.table(&free_name(name, there)),
                Remedy::Nothing(_) => String::new(),
            },
            reason: need.reason(),
        })
        .collect()
}

/// The name, with a number where an exception is called so already.
fn free_name(name: String, there: &[ExceptionRule]) -> String {
    let is_free = |name: &String| there.iter().all(|rule| rule.name != *name);
    if is_free(&name) {
        return name;
    }
    (2..=there.len() + 1)
        .map(|number| format!("{name} {number}"))
        .find(is_free)
        .unwrap_or(name)
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "few of the many reasons call for an exception"
)]
fn remedy(denied: &Denied) -> Option<(Remedy, String)> {
    let destination = end(denied.remote, denied.port);
    let times = if denied.count == 1 {
        "once".to_owned()
    } else {
        format!("{} times", denied.count)
    };
    match denied.reason()? {
        Reason::ConnectToStranger
        | Reason::DataToStranger
        | Reason::ConnectToLowPort
        | Reason::DataToLowPort => Some(match (denied.requested_by, service(denied)) {
            (Some(client), _) => (
                Remedy::Exception(format!("fxp {}", denied.remote)),
                format!(
                    "{client} had the server connect to {destination}, {times}: a partner for \
                     server-to-server transfers (FXP), or a bounce attack; allow it only if you \
                     know it"
                ),
            ),
            (None, Some(service)) => (
                Remedy::Exception(service.to_owned()),
                format!(
                    "the server connects to {destination} ({service}), {times}, and no client had \
                     asked for it"
                ),
            ),
            (None, None) => (
                Remedy::Exception(destination.clone()),
                format!(
                    "the server connects to {destination}, {times}; under TLS it is not seen \
                     whether a client had asked for it"
                ),
            ),
        }),
        Reason::ConnectWhileOff => Some((
            Remedy::Key("active = \"client\""),
            "clients use active mode, which the configuration switches off".to_owned(),
        )),
        Reason::NoPinhole if denied.has_session => Some((
            Remedy::Nothing(denied.remote),
            format!(
                "{} holds control connections and came to data ports that were not its own, \
                 {times}: a client with several addresses, or a thief; no setting allows it",
                denied.remote
            ),
        )),
        Reason::Bounced => Some((
            Remedy::Key("bounce_shield = false"),
            format!(
                "{} reaches this host's port {} from its port 20, {times}",
                denied.remote, denied.port
            ),
        )),
        // Scans and knocks of strangers, and what no setting should allow.
        _ => None,
    }
}

/// The service that an FTP server is likely to want at this port (rule O3).
fn service(denied: &Denied) -> Option<&'static str> {
    if denied.attempt != Attempt::Connect {
        return None;
    }
    Some(match denied.port {
        25 => "mail",
        53 => "dns",
        88 => "kerberos",
        113 => "ident",
        389 | 636 => "ldap",
        445 => "smb",
        514 | 601 | 6514 => "syslog",
        1433 | 1521 | 3306 | 5432 => "database",
        1812 | 1813 => "radius",
        6379 => "redis",
        11_211 => "memcached",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, file::Source};

    fn connect(remote: [u8; 4], port: u16, requested_by: Option<IpAddr>) -> Denied {
        Denied {
            attempt: Attempt::Connect,
            reason: Reason::ConnectToStranger.label().to_owned(),
            passed: true,
            remote: remote.into(),
            port,
            server: None,
            pid: Some(1),
            serves: None,
            requested_by,
            open_for: Vec::new(),
            has_session: false,
            count: 3,
            first: 0,
            last: 0,
        }
    }

    /// O3: all that is proposed can be put into one file as it is.
    #[test]
    fn o3_all_proposals_together_are_a_valid_file() {
        let client: IpAddr = [10, 0, 0, 2].into();
        let other: IpAddr = [10, 0, 0, 3].into();
        let of = |reason: Reason, denied: Denied| Denied {
            reason: reason.label().to_owned(),
            ..denied
        };
        let bounced = |last| {
            of(
                Reason::Bounced,
                Denied {
                    attempt: Attempt::Syn,
                    ..connect([192, 0, 2, last], 80, None)
                },
            )
        };
        let sources = [
            // Two replicas, a partner at two ports for two clients, a back end that the connect()
            // hook and the egress guard saw.
            connect([192, 0, 2, 10], 389, None),
            connect([192, 0, 2, 11], 636, None),
            connect([192, 0, 2, 12], 50_001, Some(client)),
            connect([192, 0, 2, 12], 50_002, Some(other)),
            connect([192, 0, 2, 13], 4000, None),
            of(
                Reason::DataToStranger,
                Denied {
                    attempt: Attempt::OutgoingSyn,
                    count: 1,
                    ..connect([192, 0, 2, 13], 4000, None)
                },
            ),
            of(
                Reason::ConnectWhileOff,
                connect([10, 0, 0, 2], 50_000, None),
            ),
            bounced(20),
            bounced(21),
        ];
        let file: Vec<String> = propose(&sources, &[])
            .into_iter()
            .map(|proposal| proposal.setting)
            .collect();
        let path = std::env::temp_dir().join(format!("ftpguard-o3-{}", std::process::id()));
        std::fs::write(&path, file.join("\n")).expect("written");
        let source = Source::read(&path, true).expect("read").expect("there");
        std::fs::remove_file(&path).expect("removed");
        let config = Config::from_source(&source)
            .unwrap_or_else(|wrong| panic!("{wrong}\n{}", file.join("\n")));
        let allowed = |name: &str| -> Vec<String> {
            let rule = config.exception.iter().find(|rule| rule.name == name);
            let destinations = &rule.unwrap_or_else(|| panic!("{name}")).connect_to;
            destinations.iter().map(ToString::to_string).collect()
        };
        assert_eq!(allowed("ldap"), ["192.0.2.10:389", "192.0.2.11:636"]);
        // The next transfer takes another port.
        assert_eq!(allowed("fxp 192.0.2.12"), ["192.0.2.12"]);
        assert_eq!(allowed("192.0.2.13:4000"), ["192.0.2.13:4000"]);
        assert_eq!(config.exception.len(), 3);
        // And beside what is in the file already.
        let names = propose(&sources, &config.exception)
            .into_iter()
            .filter(|proposal| proposal.setting.contains("name = \"ldap 2\""));
        assert_eq!(names.count(), 1);
    }

    #[test]
    fn a_flood_is_told_in_few_lines() {
        let sources: Vec<Denied> = (0..200)
            .map(|last| connect([192, 0, 2, last], 389, None))
            .collect();
        let proposals = propose(&sources, &[]);
        assert_eq!(proposals.len(), 1);
        let reason = &proposals[0].reason;
        assert_eq!(reason.lines().count(), MAX_REASONS + 1, "{reason}");
        assert!(reason.ends_with("and 196 more like these"), "{reason}");
    }

    #[test]
    fn what_is_proposed_is_what_the_file_takes() {
        let sources = [
            connect([192, 0, 2, 10], 389, None),
            connect([192, 0, 2, 11], 6667, Some([10, 0, 0, 2].into())),
            connect([192, 0, 2, 12], 4000, None),
            Denied {
                passed: false,
                ..connect([192, 0, 2, 13], 389, None)
            },
        ];
        let proposals = propose(&sources, &[]);
        let shown: Vec<(&str, &str)> = proposals
            .iter()
            .map(|proposal| (proposal.setting.as_str(), proposal.reason.as_str()))
            .collect();
        assert_eq!(
            shown,
            [
                (
                    "[[exception]]\nname = \"192.0.2.12:4000\"\nconnect_to = [\"192.0.2.12:4000\"]",
                    "the server connects to 192.0.2.12:4000, 3 times; under TLS it is not seen \
                     whether a client had asked for it"
                ),
                (
                    "[[exception]]\nname = \"fxp 192.0.2.11\"\nconnect_to = [\"192.0.2.11\"]",
                    "10.0.0.2 had the server connect to 192.0.2.11:6667, 3 times: a partner for \
                     server-to-server transfers (FXP), or a bounce attack; allow it only if you \
                     know it"
                ),
                (
                    "[[exception]]\nname = \"ldap\"\nconnect_to = [\"192.0.2.10:389\"]",
                    "the server connects to 192.0.2.10:389 (ldap), 3 times, and no client had \
                     asked for it"
                ),
            ]
        );
        for proposal in &proposals {
            let layer: crate::config::Layer = toml::from_str(&proposal.setting).expect("TOML");
            assert_eq!(layer.exception.map(|rules| rules.len()), Some(1));
        }
    }
}
