//! Pictures: panels of bars or lines on linear scales from zero, two beside each other.
//!
//! Written by hand, like those of `compare` and `runtimes` (workspaces of their own, whose panels hold a bar a contender): no
//! fonts, no library, readable on a light page and on paper.

use std::fmt::Write;

const COLUMNS: usize = 2;
const PANEL_WIDTH: f64 = 520.0;
const PANEL_HEIGHT: f64 = 300.0;
const MARGIN: f64 = 20.0;
const HEAD: f64 = 76.0;
/// Room around a panel's plot: for the title, the figures of both scales, and what is across.
const ABOVE: f64 = 44.0;
const BELOW: f64 = 46.0;
const BEFORE: f64 = 56.0;
const BEHIND: f64 = 24.0;
const BAR: &str = "#4f7fb5";

/// A line with its name.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) colour: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
}

/// What a panel shows.
pub(crate) enum Shape {
    /// Bars of the same width, each from where it begins.
    Bars {
        width: f64,
        bars: Vec<(f64, f64)>,
    },
    Lines(Vec<Line>),
}

/// One panel.
pub(crate) struct Panel {
    pub(crate) title: &'static str,
    pub(crate) across: &'static str,
    pub(crate) up: &'static str,
    pub(crate) shape: Shape,
}

/// The picture; `place` says what was measured.
pub(crate) fn draw(title: &str, place: &str, panels: &[Panel]) -> String {
    let width = MARGIN * 2.0 + PANEL_WIDTH * COLUMNS as f64;
    let height = HEAD + PANEL_HEIGHT * panels.len().div_ceil(COLUMNS) as f64 + MARGIN;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         height=\"{height:.0}\" font-family=\"DejaVu Sans, Verdana, sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    text(&mut out, MARGIN, 28.0, "font-size=\"18\" font-weight=\"bold\" fill=\"#111\"", title);
    text(&mut out, MARGIN, 48.0, "fill=\"#555\"", place);
    for (number, panel) in panels.iter().enumerate() {
        let left = MARGIN + PANEL_WIDTH * (number % COLUMNS) as f64;
        panel.draw(&mut out, left, HEAD + PANEL_HEIGHT * (number / COLUMNS) as f64);
    }
    out + "</svg>\n"
}

/// Where figures are in a panel.
struct Scales {
    left: f64,
    floor: f64,
    across: f64,
    up: f64,
}

impl Scales {
    fn x(&self, value: f64) -> f64 {
        self.left + value / self.across * (PANEL_WIDTH - BEFORE - BEHIND)
    }

    fn y(&self, value: f64) -> f64 {
        self.floor - value / self.up * (PANEL_HEIGHT - ABOVE - BELOW)
    }
}

impl Panel {
    /// The greatest figures of both scales.
    fn extent(&self) -> (f64, f64) {
        let of = |points: &[(f64, f64)], width: f64| {
            points.iter().fold((0.0f64, 0.0f64), |(x, y), point| (x.max(point.0 + width), y.max(point.1)))
        };
        match &self.shape {
            Shape::Bars { width, bars } => of(bars, *width),
            Shape::Lines(lines) => {
                lines.iter().map(|line| of(&line.points, 0.0)).fold((0.0, 0.0), |(x, y), (a, b)| (x.max(a), y.max(b)))
            }
        }
    }

    fn draw(&self, out: &mut String, left: f64, top: f64) {
        let (across, up) = self.extent();
        let (step_across, step_up) = (step(across), step(up));
        let floor = top + PANEL_HEIGHT - BELOW;
        let scales = Scales {
            left: left + BEFORE,
            floor,
            across: across.max(step_across),
            up: (up / step_up).ceil().max(1.0) * step_up,
        };
        text(out, left, top + 16.0, "font-size=\"12\" font-weight=\"bold\" fill=\"#111\"", self.title);
        text(out, left, top + 31.0, "fill=\"#555\"", self.up);
        let behind = left + PANEL_WIDTH - BEHIND;
        for nth in 0..=(scales.up / step_up).round() as u32 {
            let value = f64::from(nth) * step_up;
            let y = scales.y(value);
            let _ = writeln!(out, "<path d=\"M{:.1} {y:.1}H{behind:.1}\" stroke=\"#ddd\"/>", scales.left);
            text(out, scales.left - 6.0, y + 4.0, "text-anchor=\"end\" fill=\"#555\"", &figure(value, step_up));
        }
        for nth in 0..=(scales.across / step_across + 1e-9).floor() as u32 {
            let value = f64::from(nth) * step_across;
            let (x, half) = (
                scales.x(value),
                if let Shape::Bars { width, .. } = self.shape
                    && width == 1.0
                {
                    scales.x(0.5) - scales.left
                } else {
                    0.0
                },
            );
            if x + half <= behind {
                text(out, x + half, floor + 16.0, "text-anchor=\"middle\" fill=\"#555\"", &figure(value, step_across));
            }
        }
        text(
            out,
            f64::midpoint(scales.left, behind),
            floor + 34.0,
            "text-anchor=\"middle\" fill=\"#555\"",
            self.across,
        );
        match &self.shape {
            Shape::Bars { width, bars } => draw_bars(out, &scales, *width, bars),
            Shape::Lines(lines) => draw_lines(out, &scales, lines, top + 31.0, behind),
        }
    }
}

