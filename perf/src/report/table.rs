//! The table: median and range of every case, and its ratio to what it is compared with.

use super::{Row, Sample};

/// Median, least and greatest of some figures; `None` when there are none.
fn spread(figures: impl Iterator<Item = f64>) -> Option<(f64, f64, f64)> {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_by(f64::total_cmp);
    let (least, greatest) = (*sorted.first()?, *sorted.last()?);
    let middle = sorted.len() / 2;
    let median = if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
    Some((median, least, greatest))
}

/// Three significant digits and a thousands mark.
fn short(figure: f64) -> String {
    match figure {
        figure if figure >= 999_500.0 => format!("{:.2}M", figure / 1e6),
        figure if figure >= 9_995.0 => format!("{:.1}k", figure / 1e3),
        figure if figure >= 100.0 => format!("{figure:.0}"),
        figure => format!("{figure:.2}"),
    }
}

fn cell(spread: Option<(f64, f64, f64)>) -> String {
    spread.map_or_else(
        || "-".to_owned(),
        |(median, least, most)| format!("{} ({}-{})", short(median), short(least), short(most)),
    )
}

/// Renders the rows with aligned columns.
pub(super) fn render(rows: &[Row]) -> String {
    let compared = rows.iter().flat_map(|row| &row.samples).any(|sample| sample.raw.is_some());
    let mut lines = vec![vec!["case".to_owned(), "median (range)".to_owned(), "unit".to_owned()]];
    if compared {
        lines[0].extend(["raw".to_owned(), "ratio".to_owned()]);
    }
    for row in rows {
        let mut line =
            vec![row.case.clone(), cell(spread(row.samples.iter().map(|sample| sample.value))), row.unit.to_owned()];
        if compared {
            line.push(cell(spread(row.samples.iter().filter_map(|sample| sample.raw))));
            line.push(cell(spread(row.samples.iter().filter_map(ratio))));
        }
        lines.push(line);
    }
    let columns = lines[0].len();
    let widths: Vec<usize> =
        (0..columns).map(|column| lines.iter().map(|line| line[column].len()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for line in lines {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// A sample's figure by what it is compared with, of the same round.
fn ratio(sample: &Sample) -> Option<f64> {
    sample.raw.map(|raw| sample.value / raw)
}

#[cfg(test)]
mod tests {
    //! Goal: the table says what was measured. Method: figures whose median and ratio are known by hand.

    use super::*;

    #[test]
    fn median_range_and_ratio_are_those_of_the_samples() {
        let mut row = Row::new("put", "puts/s");
        for (value, raw) in [(30.0, 60.0), (10.0, 40.0), (20.0, 40.0)] {
            row.samples.push(Sample { value, raw: Some(raw) });
        }
        let text = render(&[row]);
        assert!(text.contains("20.00 (10.00-30.00)"), "{text}");
        assert!(text.contains("0.50 (0.25-0.50)"), "{text}");
    }

    #[test]
    fn median_of_an_even_number_lies_between() {
        assert_eq!(spread([4.0, 1.0, 2.0, 3.0].into_iter()), Some((2.5, 1.0, 4.0)));
        assert_eq!(spread(std::iter::empty()), None);
    }
}
