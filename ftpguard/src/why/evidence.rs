//! What monitor mode would have refused, and the exceptions that it would need (rules M1, O3).

use std::collections::BTreeMap;

use ftpguard_common::verdict::Reason;
use serde::{Deserialize, Serialize};

use super::{
    explain::end,
    memory::{Attempt, Denied},
};
use crate::status::Count;

/// What monitor mode would have refused since it began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Seconds since it began.
    pub since: u64,
    /// How often, by reason. These counts are complete.
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
    /// What was seen, and what it may be.
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

/// The exceptions that these would need.
#[must_use]
pub fn propose(sources: &[Denied]) -> Vec<Proposal> {
    let mut proposals: BTreeMap<String, Proposal> = BTreeMap::new();
    for denied in sources.iter().filter(|denied| denied.passed) {
        if let Some(proposal) = proposal(denied) {
            proposals
                .entry(proposal.setting.clone() + &proposal.reason)
                .or_insert(proposal);
        }
    }
    proposals.into_values().collect()
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "few of the many reasons call for an exception"
)]
fn proposal(denied: &Denied) -> Option<Proposal> {
    let destination = end(denied.remote, denied.port);
    let exception =
        |name: &str| format!("[[exception]]\nname = \"{name}\"\nconnect_to = [\"{destination}\"]");
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
            (Some(client), _) => Proposal {
                reason: format!(
                    "{client} had the server connect to {destination}, {times}: a partner for \
                     server-to-server transfers (FXP), or a bounce attack; allow it only if you \
                     know it"
                ),
                setting: exception(&format!("fxp {}", denied.remote)),
            },
            (None, Some(service)) => Proposal {
                reason: format!(
                    "the server connects to {destination} ({service}), {times}, and no client had \
                     asked for it"
                ),
                setting: exception(service),
            },
            (None, None) => Proposal {
                reason: format!(
                    "the server connects to {destination}, {times}; under TLS it is not seen \
                     whether a client had asked for it"
                ),
                setting: exception(&destination),
            },
        }),
        Reason::ConnectWhileOff => Some(Proposal {
            reason: "clients use active mode, which the configuration switches off".to_owned(),
            setting: "active = \"client\"".to_owned(),
        }),
        Reason::NoPinhole if denied.has_session => Some(Proposal {
            reason: format!(
                "{} holds control connections and came to data ports that were not its own, \
                 {times}: a client with several addresses, or a thief; no setting allows it",
                denied.remote
            ),
            setting: String::new(),
        }),
        Reason::Bounced => Some(Proposal {
            reason: format!(
                "{} reaches this host's port {} from its port 20, {times}",
                denied.remote, denied.port
            ),
            setting: "bounce_shield = false".to_owned(),
        }),
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
    use std::net::IpAddr;

    use super::*;

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
        let proposals = propose(&sources);
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
                    "[[exception]]\nname = \"fxp 192.0.2.11\"\nconnect_to = [\"192.0.2.11:6667\"]",
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
