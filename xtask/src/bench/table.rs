//! A table of measurements: ways to do a thing, one below the other, and what was measured of
//! each, round by round.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::stats::Spread;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measure {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) kind: Kind,
}

/// How a measure is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The median of the rounds, and before it the ratio to the row that all are compared with.
    Compared,
    /// The median of the rounds.
    Alone,
    /// The sum of the rounds.
    Total,
}

/// A measure whose ratio counts.
pub(super) const fn compared(name: &'static str, unit: &'static str) -> Measure {
    let kind = Kind::Compared;
    Measure { name, unit, kind }
}

/// A measure that is shown as it is.
pub(super) const fn alone(name: &'static str, unit: &'static str) -> Measure {
    let kind = Kind::Alone;
    Measure { name, unit, kind }
}

/// A count.
pub(super) const fn total(name: &'static str) -> Measure {
    let kind = Kind::Total;
    let unit = "";
    Measure { name, unit, kind }
}

/// The table.
#[derive(Clone, Debug)]
pub(super) struct Table {
    title: String,
    measures: Vec<Measure>,
    rows: Vec<Row>,
    reference: usize,
}

#[derive(Clone, Debug)]
struct Row {
    name: String,
    /// For each measure, one value for each round.
    samples: Vec<Vec<f64>>,
}

impl Table {
    /// All rows are compared with the first.
    pub(super) fn new(
        title: impl Into<String>,
        measures: &[Measure],
        rows: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let empty = vec![Vec::new(); measures.len()];
        let row = |name: String| Row {
            name,
            samples: empty.clone(),
        };
        Self {
            title: title.into(),
            measures: measures.to_vec(),
            rows: rows.into_iter().map(|name| row(name.into())).collect(),
            reference: 0,
        }
    }

    /// Adds one value. `NaN` where it could not be measured in this round.
    pub(super) fn add(&mut self, row: usize, measure: usize, value: f64) {
        let samples = self.rows.get_mut(row).map(|row| &mut row.samples);
        if let Some(samples) = samples.and_then(|samples| samples.get_mut(measure)) {
            samples.push(value);
        }
    }

    pub(super) fn title(&self) -> &str {
        &self.title
    }

    pub(super) fn measures(&self) -> &[Measure] {
        &self.measures
    }

    pub(super) fn row_names(&self) -> impl Iterator<Item = &str> {
        self.rows.iter().map(|row| row.name.as_str())
    }

    fn samples(&self, row: usize, measure: usize) -> &[f64] {
        self.rows
            .get(row)
            .and_then(|row| row.samples.get(measure))
            .map_or(&[], Vec::as_slice)
    }

    /// What was measured.
    pub(super) fn value(&self, row: usize, measure: usize) -> Option<Spread> {
        let samples = self.samples(row, measure);
        if self.measures.get(measure)?.kind != Kind::Total {
            return Spread::of(samples);
        }
        let counted: Vec<f64> = samples.iter().copied().filter(|n| n.is_finite()).collect();
        if counted.is_empty() {
            return None;
        }
        Spread::of(&[counted.iter().sum()])
    }

    /// The ratio to the row that all are compared with.
    pub(super) fn ratio(&self, row: usize, measure: usize) -> Option<Spread> {
        if self.measures.get(measure)?.kind != Kind::Compared {
            return None;
        }
        let reference = self.samples(self.reference, measure);
        Spread::of_ratios(self.samples(row, measure), reference)
    }

    /// Everything, for `report.json`.
    pub(super) fn json(&self) -> Value {
        let spread = |spread: Option<Spread>| {
            spread.map(|s| json!({ "median": s.median, "min": s.least, "max": s.most }))
        };
        let cell = |row: usize, place: usize, measure: &Measure| {
            json!({
                "measure": measure.name,
                "unit": measure.unit,
                "ratio": spread(self.ratio(row, place)),
                "value": spread(self.value(row, place)),
                "rounds": self.samples(row, place),
            })
        };
        let rows = self.rows.iter().enumerate().map(|(number, row)| {
            let measures = self.measures.iter().enumerate();
            let cells = measures.map(|(place, measure)| cell(number, place, measure));
            json!({ "name": row.name, "measured": cells.collect::<Value>() })
        });
        json!({
            "title": self.title,
            "compared_with": self.rows.get(self.reference).map(|row| &row.name),
            "rows": rows.collect::<Value>(),
        })
    }

