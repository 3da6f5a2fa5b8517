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

fn found(ruleset: &Value) -> Option<Blocking> {
    let passive: Vec<u16> = (50_000..=50_099).collect();
    let own: NftSet = "inet filter ftp".parse().expect("a set");
    let mut found = blocking(ruleset, &[21, 990], &passive, &own);
    assert!(found.len() <= 1);
    found.pop()
}

fn missing(ruleset: &Value) -> Option<(Vec<u16>, usize)> {
    let blocking = found(ruleset)?;
    assert!(!blocking.is_unsure);
    Some((blocking.control_ports, blocking.passive_ports))
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

/// The ruleset of `docs/networks.md`: the guard itself puts clients and ports into the set.
#[test]
fn the_guards_own_sets_accept() {
    let accept = json!({"accept": null});
    let own = |family: &str, set: &str| {
        rule(
            "input",
            &json!([
                {"match": {"op": "==", "left": {"concat": [
                    {"payload": {"protocol": family, "field": "saddr"}},
                    {"payload": {"protocol": "tcp", "field": "dport"}},
                ]}, "right": set}},
                accept,
            ]),
        )
    };
    let control = rule("input", &json!([dport(&json!({"set": [21, 990]})), accept]));
    let rules = [control, own("ip", "@ftp4"), own("ip6", "@ftp6")];
    assert_eq!(missing(&ruleset("drop", &rules)), None);
}

#[test]
fn named_sets_and_verdict_maps_are_read() {
    let accept = json!({"accept": null});
    let set = json!({"set": {"family": "inet", "table": "filter", "name": "open",
        "type": "inet_service", "flags": ["interval"],
        "elem": [21, {"elem": {"val": 990, "comment": "TLS"}}, {"range": [50_000, 50_049]}]}});
    let by_set = rule("input", &json!([dport(&json!("@open")), accept]));
    assert_eq!(
        missing(&ruleset("drop", &[set, by_set])),
        Some((vec![], 50))
    );
    let tcp_port = json!({"payload": {"protocol": "tcp", "field": "dport"}});
    let verdicts = json!([
        [21, {"accept": null}],
        [{"range": [50_000, 50_099]}, {"jump": {"target": "ftp"}}],
        [990, {"drop": null}],
    ]);
    let some = rule(
        "ftp",
        &json!([dport(&json!({"range": [50_000, 50_009]})), accept]),
    );
    let by_map = rule(
        "input",
        &json!([{"vmap": {"key": tcp_port, "data": {"set": verdicts}}}]),
    );
    assert_eq!(
        missing(&ruleset("drop", &[by_map, some.clone()])),
        Some((vec![990], 90))
    );
    let map = json!({"map": {"family": "inet", "table": "filter", "name": "ports",
        "type": "inet_service", "map": "verdict", "elem": verdicts}});
    let by_named_map = rule(
        "input",
        &json!([{"vmap": {"key": tcp_port, "data": "@ports"}}]),
    );
    assert_eq!(
        missing(&ruleset("drop", &[map, by_named_map, some.clone()])),
        Some((vec![990], 90))
    );
    // What is asked of something else is followed where it leads.
    let by_state = rule(
        "input",
        &json!([{"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [
            ["established", {"accept": null}], ["new", {"jump": {"target": "ftp"}}],
        ]}}}]),
    );
    assert_eq!(
        missing(&ruleset("drop", &[by_state, some])),
        Some((vec![21, 990], 90))
    );
}

#[test]
fn what_cannot_be_told_is_not_told() {
    let accept = json!({"accept": null});
    let saddr = json!({"payload": {"protocol": "ip", "field": "saddr"}});
    let tcp_port = json!({"payload": {"protocol": "tcp", "field": "dport"}});
    let both = json!({"concat": [saddr, tcp_port]});
    let changing = json!({"set": {"family": "inet", "table": "filter", "name": "knocked",
        "type": "inet_service", "flags": ["dynamic", "timeout"]}});
    let equals =
        |left: &Value, right: &str| json!({"match": {"op": "==", "left": left, "right": right}});
    for rules in [
        vec![rule("input", &json!([equals(&both, "@friends"), accept]))],
        vec![
            changing,
            rule("input", &json!([equals(&tcp_port, "@knocked"), accept])),
        ],
        vec![rule(
            "input",
            &json!([{"vmap": {"key": both, "data": "@verdicts"}}]),
        )],
        vec![rule(
            "input",
            &json!([{"vmap": {"key": tcp_port, "data": "@elsewhere"}}]),
        )],
    ] {
        let found = found(&ruleset("drop", &rules)).expect("nothing is known to be accepted");
        assert!(found.is_unsure, "{rules:?}");
        assert_eq!(found.passive_ports, 100);
    }
}

#[test]
fn other_answers_say_nothing() {
    for ruleset in [
        json!(null),
        json!({}),
        json!({"nftables": [1, {"chain": 5}, {"rule": []}]}),
    ] {
        assert_eq!(blocking(&ruleset, &[21], &[50_000], &NftSet::Off), []);
    }
}
