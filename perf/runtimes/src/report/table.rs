//! The table: per case a line a contender, always in the same order, the raw ring first.

use super::{Row, by_case, figure, spread};

/// All rows.
pub(super) fn render(rows: &[Row]) -> String {
    let mut text = String::new();
    for case in by_case(rows) {
        let raw = &case[0];
        text += &format!("\n{} ({}, more is better)\n", raw.case.name, raw.case.unit);
        text +=
            &format!("  {:18} {:>8} {:16} {:>6} {:13} {:>12}", "", "median", "(range)", "x raw", "", "processor µs");
        text += if raw.case.is_append() { "  flushes\n" } else { "\n" };
        for row in case {
            text += line(row, raw).trim_end();
            text.push('\n');
        }
    }
    text
}

fn line(row: &Row, raw: &Row) -> String {
    let ratios: Vec<f64> = row.per_second.iter().zip(&raw.per_second).map(|(here, there)| here / there).collect();
    let ratio = if std::ptr::eq(row, raw) { [String::new(), String::new()] } else { cells(&ratios) };
    let ([rate, rates], [processor, _]) = (cells(&row.per_second), cells(&row.processor_microseconds));
    let [flushes, _] = cells(&row.flushes_per_commit);
    format!("  {:18} {rate:>8} {rates:16} {:>6} {:13} {processor:>12}  {flushes:>7}", row.contender, ratio[0], ratio[1])
}

/// Median and range; no range of a single round.
fn cells(figures: &[f64]) -> [String; 2] {
    match (spread(figures), figures.len()) {
        (None, _) => [String::new(), String::new()],
        (Some((median, ..)), 1) => [figure(median), String::new()],
        (Some((median, low, high)), _) => [figure(median), format!("({}-{})", figure(low), figure(high))],
    }
}
