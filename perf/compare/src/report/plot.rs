//! Pictures: one SVG per workload, a panel per case, a bar per store on a logarithmic scale with its range across it.
//!
//! Written by hand, because a bar is a rectangle: no fonts, no library, readable on a light page and on paper.

use super::{Better, Case, Row, cases, figure, title};
use std::fmt::Write;

const PANEL_WIDTH: f64 = 470.0;
/// Room for what is said above and below the panels.
const WIDTH_MIN: f64 = 1_120.0;
const LABEL_WIDTH: f64 = 120.0;
/// Room for the figure behind the longest bar.
const FIGURE_WIDTH: f64 = 60.0;
const BAR_PITCH: f64 = 19.0;
const BAR_HEIGHT: f64 = 12.0;
const PANEL_TOP: f64 = 40.0;
const PANEL_BOTTOM: f64 = 26.0;
const MARGIN: f64 = 20.0;
const HEAD: f64 = 84.0;
const FOOT: f64 = 30.0;
/// Letters of a reason that fit into a panel.
const REASON_LETTERS: usize = 58;

/// The picture of one workload's rows.
pub(super) fn draw(workload: &str, place: &str, rows: &[&Row]) -> String {
    let cases = cases(rows.iter().copied());
    let columns = cases.len().clamp(1, 3);
    let heights: Vec<f64> = cases.chunks(columns).map(|line| line_height(line, rows)).collect();
    let width = (MARGIN * 2.0 + PANEL_WIDTH * columns as f64).max(WIDTH_MIN);
    let height = HEAD + heights.iter().sum::<f64>() + FOOT;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         height=\"{height:.0}\" font-family=\"DejaVu Sans, Verdana, sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    text(&mut out, MARGIN, 28.0, "font-size=\"18\" font-weight=\"bold\" fill=\"#111\"", title(workload));
    for (line, words) in place.lines().enumerate() {
        text(&mut out, MARGIN, 48.0 + 15.0 * line as f64, "fill=\"#555\"", words);
    }
    let mut top = HEAD;
    for (line, height) in cases.chunks(columns).zip(&heights) {
        for (column, case) in line.iter().enumerate() {
            panel(&mut out, MARGIN + PANEL_WIDTH * column as f64, top, case, rows);
        }
        top += height;
    }
    let legend = "bar: median of the rounds; line across: their range; logarithmic scale. Red: ours (light: asked one at a \
                  time); blue: rivals as they come; light blue: rivals behind our batcher; grey: the device itself.";
    text(&mut out, MARGIN, height - 12.0, "fill=\"#555\"", legend);
    out + "</svg>\n"
}

fn line_height(cases: &[&Case], rows: &[&Row]) -> f64 {
    let most = cases.iter().map(|case| rows.iter().filter(|row| row.case == **case).count()).max().unwrap_or(0);
    PANEL_TOP + BAR_PITCH * most as f64 + PANEL_BOTTOM
}

fn panel(out: &mut String, left: f64, top: f64, case: &Case, rows: &[&Row]) {
    let here: Vec<&&Row> = rows.iter().filter(|row| row.case == *case).collect();
    let way = if case.better == Better::Higher { "longer is better" } else { "shorter is better" };
    text(out, left, top + 16.0, "font-size=\"12\" font-weight=\"bold\" fill=\"#111\"", &case.name);
    text(out, left, top + 31.0, "fill=\"#555\"", &format!("{}, {way}", case.unit));
    let scale = Scale::of(&here, left + LABEL_WIDTH, PANEL_WIDTH - LABEL_WIDTH - FIGURE_WIDTH - MARGIN);
    let floor = top + PANEL_TOP + BAR_PITCH * here.len() as f64;
    scale.grid(out, top + PANEL_TOP, floor);
    for (line, row) in here.iter().enumerate() {
        let middle = top + PANEL_TOP + BAR_PITCH * (line as f64 + 0.5);
        bar(out, left, middle, row, &scale);
    }
}