fn draw_bars(out: &mut String, scales: &Scales, width: f64, bars: &[(f64, f64)]) {
    for (at, value) in bars {
        let (left, top) = (scales.x(*at), scales.y(*value));
        let wide = (scales.x(at + width) - left - 1.0).max(0.5);
        let high = scales.floor - top;
        let _ = writeln!(
            out,
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{wide:.1}\" height=\"{high:.1}\" fill=\"{BAR}\"/>"
        );
    }
}

/// The lines, and their names from the right edge on.
fn draw_lines(out: &mut String, scales: &Scales, lines: &[Line], baseline: f64, behind: f64) {
    let mut end = behind;
    for line in lines.iter().rev() {
        let path: Vec<String> =
            line.points.iter().map(|(x, y)| format!("{:.1} {:.1}", scales.x(*x), scales.y(*y))).collect();
        if !path.is_empty() {
            let _ = writeln!(
                out,
                "<path d=\"M{}\" stroke=\"{}\" stroke-width=\"1.6\" fill=\"none\"/>",
                path.join("L"),
                line.colour
            );
        }
        text(
            out,
            end,
            baseline,
            &format!("text-anchor=\"end\" font-weight=\"bold\" fill=\"{}\"", line.colour),
            &line.name,
        );
        end -= 7.5 * line.name.len() as f64 + 14.0;
    }
}

/// A round step of which some four to ten make up the scale.
fn step(most: f64) -> f64 {
    if most <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf((most / 4.0).log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|times| times * power);
    steps.into_iter().rev().find(|step| most / step >= 4.0).unwrap_or(power)
}

fn figure(value: f64, step: f64) -> String {
    let decimals =
        if step >= 1.0 && step.fract() == 0.0 { 0 } else { (1.0 - step.log10()).ceil().clamp(1.0, 6.0) as usize };
    format!("{value:.decimals$}")
}

fn text(out: &mut String, x: f64, y: f64, attributes: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" {attributes}>{words}</text>");
}

#[cfg(test)]
mod tests {
    //! Goal: what is drawn lies in its panel, and scales have round steps. Method: figures of many sizes; the coordinates read back.

    use super::*;

    #[test]
    fn steps_are_round_and_neither_few_nor_many() {
        for (most, expected) in [(1.0, 0.25), (4.0, 1.0), (100.0, 25.0), (7.0, 1.0), (0.387, 0.05), (60.0, 10.0)] {
            assert!((step(most) - expected).abs() < 1e-9, "{most}: {}", step(most));
        }
        for most in 1..1_000 {
            assert!((4.0..=10.0 + 1e-9).contains(&(f64::from(most) / step(f64::from(most)))), "{most}");
        }
    }

    #[test]
    fn bars_end_where_their_figures_are() {
        let shape = Shape::Bars { width: 1.0, bars: vec![(0.0, 25.0), (1.0, 100.0)] };
        let svg = draw("t", "p", &[Panel { title: "a<b", across: "x", up: "y", shape }]);
        assert!(svg.contains("a&lt;b") && svg.ends_with("</svg>\n"));
        let heights: Vec<f64> = svg
            .lines()
            .filter(|line| line.contains(BAR))
            .filter_map(|line| line.split("height=\"").nth(1)?.split('"').next()?.parse().ok())
            .collect();
        assert_eq!(heights.len(), 2);
        assert!(
            (heights[1] - 4.0 * heights[0]).abs() < 0.2 && (heights[1] - (PANEL_HEIGHT - ABOVE - BELOW)).abs() < 0.1
        );
    }
}