    /// The cells as they are read: names, then for each measure the ratio, the value and its
    /// spread. The first line is the heading.
    pub(super) fn cells(&self) -> Vec<Vec<String>> {
        let mut heading = vec![String::new()];
        for measure in &self.measures {
            let name = match measure.unit {
                "" => measure.name.to_owned(),
                unit => format!("{}, {unit}", measure.name),
            };
            match measure.kind {
                Kind::Compared => heading.extend(["ratio".to_owned(), name, "spread".to_owned()]),
                Kind::Alone => heading.extend([name, "spread".to_owned()]),
                Kind::Total => heading.push(name),
            }
        }
        let mut lines = vec![heading];
        for (number, row) in self.rows.iter().enumerate() {
            let mut line = vec![row.name.clone()];
            for (place, measure) in self.measures.iter().enumerate() {
                let value = self.value(number, place);
                let shown = value.map_or_else(|| "-".to_owned(), |value| figure(value.median));
                let spread = value.map_or_else(String::new, |value| {
                    format!("{}-{}", figure(value.least), figure(value.most))
                });
                let ratio = self.ratio(number, place);
                let ratio = ratio.map_or_else(|| "-".to_owned(), |r| format!("{:.2}", r.median));
                match measure.kind {
                    Kind::Compared => line.extend([ratio, shown, spread]),
                    Kind::Alone => line.extend([shown, spread]),
                    Kind::Total => line.push(shown),
                }
            }
            lines.push(line);
        }
        lines
    }

    /// For the terminal: names to the left, numbers to the right.
    pub(super) fn text(&self) -> String {
        let cells = self.cells();
        let columns = cells.iter().map(Vec::len).max().unwrap_or_default();
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let widths = cells.iter().filter_map(|line| line.get(column));
                widths.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        let mut text = format!("{}\n", self.title);
        for line in &cells {
            for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
                let _ = if column == 0 {
                    write!(text, "  {cell:<width$}")
                } else {
                    write!(text, "  {cell:>width$}")
                };
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        text
    }
}

/// A number with three digits that count.
pub(super) fn figure(value: f64) -> String {
    let size = value.abs();
    if size >= 10_000.0 || (size >= 1.0 && (value - value.round()).abs() < 1e-9) {
        grouped(value)
    } else if size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else if size == 0.0 {
        "0".to_owned()
    } else if size >= 0.01 {
        format!("{value:.2}")
    } else {
        format!("{value:.4}")
    }
}

/// A whole number with a comma before every three digits.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        let left = digits.len() - place;
        if place > 0 && left.is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Two ways, measured in three rounds.
    pub(in super::super) fn example() -> Table {
        let measures = [compared("p50", "us"), alone("memory", "MiB"), total("lost")];
        let mut table = Table::new("an <example>", &measures, ["off", "on"]);
        for (off, on) in [(100.0, 110.0), (300.0, 330.0), (120.0, 126.0)] {
            for (row, value) in [off, on].into_iter().enumerate() {
                table.add(row, 0, value);
                table.add(row, 2, 1.0);
            }
        }
        table.add(1, 1, 11.5);
        table
    }

    #[test]
    fn ratios_come_first_and_counts_are_added_up() {
        let cells = example().cells();
        let heading = [
            "",
            "ratio",
            "p50, us",
            "spread",
            "memory, MiB",
            "spread",
            "lost",
        ];
        assert_eq!(cells[0], heading);
        assert_eq!(
            cells[1],
            ["off", "1.00", "120", "100-300", "-", "", "3"].map(str::to_owned)
        );
        assert_eq!(
            cells[2],
            ["on", "1.10", "126", "110-330", "11.5", "11.5-11.5", "3"].map(str::to_owned)
        );
    }

    #[test]
    fn columns_of_the_terminal_are_aligned() {
        let text = example().text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[2].find("100-300"), lines[3].find("110-330"));
    }

    #[test]
    fn the_json_has_medians_and_every_round() {
        let json = example().json();
        assert_eq!(json["compared_with"], "off");
        let p50 = &json["rows"][1]["measured"][0];
        assert_eq!(p50["value"]["median"], 126.0);
        assert_eq!(p50["ratio"]["median"], 1.1);
        assert_eq!(p50["rounds"].as_array().map(Vec::len), Some(3));
        assert_eq!(json["rows"][0]["measured"][1]["value"], Value::Null);
    }

    #[test]
    fn figures_have_the_digits_that_count() {
        for (value, text) in [
            (0.0, "0"),
            (0.0012, "0.0012"),
            (0.125, "0.12"),
            (9.876, "9.88"),
            (47.0, "47"),
            (47.25, "47.2"),
            (123.4, "123"),
            (22_400_000.4, "22,400,000"),
            (-123_456.0, "-123,456"),
        ] {
            assert_eq!(figure(value), text);
        }
    }
}
