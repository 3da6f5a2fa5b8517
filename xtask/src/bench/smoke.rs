//! A short run in continuous integration, so that the benchmark goes on working.

use std::{env, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{Pace, build_helper, report_folder};
use crate::exec::{as_root, run};

/// Measures each packet once, and looks whether the report holds it.
pub(crate) fn smoke(binary: &Path) -> Result<()> {
    let helper = build_helper(Pace::Any)?;
    let folder = report_folder().join("smoke");
    let this = env::current_exe().context("finding this program")?;
    let mut command = as_root(this, &[]);
    command.args(["bench", "--quick", "--rounds", "1", "--only", "per-packet"]);
    command.arg("--binary").arg(binary);
    command.arg("--helper").arg(helper);
    command.arg("--out").arg(&folder);
    run(&mut command)?;
    let page = fs::read_to_string(folder.join("report.html")).context("reading the page")?;
    ensure!(page.contains("<svg"), "the page has no plot");
    let report = fs::read_to_string(folder.join("report.json")).context("reading the report")?;
    check(&serde_json::from_str(&report).context("the report is not JSON")?)
}

/// Every program and packet was measured, for both families.
fn check(report: &Value) -> Result<()> {
    let tables = report["parts"][0]["tables"].as_array();
    let tables = tables.context("no tables")?;
    ensure!(
        tables.len() == 2,
        "{} tables, one for each family",
        tables.len()
    );
    for table in tables {
        let rows = table["rows"].as_array().context("no rows")?;
        ensure!(
            rows.len() > 10,
            "only {} rows in {}",
            rows.len(),
            table["title"]
        );
        for row in rows {
            let median = row["measured"][0]["value"]["median"].as_f64();
            ensure!(
                median.is_some_and(|median| median > 0.0),
                "nothing measured: {row}"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_report_without_figures_fails() {
        let row = |median: Value| json!({ "measured": [{ "value": { "median": median } }] });
        let report = |row: &Value| {
            let rows = vec![row.clone(); 11];
            let table = json!({ "title": "t", "rows": rows });
            json!({ "parts": [{ "tables": [table, table] }] })
        };
        assert!(check(&report(&row(json!(9.0)))).is_ok());
        assert!(check(&report(&row(Value::Null))).is_err());
        assert!(check(&report(&row(json!(0.0)))).is_err());
        assert!(check(&json!({ "parts": [] })).is_err());
    }
}
