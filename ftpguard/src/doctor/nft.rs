//! nftables rules that would still block what the guard lets through.
//!
//! A firewall that drops by default has to accept the control ports and the passive range: the
//! guard closes what is not to be reached, it opens nothing. What `nft --json list ruleset` shows
//! is read, and only as far as it concerns whole ports: rules with other conditions (addresses,
//! interfaces, rates) are taken to hold, so that nobody is sent after a rule that is right. Where
//! ports are looked up together with something else, it is said that it cannot be told.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::nft::NftSet;

/// A chain that drops what no rule accepts, and the ports that none accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocking {
    /// `FAMILY TABLE CHAIN`.
    pub chain: String,
    /// Control ports that no rule accepts.
    pub control_ports: Vec<u16>,
    /// How many ports of the passive ranges no rule accepts.
    pub passive_ports: usize,
    /// A set or map that was not understood may accept them.
    pub is_unsure: bool,
}

/// The base chains of this ruleset that block some of these ports. `ruleset` is the answer of
/// `nft --json list ruleset`; the guard itself keeps `own` filled.
#[must_use]
pub fn blocking(
    ruleset: &Value,
    control_ports: &[u16],
    passive_ports: &[u16],
    own: &NftSet,
) -> Vec<Blocking> {
    let Some(items) = ruleset.get("nftables").and_then(Value::as_array) else {
        return Vec::new();
    };
    let ruleset = Ruleset {
        items,
        passive_ports,
        own,
    };
    items
        .iter()
        .filter_map(|item| item.get("chain"))
        .filter(|chain| is_closed_entrance(chain))
        .filter_map(|chain| {
            let accepted = ruleset.accepted(chain, 0);
            if accepted.everything {
                return None;
            }
            let blocking = Blocking {
                chain: format!(
                    "{} {} {}",
                    text(chain, "family"),
                    text(chain, "table"),
                    text(chain, "name")
                ),
                control_ports: control_ports
                    .iter()
                    .copied()
                    .filter(|port| !accepted.ports.contains(port))
                    .collect(),
                passive_ports: passive_ports
                    .iter()
                    .filter(|port| !accepted.ports.contains(port))
                    .count(),
                is_unsure: accepted.is_unsure,
            };
            (!blocking.control_ports.is_empty() || blocking.passive_ports > 0).then_some(blocking)
        })
        .collect()
}

/// Whether what comes in passes this chain and is dropped unless a rule accepts it.
fn is_closed_entrance(chain: &Value) -> bool {
    matches!(text(chain, "hook"), "input" | "prerouting" | "ingress")
        && text(chain, "policy") == "drop"
        && matches!(text(chain, "family"), "inet" | "ip" | "ip6" | "netdev")
}

/// How deep jumps are followed.
const MAX_DEPTH: usize = 8;

/// What a chain accepts.
#[derive(Default)]
struct Accepted {
    everything: bool,
    ports: BTreeSet<u16>,
    /// And maybe others.
    is_unsure: bool,
}

/// What a rule, or an element of its map, asks of a packet.
#[derive(Clone)]
enum Matched {
    /// Nothing: it holds for every packet.
    Nothing,
    /// The destination port, and maybe more.
    Ports(BTreeSet<u16>),
    /// The destination port, in a way that is not understood.
    Unknown,
    /// Something else.
    Other,
}

/// What lets a packet go on.
enum Verdict<'a> {
    Accept,
    /// To this chain.
    Go(&'a str),
}

struct Ruleset<'a> {
    items: &'a [Value],
    passive_ports: &'a [u16],
    own: &'a NftSet,
}

impl<'a> Ruleset<'a> {
    /// What some rule of the chain accepts.
    fn accepted(&self, chain: &Value, depth: usize) -> Accepted {
        let mut accepted = Accepted::default();
        let rules = self
            .items
            .iter()
            .filter_map(|item| item.get("rule"))
            .filter(|rule| {
                text(rule, "chain") == text(chain, "name")
                    && ["family", "table"]
                        .iter()
                        .all(|key| text(rule, key) == text(chain, key))
            });
        for rule in rules {
            for (matched, verdict) in self.outcomes(rule) {
                let theirs = match verdict {
                    // A rule that accepts without any condition accepts everything; conditions
                    // without a port are about something else (ct state, loopback, ICMP).
                    Verdict::Accept => Accepted {
                        everything: true,
                        ..Accepted::default()
                    },
                    Verdict::Go(target) if depth < MAX_DEPTH => {
                        let chain = serde_json::json!({
                            "family": text(rule, "family"),
                            "table": text(rule, "table"),
                            "name": target,
                        });
                        self.accepted(&chain, depth + 1)
                    }
                    Verdict::Go(_) => continue,
                };
                accepted.add(theirs, matched);
                if accepted.everything {
                    return accepted;
                }
            }
        }
        accepted
    }

    /// What a rule does with which packets.
    fn outcomes(&self, rule: &'a Value) -> Vec<(Matched, Verdict<'a>)> {
        let Some(expressions) = rule.get("expr").and_then(Value::as_array) else {
            return Vec::new();
        };
        let own = self.conditions(rule, expressions);
        let mut outcomes = Vec::new();
        for expression in expressions {
            if let Some(verdict) = verdict(expression) {
                outcomes.push((own.clone(), verdict));
            }
            let Some(map) = expression.get("vmap") else {
                continue;
            };
            let key = map.get("key");
            let elements = match map.get("data") {
                Some(Value::String(name)) => self.elements("map", rule, name),
                data => data.and_then(elements),
            };
            if elements.is_none() && key.is_some_and(has_port) {
                outcomes.push((Matched::Unknown, Verdict::Accept));
            }
            for element in elements.unwrap_or_default() {
                let Some([value, verdict]) = element.as_array().map(Vec::as_slice) else {
                    continue;
                };
                let Some(verdict) = self::verdict(verdict) else {
                    continue;
                };
                let matched = if key.is_some_and(is_port) {
                    Matched::Ports(ports(value))
                } else if key.is_some_and(has_port) {
                    Matched::Unknown
                } else if matches!(own, Matched::Nothing) {
                    Matched::Other
                } else {
                    own.clone()
                };
                outcomes.push((matched, verdict));
            }
        }
        outcomes
    }

