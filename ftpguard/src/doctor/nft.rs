//! nftables rules that would still block what the guard lets through.
//!
//! A firewall that drops by default has to accept the control ports and the passive range: the
//! guard closes what is not to be reached, it opens nothing. What `nft --json list ruleset` shows
//! is read, and only as far as it concerns whole ports: rules with other conditions (addresses,
//! interfaces, rates) are taken to hold, so that nobody is sent after a rule that is right.

use std::collections::BTreeSet;

use serde_json::Value;

/// A chain that drops what no rule accepts, and the ports that none accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocking {
    /// `FAMILY TABLE CHAIN`.
    pub chain: String,
    /// Control ports that no rule accepts.
    pub control_ports: Vec<u16>,
    /// How many ports of the passive ranges no rule accepts.
    pub passive_ports: usize,
}

/// The base chains of this ruleset that block some of these ports. `ruleset` is the answer of
/// `nft --json list ruleset`.
#[must_use]
pub fn blocking(ruleset: &Value, control_ports: &[u16], passive_ports: &[u16]) -> Vec<Blocking> {
    let Some(items) = ruleset.get("nftables").and_then(Value::as_array) else {
        return Vec::new();
    };
    items
        .iter()
        .filter_map(|item| item.get("chain"))
        .filter(|chain| is_closed_entrance(chain))
        .filter_map(|chain| {
            let accepted = accepted(items, chain, 0)?;
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
                    .filter(|port| !accepted.contains(port))
                    .collect(),
                passive_ports: passive_ports
                    .iter()
                    .filter(|port| !accepted.contains(port))
                    .count(),
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

/// The ports that some rule of the chain accepts; `None` where a rule accepts whatever port.
fn accepted(items: &[Value], chain: &Value, depth: usize) -> Option<BTreeSet<u16>> {
    let mut ports = BTreeSet::new();
    let rules = items
        .iter()
        .filter_map(|item| item.get("rule"))
        .filter(|rule| {
            text(rule, "chain") == text(chain, "name")
                && ["family", "table"]
                    .iter()
                    .all(|key| text(rule, key) == text(chain, key))
        });
    for rule in rules {
        let Some(expressions) = rule.get("expr").and_then(Value::as_array) else {
            continue;
        };
        let next = expressions.iter().find_map(|expression| {
            let target = expression.get("jump").or_else(|| expression.get("goto"))?;
            target.get("target")?.as_str()
        });
        let accepts = expressions
            .iter()
            .any(|expression| expression.get("accept").is_some());
        match (own_ports(expressions), next) {
            (Matched::Ports(own), None) if accepts => ports.extend(own),
            // Of a rule that accepts without naming a port, a plain one accepts everything;
            // any other condition is about something else (ct state, loopback, ICMP).
            (Matched::Nothing, None) if accepts => return None,
            (matched, Some(target)) if depth < MAX_DEPTH => {
                let chain = serde_json::json!({
                    "family": text(rule, "family"),
                    "table": text(rule, "table"),
                    "name": target,
                });
                match (accepted(items, &chain, depth + 1), matched) {
                    (None, Matched::Nothing) => return None,
                    (None, Matched::Ports(own)) => ports.extend(own),
                    (None, Matched::Other) => {}
                    (Some(theirs), Matched::Ports(own)) => {
                        ports.extend(theirs.intersection(&own));
                    }
                    (Some(theirs), Matched::Nothing | Matched::Other) => ports.extend(theirs),
                }
            }
            _ => {}
        }
    }
    Some(ports)
}

/// What a rule asks of a packet.
enum Matched {
    /// Nothing: it holds for every packet.
    Nothing,
    /// The destination port, and maybe more.
    Ports(BTreeSet<u16>),
    /// Something else.
    Other,
}

fn own_ports(expressions: &[Value]) -> Matched {
    let mut matched = Matched::Nothing;
    for expression in expressions {
        let Some(condition) = expression.get("match") else {
            continue;
        };
        let is_equal = matches!(text(condition, "op"), "==" | "in");
        let payload = condition.get("left").and_then(|left| left.get("payload"));
        let is_port = payload.is_some_and(|payload| {
            text(payload, "field") == "dport" && matches!(text(payload, "protocol"), "tcp" | "th")
        });
        match condition.get("right") {
            Some(right) if is_port && is_equal => {
                let mut ports = BTreeSet::new();
                add(&mut ports, right);
                return Matched::Ports(ports);
            }
            _ => matched = Matched::Other,
        }
    }
    matched
}

/// A port, a range, or a set of both.
fn add(ports: &mut BTreeSet<u16>, value: &Value) {
    if let Some(port) = number(value) {
        ports.insert(port);
    } else if let Some(range) = value.get("range").and_then(Value::as_array) {
        if let [first, last] = range.as_slice()
            && let (Some(first), Some(last)) = (number(first), number(last))
        {
            ports.extend(first..=last);
        }
    } else if let Some(items) = value
        .get("set")
        .and_then(Value::as_array)
        .or_else(|| value.as_array())
    {
        for item in items {
            add(ports, item);
        }
    }
}

fn number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|number| u16::try_from(number).ok())
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ruleset(policy: &str, rules: &[Value]) -> Value {
        let mut items = vec![
            json!({"metainfo": {"version": "1.0.6"}}),
            json!({"table": {"family": "inet", "name": "filter"}}),
            json!({"chain": {"family": "inet", "table": "filter", "name": "input",
                "type": "filter", "hook": "input", "prio": 0, "policy": policy}}),
            json!({"chain": {"family": "inet", "table": "filter", "name": "ftp"}}),
        ];
        items.extend(rules.iter().cloned());
        json!({ "nftables": items })
    }

    fn rule(chain: &str, expressions: &Value) -> Value {
        json!({"rule": {"family": "inet", "table": "filter", "chain": chain, "expr": expressions}})
    }

    fn dport(right: &Value) -> Value {
        json!({"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": right}})
    }

    fn missing(ruleset: &Value) -> Option<(Vec<u16>, usize)> {
        let passive: Vec<u16> = (50_000..=50_099).collect();
        let found = blocking(ruleset, &[21, 990], &passive);
        assert!(found.len() <= 1);
        found
            .first()
            .map(|blocking| (blocking.control_ports.clone(), blocking.passive_ports))
    }

    #[test]
    fn a_closed_chain_blocks_what_no_rule_accepts() {
        let accept = json!({"accept": null});
        let established = rule(
            "input",
            &json!([{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}, accept]),
        );
        let control = rule("input", &json!([dport(&json!({"set": [21, 22]})), accept]));
        let range = rule(
            "input",
            &json!([dport(&json!({"range": [50_000, 50_049]})), accept]),
        );
        assert_eq!(missing(&ruleset("accept", &[])), None);
        assert_eq!(missing(&ruleset("drop", &[])), Some((vec![21, 990], 100)));
        assert_eq!(
            missing(&ruleset("drop", &[established.clone(), control.clone()])),
            Some((vec![990], 100))
        );
        assert_eq!(
            missing(&ruleset("drop", &[established, control, range])),
            Some((vec![990], 50))
        );
        // A rule without a condition accepts the rest.
        let all = rule(
            "input",
            &json!([{"counter": {"packets": 0, "bytes": 0}}, accept]),
        );
        assert_eq!(missing(&ruleset("drop", &[all])), None);
        // What drops accepts nothing.
        let drop = rule("input", &json!([dport(&json!(990)), {"drop": null}]));
        assert_eq!(
            missing(&ruleset("drop", &[drop])),
            Some((vec![21, 990], 100))
        );
    }

    #[test]
    fn jumps_are_followed_and_loops_end() {
        let accept = json!({"accept": null});
        let jump = |condition: Option<Value>, target: &str| {
            let mut expressions: Vec<Value> = condition.into_iter().collect();
            expressions.push(json!({"jump": {"target": target}}));
            rule("input", &json!(expressions))
        };
        let everything = rule("ftp", &json!([accept]));
        let some = rule(
            "ftp",
            &json!([
                dport(&json!({"set": [21, {"range": [50_000, 50_099]}]})),
                accept
            ]),
        );
        assert_eq!(
            missing(&ruleset("drop", &[jump(None, "ftp"), everything.clone()])),
            None
        );
        assert_eq!(
            missing(&ruleset("drop", &[jump(None, "ftp"), some.clone()])),
            Some((vec![990], 0))
        );
        let narrow = jump(Some(dport(&json!(21))), "ftp");
        assert_eq!(
            missing(&ruleset("drop", &[narrow.clone(), everything])),
            Some((vec![990], 100))
        );
        assert_eq!(
            missing(&ruleset("drop", &[narrow, some])),
            Some((vec![990], 100))
        );
        let circle = rule("ftp", &json!([{"jump": {"target": "ftp"}}]));
        assert_eq!(
            missing(&ruleset("drop", &[jump(None, "ftp"), circle])),
            Some((vec![21, 990], 100))
        );
    }

    #[test]
    fn other_answers_say_nothing() {
        for ruleset in [
            json!(null),
            json!({}),
            json!({"nftables": [1, {"chain": 5}, {"rule": []}]}),
        ] {
            assert_eq!(blocking(&ruleset, &[21], &[50_000]), []);
        }
    }
}
