//! How the model looks: from 80 columns and 24 rows up.

use std::net::{IpAddr, SocketAddr};

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize as _},
    text::{Line, Span},
    widgets::{Block, Borders, Cell, Paragraph, Row, Sparkline, Table},
};

use super::model::{Answers, Model};
use crate::status::{Effect, duration};

/// The least in which everything has its place.
const LEAST: (u16, u16) = (60, 16);
/// Rows of the refusals, and of the attackers, with their titles.
const REFUSALS: u16 = 5;
const ATTACKERS: u16 = 6;
/// Columns of both tables in a window of 80: an IPv4 address has its place in each.
const SESSIONS: u16 = 43;
const PINHOLES: u16 = 36;

/// Draws everything. `wall` is now, in milliseconds since 1970.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, wall: u64) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = format!("a window of {} x {} at least", LEAST.0, LEAST.1);
        frame.render_widget(Paragraph::new(text), area);
        return;
    }
    let [head, refusals, attackers, tables, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(REFUSALS),
        Constraint::Length(ATTACKERS),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(area);
    draw_head(frame, model, head);
    draw_refusals(frame, model, refusals);
    draw_attackers(frame, model, attackers, wall);
    if let Some(answers) = &model.answers {
        let [sessions, pinholes] =
            Layout::horizontal([Constraint::Fill(SESSIONS), Constraint::Fill(PINHOLES)])
                .spacing(1)
                .areas(tables);
        draw_sessions(frame, answers, sessions);
        draw_pinholes(frame, answers, pinholes);
    }
    draw_foot(frame, model, foot);
}

fn draw_head(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let Some(Answers { status, .. }) = &model.answers else {
        frame.render_widget(Paragraph::new("waiting for the guard"), area);
        return;
    };
    let effect = status.effect();
    let (mode, colour) = match effect {
        Effect::Nowhere if status.is_refused() => ("NOT ENFORCED", Color::Red),
        Effect::Nowhere => ("monitor", Color::Yellow),
        Effect::Partly => ("enforce in part", Color::Yellow),
        Effect::Everywhere => ("enforce", Color::Green),
    };
    let (total, per_second) = model.refusals();
    let interfaces: Vec<String> = status
        .interfaces
        .iter()
        .map(|hooks| format!("{} {}", hooks.interface, hooks.ingress))
        .collect();
    let text = vec![
        Line::from(vec![
            Span::from(format!("ftpguard {}  ", status.version)).bold(),
            Span::styled(mode, Style::new().fg(colour).bold()),
            Span::from(format!(
                "  {} tracking  up {}  on {}",
                status.tracking,
                duration(status.uptime),
                interfaces.join(", ")
            )),
        ]),
        Line::from(format!(
            "sessions {}  pinholes {} (made {}, used {})  {} {total} ({})",
            status.sessions,
            status.pinholes,
            status.totals.pinholes_made,
            status.totals.pinholes_used,
            refused_word(effect),
            per_second_text(per_second)
        )),
    ];
    frame.render_widget(Paragraph::new(text), area);
}

const fn refused_word(effect: Effect) -> &'static str {
    match effect {
        Effect::Everywhere => "refused",
        Effect::Partly => "refused or would be",
        Effect::Nowhere => "would be refused",
    }
}

fn per_second_text(rate: f64) -> String {
    if rate < 10.0 {
        format!("{rate:.1}/s")
    } else {
        format!("{rate:.0}/s")
    }
}

fn draw_refusals(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let effect = model
        .answers
        .as_ref()
        .map_or(Effect::Everywhere, |answers| answers.status.effect());
    let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Length(46)])
        .spacing(1)
        .areas(area);
    let most = model.history.iter().max().copied().unwrap_or(0);
    // Short, to be whole in a window of 80 columns.
    let title = match effect {
        Effect::Everywhere => format!("Refused per second, most {most}"),
        Effect::Partly => format!("Refused or would be/s, most {most}"),
        Effect::Nowhere => format!("Would be refused/s, most {most}"),
    };
    // The newest second stands at the right edge.
    let width = usize::from(left.width);
    let skip = model.history.len().saturating_sub(width);
    let pad = width.saturating_sub(model.history.len());
    let data: Vec<u64> = std::iter::repeat_n(0, pad)
        .chain(model.history.iter().skip(skip).copied())
        .collect();
    let sparkline = Sparkline::default()
        .block(titled(&title))
        .data(data)
        .style(Style::new().fg(Color::Red));
    frame.render_widget(sparkline, left);
    let rows = model.refused.iter().map(|refused| {
        Row::new([
            Cell::from(refused.reason.clone()),
            Cell::from(Line::from(refused.total.to_string()).right_aligned()),
            Cell::from(Line::from(per_second_text(refused.per_second)).right_aligned()),
        ])
    });
    let widths = [
        Constraint::Fill(1),
        Constraint::Length(11),
        Constraint::Length(9),
    ];
    let table = Table::new(rows, widths).block(titled("By reason"));
    frame.render_widget(table, right);
}

