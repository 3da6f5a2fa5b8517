//! `docs/verdicts.md` lists every reason and every incident, as the program names them.

use std::collections::BTreeSet;

use ftpguard_common::verdict::{Incident, Reason, Verdict};

const PAGE: &str = include_str!("../../docs/verdicts.md");

#[test]
fn the_documentation_lists_exactly_these() {
    let reasons = Reason::ALL.iter().map(|reason| {
        let verdict = match reason.verdict() {
            Verdict::Pass => "pass",
            Verdict::Deny => "deny",
        };
        format!("| `{}` | {verdict} | {} |", reason.label(), reason.text())
    });
    let incidents = Incident::ALL
        .iter()
        .map(|incident| format!("| `{}` | {} |", incident.label(), incident.text()));
    let expected: BTreeSet<String> = reasons.chain(incidents).collect();
    let listed: BTreeSet<String> = (PAGE.lines())
        .filter(|line| line.starts_with("| `"))
        .map(str::to_owned)
        .collect();
    assert_eq!(listed, expected);
}
