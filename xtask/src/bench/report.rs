//! What a run of the benchmark found: on the terminal, as JSON and as a page.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{
    host::Host,
    table::{Table, figure},
};

/// Everything.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) host: Host,
    pub(super) parts: Vec<Part>,
}

/// One question, and what was measured to answer it.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// As for `--only`.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// What was measured and how, in words for an administrator.
    pub(super) about: &'static str,
    pub(super) tables: Vec<Table>,
    pub(super) goals: Vec<Goal>,
    /// What could not be measured here, and why.
    pub(super) notes: Vec<String>,
    /// Why it ended early.
    pub(super) failure: Option<String>,
    pub(super) seconds: f64,
}

/// A figure that the project wants to reach.
#[derive(Debug)]
pub(super) struct Goal {
    pub(super) what: String,
    pub(super) bound: Bound,
    pub(super) reached: Option<f64>,
}

/// On which side of the goal it is good to be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    pub(super) fn new(what: impl Into<String>, bound: Bound, reached: Option<f64>) -> Self {
        Self {
            what: what.into(),
            bound,
            reached,
        }
    }

    /// `None` where it was not measured.
    pub(super) fn is_met(&self) -> Option<bool> {
        self.reached.map(|reached| match self.bound {
            Bound::AtMost(goal) => reached <= goal,
            Bound::AtLeast(goal) => reached >= goal,
        })
    }

    /// What, the goal, what was reached, and whether that is enough.
    pub(super) fn cells(&self) -> [String; 4] {
        let bound = match self.bound {
            Bound::AtMost(goal) => format!("at most {}", figure(goal)),
            Bound::AtLeast(goal) => format!("at least {}", figure(goal)),
        };
        let reached = self.reached.map_or_else(|| "-".to_owned(), figure);
        let met = match self.is_met() {
            Some(true) => "met",
            Some(false) => "missed",
            None => "not measured",
        };
        [self.what.clone(), bound, reached, met.to_owned()]
    }

    fn json(&self) -> Value {
        let (at_most, at_least) = match self.bound {
            Bound::AtMost(goal) => (Some(goal), None),
            Bound::AtLeast(goal) => (None, Some(goal)),
        };
        json!({
            "what": self.what,
            "at_most": at_most,
            "at_least": at_least,
            "reached": self.reached,
            "met": self.is_met(),
        })
    }
}

impl Part {
    /// Says something once.
    pub(super) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// For the terminal.
    pub(super) fn text(&self) -> String {
        let mut text = format!("\n{} ({:.0} s)\n", self.title, self.seconds);
        for table in &self.tables {
            text.push('\n');
            text.push_str(&table.text());
        }
        if !self.goals.is_empty() {
            text.push_str("\nGoals\n");
        }
        let rows: Vec<_> = self.goals.iter().map(Goal::cells).collect();
        let width = |column: usize| {
            let widths = rows.iter().map(|row| row[column].chars().count());
            widths.max().unwrap_or_default()
        };
        let widths = [width(0), width(1), width(2)];
        for [what, bound, reached, met] in &rows {
            let _ = writeln!(
                text,
                "  {what:0$}  {bound:1$}  {reached:>2$}  {met}",
                widths[0], widths[1], widths[2]
            );
        }
        for note in &self.notes {
            let _ = writeln!(text, "\nNote: {note}");
        }
        if let Some(failure) = &self.failure {
            let _ = writeln!(text, "\nFAILED: {failure}");
        }
        text
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "title": self.title,
            "about": self.about,
            "seconds": self.seconds,
            "tables": self.tables.iter().map(Table::json).collect::<Value>(),
            "goals": self.goals.iter().map(Goal::json).collect::<Value>(),
            "notes": self.notes,
            "failure": self.failure,
        })
    }
}

impl Report {
    /// For `report.json`.
    pub(super) fn json(&self) -> Value {
        json!({
            "host": self.host.json(),
            "parts": self.parts.iter().map(Part::json).collect::<Value>(),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::{super::table, *};

    pub(in super::super) fn example() -> Report {
        Report {
            host: Host::default(),
            parts: vec![Part {
                name: "example",
                title: "An example",
                about: "What was measured.",
                tables: vec![table::tests::example()],
                goals: vec![
                    Goal::new("ratio", Bound::AtMost(1.05), Some(1.1)),
                    Goal::new("rate", Bound::AtLeast(0.97), Some(0.98)),
                    Goal::new("else", Bound::AtLeast(1.0), None),
                ],
                notes: vec!["a & b".to_owned()],
                failure: None,
                seconds: 1.0,
            }],
        }
    }

    #[test]
    fn goals_are_met_missed_or_not_measured() {
        let report = example();
        let met: Vec<_> = report.parts[0].goals.iter().map(Goal::is_met).collect();
        assert_eq!(met, [Some(false), Some(true), None]);
        let text = report.parts[0].text();
        assert!(text.contains("at most 1.05"), "{text}");
        assert!(
            text.contains("missed") && text.contains("not measured"),
            "{text}"
        );
        assert!(text.contains("Note: a & b"), "{text}");
    }

    #[test]
    fn the_json_holds_every_part() {
        let json = example().json();
        let part = &json["parts"][0];
        assert_eq!(part["name"], "example");
        assert_eq!(part["goals"][0]["met"], false);
        assert_eq!(part["goals"][2]["met"], Value::Null);
        assert_eq!(part["tables"][0]["title"], "an <example>");
        assert!(json["host"].is_object());
    }
}
