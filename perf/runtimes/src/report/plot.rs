//! The picture: a panel per case, a bar per contender from zero, with the range of its rounds across its end.
//!
//! Written by hand, because a bar is a rectangle: no fonts, no library, readable on a light page and on paper. The scale is
//! linear, since what is compared is alike: a bar twice as long is twice as much.

use super::{Row, by_case, figure, spread};
use std::fmt::Write;

const COLUMNS: usize = 2;
const PANEL_WIDTH: f64 = 520.0;
const LABEL_WIDTH: f64 = 120.0;
/// Room for the figure behind the longest bar.
const FIGURE_WIDTH: f64 = 60.0;
const BAR_PITCH: f64 = 19.0;
const BAR_HEIGHT: f64 = 12.0;
const PANEL_TOP: f64 = 40.0;
const PANEL_BOTTOM: f64 = 22.0;
const MARGIN: f64 = 20.0;
const HEAD: f64 = 84.0;
const FOOT: f64 = 24.0;

/// The picture of all rows; `place` says where they were measured.
pub(super) fn draw(place: &str, rows: &[Row]) -> String {
    let cases: Vec<&[Row]> = by_case(rows).collect();
    let bars = cases.iter().map(|case| case.len()).max().unwrap_or(0);
    let panel_height = PANEL_TOP + BAR_PITCH * bars as f64 + PANEL_BOTTOM;
    let width = MARGIN * 2.0 + PANEL_WIDTH * COLUMNS as f64;
    let height = HEAD + panel_height * cases.len().div_ceil(COLUMNS) as f64 + FOOT;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         height=\"{height:.0}\" font-family=\"DejaVu Sans, Verdana, sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    let head = "A shard's disk work on the raw ring and on four runtimes";
    text(&mut out, MARGIN, 28.0, "font-size=\"18\" font-weight=\"bold\" fill=\"#111\"", head);
    for (line, words) in place.lines().enumerate() {
        text(&mut out, MARGIN, 48.0 + 15.0 * line as f64, "fill=\"#555\"", words);
    }
    for (number, case) in cases.iter().enumerate() {
        let left = MARGIN + PANEL_WIDTH * (number % COLUMNS) as f64;
        panel(&mut out, left, HEAD + panel_height * (number / COLUMNS) as f64, case);
    }
    let legend = "bar: median of the rounds, from zero; line across: their range; ranges that overlap are a tie. \
                  Red: what the engine stands on; blue: runtimes; light blue: threads, no io_uring.";
    text(&mut out, MARGIN, height - 10.0, "fill=\"#555\"", legend);
    out + "</svg>\n"
}

fn panel(out: &mut String, left: f64, top: f64, rows: &[Row]) {
    let case = rows[0].case;
    text(out, left, top + 16.0, "font-size=\"12\" font-weight=\"bold\" fill=\"#111\"", case.name);
    text(out, left, top + 31.0, "fill=\"#555\"", &format!("{}, longer is better", case.unit));
    let most = rows.iter().filter_map(|row| spread(&row.per_second)).map(|(_, _, high)| high).fold(0.0, f64::max);
    let room = PANEL_WIDTH - LABEL_WIDTH - FIGURE_WIDTH - MARGIN;
    let pixels = if most > 0.0 { room / most } else { 0.0 };
    for (line, row) in rows.iter().enumerate() {
        bar(out, left + LABEL_WIDTH, top + PANEL_TOP + BAR_PITCH * (line as f64 + 0.5), row, pixels);
    }
}

/// A contender's bar from `start` on, so many pixels per unit.
fn bar(out: &mut String, start: f64, middle: f64, row: &Row, pixels: f64) {
    text(out, start - 6.0, middle + 4.0, "text-anchor=\"end\" fill=\"#222\"", row.contender);
    let Some((median, low, high)) = spread(&row.per_second) else { return };
    let (wide, top) = (median * pixels, middle - BAR_HEIGHT / 2.0);
    let _ = writeln!(
        out,
        "<rect x=\"{start:.1}\" y=\"{top:.1}\" width=\"{wide:.1}\" height=\"{BAR_HEIGHT}\" fill=\"{}\"/>",
        colour(row.contender)
    );
    let (from, to, tick) = (start + low * pixels, start + high * pixels, middle - 3.0);
    let _ = writeln!(
        out,
        "<path d=\"M{from:.1} {middle:.1}H{to:.1}M{from:.1} {tick:.1}v6M{to:.1} {tick:.1}v6\" stroke=\"#111\" fill=\"none\"/>"
    );
    text(out, to + 5.0, middle + 4.0, "fill=\"#222\"", &figure(median));
}

fn colour(contender: &str) -> &'static str {
    match contender {
        "raw ring" => "#c8443c",
        "tokio thread pool" => "#a9c4e4",
        _ => "#4f7fb5",
    }
}

fn text(out: &mut String, x: f64, y: f64, attributes: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" {attributes}>{words}</text>");
}
