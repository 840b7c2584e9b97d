//! The table: per case, stores from best to worst, each with median, range, and how ours compares in the same rounds.

use super::{Better, Case, Row, cases, figure, title};

/// The store that others are compared with.
const OURS: &str = "engine";

/// All rows, by workload and case.
pub(super) fn render(rows: &[Row]) -> String {
    let mut text = String::new();
    let mut workload = "";
    for case in cases(rows) {
        if case.workload != workload {
            workload = case.workload;
            text += &format!("\n{}\n", title(workload));
        }
        let arrow = if case.better == Better::Higher { "more is better" } else { "less is better" };
        text += &format!("\n  {} ({}, {arrow})\n", case.name, case.unit);
        text += &lines(case, rows);
    }
    text
}

fn lines(case: &Case, rows: &[Row]) -> String {
    let mut here: Vec<&Row> = rows.iter().filter(|row| row.case == *case).collect();
    let ours = here.iter().find(|row| row.store == OURS).map(|row| row.samples.clone()).unwrap_or_default();
    here.sort_by(|left, right| rank(case, left).total_cmp(&rank(case, right)));
    let mut text = String::new();
    for row in here {
        text += &match (row.spread(), &row.absent) {
            (Some((median, low, high)), absent) => {
                let range = match row.samples.len() {
                    1 => "(one round)".to_owned(),
                    _ => format!("({}-{})", figure(low), figure(high)),
                };
                let but = absent.as_ref().map(|reason| format!("  some rounds absent: {reason}")).unwrap_or_default();
                let line =
                    format!("    {:22} {:>8}  {range:18} {}", row.store, figure(median), ratio(case, row, &ours));
                format!("{}{but}\n", line.trim_end())
            }
            (None, Some(reason)) => format!("    {:22} absent: {reason}\n", row.store),
            (None, None) => format!("    {:22} absent: not reached\n", row.store),
        };
    }
    text
}

/// Best first, those without figures last.
fn rank(case: &Case, row: &Row) -> f64 {
    let Some((median, ..)) = row.spread() else { return f64::INFINITY };
    if case.better == Better::Higher { -median } else { median }
}

/// How many times better ours was, round by round: above one is ours.
fn ratio(case: &Case, row: &Row, ours: &[f64]) -> String {
    if row.store == OURS || ours.is_empty() {
        return String::new();
    }
    let pairs = ours.iter().zip(&row.samples).filter(|(ours, theirs)| **ours > 0.0 && **theirs > 0.0);
    let samples = pairs.map(|(ours, theirs)| if case.better == Better::Higher { ours / theirs } else { theirs / ours });
    let ratios = Row { case: case.clone(), store: String::new(), samples: samples.collect(), absent: None };
    match (ratios.spread(), ratios.samples.len()) {
        (None, _) => String::new(),
        (Some((median, ..)), 1) => format!("ours x{}", figure(median)),
        (Some((median, low, high)), _) => format!("ours x{} ({}-{})", figure(median), figure(low), figure(high)),
    }
}