fn bar(out: &mut String, left: f64, middle: f64, row: &Row, scale: &Scale) {
    let (start, baseline) = (left + LABEL_WIDTH, middle + 4.0);
    let label = "text-anchor=\"end\" fill=\"#222\"";
    text(out, start - 6.0, baseline, label, &row.store);
    let Some((median, low, high)) = row.spread() else {
        let reason = row.absent.as_deref().unwrap_or("not reached");
        let mut shown: String = reason.chars().take(REASON_LETTERS).collect();
        if shown.len() < reason.len() {
            shown += "…";
        }
        return text(out, start + 4.0, baseline, "fill=\"#888\" font-style=\"italic\" font-size=\"9.5\"", &shown);
    };
    let end = scale.at(median);
    let (y, wide) = (middle - BAR_HEIGHT / 2.0, (end - start).max(1.0));
    let _ = writeln!(
        out,
        "<rect x=\"{start:.1}\" y=\"{y:.1}\" width=\"{wide:.1}\" height=\"{BAR_HEIGHT}\" fill=\"{}\"/>",
        colour(&row.store)
    );
    let (from, to) = (scale.at(low), scale.at(high));
    let _ = writeln!(
        out,
        "<path d=\"M{from:.1} {middle:.1}H{to:.1}M{from:.1} {:.1}v6M{to:.1} {:.1}v6\" stroke=\"#111\" fill=\"none\"/>",
        middle - 3.0,
        middle - 3.0
    );
    text(out, to.max(end) + 5.0, baseline, "fill=\"#222\"", &figure(median));
}

fn colour(store: &str) -> &'static str {
    match store {
        "engine" => "#c8443c",
        _ if store.starts_with("engine") => "#e39a94",
        _ if store.starts_with("raw") || store.starts_with("fio") => "#9a9a9a",
        _ if store.ends_with("+ batcher") => "#a9c4e4",
        _ => "#4f7fb5",
    }
}

fn text(out: &mut String, x: f64, y: f64, attributes: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" {attributes}>{words}</text>");
}

/// A logarithmic scale that begins and ends at a power of ten.
struct Scale {
    left: f64,
    width: f64,
    low: i32,
    high: i32,
}

impl Scale {
    fn of(rows: &[&&Row], left: f64, width: f64) -> Scale {
        let mut ends: Option<(f64, f64)> = None;
        for (_, low, high) in rows.iter().filter_map(|row| row.spread()) {
            let (least, most) = ends.unwrap_or((f64::INFINITY, 0.0));
            // What is not above nought has no place on this scale; it is drawn at its beginning.
            ends = Some((if low > 0.0 { least.min(low) } else { least }, most.max(high)));
        }
        let (least, most) = ends.filter(|(least, most)| least.is_finite() && *most > 0.0).unwrap_or((1.0, 10.0));
        // The shortest bar must still be a bar.
        let low = (least * 0.7).log10().floor() as i32;
        let high = (most.log10().ceil() as i32).max(low + 1);
        Scale { left, width, low, high }
    }

    fn at(&self, value: f64) -> f64 {
        let low = f64::from(self.low);
        let decades = (value.max(f64::MIN_POSITIVE).log10() - low).clamp(0.0, f64::from(self.high - self.low));
        self.left + self.width * decades / f64::from(self.high - self.low)
    }

    fn grid(&self, out: &mut String, top: f64, floor: f64) {
        for power in self.low..=self.high {
            let x = self.at(10_f64.powi(power));
            let _ = writeln!(out, "<path d=\"M{x:.1} {top:.1}V{floor:.1}\" stroke=\"#ddd\"/>");
            text(out, x, floor + 13.0, "text-anchor=\"middle\" fill=\"#777\" font-size=\"9\"", &tick(power));
        }
    }
}

/// A power of ten, short.
fn tick(power: i32) -> String {
    match power {
        ..0 => format!("{:.1$}", 10_f64.powi(power), power.unsigned_abs() as usize),
        0..=2 => format!("{:.0}", 10_f64.powi(power)),
        3..=5 => format!("{:.0}k", 10_f64.powi(power - 3)),
        6..=8 => format!("{:.0}M", 10_f64.powi(power - 6)),
        _ => format!("1e{power}"),
    }
}