fn draw_attackers(frame: &mut Frame<'_>, model: &Model, area: Rect, wall: u64) {
    let attackers = model.attackers();
    let rows = attackers.iter().map(|attacker| {
        let ago = short_duration(wall.saturating_sub(attacker.last_at) / 1_000);
        Row::new([
            Cell::from(attacker.address.to_string()),
            Cell::from(Line::from(attacker.seen.to_string()).right_aligned()),
            Cell::from(ago),
            Cell::from(attacker.last.clone()),
        ])
    });
    let longest = attackers
        .iter()
        .take(usize::from(ATTACKERS) - 2)
        .map(|attacker| attacker.address.to_string().len())
        .fold(15, usize::max);
    let widths = [
        Constraint::Length(u16::try_from(longest).unwrap_or(u16::MAX)),
        Constraint::Length(7),
        Constraint::Length(4),
        Constraint::Fill(1),
    ];
    let table = Table::new(rows, widths)
        .header(header(["ADDRESS", "   SEEN", "LAST", "WHAT"]))
        .block(titled(&format!("Attackers ({})", attackers.len())));
    frame.render_widget(table, area);
}

fn draw_sessions(frame: &mut Frame<'_>, answers: &Answers, area: Rect) {
    let client_width = usize::from(area.width.saturating_sub(21));
    let rows = answers.sessions.iter().map(|row| {
        Row::new([
            end(row.ends.client, row.ends.client_port, client_width),
            short_duration(row.age),
            row.pinhole
                .map_or_else(|| "-".to_owned(), |port| port.to_string()),
            row.text.clone(),
        ])
    });
    let widths = [
        Constraint::Fill(1),
        Constraint::Length(4),
        Constraint::Length(5),
        Constraint::Length(9),
    ];
    let table = Table::new(rows, widths)
        .header(header(["CLIENT", "AGE", "PORT", "TEXT"]))
        .block(titled(&format!("Sessions ({})", answers.sessions.len())));
    frame.render_widget(table, area);
}

fn draw_pinholes(frame: &mut Frame<'_>, answers: &Answers, area: Rect) {
    let client_width = usize::from(area.width.saturating_sub(21));
    let rows = answers.pinholes.iter().map(|row| {
        Row::new([
            fit(&row.way.client.to_string(), client_width),
            row.way.port.to_string(),
            short_duration(row.age),
            row.origin.clone(),
        ])
    });
    let widths = [
        Constraint::Fill(1),
        Constraint::Length(5),
        Constraint::Length(4),
        Constraint::Length(9),
    ];
    let table = Table::new(rows, widths)
        .header(header(["CLIENT", "PORT", "AGE", "ORIGIN"]))
        .block(titled(&format!("Pinholes ({})", answers.pinholes.len())));
    frame.render_widget(table, area);
}

fn draw_foot(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let line = match (&model.trouble, model.paused) {
        (Some(trouble), _) => Line::from(trouble.clone()).red().bold(),
        (None, true) => Line::from("paused; space goes on, q quits").yellow().bold(),
        (None, false) => Line::from("q quits, space pauses").dim(),
    };
    frame.render_widget(Paragraph::new(line), area);
}

fn titled(title: &str) -> Block<'static> {
    Block::new()
        .borders(Borders::TOP)
        .border_style(Style::new().fg(Color::DarkGray))
        .title(Span::styled(
            format!(" {title} "),
            Style::new().add_modifier(Modifier::BOLD),
        ))
}

fn header<const N: usize>(names: [&'static str; N]) -> Row<'static> {
    Row::new(names).style(Style::new().add_modifier(Modifier::DIM))
}

fn end(address: IpAddr, port: u16, width: usize) -> String {
    fit(&SocketAddr::new(address, port).to_string(), width)
}

/// The text in at most `width` characters; what is too long loses its middle, because both ends
/// of an address tell more.
fn fit(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(2);
    let (start, end) = (kept / 2, kept - kept / 2);
    text.chars()
        .take(start)
        .chain("..".chars())
        .chain(text.chars().skip(length - end))
        .collect()
}

/// A number of seconds in four characters: its largest unit.
fn short_duration(seconds: u64) -> String {
    match seconds {
        0..100 => format!("{seconds}s"),
        100..6_000 => format!("{}m", seconds / 60),
        6_000..360_000 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}
