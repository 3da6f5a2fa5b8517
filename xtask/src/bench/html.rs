//! The report as one page without anything outside it.

use std::fmt::Write as _;

use super::{
    plot,
    report::{Goal, Part, Report},
    table::Table,
};

/// How it looks. Light and dark as the reader's system is.
const STYLE: &str = "
:root { color-scheme: light dark; --line: #8884; --good: #187a3c; --bad: #b3261e; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 3rem; border-bottom: 1px solid var(--line); }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { padding: .15rem .7rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; }
.met { color: var(--good); } .missed { color: var(--bad); font-weight: 600; }
.scroll { overflow-x: auto; } svg { background: #fff; max-width: 100%; height: auto; }
.note { border-left: 3px solid var(--line); padding-left: .8rem; }
";

/// The page.
pub(super) fn page(report: &Report) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>ftpguard benchmark</title><style>{STYLE}</style></head><body>\n\
         <h1>ftpguard benchmark</h1>\n"
    );
    page.push_str(
        "<p>Each way to protect data connections is measured in turn, round after round, \
         because a machine's speed changes. A ratio compares values of the same round with the \
         first line of its table; shown is the median of the rounds. The spread is the least \
         and the most of them.</p>\n",
    );
    page.push_str("<table>");
    for (name, value) in &report.host.facts {
        let _ = write!(
            page,
            "<tr><th>{}</th><td style=\"text-align:left\">{}</td></tr>",
            escape(name),
            escape(value)
        );
    }
    page.push_str("</table>\n");
    goals(&mut page, report.parts.iter().flat_map(|part| &part.goals));
    for part in &report.parts {
        self::part(&mut page, part);
    }
    page.push_str("</body></html>\n");
    page
}

fn goals<'a>(page: &mut String, goals: impl Iterator<Item = &'a Goal>) {
    let mut goals = goals.peekable();
    if goals.peek().is_none() {
        return;
    }
    page.push_str("<div class=\"scroll\"><table><caption>Goals</caption><tr><th>what</th><th>goal</th><th>reached</th><th></th></tr>");
    for goal in goals {
        let class = match goal.is_met() {
            Some(true) => "met",
            Some(false) => "missed",
            None => "",
        };
        let [what, bound, reached, met] = goal.cells().map(|cell| escape(&cell));
        let _ = write!(
            page,
            "<tr><td>{what}</td><td>{bound}</td><td>{reached}</td><td class=\"{class}\">{met}</td></tr>"
        );
    }
    page.push_str("</table></div>\n");
}

fn part(page: &mut String, part: &Part) {
    let _ = writeln!(
        page,
        "<h2 id=\"{}\">{}</h2>\n<p>{}</p>",
        escape(part.name),
        escape(part.title),
        escape(part.about)
    );
    for table in &part.tables {
        self::table(page, table);
    }
    for note in &part.notes {
        let _ = writeln!(page, "<p class=\"note\">{}</p>", escape(note));
    }
    if let Some(failure) = &part.failure {
        let _ = writeln!(page, "<p class=\"missed\">Failed: {}</p>", escape(failure));
    }
}

fn table(page: &mut String, table: &Table) {
    let _ = write!(
        page,
        "<div class=\"scroll\"><table><caption>{}</caption>",
        escape(table.title())
    );
    for (number, line) in table.cells().iter().enumerate() {
        let tag = if number == 0 { "th" } else { "td" };
        page.push_str("<tr>");
        for cell in line {
            let _ = write!(page, "<{tag}>{}</{tag}>", escape(cell));
        }
        page.push_str("</tr>");
    }
    page.push_str("</table></div>\n");
    if let Some(svg) = plot::bars(table) {
        page.push_str(&svg);
        page.push('\n');
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::{super::report, *};

    #[test]
    fn the_page_is_whole_escaped_and_needs_nothing_from_elsewhere() {
        let page = page(&report::tests::example());
        assert!(page.ends_with("</body></html>\n"));
        assert!(page.contains("an &lt;example&gt;") && !page.contains("<example>"));
        assert!(page.contains("a &amp; b"));
        assert!(page.contains("class=\"missed\">missed"));
        assert!(page.contains("<svg"), "there is a plot");
        for outside in ["http://", "https://", "<script", "<link", "src="] {
            let page = page.replace("http://www.w3.org/2000/svg", "");
            assert!(!page.contains(outside), "{outside}");
        }
    }
}
