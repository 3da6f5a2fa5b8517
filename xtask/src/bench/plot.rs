//! Plots, as SVG.

use anyhow::{Context as _, Result};
use plotters::prelude::*;

use super::{
    stats::Spread,
    table::{Kind, Table, figure},
};

const WIDTH: u32 = 960;
const BAR: u32 = 26;
const NAME_WIDTH: u32 = 380;
const BLUE: RGBColor = RGBColor(0x2f, 0x6f, 0xb0);
const GREY: RGBColor = RGBColor(0x9a, 0xa4, 0xad);

/// The first measure of a table that can be drawn: ratios where there are any, with their
/// spread. None where there is nothing to compare.
pub(super) fn bars(table: &Table) -> Option<String> {
    let compared = table
        .measures()
        .iter()
        .position(|measure| measure.kind == Kind::Compared)?;
    let measure = table.measures().get(compared)?;
    let bars: Vec<(String, Spread)> = table
        .row_names()
        .enumerate()
        .filter_map(|(row, name)| Some((name.to_owned(), table.ratio(row, compared)?)))
        .collect();
    if bars.len() < 2 {
        return None;
    }
    draw(&format!("{}: ratio", measure.name), &bars).ok()
}

fn draw(caption: &str, bars: &[(String, Spread)]) -> Result<String> {
    let count = u32::try_from(bars.len()).context("too many bars")?;
    let most = bars.iter().map(|(_, bar)| bar.most).fold(1.0, f64::max);
    // One way that is many times slower than the rest would leave nothing to see of them.
    let median = bars.iter().map(|(_, bar)| bar.median).fold(1.0, f64::max);
    let limit = most.min(median * 1.5) * 1.12;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, count * BAR + 70)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(caption, ("sans-serif", 18))
            .margin(8)
            .x_label_area_size(26)
            .y_label_area_size(NAME_WIDTH)
            .build_cartesian_2d(0.0..limit, 0.0..f64::from(count))?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .light_line_style(WHITE)
            .x_label_formatter(&|x| figure(*x))
            .draw()?;
        for (number, (name, bar)) in (0_u32..).zip(bars) {
            let top = f64::from(count - number);
            let color = if number == 0 { GREY } else { BLUE };
            let end = bar.median.min(limit);
            chart.draw_series([Rectangle::new(
                [(0.0, top - 0.25), (end, top - 0.75)],
                color.filled(),
            )])?;
            let spread = [bar.least.min(limit), bar.most.min(limit)];
            chart.draw_series([PathElement::new(
                spread.map(|x| (x, top - 0.5)).to_vec(),
                BLACK.stroke_width(1),
            )])?;
            let label = TextStyle::from(("sans-serif", 15)).color(&BLACK);
            let x = spread[1].max(end) + limit * 0.008;
            let text = figure((bar.median * 100.0).round() / 100.0);
            chart.draw_series([Text::new(text, (x, top - 0.25), label)])?;
            let (_, y) = chart.backend_coord(&(0.0, top - 0.25));
            let name = Text::new(name.clone(), (10, y), ("sans-serif", 15));
            area.draw(&name)?;
        }
        area.present()?;
    }
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::{super::table, *};

    #[test]
    fn every_way_has_a_bar_and_a_name() {
        let svg = bars(&table::tests::example()).expect("drawn");
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        // The background, and one for each way.
        assert_eq!(svg.matches("<rect").count(), 3, "{svg}");
        for text in ["off", "on", "p50: ratio", "1.1"] {
            assert!(svg.contains(text), "{text}");
        }
    }

    #[test]
    fn nothing_is_drawn_of_a_table_without_ratios() {
        let table = Table::new("memory", &[table::alone("memory", "MiB")], ["a", "b"]);
        assert!(bars(&table).is_none());
    }
}
