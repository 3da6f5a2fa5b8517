//! What is printed at the end.

use std::{collections::BTreeSet, fmt::Write as _};

use ftpguard_tests::vm::Feature;

use super::{Run, table::Entry};

/// One line of `--list`.
pub(crate) fn listed(entry: &Entry) -> String {
    let packages: Vec<_> = entry
        .packages
        .iter()
        .map(|pattern| format!("{}*{}", pattern.0, pattern.1))
        .collect();
    let degraded = labels(entry.degraded.iter().map(|feature| feature.label()));
    format!(
        "{:<6} {:<17} {}; without: {degraded}",
        entry.name,
        entry.suite,
        packages.join(", ")
    )
}

/// The tables and the failures.
pub(super) fn tables(runs: &[Run]) -> String {
    let mut text = table(&kernels(runs));
    text.push_str("\nverified instructions\n");
    text.push_str(&table(&instructions(runs)));
    for run in runs {
        for failure in run.failures() {
            let _ = writeln!(text, "failed on {}: {failure}", run.name);
        }
    }
    text
}

fn kernels(runs: &[Run]) -> Vec<Vec<String>> {
    let head = [
        "kernel", "release", "boot s", "passed", "failed", "seconds", "without",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for run in runs {
        let failed = run.failures().len().to_string();
        let mut row = vec![run.name.clone()];
        match &run.outcome {
            Ok(outcome) => row.extend([
                outcome.release.clone().unwrap_or_else(|| "-".to_owned()),
                format!(
                    "{:.1}{}",
                    outcome.boot,
                    if outcome.booted_twice { " (2nd)" } else { "" }
                ),
                outcome.passed.to_string(),
                failed,
                format!("{:.0}", outcome.seconds),
                labels(outcome.degraded().map(Feature::label)),
            ]),
            Err(_) => row.extend(["-", "-", "0", &failed, "-", "-"].map(str::to_owned)),
        }
        rows.push(row);
    }
    rows
}

fn instructions(runs: &[Run]) -> Vec<Vec<String>> {
    let outcomes: Vec<_> = runs.iter().map(|run| run.outcome.as_ref().ok()).collect();
    let programs: BTreeSet<_> = outcomes
        .iter()
        .flatten()
        .flat_map(|outcome| outcome.programs.keys())
        .collect();
    let mut head = vec!["program".to_owned()];
    head.extend(runs.iter().map(|run| run.name.clone()));
    let mut rows = vec![head];
    for program in programs {
        let mut row = vec![program.clone()];
        row.extend(outcomes.iter().map(|outcome| {
            match outcome.and_then(|outcome| outcome.programs.get(program)) {
                Some(Some(count)) => count.to_string(),
                // Linux 5.16 and later tell.
                Some(None) => "accepted".to_owned(),
                None => "-".to_owned(),
            }
        }));
        rows.push(row);
    }
    rows
}

fn labels<'a>(labels: impl Iterator<Item = &'a str>) -> String {
    let labels: Vec<_> = labels.collect();
    if labels.is_empty() {
        return "nothing".to_owned();
    }
    labels.join(", ")
}

/// Columns as wide as their longest cell.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [["a", "bb", "c"], ["ddd", "e", "f"]];
        let rows: Vec<Vec<String>> = rows
            .iter()
            .map(|row| row.iter().map(|cell| (*cell).to_owned()).collect())
            .collect();
        assert_eq!(table(&rows), "a    bb  c\nddd  e   f\n");
    }
}