    fn conditions(&self, rule: &Value, expressions: &[Value]) -> Matched {
        let mut matched = Matched::Nothing;
        for condition in expressions.iter().filter_map(|one| one.get("match")) {
            matched = Matched::Other;
            let (Some(left), Some(right)) = (condition.get("left"), condition.get("right")) else {
                continue;
            };
            if !has_port(left) || !matches!(text(condition, "op"), "==" | "in") {
                continue;
            }
            let set = right.as_str();
            if set.is_some_and(|name| self.is_own(rule, name)) {
                return Matched::Ports(self.passive_ports.iter().copied().collect());
            }
            if !is_port(left) {
                return Matched::Unknown;
            }
            return match set {
                None => Matched::Ports(ports(right)),
                Some(name) => self
                    .elements("set", rule, name)
                    .map_or(Matched::Unknown, |elements| {
                        Matched::Ports(elements.iter().flat_map(ports).collect())
                    }),
            };
        }
        matched
    }

    /// Whether a rule asks one of the sets that the guard keeps filled.
    fn is_own(&self, rule: &Value, name: &str) -> bool {
        matches!(self.own, NftSet::Named { family, table, name: own }
            if text(rule, "family") == *family
                && text(rule, "table") == table
                && [4, 6].iter().any(|version| name == format!("@{own}{version}")))
    }

    /// The elements of a named set or map (`kind`) of the rule's table; `None` where it cannot be
    /// told which they are at another moment.
    fn elements(&self, kind: &str, rule: &Value, name: &str) -> Option<&'a [Value]> {
        let name = name.strip_prefix('@')?;
        let set = self
            .items
            .iter()
            .filter_map(|item| item.get(kind))
            .find(|set| {
                text(set, "name") == name
                    && ["family", "table"]
                        .iter()
                        .all(|key| text(set, key) == text(rule, key))
            })?;
        let changes = |flag: &Value| matches!(flag.as_str(), Some("dynamic" | "timeout"));
        let flags = set.get("flags").and_then(Value::as_array);
        if flags.is_some_and(|flags| flags.iter().any(changes)) {
            return None;
        }
        Some(
            set.get("elem")
                .and_then(Value::as_array)
                .map_or(&[], Vec::as_slice),
        )
    }
}

impl Accepted {
    /// Adds what the chain accepts to which packets like these go.
    fn add(&mut self, theirs: Self, matched: Matched) {
        self.is_unsure |= theirs.is_unsure;
        match matched {
            Matched::Nothing => {
                self.everything |= theirs.everything;
                self.ports.extend(theirs.ports);
            }
            Matched::Ports(own) if theirs.everything => self.ports.extend(own),
            Matched::Ports(own) => self.ports.extend(theirs.ports.intersection(&own)),
            Matched::Unknown => self.is_unsure |= theirs.everything || !theirs.ports.is_empty(),
            // Whom everything is accepted from is not asked.
            Matched::Other => self.ports.extend(theirs.ports),
        }
    }
}

/// What an expression does, where it lets packets go on.
fn verdict(expression: &Value) -> Option<Verdict<'_>> {
    if expression.get("accept").is_some() {
        return Some(Verdict::Accept);
    }
    let next = expression.get("jump").or_else(|| expression.get("goto"))?;
    next.get("target")?.as_str().map(Verdict::Go)
}

/// Whether an expression is the destination port.
fn is_port(expression: &Value) -> bool {
    expression.get("payload").is_some_and(|payload| {
        text(payload, "field") == "dport" && matches!(text(payload, "protocol"), "tcp" | "th")
    })
}

/// Whether an expression is the destination port, or has it in it.
fn has_port(expression: &Value) -> bool {
    is_port(expression)
        || expression
            .get("concat")
            .and_then(Value::as_array)
            .is_some_and(|parts| parts.iter().any(is_port))
}

/// The elements of a set that stands in the rule.
fn elements(value: &Value) -> Option<&[Value]> {
    value
        .get("set")
        .and_then(Value::as_array)
        .or_else(|| value.as_array())
        .map(Vec::as_slice)
}

/// A port, a range, or a set of both.
fn ports(value: &Value) -> BTreeSet<u16> {
    if let Some(port) = number(value) {
        return BTreeSet::from([port]);
    }
    if let Some(range) = value.get("range").and_then(Value::as_array) {
        return match range.as_slice() {
            [first, last] => match (number(first), number(last)) {
                (Some(first), Some(last)) => (first..=last).collect(),
                _ => BTreeSet::new(),
            },
            _ => BTreeSet::new(),
        };
    }
    // One with a comment, a counter or a timeout.
    if let Some(element) = value.get("elem").and_then(|element| element.get("val")) {
        return ports(element);
    }
    elements(value)
        .unwrap_or_default()
        .iter()
        .flat_map(ports)
        .collect()
}

fn number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|number| u16::try_from(number).ok())
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or("")
}

#[cfg(test)]
mod tests;
